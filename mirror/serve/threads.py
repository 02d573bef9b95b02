"""Which threads read a mirror: visitors' SQL and long counts have their own, and hold up nothing else.

Datasette has one pool for all reads. Four slow queries would fill it, and neither API nor page would answer.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from datasette.database import Database, connections
from datasette.views.base import DatasetteError

if TYPE_CHECKING:
    from datasette.app import Datasette

Kind = Literal["lookup", "sql", "count"]

THREADS: dict[Kind, int] = {"sql": 4, "count": 2}
MOST_WAITING = 100
"""How many reads of one kind may wait for a thread; more are refused at once."""

_kind = ContextVar[Kind]("kind", default="lookup")


@contextmanager
def reading_for(kind: Kind) -> Iterator[None]:
    """Let the reads that this task begins use the threads of a kind."""
    token = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(token)


class MirrorDatabase(Database):  # type: ignore[misc]
    """A database whose SQL of visitors (`execute`) and counts have threads of their own."""

    def __init__(self, ds: "Datasette", path: str, *, is_mutable: bool) -> None:
        super().__init__(ds, path, is_mutable=is_mutable)
        self._pools = {kind: ThreadPoolExecutor(most, kind) for kind, most in THREADS.items()}
        self._waiting = dict.fromkeys(THREADS, 0)

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        """Run a statement, which may be a visitor's; raises DatasetteError 503 where too many wait."""
        with reading_for("sql"):
            return await super().execute(*arguments, **options)

    async def execute_fn(self, fn: Callable[[Any], Any]) -> Any:
        """Run a function with a connection of the threads that this task reads with."""
        kind = _kind.get()
        if kind not in self._pools or self.ds.executor is None:
            return await super().execute_fn(fn)
        if self._waiting[kind] >= MOST_WAITING + THREADS[kind]:
            raise DatasetteError("Too many queries are waiting. Try again in a moment.", status=503)
        self._waiting[kind] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pools[kind], lambda: fn(self._connection())
            )
        finally:
            self._waiting[kind] -= 1

    def _connection(self) -> Any:
        """Return this thread's connection."""
        found = getattr(connections, self.name, None)
        if found is None:
            found = self.connect()
            self.ds._prepare_connection(found, self.name)  # noqa: SLF001 - as Datasette does it
            setattr(connections, self.name, found)
        return found


def separate(datasette: "Datasette", databases: list[Database]) -> None:
    """Put databases with threads of their own in the places of some that Datasette opened."""
    for old in databases:
        if not isinstance(old, MirrorDatabase):
            datasette.remove_database(old.name)
            new = MirrorDatabase(datasette, old.path, is_mutable=old.is_mutable)
            datasette.add_database(new, name=old.name, route=old.route)
