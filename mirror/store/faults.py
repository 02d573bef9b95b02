"""What an error of SQLite or of the system means for a mirror file: its remedy, and StoreError."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

from mirror.errors import INDEX_LOST, MirrorError, StoreError
from mirror.store.paths import lacks_room, reading_address

_FILES_OPENED = 4  # at once, for one connection: the file, its -wal and -shm, and the folder to sync
BUSY_SECONDS = 30  # for how long SQLite waits for another writer

DAMAGED = "the file is damaged: restore a copy, or move it away and `mirror sync` fills a new one"

_FULL = "the disk is full; saved data is intact; free some space and run it again"
READ_ONLY = "the file or its folder is read-only"
_ANOTHER_USER = "cannot be opened; is it, or its folder, read-only or another user's?"
_BROKEN_DISK = (
    "the disk could not be read or written, or a quota is spent; saved data is intact if the disk is"
)
_NO_FOLDER = "a part of this path is a file, not a folder; give another path"
_ADDED = (
    "a view or trigger of the file uses what is gone: drop it by SQL if you added it, else restore a copy"
)
_TOO_MANY_FILES = "this process may not open more files; allow it more (ulimit -n), and run it again"
_NO_LOCKS = "the file system has no locks, which keep processes apart; put the mirror on a local disk"
_REMEDIES = (
    ("disk is full", _FULL),
    ("no space left", _FULL),
    ("quota exceeded", _FULL),
    ("disk i/o error", _BROKEN_DISK),  # SQLite's for a spent quota, too
    ("input/output error", _BROKEN_DISK),
    ("too many open files", _TOO_MANY_FILES),
    ("file too large", "this process may not write a file so large; allow it more (ulimit -f)"),
    ("no locks available", _NO_LOCKS),
    ("no such file", "the file or its folder does not exist"),
    ("not a directory", _NO_FOLDER),
    ("file exists", _NO_FOLDER),  # where a folder is to be made
    ("readonly", READ_ONLY),
    ("read-only file system", READ_ONLY),
    ("unable to open", _ANOTHER_USER),
    ("permission denied", _ANOTHER_USER),
    ("locked", f"another process has been writing for {BUSY_SECONDS} s; try again when it is done"),
    ("not a database", "not an SQLite database; give another path as `database`, or move the file away"),
    ("error in view", _ADDED),
    ("error in trigger", _ADDED),
    ("no such table: search_", INDEX_LOST),
    ("no such fts5 table: main.search_", INDEX_LOST),
    ("no such table: main.", _ADDED),  # as a trigger names it; the SQL of this program does not
    ("malformed", DAMAGED),
    ("could not decode", DAMAGED),
    ("no such table", DAMAGED),
    ("no such index", DAMAGED),
    ("vtable constructor failed", DAMAGED),  # a full-text index has lost its own tables, or their rows
    ("same text encoding", "the mirror is in UTF-16: `sqlite3 OLD .dump | sqlite3 NEW` makes it UTF-8"),
    ("lacks changes", "its -wal file has newer data: serve it without -i, or checkpoint it"),
)


def explanation(error: sqlite3.Error | OSError) -> str:
    """Return the remedy for an error, with its message; only the message if none is known."""
    if lacks_room(error):
        return _FULL  # to SQLite, that is a "disk I/O error"
    message = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = known_remedy(message)
    if text == _ANOTHER_USER and _is_out_of_descriptors():
        text = _TOO_MANY_FILES
    return f"{text} ({message.splitlines()[0][:200]})" if text else message


def foreign_file(path: Path) -> str:
    """Name another user's file that this one may not write: a mirror, SQLite's beside it, or its folder."""
    real = os.path.realpath(path)
    for one in (real, f"{real}-wal", f"{real}-shm", os.path.dirname(real)):  # noqa: PTH120 - of a text
        with suppress(OSError):
            owner = os.stat(one).st_uid  # noqa: PTH116
            if owner != os.geteuid() and not os.access(one, os.W_OK):
                return f"; {one} belongs to {_user(owner)}"
    return ""


def _user(number: int) -> str:
    import pwd  # noqa: PLC0415 - few commands name a user

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _is_out_of_descriptors() -> bool:
    """Return whether this process may open too few files for a mirror, which SQLite does not tell."""
    with ExitStack() as opened:
        try:
            for _ in range(_FILES_OPENED):  # those that SQLite could open before it failed are closed again
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def known_remedy(message: str) -> str:
    """Return the remedy for a message of SQLite; "" if it is not about the file."""
    low = message.lower()
    return next((text for part, text in _REMEDIES if part in low), "")


def is_busy(error: Exception) -> bool:
    """Return whether a read that failed may succeed in a moment: others write, or it took too long."""
    text = str(error)
    if not isinstance(error, sqlite3.OperationalError) or (known_remedy(text) and "locked" not in text):
        return False
    # A fault of a statement stays one; functions of SQL that are interrupted have the same code.
    return getattr(error, "sqlite_errorname", "") != "SQLITE_ERROR" or "function raised" in text


class Explained(AbstractContextManager[None]):
    """Turns errors of some types about a file into StoreError with the remedy.

    A class, because a sync enters one several times for each answer.
    """

    def __init__(self, path: Path, *errors: type[sqlite3.Error] | type[OSError]) -> None:
        self._path, self._errors = path, errors

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise StoreError."""
        if isinstance(error, self._errors):
            text = explanation(error)
            owned = foreign_file(self._path) if text.startswith((READ_ONLY, _ANOTHER_USER)) else ""
            raise StoreError(f"{self._path}: {text}{owned}") from error
        # Even SQLite's message may hold bytes of a damaged page.
        if isinstance(error, UnicodeDecodeError) and is_damaged(self._path):
            raise StoreError(f"{self._path}: {DAMAGED}") from error


def explained(path: Path) -> Explained:
    """Turn SQLite's and the system's errors into StoreError with the remedy."""
    return Explained(path, sqlite3.Error, OSError)


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Turn any error into StoreError if the file is damaged, or has values of wrong types."""
    try:
        with Explained(path, sqlite3.Error):
            yield
    except (MirrorError, OSError, MemoryError):  # without memory, SQLite does not find a file whole
        raise
    except Exception as error:  # SQLite may return wrong rows from a damaged page: they fail anywhere
        if is_damaged(path):
            raise StoreError(f"{path}: {DAMAGED} ({type(error).__name__})") from error
        with (
            Explained(path, sqlite3.Error),
            closing(sqlite3.connect(reading_address(path), uri=True)) as connection,
        ):
            odd = odd_value(connection)
        if odd is None:
            _refuse_faulty_index(path)
            raise
        raise StoreError(
            f"{path}: {odd} has a value of another type or form, which no mirror wrote: correct it by SQL;"
            " `mirror sync --full` replaces those of repositories"
        ) from error


def _refuse_faulty_index(path: Path) -> None:
    """Raise StoreError if a search index has faults; its rows are of a kind that SQLite does not check."""
    from mirror.store.repair import index_faults  # noqa: PLC0415 - it imports this file

    if index_faults(path):
        raise StoreError(f"{path}: {INDEX_LOST}")


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
_MOMENTS = ("_at", "_since", "date")  # the ends of names of columns with times
_MOMENT_FORM = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9]*Z"


def odd_value(connection: sqlite3.Connection) -> str | None:
    """Name a column with a value that has not its type, or is no time; None if all fit. SQLite allows any."""
    for table in ("repositories", "users", "branches", "tags"):
        columns = connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
        for name, kind in columns:
            fitting = _FITTING.get(kind)
            sql = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE typeof({name}) NOT IN {fitting}"
            sql += f" OR {name} NOT GLOB '{_MOMENT_FORM}')" if name.endswith(_MOMENTS) else ")"
            if fitting and connection.execute(sql).fetchone()[0]:
                return f"{table}.{name}"
    return None
