"""Failures and their next tries, after any number of failures."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from mirror.store import Store
from mirror.store.runs import FIRST_DELAY, LONGEST_DELAY, Failure, Failures
from mirror.times import from_text

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_the_delay_grows_up_to_a_week_and_stays_there(tmp_path: Path) -> None:
    """A brake that waits for weeks fails in every run, a hundred times and more."""
    with Store(tmp_path / "mirror.db") as store:
        upstream = store.save_upstream("box", "sandbox", "http://x")
        delays = list[timedelta]()
        for attempt in range(1, 101):
            with store.transaction() as connection:
                saved = Failures(connection, upstream).save(Failure("absence", "team", "90 are gone"), NOW)
            assert saved.attempts == attempt
            delays.append(from_text(saved.next_try_at) - NOW)
    assert delays[:3] == [FIRST_DELAY, 4 * FIRST_DELAY, 16 * FIRST_DELAY]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY
