"""The sandbox's time: the real clock's or a test's, moved ahead at will."""

from collections.abc import Callable
from datetime import datetime

from .model import micros


class Clock:
    """Tells the time in microseconds since 1970. Edits are dated by `tick`, so no two have the same date."""

    def __init__(self, now: Callable[[], datetime], *, after: int) -> None:
        self._now = now
        self._ahead = 0
        self._last = after

    def now(self) -> int:
        """Give the time."""
        return micros(self._now()) + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock ahead of its source."""
        self._ahead += int(seconds * 1_000_000)

    def tick(self) -> int:
        """Give a date for an edit: now, but later than all dates given before."""
        self._last = max(self.now(), self._last + 1)
        return self._last
