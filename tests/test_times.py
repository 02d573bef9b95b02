"""Moments and durations are read in every form that Bitbucket and people write."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.times import age_text, from_text, moment_of, normalised, seconds_of, to_text


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
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r"."):
        from_text(text)


@given(st.lists(st.datetimes(timezones=st.just(UTC)), max_size=5))
def test_the_order_of_text_is_the_order_of_time(moments: list[datetime]) -> None:
    """Fixed width, so that SQL may compare."""
    texts = [to_text(moment) for moment in moments]
    assert sorted(texts) == [to_text(moment) for moment in sorted(moments)]
    assert [to_text(from_text(text)) for text in texts] == texts


def test_a_zone_is_left_behind() -> None:
    """Everything is UTC in the file."""
    assert (
        to_text(datetime(2020, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))))
        == "2020-06-01T10:00:00.000000Z"
    )


def test_durations_and_moments_of_people() -> None:
    """As written on the command line."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert [seconds_of(text) for text in ("30s", "15m", "1h", "7d", "1.5h")] == [30, 900, 3600, 604_800, 5400]
    assert moment_of("24h", now) == datetime(2026, 1, 1, tzinfo=UTC)
    assert moment_of("2025-12-31", now) == datetime(2025, 12, 31, tzinfo=UTC)
    with pytest.raises(ValueError, match="24h"):
        moment_of("soon", now)
    with pytest.raises(ValueError, match="30s"):
        seconds_of("-5m")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (864_000, "10 days")]
)
def test_ages_are_said_in_words(seconds: float, text: str) -> None:
    """One unit, no more digits than people read."""
    assert age_text(seconds) == text
