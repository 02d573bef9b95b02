"""Deliveries of webhooks, written into the mirror by one thread, or kept on the disk until that succeeds."""

import contextlib
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from mirror.errors import StoreError
from mirror.store import Store
from mirror.store.lock import sync_to_disk
from mirror.store.webhooks import KEPT_HOURS, Delivery, RepositoryEvent, is_new_delivery, save_event
from mirror.times import to_text

MOST_FILES = 1_000  # deliveries in the spool
SUFFIX, SET_ASIDE = ".json", ".failed"
UNFINISHED_SECONDS = 60.0  # much longer than it takes to write a delivery

log = logging.getLogger("mirror.webhooks")

MOST_WAITING = 1_000  # deliveries in memory, whose senders wait for an answer
# Seconds between two attempts to write the spool. Each attempt also waits for SQLite's lock.
PAUSE_SECONDS = 5.0


# `rename` keeps the key of files that earlier versions left in the spool.
class Kept(msgspec.Struct, frozen=True, rename={"events": "news"}):
    """A verified delivery: its upstream, its identity, and the events in it."""

    upstream: str
    delivery: Delivery
    events: list[RepositoryEvent]


class TooMany(Exception):
    """Too many deliveries wait to be written."""


class Spool:
    """The folder of deliveries that wait for one mirror, made when needed and private to its owner."""

    def __init__(self, mirror: Path, *, most_files: int = MOST_FILES) -> None:
        resolved = Path(os.path.realpath(mirror))
        self._folder = resolved.with_name(resolved.name + ".webhooks")
        self._most_files = most_files
        self._drop_unfinished()

    def add(self, kept: Kept) -> None:
        """Save a delivery; it is on the disk when this returns. Raises TooMany and OSError."""
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            sync_to_disk(self._folder.parent)
        if len(self._names()) >= self._most_files:
            raise TooMany
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
        sync_to_disk(self._folder)

    def _drop_unfinished(self) -> None:
        """Remove what killed processes had not finished, so was never acknowledged."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                is_old = path.stat().st_mtime < time.time() - UNFINISHED_SECONDS  # one may be written now
                if is_old and path.suffix not in (SUFFIX, SET_ASIDE):
                    path.unlink()

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
            (self._folder / name).rename(self._folder / f"{name}{SET_ASIDE}")
        log.warning("%s%s: this webhook could not be read and was set aside", self._folder / name, SET_ASIDE)

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


WriteDelivery = Callable[[Store, Kept], str]


class WebhookWriter:
    """Writes deliveries into a mirror, in the order of the calls, in a thread: responses wait for no lock.

    The spool is written first, and retried until that succeeds, also by the next process.
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
        # If the process ends, deliveries in this queue are lost, but their senders got no answer, so they
        # send them again. Acknowledged ones are in the spool.
        self._waiting = queue.Queue[tuple[Kept, Future[str]] | None](most_waiting)
        threading.Thread(target=self._work, daemon=True, name="webhooks").start()

    def submit(self, kept: Kept) -> Future[str]:
        """Queue a delivery; raises TooMany. The future raises StoreError if it cannot be written."""
        future = Future[str]()
        try:
            self._waiting.put_nowait((kept, future))
        except queue.Full:
            raise TooMany from None
        return future

    def keep(self, kept: Kept) -> None:
        """Put a delivery into the spool, to be written soon; raises TooMany and OSError."""
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

    def _write_now(self, kept: Kept, future: Future[str]) -> None:
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
                outcome = self._write(self._opened(), kept)
            except StoreError as error:
                log.warning("webhook %s: kept on the disk until it can be written: %s", kept.upstream, error)
                self._close_after(error)
                return False
            except Exception:
                log.exception("a fault of this program")
                self._spool.set_aside(name)
                continue
            self._spool.remove(name)
            log.info("webhook %s, kept since %s: %s", kept.upstream, kept.delivery.at, outcome)
        return True

    def _opened(self) -> Store:
        if self._store is not None and not self._store.is_in_place:
            self._close()
        self._store = self._store or Store(self._path)
        return self._store

    def _close_after(self, error: Exception) -> None:
        """Close the file after one of its errors, so that it is opened again."""
        if isinstance(error, StoreError):
            self._close()

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


def write(store: Store, kept: Kept, now: datetime) -> str:
    """Write the events of a delivery and a record of it, in one transaction; ignore one that was written.

    Returns the outcome: taken, repeated, or unknown for an upstream that was not mirrored yet.
    """
    at, delivery = to_text(now), kept.delivery
    with store.transaction() as connection:
        row = store.row("SELECT id FROM upstreams WHERE name = ?", (kept.upstream,))
        if row is None:
            return "unknown"
        forget_before = to_text(now - timedelta(hours=KEPT_HOURS))
        repeated = not is_new_delivery(connection, row[0], delivery, forget_before=forget_before)
        if repeated and delivery.request:
            return "repeated"
        # Without a number, it could also be a new event with the same body: the next run asks the upstream.
        for event in kept.events:
            applied = event._replace(updates=()) if repeated else event
            changes = save_event(connection, row[0], applied, at=delivery.at)
            store.save_changes(changes, run_id=None, at=at)
    return "repeated" if repeated else "taken"
