"""Back up a mirror while it may be written to: copy one state, check the copy, put it in place as a whole."""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.store.files import PRIVATE, explained, faults_of, open_reader
from mirror.store.schema import APPLICATION_ID

PAGES = 500
"""Pages that are copied before progress is reported and Ctrl-C is noticed: 2 MB."""

OnProgress = Callable[[int, int], None]
"""Called with the number of copied pages and of all pages; an exception stops the copy."""

BESIDE = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps beside a database."""


def back_up(mirror: Path, target: Path, *, progress: OnProgress | None = None) -> Path:
    """Copy a mirror into the file `target`, which is replaced as a whole, and return that file.

    The copy is one state of the mirror, even if it is written to meanwhile. It needs no file beside it, and
    only its owner can read it. Raises ConfigError if a copy cannot go to the target, StoreLocked while
    another process copies to it, StoreError if either file cannot be used; the target is unchanged then.
    """
    target = place_of_copy(mirror, target)
    with replacing(target, part=target.with_name(f"{target.name}.part")) as part:
        copy_checked(mirror, part, target=target, progress=progress)
    return target


def back_up_dated(
    mirror: Path, folder: Path, now: datetime, *, keep: int | None, progress: OnProgress | None = None
) -> Path:
    """Copy a mirror into a folder, under a name with the time, and return the new file.

    `keep` is the number of copies to keep, including this one; None keeps all. Raises what `back_up` raises.
    """
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = place_of_copy(mirror, folder / f"{mirror.stem}-{now:%Y%m%dT%H%M%SZ}.db")
    with replacing(target, part=folder / f"{mirror.stem}.part") as part:
        copy_checked(mirror, part, target=target, progress=progress)
        older = [one for one in dated_copies(mirror, folder) if one != target]
    for one in older[: max(0, len(older) + 1 - keep)] if keep is not None else ():
        with explained(one):
            one.unlink(missing_ok=True)
    return target


def dated_copies(mirror: Path, folder: Path) -> list[Path]:
    """List the dated copies of a mirror in a folder, oldest first."""
    name = re.compile(rf"{re.escape(mirror.stem)}-\d{{8}}T\d{{6}}Z\.db")
    with suppress(OSError):
        return sorted(one for one in folder.iterdir() if name.fullmatch(one.name))
    return []


def place_of_copy(mirror: Path, target: Path) -> Path:
    """Return the real path of a target, if a copy may replace it; raises ConfigError, StoreError."""
    real, ours = Path(os.path.realpath(target)), Path(os.path.realpath(mirror))
    taken = {
        ours,
        *(
            ours.with_name(f"{ours.name}{end}")
            for end in (*BESIDE, ".lock", ".export", ".service", ".server")
        ),
    }
    if real in taken or (real.exists() and ours.exists() and real.samefile(ours)):
        raise ConfigError(f"{target}: is the mirror itself; give another file")
    if real.exists() and not real.is_file():
        raise ConfigError(f"{target}: not a regular file; give a file or a folder")
    with explained(target):
        head = _head(real)
    if head and not _is_copy(head):
        raise ConfigError(f"{target}: exists, and is not a copy of a mirror; give another name, or remove it")
    return real


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(100)
    except FileNotFoundError:
        return b""


def _is_copy(head: bytes) -> bool:
    """Return whether a file's header shows a copy: mirrors in use are in WAL mode."""
    number = int.from_bytes(head[68:72], "big")
    return head.startswith(b"SQLite format 3\0") and number == APPLICATION_ID and head[18] != 2


def copy_checked(source: Path, part: Path, *, target: Path, progress: OnProgress | None = None) -> None:
    """Copy one state of a mirror into an empty file, and check the copy; errors name the `target`.

    Raises StoreError, also for a mirror with faults: its copy must not replace a good one.
    """
    with closing(open_reader(source, older=True)) as reading:
        with explained(source):
            reading.execute("BEGIN")  # until it ends, all steps of the copy see one state
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        with explained(target), closing(sqlite3.connect(part, isolation_level=None)) as copy:
            for setting in ("journal_mode = OFF", "synchronous = OFF"):  # it is synced to the disk at the end
                copy.execute(f"PRAGMA {setting}")
            reading.backup(copy, pages=PAGES, progress=_reporting(progress))
            copy.execute("PRAGMA journal_mode = DELETE")
    with explained(target):
        faults = faults_of(part)
    if faults:
        raise StoreError(f"{source}: has faults, and was not copied: {faults[0]}; see: mirror verify")


def _reporting(progress: OnProgress | None) -> Callable[[int, int, int], None]:
    """Return the callback for SQLite. It is needed even without `progress`, so that Ctrl-C is noticed."""

    def report(_: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    return report


@contextmanager
def replacing(target: Path, *, part: Path, mode: int = PRIVATE) -> Iterator[Path]:
    """Yield an empty file, `part`, that replaces `target` if the block succeeds, and is removed otherwise.

    `part` must be in the folder of the target; a leftover of a killed process is emptied first. Raises
    StoreLocked while another process fills it, StoreError if the folder cannot be written to.
    """
    with explained(target):
        descriptor = _claimed(part, mode)
    try:
        yield part
        with explained(target):
            sync_to_disk(part)
            part.replace(target)
            sync_to_disk(target.parent)
    finally:
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), part.stat()):
                _remove(part)
        os.close(descriptor)


@contextmanager
def held(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock file, and remove it at the end.

    Raises StoreError, and StoreLocked if another process holds it; `doing` says what that process does.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = _claimed(path, PRIVATE)
        except StoreLocked:
            raise StoreLocked(f"another process is {doing}; try again later") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _claimed(part: Path, mode: int) -> int:
    """Create or take over a part, empty it, and lock it against other processes."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        _lock(descriptor, part)
        for end in BESIDE:
            part.with_name(f"{part.name}{end}").unlink(missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int, part: Path) -> None:
    """Lock a part; raises StoreLocked, also if another process has just renamed it to its final name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(descriptor), part.stat())
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    if not is_there:
        raise StoreLocked(f"{part}: another process is writing it; try again later")


def _remove(part: Path) -> None:
    for path in (part, *(part.with_name(f"{part.name}{end}") for end in BESIDE)):
        path.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Sync a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
