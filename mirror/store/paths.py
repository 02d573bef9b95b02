"""How the path of a mirror file is opened for reading, and what file is there."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from mirror.errors import StoreError


def reading_address(path: Path) -> str:
    """Return the URI with which SQLite opens a file for reading; its path may have any characters.

    Raises StoreError if the journal has data that is not in the file, and nothing can be written here.
    """
    # A file in WAL mode needs two more files beside it, even for reading. Where they cannot be created (a
    # read-only mount, another user's folder, a full disk), the file is read as immutable. So is one that this
    # user may not write: its owner could not write what this user makes beside it.
    return address(path, "immutable=1" if must_be_immutable(path) else "mode=ro")


def address(path: Path, mode: str) -> str:
    """Return the URI of a file, with the parameter that says how SQLite opens it."""
    return f"{Path(os.path.realpath(path)).as_uri()}?{mode}"


def must_be_immutable(path: Path) -> bool:
    """Return whether a file can only be read as immutable.

    That is one in WAL mode without its `-shm` file, if it or its folder is read-only to this user, or on a
    disk too full for that.

    Raises StoreError and OSError as `reading_address` does.
    """
    path = Path(os.path.realpath(path))
    journal = path.with_name(f"{path.name}-wal")
    try:
        has_journal = journal.stat().st_size > 0
    except FileNotFoundError:  # the last process that closes the mirror removes it
        has_journal = False
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        # The file must not be read here: to close it would end all locks of this process on it, those of
        # SQLite's open connections too. Another process could then delete a journal that is in use.
        return not has_journal and _has_no_room(path)
    if path.with_name(f"{path.name}-shm").exists():
        return False
    with path.open("rb") as file:
        if file.read(_WAL_MARK.stop)[_WAL_MARK] != b"\2\2":
            return False
    if has_journal:
        raise StoreError(
            f"{path}: {journal.name} beside it has data that is not in the file yet, and the file or its"
            " folder is read-only; copy both into a folder that can be written"
        )
    return True


def _has_no_room(path: Path) -> bool:
    """Return whether a full disk has no room for the file that WAL mode needs beside a mirror to read it.

    Then no other process has it open, so none can write into it before it has room.
    """
    try:
        with closing(sqlite3.connect(address(path, "mode=ro"), uri=True, timeout=0)) as connection:
            connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        return lacks_room(error)
    return False


def lacks_room(error: Exception) -> bool:
    """Return whether the first that opens a mirror cannot make, or enlarge, the file beside it."""
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE")


_WAL_MARK = slice(18, 20)  # bytes of the header: both are 2 in WAL mode


def give_to_owner(file: Path | int, mirror: Path) -> None:
    """Give what root makes to the owner of a mirror, or of its folder: a service cannot write root's."""
    if os.geteuid() == 0:
        real = Path(os.path.realpath(mirror))
        model = (real if real.exists() else real.parent).stat()
        with suppress(OSError):
            os.chown(file, model.st_uid, model.st_gid)


def file_identity(path: Path | str) -> tuple[int, int] | None:
    """Return what distinguishes a file from any other at its place; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice for each answer; a Path takes longer
    except OSError:
        return None
    return found.st_dev, found.st_ino
