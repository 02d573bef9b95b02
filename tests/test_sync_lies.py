"""Faulty listings: pages without end, repeated, overlapping, or contradictory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures_db import owner, repository
from sync_harness import Clock, SyncHarness

from mirror.errors import UpstreamShapeError
from mirror.model import Member, Ref
from mirror.store import Store
from mirror.store.crawl_state import Landmark
from mirror.sync.landmarks import next_landmark
from mirror.times import utc_now
from mirror.upstream.protocol import Page

ROWS, LENGTH = 30, 10

Lie = Callable[[int, list[Any]], dict[str, Any]]


def page(start: int, rows: list[Any], **said: Any) -> dict[str, Any]:
    """Write a page as a Data Center does."""
    values, last = rows[start : start + LENGTH], start + LENGTH >= len(rows)
    onward = None if last else start + LENGTH
    return {
        "size": len(values), "limit": LENGTH, "start": start, "isLastPage": last, "nextPageStart": onward,
        "values": values,
    } | said  # fmt: skip


def for_ever(start: int, rows: list[Any], values: list[Any]) -> dict[str, Any]:
    """Write a page that claims not to be the last."""
    return page(start, rows, isLastPage=False, nextPageStart=start + LENGTH, values=values)


ENDLESS: dict[str, Lie] = {
    "a next start that does not grow": lambda start, rows: page(
        start, rows, isLastPage=False, nextPageStart=start
    ),
    "the first page for ever": lambda start, rows: for_ever(start, rows, rows[:LENGTH]),
    "nothing for ever": lambda start, rows: for_ever(start, rows, rows[start : start + LENGTH]),
    "a circle of pages": lambda start, rows: for_ever(start, rows, rows[start % ROWS :][:LENGTH]),
    "a page twice, then the end": lambda start, rows: page(
        start, rows, values=rows[:LENGTH], isLastPage=start > 0, nextPageStart=LENGTH
    ),
    "no word of the last page": lambda start, rows: page(start, rows, isLastPage=None),
}
HARMLESS: dict[str, Lie] = {
    "pages that overlap": lambda start, rows: page(
        start, rows, nextPageStart=None if start >= ROWS - LENGTH else start + LENGTH // 2
    ),
    "a size and a limit of their own": lambda start, rows: page(start, rows, size=10**9, limit=0),
    "a last page that is not": lambda start, rows: page(start, rows, isLastPage=True),
    "an empty page between": lambda start, rows: (
        for_ever(start, rows, []) if start == 0 else page(start - LENGTH, rows, nextPageStart=start + LENGTH)
    ),
}


class Center:
    """A Data Center with one project and one faulty listing."""

    def __init__(self, lie: Lie, where: str) -> None:
        self.lie, self.where, self.asked = lie, where, 0
        self.project = {"key": "P", "id": 1, "name": "P", "type": "NORMAL", "public": True}
        self.repositories = [
            {"slug": f"r{n}", "id": n + 1, "name": f"r{n}", "scmId": "git", "project": self.project,
             "public": True, "forkable": True, "links": {}}
            for n in range(ROWS)
        ]  # fmt: skip
        self.branches = [
            {"id": f"refs/heads/b{n:02}", "displayId": f"b{n:02}", "latestCommit": f"{n:040x}",
             "isDefault": n == 0}
            for n in range(ROWS)
        ]  # fmt: skip

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.asked += 1
        assert self.asked < 500, "the crawl does not end"
        path = request.url.path.removeprefix("/rest/api/1.0/")
        start = int(request.url.params.get("start", 0))
        if path == "projects/P":
            return httpx.Response(200, json=self.project)
        rows: list[Any] = []
        if path == "projects/P/repos":
            rows = self.repositories
        elif path == "projects/P/repos/r3/branches":
            rows = self.branches
        write = self.lie if path == self.where else page
        return httpx.Response(200, json=write(start, rows))


def crawled(path: Path, lie: Lie, where: str) -> tuple[Center, SyncHarness]:
    """Crawl such a Data Center."""
    center = Center(lie, where)
    crawl = SyncHarness(
        "http://lies.invalid", path / "mirror.db", Clock(), kind="datacenter", url="http://lies.invalid",
        secret=None, workspaces=("P",),
    )  # fmt: skip
    crawl.transport = httpx.MockTransport(center.handle)
    return center, crawl


@pytest.mark.parametrize("lie", ENDLESS.values(), ids=ENDLESS)
def test_a_listing_of_repositories_that_never_ends_is_a_failure(tmp_path: Path, lie: Lie) -> None:
    """It ends after some pages and is reported in each run; nothing is complete or gone."""
    _, crawl = crawled(tmp_path, lie, "projects/P/repos")
    for _ in range(3):
        summary = crawl.sync(full=True)
        assert (summary.exit_code, crawl.gone()) == (1, {})
        assert summary.state != "complete"


@pytest.mark.parametrize("lie", ENDLESS.values(), ids=ENDLESS)
def test_a_listing_of_branches_that_never_ends_fails_alone(tmp_path: Path, lie: Lie) -> None:
    """All other repositories are mirrored."""
    _, crawl = crawled(tmp_path, lie, "projects/P/repos/r3/branches")
    summary = crawl.sync()
    assert summary.exit_code == 1
    assert [failure.kind for failure in summary.failures] == ["refs"]
    assert crawl.rows("SELECT count(*) FROM repositories WHERE refs_synced_at IS NOT NULL") == [(ROWS - 1,)]


@pytest.mark.parametrize("lie", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("where", ["projects/P/repos", "projects/P/repos/r3/branches"])
def test_a_contradicting_listing_is_read_to_its_end(tmp_path: Path, lie: Lie, where: str) -> None:
    """Repeated rows are one, counts are ignored, and no page is skipped."""
    _, crawl = crawled(tmp_path, lie, where)
    summary = crawl.sync()
    assert (summary.state, summary.exit_code) == ("complete", 0)
    assert crawl.rows("SELECT count(*) FROM repositories") == [(ROWS,)]
    assert crawl.rows("SELECT count(*) FROM branches") == [(ROWS,)]


class Unsorted:
    """Ten repositories in pages of five; both pages list the same four unless it is `sorted`."""

    sorted = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        path = request.url.path
        if path != "/2.0/repositories/ws":
            return httpx.Response(200, json=WORKSPACE if path == "/2.0/workspaces/ws" else {"values": []})
        second = request.url.params.get("page") == "2"
        numbers = (0, 1, 2, 3, 4) if not second else (5, 6, 7, 8, 9) if self.sorted else (0, 1, 2, 3, 5)
        said: dict[str, Any] = {"pagelen": 5, "size": 10, "values": [row_of(each) for each in numbers]}
        return httpx.Response(200, json=said if second else said | {"next": f"{request.url}&page=2"})


WORKSPACE = {"type": "workspace", "slug": "ws", "name": "ws", "uuid": "{w}"}


def row_of(number: int) -> dict[str, Any]:
    return {
        "type": "repository", "uuid": f"{{{number}}}", "slug": f"r{number}", "name": f"r{number}",
        "full_name": f"ws/r{number}", "scm": "git", "is_private": False, "workspace": WORKSPACE,
        "owner": {"type": "team", "uuid": "{w}", "username": "ws"},
    }  # fmt: skip


def test_a_listing_whose_pages_repeat_rows_is_not_complete(tmp_path: Path) -> None:
    """Its total is reached by rows that came twice: others are missing, and not out of sight."""
    crawl = SyncHarness(
        "http://old.invalid", tmp_path / "mirror.db", Clock(), kind="cloud", secret=None, workspaces=("ws",),
        members=False, refs="none",
    )  # fmt: skip
    upstream = Unsorted()
    crawl.transport = httpx.MockTransport(upstream)
    summary = crawl.sync()
    assert summary.exit_code == 1
    assert "lists others twice and not 4 repositories" in str(summary)
    assert crawl.rows("SELECT count(*) FROM repositories") == [(6,)]
    upstream.sorted = True
    assert crawl.sync().exit_code == 0
    assert crawl.rows("SELECT count(*) FROM repositories") == [(10,)]
    upstream.sorted = False
    assert crawl.sync(full=True).exit_code == 0  # nothing is missing in the mirror
    assert crawl.rows("SELECT count(*) FROM repositories WHERE deleted_at IS NULL") == [(10,)]


class UnsortedRefs(Unsorted):
    """The same for the branches of one repository."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        if request.url.path == "/2.0/repositories/ws":
            return httpx.Response(200, json={"values": [row_of(0)], "size": 1})
        if not request.url.path.endswith("/refs"):
            return super().__call__(request)
        listed = super().__call__(httpx.Request("GET", request.url.copy_with(path="/2.0/repositories/ws")))
        said = listed.json()
        said["values"] = [
            {"type": "branch", "name": row["name"], "target": {"hash": "a" * 40}} for row in said["values"]
        ]
        if "next" in said:
            said["next"] = f"{request.url}&page=2"
        return httpx.Response(200, json=said)


def test_a_listing_of_refs_whose_pages_repeat_rows_deletes_none(tmp_path: Path) -> None:
    """Those that it does not name are still there."""
    crawl = SyncHarness(
        "http://old.invalid", tmp_path / "mirror.db", Clock(), kind="cloud", secret=None, workspaces=("ws",),
        members=False,
    )  # fmt: skip
    upstream = UnsortedRefs()
    upstream.sorted = True
    crawl.transport = httpx.MockTransport(upstream)
    assert crawl.sync().exit_code == 0
    assert crawl.rows("SELECT count(*) FROM branches") == [(10,)]
    upstream.sorted = False
    with Store(crawl.path) as store, store.transaction() as connection:
        connection.execute("UPDATE repositories SET refs_stale = 1")
    summary = crawl.sync()
    assert summary.exit_code == 1
    assert "lists refs twice, and 4 not" in str(summary)
    assert crawl.rows("SELECT count(*) FROM branches") == [(10,)]
    assert crawl.rows("SELECT count(*) FROM changes WHERE kind = 'branch_deleted'") == [(0,)]


def test_a_repository_listed_twice_by_api_1_0_is_one_row(tmp_path: Path) -> None:
    """There are no pages, so only the rows count."""
    row = {"slug": "a", "name": "a", "owner": "u", "scm": "git", "is_private": False}
    answers = {
        "/1.0/users/u/": {"user": {"username": "u"}, "repositories": [row, row, {**row, "slug": "b"}]},
        "/1.0/repositories/u/a/branches/": {},
        "/1.0/repositories/u/b/branches/": {},
    }

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers.get(request.url.path, {}))

    crawl = SyncHarness(
        "http://old.invalid", tmp_path / "mirror.db", Clock(), kind="legacy", url="http://old.invalid/1.0",
        secret=None, workspaces=("u",),
    )  # fmt: skip
    crawl.transport = httpx.MockTransport(handle)
    assert crawl.sync().exit_code == 0
    assert crawl.rows("SELECT full_name FROM repositories ORDER BY 1") == [("u/a",), ("u/b",)]


@pytest.mark.parametrize("kind", ["legacy", "datacenter", "sandbox"])
def test_names_of_a_workspace_that_lead_nowhere_end_in_a_failure(tmp_path: Path, kind: str) -> None:
    """Each name, or identity, is said to have another name, which is refused: nothing is asked for ever."""
    asked = list[str]()

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        assert len(asked) < 30
        name = f"name-{len(asked)}"
        body = {
            "legacy": {"user": {"username": name}},
            "datacenter": {"id": 7, "key": name, "name": "a", "type": "NORMAL"},
            "sandbox": {"uuid": "{8a3b0f3e-0000-4000-8000-000000000001}", "slug": name},
        }[kind]
        looks = "repos" not in request.url.path and "permissions" not in request.url.path
        is_first = kind != "legacy" or len(asked) % 2 == 1
        return httpx.Response(*((200,) if looks and is_first else (404,)), json=body)

    crawl = SyncHarness(
        "http://old.invalid", tmp_path / "mirror.db", Clock(), kind=kind, url="http://old.invalid",
        secret=None, workspaces=("u",), absence_brake=1.0,
    )  # fmt: skip
    crawl.transport = httpx.MockTransport(handle)
    summary = crawl.sync(confirm_absence=True)
    assert (summary.exit_code, [each.kind for each in summary.failures]) == (1, ["workspace"])
    assert "refuses that name" in summary.failures[0].error


def test_a_row_of_another_owner_is_a_failure_with_api_1_0_too(tmp_path: Path) -> None:
    """No later listing would tell that it became private, or is gone."""
    row = {"slug": "a", "name": "a", "owner": "U", "scm": "git", "is_private": False}
    listed = {"user": {"username": "u"}, "repositories": [row, {**row, "owner": "other"}]}
    crawl = SyncHarness(
        "http://old.invalid", tmp_path / "mirror.db", Clock(), kind="legacy", url="http://old.invalid/1.0",
        secret=None, workspaces=("u",), refs="none",
    )  # fmt: skip
    crawl.transport = httpx.MockTransport(lambda _: httpx.Response(200, json=listed))
    summary = crawl.sync()
    assert [(each.kind, each.subject) for each in summary.failures] == [("row", "u: other/a")]
    assert crawl.rows("SELECT full_name FROM repositories") == [("U/a",)]


def test_a_name_of_api_1_0_that_leads_to_another_one_is_gone(tmp_path: Path) -> None:
    """Strangers would see the refs of what is private by its new name as those of the public old one."""
    old = {"slug": "old", "name": "old", "owner": "u", "scm": "git", "is_private": False}
    new, commit = {**old, "slug": "new", "is_private": True}, {"raw_node": "a" * 40}
    listed, refs = [old], {"main": commit}

    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if "/old/" in path and new in listed:
            return httpx.Response(301, headers={"Location": path.replace("/old/", "/new/")})
        if path == "/1.0/users/u/":
            return httpx.Response(200, json={"user": {"username": "u"}, "repositories": listed})
        bodies = {"branches": refs, "tags": {}}
        return httpx.Response(200, json=bodies.get(path.split("/")[-2], listed[-1]))

    crawl = SyncHarness(
        "http://old.invalid", tmp_path / "mirror.db", Clock(), kind="legacy", url="http://old.invalid/1.0",
        secret=None, workspaces=("u",), absence_brake=1.0,
    )  # fmt: skip
    crawl.transport = httpx.MockTransport(handle)
    assert crawl.sync().state == "complete"
    listed[:] = [new]
    refs["top-secret"] = commit
    assert crawl.sync(full=True, later=90_000).state == "complete"
    assert crawl.gone() == {"u/old": "no longer visible"}
    sql = "SELECT r.slug, b.name FROM branches b JOIN repositories r ON r.id = b.repository_id ORDER BY 1, 2"
    assert crawl.rows(sql) == [("new", "main"), ("new", "top-secret"), ("old", "main")]


def test_a_repository_of_api_1_0_is_deleted_though_another_owner_fails(tmp_path: Path) -> None:
    """Its name is its identity: what the other one has by now cannot be the same repository."""
    row = {"slug": "a", "owner": "u", "scm": "git", "is_private": False}
    listed = {"user": [], "u": [row, {**row, "slug": "b"}], "v": []}

    def handle(request: httpx.Request) -> httpx.Response:
        name = request.url.path.split("/")[-2]
        body = {"user": {"username": name}, "repositories": listed.get(name)}
        return httpx.Response(200 if name in listed else 404, json=body)

    crawl = SyncHarness(
        "http://old.invalid", tmp_path / "mirror.db", Clock(), kind="legacy", url="http://old.invalid/1.0",
        workspaces=("u", "v"), refs="none",
    )  # fmt: skip
    crawl.transport = httpx.MockTransport(handle)
    assert crawl.sync().state == "complete"
    listed["u"].pop()
    del listed["v"]
    assert crawl.sync().exit_code == 1
    assert crawl.gone() == {"u/b": "deleted"}


def rows_of(kind: str, *names: str, **said: Any) -> Page[Any]:
    """Make a page of a listing, which does not tell its size."""
    make: dict[str, Callable[[str], Any]] = {
        "repositories": lambda name: repository(f"o/{name}", **said),
        "owners": lambda name: owner(name, **said),
        "members": lambda name: Member(user=owner(name, **said)),
        "refs": lambda name: Ref(kind="branch", name=name, target_hash="a", target_message=str(said)),
    }
    return Page(rows=tuple(map(make[kind], names)), next=f"https://x/{said}", size=None, date=utc_now())


@pytest.mark.parametrize("kind", ["repositories", "owners", "members", "refs"])
def test_a_page_repeats_the_one_before_also_where_its_rows_have_changed(kind: str) -> None:
    """The rows are the same by their identity; other names, or another order, make another page."""
    landmark = next_landmark(rows_of(kind, "a", "b"), asked=None, landmark=None, pages=1)
    for number, names in enumerate(("bc", "c", "cb"), 2):
        following = rows_of(kind, *names, avatar_url=str(number))
        landmark = next_landmark(following, asked=None, landmark=landmark, pages=number)
    with pytest.raises(UpstreamShapeError, match="repeats"):
        next_landmark(rows_of(kind, *"cb", avatar_url="new"), asked=None, landmark=landmark, pages=5)


def test_a_listing_that_a_former_version_began_goes_on() -> None:
    """Its numbers are those of no page; from the next page on, repeated ones are recognised."""
    saved, found = Landmark(link="https://x", rows=7, last=7), rows_of("repositories", "a", "b")
    landmark = next_landmark(found, asked="https://x/5", landmark=saved, pages=5)
    assert (landmark.rows, landmark.idle) == (7, 0)
    with pytest.raises(UpstreamShapeError, match="repeats"):
        next_landmark(rows_of("repositories", "a", "b", size=2), asked=None, landmark=landmark, pages=6)
