"""Numbers that cost a scan of the file: remembered in proportion to what they cost, renewed behind the page.

A page never waits long for them. On a small file they are counted each time; on one of a million
repositories a second of counting is good for the next minute, and meanwhile the old number is shown. What
could not be counted in time is not tried again at once.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

WORTH = 60
"""How many times its own cost a number is good for."""

CHEAP = 0.05
"""Seconds: what costs less is counted each time."""

LONGEST = 600.0
PATIENCE = 0.5
"""Seconds for which a page waits for a number that nobody knows yet."""


log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """A value, what it cost in seconds, and until when (by the monotonic clock) it is good."""

    value: Any
    cost: float
    until: float


class CountCache:
    """The numbers that are known, and those that are being counted."""

    def __init__(self) -> None:
        self._kept = dict[Any, Kept]()
        self._running = dict[Any, asyncio.Task[Any]]()

    async def get(self, key: Any, count: Callable[[], Awaitable[Any]], *, patience: float = PATIENCE) -> Any:
        """Return a number, at worst an old one; None where it is not known within `patience` seconds."""
        kept = self._kept.get(key)
        if kept is not None and kept.until > time.monotonic():
            return kept.value
        task = self._running.get(key)
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._running[key] = asyncio.create_task(self._count(key, count))
        if kept is not None and kept.cost > CHEAP:
            return kept.value
        done, _ = await asyncio.wait({task}, timeout=patience)
        if done:
            return task.result()
        return kept.value if kept else None

    async def _count(self, key: Any, count: Callable[[], Awaitable[Any]]) -> Any:
        start, known = time.monotonic(), self._kept.get(key)
        try:
            value = await count()
        except sqlite3.Error as error:
            log.warning("%s could not be counted: %s", key[-1], error)
            value = known.value if known else None
        finally:
            self._running.pop(key, None)
        cost = time.monotonic() - start
        good_for = min(WORTH * cost, LONGEST) if cost > CHEAP else 0.0
        self._kept[key] = Kept(value, cost, time.monotonic() + good_for)
        return value
