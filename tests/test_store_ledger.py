"""The request ledger of the file: an hour is an hour, whatever the clock has been."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirror.model import NoRoom
from mirror.store import Store
from mirror.store.ledger import RequestLedger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[RequestLedger]:
    """An empty one."""
    with Store(tmp_path / "mirror.db") as store:
        yield RequestLedger(store)


def test_ledger_rows_of_a_clock_far_ahead_are_ignored(ledger: RequestLedger) -> None:
    """A year ahead once is not a mirror that stands still for a year."""
    ahead = NOON + timedelta(days=365)
    for _ in range(3):
        assert ledger.reserve("b", 3, ahead) is None
    ledger.hold("b", ahead + HOUR)
    assert ledger.reserve("b", 3, ahead) == NoRoom(ahead + HOUR, held=True)
    for left in range(3):
        assert ledger.used("b", NOON) == left
        assert ledger.reserve("b", 3, NOON) is None
    assert ledger.reserve("b", 3, NOON) == NoRoom(NOON + HOUR + timedelta(seconds=1), held=False)
    ledger.hold("b", NOON + timedelta(seconds=60))
    assert ledger.reserve("b", None, NOON) == NoRoom(NOON + timedelta(seconds=60), held=True)


def test_requests_that_never_left_are_not_counted(ledger: RequestLedger) -> None:
    """What is taken back makes room at once, and once."""
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


def test_a_clock_that_is_some_hours_ahead_for_a_while_forgets_nothing(ledger: RequestLedger) -> None:
    """What is dropped is older than any such error."""
    assert ledger.reserve("b", 1, NOON) is None
    ledger.forget(NOON + 5 * HOUR)
    assert ledger.used("b", NOON) == 1
    ledger.forget(NOON + 50 * HOUR)
    assert ledger.used("b", NOON) == 0
