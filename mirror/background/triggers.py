"""When a schedule fires next: cron expressions and intervals.

Five fields mean what crontab(5) says: 0 and 7 are Sunday, and if both day of the month and weekday are
restricted, either may match. APScheduler counts weekdays from Monday = 0, requires both to match, and skips
days when clocks change. Here each local time fires once when clocks change: a skipped one at the moment of
the change, a repeated one the first time only. Lines for every hour follow elapsed time instead, and fire in
both of two equal hours. So daily work runs once a day, and work every 15 minutes has no gap.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from mirror.errors import ConfigError
from mirror.times import machine_zone, seconds_of

INSTANT = timedelta(microseconds=1)
MINUTE = 60
LONGEST_REPEAT = 3 * 3600  # the longest time by which clocks are set back, in seconds


class LocalTimes(BaseTrigger):  # type: ignore[misc]  # APScheduler carries no types
    """Fires at each local time of a zone that matches one of the cron lines.

    - `lines`: triggers of APScheduler in UTC, which get local times as if clocks never changed.
    - `every_hour`: whether they match every hour of the day.
    - `jitter`: the longest random delay, in seconds.
    """

    def __init__(
        self, lines: Sequence[CronTrigger], zone: tzinfo, *, every_hour: bool, jitter: float
    ) -> None:
        self.lines, self.zone, self.every_hour, self.jitter = lines, zone, every_hour, jitter

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the first moment from now on that is not the previous one; None for never.

        Missed moments are skipped, as in `Every`.
        """
        start = now + INSTANT if previous_fire_time == now else now
        moment: datetime | None = self._apply_jitter(self._first(start), self.jitter, now)
        return moment

    def _first(self, start: datetime) -> datetime | None:
        # From just before: skipped times are due at the moment of a change.
        wall = self._local((start - INSTANT).timestamp()) + INSTANT
        while (named := self._named(wall)) is not None:
            moment = self._moment(named)
            if moment >= start.timestamp():
                again = self._again(start.timestamp(), moment) if self.every_hour else None
                return datetime.fromtimestamp(moment if again is None else again, UTC)
            wall = named + INSTANT
        return None

    def _named(self, wall: datetime) -> datetime | None:
        """Return the first local time from `wall` on that a line matches."""
        found: list[Any] = [line.get_next_fire_time(None, wall.replace(tzinfo=UTC)) for line in self.lines]
        return min((each.replace(tzinfo=None) for each in found if each is not None), default=None)

    def _moment(self, wall: datetime) -> int:
        """Return the first moment when clocks show or pass a local time, in seconds since 1970."""
        at, before = (int(wall.replace(tzinfo=self.zone, fold=fold).timestamp()) for fold in (0, 1))
        if self._local(at) == wall:
            return at
        while at - before > 1:  # a skipped time: the change lies between its two readings
            middle = (at + before) // 2
            at, before = (middle, before) if self._local(middle) > wall else (at, middle)
        return at

    def _again(self, start: float, end: int) -> int | None:
        """Return the first match before `end` in an hour that is repeated."""
        first = -int(-start // MINUTE) * MINUTE
        for moment in range(first, min(end, first + LONGEST_REPEAT), MINUTE):
            wall = self._local(moment)
            if wall.fold and self._named(wall.replace(fold=0)) == wall:
                return moment
        return None

    def _local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.zone).replace(tzinfo=None)


NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
SHORTEST = 10.0  # seconds of an interval
HOURS = [datetime(2000, 1, 1, hour, tzinfo=UTC) for hour in range(24)]


class Every(IntervalTrigger):  # type: ignore[misc]  # APScheduler carries no types
    """An interval that skips missed moments."""

    # The scheduler asks for each missed moment in turn. If the clock is set forward by years, as on a machine
    # that starts in 1970, these would be millions.
    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the moment after the previous one, or after now if a whole interval has passed."""
        is_late = previous_fire_time is not None and now - previous_fire_time >= self.interval
        moment: datetime | None = super().get_next_fire_time(now if is_late else previous_fire_time, now)
        return moment


def trigger_of(text: str, *, zone: str, jitter: float = 0, last: datetime | None = None) -> BaseTrigger:
    """Make the trigger of a schedule; intervals continue from `last`, when the work last began.

    Raises ConfigError for a text that is neither five cron fields nor an interval.
    """
    seconds = interval_of(text)
    if seconds is not None:
        start = last + timedelta(seconds=seconds) if last else None
        return Every(seconds=seconds, start_date=start, jitter=jitter or None, timezone=UTC)
    try:
        lines, every_hour = _lines(text)
    except ValueError as error:
        raise ConfigError(
            f'{text!r}: {error}; write it as in cron, "*/15 * * * *", or as an interval, "15m"'
        ) from None
    return LocalTimes(lines, zone_of(zone), every_hour=every_hour, jitter=jitter)


def next_time(text: str, *, zone: str, after: datetime) -> datetime | None:
    """Return the first moment later than `after` of a schedule, without jitter; raises ConfigError."""
    seconds = interval_of(text)
    if seconds is not None:
        return after + timedelta(seconds=seconds)
    later = after + timedelta(microseconds=1)
    moment: datetime | None = trigger_of(text, zone=zone).get_next_fire_time(None, later)
    return moment


def must_come(text: str, *, zone: str, after: datetime) -> None:
    """Raise ConfigError for a schedule that cannot be read or never fires, like the 30th of February."""
    if next_time(text, zone=zone, after=after) is None:
        raise ConfigError(f"{text!r}: no day matches it")


def interval_of(text: str) -> float | None:
    """Parse an interval as seconds; None if the text is not one. Raises ConfigError if it is too short."""
    try:
        seconds = seconds_of(text)
    except ValueError:
        return None
    if seconds < SHORTEST:
        raise ConfigError(f"{text!r}: the shortest interval is {SHORTEST:.0f}s")
    return seconds


def zone_of(zone: str) -> tzinfo:
    """Return a time zone by name, or this machine's own for ""."""
    return ZoneInfo(zone) if zone else machine_zone()


@lru_cache(100)  # the same schedules are asked again and again, and APScheduler takes 0.2 ms to read one
def _lines(text: str) -> tuple[list[CronTrigger], bool]:
    """Return the cron lines of a schedule, and whether they match every hour; raises ValueError."""
    fields = _fields(text)
    lines = [CronTrigger(**each, timezone=UTC) for each in fields]
    return lines, _is_every_hour(fields[0]["hour"])


def _fields(text: str) -> list[dict[str, str]]:
    """Split a cron expression into fields, into two sets if day or weekday may match; raises ValueError."""
    fields = NAMED.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise ValueError("it does not have the five fields of a cron expression")
    minute, hour, day, month = (re.sub(r"\d+-\d+/\d+", _first_of_wide, field) for field in fields[:4])
    weekday = fields[4]
    common = {"minute": minute, "hour": hour, "month": month, "second": "0"}
    if day.startswith("*") or weekday.startswith("*"):
        return [{**common, "day": day, "day_of_week": _weekdays(weekday)}]
    return [{**common, "day": day}, {**common, "day_of_week": _weekdays(weekday)}]


def _first_of_wide(found: re.Match[str]) -> str:
    """Write a range with a step that is wider as its first value, which alone it means in cron."""
    first, last, step = map(int, re.split("[-/]", found[0]))  # APScheduler refuses it
    return str(first) if first <= last < first + step else found[0]


def _is_every_hour(field: str) -> bool:
    """Return whether the hour field of a cron line matches every hour."""
    line = CronTrigger(hour=field, timezone=UTC)
    return field == "*" or all(line.get_next_fire_time(None, hour) == hour for hour in HOURS)


def _weekdays(field: str) -> str:
    """Write the weekdays of a field as names."""
    # Their numbers have another meaning in APScheduler.
    chosen = sorted({day % 7 for part in field.lower().split(",") for day in _days(part)})
    return ",".join(DAYS[day] for day in chosen)


def _days(part: str) -> range:
    """Parse an item of a weekday field: a day, a range or all, perhaps with a step."""
    found = re.fullmatch(r"(\*|([a-z]{3}|[0-7])(?:-([a-z]{3}|[0-7]))?)(?:/([1-7]))?", part)
    if found is None:
        raise ValueError(f"{part!r} is not a weekday")
    whole, first, last, step = found.groups()
    if whole == "*":
        return range(0, 7, int(step or 1))
    start = _day(first)
    end = _day(last) if last else (6 if step else start)
    if end < start:
        end += 7  # fri-mon
    return range(start, end + 1, int(step or 1))


def _day(name: str) -> int:
    if name.isdecimal():
        return int(name)
    if name not in DAYS:
        raise ValueError(f"{name!r} is not a weekday")
    return DAYS.index(name)
