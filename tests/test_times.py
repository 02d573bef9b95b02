"""Moments and durations in every form that Bitbucket and people write; the zone of this machine."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cli_runner import Folder, small_sandbox
from hypothesis import given
from hypothesis import strategies as st

from mirror.times import (
    age_text,
    ago,
    duration_text,
    from_text,
    machine_zone,
    moment_of,
    normalised,
    seconds_of,
    to_text,
)

WINTER, SUMMER = datetime(2026, 1, 15, 12, tzinfo=UTC), datetime(2026, 7, 15, 12, tzinfo=UTC)
BERLIN = "/usr/share/zoneinfo/Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2008-08-01T01:53:20+00:00", "2008-08-01T01:53:20.000000Z"),
        ("2025-01-27T14:15:58.600540+00:00", "2025-01-27T14:15:58.600540Z"),
        ("2025-01-27T14:15:58.6+00:00", "2025-01-27T14:15:58.600000Z"),
        ("2025-01-27T14:15:58.123456789Z", "2025-01-27T14:15:58.123456Z"),
        ("2012-02-20 21:29:16+00:00", "2012-02-20T21:29:16.000000Z"),
        ("2015-09-04T20:33:22", "2015-09-04T20:33:22.000000Z"),
        ("2020-01-01T01:00:00+02:00", "2019-12-31T23:00:00.000000Z"),
    ],
)
def test_every_recorded_form_is_read(text: str, expected: str) -> None:
    """With fractions of any length, with offsets, with a space."""
    assert normalised(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2020-13-01", "null"])
def test_an_invalid_time_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r"."):
        from_text(text)


@given(st.lists(st.datetimes(timezones=st.just(UTC)), max_size=5))
def test_times_sort_as_text(moments: list[datetime]) -> None:
    """With a fixed width, so SQL can compare them."""
    texts = [to_text(moment) for moment in moments]
    assert sorted(texts) == [to_text(moment) for moment in sorted(moments)]
    assert [to_text(from_text(text)) for text in texts] == texts


def test_zones_are_converted_to_utc() -> None:
    """The file has only UTC."""
    assert (
        to_text(datetime(2020, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))))
        == "2020-06-01T10:00:00.000000Z"
    )


def test_durations_and_times_are_read_as_people_write_them() -> None:
    """As on the command line."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert [seconds_of(text) for text in ("30s", "15m", "1h", "7d", "1.5h")] == [30, 900, 3600, 604_800, 5400]
    assert moment_of("24h", now) == datetime(2026, 1, 1, tzinfo=UTC)
    assert moment_of("2025-12-31", now) == datetime(2025, 12, 31, tzinfo=UTC)
    with pytest.raises(ValueError, match="24h"):
        moment_of("soon", now)
    with pytest.raises(ValueError, match="30s"):
        seconds_of("-5m")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (600, "10 min"),
        (9000, "2.5 h"),
        (7200, "2 h"),
        (36_000, "10 h"),
        (864_000, "10 days"),
        (10.9 * 86_400, "10 days"),
        (60 * 86_400, "60 days"),
        (61 * 86_400, "2 months"),
        (730 * 86_400, "23 months"),
        (731 * 86_400, "2 years"),
        (17.9 * 366 * 86_400, "17 years"),
    ],
)
def test_ages_are_written_in_words(seconds: float, text: str) -> None:
    """One unit, and few digits."""
    assert age_text(seconds) == text
    now = datetime(2026, 1, 1, tzinfo=UTC)
    if seconds:
        assert ago(to_text(now - timedelta(seconds=seconds)), now) == f"{text} ago"
        assert ago(to_text(now + timedelta(seconds=seconds)), now) == f"in {text}"


@pytest.mark.parametrize("text", ["0s", "1s", "90s", "1.5s", "10m", "36h", "1d", "30d"])
def test_a_duration_is_written_in_its_largest_whole_unit(text: str) -> None:
    """And is read as the same number of seconds."""
    assert duration_text(seconds_of(text)) == text


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("UTC0", (0, 0)),
        ("CET-1CEST,M3.5.0,M10.5.0/3", (1, 2)),
        ("CET-1CEST", (1, 2)),
        ("EST5EDT4,M3.2.0/0,M11.1.0", (-5, -4)),
        ("NZST-12NZDT-13,J274,J91", (13, 12)),
        ("<-03>3", (-3, -3)),
        ("Europe/Berlin", (1, 2)),
        (":Europe/Berlin", (1, 2)),
        pytest.param(
            f":{BERLIN}",
            (1, 2),
            marks=pytest.mark.skipif(not Path(BERLIN).is_file(), reason="no zone files here"),
        ),
        *((nonsense, (0, 0)) for nonsense in ("", ":", "nonsense", "Europe", "/etc", "/etc/passwd")),
        *(
            (nonsense, (0, 0))
            for nonsense in (
                "XYZ25",
                "AAA24",
                "AAA-24",
                "../../etc/passwd",
                "\udcff",
                "/nonexistent",
                "A,B,C",
            )
        ),
    ],
)
def test_a_zone_of_every_form_is_read(text: str, hours: tuple[int, int]) -> None:
    """Hours ahead of UTC in northern winter and summer; an invalid one is UTC."""
    zone = machine_zone({"TZ": text})
    offsets = [moment.astimezone(zone).utcoffset() for moment in (WINTER, SUMMER)]
    assert [offset.total_seconds() / 3600 for offset in offsets if offset is not None] == list(hours)


def test_the_system_time_zone_is_the_default() -> None:
    """Whichever it is."""
    assert WINTER.astimezone(machine_zone({})).utcoffset() is not None


def test_commands_work_in_unusual_zones(tmp_path: Path) -> None:
    """Times are shown in the zone, and schedules follow it."""
    folder = Folder(tmp_path)
    with small_sandbox(1) as served:
        folder.configure(served.url, 'schedule = "30 2 * * *"')
        assert folder.run("sync", TZ="XYZ25").code == 0
        assert folder.run("status", TZ="XYZ25").code == 0
