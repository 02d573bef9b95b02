"""`--plan`: each kind of request against its own budget, without waiting or side effects."""

from pathlib import Path

import msgspec
import pytest
from sync_harness import crawling

from mirror.errors import UpstreamBusy
from mirror.sandbox import Fault, Sandbox, World, running

TWO = ("jespern", "erik")


def test_a_plan_counts_what_a_first_sync_asks(tmp_path: Path) -> None:
    """To the request, except for its own requests."""
    with crawling(tmp_path, workspaces=TWO) as (_, crawl):
        plan = crawl.plan()
        assert plan.notes == ["2 requests were sent to find this out"]
        assert plan.api.total == crawl.sync().counts.requests
        assert plan.git.total == 0


@pytest.mark.parametrize("sent", [1, 2, 3, 5, 7, 9])
def test_a_plan_counts_what_is_left_of_a_round(tmp_path: Path, sent: int) -> None:
    """Wherever the last sync was interrupted: before the members, in the listings, or among the refs."""
    with crawling(tmp_path, workspaces=TWO) as (_, crawl):
        assert crawl.sync(max_requests=sent).state == "paused"
        plan = crawl.plan()
        assert plan.api.total == crawl.sync(later=0).counts.requests


def test_requests_by_git_count_against_their_own_budget(tmp_path: Path) -> None:
    """A small API budget delays no git requests; Mercurial's refs come from the API."""
    with crawling(tmp_path, 200, our_limit=100, refs="git") as (_, crawl):
        first = crawl.plan()
        assert first.requests["branches and tags by git"] == first.git.total > 2 * 190
        assert (first.api.limit, first.git.limit) == (100, 57_000)
        assert first.api.total < 100
        assert first.seconds < 3600
        assert "never listed" in first.notes[0]
        crawl.sync()
        with crawl.run(later=86_400) as run, run.store.transaction() as connection:
            connection.execute("UPDATE repositories SET refs_stale = 1")
        plan, summary = crawl.plan(), crawl.sync()
        assert plan.git.total == summary.counts.git_requests < first.git.total
        assert plan.requests["branches and tags"] > 0
        assert not any("never listed" in note for note in plan.notes)
        assert plan.api.total == summary.counts.requests


def test_a_plan_never_waits(tmp_path: Path) -> None:
    """With a spent budget, it says when there is room again, and what it could not find out."""
    with crawling(tmp_path, our_limit=1, workspaces=TWO) as (_, crawl):
        plan = crawl.plan()
        assert "1 requests an hour is spent; goes on at" in plan.notes[0]
        assert "left out" in plan.notes[0]
        assert plan.api.left == 0
        crawl.config = msgspec.structs.replace(crawl.config, workspaces=None)
        assert "left out" in crawl.plan().notes[0]


def test_a_plan_of_an_unreachable_upstream_is_refused(tmp_path: Path) -> None:
    """It would say that a sync of nothing ends at once; one workspace of two that fails is a note."""
    with crawling(tmp_path, network=True, secret=None, workspaces=TWO) as (sandbox, crawl):
        sandbox.add_fault(Fault("drop", where="/2.0/repositories/erik", nth=None))
        assert crawl.plan().notes[0].startswith("erik: ")
        sandbox.add_fault(Fault("drop", nth=None))
        with pytest.raises(UpstreamBusy):
            crawl.plan()


def test_a_plan_hides_no_change_of_address(tmp_path: Path) -> None:
    """The next sync of a moved upstream must know: saved links lead to the old address."""
    with crawling(tmp_path, workspaces=TWO, page_length=2) as (_, crawl):
        assert crawl.sync(max_requests=7).state == "paused"
        with running(Sandbox(World(0, now=crawl.clock.now))) as second:
            crawl.config = msgspec.structs.replace(crawl.config, url=f"{second.origin}/2.0")
            plan = crawl.plan()
            assert plan.requests["workspaces and members"] == 2  # of the one whose listing begins anew
            crawl.verify(sample=1)
            summary = crawl.sync()
            assert (summary.state, summary.failures) == ("complete", [])
            assert crawl.one("SELECT url FROM upstreams") == crawl.config.url
