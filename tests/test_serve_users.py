"""Tokens of users and trusted users see and write what belongs to that user, everywhere."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asgi_client import AsgiClient, basic, bearer, client_of
from fake_writer import FakeWriter
from fixtures_db import LATER, FixtureDb, fill_public, owner, repository

from mirror.model import Member
from mirror.store import tokens
from mirror.store.owners import save_members

ACME, RIVAL, ANN, MINE = owner("acme"), owner("rival"), owner("ann"), owner("mine")
OWN = {"ann/diary", "acme/engine", "ann/shown"}
HIDDEN = {"rival/plans", "rival/copy-of-tool"}
ROWS = (
    repository("acme/tool", ACME, forks_count=2, language="python"),
    repository("acme/engine", ACME, is_private=True, language="secretlang"),
    repository("ann/diary", ANN, is_private=True, parent_uuid="{acme/tool}", parent_full_name="acme/tool"),
    repository("ann/shown", ANN, is_private=True),
    repository("rival/plans", RIVAL, is_private=True, language="rivalang"),
    repository(
        "rival/copy-of-tool", RIVAL, is_private=True, parent_uuid="{acme/tool}", parent_full_name="acme/tool"
    ),
    repository("rival/public", RIVAL, parent_uuid="{rival/plans}", parent_full_name="rival/plans"),
)
CASES = ("token", "login", "trusted")


def join(filled: FixtureDb, workspace: Any, user: Any, permission: str | None) -> None:
    """Make somebody a member of a workspace."""
    ids = filled.store.save_owner(filled.upstream_id, workspace, run_id=None, seen_at=LATER)
    with filled.store.transaction() as connection:
        member = [Member(user=user, permission=permission)]
        save_members(connection, filled.upstream_id, ids, member, seen_at=LATER)


class World:
    """A mirror in which ann owns a namespace, is a collaborator of acme, and no member of rival."""

    def __init__(self, folder: Path) -> None:
        path = folder / "mirror.db"
        self.filled = filled = fill_public(path)
        filled.repositories(ROWS)
        filled.refs("rival/plans", [])
        join(filled, ACME, ANN, "collaborator")
        join(filled, RIVAL, owner("bob"), "owner")
        filled.gone("rival/public")
        filled.repositories([repository("rival/public", RIVAL)], at=LATER)
        self.token = tokens.create(filled.store, "of ann", "write", user="ann")
        self.whole = tokens.create(filled.store, "whole", "write")
        self.writer = FakeWriter(filled)
        self.served = client_of(path, trust_basic_user=True, writes=True, writer=self.writer)
        login = self.served("POST", "/-/mirror-login", data={"token": self.token})
        self.cookies = {"ds_actor": login.cookies["ds_actor"].strip('"')}

    def asking_as(self, case: str) -> dict[str, Any]:
        """Return the options of a request by ann."""
        return {
            "token": {"headers": bearer(self.token)},
            "login": {"cookies": self.cookies},
            "trusted": {"headers": basic("ann", "any")},
        }[case]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Made once: tests that write send only refused writes, or make their own."""
    made = World(tmp_path_factory.mktemp("users"))
    yield made
    made.filled.store.close()


LISTS: dict[str, Callable[[Any], set[str]]] = {
    "/2.0/repositories?pagelen=100": lambda said: {row["full_name"] for row in said["values"]},
    "/2.0/repositories/rival?pagelen=100": lambda said: {row["full_name"] for row in said["values"]},
    "/2.0/repositories/acme?pagelen=100": lambda said: {row["full_name"] for row in said["values"]},
    "/2.0/repositories/acme/tool/forks?pagelen=100": lambda said: {
        row["full_name"] for row in said["values"]
    },
    "/1.0/repositories?name=": lambda said: {f"{row['owner']}/{row['slug']}" for row in said["repositories"]},
    "/1.0/repositories/acme/tool/forks": lambda said: {
        f"{row['owner']}/{row['slug']}" for row in said["forks"]
    },
    "/-/search.json?size=1000": lambda said: {row["full_name"] for row in said["repositories"]},
    "/-/search.json?size=1000&visibility=private": lambda said: {
        row["full_name"] for row in said["repositories"]
    },
}
COUNTS = {"2.0": "size", "1.0": "count", "-": "count"}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("path", LISTS)
def test_lists_searches_and_counts_hold_visible_rows_only(world: World, path: str, case: str) -> None:
    """With own private repositories; those of others are neither listed nor counted."""
    said = world.served.json(path, **world.asking_as(case))
    whole = world.served.json(path, headers=bearer(world.whole))
    seen, everything = LISTS[path](said), LISTS[path](whole)
    assert seen == everything - HIDDEN
    assert said[COUNTS[path.split("/")[1]]] == len(seen)


@pytest.mark.parametrize("case", CASES)
def test_single_resources_are_visible_or_404(world: World, case: str) -> None:
    """By name in both APIs and on pages; only visible forks are counted."""
    how = world.asking_as(case)
    for full_name in OWN:
        for place in ("/1.0/repositories", "/2.0/repositories", "/-/r"):
            assert world.served.get(f"{place}/{full_name}", **how).status_code == 200, (place, full_name)
    for full_name in HIDDEN:
        for place in ("/1.0/repositories", "/2.0/repositories", "/-/r"):
            assert world.served.get(f"{place}/{full_name}", **how).status_code in (403, 404)
    assert world.served.json("/1.0/repositories/acme/tool", **how)["forks_count"] == 1
    assert world.served.json("/2.0/repositories/ann/diary", **how)["parent"]["full_name"] == "acme/tool"


@pytest.mark.parametrize("case", CASES)
def test_pages_and_feeds_show_no_foreign_private_names(world: World, case: str) -> None:
    """Home, search, owners, changes, feed, status, options: own private names, no others."""
    how = world.asking_as(case)
    pages = (
        "/", "/-/search?q=", "/-/search?q=plnas", "/-/search/options?q=plans", "/-/search.csv", "/-/u/rival",
        "/-/changes", "/-/changes?owner=rival", "/-/changes.atom", "/-/mirror-status",
        "/1.0/users/rival/events", "/-/r/acme/tool", "/-/r/rival/public", "/2.0/repositories/rival/public",
        "/1.0/repositories/rival/public",
    )  # fmt: skip
    for path in pages:
        answer = world.served.get(path, **how)
        assert answer.status_code == 200, path
        shown = re.sub(r'(?:value|href)="[^"]*"', "", answer.text)  # which repeat what was asked
        for secret in ("rival/plans", "copy-of-tool", "rivalang"):
            assert secret not in shown, (path, secret)
    assert "diary" in world.served.get("/-/changes", **how).text
    assert "diary" in world.served.get("/-/changes.atom", **how).text


@pytest.mark.parametrize("case", CASES)
def test_members_are_shown_to_members(world: World, case: str) -> None:
    """In API 2.0 and on the page of an owner."""
    how = world.asking_as(case)
    assert world.served.get("/2.0/workspaces/acme/members", **how).status_code == 200
    assert world.served.get("/2.0/workspaces/rival/members", **how).status_code == 403
    assert "bob" not in world.served.get("/-/u/rival", **how).text


@pytest.mark.parametrize("case", CASES)
def test_tables_are_closed_while_the_file_hides_a_row(world: World, case: str, tmp_path: Path) -> None:
    """Rows cannot be filtered there; a file whose private rows are all the user's own is open."""
    for path in ("/mirror/repositories.json", "/mirror.json?sql=select+1", "/mirror.db", "/mirror/stale.csv"):
        assert world.served.get(path, **world.asking_as(case)).status_code == 403, path
    assert "mirror_requests" not in world.served.get("/-/metrics", **world.asking_as(case)).text
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([row for row in ROWS if row.owner.username != "rival"])
    join(filled, ACME, ANN, "member")
    token = tokens.create(filled.store, "of ann", user="ann")
    served = client_of(tmp_path / "mirror.db", trust_basic_user=True)
    cookies = {}
    if case == "login":
        answer = served("POST", "/-/mirror-login", data={"token": token})
        cookies = {"ds_actor": answer.cookies["ds_actor"].strip('"')}
    headers = {"token": bearer(token), "login": {}, "trusted": basic("ann", "x")}[case]
    assert served.get("/mirror/repositories.json").status_code == 403
    assert served.get("/mirror/repositories.json", headers=headers, cookies=cookies).status_code == 200
    assert served.get("/mirror/api_tokens.json", headers=headers, cookies=cookies).status_code == 403
    filled.repositories([repository("rival/once", RIVAL, is_private=True)])
    filled.repositories([repository("rival/once", RIVAL)], at=LATER)
    assert served.get("/mirror/repositories.json", headers=headers, cookies=cookies).status_code == 403
    filled.store.close()


WRITES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PUT", "/2.0/repositories/acme/engine", {"json": {"description": "x"}}),
    ("DELETE", "/2.0/repositories/acme/tool", {}),
    ("POST", "/2.0/repositories/acme/new", {"json": {}}),
    ("POST", "/2.0/repositories/ann/diary/forks", {"json": {"workspace": {"slug": "rival"}}}),
    ("POST", "/1.0/repositories", {"data": {"name": "new", "owner": "acme"}}),
    ("POST", "/1.0/repositories", {"data": {"name": "new", "owner": "nobody-yet"}}),
    ("PUT", "/1.0/repositories/acme/engine", {"data": {"description": "x"}}),
    ("DELETE", "/1.0/repositories/acme/engine", {}),
    ("POST", "/1.0/repositories/acme/tool/fork", {"data": {"name": "new", "owner": "acme"}}),
)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_user_cannot_write_repositories_of_others(
    world: World, method: str, path: str, body: dict[str, Any]
) -> None:
    """403 with the reason for visible ones, without asking the upstream; hidden ones are 404."""
    answer = world.served(method, path, headers=bearer(world.token), **body)
    assert answer.status_code == 403
    assert "owns or administers" in answer.json()["error"]["detail"]
    hidden = path.replace("acme/engine", "rival/plans")
    if hidden != path:
        answer = world.served(method, hidden, headers=bearer(world.token), **body)
        assert answer.status_code in (403, 404)
    assert not world.writer.calls


def test_a_user_writes_owned_or_administered_repositories(tmp_path: Path) -> None:
    """In the own namespace, and in a workspace with the permission owner; a fork goes to the own one."""
    world = World(tmp_path)

    def status(method: str, path: str, **body: Any) -> int:
        return world.served(method, path, headers=bearer(world.token), **body).status_code

    assert status("PUT", "/2.0/repositories/ANN/diary", json={"description": "x"}) == 200
    assert status("POST", "/1.0/repositories/acme/tool/fork", data={"name": "mine"}) == 200
    assert status("DELETE", "/1.0/repositories/ann/shown") == 204
    assert status("PUT", "/2.0/repositories/acme/engine", json={"description": "x"}) == 403
    join(world.filled, ACME, ANN, "owner")
    assert status("PUT", "/2.0/repositories/acme/engine", json={"description": "x"}) == 200
    other = world.filled.store.save_upstream("other", "cloud", "https://other.example/2.0")
    world.filled.store.save_owner(other, owner("acme"), run_id=None, seen_at=LATER)
    assert status("PUT", "/2.0/repositories/acme/engine", json={"description": "x"}) == 403
    world.filled.store.close()


@pytest.mark.parametrize(
    ("url", "status"), [("https://api.example.com/2.0", 200), ("https://other.example/2.0", 404)]
)
def test_a_user_has_rows_in_each_upstream_of_one_server(tmp_path: Path, url: str, status: int) -> None:
    """As of workspaces with credentials of their own. Another server may give the same uuid to anybody."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories(ROWS)
    join(filled, ACME, ANN, "member")
    by_name = tokens.create(filled.store, "by name", user="ann")
    filled.upstream_id = filled.store.save_upstream("beside", "cloud", url)
    filled.repositories([repository("mine/secret", MINE, is_private=True)])
    join(filled, MINE, msgspec.structs.replace(ANN, username=None), "member")
    served = client_of(tmp_path / "mirror.db")
    assert served.get("/2.0/repositories/acme/engine", headers=bearer(by_name)).status_code == 200
    assert served.get("/2.0/repositories/mine/secret", headers=bearer(by_name)).status_code == status
    if status == 200:  # a uuid that is of one user everywhere
        assert tokens.create(filled.store, "by uuid", user=ANN.uuid)
    filled.store.close()


def test_choosing_a_name_gives_no_rights(tmp_path: Path) -> None:
    """A member with the name of a workspace, also on another upstream, sees nothing of it."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories(ROWS)
    mallory = owner("mallory")
    join(filled, ACME, mallory, "member")
    token = tokens.create(filled.store, "of mallory", user="mallory")
    join(filled, ACME, owner("rival", uuid=mallory.uuid), "member")
    served = client_of(tmp_path / "mirror.db")
    assert served.json("/2.0/repositories/acme/engine", headers=bearer(token))["is_private"]
    assert served.get("/2.0/repositories/rival/plans", headers=bearer(token)).status_code == 404
    filled.store.close()


REFUSED = (
    {"Authorization": "Bearer mir_unknown"},
    {"Authorization": "bearer "},
    {"Authorization": "Basic !!"},
    {"Authorization": "Basic"},
    basic("ann", "an old password"),
    basic("", ""),
    basic("mir_unknown", ""),
)


@pytest.mark.parametrize("headers", REFUSED, ids=str)
def test_a_wrong_credential_is_401_everywhere(public_path: Path, headers: dict[str, str]) -> None:
    """For public data too, with how to make a token; without credentials it is shown."""
    served = client_of(public_path)
    for path in (
        "/1.0/repositories/jespern", "/1.0/repositories?name=x&callback=f", "/2.0/repositories",
        "/2.0/users/jespern",
        "/", "/-/search.json", "/-/changes.atom", "/mirror/repositories.json", "/mirror.json?sql=select+1",
        "/mirror/stale.csv", "/-/r/jespern/django-piston",
    ):  # fmt: skip
        assert served.get(path).status_code == 200, path
        answer = served.get(path, headers=headers)
        assert answer.status_code == 401, path
        assert "mirror token create" in answer.text, path
        assert "WWW-Authenticate" in answer.headers, path
    for path in ("/1.0/repositories/jespern", "/", "/mirror/repositories.json"):
        assert served.get(path, headers={"Authorization": 'OAuth oauth_token="x"'}).status_code == 200


def test_a_revoked_token_is_401_not_anonymous(public_db: FixtureDb) -> None:
    """From the next request on, so that no client takes hidden for deleted."""
    public_db.repositories(ROWS)
    token = tokens.create(public_db.store, "backup")
    served: AsgiClient = client_of(public_db.path)
    assert served.json("/2.0/repositories/acme", headers=bearer(token))["size"] == 2
    tokens.revoke(public_db.store, "backup")
    for headers in (bearer(token), basic("x-token-auth", token)):
        assert served.get("/2.0/repositories/acme", headers=headers).status_code == 401
    assert served.get(f"/2.0/repositories/acme?access_token={token}").status_code == 401
    public_db.store.close()


@pytest.mark.parametrize("user", ["zoe", "~zoe"])
def test_a_personal_project_is_that_of_its_owner(tmp_path: Path, user: str) -> None:
    """Data Center calls it by the name with a tilde; by that alone, another person does not get it."""
    world, personal = World(tmp_path), owner("~zoe")
    world.filled.repositories([repository("~zoe/dots", personal, is_private=True)])
    join(world.filled, ACME, owner("zoe"), "owner")
    token = tokens.create(world.filled.store, "of zoe", "write", user=user)
    for path, is_owner in (("acme/engine", user == "zoe"), ("~zoe/dots", user == "~zoe")):
        seen = world.served("GET", f"/2.0/repositories/{path}", headers=bearer(token)).status_code
        assert seen == (200 if is_owner else 404)
    join(world.filled, personal, owner("zoe"), "owner")
    for path in ("acme/engine", "~zoe/dots"):
        assert world.served("GET", f"/2.0/repositories/{path}", headers=bearer(token)).status_code == 200
    own = world.served("GET", "/2.0/repositories?role=owner", headers=bearer(token)).json()["values"]
    assert {row["full_name"] for row in own} >= {"~zoe/dots"}
    world.served("POST", "/1.0/repositories/", data={"name": "new"}, headers=bearer(token))
    world.served("POST", "/2.0/repositories/acme/tool/forks", json={"name": "copy"}, headers=bearer(token))
    assert [name for _, name, _, _ in world.writer.calls] == ["~zoe/new", "~zoe/copy"]
