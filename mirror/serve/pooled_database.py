"""A Datasette database whose reads run in separate groups of threads, so that slow ones delay no others."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from datasette.database import Database
from datasette.views.base import DatasetteError

ReadKind = Literal["lookup", "sql", "count"]

THREADS: dict[ReadKind, int] = {"sql": 4, "count": 2}
MOST_WAITING = 100
"""How many reads of one kind may wait for a thread; beyond that, reads are refused at once."""

_kind = ContextVar[ReadKind]("kind", default="lookup")


@contextmanager
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

    def work(self, fn: Callable[[Any], Any], kind: ReadKind) -> Callable[[], Any]:
        """Return a call of the function with the thread's own connection for a kind of reads."""
        raise NotImplementedError
