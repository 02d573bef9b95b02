"""The same writes to the other kinds of upstream: what Data Center and API 1.0 are sent, and answer."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

import httpx
import pytest
from prepared_files import copy_empty
from upstream_fakes import Script, answer

from mirror.config import Config, UpstreamConfig, UpstreamKind
from mirror.errors import OutcomeUnknown, UpstreamBusy, UpstreamError, UpstreamRefused
from mirror.model import RepositorySettings
from mirror.store import Store
from mirror.store.repositories import Look
from mirror.times import to_text, utc_now
from mirror.write import PassThrough

PROJECT = {"id": 7, "key": "PRJ", "name": "Project", "type": "NORMAL"}


def on_server(slug: str, number: int = 1, **said: Any) -> dict[str, Any]:
    """A repository as Data Center sends it."""
    fields = {"id": number, "slug": slug, "name": slug, "scmId": "git", "public": False, "forkable": True}
    return {**fields, "project": PROJECT, **said}


def of_old(slug: str, **said: Any) -> dict[str, Any]:
    """A repository as API 1.0 sends it."""
    fields = {"owner": "jespern", "slug": slug, "name": slug, "scm": "hg", "is_private": True}
    return {**fields, "resource_uri": f"/1.0/repositories/jespern/{slug}", **said}


class Wired:
    """A mirror with one upstream that gives prepared answers."""

    def __init__(
        self,
        path: Path,
        kind: UpstreamKind,
        owner: str,
        answers: tuple[httpx.Response, ...],
        refs: Literal["api", "none"] = "none",
    ) -> None:
        self.path = path / "mirror.db"
        copy_empty(self.path)
        upstream = UpstreamConfig(
            name="u",
            kind=kind,
            url="https://code.example.com",
            workspaces=(owner,),
            credential="env:T",
            refs=refs,
        )
        self.server = Script(answers)
        self.writes = PassThrough(
            Config(database=str(self.path), upstreams=(upstream,)),
            environ={"T": "jespern:secret-of-his"},
            sleep=lambda _: None,
            transport=httpx.MockTransport(self.server),
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the mirror."""
        with Store(self.path) as store:
            return [tuple(row) for row in store.rows(sql)]

    def sent(self) -> list[tuple[str, str, Any]]:
        """Return the requests: method, path, body."""
        return [(asked.method, asked.url.path, _body(asked)) for asked in self.server.asked]


def _body(asked: httpx.Request) -> Any:
    if not asked.content:
        return None
    if "form" in asked.headers["content-type"]:
        return dict(parse_qsl(asked.content.decode()))
    return json.loads(asked.content)


@pytest.fixture
def server(tmp_path: Path) -> Callable[..., Wired]:
    """Make a mirror of a Data Center."""
    return lambda *answers: Wired(tmp_path, "datacenter", "PRJ", answers)


@pytest.fixture
def old(tmp_path: Path) -> Callable[..., Wired]:
    """Make a mirror of a server that speaks API 1.0."""
    return lambda *answers: Wired(tmp_path, "legacy", "jespern", answers)


REPOS = "/rest/api/1.0/projects/PRJ/repos"


def test_a_data_center_repository_is_written(server: Callable[..., Wired]) -> None:
    """Workspaces are projects, private is `public: false`, addresses have names, identities are numbers."""
    wired = server(
        answer(on_server("new-idea", name="New Idea"), 201),
        answer(on_server("new-idea", name="New Idea")),
        answer(on_server("better", name="Better", public=True, forkable=False)),
        answer(on_server("better", name="Better", public=True, forkable=False)),
        answer(on_server("better", name="Better")),
        answer(on_server("copy", 2, origin=on_server("better")), 201),
        answer(on_server("better", name="Better")),
        answer({"context": None, "message": "Repository scheduled for deletion."}, 202),
    )
    wired.writes.create("prj", RepositorySettings(name="New Idea", is_private=True, website=""), by="x")
    settings = RepositorySettings(name="Better", is_private=False, fork_policy="no_forks")
    wired.writes.update("PRJ/new-idea", settings, by="x")
    wired.writes.fork("PRJ/better", "PRJ", RepositorySettings(name="copy"), by="x")
    wired.writes.delete("PRJ/better", by="x")
    assert wired.sent() == [
        ("POST", REPOS, {"name": "New Idea", "scmId": "git", "public": False}),
        ("GET", f"{REPOS}/new-idea", None),
        ("PUT", f"{REPOS}/new-idea", {"name": "Better", "public": True, "forkable": False}),
        ("GET", f"{REPOS}/better", None),  # as a stranger
        ("GET", f"{REPOS}/better", None),
        ("POST", f"{REPOS}/better", {"name": "copy", "project": {"key": "PRJ"}, "public": False}),
        ("GET", f"{REPOS}/better", None),
        ("DELETE", f"{REPOS}/better", None),
    ]
    assert wired.rows("SELECT uuid, full_name, is_private, gone_reason FROM repositories ORDER BY id") == [
        ("id:1", "PRJ/better", 0, "deleted"),
        ("id:2", "PRJ/copy", 1, None),
    ]
    assert wired.rows("SELECT parent_id FROM repositories WHERE uuid = 'id:2'") == [(1,)]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_what_was_written_is_private_unless_strangers_see_it(
    server: Callable[..., Wired], status: int
) -> None:
    """It is done, whatever the request without a credential returns."""
    wired = server(answer(on_server("idea", public=True), 201), answer({}, status))
    wired.writes.create("PRJ", RepositorySettings(name="idea", is_private=False), by="x")
    assert wired.rows("SELECT is_private FROM repositories") == [(1,)]


@pytest.mark.parametrize(("listed", "names"), [("before", ["Better"]), ("after", ["idea"])])
def test_a_listing_that_began_before_a_write_does_not_undo_it(
    server: Callable[..., Wired], listed: str, names: list[str]
) -> None:
    """Data Center does not tell when a repository was updated."""
    better = on_server("better", name="Better")
    wired = server(answer(on_server("idea"), 201), answer(on_server("idea")), answer(better))
    made = wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    before = to_text(utc_now())
    wired.writes.update("PRJ/idea", RepositorySettings(name="Better"), by="x")
    with Store(wired.path) as store:
        now = to_text(utc_now())
        since = before if listed == "before" else now
        store.save_page(1, [made], Look(now, listed_since=since))
    assert wired.rows("SELECT name FROM repositories") == [(name,) for name in names]


@pytest.mark.parametrize("is_private", [True, False])
def test_a_page_that_contradicts_a_write_about_privacy_hides_the_repository(
    server: Callable[..., Wired], *, is_private: bool
) -> None:
    """It may be older or newer: nothing else of it is written, and the upstream is asked."""
    idea, better = on_server("idea", public=is_private), on_server("better", public=not is_private)
    shown = [answer(idea if is_private else better)]
    wired = server(
        answer(idea, 201),
        *shown * is_private,
        answer(idea),
        *shown * is_private,
        answer(better),
        *shown * (not is_private),
    )
    before = to_text(utc_now())
    made = wired.writes.create("PRJ", RepositorySettings(name="idea", is_private=not is_private), by="x")
    assert made.is_private is not is_private
    wired.writes.update("PRJ/idea", RepositorySettings(name="better", is_private=is_private), by="x")
    with Store(wired.path) as store:
        store.save_page(1, [made], Look(to_text(utc_now()), listed_since=before))
    assert wired.rows("SELECT full_name, is_private FROM repositories") == [("PRJ/better", 1)]
    assert wired.rows("SELECT count(*) FROM cursors WHERE stream LIKE 'marked:%'") == [(1,)]


def test_an_answer_about_another_repository_is_not_believed(server: Callable[..., Wired]) -> None:
    """The one that was to be updated is not marked as gone."""
    idea = on_server("idea")
    wired = server(answer(idea, 201), answer(idea), answer(on_server("other", 2)), answer(idea))
    wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    with pytest.raises(OutcomeUnknown, match="about another repository, PRJ/other"):
        wired.writes.update("PRJ/idea", RepositorySettings(description="new"), by="x")
    assert wired.rows("SELECT full_name, deleted_at FROM repositories") == [("PRJ/idea", None)]


def test_data_center_keeps_names_apart(server: Callable[..., Wired]) -> None:
    """A name that belongs to another repository by now is not written to."""
    wired = server(answer(on_server("idea"), 201), answer(on_server("idea", 99)))
    wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    with pytest.raises(UpstreamRefused, match="is id:99 now"):
        wired.writes.delete("PRJ/idea", by="x")
    assert [method for method, _, _ in wired.sent()] == ["POST", "GET"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (RepositorySettings(description="told"), None),
        (RepositorySettings(description="told", website=""), "does not report website"),
        (RepositorySettings(description="lost", website=""), "has not been done so far"),
        (RepositorySettings(has_wiki=False), "does not report has_wiki"),
        (RepositorySettings(fork_policy="no_forks"), "does not report fork_policy"),
    ],
)
def test_a_lost_answer_is_judged_by_what_data_center_returns(
    server: Callable[..., Wired], settings: RepositorySettings, error: str | None
) -> None:
    """The outcome is known as far as the server reports the settings."""
    told = on_server("idea", description="told", forkable=None)
    wired = server(answer(told, 201), answer(told), answer(None, 504), answer(told))
    wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    with pytest.raises(OutcomeUnknown, match=error) if error else nullcontext():
        wired.writes.update("PRJ/idea", settings, by="x")
    outcome = "unknown" if error else "done"
    assert wired.rows("SELECT outcome FROM writes ORDER BY id") == [("done",), (outcome,)]


def test_a_renamed_data_center_repository_is_not_called_deleted(server: Callable[..., Wired]) -> None:
    """Only its name could be requested, and that is the new one's: the next listing tells what it became."""
    wired = server(answer(on_server("idea"), 201), answer(on_server("idea", 2), 201))
    for _ in range(2):
        wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    assert wired.rows("SELECT uuid, deleted_at FROM repositories") == [("id:1", None), ("id:2", None)]
    assert wired.rows("SELECT kind, new FROM changes") == [("created", "PRJ/idea")] * 2
    assert len(wired.sent()) == 2


def test_a_lost_answer_to_a_delete_is_not_settled_by_a_namesake(server: Callable[..., Wired]) -> None:
    """Another repository has the name by now; the one that was to be deleted may have moved."""
    there = answer(on_server("idea"))
    wired = server(answer(on_server("idea"), 201), there, answer(None, 504), answer(on_server("idea", 2)))
    wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    with pytest.raises(OutcomeUnknown, match="PRJ/idea is id:2 now, no longer id:1"):
        wired.writes.delete("PRJ/idea", by="x")
    assert wired.rows("SELECT deleted_at FROM repositories") == [(None,)]


@pytest.mark.parametrize("fork", [False, True])
def test_a_data_center_repository_of_unknown_age_is_not_called_new(
    server: Callable[..., Wired], *, fork: bool
) -> None:
    """It may have been there before the write, with other settings than were asked for."""
    parent = on_server("idea")
    there = on_server("copy", 2, public=True, **({"origin": parent} if fork else {}))
    wired = server(answer(parent, 201), *[answer(parent)] * fork, answer(None, 504), *[answer(there)] * 2)
    wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    settings = RepositorySettings(name="copy", is_private=True)
    write = partial(wired.writes.fork, "PRJ/idea") if fork else wired.writes.create
    with pytest.raises(OutcomeUnknown, match="there is PRJ/copy, and u does not say since when"):
        write("PRJ", settings, by="x")
    assert wired.rows("SELECT full_name FROM repositories") == [("PRJ/idea",)]
    assert wired.rows("SELECT outcome FROM writes") == [("done",), ("unknown",)]


@pytest.mark.parametrize(("name", "error"), [("plain.n_1", UpstreamBusy), ("a - b", OutcomeUnknown)])
def test_a_missing_address_proves_nothing_if_the_server_chooses_it(
    server: Callable[..., Wired], name: str, error: type[UpstreamError]
) -> None:
    """Data Center makes slugs by rules of its own, except of names that are slugs."""
    wired = server(answer(None, 500), answer({}, 404))
    with pytest.raises(error):
        wired.writes.create("PRJ", RepositorySettings(name=name), by="x")
    assert len(wired.sent()) == 2


def test_an_address_that_the_server_would_not_give_is_refused(server: Callable[..., Wired]) -> None:
    """The repository would be at another one than was asked for."""
    wired = server()
    with pytest.raises(UpstreamRefused, match="'New Idea' cannot be at PRJ/other"):
        wired.writes.create("PRJ", RepositorySettings(name="New Idea"), slug="other", by="x")
    assert wired.sent() == []


def test_a_data_center_forks_no_namesake(server: Callable[..., Wired]) -> None:
    """Addresses have names there: one that belongs to another repository by now is not forked."""
    wired = server(answer(on_server("idea"), 201), answer(on_server("idea", 2)))
    wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    with pytest.raises(UpstreamRefused, match="no longer id:1"):
        wired.writes.fork("PRJ/idea", "PRJ", RepositorySettings(name="copy"), by="x")
    assert [method for method, _, _ in wired.sent()] == ["POST", "GET"]


def test_a_data_center_refuses_fork_policies(server: Callable[..., Wired]) -> None:
    """A policy that it does not have is refused before any request."""
    wired = server(answer(on_server("idea"), 201))
    with pytest.raises(UpstreamRefused, match="only allow_forks and no_forks"):
        wired.writes.create("PRJ", RepositorySettings(name="idea", fork_policy="no_public_forks"), by="x")
    assert wired.sent() == []


def test_a_data_center_refuses_settings_that_it_lacks(server: Callable[..., Wired]) -> None:
    """They are not left out silently, so nothing is written; what is empty or off can be left out."""
    wired = server(answer(on_server("idea"), 201), answer(on_server("idea")))
    wired.writes.create("PRJ", RepositorySettings(name="idea", language="", has_issues=False), by="x")
    settings = RepositorySettings(description="new", website="https://x", has_wiki=True)
    with pytest.raises(UpstreamRefused, match="has_wiki, website: Data Center has no such") as caught:
        wired.writes.update("PRJ/idea", settings, by="x")
    assert caught.value.fields.keys() == {"has_wiki", "website"}
    assert [method for method, _, _ in wired.sent()] == ["POST", "GET"]
    assert wired.rows("SELECT action FROM writes") == [("create",)]


def test_a_data_center_s_refusal_names_the_field(server: Callable[..., Wired]) -> None:
    """For a person in the message, for a program beside it."""
    errors = [
        {"context": "name", "message": "Too long.", "exceptionName": None},
        {"context": None, "message": "Sorry.", "exceptionName": None},
    ]
    wired = server(answer({"errors": errors}, 400))
    with pytest.raises(UpstreamRefused, match=r"400: name: Too long\.; Sorry\.") as caught:
        wired.writes.create("PRJ", RepositorySettings(name="idea"), by="x")
    assert caught.value.fields == {"name": "Too long."}


def test_an_api_1_repository_is_written(old: Callable[..., Wired]) -> None:
    """By forms with booleans and switches of that time; hg by default."""
    wired = old(
        answer(of_old("new-idea", name="New Idea")),
        answer(of_old("new-idea")),
        answer(of_old("better", name="Better")),
        answer(of_old("better", name="Better")),
        answer(of_old("copy", fork_of=of_old("better"))),
        answer(of_old("better")),
        answer(None, 204),
    )
    wired.writes.create("jespern", RepositorySettings(name="New Idea", is_private=True), by="x")
    settings = RepositorySettings(name="Better", fork_policy="no_public_forks")
    wired.writes.update("jespern/new-idea", settings, by="x")
    wired.writes.fork("jespern/better", "jespern", RepositorySettings(name="copy"), by="x")
    wired.writes.delete("jespern/better", by="x")
    private = {"is_private": "true", "owner": "jespern"}
    assert wired.sent() == [
        ("POST", "/1.0/repositories/", {"name": "New Idea", "scm": "hg", **private}),
        ("GET", "/1.0/repositories/jespern/new-idea/", None),
        (
            "PUT",
            "/1.0/repositories/jespern/new-idea/",
            {"name": "Better", "no_forks": "false", "no_public_forks": "true"},
        ),
        ("GET", "/1.0/repositories/jespern/better/", None),
        ("POST", "/1.0/repositories/jespern/better/fork", {"name": "copy", **private}),
        ("GET", "/1.0/repositories/jespern/better/", None),
        ("DELETE", "/1.0/repositories/jespern/better/", None),
    ]


def test_api_1_knows_repositories_by_name(old: Callable[..., Wired]) -> None:
    """A renamed one is another one; a reused name restores its row, even if just deleted."""
    wired = old(
        answer(of_old("one")),
        answer(of_old("one")),
        answer(of_old("two")),
        answer(of_old("two")),
        answer(None, 204),
        answer(of_old("two")),
    )
    wired.writes.create("jespern", RepositorySettings(name="one"), by="x")
    wired.writes.update("jespern/one", RepositorySettings(name="two"), by="x")
    names = "SELECT full_name, gone_reason FROM repositories ORDER BY id"
    assert wired.rows(names) == [("jespern/one", "renamed to jespern/two"), ("jespern/two", None)]
    wired.writes.delete("jespern/two", by="x")
    assert wired.rows(names)[1] == ("jespern/two", "deleted")
    wired.writes.create("jespern", RepositorySettings(name="two"), by="x")
    assert wired.rows(names)[1] == ("jespern/two", None)


def _branch(name: str, digit: str) -> dict[str, Any]:
    """A branch as Data Center lists it."""
    return {"id": f"refs/heads/{name}", "displayId": name, "latestCommit": digit * 40, "isDefault": True}


def test_a_new_repository_s_main_branch_is_told_with_its_branches(tmp_path: Path) -> None:
    """Branches and tags are both read before the answer."""
    wired = Wired(
        tmp_path,
        "datacenter",
        "PRJ",
        (
            answer(on_server("new-idea"), 201),
            answer({"values": [_branch("trunk", "a")], "isLastPage": True, "size": 1}),
            answer({"values": [], "isLastPage": True, "size": 0}),
        ),
        refs="api",
    )
    wired.writes.create("PRJ", RepositorySettings(name="new-idea"), by="x")
    assert wired.rows("SELECT main_branch, refs_stale, refs_synced_at IS NULL FROM repositories") == [
        ("trunk", 0, 0)
    ]
    assert wired.rows("SELECT name FROM branches") == [("trunk",)]


def test_a_rename_that_makes_another_row_reads_its_refs(tmp_path: Path) -> None:
    """API 1.0 has only names; the new one is not served as one without refs."""
    node = {"raw_node": "a" * 40}
    wired = Wired(
        tmp_path,
        "legacy",
        "jespern",
        (
            answer(of_old("idea")),
            answer({}),
            answer({}),
            answer(of_old("idea")),
            answer(of_old("better", name="Better")),
            answer({"default": node}),
            answer({"1.0": node}),
        ),
        refs="api",
    )
    wired.writes.create("jespern", RepositorySettings(name="idea"), by="x")
    wired.writes.update("jespern/idea", RepositorySettings(name="Better"), by="x")
    assert wired.rows(
        "SELECT full_name, refs_synced_at IS NULL FROM repositories WHERE deleted_at IS NULL"
    ) == [("jespern/better", 0)]
    assert wired.rows("SELECT b.name, t.name FROM branches b, tags t") == [("default", "1.0")]
