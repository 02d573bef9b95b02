"""Opening the mirror file: the connections, the lock of a sync, and plain words for what SQLite reports.

A mirror is in WAL mode: readers see every commit and never wait for the writer. The lock file beside it
belongs to whoever syncs; the system drops it when that process ends, however it ends.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from mirror.errors import StoreError, StoreLocked
from mirror.store import schema

BUSY_SECONDS = 30


def open_writer(path: Path) -> sqlite3.Connection:
    """Open or create the mirror for writing and bring its schema up to date.

    Raises StoreError for a folder that is not there, a file that is no mirror, is broken, read-only or
    newer than this program. The connection may be used from any thread, by one at a time.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(path.parent):
            return _prepared(path)


def _prepared(path: Path) -> sqlite3.Connection:
    """Open a file, and make it a mirror of this version."""
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        fresh = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        if not fresh:
            _refuse_strangers(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 8000")  # 32 MB: a first load rewrites fewer pages
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -64000")
        connection.execute("PRAGMA temp_store = MEMORY")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the files of a folder be opened in turn: SQLite does not wait where two make one a WAL file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_reader(path: Path) -> sqlite3.Connection:
    """Open an existing mirror read-only; raises StoreError as `open_writer` does, also for a missing file."""
    if not path.is_file():
        raise StoreError(f"{path}: no mirror there yet; `mirror sync` makes one")
    with explained(path):
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, check_same_thread=False
        )
        try:
            _refuse_strangers(connection, path)
            _refuse_older(connection, path)
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return connection


def _refuse_strangers(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError for another program's database and for a file newer than this program."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        raise StoreError(f"{path}: a database, but no mirror; give another path as `database`")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > schema.VERSION:
        raise StoreError(
            f"{path}: written by a newer version (schema {version}, this program knows {schema.VERSION}); "
            "install that version, nothing was changed"
        )


def _refuse_older(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError for a file that only a writer can bring up to date."""
    if connection.execute("PRAGMA user_version").fetchone()[0] < schema.VERSION:
        raise StoreError(f"{path}: made by an older version; `mirror sync` brings it up to date")


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply what is missing; each step and its record are one transaction."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION:
        return
    # application_id first: a first start killed half-way leaves a file that is still known as a mirror.
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    schema.migrations.apply(Database(connection, execute_plugins=False))
    connection.execute(f"PRAGMA user_version = {schema.VERSION}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into StoreError with the remedy."""
    try:
        with explained_rows(path):
            yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error


@contextmanager
def explained_rows(path: Path) -> Iterator[None]:
    """Turn SQLite's errors alone, for readers who do other things in between."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {_remedy(str(error))}") from error


_REMEDIES = (
    ("disk is full", "the disk is full; what was saved is whole, free some space and run it again"),
    ("disk i/o error", "the disk could not be written or read; what was saved is whole if the disk is"),
    ("readonly", "the file or its folder is read-only"),
    ("unable to open", "cannot be opened; is it a folder, or not yours to read and write?"),
    ("locked", f"another process has been writing for {BUSY_SECONDS} s; try again when it is done"),
    ("not a database", "not an SQLite database; give another path as `database`, or move the file away"),
    ("malformed", "the file is damaged; keep it, restore a copy, or try `sqlite3 FILE .recover`"),
)


def _remedy(message: str) -> str:
    """Say what to do about SQLite's message."""
    low = message.lower()
    return next((f"{text} ({message})" for part, text in _REMEDIES if part in low), message)


@contextmanager
def sync_lock(path: Path) -> Iterator[None]:
    """Hold the mirror for one run; raises StoreLocked naming the process that holds it already."""
    lock_path = path.resolve().with_name(path.resolve().name + ".lock")  # links to one file share its lock
    with explained(lock_path):
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip()
            raise StoreLocked(f"{path}: {holder or 'another process'} is syncing into it") from None
        with explained(lock_path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
