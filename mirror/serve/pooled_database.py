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
"""How many reads of one kind may wait for a thread; more are refused at once."""

_kind = ContextVar[ReadKind]("kind", default="lookup")


@contextmanager
def reading_for(kind: ReadKind) -> Iterator[None]:
    """Let the reads that this task begins use the threads of a kind."""
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
        """Run a statement, which may be a visitor's; raises DatasetteError 503 where too many wait."""
        with reading_for("sql"):
            return await super().execute(*arguments, **options)

    async def execute_fn(self, fn: Callable[[Any], Any]) -> Any:
        """Run a function with a connection, by the threads for what this task reads."""
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
        """Return what a thread is to do: call the function with its connection for reads of a kind."""
        raise NotImplementedError
