"""Delivering alerts outside the thread that works: a thread and a queue for each place they go to."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from mirror.observe.messengers import COMMAND_SECONDS, SECONDS, NotDelivered

T = TypeVar("T")

MOST_WAITING = 100
LONGEST = COMMAND_SECONDS + SECONDS
"""Seconds that a command which ends waits for its alerts at most."""

log = logging.getLogger("mirror.alerts")


class Courier(Generic[T]):
    """Sends alerts to one place in their order; what cannot be delivered is a line of the log.

    `send` raises NotDelivered, and ends early when the event that it gets is set. `name` is for the log.
    """

    def __init__(self, name: str, send: Callable[[T, threading.Event], None]) -> None:
        self._name, self._send = name, send
        self._waiting = queue.Queue[T | None](MOST_WAITING)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, alert: T) -> None:
        """Have an alert sent; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name=self._name)
            self._thread.start()
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            log.warning("%s could not be delivered: %d others wait", self._name, MOST_WAITING)

    def finish(self, until: float) -> bool:
        """Send what waits until a moment of the monotonic clock; return whether all was sent."""
        if self._thread is None:
            return True
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=max(0.0, until - time.monotonic()))
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Leave out what has not been sent, with a line of the log; `finish` waits for what can be ended."""
        log.warning("%s could not be delivered in time", self._name)
        self._stop.set()

    def _work(self) -> None:
        while not self._stop.is_set() and (alert := self._waiting.get()) is not None:
            try:
                self._send(alert, self._stop)
            except NotDelivered as failure:
                log.warning("%s could not be delivered: %s", self._name, failure)
            except Exception:
                log.exception("%s: a fault of this program", self._name)
