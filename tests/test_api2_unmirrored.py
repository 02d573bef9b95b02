"""Data that is not mirrored is refused as such, in both APIs, only for callers who may know of it."""

from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, basic, bearer, client_of
from callers import MixedMirror
from fixtures_db import FixtureDb, hg_ref, owner, repository

from mirror.queries.rows import UpstreamRow
from mirror.serve.unmirrored import upstream_address

PISTON, HIDDEN, UNKNOWN = "jespern/django-piston", "jespern/arriving", "jespern/nothing"

BELOW_2 = {
    "commits": "history of commits",
    "commits/master": "history of commits",
    "src/HEAD/setup.py": "sources",
    "src/master/a//b": "sources",
    "pullrequests": "pull requests",
    "pullrequests/1/comments": "pull requests",
    "hooks": "webhooks",
    "branching-model": "branching model",
    "pipelines": "pipelines",
    "commit/" + "9" * 40: "commits other than those of branches and tags",
    "commit/" + "a" * 40 + "/statuses": "statuses, comments and other parts of commits",
    "something-new": "something new",
}
BELOW_1 = {
    "changesets": "history of changesets",
    "changesets/abc/diffstat": "changesets",
    "src/tip/a%2Fb": "sources",
    "issues": "issues",
    "wiki/Home": "wikis",
    "pullrequests": "pull requests",
}


def said(answer: Any) -> tuple[str, str]:
    """Return what an answer says is not here, and the address where it is."""
    assert answer.status_code == 501
    assert answer.headers["cache-control"] in ("no-store", "private, no-store")
    error = answer.json()["error"]
    address = error["data"]["upstream"]
    assert error["message"].endswith(f"; ask {address}")
    return error["message"].removeprefix("This mirror holds no ").partition("; ask ")[0], address


@pytest.mark.parametrize("path", BELOW_2)
def test_api_2_says_what_it_does_not_hold_of_a_repository(mixed: MixedMirror, path: str) -> None:
    """With the upstream's address; hidden and unknown ones give the same 404, byte for byte."""
    answer = mixed.served.get(f"/2.0/repositories/{PISTON}/{path}?pagelen=5&access_token=&q=a b")
    what, address = said(mixed.served.get(f"/2.0/repositories/{PISTON}/{path}?pagelen=5&q=a b"))
    assert what == BELOW_2[path]
    assert address == f"https://api.example.com/2.0/repositories/{PISTON}/{path}?pagelen=5&q=a%20b"
    assert answer.status_code in (401, 501)
    hidden, unknown = (mixed.served.get(f"/2.0/repositories/{name}/{path}") for name in (HIDDEN, UNKNOWN))
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.content == unknown.content
    assert mixed.served("HEAD", f"/2.0/repositories/{PISTON}/{path}").status_code == 501
    posted = mixed.served("POST", f"/2.0/repositories/{PISTON}/{path}", json={})
    assert posted.status_code == (405 if path.startswith("commit/9") else 501)
    posted = mixed.served("POST", f"/2.0/repositories/{HIDDEN}/{path}", json={})
    assert posted.status_code == (405 if path.startswith("commit/9") else 404)
    seen = mixed.served.get(f"/2.0/repositories/{HIDDEN}/{path}", headers=bearer(mixed.tokens["read"]))
    assert seen.status_code == 501


@pytest.mark.parametrize("path", BELOW_1)
def test_api_1_says_what_it_does_not_hold_of_a_repository(mixed: MixedMirror, path: str) -> None:
    """In its own error format; Cloud's address is one of API 2.0."""
    what, address = said(mixed.served.get(f"/1.0/repositories/{PISTON}/{path}"))
    assert BELOW_1[path].split()[-1] in what
    assert address.startswith(f"https://api.example.com/2.0/repositories/{PISTON}/")
    hidden, unknown = (mixed.served.get(f"/1.0/repositories/{name}/{path}") for name in (HIDDEN, UNKNOWN))
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.text.replace(HIDDEN, UNKNOWN) == unknown.text


@pytest.mark.parametrize(
    "path",
    [
        "2.0/workspaces/jespern/hooks",
        "2.0/workspaces/jespern/search/code?search_query=x",
        "2.0/users/jespern/ssh-keys",
        "2.0/teams/jespern/pipelines_config",
        "2.0/snippets",
        "2.0/pullrequests/jespern",
        "1.0/groups/jespern",
        "1.0/groups/jespern/developers/members",
        "1.0/privileges/jespern",
        "1.0/privileges/jespern/django-piston",
        "1.0/group-privileges/jespern/django-piston",
        "1.0/users/jespern/emails",
        "1.0/users/jespern/followers",
        "1.0/repositories/mcatalbas/codeigniter/followers",
        "2.0/repositories/mcatalbas/codeigniter/watchers",
    ],
)
def test_other_things_that_are_not_mirrored_are_501(mixed: MixedMirror, path: str) -> None:
    """Below workspaces, users and by themselves; of an unknown owner they are 404."""
    said(mixed.served.get(f"/{path}"))
    if "jespern" in path:
        assert mixed.served.get("/" + path.replace("jespern", "nobody")).status_code in (404, 501)


def test_resources_of_the_caller_need_credentials(mixed: MixedMirror) -> None:
    """Mail addresses are 401 to strangers and 501 to those who are known."""
    assert mixed.served.get("/2.0/user/emails").status_code == 401
    assert mixed.served.get("/1.0/user/emails").status_code == 401
    mine = bearer(mixed.tokens["user"])
    assert said(mixed.served.get("/2.0/user/emails", headers=mine))[0] == "mail addresses"
    assert said(mixed.served.get("/1.0/user/emails", headers=mine))[0] == "mail addresses"
    assert mixed.served.get("/2.0/nothing-of-the-kind").status_code == 404
    assert mixed.served.get("/2.0/repositories").status_code == 200


def test_redirect_unmirrored_answers_307(mixed: MixedMirror) -> None:
    """GET is redirected without the mirror's token, except for callers who may not know."""
    client = client_of(mixed.path, redirect_unmirrored=True)
    token = mixed.tokens["read"]
    answer = client.get(f"/2.0/repositories/{PISTON}/commits?page=2&access_token={token}&Access_Token=x")
    assert answer.status_code == 307
    assert answer.headers["location"] == f"https://api.example.com/2.0/repositories/{PISTON}/commits?page=2"
    assert "no-store" in answer.headers["cache-control"]
    assert client("HEAD", f"/2.0/repositories/{PISTON}/commits").status_code == 307
    assert client("POST", f"/2.0/repositories/{PISTON}/pullrequests", json={}).status_code == 501
    assert client.get(f"/2.0/repositories/{HIDDEN}/commits").status_code == 404
    assert client.get(f"/1.0/repositories/{PISTON}/changesets").status_code == 307


def test_strangers_learn_no_address_of_a_private_upstream(tmp_path: Path) -> None:
    """Nor are they redirected there: what belongs to no repository is at an upstream without an address."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("team/secret", is_private=True)])
    filled.store.close()
    answer = client_of(filled.path, redirect_unmirrored=True).get("/2.0/snippets/team")
    assert answer.status_code == 501
    assert answer.json()["error"] == {"message": "This mirror holds no snippets; ask the upstream"}


@pytest.mark.parametrize(
    ("kind", "url", "api", "path", "expected"),
    [
        ("cloud", "https://api.bitbucket.org/2.0", "2.0", "/repositories/a/b/src/HEAD/x%20y",
         "https://api.bitbucket.org/2.0/repositories/a/b/src/HEAD/x%20y"),
        ("cloud", "https://api.bitbucket.org/2.0", "1.0", "/repositories/a/b/changesets/",
         "https://api.bitbucket.org/2.0/repositories/a/b/commits"),
        ("legacy", "http://old/1.0", "1.0", "/groups/a", "http://old/1.0/groups/a"),
        ("datacenter", "https://dc/rest/api/1.0", "2.0", "/repositories/K/s/pullrequests/3",
         "https://dc/rest/api/1.0/projects/K/repos/s/pull-requests/3"),
        ("datacenter", "https://dc/rest/api/1.0", "1.0", "/repositories/K/s/changesets",
         "https://dc/rest/api/1.0/projects/K/repos/s/commits"),
        ("datacenter", "https://dc/rest/api/1.0", "2.0", "/repositories/K/s",
         "https://dc/rest/api/1.0/projects/K/repos/s"),
        ("datacenter", "https://dc/rest/api/1.0", "2.0", "/repositories/K/s/refs/tags/v%2F1",
         "https://dc/rest/api/1.0/projects/K/repos/s/tags/v%2F1"),
        ("datacenter", "https://dc/rest/api/1.0", "1.0", "/repositories/K/s/main-branch",
         "https://dc/rest/api/1.0/projects/K/repos/s/default-branch"),
        ("cloud", "https://api.bitbucket.org/2.0", "1.0", "/repositories/a/b/tags/",
         "https://api.bitbucket.org/2.0/repositories/a/b/refs/tags"),
        ("cloud", "https://api.bitbucket.org/2.0", "1.0", "/repositories/a/b/main-branch",
         "https://api.bitbucket.org/2.0/repositories/a/b"),
        ("cloud", "https://api.bitbucket.org/2.0", "2.0", "/repositories/a/b/refs/tags",
         "https://api.bitbucket.org/2.0/repositories/a/b/refs/tags"),
        ("legacy", "http://old/1.0", "2.0", "/repositories/a/b/refs/branches",
         "http://old/1.0/repositories/a/b/branches"),
    ],
)  # fmt: skip
def test_the_address_is_that_of_the_upstreams_own_api(
    kind: str, url: str, api: str, path: str, expected: str
) -> None:
    """Each kind of upstream has other names."""
    assert upstream_address(UpstreamRow(1, "x", kind, url), api, path) == expected


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> tuple[AsgiClient, str, str]:
    """A mirror in which alice belongs to a team, the token of alice, and one of the whole mirror."""
    from mirror.store import tokens

    filled = FixtureDb(Path(tmp_path_factory.mktemp("roles")) / "mirror.db")
    alice = owner("alice", nickname="alice", account_id="557058:0aa1b6a1-0000-4000-8000-000000000001")
    filled.repositories(
        [repository("alice/own", alice), repository("team/shared", owner("team", kind="team")),
         repository("other/public", owner("other", kind="team"))],
        first=True,
    )  # fmt: skip
    filled.members(owner("team", kind="team"), (alice,))
    secrets = tokens.create(filled.store, "a", "read", user="alice"), tokens.create(filled.store, "b", "read")
    filled.store.close()
    return client_of(filled.path), *secrets


def names(client: AsgiClient, path: str, token: str | None) -> list[str]:
    """List the names on a page."""
    found = client.json(path, headers=bearer(token) if token else {})["values"]
    return sorted(
        one.get("full_name") or one.get("slug") or one.get("username") or one["workspace"]["slug"]
        for one in found
    )


def test_a_role_is_an_explicit_right(roles: tuple[AsgiClient, str, str]) -> None:
    """Strangers have none; workspaces, teams and user/workspaces agree."""
    client, alice, whole = roles
    for role in ("member", "contributor", "admin", "owner"):
        assert names(client, f"/2.0/repositories?role={role}", None) == []
        assert len(names(client, f"/2.0/repositories?role={role}", whole)) == 3
        mine = ["alice/own"] if role == "owner" else ["alice/own", "team/shared"]
        assert names(client, f"/2.0/repositories?role={role}", alice) == mine
    for role in ("member", "collaborator", "owner"):
        assert names(client, f"/2.0/workspaces?role={role}", None) == []
        for token in (alice, whole):
            own = names(client, "/2.0/user/workspaces?administrator=true", token)
            assert names(client, f"/2.0/workspaces?role={role}", token) == own
            assert names(client, "/2.0/user/workspaces", token) == own
    # Sent as alice, the token for everything has her roles.
    own = client.json("/2.0/repositories?role=owner", headers=basic("alice", whole))["values"]
    assert [one["full_name"] for one in own] == ["alice/own"]
    assert names(client, "/2.0/user/permissions/workspaces", alice) == ["alice", "team"]
    assert names(client, "/2.0/teams?role=member", alice) == ["alice", "team"]
    assert client.get("/2.0/teams?role=member").status_code == 401
    assert client.get("/2.0/teams?role=king", headers=bearer(alice)).status_code == 400


def test_the_callers_permission_in_a_workspace_is_served(roles: tuple[AsgiClient, str, str]) -> None:
    """One workspace, its repositories, and all members for those who may see them."""
    client, alice, whole = roles
    mine = client.json("/2.0/user/workspaces/team/permission", headers=bearer(alice))
    assert (mine["type"], mine["permission"], mine["workspace"]["slug"]) == (
        "workspace_membership", "owner", "team",
    )  # fmt: skip
    assert client.get("/2.0/user/workspaces/other/permission", headers=bearer(alice)).status_code == 404
    assert client.get("/2.0/user/workspaces/team/permission").status_code == 401
    assert client.get("/2.0/user/workspaces/team/permission", headers=bearer(whole)).status_code == 403
    rights = client.json("/2.0/user/workspaces/team/permissions/repositories", headers=bearer(alice))
    assert [(one["repository"]["full_name"], one["permission"]) for one in rights["values"]] == [
        ("team/shared", "admin")
    ]
    members = client.json("/2.0/workspaces/team/permissions", headers=bearer(alice))
    assert [(one["user"]["nickname"], one["permission"]) for one in members["values"]] == [("alice", "owner")]
    assert client.get("/2.0/workspaces/team/permissions").status_code == 401


def test_repositories_of_users_and_teams_are_listed(roles: tuple[AsgiClient, str, str]) -> None:
    """As before 2019; any name answers as a team, for clients that look up the account id that way."""
    client, _, _ = roles
    assert names(client, "/2.0/teams/team/repositories", None) == ["team/shared"]
    assert names(client, "/2.0/users/alice/repositories", None) == ["alice/own"]
    found = client.json("/2.0/teams/alice")
    assert found["type"] == "user"
    account = client.json(f"/2.0/users/{found['account_id']}")
    assert account["nickname"] == "alice"
    assert names(client, f"/2.0/users/{found['account_id']}/repositories", None) == ["alice/own"]
    assert client.get("/2.0/teams/nobody").status_code == 404


def test_a_commit_that_a_ref_names_is_served(mixed: MixedMirror) -> None:
    """By its hash, a part of it, or the name of the ref; ambiguous ones are refused."""
    path = f"/2.0/repositories/{PISTON}/commit"
    whole = mixed.served.json(f"{path}/{'b' * 40}")
    assert (whole["type"], whole["hash"], whole["repository"]["full_name"]) == ("commit", "b" * 40, PISTON)
    assert whole["parents"][0]["hash"] == "0" * 40
    assert mixed.served.json(f"{path}/BBBB") == mixed.served.json(f"{path}/0.2.1") == whole
    assert mixed.served.get(f"/2.0/repositories/{HIDDEN}/commit/{'e' * 40}").status_code == 404
    read = bearer(mixed.tokens["read"])
    assert mixed.served.json(f"/2.0/repositories/{HIDDEN}/commit/eeee", headers=read)["hash"] == "e" * 40


def test_a_name_that_may_begin_a_hash_is_the_name(public_db: FixtureDb) -> None:
    """As git reads it, such as a tag `2024`; a whole hash is a hash, whatever a branch is called."""
    own, other = "1" * 40, "2024" + "3" * 36
    main = hg_ref("branch", "main", "1", target_hash=other)
    public_db.refs(PISTON, [main, hg_ref("tag", "2024", "1"), hg_ref("tag", other, "1")])
    public_db.store.close()
    client = client_of(public_db.path)
    for revision, commit in {"2024": own, "20243": other, other: other, "1111": own}.items():
        assert client.json(f"/2.0/repositories/{PISTON}/commit/{revision}")["hash"] == commit
        address = f"/rest/api/1.0/projects/~jespern/repos/django-piston/commits/{revision}"
        assert client.json(address)["id"] == commit
