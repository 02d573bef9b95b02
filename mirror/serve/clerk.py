"""The server's one writer of webhooks: a thread with a queue, so that no answer waits for a busy file."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mirror.errors import StoreError
from mirror.serve.spool import Kept, Spool
from mirror.store import Store

MOST_WAITING = 1_000
PAUSE_SECONDS = 5.0
"""Between two attempts to write what is kept; each of them waits for SQLite's lock as well."""

Outcome = dict[str, Any]
Write = Callable[[Store, Kept], Outcome]

log = logging.getLogger("mirror.webhooks")


class Overwhelmed(Exception):
    """More is waiting to be written than should be remembered."""


class Clerk:
    """Writes deliveries into a mirror in the order of the calls; SQLite's lock gives it its turn.

    What is only in the queue when the process ends is lost, and nobody was told that it was taken. What was
    acknowledged lies in the spool: it is written first, and tried again until it is, by the next process too.
    """

    def __init__(
        self,
        path: Path,
        write: Write,
        *,
        most_waiting: int = MOST_WAITING,
        spool: Spool | None = None,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._path, self._write, self._pause = path, write, pause
        self._spool = spool or Spool(path)
        self._store: Store | None = None
        self._waiting = queue.Queue[tuple[Kept, Future[Outcome]] | None](most_waiting)
        threading.Thread(target=self._work, daemon=True, name="webhooks").start()

    def submit(self, kept: Kept) -> Future[Outcome]:
        """Have a delivery written; raises Overwhelmed. The future raises StoreError where that failed."""
        future = Future[Outcome]()
        try:
            self._waiting.put_nowait((kept, future))
        except queue.Full:
            raise Overwhelmed from None
        return future

    def keep(self, kept: Kept) -> None:
        """Put a delivery into the spool, to be written as soon as possible; raises SpoolFull and OSError."""
        self._spool.add(kept)
        with contextlib.suppress(queue.Full):  # then the thread is awake
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

    def _write_now(self, kept: Kept, future: Future[Outcome]) -> None:
        """Write a delivery that its sender waits for."""
        try:
            future.set_result(self._write(self._opened(), kept))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
            self._close_after(error)

    def _write_spool(self) -> bool:
        """Write what is kept, the oldest first; return whether nothing is left to be tried again."""
        for name, kept in self._spool.waiting():
            try:
                done = self._write(self._opened(), kept)
            except StoreError as error:
                log.warning("webhook %s: kept until it can be written: %s", kept.upstream, error)
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
        """Open the file anew after its own errors: it may have been replaced."""
        if isinstance(error, StoreError) and self._store is not None:
            self._store.close()
            self._store = None
