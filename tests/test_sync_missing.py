"""Known missing parts keep every run from being complete, also while they wait for their next try."""

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sync_harness import SyncHarness, assert_matches_sandbox, crawling

from mirror.cli.printer import Printer
from mirror.cli.sync import print_summary
from mirror.queries.status import UpstreamStatus, read_status
from mirror.report import Summary
from mirror.sandbox import Fault
from mirror.store.files import open_reader
from mirror.sync.crawl import Scope, sync_upstream

ONE = ("jespern",)
PISTON = "jespern/django-piston"


def kinds(summary: Summary) -> tuple[str, int, list[str], list[str]]:
    """Return the state, the exit code, and what failed and what waits."""
    failed, waiting = ([each.kind for each in found] for found in (summary.failures, summary.waiting))
    return summary.state, summary.exit_code, failed, waiting


def printed(summary: Summary) -> str:
    """Print a summary as `mirror sync` does."""
    out = io.StringIO()
    print_summary(Printer(out), summary)
    return out.getvalue()


def status(crawl: SyncHarness) -> UpstreamStatus:
    """Read the status from the file."""
    connection = open_reader(crawl.path)
    try:
        return read_status(connection, crawl.clock.now())[0]
    finally:
        connection.close()


@pytest.mark.parametrize("code", ["403", "404", "451", "410"])
def test_an_accepted_refusal_is_shown_and_retried(tmp_path: Path, code: str) -> None:
    """Runs are complete unless it is of another kind or no longer accepted."""
    accepting = (PISTON.upper(),)
    with crawling(tmp_path, synced=True, network=True, workspaces=ONE, accept_missing=accepting) as (
        sandbox,
        crawl,
    ):
        sandbox.do("push", PISTON)
        sandbox.add_fault(Fault(code, where=crawl.refs_path(PISTON), nth=None))
        for attempts, later in ((1, 60), (1, 60), (2, 3600)):
            summary = crawl.sync(later=later)
            assert summary.exit_code == (1 if code == "410" else 0)
            shown = [*summary.accepted, *summary.failures, *summary.waiting]
            assert [(each.kind, each.attempts) for each in shown] == [("refs", attempts)]
        if code != "410":
            assert "accepted      refs: " in printed(summary)
            assert (status(crawl).missing, status(crawl).accepted) == (0, 1)
        strict = SyncHarness(crawl.config.url.removesuffix("/2.0"), crawl.path, crawl.clock, workspaces=ONE)
        assert strict.sync(later=60).exit_code == 1


def test_rows_that_verify_cannot_check_are_not_missing(tmp_path: Path) -> None:
    """The comparison fails, but the next sync is complete; an accepted refusal is no fault."""
    with crawling(tmp_path, synced=True, workspaces=ONE, accept_missing=(PISTON,)) as (sandbox, crawl):
        row = crawl.refs_path(PISTON).removesuffix("/refs").rstrip("*") + "*"
        sandbox.add_fault(Fault("404", where=row, nth=None))
        summary, findings = crawl.verify()
        assert (summary.exit_code, [(each.verdict, each.is_fault) for each in findings]) == (
            0,
            [("accepted", False)],
        )
        sandbox.clear_faults()
        sandbox.add_fault(Fault("500", where=row, nth=None))
        assert crawl.verify()[0].exit_code == 1
        assert crawl.sync().state == "complete"


def test_members_that_may_not_be_seen_are_reported_and_not_missing(tmp_path: Path) -> None:
    """In each run, until a full listing may see them."""
    with crawling(tmp_path, workspaces=ONE) as (sandbox, crawl):
        sandbox.add_fault(Fault("403", where="members", nth=None))
        for _ in range(2):
            summary = crawl.sync()
            assert kinds(summary) == ("complete", 0, [], [])
            assert "not visible   members of jespern: " in printed(summary)
        sandbox.clear_faults()
        assert crawl.sync(full=True).accepted == []


def test_members_that_failed_and_then_may_not_be_seen_are_not_missing(tmp_path: Path) -> None:
    """Nobody asks for them again before the next full listing."""
    with crawling(tmp_path, workspaces=ONE, refs="none") as (sandbox, crawl):
        for fault, code in (("500", 1), ("403", 0)):
            sandbox.add_fault(Fault(fault, where="members", nth=None))
            assert crawl.sync(full=True).exit_code == code
            sandbox.clear_faults()


def test_refs_left_out_of_a_run_count_as_missing(tmp_path: Path) -> None:
    """If refs have their own schedule, a sync without them is not complete."""
    with crawling(tmp_path, workspaces=ONE) as (_, crawl):
        with crawl.run() as run:
            summary = sync_upstream(run, Scope(refs=False))
        assert kinds(summary) == ("incomplete", 1, [], [])
        assert f"branches and tags of {summary.refs_waiting} repositories" in printed(summary)
        assert crawl.sync().state == "complete"


def test_a_broken_ref_is_read_again(tmp_path: Path) -> None:
    """At its next try, without any push."""
    with crawling(tmp_path, synced=True, workspaces=ONE) as (sandbox, crawl):
        sandbox.do("push", PISTON)
        sandbox.add_fault(Fault("bad_row", where=crawl.refs_path(PISTON)))
        assert kinds(crawl.sync())[2] == ["ref"]
        assert kinds(crawl.sync(later=60)) == ("incomplete", 1, [], ["ref"])
        assert kinds(crawl.sync(later=900)) == ("complete", 0, [], [])


def test_a_broken_row_of_a_page_read_later_is_missing(tmp_path: Path) -> None:
    """The next run lists in full, because a row was left out."""
    with crawling(tmp_path, page_length=2, workspaces=ONE) as (sandbox, crawl):
        sandbox.add_fault(Fault("page_500", where="listing", nth=2))
        crawl.sync()
        sandbox.clear_faults()
        sandbox.add_fault(Fault("bad_row", where="listing", nth=2))  # the first is the incremental listing
        assert kinds(crawl.sync(later=900)) == ("incomplete", 1, ["row"], [])
        assert kinds(crawl.sync(later=60)) == ("complete", 0, [], [])
        assert_matches_sandbox(crawl, sandbox, ONE)


def test_a_paused_run_with_missing_parts_exits_with_1(tmp_path: Path) -> None:
    """0 if only its own remaining work is missing, 1 if something failed."""
    with crawling(tmp_path, synced=True, workspaces=ONE) as (sandbox, crawl):
        sandbox.do("push", PISTON)
        sandbox.add_fault(Fault("403", where=crawl.refs_path(PISTON), nth=None))
        assert kinds(crawl.sync()) == ("incomplete", 1, ["refs"], [])
        sandbox.do("push", "jespern/django-piston")
        assert kinds(crawl.sync(max_requests=1, later=7200)) == ("paused", 1, [], ["refs"])
        sandbox.clear_faults()
        assert crawl.sync(later=20_000).state == "complete"


@pytest.mark.parametrize("way", ["full", "credential", "no credential", "refs", "url"])
def test_what_failed_is_asked_at_once_when_the_reason_may_be_gone(tmp_path: Path, way: str) -> None:
    """With another credential, another way to read refs or another address; and when everything is listed."""
    with crawling(tmp_path, synced=True, workspaces=ONE) as (sandbox, crawl):
        sandbox.do("push", PISTON)
        sandbox.add_fault(Fault("403", where=crawl.refs_path(PISTON), nth=None))
        if way == "refs":
            sandbox.add_fault(Fault("403", where="*.git/info/refs*", nth=None))
            change(crawl, refs="git")
        assert crawl.sync().exit_code == 1
        sandbox.clear_faults()
        assert [each.kind for each in crawl.sync(later=60).waiting][:1] == ["refs"]
        if way == "credential":
            crawl.secret = "jespern:sandbox"
        elif way == "no credential":
            change(crawl, credential=None)
            crawl.sync(later=60)
            change(crawl, credential="env:SECRET")
        elif way == "refs":
            change(crawl, refs="api")
        elif way == "url":
            change(crawl, url=f"{crawl.origin}/api/2.0")
        summary = crawl.sync(later=60, full=way == "full")
        assert (summary.state, summary.waiting) == ("complete", [])


def change(crawl: SyncHarness, **settings: Any) -> None:
    """Change the configuration of a crawl."""
    crawl.config = msgspec.structs.replace(crawl.config, **settings)


def test_members_that_failed_are_not_missing_once_none_are_wanted(tmp_path: Path) -> None:
    """Neither in the next run, which lists only what is new, nor in a full one; and nobody asks for them."""
    with crawling(tmp_path, workspaces=ONE) as (sandbox, crawl):
        sandbox.add_fault(Fault("500", where="members", nth=None))
        assert [each.kind for each in crawl.sync().failures] == ["members"]
        sandbox.reset()
        change(crawl, members=False)
        assert crawl.sync(later=90_000).state == crawl.sync(full=True).state == "complete"
        assert "members" not in sandbox.state()["by_kind"]


def test_a_listing_that_goes_on_after_a_failure_leaves_no_refs_unread(tmp_path: Path) -> None:
    """Its first page was read in an earlier round; since the rest was, too, nothing fails any more."""
    with crawling(tmp_path, workspaces=ONE, refs="none", page_length=2) as (sandbox, crawl):
        sandbox.add_fault(Fault("403", where="listing", nth=2))
        assert [each.kind for each in crawl.sync().failures] == ["workspace"]
        change(crawl, refs="api")
        assert crawl.sync(later=7200).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ONE)


@pytest.mark.parametrize("where", ["listing", "members", "workspace"])
def test_a_workspace_that_failed_under_another_spelling_is_no_longer_missing(
    tmp_path: Path, where: str
) -> None:
    """The case of its name was corrected in the configuration meanwhile."""
    with crawling(tmp_path, workspaces=("JESPERN",)) as (sandbox, crawl):
        sandbox.add_fault(Fault("500", where=where, nth=None))
        assert crawl.sync().exit_code == 1
        sandbox.clear_faults()
        change(crawl, workspaces=ONE)
        assert crawl.sync(later=90_000).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ONE)
