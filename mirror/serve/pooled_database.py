"""A Datasette database whose reads run in separate groups of threads, so that slow ones delay no others."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Literal
from weakref import WeakSet

from datasette.database import Database
from datasette.views.base import DatasetteError

ReadKind = Literal["lookup", "sql", "count"]

THREADS: dict[ReadKind, int] = {"sql": 4, "count": 2}
MOST_WAITING = 100
"""How many reads of one kind may wait for a thread; beyond that, reads are refused at once."""

_kind = ContextVar[ReadKind]("kind", default="lookup")


@contextlib.contextmanager
def reading_for(kind: ReadKind) -> Iterator[None]:
    """Run the reads that this task starts in the threads of a kind."""
    token = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(token)


class PooledDatabase(Database):  # type: ignore[misc]
    """A database with separate threads for the SQL of visitors (`execute`) and for counts."""

    def __init__(self, original: Database) -> None:
        super().__init__(original.ds, original.path, original.is_mutable, original.is_memory)
        self.name, self.route = original.name, original.route
        self._pools = {kind: ThreadPoolExecutor(most, kind) for kind, most in THREADS.items()}
        self._waiting = dict.fromkeys(THREADS, 0)

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        """Run a statement, perhaps of a visitor; raises DatasetteError 503 if too many are waiting."""
        with reading_for("sql"):
            return await super().execute(*arguments, **options)

    async def execute_fn(self, fn: Callable[[Any], Any]) -> Any:
        """Run a function with a connection, in the threads of this task's kind of reads."""
        kind = _kind.get()
        work = self.work(fn, kind)
        if self.ds.executor is None:
            return work()
        loop = asyncio.get_running_loop()
        if kind not in self._pools:
            return await loop.run_in_executor(self.ds.executor, work)
        if self._waiting[kind] >= MOST_WAITING + THREADS[kind]:
            raise DatasetteError("Too many queries are waiting. Try again in a moment.", status=503)
        self._waiting[kind] += 1
        try:
            return await loop.run_in_executor(self._pools[kind], work)
        finally:
            self._waiting[kind] -= 1

    def read_at_once(self, fn: Callable[[Any], Any]) -> Any:
        """Run a function with a connection in this thread; raises OperationalError rather than to wait."""

        def unwaiting(connection: Any) -> Any:
            if self.ds.executor is not None:  # else this thread uses the connection for all other reads, too
                connection.execute("PRAGMA busy_timeout = 0")
            return fn(connection)

        return self.work(unwaiting, "lookup")()

    def work(self, fn: Callable[[Any], Any], kind: ReadKind) -> Callable[[], Any]:
        """Return a call of the function with the thread's own connection for a kind of reads."""
        raise NotImplementedError


Key = Any
Limited = Callable[[Any, int], Any]
"""A function of a connection and of the milliseconds that its SQL may take."""

AT_ONCE_MS = 25
SLOW_SECONDS = 2.0
"""For how long a kind of read goes to the threads after one of them took longer than AT_ONCE_MS."""


async def read_in_thread(database: PooledDatabase, _: Key, fn: Limited, limit: int) -> Any:
    """Run a function in a thread."""
    return await database.execute_fn(lambda connection: fn(connection, limit))


class QuickReads:
    """Reads that take less time than a change of threads, so they are done where requests come in.

    One that takes longer, or would have to wait for a lock, is done again in a thread, and so are those of
    its kind for a while: other requests wait for none of them. Functions must only read.
    """

    def __init__(
        self, stopwatch: Callable[[], float] = time.monotonic, *, milliseconds: int = AT_ONCE_MS
    ) -> None:
        self._stopwatch, self._milliseconds = stopwatch, milliseconds
        self._slow_until = dict[Key, float]()
        self._opened = WeakSet[PooledDatabase]()

    async def read(self, database: PooledDatabase, kind: Key, fn: Limited, limit: int) -> Any:
        """Run a function of a kind of reads, here if that is quick; `limit` holds for a thread."""
        with contextlib.suppress(sqlite3.OperationalError):  # a real error comes again
            if self._is_quick(database, kind):
                return self._read_here(database, kind, fn, min(self._milliseconds, limit))
        return await read_in_thread(database, kind, fn, limit)

    def _is_quick(self, database: PooledDatabase, kind: Key) -> bool:
        """Return whether no read of a kind was slow lately. Opens the database, which is slow, too."""
        if database not in self._opened:
            database.read_at_once(lambda _: None)
            self._opened.add(database)
        return kind not in self._slow_until or self._stopwatch() >= self._slow_until[kind]

    def _read_here(self, database: PooledDatabase, kind: Key, fn: Limited, limit: int) -> Any:
        began = self._stopwatch()
        try:
            return database.read_at_once(lambda connection: fn(connection, limit))
        finally:
            ended = self._stopwatch()
            if ended - began > self._milliseconds / 1000:
                self._slow_until[kind] = ended + SLOW_SECONDS
