"""When work is due: cron expressions and intervals of the configuration, as cron users mean them.

APScheduler reads five fields too, but counts weekdays from Monday = 0, wants day of the month and weekday
both to match, and leaves days out where clocks are changed. Here 0 and 7 are Sunday, and either day is enough
where both are restricted, as in crontab(5). How clocks are changed is left to `mirror.background.local_time`.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from mirror.background.local_time import LocalTimes
from mirror.errors import ConfigError
from mirror.times import machine_zone, seconds_of

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
SHORTEST = 10.0
HOURS = [datetime(2000, 1, 1, hour, tzinfo=UTC) for hour in range(24)]


class Every(IntervalTrigger):  # type: ignore[misc]  # APScheduler carries no types
    """An interval that leaves out what was missed.

    The scheduler asks for each missed moment in turn, to do the work once: where the clock is set forward
    by years, as on a machine that begins in 1970, that would be millions, and nothing else done meanwhile.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the moment after the previous one, or after now where a whole interval has gone by."""
        is_late = previous_fire_time is not None and now - previous_fire_time >= self.interval
        moment: datetime | None = super().get_next_fire_time(now if is_late else previous_fire_time, now)
        return moment


def trigger_of(text: str, *, zone: str, jitter: float = 0, last: datetime | None = None) -> BaseTrigger:
    """Make the trigger of a schedule; `last` is when the work was begun last, for intervals to go on from.

    Raises ConfigError for a text that is neither five cron fields nor an interval.
    """
    seconds = interval_of(text)
    if seconds is not None:
        start = last + timedelta(seconds=seconds) if last else None
        return Every(seconds=seconds, start_date=start, jitter=jitter or None, timezone=UTC)
    try:
        fields = _fields(text)
        lines = [CronTrigger(**each, timezone=UTC) for each in fields]
    except ValueError as error:
        raise ConfigError(
            f'schedule {text!r}: {error}; write it as in cron, "*/15 * * * *", or as an interval, "15m"'
        ) from None
    return LocalTimes(lines, zone_of(zone), every_hour=_is_every_hour(fields[0]["hour"]), jitter=jitter)


def next_time(text: str, *, zone: str, after: datetime) -> datetime | None:
    """Return the first moment later than `after` that a schedule names, jitter aside; raises ConfigError."""
    seconds = interval_of(text)
    if seconds is not None:
        return after + timedelta(seconds=seconds)
    later = after + timedelta(microseconds=1)
    moment: datetime | None = trigger_of(text, zone=zone).get_next_fire_time(None, later)
    return moment


def must_come(text: str, *, zone: str, after: datetime) -> None:
    """Raise ConfigError for a schedule that cannot be read, or that names no moment: the 30th of February."""
    if next_time(text, zone=zone, after=after) is None:
        raise ConfigError(f"schedule {text!r}: no such day will ever come")


def interval_of(text: str) -> float | None:
    """Read an interval in seconds; None if the text is no interval. Raises ConfigError if it is too short."""
    try:
        seconds = seconds_of(text)
    except ValueError:
        return None
    if seconds < SHORTEST:
        raise ConfigError(f"schedule {text!r}: the shortest interval is {SHORTEST:.0f}s")
    return seconds


def zone_of(zone: str) -> tzinfo:
    """Return a time zone by name, or this machine's own for ""."""
    return ZoneInfo(zone) if zone else machine_zone()


def _fields(text: str) -> list[dict[str, str]]:
    """Take a cron expression apart, in two where day and weekday each suffice; raises ValueError."""
    fields = NAMED.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)} fields; a cron expression has five")
    minute, hour, day, month, weekday = fields
    common = {"minute": minute, "hour": hour, "month": month, "second": "0"}
    if day.startswith("*") or weekday.startswith("*"):
        return [{**common, "day": day, "day_of_week": _weekdays(weekday)}]
    return [{**common, "day": day}, {**common, "day_of_week": _weekdays(weekday)}]


def _is_every_hour(field: str) -> bool:
    """Return whether the hour field of a cron line names each hour of a day, however it is written."""
    line = CronTrigger(hour=field, timezone=UTC)
    return field == "*" or all(line.get_next_fire_time(None, hour) == hour for hour in HOURS)


def _weekdays(field: str) -> str:
    """Spell out the weekdays of a field by name, since numbers mean other days to APScheduler."""
    chosen = sorted({day % 7 for part in field.lower().split(",") for day in _days(part)})
    return ",".join(DAYS[day] for day in chosen)


def _days(part: str) -> range:
    """Read one item of a weekday field: a day, a range, all of them, each perhaps with a step."""
    found = re.fullmatch(r"(\*|[a-z]{3}|[0-7])(?:-([a-z]{3}|[0-7]))?(?:/([1-7]))?", part)
    if found is None:
        raise ValueError(f"{part!r} is not a weekday")
    first, last, step = found.groups()
    if first == "*":
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
