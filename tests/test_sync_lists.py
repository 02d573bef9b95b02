"""Lists of repositories, members, workspaces: missing entries are neither dropped nor called complete."""

import io
import threading
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from prepared_files import opened
from sync_harness import HASTY, Clock, Notes
from upstream_fakes import answer

from mirror.cli.printer import Printer
from mirror.cli.sync import print_summary
from mirror.config import UpstreamConfig
from mirror.queries.status import read_status
from mirror.report import Summary
from mirror.store.files import open_reader
from mirror.store.ledger import RequestLedger
from mirror.sync.crawl import Run, sync_upstream
from mirror.upstream.connect import connect

CLOUD = "https://api.bitbucket.org/2.0"
ONE = {"uuid": "{u}", "slug": "one"}


class Cloud:
    """A Bitbucket of one workspace, without repositories at first, whose lists a test writes page by page.

    `leads_to` says which page follows where that is not the next; `members_then` are the members once a
    page has been told; `refused` are paths and pages that answer 404, `forbidden` paths that answer 403,
    `broken` pages of repositories that answer 500.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, Clock()
        self.members: list[list[Any]] = [[]]
        self.workspaces: list[list[Any]] = [[{"workspace": ONE}]]
        self.repositories: list[list[Any]] = [[]]
        self.refused = set[tuple[str, int]]()
        self.forbidden = set[str]()
        self.broken = set[int]()
        self.leads_to = dict[int, int]()
        self.members_then: list[list[Any]] | None = None
        self.asked = list[str]()

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer as the lists are by now."""
        path = request.url.path.removeprefix("/2.0/")
        number = int(request.url.params.get("page", 1))
        self.asked.append(path)
        if path in self.forbidden or (path, number) in self.refused:
            status, words = (
                (403, "A scope is missing") if path in self.forbidden else (404, "Resource not found")
            )
            return answer({"type": "error", "error": {"message": words}}, status)
        if path == "repositories/one" and number in self.broken:
            leads_on = request.url.params.get("fields") == "next"
            return answer({"next": f"{CLOUD}/{path}?page={number + 1}"}) if leads_on else answer({}, 500)
        if path == "workspaces/one/members":
            return self._page(path, self.members, number)
        if path == "user/workspaces":
            return self._page(path, self.workspaces, number)
        if path == "repositories/one":
            return self._page(path, self.repositories, number)
        plain = {"user": {"uuid": "{me}", "nickname": "me"}, "workspaces/one": ONE, "workspaces/{u}": ONE}
        return answer(plain.get(path, {"values": [], "size": 0}))

    def _page(self, path: str, pages: list[list[Any]], number: int) -> httpx.Response:
        following = self.leads_to.get(number, number + 1)
        told: dict[str, Any] = {"values": pages[number - 1] if number <= len(pages) else []}
        if following <= len(pages):
            told["next"] = f"{CLOUD}/{path}?page={following}"
        self.members, self.members_then = self.members_then or self.members, None
        return answer(told)

    def sync(
        self,
        *,
        full: bool = True,
        confirm_absence: bool = False,
        workspaces: tuple[str, ...] | None = ("one",),
        members: bool = True,
        credential: str | None = "env:SECRET",
        later: float = 7200,
    ) -> Summary:
        """Mirror it, with 60 requests at most."""
        self.asked.clear()
        self.clock.wait(later)
        config = UpstreamConfig(
            name="here",
            credential=credential,
            concurrency=1,
            retry=HASTY,
            workspaces=workspaces,
            members=members,
        )
        with opened(self.path) as store:
            connection = connect(
                config, ledger=RequestLedger(store), wait=self.clock.wait, clock=self.clock.now,
                may_wait=False, max_requests=60, random=Random(0), environ={"SECRET": "a@b.c:token"},
                transport=httpx.MockTransport(self.handle),
            )  # fmt: skip
            with closing(connection.upstream):
                run = Run(
                    config, connection.upstream, connection.budget, store, url=CLOUD, clock=self.clock.now,
                    stop=threading.Event(), report=Notes(), full=full, confirm_absence=confirm_absence,
                )  # fmt: skip
                return sync_upstream(run)

    def rows(self, sql: str) -> list[Any]:
        """Read from the mirror."""
        with opened(self.path) as store:
            return store.rows(sql)

    @property
    def members_mirrored(self) -> str:
        """Return the members, as one word."""
        sql = "SELECT nickname FROM members JOIN users u ON u.id = user_id ORDER BY 1"
        return "".join(row[0] for row in self.rows(sql))


def people(*pages: str) -> list[list[Any]]:
    """Write pages of members, one letter each."""
    return [[{"user": {"uuid": f"{{{name}}}", "nickname": name}} for name in page] for page in pages]


def repository(number: int) -> dict[str, Any]:
    """Write a row of a listing."""
    moment = f"2024-01-01T00:00:{number:02}+00:00"
    return {
        "uuid": f"{{{number}}}", "full_name": f"one/r{number}", "name": f"r{number}", "scm": "git",
        "is_private": False, "created_on": moment, "updated_on": moment, "workspace": ONE, "owner": ONE,
    }  # fmt: skip


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A Bitbucket and where it is mirrored."""
    return Cloud(tmp_path / "mirror.db")


@pytest.mark.parametrize("page", [0, 1])
def test_a_member_with_a_broken_row_stays_a_member(cloud: Cloud, page: int) -> None:
    """On any page: nobody is removed, it is reported and retried until all rows can be read."""
    cloud.members = people("ab", "cd")
    assert cloud.sync().exit_code == 0
    cloud.members[page][0] = {"user": {"uuid": 5}}
    summary = cloud.sync()
    assert [(failure.kind, failure.subject) for failure in summary.failures] == [("members", "one")]
    assert cloud.members_mirrored == "abcd"
    cloud.members = people("ab", "c")
    assert cloud.sync(full=False).exit_code == 0
    assert cloud.members_mirrored == "abc"
    assert cloud.rows("SELECT * FROM sync_failures") == []


def test_a_member_who_leaves_between_pages_removes_no_other(cloud: Cloud) -> None:
    """A member who moves to an earlier page is found by the second pass."""
    cloud.members = people("ab", "cd")
    cloud.sync()
    cloud.members_then = people("bc", "d")
    assert cloud.sync().exit_code == 0
    assert cloud.members_mirrored == "abcd"  # a was named, the next listing knows better
    cloud.sync()
    assert cloud.members_mirrored == "bcd"
    assert cloud.asked.count("workspaces/one/members") == 4  # somebody is missing: twice two pages
    cloud.sync()
    assert cloud.asked.count("workspaces/one/members") == 2


def test_one_page_of_members_is_believed_at_once(cloud: Cloud) -> None:
    """It is one moment."""
    cloud.members = people("abc")
    cloud.sync()
    cloud.members = people("bc")
    cloud.sync()
    assert cloud.asked.count("workspaces/one/members") == 1
    assert cloud.members_mirrored == "bc"


@pytest.mark.parametrize("setting", [{"members": False}, {"credential": None}], ids=str)
def test_members_that_are_not_read_are_nobody(cloud: Cloud, setting: dict[str, Any]) -> None:
    """No request is sent for them; former members no longer see private repositories."""
    cloud.members = people("abc")
    cloud.sync()
    assert cloud.sync(**setting).exit_code == 0
    assert cloud.asked.count("workspaces/one/members") == 0
    assert cloud.members_mirrored == ""


@pytest.mark.parametrize("path", ["workspaces/one", "workspaces/one/members"])
def test_members_that_are_refused_for_long_are_nobody(cloud: Cloud, path: str) -> None:
    """One refusal may be a mistake; whoever left since would see private repositories for ever."""
    cloud.members = people("abc")
    cloud.sync()
    cloud.forbidden = {path}
    week = 7 * 86_400
    for later, members in ((week, "abc"), (week - 60, "abc"), (week, "")):
        assert cloud.sync(later=later).exit_code == 0
        assert cloud.members_mirrored == members
    cloud.forbidden = set()
    cloud.sync()
    assert cloud.members_mirrored == "abc"


def test_circular_links_of_members_end(cloud: Cloud) -> None:
    """Page 3 links to page 2: a failure; everything else is mirrored, nobody is removed."""
    cloud.members = people("ab", "c", "d")
    cloud.sync()
    cloud.members, cloud.leads_to = people("a", "c", "d"), {3: 2}
    summary = cloud.sync()
    assert [(failure.kind, failure.subject) for failure in summary.failures] == [("members", "one")]
    assert "leads back" in summary.failures[0].error
    assert cloud.members_mirrored == "abcd"
    assert cloud.asked[-1] == "repositories/one"
    cloud.leads_to = {}
    assert cloud.sync(full=False).exit_code == 0
    assert cloud.members_mirrored == "acd"


def test_circular_links_of_workspaces_end(cloud: Cloud) -> None:
    """Workspaces named before are mirrored, and the circle is reported."""
    cloud.workspaces, cloud.leads_to = [[], [{"workspace": ONE}], []], {3: 2}
    summary = cloud.sync(workspaces=None)
    assert [failure.kind for failure in summary.failures] == ["workspaces"]
    assert "leads back" in summary.failures[0].error
    assert cloud.asked[-1] == "repositories/one"
    cloud.leads_to = {}
    assert cloud.sync(workspaces=None).exit_code == 0
    assert cloud.rows("SELECT * FROM sync_failures") == []


def test_a_broken_row_of_workspaces_is_reported(cloud: Cloud) -> None:
    """The others are mirrored."""
    cloud.workspaces = [[{"workspace": {"slug": 5}}, {"workspace": ONE}]]
    summary = cloud.sync(workspaces=None)
    assert [failure.kind for failure in summary.failures] == ["workspaces"]
    assert cloud.asked[-1] == "repositories/one"


@pytest.mark.parametrize("page", [1, 2])
def test_a_listing_that_answers_404_is_a_failure(cloud: Cloud, page: int) -> None:
    """While its workspace answers 200: reported in each run, never complete, and it may return."""
    cloud.repositories = [[repository(1)], [repository(2)]]
    cloud.refused = {("repositories/one", page)}
    for attempts in (1, 2):
        summary = cloud.sync(full=False)
        assert (summary.state, summary.exit_code) == ("incomplete", 1)
        assert [(each.kind, each.attempts, each.status) for each in summary.failures] == [
            ("workspace", attempts, 404)
        ]
        assert "the workspace itself answers" in summary.failures[0].error
        assert len(cloud.rows("SELECT 1 FROM repositories")) == page - 1
    cloud.refused.clear()
    assert cloud.sync(full=False).state == "complete"
    assert len(cloud.rows("SELECT 1 FROM repositories")) == 2


def test_a_listing_that_answers_404_later_drops_nothing(cloud: Cloud) -> None:
    """Not even with --confirm-absence, because the workspace exists."""
    cloud.repositories = [[repository(1)]]
    cloud.sync()
    cloud.refused = {("repositories/one", 1)}
    for full in (False, True):
        assert cloud.sync(full=full, confirm_absence=True).exit_code == 1
    assert cloud.rows("SELECT 1 FROM repositories WHERE deleted_at IS NOT NULL") == []


def test_both_answers_are_told_of_a_workspace_that_may_have_another_name(cloud: Cloud) -> None:
    """Its listing answers 404, and the credential may not ask who it is now."""
    cloud.repositories = [[repository(1)]]
    cloud.sync()
    cloud.refused, cloud.forbidden = {("repositories/one", 1)}, {"workspaces/{u}"}
    (failure,) = cloud.sync(full=False).failures
    assert failure.error.index("404: Resource not found") < failure.error.index("403: A scope is missing")


def test_an_empty_listing_without_a_total_is_not_believed(cloud: Cloud) -> None:
    """An incremental one is followed by a full one, and that by the brake."""
    cloud.repositories = [[repository(1), repository(2)]]
    cloud.sync()
    cloud.repositories = [[]]
    summary = cloud.sync(full=False)
    assert (summary.state, summary.exit_code) == ("incomplete", 1)
    assert [failure.kind for failure in summary.failures] == ["absence"]
    assert cloud.rows("SELECT 1 FROM repositories WHERE deleted_at IS NOT NULL") == []


def test_a_second_page_of_members_that_answers_404_is_a_failure(cloud: Cloud) -> None:
    """A right cannot end between two pages; nobody is removed."""
    cloud.members = people("ab", "cd")
    cloud.sync()
    cloud.refused = {("workspaces/one/members", 2)}
    assert [failure.kind for failure in cloud.sync().failures] == ["members"]
    assert cloud.members_mirrored == "abcd"


def test_a_repaired_row_is_no_longer_missing(cloud: Cloud) -> None:
    """The next full listing retries it; an incremental one that has it is enough too."""
    cloud.repositories = [[repository(1), repository(2) | {"scm": 5}]]
    summary = cloud.sync()
    assert [(each.kind, each.subject) for each in summary.failures] == [("row", "one: one/r2")]
    assert summary.failures[0].next_try_at.startswith("2026-11-30")
    cloud.repositories[0].pop()
    waiting = cloud.sync(full=False)
    assert (waiting.state, [each.kind for each in waiting.waiting]) == ("incomplete", ["row"])
    cloud.repositories = [[repository(1), repository(2)]]
    assert cloud.sync(full=False).state == "complete"


def test_a_broken_list_of_workspaces_is_read_again(cloud: Cloud) -> None:
    """At its next try, not only when the list is old; until then, no run is complete."""
    cloud.workspaces = [[{"workspace": {"slug": 5}}, {"workspace": ONE}]]
    assert cloud.sync(workspaces=None, full=False).exit_code == 1
    cloud.workspaces = [[{"workspace": ONE}]]
    assert cloud.sync(workspaces=None, full=False, later=60).waiting[0].kind == "workspaces"
    assert cloud.sync(workspaces=None, full=False).state == "complete"


def test_a_postponed_page_counts_as_missing(cloud: Cloud) -> None:
    """Before its next try, a run says what waits until when, and is not complete."""
    cloud.repositories, cloud.broken = [[repository(1)], [repository(2)], [repository(3)]], {2}
    assert [failure.kind for failure in cloud.sync().failures] == ["page"]
    cloud.broken.clear()
    waiting = cloud.sync(full=False, later=60)
    assert (waiting.state, waiting.exit_code, waiting.failures) == ("incomplete", 1, [])
    out = io.StringIO()
    print_summary(Printer(out), waiting)
    assert "waiting       page: one: page 2: the upstream" in out.getvalue()
    assert "(next try 2026-" in out.getvalue()
    with closing(open_reader(cloud.path)) as connection:
        (known,) = read_status(connection, cloud.clock.now())
    assert (known.last_complete_sync, known.missing, known.accepted) == (None, 1, 0)
    assert cloud.sync(full=False, later=900).state == "complete"
    assert len(cloud.rows("SELECT 1 FROM repositories")) == 3
