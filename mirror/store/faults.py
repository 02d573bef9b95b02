"""What an error of SQLite or of the system means for a mirror file, and its remedy."""

import errno
import os
import sqlite3

from mirror.errors import INDEX_LOST

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
_REMEDIES = (
    ("disk is full", _FULL),
    ("no space left", _FULL),
    ("quota exceeded", _FULL),
    ("disk i/o error", _BROKEN_DISK),  # SQLite's for a spent quota, too
    ("input/output error", _BROKEN_DISK),
    ("too many open files", _TOO_MANY_FILES),
    ("file too large", "this process may not write a file so large; allow it more (ulimit -f)"),
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


_NO_ROOM = ("SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE")


def lacks_room(error: Exception) -> bool:
    """Return whether the first that opens a mirror cannot make, or enlarge, the file beside it."""
    return getattr(error, "sqlite_errorname", "") in _NO_ROOM


def explanation(error: sqlite3.Error | OSError) -> str:
    """Return the remedy for an error, with its message; only the message if none is known."""
    if lacks_room(error):
        return _FULL  # to SQLite, that is a "disk I/O error"
    message = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = known_remedy(message)
    if text == _ANOTHER_USER and _is_out_of_descriptors():
        text = _TOO_MANY_FILES
    return f"{text} ({message.splitlines()[0][:200]})" if text else message


def _is_out_of_descriptors() -> bool:
    """Return whether this process may open no more files, which SQLite does not tell."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
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
