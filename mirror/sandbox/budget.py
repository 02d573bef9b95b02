"""A rolling hour of requests for each credential."""

from collections import deque

HOUR = 3_600_000_000


class Budget:
    """Counts requests for each key; beyond the limit of a key's kind it says no.

    Refused requests are not counted, as the service does it. A limit of None means no limit.
    """

    def __init__(self, limit: int | None, anonymous_limit: int | None) -> None:
        self._limits = {True: anonymous_limit, False: limit}
        self._asked: dict[str, deque[int]] = {}

    def limit(self, *, anonymous: bool) -> int | None:
        """Give the number of requests an hour."""
        return self._limits[anonymous]

    def spend(self, key: str, now: int, *, anonymous: bool) -> bool:
        """Take one request out of the hour before `now` (in microseconds), if there is one left."""
        limit = self._limits[anonymous]
        if limit is None:  # and nothing to remember
            return True
        asked = self._recent(key, now)
        if len(asked) >= limit:
            return False
        asked.append(now)
        return True

    def spent(self, key: str, now: int) -> int:
        """Tell how many requests of the last hour are counted."""
        return len(self._recent(key, now))

    def seconds_left(self, key: str, now: int) -> int:
        """Tell after how many seconds the oldest request drops out of the hour."""
        asked = self._recent(key, now)
        return (asked[0] + HOUR - now) // 1_000_000 + 1 if asked else 0

    def clear(self) -> None:
        """Forget all requests."""
        self._asked.clear()

    def _recent(self, key: str, now: int) -> deque[int]:
        asked = self._asked.setdefault(key, deque())
        while asked and asked[0] <= now - HOUR:
            asked.popleft()
        return asked


class TokenBuckets:
    """Data Center's way to limit: so many requests at once, and so many a second from then on."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, int]] = {}

    def spend(self, key: str, now: int, *, size: int, refill: int) -> int:
        """Take a token out of a bucket; gives 0, or the seconds after which there is one again."""
        left, then = self._left.get(key, (float(size), now))
        left = min(size, left + (now - then) / 1_000_000 * refill)
        if left < 1:
            self._left[key] = left, now
            return int((1 - left) / refill) + 1
        self._left[key] = left - 1, now
        return 0

    def clear(self) -> None:
        """Fill all buckets."""
        self._left.clear()
