"""Missing repositories: marked as gone only on proof, kept with their refs, and restored when they return."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sync_harness import Rewritten, ShortPages, SyncHarness, assert_matches_sandbox, crawling

from mirror.sandbox import Fault, Sandbox

FIVE: dict[str, Any] = {"workspaces": ("jespern", "ubernostrum")}


def refs_of(crawl: SyncHarness, name: str) -> int:
    """Count the branches and tags of a repository, living or tombstone."""
    sql = "SELECT count(*) FROM {} WHERE repository_id = (SELECT id FROM repositories WHERE full_name = ?)"
    return sum(crawl.one(sql.format(table), name) for table in ("branches", "tags"))


@pytest.mark.parametrize(
    ("action", "secret", "reason"),
    [
        ("delete", "sandbox", "deleted"),
        ("make_private", None, "no longer visible"),
        ("transfer", "sandbox", "transferred to brodie/django-piston"),
    ],
)
def test_each_tombstone_has_its_reason_and_keeps_its_refs(
    tmp_path: Path, action: str, secret: str | None, reason: str
) -> None:
    """A hidden repository becomes a tombstone with its reason, and returns with its history."""
    name = "jespern/django-piston"
    with crawling(tmp_path, synced=True, secret=secret, **FIVE) as (sandbox, crawl):
        row = crawl.one("SELECT id FROM repositories WHERE full_name = ?", name)
        sandbox.do(action, name, **({"to": "brodie"} if action == "transfer" else {}))
        summary = crawl.sync()
        assert (summary.exit_code, summary.counts.repositories_gone) == (0, 1)
        now = "brodie/django-piston" if action == "transfer" else name
        assert crawl.gone() == {now: reason}
        assert refs_of(crawl, now) == 5
        back = {"delete": "restore", "make_private": "make_public", "transfer": "transfer"}[action]
        sandbox.do(back, now, **({"to": "jespern"} if action == "transfer" else {}))
        assert crawl.sync().exit_code == 0
        assert crawl.gone() == {}
        assert crawl.one("SELECT id FROM repositories WHERE full_name = ?", name) == row
        assert [kind for kind, *_ in crawl.changes() if kind in ("deleted", "restored")] == [
            "deleted",
            "restored",
        ]


def test_what_another_credential_may_not_see_is_not_called_deleted(tmp_path: Path) -> None:
    """The upstream answers both with 404; what the new one has seen itself is deleted, also after an hour."""
    with crawling(tmp_path, synced=True, **FIVE) as (sandbox, crawl):
        crawl.secret = "ubernostrum:sandbox"
        assert crawl.sync(confirm_absence=True).exit_code == 0
        assert len(crawl.gone()) == 4
        assert set(crawl.gone().values()) == {"no longer visible"}
        for hours in (1, 20):
            assert crawl.sync(later=hours * 3600).exit_code == 0
        sandbox.do("delete", "jespern/django-piston")
        crawl.sync()
        assert crawl.gone()["jespern/django-piston"] == "deleted"


def test_too_many_missing_need_confirm_absence(tmp_path: Path) -> None:
    """More than the brake allows stop each run, without sweeps; confirmed, all are gone."""
    with crawling(tmp_path, synced=True, **FIVE) as (sandbox, crawl):
        for name in ("arriving", "jespern", "jespern-jekyll"):
            sandbox.do("delete", f"jespern/{name}")
        summary = crawl.sync()
        assert (summary.state, summary.exit_code, crawl.gone()) == ("incomplete", 1, {})
        assert "3 of 5 repositories" in summary.failures[0].error
        assert "mirror sync here --confirm-absence" in summary.failures[0].error
        sandbox.reset()
        assert crawl.sync().exit_code == 1
        assert sandbox.state()["by_kind"] == {"listing": 2}
        assert crawl.sync(confirm_absence=True).counts.repositories_gone == 3
        assert set(crawl.gone().values()) == {"deleted"}
        assert crawl.rows("SELECT * FROM sync_failures") == []
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


@pytest.mark.parametrize(("brake", "gone"), [(0.6, 3), (0.59, 0)])
def test_the_brake_allows_exactly_its_share(tmp_path: Path, brake: float, gone: int) -> None:
    """Three of five are 0.6: not more than that, and more than 0.59."""
    with crawling(tmp_path, synced=True, absence_brake=brake, **FIVE) as (sandbox, crawl):
        for name in ("arriving", "jespern", "jespern-jekyll"):
            sandbox.do("delete", f"jespern/{name}")
        crawl.sync()
        assert len(crawl.gone()) == gone


def test_a_brownout_of_410_drops_nothing(tmp_path: Path) -> None:
    """While listings answer 410, nothing is concluded; afterwards the crawl continues."""
    with crawling(tmp_path, synced=True, **FIVE) as (sandbox, crawl):
        sandbox.add_fault(Fault("410", where="listing", nth=None))
        summary = crawl.sync(full=True)
        assert (summary.exit_code, len(summary.failures), crawl.gone()) == (1, 2, {})
        sandbox.clear_faults()
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT * FROM sync_failures") == []


@pytest.mark.parametrize("full", [False, True])
def test_empty_listings_are_not_believed(tmp_path: Path, full: bool) -> None:
    """Listings with 200 and no rows change nothing; with rows, the mirror is correct again."""
    with crawling(tmp_path, synced=True, **FIVE) as (sandbox, crawl):
        sandbox.add_fault(Fault("empty", where="listing", nth=None))
        for _ in range(3):
            crawl.sync(full=full)
            assert crawl.gone() == {}
        sandbox.clear_faults()
        sandbox.do("push", "jespern/arriving")
        crawl.sync()
        crawl.sync()
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])
        assert crawl.rows("SELECT * FROM sync_failures") == []


def test_an_early_empty_page_is_read_again(tmp_path: Path) -> None:
    """In the very first sync: the total shows that rows are missing."""
    with crawling(tmp_path, page_length=2, **FIVE) as (sandbox, crawl):
        sandbox.add_fault(Fault("empty", where="*/repositories/jespern", nth=2))
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


def test_a_first_listing_without_rows_and_without_a_total_is_read_again(tmp_path: Path) -> None:
    """Nothing would show that the rows are missing; a workspace that is empty stays so."""
    with crawling(tmp_path, **FIVE) as (sandbox, crawl):
        real, asked = crawl.transport, list[str]()
        assert real is not None

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.url.path)
            if request.url.path.endswith("/repositories/jespern") and asked.count(request.url.path) == 1:
                return httpx.Response(200, json={"values": []})
            return real.handle_request(request)

        crawl.transport = httpx.MockTransport(answer)
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


class LostPages(ShortPages):
    """Answers a page of every listing of some kind without its link onward, and perhaps without its rows.

    The page after it has the status `after`, and its rows if that is 200.
    """

    def __init__(self, path: str, number: str | None, *, empty: bool, after: int = 403) -> None:
        super().__init__(2)
        self.path, self.number, self.empty, self.after = path, number, empty, after

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and take what is lost out of that page."""
        answer = super().handle_request(request)
        asked = request.url.params.get("page")
        if not request.url.path.endswith(self.path):
            return answer
        if asked == str(int(self.number or "1") + 1) and self.after != 200:
            return httpx.Response(self.after, json={"type": "error", "error": {"message": "Invalid page"}})
        answer.read()
        body = answer.json() if self.empty else {**answer.json(), "size": 99}
        if asked == self.number:
            body.pop("next", None)
            body["values"] = [] if self.empty else body["values"]
        return httpx.Response(200, json=body)


@pytest.mark.parametrize("empty", [True, False])
def test_a_listing_that_loses_its_pages_stays_open(tmp_path: Path, *, empty: bool) -> None:
    """The total shows that pages must follow: until then, nothing is complete."""
    with crawling(tmp_path, network=True, page_length=2, workspaces=("jespern",)) as (sandbox, crawl):
        plain, lost_page = crawl.transport, LostPages("/repositories/jespern", "2", empty=empty)
        crawl.transport = lost_page
        for _ in range(2):
            summary = crawl.sync(later=7200)
            assert (summary.state, summary.exit_code) == ("incomplete", 1)
            assert " and ends after " in summary.failures[0].error
        crawl.transport = plain
        assert crawl.sync(later=7200).state == "complete"
        for (name,) in crawl.rows("SELECT full_name FROM repositories"):
            sandbox.do("push", name)
        crawl.transport = lost_page
        assert crawl.sync().state == "incomplete"
        crawl.transport = plain
        assert crawl.sync(later=7200).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ("jespern",))


@pytest.mark.parametrize("listing", ["/refs", "/brodie/members", "/user/workspaces", "/repositories/brodie"])
def test_a_lost_link_onward_is_found(tmp_path: Path, listing: str) -> None:
    """After a full page below the total without a link, the next page is requested."""
    workspaces = None if listing == "/user/workspaces" else ("brodie",)
    with crawling(tmp_path, network=True, page_length=2, kind="cloud", workspaces=workspaces) as (
        sandbox,
        crawl,
    ):
        crawl.transport = LostPages(listing, None, empty=False, after=200)
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces() if workspaces is None else workspaces)


@pytest.mark.parametrize("listing", ["/members", "/repositories/jespern"])
def test_a_total_may_count_what_cannot_be_seen_after_a_full_page(tmp_path: Path, listing: str) -> None:
    """The page after the last one answers 404: the listing is complete, at one more request."""
    with crawling(tmp_path, network=True, page_length=2, workspaces=("jespern",)) as (sandbox, crawl):
        sandbox.do("delete", "jespern/arriving")
        crawl.transport = LostPages(listing, "2", empty=False, after=404)
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, ("jespern",))
        sandbox.reset()
        assert crawl.sync().state == "complete"
        assert sandbox.state()["by_kind"] == {"listing": 1}


@pytest.mark.parametrize("listing", ["/refs", "/brodie/members", "/user/workspaces"])
def test_a_full_page_below_the_total_is_not_the_last_one(tmp_path: Path, listing: str) -> None:
    """Without a link, a page of refs, members or workspaces is a failure, and drops nothing."""
    workspaces = None if listing == "/user/workspaces" else ("brodie",)
    with crawling(tmp_path, network=True, page_length=2, kind="cloud", workspaces=workspaces) as (_, crawl):
        crawl.transport, whole = LostPages(listing, None, empty=False), crawl.transport
        assert (lost := crawl.sync()).state == "incomplete"
        assert any("reports a total of" in failure.error for failure in lost.failures)
        crawl.transport = whole
        assert crawl.sync(full=True, later=7200).state == "complete"
        crawl.transport = LostPages(listing, None, empty=False)
        kept = (
            crawl.rows("SELECT workspace_id, user_id FROM members"),
            crawl.one("SELECT count(*) FROM branches"),
        )
        assert crawl.sync(full=True, later=40 * 86400).state == "incomplete"
        assert kept == (
            crawl.rows("SELECT workspace_id, user_id FROM members"),
            crawl.one("SELECT count(*) FROM branches"),
        )


def test_a_token_of_nobody_is_detected(tmp_path: Path) -> None:
    """A dead token sees public rows only: exit code 3 before any private row is marked as gone."""
    with crawling(tmp_path, synced=True, network=True, **FIVE) as (sandbox, crawl):
        sandbox.options.lenient = True
        dead = SyncHarness(
            crawl.config.url.removesuffix("/2.0"),
            crawl.path,
            crawl.clock,
            secret="dead",
            absence_brake=1.0,
            **FIVE,
        )
        summary = dead.sync()
        assert (summary.state, summary.exit_code) == ("failed", 3)
        assert sandbox.state()["by_status"]["401"] == 1
        crawl.sync()
        assert crawl.gone() == {}
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


def test_a_token_that_dies_between_two_runs_concludes_nothing(tmp_path: Path) -> None:
    """The caller was confirmed minutes ago, but is confirmed again before a tombstone."""
    with crawling(tmp_path, synced=True, network=True, absence_brake=1.0, **FIVE) as (sandbox, crawl):
        sandbox.options.lenient = True
        sandbox.add_fault(Fault("401", where="user", nth=None))
        listing = crawl.config.url
        dead = SyncHarness(listing.removesuffix("/2.0"), crawl.path, crawl.clock, absence_brake=1.0, **FIVE)
        sandbox.do("delete", "jespern/arriving")
        summary = dead.sync()
        assert (summary.exit_code, dead.gone()) == (3, {})
        sandbox.clear_faults()
        assert crawl.sync().counts.repositories_gone == 1


def test_a_401_in_mid_run_stops_it_at_once(tmp_path: Path) -> None:
    """The first 401 is the last request of a single thread; nothing is dropped, the next run resumes."""
    with crawling(tmp_path, **FIVE) as (sandbox, crawl):
        sandbox.add_fault(Fault("401", where="refs", nth=3, times=100))
        summary = crawl.sync()
        assert (summary.state, summary.exit_code) == ("failed", 3)
        assert "API token" in (summary.error or "")
        assert sandbox.state()["by_status"]["401"] == 1
        assert sandbox.state()["by_kind"]["refs"] == 3
        sandbox.clear_faults()
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_an_oauth_token_that_cannot_be_renewed_stops_it_like_a_401(tmp_path: Path, fault: str) -> None:
    """The token expires and the endpoint gives no other: exit code 3, nothing is dropped."""
    with crawling(tmp_path, secret="oauth:sandbox:sandbox", **FIVE) as (sandbox, crawl):
        assert crawl.sync().exit_code == 0
        sandbox.do("delete", "jespern/arriving")
        sandbox.add_fault(Fault("401", where="listing", nth=2, times=1))
        sandbox.add_fault(Fault(fault, where="*/access_token", nth=2, times=100))
        summary = crawl.sync(full=True)
        assert (summary.state, summary.exit_code, summary.failures) == ("failed", 3, [])
        assert crawl.gone() == {}
        sandbox.clear_faults()
        assert crawl.sync(full=True).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


def test_a_401_keeps_the_other_threads_from_asking_on(tmp_path: Path) -> None:
    """With eight threads, at most the eight requests under way get the 401."""
    with crawling(tmp_path, 100, concurrency=8) as (sandbox, crawl):
        sandbox.add_fault(Fault("401", where="refs", nth=5, times=1000))
        assert crawl.sync().exit_code == 3
        assert sandbox.state()["by_status"]["401"] <= 8


def without_piston(path: str, body: Any) -> Any:
    """Leave a repository out of a listing and of its total, as if it did not exist."""
    if not path.endswith("/repositories/jespern"):
        return body
    rows = [row for row in body["values"] if row["name"] != "django-piston"]
    return {**body, "values": rows, "size": body["size"] - 1}


def test_a_repository_that_listings_leave_out_costs_full_listings_only_at_first(tmp_path: Path) -> None:
    """Totals are expected to leave it out, once two full listings have; a deletion is noticed as ever."""
    settings: dict[str, Any] = {"workspaces": ("jespern",), "absence_brake": 1.0}
    with crawling(tmp_path, synced=True, network=True, **settings) as (sandbox, crawl):
        crawl.transport = Rewritten(without_piston)
        for _ in range(2):
            assert crawl.sync().kind == "full"
        for _ in range(2):
            assert (crawl.sync().kind, crawl.gone()) == ("incremental", {})
        sandbox.do("delete", "jespern/jespern")
        crawl.sync()
        assert crawl.gone() == {"jespern/jespern": "deleted"}


@pytest.mark.parametrize("at", range(1, 12))
def test_a_transfer_between_mirrored_workspaces_is_a_rename(tmp_path: Path, at: int) -> None:
    """At any moment of a sweep, in either direction: renamed, never a tombstone."""
    with crawling(tmp_path, synced=True, page_length=2, absence_brake=1.0, **FIVE) as (sandbox, crawl):
        sandbox.reset()
        sandbox.on_request(at, lambda: move(sandbox))
        crawl.sync(full=True)
        crawl.sync()
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])
        assert not [kind for kind, *_ in crawl.changes() if kind == "deleted"]


def test_a_row_deleted_after_the_first_pass_is_found_gone_by_the_next_run(tmp_path: Path) -> None:
    """Only the first pass had it, so the next run looks again."""
    with crawling(tmp_path, synced=True, page_length=2, absence_brake=1.0, **FIVE) as (sandbox, crawl):
        sandbox.do("delete", "jespern/django-piston")
        sandbox.reset()
        sandbox.on_request(4, lambda: sandbox.do("delete", "jespern/arriving"))
        crawl.sync()
        assert crawl.gone() == {"jespern/django-piston": "deleted"}
        crawl.sync()
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])
        sandbox.reset()
        crawl.sync()
        assert sandbox.state()["by_kind"] == {"listing": 2}


def move(sandbox: Sandbox) -> None:
    """Move one repository in each direction."""
    sandbox.do("transfer", "jespern/jespern", to="ubernostrum")
    sandbox.do("transfer", "ubernostrum/django-profiles", to="jespern")
