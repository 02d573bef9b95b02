"""Locks between processes, and files that are replaced as a whole.

One run at a time syncs a mirror; any number of services may use it. A lock file beside the mirror belongs to
the process that holds it; the system drops the lock when that process ends, however it ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from mirror.errors import ConfigError, StoreLocked
from mirror.store.faults import explained
from mirror.store.files import PRIVATE
from mirror.store.paths import give_to_owner
from mirror.store.schema import APPLICATION_ID

# Suffixes of the lock files beside a mirror.
LOCKS = SYNC, SERVICE, SERVER, EXPORT, SITE = (".lock", ".service", ".server", ".export", ".site")

_HELD_HERE = set[Path]()  # the lock files that this process holds

SHARED_FOR = 1.0  # seconds that a run waits for processes that only test the lock, which takes a moment


def _opened(path: Path, suffix: str, mode: int) -> int:
    """Open a lock file of a mirror, or make it with a mode."""
    # No link is followed: root may do this in the folder of another user.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside(path, suffix), flags, mode)
    if os.fstat(descriptor).st_size == 0:
        with suppress(OSError):  # new: the umask must not change the mode; it may be another user's
            os.fchmod(descriptor, mode)
        give_to_owner(descriptor, path)
    return descriptor


def service_mark(path: Path, mode: int = PRIVATE) -> AbstractContextManager[None]:
    """Hold a lock file by which `service_runs` finds a service that syncs a mirror; several may hold it."""
    return _mark(path, SERVICE, mode)


def server_mark(path: Path, mode: int = PRIVATE) -> AbstractContextManager[None]:
    """Hold a lock file by which `is_served` finds a server of a mirror, as `service_mark` does."""
    return _mark(path, SERVER, mode)


@contextmanager
def _mark(path: Path, suffix: str, mode: int) -> Iterator[None]:
    descriptor = -1
    with suppress(OSError):  # the service itself reports what is wrong with the folder
        descriptor = _opened(path, suffix, mode)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def service_runs(path: Path) -> bool | None:
    """Return whether a service syncs a mirror; None if unknown."""
    return _is_held(beside(path, SERVICE), fcntl.LOCK_EX)


def is_served(path: Path) -> bool | None:
    """Return whether a server that may write uses a mirror; None if unknown."""
    return _is_held(beside(path, SERVER), fcntl.LOCK_EX)


def is_syncing(path: Path) -> bool | None:
    """Return whether a process holds the lock of a mirror for a run; None if unknown."""
    return _is_held(beside(path, SYNC), fcntl.LOCK_SH)


def refuse_if_synced_elsewhere(path: Path) -> None:
    """Raise StoreLocked while another process syncs a mirror."""
    lock_path = beside(path, SYNC)
    if lock_path not in _HELD_HERE and is_syncing(path):
        raise _locked_by(lock_path.read_bytes(), path, "is syncing into it")


def _is_held(path: Path, lock: int) -> bool | None:
    """Return whether a process holds a lock file in a way that excludes `lock`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file beside a mirror; all links to a mirror share it."""
    real = Path(os.path.realpath(path))  # unlike Path.resolve, it leaves a circle of links to `open`
    return real.with_name(real.name + suffix)


def _locked(descriptor: int) -> bool:
    """Take the lock for a run; return whether it is free."""
    # Another run holds it for long, `is_syncing` (shared) only for a moment.
    deadline = time.monotonic() + SHARED_FOR
    while not _try_lock(descriptor, fcntl.LOCK_EX):
        if not _try_lock(descriptor, fcntl.LOCK_SH) or time.monotonic() > deadline:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # otherwise two runs would wait for each other
        time.sleep(0.002)
    return True


def _try_lock(descriptor: int, lock: int) -> bool:
    try:
        fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_lock(path: Path, mode: int = PRIVATE) -> AbstractContextManager[None]:
    """Hold the mirror for one run; `mode` is that of a new lock file.

    Raises StoreLocked, which names the process that holds it.
    """
    return _held_lock(path, SYNC, mode, "is syncing into it")


def export_lock(path: Path) -> AbstractContextManager[None]:
    """Hold the mirror's part of all lakes for one export; raises StoreLocked as `sync_lock` does."""
    return _held_lock(path, EXPORT, PRIVATE, "is exporting it")


def site_lock(path: Path) -> AbstractContextManager[None]:
    """Hold the mirror while its site is made; raises StoreLocked as `sync_lock` does."""
    return _held_lock(path, SITE, PRIVATE, "is making the site")


@contextmanager
def _held_lock(path: Path, suffix: str, mode: int, doing: str) -> Iterator[None]:
    lock_path = beside(path, suffix)
    with explained(lock_path):
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(path, suffix, mode)
    try:
        if not _locked(descriptor):
            raise _locked_by(os.pread(descriptor, 100, 0), path, doing)
        with explained(lock_path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
        _HELD_HERE.add(lock_path)
        try:
            yield
        finally:
            _HELD_HERE.discard(lock_path)
    finally:
        os.close(descriptor)


def _locked_by(holder: bytes, path: Path, doing: str) -> StoreLocked:
    """Return the error that names the process whose name a lock file holds."""
    name = holder[:100].decode("utf-8", "replace").strip()
    return StoreLocked(f"{path}: {name or 'another process'} {doing}")


BESIDE = ("-wal", "-shm", "-journal")  # suffixes of the files that SQLite keeps beside a database


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
            _drop_journals(target)
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
        _lock_part(descriptor, part)
        _drop_journals(part)
        os.ftruncate(descriptor, 0)
        os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock_part(descriptor: int, part: Path) -> None:
    """Lock a part; raises StoreLocked, also if another process has just renamed it to its final name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(descriptor), part.stat())
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    if not is_there:
        raise StoreLocked(f"{part}: another process is writing it; try again later")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _drop_journals(part)


def _drop_journals(path: Path) -> None:
    """Remove what SQLite left beside a file that is to be replaced: it would be applied to the new one."""
    for end in BESIDE:
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Sync a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


OWN = (*BESIDE, *LOCKS, ".webhooks", ".exporting", ".restoring")
"""Suffixes of all files and folders that a mirror has beside it, now or later."""


def place_apart(mirror: Path, target: Path) -> Path:
    """Return the real path of a file or folder to write.

    Raises ConfigError if it is one of the mirror's, StoreError if it cannot be reached.
    """
    real, ours = Path(os.path.realpath(target)), Path(os.path.realpath(mirror))
    beside_it = {beside(ours, end) for end in OWN}
    is_taken = real == ours or not beside_it.isdisjoint((real, *real.parents))
    with explained(target):
        is_taken |= real.exists() and ours.exists() and real.samefile(ours)
    if is_taken:
        raise ConfigError(f"{target}: is the mirror itself, or a file of it; give another name")
    return real


def place_beside(mirror: Path, target: Path) -> Path:
    """Return the real path of a file, or of one to be; raises as `place_apart` does."""
    real = place_apart(mirror, target)
    if real.exists() and not real.is_file():
        raise ConfigError(f"{target}: {'a folder' if real.is_dir() else 'not a regular file'}; give a file")
    return real


def place_of_copy(mirror: Path, target: Path) -> Path:
    """Return the real path of a target, if a copy may replace it; raises ConfigError, StoreError."""
    real = place_beside(mirror, target)
    with explained(target):
        head = _head(real)
    # In the header of a copy; mirrors in use are in WAL mode.
    is_mirror = head.startswith(b"SQLite format 3\0") and int.from_bytes(head[68:72], "big") == APPLICATION_ID
    if head and (not is_mirror or head[18] == 2):
        raise ConfigError(f"{target}: exists, and is not a copy of a mirror; give another name, or remove it")
    return real


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(100)
    except FileNotFoundError:
        return b""
