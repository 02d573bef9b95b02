"""The one writer of webhooks: a thread with a queue, so that responses never wait for a locked database."""

import contextlib
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mirror.errors import StoreError
from mirror.store import Store
from mirror.store.webhooks import Delivery, RepositoryEvent

MOST_FILES = 1_000
SUFFIX = ".json"

log = logging.getLogger("mirror.webhooks")

MOST_WAITING = 1_000
PAUSE_SECONDS = 5.0
"""Seconds between two attempts to write the spool. Each attempt also waits for SQLite's lock."""

WriteResult = dict[str, Any]


class Hook(NamedTuple):
    """The secret of an upstream's webhooks, and whether Data Center sends them, not Cloud."""

    secret: str
    datacenter: bool


class Kept(msgspec.Struct, frozen=True):
    """A verified delivery: its upstream, its identity, and the events in it."""

    upstream: str
    delivery: Delivery
    news: list[RepositoryEvent]


class SpoolFull(Exception):
    """The spool has reached its limit of deliveries."""


class Spool:
    """The folder of deliveries that wait for one mirror, made when needed and private to its owner."""

    def __init__(self, mirror: Path, *, most_files: int = MOST_FILES) -> None:
        resolved = Path(os.path.realpath(mirror))
        self._folder = resolved.with_name(resolved.name + ".webhooks")
        self._most_files = most_files

    def add(self, kept: Kept) -> None:
        """Save a delivery; it is on the disk when this returns. Raises SpoolFull and OSError."""
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _sync(self._folder.parent)
        if len(self._names()) >= self._most_files:
            raise SpoolFull
        # Names sort in the order of arrival; no two are the same.
        descriptor, unfinished = tempfile.mkstemp(prefix=f"{kept.delivery.at}-", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).rename(f"{unfinished}{SUFFIX}")
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        _sync(self._folder)

    def waiting(self) -> Iterator[tuple[str, Kept]]:
        """Yield names and deliveries in the order of arrival; set aside a file that is not a delivery."""
        for name in self._names():
            try:
                yield name, msgspec.json.decode((self._folder / name).read_bytes(), type=Kept)
            except FileNotFoundError:
                continue  # another process has written it
            except OSError as error:
                log.warning("%s: cannot be read: %s", self._folder / name, error.strerror)
            except msgspec.MsgspecError:
                self.set_aside(name)

    def remove(self, name: str) -> None:
        """Remove a delivery that was written. If this fails, the next attempt recognises it as repeated."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def set_aside(self, name: str) -> None:
        """Rename a delivery that cannot be written, so that it is not retried."""
        with contextlib.suppress(OSError):
            (self._folder / name).rename(self._folder / f"{name}.failed")
        log.warning("%s.failed: this webhook could not be read and was set aside", self._folder / name)

    def is_empty(self) -> bool:
        """Return whether no delivery waits."""
        return not self._names()

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._folder.iterdir() if path.suffix == SUFFIX)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("%s: cannot be read: %s", self._folder, error.strerror)
            return []


def _sync(folder: Path) -> None:
    """Write a folder's list of names to the disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


WriteDelivery = Callable[[Store, Kept], WriteResult]


class Overwhelmed(Exception):
    """The queue is full."""


class WebhookWriter:
    """Writes deliveries into a mirror, in the order of the calls.

    A delivery that is only in the queue when the process ends is lost, but its sender got no answer and sends
    it again. An acknowledged delivery is in the spool. The spool is written first, and retried until that
    succeeds, also by the next process.
    """

    def __init__(
        self,
        path: Path,
        write: WriteDelivery,
        *,
        most_waiting: int = MOST_WAITING,
        spool: Spool | None = None,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._path, self._write, self._pause = path, write, pause
        self._spool = spool or Spool(path)
        self._store: Store | None = None
        self._waiting = queue.Queue[tuple[Kept, Future[WriteResult]] | None](most_waiting)
        threading.Thread(target=self._work, daemon=True, name="webhooks").start()

    def submit(self, kept: Kept) -> Future[WriteResult]:
        """Queue a delivery; raises Overwhelmed. The future raises StoreError if it cannot be written."""
        future = Future[WriteResult]()
        try:
            self._waiting.put_nowait((kept, future))
        except queue.Full:
            raise Overwhelmed from None
        return future

    def keep(self, kept: Kept) -> None:
        """Put a delivery into the spool, to be written soon; raises SpoolFull and OSError."""
        self._spool.add(kept)
        with contextlib.suppress(queue.Full):  # a full queue keeps the thread awake anyway
            self._waiting.put_nowait(None)

    def _work(self) -> None:
        pause = threading.Event()
        while True:
            if not self._write_spool():
                pause.wait(self._pause)
                continue
            job = self._waiting.get()
            if job is not None and job[1].set_running_or_notify_cancel():
                self._write_now(*job)

    def _write_now(self, kept: Kept, future: Future[WriteResult]) -> None:
        """Write a delivery whose sender is waiting."""
        try:
            future.set_result(self._write(self._opened(), kept))
        except Exception as error:  # noqa: BLE001 - the caller handles it
            future.set_exception(error)
            self._close_after(error)

    def _write_spool(self) -> bool:
        """Write the spool, oldest first; return whether all of it was written."""
        for name, kept in self._spool.waiting():
            try:
                done = self._write(self._opened(), kept)
            except StoreError as error:
                log.warning("webhook %s: kept on the disk until it can be written: %s", kept.upstream, error)
                self._close_after(error)
                return False
            except Exception:
                log.exception("a fault of this program")
                self._spool.set_aside(name)
                continue
            self._spool.remove(name)
            log.info("webhook %s, kept since %s: %s", kept.upstream, kept.delivery.at, done["outcome"])
        return True

    def _opened(self) -> Store:
        self._store = self._store or Store(self._path)
        return self._store

    def _close_after(self, error: Exception) -> None:
        """Close the file after an error, so that it is opened again: it may have been replaced."""
        if isinstance(error, StoreError) and self._store is not None:
            self._store.close()
            self._store = None
