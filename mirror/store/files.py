"""Open the mirror file: recognise it, make it, bring it up to date.

A mirror is in WAL mode: readers see every commit and never wait for the writer.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mirror.errors import MirrorError, StoreError
from mirror.store.faults import BUSY_SECONDS, READ_ONLY, explained, foreign_file, known_remedy
from mirror.store.paths import address, give_to_owner, reading_address
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
                raise StoreError(f"{path}: {READ_ONLY}{foreign_file(path)}")
            return _prepared(path)


def _create(path: Path, mode: int) -> None:
    """Create an empty file with a mode, regardless of the umask, unless it exists."""
    real = Path(os.path.realpath(path))
    try:
        descriptor = os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, mode)
        give_to_owner(descriptor, real.parent)
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


def fold_journal(path: Path) -> None:
    """Write what the journal has into the file and remove it, unless a process has the file open.

    SQLite does that when the last connection is closed, but not if that one may only read.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(address(path, "mode=rw"), uri=True)) as connection:
        connection.execute("PRAGMA user_version").fetchone()  # it opens the journal


def read_if_possible(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T | None:
    """Return what `ask` reads of a mirror; None if there is none or it cannot be read.

    For callers that can do without it; the next use of the file reports what is wrong with it.
    """
    try:
        with closing(open_reader(path)) as connection:
            return ask(connection)
    except (MirrorError, sqlite3.Error):
        return None


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
    """Migrate a file to this version; raises StoreError if that cannot be done, StoreLocked during a sync."""
    version, number = _header(connection)
    if (version, number) == (VERSION, APPLICATION_ID) and not lacks_search_parts(connection):
        return
    if 0 < version < VERSION:
        from mirror.store.lock import refuse_if_synced_elsewhere  # noqa: PLC0415 - it imports this file

        refuse_if_synced_elsewhere(path)  # the older program would write into tables that it does not know
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
