"""The request ledger of the file: an hour is an hour, whatever the clock has been."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prepared_files import opened

from mirror.model import NoRoom
from mirror.queries.status import budget_left
from mirror.store.ledger import AHEAD, LOOK_EVERY, SHARE, RequestLedger
from mirror.times import to_text

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[RequestLedger]:
    """An empty one."""
    with opened(tmp_path / "mirror.db") as store:
        yield RequestLedger(store)


def test_a_clock_that_was_far_ahead_stops_nothing_for_longer_than_an_hour(ledger: RequestLedger) -> None:
    """Requests a year ahead count as sent now, because they may be of any moment; holds do not count."""
    ahead = NOON + timedelta(days=365)
    for _ in range(3):
        assert ledger.reserve("b", 4, ahead) is None
    ledger.hold("b", ahead + HOUR)
    assert ledger.reserve("b", 4, ahead) == NoRoom(ahead + HOUR, held=True)
    assert ledger.reserve("b", 4, NOON) is None
    assert ledger.reserve("b", 4, NOON) == NoRoom(NOON + HOUR + timedelta(seconds=1), held=False)
    assert ledger.reserve("b", 4, NOON + HOUR + timedelta(seconds=1)) is None
    assert ledger.used("b", ahead) == 0
    ledger.hold("b", NOON + 2 * HOUR)
    assert ledger.reserve("b", None, NOON + HOUR) == NoRoom(NOON + 2 * HOUR, held=True)


def test_the_last_hold_is_known_until_the_next_request(ledger: RequestLedger) -> None:
    """A request that was given back does not count, nor does one of another bucket."""
    assert ledger.last_hold("b") == 0
    ledger.reserve("b", None, NOON - HOUR)
    assert ledger.last_hold("b") == 0
    ledger.reserve("b", None, NOON)
    ledger.hold("b", NOON + timedelta(seconds=120))
    ledger.reserve("other", None, NOON + HOUR)
    ledger.reserve("b", None, NOON + HOUR)
    ledger.take_back("b", NOON + HOUR)
    assert (ledger.last_hold("b"), ledger.last_hold("other")) == (120, 0)
    ledger.reserve("b", None, NOON + HOUR)
    assert ledger.last_hold("b") == 0


@pytest.mark.parametrize("hours", [0.5, 2, 24, 24 * 365])
def test_a_clock_that_is_set_forward_and_back_does_not_spend_the_hour_twice(
    ledger: RequestLedger, hours: float
) -> None:
    """Requests sent meanwhile count once it is right again, and in no later hour."""
    for _ in range(5):
        assert ledger.reserve("b", 5, NOON + timedelta(hours=hours)) is None
    later = NOON + timedelta(minutes=5)
    assert ledger.reserve("b", 5, later) is not None
    assert ledger.reserve("b", 5, later + 2 * HOUR) is None
    assert ledger.reserve("other", 5, later) is None


def test_requests_that_never_left_are_not_counted(ledger: RequestLedger) -> None:
    """A request that is given back makes room at once, and only once."""
    for _ in range(2):
        assert ledger.reserve("b", 2, NOON) is None
    ledger.take_back("b", NOON)
    assert ledger.used("b", NOON) == 1
    assert ledger.reserve("b", 2, NOON + timedelta(seconds=1)) is None
    assert ledger.reserve("b", 2, NOON) == NoRoom(NOON + HOUR + timedelta(seconds=1), held=False)


def test_a_clock_that_is_set_back_a_little_does_not_spend_the_hour_twice(ledger: RequestLedger) -> None:
    """Requests up to an hour ahead were made within the hour."""
    assert ledger.reserve("b", 1, NOON) is None
    assert ledger.reserve("b", 1, NOON - timedelta(minutes=30)) is not None


def test_a_clock_that_is_set_forward_frees_the_budget(ledger: RequestLedger) -> None:
    """It looks like an hour that passed; a 429 still holds all requests."""
    assert ledger.reserve("b", 1, NOON) is None
    assert ledger.reserve("b", 1, NOON + 2 * HOUR) is None
    ledger.hold("b", NOON + 2 * HOUR + timedelta(minutes=1))
    assert ledger.reserve("b", None, NOON + 2 * HOUR) is not None


def test_a_clock_that_is_some_hours_ahead_for_a_while_forgets_nothing(ledger: RequestLedger) -> None:
    """Only rows older than any such error are deleted."""
    assert ledger.reserve("b", 1, NOON) is None
    ledger.forget(NOON + 5 * HOUR)
    assert ledger.used("b", NOON) == 1
    ledger.forget(NOON + 50 * HOUR)
    assert ledger.used("b", NOON) == 0


SECOND = timedelta(seconds=1)


def test_the_status_says_what_the_ledger_allows(tmp_path: Path) -> None:
    """Requests used and left, and when the next one may be sent; a 429 counts before a spent budget."""
    later = NOON + 2 * SECOND
    with opened(tmp_path / "mirror.db") as store:
        ledger = RequestLedger(store)
        empty = budget_left(store.connection, later, "b", 2)
        assert (empty.used, empty.left, empty.resets_at, empty.held_until) == (0, 2, None, None)
        assert ledger.reserve("b", 2, NOON) is ledger.reserve("b", 2, NOON + SECOND) is None
        spent, refused = budget_left(store.connection, later, "b", 2), ledger.reserve("b", 2, later)
        assert refused is not None
        assert (spent.used, spent.left, spent.held_until) == (2, 0, None)
        assert spent.resets_at == to_text(refused.until)
        assert budget_left(store.connection, later, "b", None).left is None
        ledger.hold("b", NOON + HOUR / 2)
        held = budget_left(store.connection, later, "b", 2)
        assert held.held_until == held.resets_at == to_text(NOON + HOUR / 2)
        assert budget_left(store.connection, NOON + HOUR / 2, "b", 2).held_until is None


def rows(path: Path) -> list[tuple[int, int, int]]:
    """Read the seconds after noon, with the requests that were reserved and sent."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT at, requests, sent FROM request_ledger ORDER BY at").fetchall()
    return [(at - int(NOON.timestamp()), requests, sent) for at, requests, sent in found]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[RequestLedger, RequestLedger]]:
    """Two processes' ledgers of one file, each with its own connection, which reserve ahead."""
    path = tmp_path / "mirror.db"
    with opened(path) as one, opened(path) as other:
        yield RequestLedger(one, ahead=AHEAD), RequestLedger(other, ahead=AHEAD)


def test_two_that_reserve_ahead_stay_within_the_limit(both: tuple[RequestLedger, RequestLedger]) -> None:
    """Together they send exactly the limit: near its end, nobody reserves ahead."""
    for limit in (1, 2, SHARE, 300):
        bucket, sent = f"b{limit}", 0
        for number in range(2 * limit + 10):
            sent += both[number % 2].reserve(bucket, limit, NOON) is None
        assert sent == limit
        for ledger in both:
            assert ledger.reserve(bucket, limit, NOON) is not None
            assert ledger.used(bucket, NOON) == limit


def test_what_is_not_sent_is_given_back(both: tuple[RequestLedger, RequestLedger], tmp_path: Path) -> None:
    """At the end; each request counts in the second in which it was sent."""
    ledger = both[0]
    for number in range(10):
        assert ledger.reserve("b", None, NOON + number * timedelta(milliseconds=150)) is None
    assert sum(reserved for _, reserved, _ in rows(tmp_path / "mirror.db")) > 10
    ledger.close()
    assert rows(tmp_path / "mirror.db") == [(0, 7, 7), (1, 3, 3)]
    assert ledger.reserve("b", None, NOON) is None  # by a thread that was still asking
    assert rows(tmp_path / "mirror.db") == [(0, 8, 8), (1, 3, 3)]


def test_after_a_kill_what_was_reserved_counts_as_spent(
    both: tuple[RequestLedger, RequestLedger], tmp_path: Path
) -> None:
    """For the hour, but not as sent: nobody knows how many were."""
    for _ in range(10):
        assert both[0].reserve("b", None, NOON) is None
    known = rows(tmp_path / "mirror.db")
    assert both[1].used("b", NOON) == sum(reserved for _, reserved, _ in known) >= 10
    assert sum(sent for _, _, sent in known) <= 10
    assert both[1].used("b", NOON + HOUR + SECOND) > 0  # the last could have been sent a second later
    assert both[1].used("b", NOON + HOUR + 2 * SECOND) == 0


def test_a_wait_between_two_requests_gives_the_rest_back(
    both: tuple[RequestLedger, RequestLedger], tmp_path: Path
) -> None:
    """After a second, no request of a batch is sent, also if the clock was set back."""
    for later in (2 * SECOND, -HOUR / 2):
        for _ in range(4):
            both[0].reserve("b", None, NOON)
        both[0].settle(NOON + later)
        assert all(reserved == sent for _, reserved, sent in rows(tmp_path / "mirror.db"))
    assert both[0].used("b", NOON) == 8


def test_a_429_stops_what_is_reserved_ahead(both: tuple[RequestLedger, RequestLedger]) -> None:
    """The next request of the bucket waits; if another process got it, 10 ms later at the latest."""
    ours, theirs = both
    for hears, after in ((ours, timedelta(0)), (theirs, LOOK_EVERY)):
        for _ in range(10):
            assert ours.reserve("b", None, NOON) is None
        hears.hold("b", NOON + timedelta(seconds=60))
        held = NoRoom(NOON + timedelta(seconds=60), held=True)
        assert ours.reserve("b", None, NOON + after) == held
        assert ours.reserve("other", None, NOON) is None
        with closing(sqlite3.connect(theirs._store.path)) as connection, connection:
            connection.execute("DELETE FROM request_limits")


def test_a_lower_limit_stops_what_is_reserved_ahead(both: tuple[RequestLedger, RequestLedger]) -> None:
    """Requests reserved under the old limit may exceed the new one."""
    for _ in range(9):
        assert both[0].reserve("b", 950, NOON) is None
    both[0].learn("b", 9)
    assert both[0].reserve("b", 9, NOON) is not None


def test_a_request_of_a_batch_that_never_left_counts_once(both: tuple[RequestLedger, RequestLedger]) -> None:
    """It may be sent again, and counts once."""
    ledger = both[0]
    for _ in range(5):
        assert ledger.reserve("b", None, NOON) is None
        ledger.take_back("b", NOON)
    ledger.close()
    assert ledger.used("b", NOON) == 0
