"""Open the mirror file, and turn the errors of its use into StoreError.

A mirror is in WAL mode: readers see every commit and never wait for the writer.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mirror.errors import MirrorError, StoreError
from mirror.store.faults import BUSY_SECONDS, DAMAGED, READ_ONLY, explanation, known_remedy, lacks_room
from mirror.store.schema import APPLICATION_ID, MIGRATIONS, VERSION, bring_up_to_date, lacks_search_parts

T = TypeVar("T")

# How much of a file readers map into memory: SQLite's maximum. Without it, a system call for each page took a
# third of the time of a search that reads 300 names.
MAPPED_BYTES = 2_147_418_112

# Also of a file without tables, as a full disk or a kill leaves it before the first commit.
_NONE_YET = "no mirror there yet; `mirror sync` makes one"
_NO_MIRROR = "a database, but not a mirror; give another path as `database`"

PRIVATE = 0o600  # the mode of new files: only for their owner


def open_writer(path: Path, mode: int = PRIVATE) -> sqlite3.Connection:
    """Open or create the mirror for writing, and bring its schema up to date.

    `mode` is the mode of a new file and of SQLite's files beside it; an existing file keeps its own. Any
    thread may use the connection, one at a time. Raises StoreError if the folder does not exist, or if the
    file is not a mirror, damaged, read-only or newer than this program.
    """
    with explained(path):
        _refuse_irregular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(path.parent):
            _create(path, mode)
            # SQLite would open it for reading, and fail at the first write.
            if path.exists() and not os.access(path, os.W_OK):
                raise StoreError(f"{path}: {READ_ONLY}")
            return _prepared(path)


def _create(path: Path, mode: int) -> None:
    """Create an empty file with a mode, regardless of the umask, unless it exists."""
    try:
        descriptor = os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _prepared(path: Path) -> sqlite3.Connection:
    """Open a file for writing, and migrate it to this version."""
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        fresh = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        if not fresh:
            _refuse_strangers(connection, path)
            _refuse_snapshot(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last commits, not the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 8000")  # 32 MB: a first load rewrites fewer pages
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -64000")
        connection.execute("PRAGMA temp_store = MEMORY")
        _bring_up_to_date(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the processes that open files of a folder take turns."""
    # SQLite does not wait while another process switches a file to WAL mode.
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_reader(path: Path, *, older: bool = False) -> sqlite3.Connection:
    """Open an existing mirror read-only; raises StoreError as `open_writer` does, also for a missing file.

    `older` also allows files of earlier versions, for callers that need no table.
    """
    with explained(path):
        _refuse_irregular(path)
        if not path.exists() or path.stat().st_size == 0:
            raise StoreError(f"{path}: {_NONE_YET}")
        connection = _connected(reading_address(path))
        try:
            if _has_no_room(connection, path):
                connection.close()
                connection = _connected(_address(path, "immutable=1"))
            _refuse_strangers(connection, path)
            if not older:
                _refuse_older(connection, path)
        except BaseException:
            connection.close()
            raise
        with suppress(sqlite3.DatabaseError):  # of a damaged file: the caller's own statement reports it
            connection.execute("PRAGMA cache_size = -8000")  # room for the inner pages of a million rows
            connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
        connection.row_factory = sqlite3.Row
        return connection


def _connected(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)


def _has_no_room(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether a full disk has no room for the file that WAL mode needs beside a mirror to read it.

    Then no other process has it open, so none can write into it before it has room.
    """
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as error:
        if not lacks_room(error):
            raise
        journal = Path(f"{os.path.realpath(path)}-wal")
        return not (journal.exists() and journal.stat().st_size)
    return False


def read_if_possible(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T | None:
    """Return what `ask` reads of a mirror; None if there is none or it cannot be read.

    For callers that can do without it; the next use of the file reports what is wrong with it.
    """
    try:
        with closing(open_reader(path)) as connection:
            return ask(connection)
    except (MirrorError, sqlite3.Error):
        return None


def reading_address(path: Path) -> str:
    """Return the URI with which SQLite opens a file for reading; its path may have any characters.

    Raises StoreError if the journal has data that is not in the file, and the folder is read-only.
    """
    # A file in WAL mode needs two more files beside it, even for reading. Where they cannot be created (a
    # read-only mount, another user's folder), the file is read as immutable.
    mode = "immutable=1" if must_be_immutable(path) else "mode=ro"
    return _address(path, mode)


def _address(path: Path, mode: str) -> str:
    return f"{Path(os.path.realpath(path)).as_uri()}?{mode}"


def must_be_immutable(path: Path) -> bool:
    """Return whether a file can only be read as immutable.

    That is one in WAL mode, without its `-shm` file, in a read-only folder.

    Raises StoreError and OSError as `reading_address` does.
    """
    path = Path(os.path.realpath(path))
    if os.access(path.parent, os.W_OK) or path.with_name(f"{path.name}-shm").exists():
        return False
    with path.open("rb") as file:
        if file.read(_WAL_MARK.stop)[_WAL_MARK] != b"\2\2":
            return False
    journal = path.with_name(f"{path.name}-wal")
    if journal.exists() and journal.stat().st_size:
        raise StoreError(
            f"{path}: {journal.name} beside it has data that is not in the file yet, and the folder is"
            " read-only; copy both into a folder that can be written"
        )
    return True


_WAL_MARK = slice(18, 20)  # bytes of the header: both are 2 in WAL mode


_MOMENT = """SELECT (SELECT value FROM mirror_meta WHERE key = 'published_at')
    FROM mirror_meta WHERE key = 'kind' AND value = 'snapshot'"""


def snapshot_moment(connection: sqlite3.Connection) -> str | None:
    """Return the moment of a published file; None for a file that is not a snapshot."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'mirror_meta'").fetchone():
        return None  # a mirror of an older version
    found = connection.execute(_MOMENT).fetchone()
    return None if found is None else found[0] or ""


def schema_version(connection: sqlite3.Connection) -> int | None:
    """Return the number of migrations of a file, or None for another program's database."""
    version, number = _header(connection)
    if number == APPLICATION_ID and version:
        return version
    # A `.dump` by the sqlite3 program loses both numbers of the header, but keeps the list of migrations.
    listed = connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()
    applied = connection.execute(_APPLIED, (MIGRATIONS,)).fetchone()[0] if listed else 0
    return applied if applied or number == APPLICATION_ID else None


_APPLIED = "SELECT count(*) FROM _sqlite_migrations WHERE migration_set = ?"


def _header(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the number of migrations and the number of the program that the header of a file has."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (number,) = connection.execute("PRAGMA application_id").fetchone()
    return version, number


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Migrate a file to this version; raises StoreError if that cannot be done."""
    version, number = _header(connection)
    if (version, number) == (VERSION, APPLICATION_ID) and not lacks_search_parts(connection):
        return
    try:
        bring_up_to_date(connection)
    except sqlite3.DatabaseError as error:
        if known_remedy(str(error)):
            raise
        raise StoreError(
            f"{path}: cannot be brought up to date from schema {version} to {VERSION} ({error});"
            " the version that made it can still read it: keep it, and give a new path as `database`"
        ) from error


def _refuse_irregular(path: Path) -> None:
    """Raise StoreError for a folder, a named pipe or a device, on which SQLite would hang or fail."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise StoreError(f"{path}: {kind}; give the path of a file as `database`")


def _refuse_strangers(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError for another program's database and for a file newer than this program."""
    version = schema_version(connection)
    if version is None:
        has_tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        raise StoreError(f"{path}: {_NO_MIRROR if has_tables else _NONE_YET}")
    if version > VERSION:
        raise StoreError(
            f"{path}: written by a newer version (schema {version}, this program knows {VERSION}); "
            "install that version, nothing was changed"
        )


def _refuse_older(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError for a file that only a writer can bring up to date."""
    if (schema_version(connection) or 0) < VERSION:
        if snapshot_moment(connection) is not None:
            raise StoreError(f"{path}: published by an older version; publish it again with this one")
        raise StoreError(f"{path}: made by an older version; `mirror sync` brings it up to date")


def is_snapshot(path: Path) -> bool:
    """Return whether a file is a published one; False if it cannot be read."""
    try:
        with closing(open_reader(path, older=True)) as connection:
            return snapshot_moment(connection) is not None
    except (StoreError, sqlite3.Error):
        return False


def _refuse_snapshot(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError for a published file: its users rely on its bytes."""
    moment = snapshot_moment(connection)
    if moment is not None:
        raise StoreError(
            f"{path}: a published snapshot of {moment[:16]}Z, which is never written to;"
            " give the path of a mirror as `database`"
        )


class Explained(AbstractContextManager[None]):
    """Turns SQLite's errors about a file into StoreError, and the system's (`of_system`).

    A class, because a sync enters one several times for each answer.
    """

    def __init__(self, path: Path, *, of_system: bool) -> None:
        self._path, self._of_system = path, of_system

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise StoreError with the remedy."""
        if isinstance(error, sqlite3.Error) or (self._of_system and isinstance(error, OSError)):
            raise StoreError(f"{self._path}: {explanation(error)}") from error
        # Even SQLite's message may hold bytes of a damaged page.
        if isinstance(error, UnicodeDecodeError) and is_damaged(self._path):
            raise StoreError(f"{self._path}: {DAMAGED}") from error


def explained(path: Path) -> Explained:
    """Turn SQLite's and the system's errors into StoreError with the remedy."""
    return Explained(path, of_system=True)


def explained_rows(path: Path) -> Explained:
    """Turn only SQLite's errors, for readers that do other things in between."""
    return Explained(path, of_system=False)


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Turn any error into StoreError if the file is damaged, or has values of wrong types."""
    try:
        with explained_rows(path):
            yield
    except (MirrorError, OSError):
        raise
    except Exception as error:  # SQLite may return wrong rows from a damaged page: they fail anywhere
        if is_damaged(path):
            raise StoreError(f"{path}: {DAMAGED} ({type(error).__name__})") from error
        with explained_rows(path), closing(sqlite3.connect(reading_address(path), uri=True)) as connection:
            odd = odd_value(connection)
        if odd is None:
            raise
        raise StoreError(
            f"{path}: {odd} has a value of another type, which no mirror wrote: set it to NULL by SQL;"
            " `mirror sync --full` replaces those of repositories"
        ) from error


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StoreError if this file is damaged; else another one may be the cause."""
    try:
        yield
    except sqlite3.Error as error:
        if not is_damaged(path):
            raise
        raise StoreError(f"{path}: {DAMAGED} ({error})") from error


def is_damaged(path: Path) -> bool:
    """Return whether SQLite finds a fault in a file."""
    try:
        with closing(sqlite3.connect(reading_address(path), uri=True, timeout=BUSY_SECONDS)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.OperationalError:  # busy, or not readable at all
        return False
    except (sqlite3.DatabaseError, UnicodeDecodeError, StoreError):
        return True


_FITTING = {"TEXT": "('text', 'null')", "INTEGER": "('integer', 'null')"}


def odd_value(connection: sqlite3.Connection) -> str | None:
    """Name a column whose values do not all have its type; None if all do. SQLite itself allows any type."""
    for table in ("repositories", "users", "branches", "tags"):
        columns = connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
        for name, kind in columns:
            fitting = _FITTING.get(kind)
            sql = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE typeof({name}) NOT IN {fitting})"
            if fitting and connection.execute(sql).fetchone()[0]:
                return f"{table}.{name}"
    return None


def file_identity(path: Path | str) -> tuple[int, int] | None:
    """Return what distinguishes a file from any other at its place; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice for each answer; a Path takes longer
    except OSError:
        return None
    return found.st_dev, found.st_ino
