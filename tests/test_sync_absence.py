"""Missing repositories: marked as gone only on proof, kept with their refs, and restored when they return."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sync_harness import ShortPages, SyncHarness, assert_matches_sandbox, crawling

from mirror.sandbox import Fault, Sandbox
from mirror.sandbox.api2_shapes import visible_repositories

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


def test_a_workspace_that_is_not_found_keeps_its_rows(tmp_path: Path) -> None:
    """404 by name and identity: rows stay until the operator confirms, and may return."""
    with crawling(tmp_path, synced=True, **FIVE) as (sandbox, crawl):
        sandbox.do("delete_workspace", workspace="ubernostrum")
        summary = crawl.sync()
        assert (summary.exit_code, crawl.gone()) == (1, {})
        assert "--confirm-absence" in summary.failures[0].error
        assert crawl.sync(confirm_absence=True).counts.repositories_gone == 2
        assert set(crawl.gone().values()) == {"workspace gone"}
        sandbox.do("restore_workspace", workspace="ubernostrum")
        assert crawl.sync().exit_code == 0
        assert crawl.gone() == {}
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


@pytest.mark.parametrize("full", [False, True])
def test_a_workspace_that_came_back_is_not_gone(tmp_path: Path, full: bool) -> None:
    """Confirmed as gone by an interrupted run, then back: brake and proof apply as always."""
    with crawling(tmp_path, synced=True, workspaces=("jespern",)) as (sandbox, crawl):
        sandbox.do("delete_workspace", workspace="jespern")
        assert crawl.sync().exit_code == 1
        assert crawl.sync(confirm_absence=True, max_requests=3, later=50_000).state == "paused"
        sandbox.do("restore_workspace", workspace="jespern")
        assert crawl.sync(full=full).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["jespern"])
        for name in ("arriving", "jespern", "jespern-jekyll"):
            sandbox.do("delete", f"jespern/{name}")
        summary = crawl.sync(later=86_400)
        assert [failure.kind for failure in summary.failures] == ["absence"]
        assert crawl.gone() == {}


def test_a_gone_workspace_without_repositories_is_closed(tmp_path: Path) -> None:
    """Without repositories, the confirmation is enough, and no later run requests it."""
    with crawling(tmp_path, synced=True) as (sandbox, crawl):
        sandbox.do("delete", "brodie/hg-project")
        crawl.sync()
        sandbox.do("delete_workspace", workspace="brodie")
        assert [failure.subject for failure in crawl.sync(full=True).failures] == ["brodie"]
        assert crawl.sync(confirm_absence=True).exit_code == 0
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT 1 FROM cursors WHERE stream = 'workspace:brodie'") == []


def test_a_renamed_workspace_is_followed(tmp_path: Path) -> None:
    """The old name answers 404; its uuid finds the new name, and its rows are renamed."""
    with crawling(tmp_path, synced=True, network=True, **FIVE) as (sandbox, crawl):
        sandbox.do("rename_workspace", workspace="jespern", name="noehr")
        summary = crawl.sync()
        assert summary.exit_code == 0
        assert any("called noehr now" in note for note in crawl.notes)
        assert_matches_sandbox(crawl, sandbox, ["noehr", "ubernostrum"])
        assert crawl.gone() == {}
        renames = [change for change in crawl.changes() if change[0] == "owner_renamed"]
        assert renames == [("owner_renamed", None, None, "jespern", "noehr")]
        sandbox.reset()
        assert crawl.sync().counts.requests == 2
        renamed = SyncHarness(
            crawl.config.url.removesuffix("/2.0"),
            crawl.path,
            crawl.clock,
            workspaces=("noehr", "ubernostrum"),
        )
        assert renamed.sync().exit_code == 0
        assert renamed.rows("SELECT stream FROM cursors WHERE stream LIKE 'workspace:%' ORDER BY 1") == [
            ("workspace:noehr",),
            ("workspace:ubernostrum",),
        ]
        assert not [change for change in renamed.changes() if change[0] == "created"]


MYLYN = "org.eclipse.mylyn.bitbucket"


class Rewritten(ShortPages):
    """Answers what a function makes of the path and the answer."""

    def __init__(self, change: Callable[[str, Any], Any]) -> None:
        super().__init__(100)
        self.change = change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and rewrite the answer."""
        answer = super().handle_request(request)
        answer.read()
        return httpx.Response(answer.status_code, json=self.change(request.url.path, answer.json()))


def test_a_workspace_with_another_uuid_is_the_one_of_its_name(tmp_path: Path) -> None:
    """Its repositories moved to the new identity, so nothing of the old one is requested."""
    with crawling(tmp_path, synced=True, network=True, workspaces=("erik",)) as (_, crawl):
        uuid = crawl.one("SELECT uuid FROM users WHERE username = 'erik'")
        crawl.transport = Rewritten(
            lambda _, body: json.loads(
                json.dumps(body).replace(uuid, "{00000000-0000-4000-8000-000000000000}")
            )
        )
        for full in (True, True, False):
            summary = crawl.sync(full=full)
            assert (summary.state, crawl.gone()) == ("complete", {})
        assert crawl.rows("SELECT stream FROM cursors WHERE stream LIKE 'workspace:%'") == [
            ("workspace:erik",)
        ]


def with_foreign(foreign: Any, path: str, body: Any) -> Any:
    """Put a row of another workspace into a listing."""
    is_listing = path.endswith("/repositories/jespern")
    return {**body, "values": [*body["values"], foreign]} if is_listing else body


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


@pytest.mark.parametrize("hidden", [False, True])
def test_rows_of_another_workspace_are_not_taken_for_its_own(tmp_path: Path, *, hidden: bool) -> None:
    """Such a row is a failure and is not saved: no other listing would update it."""
    with crawling(tmp_path, network=True, workspaces=("jespern",)) as (sandbox, crawl):
        if hidden:  # whose the workspace is, its rows alone tell then
            sandbox.add_fault(Fault("403", where="*/workspaces/*", nth=None))
        (erik,) = (row for row in visible_repositories(sandbox.world) if row["full_name"] == f"erik/{MYLYN}")
        crawl.transport, plain = Rewritten(partial(with_foreign, erik)), crawl.transport
        summary = crawl.sync()
        assert [(each.kind, each.subject) for each in summary.failures] == [("row", f"jespern: erik/{MYLYN}")]
        assert crawl.one("SELECT count(*) FROM repositories WHERE full_name LIKE 'erik/%'") == 0
        crawl.transport = plain
        sandbox.clear_faults()
        assert crawl.sync(full=True).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ("jespern",))


def take_the_name(sandbox: Sandbox) -> None:
    """Erik is renamed, and another workspace takes the name erik, between two runs."""
    sandbox.do("rename_workspace", workspace="erik", name="erik-old")
    sandbox.do("rename_workspace", workspace="ubernostrum", name="erik")


@pytest.mark.parametrize("later", [900, 8 * 86_400])
def test_a_workspace_whose_name_was_taken_is_still_mirrored(tmp_path: Path, later: float) -> None:
    """Both are, incrementally and by a sweep; under its new name it continues."""
    with crawling(tmp_path, synced=True, workspaces=("erik",)) as (sandbox, crawl):
        take_the_name(sandbox)
        assert crawl.sync(later=later).exit_code == 0
        assert any("another workspace is called erik" in note for note in crawl.notes)
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["erik", "erik-old"])
        sandbox.reset()
        assert crawl.sync().counts.requests == 2
        sandbox.do("delete", f"erik-old/{MYLYN}")
        assert crawl.sync().exit_code == 0
        assert crawl.gone() == {f"erik-old/{MYLYN}": "deleted"}
        sandbox.do("restore", f"erik-old/{MYLYN}")
        crawl.config = msgspec.structs.replace(crawl.config, workspaces=("erik", "erik-old"))
        for _ in range(2):
            assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["erik", "erik-old"])
        assert crawl.rows("SELECT stream FROM cursors WHERE stream LIKE 'workspace:%' ORDER BY 1") == [
            ("workspace:erik",),
            ("workspace:erik-old",),
        ]


def test_a_gone_workspace_whose_name_was_taken_needs_confirm_absence(tmp_path: Path) -> None:
    """Its rows stay and are requested in each run, until the operator confirms."""
    with crawling(tmp_path, synced=True, workspaces=("erik",)) as (sandbox, crawl):
        take_the_name(sandbox)
        sandbox.do("delete_workspace", workspace="erik-old")
        crawl.sync()
        for _ in range(2):
            summary = crawl.sync()
            assert (summary.exit_code, crawl.gone()) == (1, {})
            assert "that was called erik:" in summary.failures[0].error
            assert "--confirm-absence" in summary.failures[0].error
        assert crawl.sync(confirm_absence=True).counts.repositories_gone == 1
        assert crawl.gone() == {f"erik/{MYLYN}": "workspace gone"}
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT * FROM sync_failures") == []


def test_an_absence_stays_unconfirmed_while_another_workspace_has_the_name(tmp_path: Path) -> None:
    """Too many were missing, then the workspace was renamed and its name taken: still requested."""
    with crawling(tmp_path, synced=True, workspaces=("jespern",)) as (sandbox, crawl):
        for name in ("arriving", "jespern", "jespern-jekyll"):
            sandbox.do("delete", f"jespern/{name}")
        assert [failure.kind for failure in crawl.sync().failures] == ["absence"]
        sandbox.do("rename_workspace", workspace="jespern", name="noehr")
        sandbox.do("rename_workspace", workspace="ubernostrum", name="jespern")
        crawl.sync()
        assert [failure.kind for failure in crawl.sync().failures] == ["absence"]
        assert crawl.gone() == {}
        assert crawl.sync(confirm_absence=True).counts.repositories_gone == 3
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["jespern", "noehr"])


@pytest.mark.parametrize("action", ["rename_workspace", "delete_workspace"])
def test_a_workspace_that_goes_before_its_first_listing_is_forgotten(tmp_path: Path, action: str) -> None:
    """The next run reads the list of workspaces anew; nothing fails for ever."""
    with crawling(tmp_path) as (sandbox, crawl):
        more = {"name": "renamed"} if action == "rename_workspace" else {}
        sandbox.on_request(3, lambda: sandbox.do(action, workspace="ubernostrum", **more))
        assert crawl.sync().exit_code == 1
        done = crawl.sync()
        assert (done.exit_code, done.state) == (0, "complete")
        assert crawl.one("SELECT count(*) FROM sync_failures WHERE kind = 'workspace'") == 0
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


def test_found_workspaces_may_be_renamed_and_deleted(tmp_path: Path) -> None:
    """Without configured names, a renamed one is followed, and a deleted one needs a confirmation."""
    with crawling(tmp_path, synced=True) as (sandbox, crawl):
        sandbox.do("rename_workspace", workspace="erik", name="van-zijst")
        sandbox.do("delete_workspace", workspace="brodie")
        summary = crawl.sync(full=True)
        assert [failure.subject for failure in summary.failures] == ["brodie"]
        assert crawl.gone() == {}
        assert crawl.sync(confirm_absence=True).exit_code == 0
        assert crawl.gone() == {"brodie/hg-project": "workspace gone"}
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


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


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_workspace_that_may_not_be_seen_is_mirrored_by_its_listing(tmp_path: Path, status: int) -> None:
    """A token with only the repository scope: all repositories, no members, which is reported."""
    with crawling(tmp_path, workspaces=("jespern",)) as (sandbox, crawl):
        sandbox.add_fault(Fault(str(status), where="*/workspaces/*", nth=None))
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT kind, status FROM sync_failures") == [("hidden members", status)]
        assert crawl.one("SELECT count(*) FROM members") == 0
        sandbox.do("delete", "jespern/django-piston")
        crawl.sync()
        assert "jespern/django-piston" in crawl.gone()
        sandbox.clear_faults()
        crawl.sync(full=True)
        assert_matches_sandbox(crawl, sandbox, ("jespern",))
