"""Data Center's API shows nobody what they may not see: every address, every kind of caller."""

from typing import Any

import httpx
import pytest
from asgi_client import basic, bearer
from callers import STRANGERS, WITHOUT_CREDENTIAL, MixedMirror
from fixtures_db import SECRETS

from mirror.serve.datacenter.edge import MORE, NAME, PERSON, PROJECT, REPOSITORY, UNMIRRORED
from mirror.serve.datacenter.routes import READERS

OF_HIDDEN: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    (PROJECT, REPOSITORY): (("jespern", "arriving"), ("~jespern", "once-hidden"), ("brodie", "hg-project")),
    (PROJECT,): (("brodie",), ("~brodie",)),
}
"""Names of what strangers do not see, by the placeholders that stand for them."""

KNOWN = {
    NAME: "0.2.1",
    MORE: "pull-requests",
    PERSON: "jespern",
    PROJECT: "jespern",
    REPOSITORY: "django-piston",
}
SHOWN = (
    "projects?limit=1000",
    "projects?name=brodie",
    "projects/jespern/repos",
    "projects/jespern/repos/django-piston/forks",
    "projects/mcatalbas/repos/copy",
    "repos?limit=1000&archived=ALL",
    "repos?visibility=private",
    "repos?name=arriving",
    "repos?projectkey=brodie",
    "repos?projectname=brodie",
    "repos?permission=REPO_ADMIN",
    "projects?permission=PROJECT_ADMIN",
)
"""Addresses with parameters that answer strangers, with nothing of a private row."""

_NOBODY = [stranger for stranger in STRANGERS if stranger != "trusted user"]


def ask(mixed: MixedMirror, stranger: str, path: str) -> httpx.Response:
    """Ask as a stranger."""
    served, how = mixed.stranger(stranger)
    address, _, query = f"/rest/api/latest/{path}".partition("?")
    sent = dict(part.split("=", 1) for part in query.split("&") if part)
    options: dict[str, Any] = {**how, "params": {**sent, **how.get("params", {})}}
    return served.get(address, **options)


def path_of(pattern: tuple[str, ...], names: dict[str, str]) -> str:
    """Return a path of a route."""
    return "/".join({**KNOWN, **names}.get(part, part) for part in pattern)


def hidden_paths() -> list[tuple[str, str]]:
    """Every route of a project or repository with a hidden name, and a missing name to compare with."""
    found = list[tuple[str, str]]()
    for pattern in (*READERS, *UNMIRRORED):
        holders = tuple(part for part in pattern if part in (PROJECT, REPOSITORY))
        for names in OF_HIDDEN.get(holders, ()):
            found.append((path_of(pattern, dict(zip(holders, names, strict=True))), names[-1]))
    return found


@pytest.mark.parametrize("stranger", _NOBODY)
def test_strangers_see_no_private_byte(mixed: MixedMirror, stranger: str) -> None:
    """At every route, hidden and missing ones are equal, byte for byte; lists contain nothing hidden."""
    paths = hidden_paths()
    assert len(paths) > 25
    for path, name in paths:
        answer = ask(mixed, stranger, path)
        if stranger not in WITHOUT_CREDENTIAL:
            assert answer.status_code == 401, path
            continue
        missing = ask(mixed, stranger, path.replace(name, "nothing-there"))
        assert answer.status_code == 404, (path, answer.text)
        assert answer.content.replace(name.encode(), b"nothing-there") == missing.content, path
    for path in (*SHOWN, *(path_of(pattern, {}) for pattern in (*READERS, *UNMIRRORED))):
        answer = ask(mixed, stranger, path)
        is_for_users = path.startswith("users") or path.endswith("permissions/users")
        is_refused = is_for_users or stranger not in WITHOUT_CREDENTIAL
        assert answer.status_code in ((401,) if is_refused else (200, 501)), (path, answer.text)
        seen = [secret for secret in SECRETS if secret.lower() in answer.content.lower()]
        assert not seen, (path, seen)


@pytest.mark.parametrize("token", ["read", "write"])
def test_holders_of_a_token_see_everything(mixed: MixedMirror, token: str) -> None:
    """Everything that lives, by Bearer and by Basic; tombstones are 404 for them too."""
    for headers in (bearer(mixed.tokens[token]), basic("whoever", mixed.tokens[token])):
        rows = mixed.served.json("/rest/api/1.0/repos?limit=1000", headers=headers)["values"]
        names = {(row["project"]["key"], row["slug"]) for row in rows}
        assert {("~jespern", "arriving"), ("~jespern", "once-hidden"), ("~brodie", "hg-project")} <= names
        gone = mixed.served.get("/rest/api/1.0/projects/brodie/repos/buried-treasure", headers=headers)
        assert gone.status_code == 404
        refs = mixed.served.json("/rest/api/1.0/projects/~jespern/repos/arriving/branches", headers=headers)
        assert [ref["displayId"] for ref in refs["values"]] == ["secret-branch"]


@pytest.mark.parametrize(
    ("user", "theirs", "foreign"),
    [("jespern", ("~jespern", "arriving"), ("~brodie", "hg-project")),
     ("mcatalbas", ("~brodie", "hg-project"), ("~jespern", "arriving"))],
)  # fmt: skip
def test_a_user_sees_their_own_and_their_workspaces(
    mixed: MixedMirror, user: str, theirs: tuple[str, str], foreign: tuple[str, str]
) -> None:
    """As owner or member, in lists and alone; people of other workspaces are hidden."""
    headers = basic(user, "any")

    def get(path: str) -> httpx.Response:
        return mixed.trusting.get(f"/rest/api/1.0/{path}", headers=headers)

    rows = get("repos?limit=1000").json()["values"]
    names = {(row["project"]["key"], row["slug"]) for row in rows}
    assert theirs in names
    assert foreign not in names
    assert get("projects/{}/repos/{}".format(*theirs)).status_code == 200
    assert get("projects/{}/repos/{}".format(*foreign)).status_code == 404
    keys = {row["key"] for row in get("projects").json()["values"]}
    assert ("~brodie" in keys) is (user == "mcatalbas")
    assert get("projects/brodie/permissions/users").status_code == (200 if user == "mcatalbas" else 404)
    people = {row["name"] for row in get("users?limit=1000").json()["values"]}
    assert user in people
    assert ("brodie" in people) is (user == "mcatalbas")
    assert get("users/brodie").status_code == (200 if user == "mcatalbas" else 404)
