"""Attached files: which of them are mirrors, which threads read them, what visitors' SQL may read.

Datasette and other plugins read for visitors, with `Database.execute` and `execute_fn`; this program reads
with `GuardedDatabase.read`. What is read for visitors has its own connections, restricted to what the visitor
may see, and its own threads, so it delays no other reads.
"""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datasette.database import Database, QueryInterrupted, Results
from datasette.utils.asgi import Forbidden
from datasette.views.base import DatasetteError

from mirror.errors import StoreError
from mirror.search.find import one_snapshot
from mirror.serve.sql_access import (
    STRANGERS,
    Nobody,
    Reach,
    SqlVisitor,
    current_visitor,
    functions_of,
    open_virtual_tables,
    restrict,
    suits,
)
from mirror.serve.sql_limits import BoundedConnection
from mirror.serve.table_metadata import HIDDEN
from mirror.store.files import schema_version
from mirror.store.paths import file_identity, must_be_immutable, reading_address
from mirror.store.schema import APPLICATION_ID, VERSION

if TYPE_CHECKING:
    from datasette.app import Datasette

ReadKind = Literal["lookup", "sql", "count"]

THREADS: dict[ReadKind, int] = {"sql": 4, "count": 2}
MOST_WAITING = 100  # how many reads of one kind may wait for a thread. Further ones are refused at once.
as_csv = ContextVar[bool]("as_csv", default=False)
"""Whether the request of this task is answered with CSV."""

# A file with all of these is a mirror, even if a restored dump has lost its `application_id`.
TABLES = ("upstreams", "repositories", "sync_runs")

_ABOUT_TABLE = re.compile(
    r"\s*PRAGMA\s+((?:table_x?info|index_list|(foreign_key_list))\s*\(\s*[\[\"'`]?(\w*).*)",
    re.IGNORECASE | re.DOTALL,
)
MOST_FACETS = 20  # of a page; each may take the whole time limit of facets
_facets = ContextVar[int]("facets", default=0)  # how many of them the request of this task has counted

_REFUSED = re.compile("is prohibited$|^not authorized$")  # what SQLite says for its authorizer

ATTEMPTS = 5  # how often a read is repeated when the file is replaced meanwhile


class VisitorConnection(BoundedConnection):
    """A connection for the reads of Datasette and of plugins, on which hidden tables have no foreign keys."""

    def execute(self, sql: str, *arguments: Any) -> Any:
        """Run a statement."""
        asked = _ABOUT_TABLE.match(sql)
        if asked and asked[2] and asked[3].startswith(HIDDEN):
            # Plugins follow such keys to tables that are hidden from them, and fail.
            sql = "SELECT 1 WHERE 0"
        elif asked:  # the table, not the temporary view from which strangers read, which has no keys
            sql = f"PRAGMA main.{asked[1]}"
        return super().execute(sql, *arguments)


class GuardedDatabase(Database):  # type: ignore[misc]
    """A file, or the in-memory database of `--crossdb`, on which the SQL of visitors is restricted.

    That SQL (`execute`, `execute_fn`) and counts have threads of their own.
    """

    def __init__(self, original: Database) -> None:
        super().__init__(original.ds, original.path, original.is_mutable, original.is_memory)
        self.name, self.route = original.name, original.route
        self._pools = {kind: ThreadPoolExecutor(most, kind) for kind, most in THREADS.items()}
        self._waiting = dict.fromkeys(THREADS, 0)
        self._is_mirror = False
        self._other_state: object = None
        self._kept = threading.local()

    def is_mirror(self) -> bool:
        """Return whether the file is a mirror. A file that cannot be read counts as one."""
        if self.path is None or self._is_mirror:
            return self._is_mirror
        state = _state(Path(self.path))
        if state is None or state != self._other_state:
            try:
                with closing(self.connect()) as connection:
                    self._is_mirror = has_mirror(connection)
            except sqlite3.Error:
                return True
            self._other_state = state
        return self._is_mirror

    @property
    def size(self) -> int:
        """The bytes of the file; 0 for a visitor from whom it hides rows: they would tell how many."""
        return 0 if self._is_hidden() else int(super().size)

    @property
    def hash(self) -> str | None:
        """The hash of an immutable file; None for a visitor from whom it hides rows."""
        return None if self._is_hidden() else super().hash

    def _is_hidden(self) -> bool:
        """Return whether the file hides rows from the visitor; if in doubt, yes."""
        visitor = current_visitor.get()
        if isinstance(visitor, Nobody) or not self.is_mirror() or visitor.sees_all(self.name):
            return False
        try:
            return self.lacks_changes() or self.read_at_once(
                lambda connection: bool(visitor.lacks(connection, self.name))
            )
        except sqlite3.Error:
            return True

    def lacks_changes(self) -> bool:
        """Return whether an immutable file has changes in its WAL, which immutable readers do not see."""
        try:
            return not self.is_mutable and Path(f"{self.path}-wal").stat().st_size > 0
        except OSError:
            return False

    def refuse_outdated(self) -> None:
        """Raise OperationalError if the file lacks changes: they may hide a repository, or revoke a token."""
        if self.lacks_changes():
            raise sqlite3.OperationalError(f"{self.path} lacks changes")

    def inode(self) -> object:
        """Return the identity of the file at the path, which one that replaces it does not have."""
        return file_identity(self.path or "")

    def close(self) -> None:
        """Close all connections, when what uses them has ended."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
        super().close()

    def connect(self, write: bool = False) -> sqlite3.Connection:  # noqa: FBT001, FBT002 - as Datasette calls it
        """Open a connection as Datasette does; unlike there, the path may contain any characters."""
        return self._open(sqlite3.Connection, write=write)

    async def execute(self, *arguments: Any, **options: Any) -> Results:
        """Run the SQL of a visitor.

        Raises Forbidden if the file is closed to the visitor, QueryInterrupted for a facet too many,
        DatasetteError 503 if too many wait, and 400 if it fails for a CSV, which Datasette would answer with
        no rows.
        """
        if options.get("truncate"):  # the rows of a page, which are read first
            _facets.set(0)
        elif options.get("custom_time_limit") == self.ds.setting("facet_time_limit_ms"):
            if _facets.get() >= MOST_FACETS:
                raise QueryInterrupted("too many facets", "", {})
            _facets.set(_facets.get() + 1)
        # The visitor is told; what anybody may type, and as often, is nothing for the terminal.
        options["log_sql_errors"] = False
        try:
            found = await super().execute(*arguments, **options)
        except (sqlite3.DatabaseError, QueryInterrupted) as error:
            if not (as_csv.get() and options.get("truncate")):  # the others read the names of rows
                raise
            if isinstance(error, QueryInterrupted):
                raise DatasetteError(
                    "SQL query took too long.", title="SQL Interrupted", status=400
                ) from error
            raise DatasetteError(str(error), title="Invalid SQL", status=400) from error  # as in JSON
        # Datasette puts the name of a withheld column into brackets.
        found.description = [
            (name[1:-1] if name.startswith("[") and name.endswith("]") else name, *more)
            for name, *more in found.description or ()
        ]
        return found

    async def execute_fn(self, fn: Callable[[Any], Any]) -> Any:
        """Run a function of Datasette or of a plugin, with a connection for the visitor's SQL."""
        return await self.read(fn, "sql")

    async def read(self, fn: Callable[[Any], Any], kind: ReadKind = "lookup") -> Any:
        """Run a function in a thread for a kind of reads; its connection reads everything, unless for SQL."""
        work = self._work(fn, kind)
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
        """Run a function with a connection in this thread; raises OperationalError instead of waiting."""

        def unwaiting(connection: Any) -> Any:
            if self.ds.executor is not None:  # else this thread uses the connection for all other reads too
                connection.execute("PRAGMA busy_timeout = 0")
            return fn(connection)

        return self._work(unwaiting, "lookup")()

    def _work(self, fn: Callable[[sqlite3.Connection], Any], kind: ReadKind) -> Callable[[], Any]:
        """Return a call of a function; visitors' SQL gets a restricted connection."""
        visitor = current_visitor.get()
        return lambda: self._steadily(
            lambda: self._visit(fn, visitor) if kind == "sql" else fn(self._connection(None))
        )

    def _steadily(self, read: Callable[[], Any]) -> Any:
        """Read the file that is at the path now. If it was replaced meanwhile, read the new one.

        Raises OperationalError if it changes every time.
        """
        for _ in range(ATTEMPTS):
            self._close_if_changed()
            try:
                found = read()
            except sqlite3.DatabaseError:
                if not self._close_if_changed():
                    raise
                continue
            if not self._close_if_changed():
                return found
        raise sqlite3.OperationalError("the file changed during each read; try again")

    def _close_if_changed(self) -> bool:
        """Close this thread's connections if the file was replaced, or changed and is read without locks."""
        opened: object = getattr(self._kept, "opened", None)
        if opened is None or self._identity() in (opened, None):
            return False
        for connection in self._kept.connections.values():
            connection.close()
        self._kept.connections, self._kept.opened = {}, None
        return True

    def _remember_file(self) -> None:
        """Remember which file this thread is about to open; raises OperationalError."""
        try:
            self._kept.is_still = not self.is_mutable or (
                not self.ds.nolock and must_be_immutable(Path(str(self.path)))
            )
        except (StoreError, OSError) as error:
            raise sqlite3.OperationalError(str(error)) from error
        self._kept.opened = self._identity()

    def _identity(self) -> object:
        """Return the identity of the file, with its state if it is read without locks."""
        return _state(Path(str(self.path))) if self._kept.is_still else self.inode()

    def _visit(self, fn: Callable[[sqlite3.Connection], Any], visitor: SqlVisitor) -> Any:
        """Run the SQL of a visitor on a connection that reads what the visitor may see now."""
        # Access is checked in the snapshot that is read, so a statement never sees private rows that a sync
        # commits after the check.
        if self.path is None:
            everything = all(visitor.sees_all(one.name) for one in mirrors(self.ds))
            return self._closed(fn, visitor) if not everything else fn(self._connection(Reach.EVERYTHING))
        if not self._is_mirror:
            connection = self._connection(None)
            with one_snapshot(connection):
                if not has_mirror(connection):
                    return fn(connection)
            self._is_mirror = True
        if visitor.sees_all(self.name):
            return fn(self._connection(Reach.EVERYTHING))
        if not self.lacks_changes():
            for reach in STRANGERS:
                connection = self._connection(reach)
                with one_snapshot(connection):
                    if not self._is_open(connection, visitor):
                        break
                    if suits(connection, reach):
                        return fn(connection)
        return self._closed(fn, visitor)

    def _is_open(self, connection: BoundedConnection, visitor: SqlVisitor) -> bool:
        """Return whether tables are open to a visitor in a connection's snapshot; if in doubt, no."""
        try:
            with connection.trusted():
                return schema_version(connection) == VERSION and not visitor.lacks(connection, self.name)
        except sqlite3.Error:
            return False

    def _closed(self, fn: Callable[[sqlite3.Connection], Any], visitor: SqlVisitor) -> Any:
        """Let Datasette read the schema only; raises Forbidden in a request, else DatabaseError."""
        try:
            return fn(self._connection(Reach.SCHEMA))
        except sqlite3.DatabaseError as error:
            if not _REFUSED.search(str(error)):
                raise
            if isinstance(visitor, Nobody):  # such as a plugin that reads at the start
                text = f"{self.path} is closed to strangers, and so to reads outside of requests: {error}"
                raise sqlite3.DatabaseError(text) from error
            raise Forbidden("view-database") from error

    def _connection(self, reach: Reach | None) -> Any:
        """Return this thread's connection for a reach, or, for None, the one for reads of this program."""
        if not hasattr(self._kept, "connections"):
            self._kept.connections = {}
        kept: dict[Reach | None, sqlite3.Connection] = self._kept.connections
        if reach not in kept:
            if self.path and not kept:
                self._remember_file()
            connection = self._open(sqlite3.Connection if reach is None else VisitorConnection)
            self.ds._prepare_connection(connection, self.name)  # noqa: SLF001
            if isinstance(connection, BoundedConnection) and reach is not None:
                restrict(connection, reach, functions_of(connection) - _functions())
            kept[reach] = connection
        found = kept[reach]
        if isinstance(found, BoundedConnection):
            open_virtual_tables(found)
        return found

    def _open(self, factory: type[sqlite3.Connection], *, write: bool = False) -> sqlite3.Connection:
        if self.path is None:
            return sqlite3.connect(":memory:", uri=True, factory=factory)
        connection = sqlite3.connect(
            self._address(write=write), uri=True, check_same_thread=False, factory=factory
        )
        self._all_file_connections.append(connection)
        return connection

    def _address(self, *, write: bool) -> str:
        """Return the URI to open; raises OperationalError if the file cannot be opened correctly."""
        path = Path(str(self.path))
        try:
            if self.is_mutable and not write and not self.ds.nolock:
                return reading_address(path)
        except (StoreError, OSError) as error:
            raise sqlite3.OperationalError(str(error)) from error
        options = "" if write else "?mode=ro&nolock=1" if self.is_mutable else "?immutable=1"
        return f"{path.resolve().as_uri()}{options}"


def has_mirror(connection: sqlite3.Connection) -> bool:
    """Return whether a file is a mirror. SQLite knows: in WAL mode the header of the file may be outdated."""
    if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
        return True
    there = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?, ?)", TABLES
    )
    return bool(there.fetchone()[0] == len(TABLES))


def _state(path: Path) -> object:
    """Return a value that changes when a file is written or replaced; None if it cannot be read."""
    try:
        found = [one.stat() for one in (path, path.with_name(f"{path.name}-wal")) if one.exists()]
    except OSError:
        return None
    return [(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in found] or None


def _functions() -> set[str]:
    """Return the built-in functions of SQLite."""
    with closing(sqlite3.connect(":memory:")) as connection:
        return functions_of(connection)


def mirrors(datasette: "Datasette") -> Iterator[GuardedDatabase]:
    """Yield the attached mirrors, in the order in which they were attached."""
    guard(datasette)
    for database in datasette.databases.values():
        if isinstance(database, GuardedDatabase) and database.is_mirror():
            yield database


def bytes_of(database: Database) -> int:
    """Return the size of a database; 0 for one in memory, and while its file is missing."""
    try:
        return Path(database.path).stat().st_size if database.path else 0
    except OSError:
        return 0


def mirror_named(datasette: "Datasette", name: str) -> GuardedDatabase | None:
    """Return the mirror of a name; None if no mirror has it."""
    guard(datasette)
    database = datasette.databases.get(name)
    return database if isinstance(database, GuardedDatabase) and database.is_mirror() else None


def guard(datasette: "Datasette") -> None:
    """Replace each database that reads a file with a guarded one."""
    plain = {
        name: one
        for name, one in datasette.databases.items()
        if not isinstance(one, GuardedDatabase)
        and (one.path or (name == "_memory" and datasette.crossdb and one.memory_name is None))
    }
    if plain:
        guarded = {name: GuardedDatabase(one) for name, one in plain.items()}
        datasette.databases = {**datasette.databases, **guarded}
