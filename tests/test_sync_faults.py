"""Everything that an upstream can do wrong: faults are reported, all else is mirrored.

What goes wrong on the wire does so over real HTTP. Named after the faults on which five other tools crashed,
hung or lost rows without a word.
"""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sync_harness import START, WithoutNetwork, assert_matches_sandbox, crawling

from mirror.config import Duration, Retry
from mirror.sandbox import Fault, repository_refs
from mirror.sandbox.exchange import Request, SandboxResponse

TWO: dict[str, Any] = {"workspaces": ("jespern", "ubernostrum")}
BAD = "jespern/django-piston"
QUICK: dict[str, Any] = {
    **TWO,
    "timeout": Duration(0.6),
    "retry": Retry(attempts=2, first_delay=Duration(0.01)),
}


ON_THE_WIRE = ("hang", "drop", "reset", "truncate", "redirect", "gzip_bomb")
"""Faults that need a connection, or that its client has to deal with."""

FOR_EVER = (
    "403", "404", "410", "500", "503", "hang", "drop", "reset", "truncate", "html", "invalid_json",
    "nonsense", "foreign_next", "loop_next", "redirect", "gzip_bomb",
)  # fmt: skip


@pytest.mark.parametrize("what", FOR_EVER)
def test_one_bad_repository_is_isolated(tmp_path: Path, what: str) -> None:
    """With unreadable refs: old ones stay, others are fresh, exit code 1, the next try comes later."""
    patient = {"timeout": Duration(6)} if what == "gzip_bomb" else {}  # unpacking takes a busy machine long
    with crawling(tmp_path, synced=True, network=what in ON_THE_WIRE, **QUICK | patient) as (sandbox, crawl):
        for name in (BAD, "jespern/arriving", "ubernostrum/django-profiles"):
            sandbox.do("push", name)
        before = crawl.rows("SELECT name, target_hash FROM branches ORDER BY repository_id, name")
        sandbox.add_fault(Fault(what, where=crawl.refs_path(BAD), nth=None))
        summary = crawl.sync()
        assert (summary.state, summary.exit_code) == ("incomplete", 1)
        assert [(each.kind, each.attempts) for each in summary.failures] == [("refs", 1)]
        assert BAD in summary.failures[0].error
        after = crawl.rows("SELECT name, target_hash FROM branches ORDER BY repository_id, name")
        assert len(set(before) - set(after)) == 2
        assert crawl.gone() == {}
        waiting = crawl.sync(later=60)  # it waits for its next try, and is missing all the same
        assert (waiting.state, waiting.exit_code, waiting.failures) == ("incomplete", 1, [])
        assert [each.kind for each in waiting.waiting] == ["refs"]
        assert crawl.sync(later=900).failures[0].attempts == 2
        sandbox.clear_faults()
        assert crawl.sync(later=3600).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        assert crawl.rows("SELECT * FROM sync_failures") == []


@pytest.mark.parametrize("what", ["500", "hang", "drop", "reset", "truncate", "html", "invalid_json"])
@pytest.mark.parametrize("where", ["user", "workspace", "members", "listing", "refs"])
def test_a_fault_that_passes_leaves_no_trace(tmp_path: Path, what: str, where: str) -> None:
    """Any single failed request is retried, and the run is complete."""
    with crawling(tmp_path, network=what in ON_THE_WIRE, **QUICK) as (sandbox, crawl):
        sandbox.add_fault(Fault(what, where=where, nth=1))
        summary = crawl.sync()
        # That an access token is nobody's own is told by a 403, whose body need not be readable.
        repeated = (where, what) != ("user", "invalid_json")
        assert summary.state == "complete"
        assert summary.counts.retries >= int(repeated)  # more, where a busy machine answers late
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


@pytest.mark.parametrize("what", ["429", "500", "403", "html", "nonsense", "drop", "loop_next"])
@pytest.mark.parametrize("where", ["workspace", "members", "listing"])
def test_a_failing_workspace_delays_no_other(tmp_path: Path, what: str, where: str) -> None:
    """It is reported; the other one is mirrored at once, this one later."""
    with crawling(tmp_path, network=what in ON_THE_WIRE, page_length=2, **QUICK) as (sandbox, crawl):
        glob = {"workspace": "/2.0/workspaces/jespern", "members": "/2.0/workspaces/jespern/members"}
        sandbox.add_fault(Fault(what, where=glob.get(where, "/2.0/repositories/jespern"), nth=None))
        if what == "429":
            assert crawl.sync(may_wait=False).state == "paused"
            sandbox.clear_faults()
        else:
            crawl.sync()
            mirrored = {
                name.partition("/")[0] for (name,) in crawl.rows("SELECT full_name FROM repositories")
            }
            assert "ubernostrum" in mirrored
            assert crawl.one("SELECT count(*) FROM tags") > 0
            sandbox.clear_faults()
        for _ in range(4):
            crawl.sync(later=2 * 3600)
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        assert crawl.rows("SELECT kind, subject FROM sync_failures WHERE NOT accepted") == []


def test_500_five_times_then_fine_loses_no_page(tmp_path: Path) -> None:
    """Five errors in a row on one page: nothing is dropped, no cursor moves past it."""
    patient = Retry(attempts=6, first_delay=Duration(1))
    with crawling(tmp_path, page_length=2, retry=patient, **TWO) as (sandbox, crawl):
        sandbox.add_fault(Fault("500", where="listing", nth=2, times=5))
        summary = crawl.sync()
        assert (summary.state, summary.counts.retries) == ("complete", 5)
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


@pytest.mark.parametrize("retry_after", [None, "7", "date:7"])
def test_429_is_waited_out(tmp_path: Path, retry_after: str | None) -> None:
    """With and without Retry-After, in both forms; the run is complete."""
    with crawling(tmp_path, **TWO) as (sandbox, crawl):
        sandbox.add_fault(Fault("429", where="refs", nth=2, retry_after=retry_after))
        summary = crawl.sync()
        assert summary.state == "complete"
        if retry_after != "date:7":  # which is of the real clock, not of the test's
            assert summary.counts.slept_seconds == pytest.approx(7 if retry_after else 60, abs=2)
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


def test_a_silent_server_ends_the_run_in_bounded_time(tmp_path: Path) -> None:
    """The run fails with exit code 4, and the next one mirrors everything."""
    with crawling(tmp_path, network=True, **QUICK) as (sandbox, crawl):
        sandbox.add_fault(Fault("hang", nth=None))
        began = time.monotonic()
        summary = crawl.sync()
        assert (summary.state, summary.exit_code) == ("failed", 4)
        assert time.monotonic() - began < 20
        sandbox.clear_faults()
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


@pytest.mark.parametrize("secret", ["sandbox", None])
def test_an_unreachable_upstream_is_reported(tmp_path: Path, secret: str | None) -> None:
    """A refused connection is exit code 4; the mirror stays."""
    with crawling(tmp_path, network=True, secret=secret, **QUICK) as (_, crawl):
        crawl.sync()
    summary = crawl.sync(later=86_400)
    assert (summary.state, summary.exit_code) == ("failed", 4)
    assert crawl.one("SELECT count(*) FROM repositories WHERE deleted_at IS NULL") > 0


def test_a_broken_row_affects_only_itself(tmp_path: Path) -> None:
    """One row with wrong types: others are saved, it is reported, deletions are still noticed."""
    with crawling(tmp_path, synced=True, absence_brake=0.5, **TWO) as (sandbox, crawl):
        sandbox.do("delete", "jespern/arriving")
        sandbox.add_fault(Fault("bad_row", where="/2.0/repositories/jespern", nth=None))
        sandbox.reset()
        summary = crawl.sync(full=True)
        assert summary.exit_code == 1
        assert sandbox.state()["by_kind"]["listing"] == 2  # once each: the total counts the broken row
        assert {failure.kind for failure in summary.failures} <= {"row", "repository"}
        assert crawl.gone() == {"jespern/arriving": "deleted"}
        sandbox.clear_faults()
        assert crawl.sync(full=True).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        assert crawl.rows("SELECT * FROM sync_failures") == []


def test_a_broken_ref_deletes_no_ref(tmp_path: Path) -> None:
    """It may be a known one, so such a listing deletes no ref."""
    with crawling(tmp_path, synced=True, **TWO) as (sandbox, crawl):
        sandbox.do("push", BAD)
        sandbox.add_fault(Fault("bad_row", where=crawl.refs_path(BAD), nth=1))
        summary = crawl.sync()
        assert [failure.kind for failure in summary.failures] == ["ref"]
        assert not [kind for kind, *_ in crawl.changes() if kind.endswith("_deleted")]
        sandbox.do("push", BAD)
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        assert crawl.rows("SELECT * FROM sync_failures") == []


@pytest.mark.parametrize("known", [True, False])
def test_an_empty_listing_of_refs_is_read_again(tmp_path: Path, known: bool) -> None:
    """At once; if it is empty again but there is a main branch, old refs stay until a later try."""
    with crawling(tmp_path, **TWO) as (sandbox, crawl):
        if known:
            crawl.sync()
            sandbox.do("push", BAD)
        sandbox.add_fault(Fault("empty", where="refs", nth=1))
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        sandbox.do("push", BAD)
        sandbox.add_fault(Fault("empty", where="refs", nth=None))
        assert [failure.kind for failure in crawl.sync().failures] == ["refs"]
        assert not [kind for kind, *_ in crawl.changes() if kind.endswith("_deleted")]
        sandbox.clear_faults()
        assert crawl.sync(later=3600).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


def test_a_repository_without_refs_costs_one_more_request(tmp_path: Path) -> None:
    """A second empty answer without a main branch is believed."""
    with crawling(tmp_path, **TWO) as (sandbox, crawl):
        sandbox.do("create", "jespern/short-lived", main_branch="main")
        crawl.sync()
        sandbox.do("delete_branch", "jespern/short-lived", name="main")
        sandbox.reset()
        crawl.sync()
        assert sandbox.state()["by_kind"]["refs"] == 2
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


MEANWHILE = {
    "main branch": "UPDATE repositories SET main_branch = 'main' WHERE slug = 'fresh'",
    "branch": """INSERT OR IGNORE INTO branches (repository_id, name, target_hash)
        SELECT id, 'main', 'c0ffee' FROM repositories WHERE slug = 'fresh'""",
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_came_while_no_ref_was_listed_stays(tmp_path: Path, what: str) -> None:
    """A webhook wrote it while the request was under way: such refs count as missing until the next run."""
    with crawling(tmp_path, **TWO) as (sandbox, crawl):
        sandbox.do("create", "jespern/fresh")

        def answer(request: Request) -> SandboxResponse:
            if request.path.endswith("/refs"):
                with crawl.writing() as connection:
                    connection.execute(MEANWHILE[what])
            return sandbox.answer(request)

        crawl.transport = WithoutNetwork(answer)
        summary = crawl.sync()
        assert (summary.state, summary.refs_waiting) == ("incomplete", 1)
        assert crawl.rows(
            """SELECT refs_stale, refs_synced_at, coalesce(main_branch, b.name) FROM repositories r
               LEFT JOIN branches b ON b.repository_id = r.id WHERE slug = 'fresh'"""
        ) == [(1, None, "main")]


@pytest.mark.parametrize("what", ["page_500", "nonsense"])
def test_a_page_that_stays_broken_is_skipped_and_read_later(tmp_path: Path, what: str) -> None:
    """It is reported and recorded, later pages are read, and a later run reads it."""
    with crawling(tmp_path, page_length=2, **TWO) as (sandbox, crawl):
        times = 1 if what == "page_500" else 2
        sandbox.add_fault(Fault(what, where="/2.0/repositories/jespern", nth=2, times=times))
        summary = crawl.sync()
        assert [failure.kind for failure in summary.failures] == ["page"]
        assert crawl.one("SELECT count(*) FROM repositories WHERE full_name LIKE 'jespern/%'") == 3
        sandbox.clear_faults()
        assert crawl.sync().counts.repositories_new == 2
        crawl.sync()
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        assert crawl.rows("SELECT * FROM sync_failures") == []
        assert not [kind for kind, *_ in crawl.changes() if kind == "created"]


def test_a_skipped_page_among_the_newest_holds_the_cursor_back(tmp_path: Path) -> None:
    """The next incremental listing reads it, even days later."""
    with crawling(tmp_path, synced=True, page_length=2, **TWO) as (sandbox, crawl):
        for name in ("django-piston", "arriving", "jespern", "jespern-jekyll"):
            sandbox.do("edit", f"jespern/{name}", fields={"description": "edited"})
        sandbox.add_fault(Fault("page_500", where="/2.0/repositories/jespern", nth=1))
        assert crawl.sync().exit_code == 1
        sandbox.clear_faults()
        assert crawl.sync(later=3 * 86_400).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        assert crawl.rows("SELECT * FROM sync_failures") == []


def test_two_failing_repositories_delay_no_other(tmp_path: Path) -> None:
    """All others stay fresh over many runs, and cursors advance."""
    with crawling(tmp_path, synced=True, **TWO) as (sandbox, crawl):
        for name in (BAD, "jespern/arriving"):
            sandbox.add_fault(Fault("500", where=crawl.refs_path(name), nth=None))
            sandbox.do("push", name)
        for _ in range(5):
            sandbox.do("push", "jespern/jespern")
            crawl.sync(later=6 * 3600)
            tip = repository_refs(sandbox.world, "jespern/jespern")
            mine = crawl.rows(
                """SELECT target_hash FROM branches JOIN repositories r ON r.id = repository_id
                   WHERE full_name = 'jespern/jespern' AND branches.name = 'default'"""
            )
            assert mine[0][0] in {ref["target"]["hash"] for ref in tip}
        delays = crawl.rows("SELECT attempts FROM sync_failures")
        assert len(delays) == 2
        assert all(attempts >= 2 for (attempts,) in delays)


def test_circular_links_end(tmp_path: Path) -> None:
    """A page that leads back to an earlier one is recognised and reported."""
    from mirror.errors import UpstreamShapeError
    from mirror.store.crawl_state import ListingProgress
    from mirror.sync.listing_state import advanced
    from mirror.times import utc_now
    from mirror.upstream.protocol import Page

    links = [f"page-{number}" for number in (2, 3, 4, 5, 6, 3)]
    listing = ListingProgress(purpose="full", began="2026", seen_since="2026")
    with pytest.raises(UpstreamShapeError, match="leads back"):  # noqa: PT012 - the circle is met on the way
        for number in range(50):
            link = links[number] if number < len(links) else links[1 + (number - 1) % 5]
            listing = advanced(listing, Page(rows=(), next=link, size=None, date=utc_now()))


@pytest.mark.parametrize(
    ("alive", "days", "wants"), [(1001, 0.9, False), (1001, 1.1, True), (1000, 0.9, True)]
)
def test_a_large_workspace_is_swept_for_its_total_once_a_day(alive: int, days: float, wants: bool) -> None:
    """Which is a seventh of `sweep_every`; a small one is swept whenever its total differs."""
    from mirror.store.crawl_state import ListingProgress, WorkspaceState
    from mirror.sync.listing_state import wants_sweep
    from mirror.times import to_text

    state = WorkspaceState(swept_at=to_text(START - timedelta(days=days)))
    listing = ListingProgress(purpose="incremental", began="2026", seen_since="2026", last_size=7)
    assert wants_sweep(state, listing, alive, START, 7 * 86_400) is wants


def test_refs_that_change_during_a_listing_are_read_again(tmp_path: Path) -> None:
    """A branch deleted on an earlier page hides another one, which is not marked as deleted."""
    with crawling(tmp_path, page_length=2, workspaces=("ubernostrum",)) as (sandbox, crawl):
        name = "ubernostrum/django-profiles"
        for number in range(6):
            sandbox.do("create_branch", name, name=f"b{number}")
        crawl.sync()
        sandbox.do("push", name)
        sandbox.reset()
        sandbox.on_request(4, lambda: sandbox.do("delete_branch", name, name="b0", touch=False))
        crawl.sync()
        assert [ref for kind, _, ref, *_ in crawl.changes() if kind == "branch_deleted"] == ["b0"]
        assert_matches_sandbox(crawl, sandbox, ["ubernostrum"])
