"""Counts by a scan: cheap ones are always current, expensive ones cached, and no page waits for them."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable

from mirror.serve.state import CHEAP_SECONDS, CountCache

WAIT = 0.5


def _counting(seconds: float, counted: list[int]) -> Callable[[], Awaitable[int]]:
    """Make a count that takes some time and records its calls."""

    async def count() -> int:
        await asyncio.sleep(seconds)
        counted.append(1)
        return len(counted)

    return count


def test_cheap_counts_are_made_each_time() -> None:
    """A page of a small file never shows an old number."""

    async def ask() -> list[int]:
        cache, count = CountCache(), _counting(0, [])
        return [await cache.get("key", count) for _ in range(3)]

    assert asyncio.run(ask()) == [1, 2, 3]


def test_expensive_counts_are_remembered() -> None:
    """For many times as long as the count took."""

    async def ask() -> list[int]:
        cache, count = CountCache(), _counting(CHEAP_SECONDS * 2, [])
        return [await cache.get("key", count) for _ in range(3)]

    assert asyncio.run(ask()) == [1, 1, 1]


def test_a_slow_count_is_shown_later() -> None:
    """It is None during the first count; two pages share one count."""

    async def ask() -> tuple[list[int | None], float, int | None, int]:
        cache, counted = CountCache(), list[int]()
        count = _counting(WAIT * 2, counted)
        start = time.monotonic()
        both = list(await asyncio.gather(*(cache.get("key", count, wait=WAIT) for _ in range(2))))
        took = time.monotonic() - start
        await asyncio.sleep(WAIT * 2)
        return both, took, await cache.get("key", count), len(counted)

    both, took, later, counted = asyncio.run(ask())
    assert both == [None, None]
    assert took < WAIT * 1.9
    assert (later, counted) == (1, 1)


def test_a_failed_count_is_not_repeated_at_once() -> None:
    """An interrupted scan is no error of the page, and is not repeated for a while."""
    tried = list[int]()

    async def count() -> int:
        await asyncio.sleep(CHEAP_SECONDS * 2)
        tried.append(1)
        raise sqlite3.OperationalError("interrupted")

    async def ask() -> list[int | None]:
        cache = CountCache()
        return [await cache.get(("mirror", "refs"), count) for _ in range(3)]

    assert asyncio.run(ask()) == [None, None, None]
    assert len(tried) == 1
