"""The budget of an upstream that enforces it: never exceeded, and waiting loses nothing."""

from pathlib import Path
from typing import Any

import pytest
from sync_harness import assert_matches_sandbox, crawling

from mirror.config import Duration, Retry
from mirror.sandbox import Fault

TWO: dict[str, Any] = {"workspaces": ("jespern", "1team", "Mimika_Oh")}


@pytest.mark.parametrize("threads", [1, 4])
def test_an_enforced_budget_is_never_overdrawn(tmp_path: Path, threads: int) -> None:
    """With 30 requests an hour, there is no 429, and the sync is complete after some hours."""
    with crawling(
        tmp_path, 60, requests_per_hour=30, page_length=20, concurrency=threads, **TWO, our_limit=28
    ) as (sandbox, crawl):
        summary = crawl.sync()
        assert (summary.state, sandbox.state()["too_many_requests"]) == ("complete", 0)
        assert summary.counts.requests > 30
        assert summary.counts.slept_seconds > 1800
        assert any("28 requests an hour is spent" in why for why in crawl.clock.waits)
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


def test_a_run_that_may_not_wait_pauses_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """Exit code 0 with the time to resume; runs an hour apart mirror everything."""
    with crawling(tmp_path, 60, page_length=20, our_limit=15, **TWO) as (sandbox, crawl):
        states = []
        for _ in range(12):
            summary = crawl.sync(may_wait=False, later=3602)
            states.append(summary.state)
            if summary.state == "complete":
                break
            assert summary.exit_code == 0
            assert summary.resumes_at is not None
            assert summary.resumes_at > crawl.clock.moment
            assert summary.counts.requests <= 15
        assert states[-1] == "complete"
        assert len(states) > 2
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


def test_max_requests_limits_a_run(tmp_path: Path) -> None:
    """To the request; the next runs continue without repeats."""
    with crawling(tmp_path, 60, page_length=20, **TWO) as (sandbox, crawl):
        asked = 0
        for _ in range(30):
            summary = crawl.sync(max_requests=9, later=60)
            asked += summary.counts.requests
            if summary.state == "complete":
                break
            assert (summary.state, summary.counts.requests) == ("paused", 9)
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        kinds = sandbox.state()["by_kind"]
        assert sum(kinds.values()) == asked
        assert kinds["workspace"] == 3


def test_many_workspaces_do_not_starve_the_refs(tmp_path: Path) -> None:
    """With more workspaces than requests an hour, the first sync still completes."""
    with crawling(tmp_path, 60, our_limit=6) as (sandbox, crawl):
        states = (crawl.sync(may_wait=False, later=3602).state for _ in range(60))
        assert "complete" in states  # asks until then
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


@pytest.mark.parametrize("retry_after", [None, "120"])
def test_a_bad_repository_holds_up_no_run_that_may_not_wait(tmp_path: Path, retry_after: str | None) -> None:
    """Whatever delay it asks for, and however many attempts are configured, the others are mirrored."""
    patient = Retry(attempts=10, first_delay=Duration(1))
    with crawling(tmp_path, synced=True, retry=patient, **TWO) as (sandbox, crawl):
        names = [name for (name,) in crawl.rows("SELECT full_name FROM repositories WHERE size > 0")]
        for name in names:
            sandbox.do("push", name)
        uuid = crawl.one("SELECT uuid FROM repositories WHERE full_name = ?", names[0]).strip("{}")
        sandbox.add_fault(Fault("503", where=f"*{uuid}*/refs", nth=None, retry_after=retry_after))
        summary = crawl.sync(may_wait=False)
        assert (summary.state, [each.kind for each in summary.failures]) == ("incomplete", ["refs"])
        assert crawl.one("SELECT count(*) FROM repositories WHERE refs_stale") == 1
        sandbox.clear_faults()
        assert crawl.sync(may_wait=False).state == "complete"
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


@pytest.mark.parametrize("where", ["*", "refs"])
def test_an_upstream_that_is_away_for_long_pauses_a_run_that_may_not_wait(tmp_path: Path, where: str) -> None:
    """It says when to come back; a few requests were enough to see it."""
    with crawling(tmp_path, **TWO) as (sandbox, crawl):
        sandbox.add_fault(Fault("503", where=where, nth=None, retry_after="1800"))
        summary = crawl.sync(may_wait=False)
        assert summary.state == "paused"
        assert summary.resumes_at is not None
        assert round((summary.resumes_at - crawl.clock.moment).total_seconds()) == 1800
        assert "goes on at" in (summary.error or "")
        kinds = sandbox.state()["by_kind"]
        assert sum(kinds.values() if where == "*" else [kinds[where]]) <= 3
