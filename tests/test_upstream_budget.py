"""The budget counts before sending, learns limits from headers, and waits or ends the run."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from upstream_fakes import NOON, FakeClock, MemoryLedger

from mirror.errors import BudgetSpent, Interrupted, Paused
from mirror.upstream.budget import Budget, Ledger, hourly_limit, retry_delay, with_margin


def budget(time: FakeClock, ledger: Ledger | None = None, **settings: Any) -> Budget:
    """Make a budget with the fake clock."""
    return Budget(ledger or MemoryLedger(), bucket="b", clock=time.clock, wait=time.wait, **settings)


def test_a_spent_budget_is_waited_for() -> None:
    """The third of two requests an hour waits until the first leaves the hour, and the user is told."""
    time = FakeClock()
    ours = budget(time, limit=2)
    for _ in range(3):
        ours.take()
    assert time.naps == [3600.0]
    assert "budget of 2 requests an hour is spent; goes on at " in time.told[0]
    assert (ours.requests, round(ours.slept_seconds)) == (3, 3600)


def test_a_run_without_waiting_ends_when_the_budget_is_spent() -> None:
    """It raises BudgetSpent with the time, and counts only sent requests."""
    time = FakeClock()
    ours = budget(time, limit=2, may_wait=False)
    ours.take()
    ours.take()
    with pytest.raises(BudgetSpent) as caught:
        ours.take()
    assert caught.value.resumes_at == NOON + timedelta(hours=1)
    assert (ours.requests, time.naps) == (2, [])


def test_max_requests_limits_one_run() -> None:
    """It pauses before the ledger is touched, git requests included."""
    time, ledger = FakeClock(), MemoryLedger()
    ours = budget(time, ledger, max_requests=2)
    ours.take()
    ours.take("git")
    with pytest.raises(Paused, match=r"2 requests of this run are used.* with at least 30 if"):
        ours.take()
    assert (ours.requests, ours.git_requests, ledger.used("b", NOON), ledger.used("git-b", NOON)) == (
        1,
        1,
        1,
        1,
    )


def test_git_has_its_own_budget() -> None:
    """A spent API budget does not delay git."""
    time = FakeClock()
    ours = budget(time, limit=1, may_wait=False)
    ours.take()
    ours.take("git")
    with pytest.raises(BudgetSpent):
        ours.take()


def test_requests_are_counted_without_a_limit() -> None:
    """A sandbox has no limit, but its requests are in the ledger."""
    time, ledger = FakeClock(), MemoryLedger()
    ours = budget(time, ledger, default=None)
    for _ in range(100):
        ours.take()
    assert (ours.used(), ours.limit(), time.naps) == (100, None, [])


@pytest.mark.parametrize(
    ("header", "limit"),
    [
        ("1000", 1000),
        ("60, 60;w=3600", 60),
        ("10, 10;w=1, 60;w=3600", 60),
        ("10, 10;w=60", None),
        ("0", None),
        ("-5", None),
        ("many", None),
        ("", None),
        ("1e9", None),
        ("9" * 25, None),
        ("9" * 5000, None),
        (f"{'9' * 25}; w=3600, 60;w=3600", 60),
        (f"10; w={'9' * 5000}", None),
    ],
)
def test_limit_headers_are_read(header: str, limit: int | None) -> None:
    """A plain number, and policies for an hour; other windows and nonsense are ignored."""
    assert hourly_limit(header) == limit


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "86400"}, 3600),
        ({"retry-after": "soon", "x-ratelimit-reset": "12"}, 12),
        ({"x-ratelimit-reset": "1795400000"}, 3600),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "\u0663"}, None),
        ({}, None),
    ],
)
def test_retry_after_and_reset_headers_are_read(headers: dict[str, str], seconds: float | None) -> None:
    """Retry-After in both forms, else the seconds left; at most an hour."""
    assert retry_delay(headers, NOON) == seconds


def test_an_upstreams_limit_never_raises_the_configured_one() -> None:
    """It counts minus a margin and is saved in the ledger; without a setting, it may rise."""
    ledger = MemoryLedger()
    ours, free = budget(FakeClock(), ledger, limit=500), budget(FakeClock())
    for header, expected in [("5000", 500), ("60, 60;w=3600", 58)]:
        ours.observe("api", 200, {"x-ratelimit-limit": header})
        free.observe("api", 200, {"x-ratelimit-limit": header})
        assert ours.limit() == expected
        assert free.limit() == with_margin(int(header.partition(",")[0]))
    assert ledger.told == {"b": 60}
    assert budget(FakeClock(), ledger).limit() == 58


def test_limits_of_other_kinds_are_not_kept() -> None:
    """Those of shorter intervals, and of servers that usually have none."""
    ours, free = budget(FakeClock()), budget(FakeClock(), default=None)
    ours.observe("api", 200, {"x-ratelimit-limit": "5", "x-ratelimit-interval-seconds": "1"})
    free.observe("api", 200, {"x-ratelimit-limit": "1000"})
    assert (ours.limit(), free.limit()) == (950, None)
    assert budget(FakeClock(), free._ledger, default=None, limit=2000).limit() == 960


def test_a_429_holds_every_request_of_the_bucket() -> None:
    """Without Retry-After for a minute, then longer; the next budget of the bucket waits too."""
    time, ledger = FakeClock(), MemoryLedger()
    ours, theirs = budget(time, ledger), budget(time, ledger)
    for expected in (60, 120, 240):
        ours.observe("api", 429, {})
        assert (ledger.held["b"] - time.now).total_seconds() == expected
        theirs.take()
        assert round(time.naps[-1]) == expected
    ours.observe("api", 200, {})
    ours.observe("api", 429, {"retry-after": "5"})
    assert (ledger.held["b"] - time.now).total_seconds() == 5
    assert ours.answers == {429: 4, 200: 1}
    for expected in (120, 240, 480, 960, 1920, 3600, 3600):  # an answer of 5xx says nothing of limits
        time.now = ledger.held["b"]
        ours.observe("api", 503, {})
        ours.observe("api", 429, {})
        assert (ledger.held["b"] - time.now).total_seconds() == expected


def test_a_429_in_each_run_holds_longer_each_time() -> None:
    """A service asks again after each hold, in another run; an answer begins anew."""
    time, ledger = FakeClock(), MemoryLedger()
    for status, expected in ((429, 60), (429, 120), (503, 120), (429, 60), (200, 60), (429, 60), (429, 120)):
        run = budget(time, ledger, may_wait=False)
        run.take()
        run.observe("api", status, {})
        assert (ledger.held["b"] - ledger.asked["b"][-1]).total_seconds() == expected or status != 429
        time.now = max(time.now, ledger.held["b"]) + timedelta(seconds=1)


def test_threads_refused_together_hold_once() -> None:
    """Two answers to one excess hold the bucket once."""
    time, ledger = FakeClock(), MemoryLedger()
    ours = budget(time, ledger)
    for _ in range(4):
        ours.observe("api", 429, {})
    assert (ledger.held["b"] - time.now).total_seconds() == 60


def test_a_short_hold_is_waited_out_in_every_run() -> None:
    """Ending a run for two seconds is useless; for a minute that nobody told, or longer, it is right."""
    for headers, nap in (({"retry-after": "2"}, 2.0), ({"retry-after": "600"}, None), ({}, None)):
        time = FakeClock()
        ours = budget(time, may_wait=False)
        ours.observe("api", 429, headers)
        if nap is None:
            with pytest.raises(BudgetSpent, match="429"):
                ours.take()
        else:
            ours.take()
        assert time.naps == ([] if nap is None else [nap])


def test_an_interrupted_wait_counts_as_long_as_it_lasted() -> None:
    """After Ctrl-C in the third second, three seconds count, and the request was not sent."""
    time = FakeClock()

    def wait(_seconds: float, _why: str) -> None:
        time.wait(3, "")
        raise Interrupted("stopped")

    ours = Budget(MemoryLedger(), bucket="b", clock=time.clock, wait=wait, limit=1)
    ours.take()
    ours.repeat_next()
    with pytest.raises(Interrupted):
        ours.take()
    assert (ours.requests, ours.retries, ours.slept_seconds) == (1, 0, 3.0)


def test_threads_that_wait_at_once_wait_once() -> None:
    """Common time counts once, and a running wait counts so far."""
    seconds, all_wait, end = [0.0], threading.Barrier(4), threading.Event()

    def wait(_seconds: float, _why: str) -> None:
        all_wait.wait()
        end.wait()

    ours = Budget(MemoryLedger(), bucket="b", clock=lambda: NOON, wait=wait, timer=lambda: seconds[0])
    threads = [threading.Thread(target=ours.pause, args=(60.0, "500")) for _ in range(3)]
    for thread in threads:
        thread.start()
    all_wait.wait()
    seconds[0] = 7.0
    assert ours.slept_seconds == 7.0
    seconds[0] = 60.0
    end.set()
    for thread in threads:
        thread.join()
    assert ours.slept_seconds == 60.0


def test_a_429_of_another_process_is_reported_as_such() -> None:
    """The ledger knows why a bucket is held: the budget is not spent."""
    time, ledger = FakeClock(), MemoryLedger()
    budget(time, ledger).observe("api", 429, {"retry-after": "7"})
    budget(time, ledger, limit=1_000_000).take()
    assert "the upstream answered 429" in time.told[0]


def test_a_request_that_never_left_is_returned_to_the_budget() -> None:
    """In the counts, the run's number and the ledger."""
    time, ledger = FakeClock(), MemoryLedger()
    ours = budget(time, ledger, max_requests=1)
    ours.take_back("api", ours.take())
    assert (ours.requests, ours.used()) == (0, 0)
    ours.take()


def test_threads_do_not_overspend() -> None:
    """Eight threads with a budget of fifty send fifty requests."""
    ours = budget(FakeClock(), limit=50, may_wait=False)
    refused = list[int]()

    def ask() -> None:
        for _ in range(10):
            try:
                ours.take()
            except BudgetSpent:
                refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ours.requests, len(refused)) == (50, 30)
