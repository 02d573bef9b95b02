"""How the path of a mirror file is opened for reading, and what file is there."""

import os
from pathlib import Path

from mirror.errors import StoreError


def reading_address(path: Path) -> str:
    """Return the URI with which SQLite opens a file for reading; its path may have any characters.

    Raises StoreError if the journal has data that is not in the file, and the folder is read-only.
    """
    # A file in WAL mode needs two more files beside it, even for reading. Where they cannot be created (a
    # read-only mount, another user's folder), the file is read as immutable.
    return address(path, "immutable=1" if must_be_immutable(path) else "mode=ro")


def address(path: Path, mode: str) -> str:
    """Return the URI of a file, with the parameter that says how SQLite opens it."""
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


def file_identity(path: Path | str) -> tuple[int, int] | None:
    """Return what distinguishes a file from any other at its place; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice for each answer; a Path takes longer
    except OSError:
        return None
    return found.st_dev, found.st_ino
