"""The server's one writer of webhooks: a thread with a queue, so that no answer waits for a busy file."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from mirror.errors import StoreError
from mirror.store import Store

T = TypeVar("T")

MOST_WAITING = 1_000


class Overwhelmed(Exception):
    """More is waiting to be written than should be remembered."""


class Clerk:
    """Writes into a mirror in the order of the calls; SQLite's lock gives it its turn among the processes.

    Its thread ends with the process: what it had not written by then is lost, as a webhook may be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = queue.Queue[tuple[Callable[[Store], Any], Future[Any]]](MOST_WAITING)
        threading.Thread(target=self._work, daemon=True, name="webhooks").start()

    def submit(self, work: Callable[[Store], T]) -> Future[T]:
        """Have something written; raises Overwhelmed. The future raises StoreError where that failed."""
        future = Future[T]()
        try:
            self._waiting.put_nowait((work, future))
        except queue.Full:
            raise Overwhelmed from None
        return future

    def _work(self) -> None:
        store: Store | None = None
        while True:
            work, future = self._waiting.get()
            try:
                store = store or Store(self._path)
                future.set_result(work(store))
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)
                if isinstance(error, StoreError) and store is not None:
                    store.close()
                    store = None  # opened anew: the file may have been replaced
