"""Cron lines in a time zone, and what they do when the clocks change.

Each local time fires once. One that is skipped when clocks go forward fires at the moment of the change;
one that is repeated when clocks go back fires the first time. Lines for every hour go by elapsed time
instead, and fire in both of two equal hours. So daily work runs once a day, and work every 15 minutes
has no gap.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

INSTANT = timedelta(microseconds=1)
MINUTE = 60
LONGEST_REPEAT = 3 * 3600
"""The longest time that clocks are set back, in seconds."""


class LocalTimes(BaseTrigger):  # type: ignore[misc]  # APScheduler carries no types
    """Fires at each local time of a zone that one of the cron lines names.

    `lines` are APScheduler's, in UTC, and are asked about local times as if clocks never changed.
    `every_hour` tells that they name each hour of the day. `jitter` is the longest random delay, in
    seconds.
    """

    def __init__(
        self, lines: Sequence[CronTrigger], zone: tzinfo, *, every_hour: bool, jitter: float = 0
    ) -> None:
        self.lines, self.zone, self.every_hour, self.jitter = lines, zone, every_hour, jitter

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the first moment from now on that is not the previous one; None for never.

        What was missed is left out, as in `mirror.background.triggers.Every`.
        """
        start = now + INSTANT if previous_fire_time == now else now
        moment: datetime | None = self._apply_jitter(self._first(start), self.jitter, now)
        return moment

    def _first(self, start: datetime) -> datetime | None:
        # From just before: at the moment of a change, what the change leaves out is due.
        wall = self._local((start - INSTANT).timestamp()) + INSTANT
        while (named := self._named(wall)) is not None:
            moment = self._moment(named)
            if moment >= start.timestamp():
                again = self._again(start.timestamp(), moment) if self.every_hour else None
                return datetime.fromtimestamp(moment if again is None else again, UTC)
            wall = named + INSTANT
        return None

    def _named(self, wall: datetime) -> datetime | None:
        """Return the first local time from `wall` on that a line names."""
        found: list[Any] = [line.get_next_fire_time(None, wall.replace(tzinfo=UTC)) for line in self.lines]
        return min((each.replace(tzinfo=None) for each in found if each is not None), default=None)

    def _moment(self, wall: datetime) -> int:
        """Return the first moment when clocks show a local time, or go past it; in seconds since 1970."""
        at, before = (int(wall.replace(tzinfo=self.zone, fold=fold).timestamp()) for fold in (0, 1))
        if self._local(at) == wall:
            return at
        while at - before > 1:  # the change lies between the two readings of a time that does not exist
            middle = (at + before) // 2
            at, before = (middle, before) if self._local(middle) > wall else (at, middle)
        return at

    def _again(self, start: float, end: int) -> int | None:
        """Return the first moment of a line in an hour that comes the second time, before `end`."""
        first = -int(-start // MINUTE) * MINUTE
        for moment in range(first, min(end, first + LONGEST_REPEAT), MINUTE):
            wall = self._local(moment)
            if wall.fold and self._named(wall.replace(fold=0)) == wall:
                return moment
        return None

    def _local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.zone).replace(tzinfo=None)
