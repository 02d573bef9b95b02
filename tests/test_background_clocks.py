"""Schedules when clocks change: each local time fires once, compared with a walk minute by minute."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from mirror.background.jobs import LastRun, Work, is_missed
from mirror.background.triggers import next_time, trigger_of
from mirror.config import from_toml

CHANGES = [
    ("Europe/Berlin", "2027-03-28"), ("Europe/Berlin", "2027-10-31"),
    ("US/Pacific", "2027-03-14"), ("US/Pacific", "2027-11-07"),
    ("Europe/Dublin", "2027-03-28"), ("Europe/Dublin", "2027-10-31"),
    ("Australia/Lord_Howe", "2026-10-04"), ("Australia/Lord_Howe", "2027-04-04"),
    ("Pacific/Chatham", "2026-09-27"), ("Pacific/Chatham", "2027-04-04"),
    ("Asia/Beirut", "2026-03-29"), ("Asia/Beirut", "2026-10-25"),
    ("Africa/Cairo", "2026-04-24"), ("Africa/Cairo", "2026-10-30"),
    ("America/Sao_Paulo", "2018-11-04"), ("America/Sao_Paulo", "2018-02-18"),
    ("America/Havana", "2026-03-08"), ("America/Havana", "2026-11-01"),
    ("America/Santiago", "2026-09-06"), ("America/Santiago", "2026-04-05"),
    ("America/Nuuk", "2026-03-28"), ("America/Nuuk", "2026-10-25"),
    ("Antarctica/Troll", "2026-03-29"), ("Antarctica/Troll", "2026-10-25"),
    ("Africa/Casablanca", "2026-02-15"), ("Africa/Casablanca", "2026-03-22"),
    ("America/Caracas", "2016-05-01"), ("Asia/Pyongyang", "2018-05-05"), ("Asia/Pyongyang", "2015-08-15"),
    ("Pacific/Apia", "2011-12-30"), ("Asia/Kathmandu", "2026-03-29"), ("UTC", "2026-03-29"),
]  # fmt: skip
"""Zones that change by an hour, half an hour, two hours; at midnight; for good; by a whole day; never."""

LINES = [
    "@daily", "30 2 * * *", "0 1 * * *", "30 0 * * *", "45 1 * * *", "59 23 * * *", "15 2,3 * * *",
    "*/15 2 * * *", "0 */6 * * *", "*/15 * * * *", "0 * * * *", "20 * * * *", "0 0 * * sun", "30 2 * * 6,0",
    "0 0 1 * *", "30 2 29 * *",
]  # fmt: skip
MINUTE = timedelta(minutes=1)


@cache
def numbers(line: str) -> tuple[set[int], ...]:
    """Return the minutes, hours, days and weekdays (from Sunday) that a line of the forms above names."""
    minutes, hours, days, _, weekdays = {"@daily": "0 0 * * *"}.get(line, line).split()

    def fits(field: str, value: int) -> bool:
        if field.startswith("*"):
            return value % int(field.partition("/")[2] or 1) == 0
        return str(value) in field.replace("sun", "0").split(",")

    return tuple(
        {value for value in range(60) if fits(field, value)} for field in (minutes, hours, days, weekdays)
    )


def named(line: str) -> Callable[[datetime], bool]:
    """Return a function that says whether a line names a local time."""
    minutes, hours, days, weekdays = numbers(line)
    return lambda wall: (
        wall.minute in minutes
        and wall.hour in hours
        and wall.day in days
        and wall.isoweekday() % 7 in weekdays
    )


class Minute(NamedTuple):
    """A minute: what the clock shows, which times it just skipped, and whether it showed this before."""

    moment: datetime
    walls: list[datetime]
    repeated: bool


def minutes(zone: str, start: datetime, end: datetime) -> Iterator[Minute]:
    """Look at the clock each minute."""
    latest = (start - MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    moment = start
    while moment < end:
        wall = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        count = max(1, (wall - latest) // MINUTE)
        yield Minute(moment, [wall - MINUTE * back for back in range(count)], wall <= latest)
        latest = max(latest, wall)
        moment += MINUTE


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_every_local_time_fires_once(zone: str, day: str) -> None:
    """From the day before a clock change to the day after it, for lines of every kind."""
    middle = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    start, end = middle - timedelta(hours=25, minutes=7), middle + timedelta(hours=31)
    looks = list(minutes(zone, start, end))
    for line in LINES:
        is_named, repeats = named(line), line.split()[1:2] == ["*"]
        expected = [
            look.moment for look in looks if (repeats or not look.repeated) and any(map(is_named, look.walls))
        ]
        found, moment = list[datetime](), start - timedelta(microseconds=1)
        while (due := next_time(line, zone=zone, after=moment)) is not None and due < end:
            found.append(due)
            moment = due
        assert found == expected, line


@pytest.mark.parametrize("zone", sorted({zone for zone, _ in CHANGES}))
def test_a_daily_job_fires_once_a_day_in_every_year(zone: str) -> None:
    """Asked as the scheduler does, just after each firing and with jitter: no day twice, none skipped."""
    trigger, now = trigger_of("@daily", zone=zone, jitter=30), datetime(2026, 1, 1, 12, tzinfo=UTC)
    previous, days = None, list[datetime]()
    for _ in range(400):
        previous = trigger.get_next_fire_time(previous, now)
        assert previous is not None
        now = previous + timedelta(seconds=2)
        days.append(datetime.combine(previous.astimezone(ZoneInfo(zone)), datetime.min.time()))
    assert {later - day for day, later in pairwise(days)} == {timedelta(days=1)}


@pytest.mark.parametrize(
    ("hours", "pause"),
    [
        ("*", 0.5),
        ("*/1", 0.5),
        ("0-23", 0.5),
        (",".join(map(str, range(24))), 0.5),
        ("*/2", 2.5),
        ("0-22", 1.5),
    ],
)
def test_an_hourly_schedule_skips_no_hour(hours: str, pause: float) -> None:
    """However it is written; other lines name local times, which fire once each."""
    moments, after = list[datetime](), datetime(2027, 10, 30, 22, tzinfo=UTC)
    for _ in range(12):
        after = next_time(f"*/30 {hours} * * *", zone="Europe/Berlin", after=after) or after
        moments.append(after)
    assert max(later - one for one, later in pairwise(moments)) == timedelta(hours=pause)


def test_a_start_in_the_repeated_hour_repeats_no_job() -> None:
    """A job of 02:30 that ran in the first of the two hours is not missed in the second."""
    (upstream,) = from_toml('[[upstream]]\nname = "box"').upstreams
    work = Work(upstream, "verify", "30 2 * * *")
    first = datetime(2027, 10, 31, 0, 30, 5, tzinfo=UTC)
    for minutes, missed in ((50, False), (70, False), (24 * 60 + 61, True)):
        now = first + timedelta(minutes=minutes)
        assert is_missed(work, LastRun(first, ended=True), zone="Europe/Berlin", now=now) is missed
