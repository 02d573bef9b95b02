"""`mirror status` fits eighty columns, and fewer, whatever it has to show."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from mirror.cli.printer import Printer
from mirror.cli.status import MOST_FAILURES, print_status
from mirror.queries.crawl import SyncProgress
from mirror.queries.status import BudgetLeft, UpstreamStatus

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WHY = (
    "team/app: https://api.example.com/2.0/repositories/team/%7Buuid%7D/refs?pagelen=100: 500: " + "why " * 50
)


def printed(width: int, *, failures: int = 0, name: str = "cloud") -> str:
    """Print the status of a large mirror with many faults."""
    failure = {
        "kind": "refs",
        "subject": "team/app",
        "error": WHY,
        "next_try_at": "2026-11-24T13:00:00.000000Z",
        "accepted": False,
    }
    status = UpstreamStatus(
        name=name, kind="cloud", url="https://api.example.com/2.0", repositories=1_234_567, gone=12_345,
        branches=12_345_678, tags=12_345_678, refs_waiting=1_234_567, refs_unread=1_234_567, refs="api",
        missing=failures, accepted=0,
        last_complete_sync="2026-11-20T12:00:00.000000Z", freshness_seconds=4 * 86_400.0,
        listed_seconds={"0.5": 60.0, "0.95": 3600.0, "1": 2 * 86_400.0},
        last_run={"kind": "incremental", "state": "failed", "started_at": "2026-11-24T11:00:00.000000Z",
                  "requests": 1_000, "error": WHY},
        budget=BudgetLeft(limit=10_000, used=10_000, left=0, resets_at="2026-11-24T12:30:00.000000Z"),
        failures=[failure] * failures,
        next_runs=dict.fromkeys(("sync", "sweep", "refs", "retry", "verify"), "2026-11-29T04:30:00.000000Z"),
    )  # fmt: skip
    out = io.StringIO()
    print_status(Printer(out, width), [status], NOW)
    return out.getvalue()


@pytest.mark.parametrize("width", [200, 80, 50])
@pytest.mark.parametrize("name", ["cloud", "a-name-of-forty-characters-which-is-most"])
def test_every_line_fits(width: int, name: str) -> None:
    """Eighty columns, or as many as the terminal has."""
    text = printed(width, failures=3, name=name)
    assert max(map(len, text.splitlines())) <= min(80, width)


def test_failures_show_what_why_and_when() -> None:
    """Without addresses, which need too much room; JSON has everything."""
    text = printed(80, failures=MOST_FAILURES + 5)
    assert text.count("refs team/app: 500: why why") == MOST_FAILURES
    assert f"25 missing, the latest {MOST_FAILURES} below; in full: mirror status --json" in text
    assert "https://" not in text


def test_freshness_budget_and_next_jobs_are_shown() -> None:
    """As in the metrics."""
    text = " ".join(printed(80).split())
    assert "listing age: p50 60 s, p95 60 min, max 2 days" in text
    assert "0 of 10,000" in text
    assert "the next request is free at" in text
    assert "verify in 4 days" in text
    assert "12,345 gone, refs of 1,234,567 waiting" in text


def shown(**fields: Any) -> str:
    """Print the status of a mirror with only some values."""
    plain: dict[str, Any] = {
        "name": "cloud", "kind": "cloud", "url": "", "repositories": 1, "gone": 0, "branches": 0, "tags": 0,
        "refs_waiting": 0, "refs_unread": 0, "refs": "api", "missing": 0, "accepted": 0,
        "last_complete_sync": None, "freshness_seconds": None, "listed_seconds": {}, "last_run": None,
        "budget": BudgetLeft(limit=10, used=1, left=9, resets_at=None), "failures": [],
    }  # fmt: skip
    out = io.StringIO()
    print_status(Printer(out), [UpstreamStatus(**plain | fields)], NOW)
    return out.getvalue()


def test_without_a_service_no_next_job_is_shown() -> None:
    """A schedule without a service starts nothing; whether a service runs may be unknown."""
    text = shown(service_running=False)
    assert "no service is running" in text
    assert "next sync" not in text
    later = {"sync": "2026-11-24T13:00:00.000000Z"}
    for running in (True, None):
        assert "next sync in 60 min" in shown(service_running=running, next_runs=later)


def test_a_running_sync_shows_its_progress() -> None:
    """Its requests and waits so far."""
    run = {
        "kind": "full", "state": "running", "started_at": "2026-11-24T11:00:00.000000Z", "requests": 1_234,
        "slept_seconds": 120.0, "error": None,
    }  # fmt: skip
    assert "running for 60 min, 2 min of it waiting: full, 1,234 requests so far" in shown(last_run=run)


_UNTOLD: dict[str, Any] = {"done_at": None, "waits_until": None, "why": None, "at": ""}


def test_no_count_contradicts_the_progress() -> None:
    """Waiting refs are counted now, but the progress was saved some seconds ago."""
    progress = SyncProgress(state="running", what="refs", done=5, total=9, percent=55, **_UNTOLD)
    waiting = {"refs_waiting": 3, "refs_unread": 3}
    assert "refs of 3 waiting" in shown(**waiting)
    assert "3 repositories were not read yet" in shown(**waiting)
    text = shown(progress=progress, gone=2, **waiting)
    assert "refs 5 of 9, 55 %" in text
    assert "2 gone\n" in text
    assert "waiting" not in text
    assert "not read yet" not in text


def test_a_429_and_a_spent_budget_read_differently() -> None:
    """With the time until which no request is sent."""
    held = BudgetLeft(limit=10, used=1, left=9, resets_at=None, held_until="2026-11-24T12:30:00.000000Z")
    assert "the upstream answered 429: nothing is asked until" in shown(budget=held)
