"""Unread refs are never served as "there are none", nor taken so by a mirror of the mirror."""

import io
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from cli_runner import Folder
from fixtures_db import (
    JESPERN,
    LATER,
    PISTON_REFS,
    SEEN,
    FixtureDb,
    hg_ref,
    owner,
    repository,
)
from live_server import serving

from mirror.cli.printer import Printer
from mirror.cli.status import print_status
from mirror.config import Config, UpstreamConfig
from mirror.operations import Control, SyncOptions, sync_all
from mirror.queries.inventory import inventory_page
from mirror.queries.repositories import repository_details
from mirror.queries.status import RefCounts, read_status, ref_counts_of
from mirror.queries.visibility import ANONYMOUS, OPERATOR, Caller
from mirror.report import Summary
from mirror.store import Store
from mirror.store.files import open_reader
from mirror.store.repositories import Look
from mirror.store.runs import Failure, Failures
from mirror.times import from_text, utc_now

UNREAD = repository("jespern/unread", JESPERN)
HIDDEN = repository("jespern/hidden", JESPERN, is_private=True)
READ = repository("jespern/read", JESPERN)
EMPTY = repository("jespern/empty", JESPERN, main_branch=None)
OF_REFS = (
    "1.0/repositories/{}/tags",
    "1.0/repositories/{}/branches",
    "1.0/repositories/{}/branches-tags",
    "2.0/repositories/{}/refs",
    "2.0/repositories/{}/refs/branches",
    "2.0/repositories/{}/refs/branches/master",
    "2.0/repositories/{}/refs/tags",
    "2.0/repositories/{}/refs/tags/v1.0",
)
REFS = (hg_ref("branch", "master", "a"), hg_ref("tag", "v1.0", "b"))


def fill(path: Path, refs: str = "api") -> FixtureDb:
    """One repository with read refs, one known to have none, two with unread refs."""
    filled = FixtureDb(path)
    filled.store.save_upstream("cloud", "cloud", "https://api.example.com/2.0", refs=refs)
    filled.store.save_page(
        filled.upstream_id,
        (UNREAD, HIDDEN, READ, EMPTY),
        Look(SEEN, with_refs=refs != "none", first_listing=True),
    )
    filled.refs("jespern/read", REFS)
    filled.refs("jespern/empty", ())
    return filled


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FixtureDb]:
    made = fill(tmp_path / "mirror.db")
    yield made
    made.store.close()


@pytest.fixture
def served(filled: FixtureDb) -> AsgiClient:
    return client_of(filled.store.path)


@pytest.mark.parametrize("path", OF_REFS)
def test_refs_that_were_never_read_are_503(served: AsgiClient, path: str) -> None:
    """With Retry-After and a plain message, at every address of refs."""
    for method in ("GET", "HEAD"):
        answer = served(method, "/" + path.format("jespern/unread"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["x-mirror-refs"] == "not read yet"
        assert "x-mirror-synced-at" not in answer.headers
    error = served.get("/" + path.format("jespern/unread")).json()["error"]
    assert error["message"] == "The branches and tags of jespern/unread have not been read yet"


@pytest.mark.parametrize("path", OF_REFS)
def test_refs_that_were_read_are_served(served: AsgiClient, path: str) -> None:
    """Also an empty list, for a repository known to have none."""
    assert served.get("/" + path.format("jespern/read")).status_code == 200
    status = served.get("/" + path.format("jespern/empty")).status_code
    assert status == (404 if path.endswith(("master", "v1.0")) else 200)


@pytest.mark.parametrize("refs", ["api", "none"])
@pytest.mark.parametrize("path", OF_REFS)
def test_visibility_is_checked_before_unread_refs(tmp_path: Path, path: str, refs: str) -> None:
    """A hidden repository answers like a missing one, read or not; a token sees the difference."""
    filled = fill(tmp_path / "mirror.db", refs)
    token, served = make_tokens(filled.store)["read"], client_of(filled.store.path)
    hidden = served.get("/" + path.format("jespern/hidden"))
    missing = served.get("/" + path.format("jespern/nowhere"))
    assert hidden.status_code in (403, 404)
    assert missing.status_code == 404
    for answer in (hidden, missing):
        assert "retry-after" not in answer.headers
        assert "x-mirror-refs" not in answer.headers
    shown = served.get("/" + path.format("jespern/hidden"), headers=bearer(token))
    assert shown.status_code == (501 if refs == "none" else 503)


@pytest.mark.parametrize("path", OF_REFS)
def test_refs_that_are_not_mirrored_are_501(tmp_path: Path, path: str) -> None:
    """With their address in API 2.0; refs that were read before that setting are still served."""
    served = client_of(fill(tmp_path / "mirror.db", "none").store.path)
    answer = served.get("/" + path.format("jespern/unread"))
    assert answer.status_code == 501
    error = answer.json()["error"]
    version, _, place = path.format("jespern/unread").partition("/")
    if version == "1.0":
        place, _, name = place.rpartition("/")
        place += "/refs" if name == "branches-tags" else f"/refs/{name}"
    address = f"https://api.example.com/2.0/{place}"
    assert error["message"] == f"This mirror holds no branches and tags; ask {address}"
    assert error["data"] == {"upstream": address}
    assert "retry-after" not in answer.headers
    assert served.get("/" + path.format("jespern/read")).status_code == 200


def test_the_main_branch_is_named_before_refs_are_read(filled: FixtureDb, served: AsgiClient) -> None:
    """As the listing reported it; without one, only read refs prove that a repository is empty."""
    assert served.json("/1.0/repositories/jespern/unread/main-branch") == {"name": "master"}
    assert served.json("/2.0/repositories/jespern/unread")["mainbranch"]["name"] == "master"
    assert served.get("/1.0/repositories/jespern/empty/main-branch").status_code == 404
    filled.repositories((repository("jespern/untold", JESPERN, main_branch=None),))
    assert served.get("/1.0/repositories/jespern/untold/main-branch").status_code == 503


def test_an_unfinished_listing_of_refs_is_not_served(filled: FixtureDb, served: AsgiClient) -> None:
    """Only the first page of refs is in the file."""
    filled.store.connection.execute(
        "INSERT INTO branches (repository_id, name, target_hash) VALUES (?, 'master', ?)",
        (filled.id_of("jespern/unread"), "a" * 40),
    )
    for path in OF_REFS:
        assert served.get("/" + path.format("jespern/unread")).status_code == 503


def test_refs_that_were_read_once_stay_served(filled: FixtureDb, served: AsgiClient) -> None:
    """With their age: after a later failure, and a renaming."""
    failure = Failure("refs", HIDDEN.uuid, "answered 500", filled.id_of("jespern/read"), 500)
    with filled.store.transaction() as connection:
        Failures(connection, filled.upstream_id).save(failure, from_text(LATER))
    filled.repositories((repository("jespern/renamed", JESPERN, uuid=READ.uuid),), at=LATER)
    answer = served.get("/2.0/repositories/jespern/renamed/refs")
    assert [ref["name"] for ref in answer.json()["values"]] == ["master", "v1.0"]
    assert answer.headers["x-mirror-synced-at"] == SEEN


@pytest.mark.parametrize("path", [*OF_REFS, "rest/api/latest/projects/jespern/repos/{}/branches"])
def test_refs_of_the_private_time_are_hidden_until_they_are_read_again(
    filled: FixtureDb, served: AsgiClient, path: str
) -> None:
    """From strangers, to whom they count as not read; a token sees them."""
    path = path.format("shown" if path.startswith("rest") else "jespern/shown")
    filled.refs("jespern/hidden", REFS)
    filled.repositories((repository("jespern/shown", JESPERN, uuid=HIDDEN.uuid),), at=LATER)
    reader = make_tokens(filled.store)["read"]
    assert served.get(f"/{path}").status_code == 503
    assert served.get(f"/{path}", headers=bearer(reader)).status_code == 200
    page = served.get("/-/r/jespern/shown")
    assert page.status_code == 200
    assert ">v1.0<" not in page.text
    filled.refs("jespern/shown", REFS, at=LATER)
    assert served.get(f"/{path}").status_code == 200
    assert ">v1.0<" in served.get("/-/r/jespern/shown").text


def test_refs_of_the_private_time_are_not_counted(filled: FixtureDb) -> None:
    """For strangers, until they are read again."""
    filled.refs("jespern/hidden", REFS)
    filled.repositories((repository("jespern/shown", JESPERN, uuid=HIDDEN.uuid),), at=LATER)
    connection = filled.store.connection
    assert ref_counts_of(connection, ANONYMOUS) == RefCounts(branches=1, tags=1)
    assert ref_counts_of(connection, OPERATOR) == RefCounts(branches=2, tags=2)
    filled.refs("jespern/shown", REFS, at=LATER)
    assert ref_counts_of(connection, ANONYMOUS) == RefCounts(branches=2, tags=2)


def test_the_inventory_tells_no_refs_of_the_private_time(filled: FixtureDb) -> None:
    """Neither numbers nor the last commit, until the refs are read again."""
    filled.refs("jespern/hidden", REFS)
    filled.repositories((repository("jespern/shown", JESPERN, uuid=HIDDEN.uuid),), at=LATER)

    def told(caller: Caller) -> list[object]:
        lines = inventory_page(filled.store.connection, caller).lines
        return [
            (line.branches, line.tags, line.last_push is None, line.last_author is None)
            for line in lines
            if line.slug == "shown"
        ]

    assert told(ANONYMOUS) == [(None, None, True, True)]
    assert told(OPERATOR) == [(1, 1, False, False)]
    filled.refs("jespern/shown", REFS, at=LATER)
    assert told(ANONYMOUS) == told(OPERATOR) == [(1, 1, False, False)]


def synced(
    path: Path,
    address: str,
    *,
    token: str | None = None,
    workspaces: tuple[str, ...] = ("jespern",),
    after: timedelta = timedelta(),
) -> Summary:
    """Sync a copy from a served mirror, some time later."""
    (path.parent / "token").write_text(token or "")
    upstream = UpstreamConfig(
        name="other",
        kind="cloud",
        url=f"{address}/2.0",
        workspaces=workspaces,
        credential=f"file:{path.parent / 'token'}" if token else None,
    )
    (summary,) = sync_all(
        Config(database=str(path), upstreams=(upstream,)),
        SyncOptions(may_wait=False),
        Control(clock=lambda: utc_now() + after),
    )
    return summary


def refs_of(path: Path) -> set[tuple[str, str]]:
    """List what a copy holds."""
    with Store(path) as store:
        rows = store.rows(
            """SELECT r.full_name, x.name FROM repositories r JOIN
               (SELECT repository_id, name FROM branches UNION ALL SELECT repository_id, name FROM tags) x
               ON x.repository_id = r.id"""
        )
    return {(row[0], row[1]) for row in rows}


def test_a_mirror_of_a_mirror_is_complete_later(filled: FixtureDb, tmp_path: Path) -> None:
    """It waits for no single repository, takes none for empty, and has all once the first one has."""
    filled.repositories((repository("others/one", owner("others")),))
    filled.refs("others/one", REFS)
    copy, both = tmp_path / "copy.db", ("jespern", "others")
    with serving(filled.store.path) as address:
        first = synced(copy, address, workspaces=both)
        assert (first.state, first.counts.retries) == ("incomplete", 0)
        assert [failure.kind for failure in first.failures] == ["refs"]
        assert "jespern/unread have not been read yet" in first.failures[0].error
        assert {name for name, _ in refs_of(copy)} == {"jespern/read", "others/one"}
        filled.refs("jespern/unread", PISTON_REFS)
        later = synced(copy, address, workspaces=both, after=timedelta(seconds=61))
        assert (later.state, later.failures) == ("complete", [])
    assert ("jespern/unread", "0.2.1") in refs_of(copy)


LISTS_OF_REFS = (
    "1.0/repositories/jespern/{}/tags",
    "1.0/repositories/jespern/{}/branches",
    "2.0/repositories/jespern/{}/refs",
    "rest/api/latest/projects/jespern/repos/{}/branches",
    "rest/api/latest/projects/jespern/repos/{}/tags",
)


@pytest.mark.parametrize("path", LISTS_OF_REFS)
def test_lists_of_refs_say_that_they_may_have_changed(
    filled: FixtureDb, served: AsgiClient, path: str
) -> None:
    """For mirrors of the mirror; and that strangers do not see them, since they are of a private time."""
    reader = make_tokens(filled.store)["read"]
    filled.refs("jespern/hidden", REFS)
    filled.repositories((repository("jespern/shown", JESPERN, uuid=HIDDEN.uuid),), at=LATER)

    def told(slug: str) -> str:
        headers = served.get("/" + path.format(slug), headers=bearer(reader)).headers
        return str(headers.get("x-mirror-refs", ""))

    assert (told("read"), told("shown")) == ("", "not public")
    filled.store.connection.execute("UPDATE repositories SET refs_stale = 1")
    assert told("read") == "out of date"


def test_a_copy_reads_refs_again_once_the_other_mirror_has(filled: FixtureDb, tmp_path: Path) -> None:
    """Of a repository that the other one had listed with an update, and not read yet."""
    copy = tmp_path / "copy.db"
    filled.refs("jespern/unread", REFS)
    filled.repositories((repository("jespern/read", JESPERN, updated_at=LATER),), at=LATER)
    with serving(filled.store.path) as address:
        first = synced(copy, address)
        assert first.state == "incomplete"
        assert [failure.error for failure in first.failures] == [
            "jespern/read: the other mirror has to read them again: they may have changed since"
        ]
        assert ("jespern/read", "v1.0") in refs_of(copy)
        filled.refs("jespern/read", PISTON_REFS, at=LATER)
        later = synced(copy, address, after=timedelta(seconds=61))
        assert (later.state, later.failures) == ("complete", [])
    assert ("jespern/read", "0.2.1") in refs_of(copy)


def test_a_copy_takes_no_refs_of_a_private_time(filled: FixtureDb, tmp_path: Path) -> None:
    """Its strangers would see what the other mirror hides from its own."""
    copy, token = tmp_path / "copy.db", make_tokens(filled.store)["read"]
    filled.refs("jespern/unread", REFS)
    filled.refs("jespern/hidden", REFS)
    filled.repositories((repository("jespern/shown", JESPERN, uuid=HIDDEN.uuid),), at=LATER)
    with serving(filled.store.path) as address:
        first = synced(copy, address, token=token)
        assert ["was private" in failure.error for failure in first.failures] == [True]
        assert "jespern/shown" not in {name for name, _ in refs_of(copy)}
        filled.refs("jespern/shown", PISTON_REFS, at=LATER)
        assert synced(copy, address, token=token, after=timedelta(seconds=61)).state == "complete"
    assert ("jespern/shown", "0.2.1") in refs_of(copy)


def test_a_copy_looks_back_to_when_the_other_mirror_looked(filled: FixtureDb, tmp_path: Path) -> None:
    """What that one learns later has dates of before the copy's last sync."""
    filled.refs("jespern/unread", REFS)
    with serving(filled.store.path) as address:
        assert synced(tmp_path / "copy.db", address).state == "complete"
    with Store(tmp_path / "copy.db") as store:
        states = [json.loads(row[0]) for row in store.rows("SELECT value FROM cursors")]
    (cursor,) = [state["cursor"] for state in states if isinstance(state, dict) and state.get("cursor")]
    assert from_text(SEEN) - timedelta(seconds=3) < from_text(cursor) <= from_text(SEEN)


def test_a_mirror_of_one_without_refs_says_what_to_set(tmp_path: Path) -> None:
    """Once for each repository, without repeats."""
    filled = fill(tmp_path / "mirror.db", "none")
    with serving(filled.store.path) as address:
        summary = synced(tmp_path / "copy.db", address)
    assert (summary.state, summary.counts.retries) == ("incomplete", 0)
    assert 'refs = "none"' in summary.failures[0].error


def test_pages_say_that_refs_were_not_read(filled: FixtureDb, served: AsgiClient) -> None:
    """Instead of a list or a number; also in totals, among changes and in the feed."""
    page = served.get("/-/r/jespern/unread").text
    assert page.count("They have not been read yet.") == 2
    assert "There are none." not in page
    assert served.get("/-/r/jespern/empty").text.count("There are none.") == 2
    assert "Branches and tags of 1 repository have not been read yet." in served.get("/").text
    filled.repositories((repository("jespern/new", JESPERN),), at=LATER)
    assert "(branches and tags not read yet)" in served.get("/-/changes").text
    assert "branches and tags: not read yet" in served.get("/-/changes.atom").text


def test_pages_say_why_refs_were_never_read(tmp_path: Path) -> None:
    """Of a tombstone, refs were never read; a mirror without refs says so."""
    filled = fill(tmp_path / "mirror.db")
    filled.gone("jespern/unread")
    assert client_of(filled.store.path).get("/-/r/jespern/unread").text.count("They were never read.") == 2
    bare = client_of(fill(tmp_path / "bare.db", "none").store.path)
    assert bare.get("/-/r/jespern/unread").text.count("This mirror holds no branches and tags.") == 2
    assert "no branches and tags are mirrored" in bare.get("/").text


@pytest.mark.parametrize(
    ("refs", "gone", "said"),
    [("api", False, "not read yet"), ("api", True, "never read"), ("none", False, "not mirrored")],
)
def test_one_repository_says_whether_its_refs_were_read(
    tmp_path: Path, refs: str, gone: bool, said: str
) -> None:
    """The lists are null until then, and another field says why."""
    filled = fill(tmp_path / "mirror.db", refs)
    if gone:
        filled.gone("jespern/unread")
    with closing(open_reader(filled.store.path)) as connection:
        unread = repository_details(connection, OPERATOR, "jespern/unread")
        empty = repository_details(connection, OPERATOR, "jespern/empty")
    assert unread is not None
    assert empty is not None
    assert (unread.row.refs, unread.branches, unread.tags) == (said, None, None)
    assert (empty.row.refs, empty.branches, empty.tags) == ("read", [], [])


def test_show_says_whether_refs_were_read(filled: FixtureDb, tmp_path: Path) -> None:
    """In words, instead of the lists."""
    filled.store.close()
    (tmp_path / "mirror.toml").write_text('database = "mirror.db"\n')
    shown = Folder(tmp_path).run("show", "jespern/unread").out
    assert "branches: not read yet\ntags: not read yet\n" in shown


def test_stored_queries_leave_unread_repositories_out(filled: FixtureDb, served: AsgiClient) -> None:
    """Or say so: no query calls such a repository empty, or without tags."""
    filled.gone("jespern/hidden")
    filled.store.connection.execute("UPDATE repositories SET is_private = 0, name = slug")
    for question in ("empty_repositories", "without_tags", "most_branches", "newest_tags"):
        found = served.json(f"/mirror/{question}.json?owner=jespern&days=&_shape=objects")["rows"]
        assert "jespern/unread" not in {row["full_name"] for row in found}, question
    (row,) = served.json("/mirror/tags_of_a_name.json?name=jespern/unread&_shape=objects")["rows"]
    assert (row["tag"], row["read_at"]) == (None, "not read yet")
    assert served.json("/mirror/tags_of_a_name.json?name=jespern/empty&_shape=objects")["rows"] == []
    (gone,) = served.json("/mirror/gone.json?owner=&_shape=objects")["rows"]
    assert gone["tags_kept"] is None
    fresh = served.json("/mirror/freshness.json?_shape=objects")["rows"]
    assert {row["full_name"]: row["refs"] for row in fresh} == {
        "jespern/unread": "not read yet",
        "jespern/read": "read",
        "jespern/empty": "read",
    }


def test_status_counts_unread_repositories(filled: FixtureDb) -> None:
    """Beside the numbers of branches and tags, which are no totals until then."""
    (status,) = read_status(filled.store.connection, utc_now())
    assert (status.refs, status.refs_unread, status.branches) == ("api", 2, 1)
    out = io.StringIO()
    print_status(Printer(out), [status], utc_now())
    assert "branches and tags of 2 repositories were not read yet" in out.getvalue()
