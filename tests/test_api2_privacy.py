"""API 2.0 shows nobody what they may not see: every address, every kind of caller, and what counts reveal."""

from typing import Any

import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from callers import STRANGERS, WITHOUT_CREDENTIAL, MixedMirror
from fixtures_db import SECRETS, FixtureDb, owner, repository

HIDDEN = (
    "repositories/jespern/arriving",
    "repositories/jespern/%7Bjespern%2Farriving%7D",
    "repositories/%7B%7D/%7Bjespern%2Farriving%7D",
    "repositories/jespern/arriving/refs",
    "repositories/jespern/arriving/refs/branches",
    "repositories/jespern/arriving/refs/branches/secret-branch",
    "repositories/jespern/arriving/refs/tags",
    "repositories/jespern/arriving/refs/tags/secret-tag",
    "repositories/jespern/arriving/forks",
    "repositories/jespern/arriving/watchers",
    "repositories/jespern/once-hidden",
    "repositories/brodie/hg-project",
    "repositories/brodie/buried-treasure",
)
"""Addresses that are 404 to strangers."""

SHOWN = (
    "repositories",
    "repositories?pagelen=100&sort=-updated_on",
    "repositories?q=is_private=true",
    'repositories?q=name~"arriving" OR full_name="jespern/arriving"',
    'repositories?q=parent.full_name~"arriving"',
    'repositories?q=uuid="{jespern/arriving}"',
    "repositories?role=owner",
    "repositories?after=2000-01-01",
    "repositories?page=2&pagelen=2",
    "repositories/jespern",
    "repositories/jespern?q=is_private=true",
    "repositories/brodie",
    "repositories/mcatalbas/copy",
    "repositories/jespern/shown",
    "repositories/jespern/django-piston",
    "repositories/jespern/django-piston/forks",
    "repositories/jespern/django-piston/watchers",
    "workspaces",
    "workspaces/brodie",
    "users/jespern",
)
"""Addresses that answer strangers, with nothing of a private row."""


def _ask(mixed: MixedMirror, stranger: str, what: str) -> Any:
    served, how = mixed.stranger(stranger)
    path, _, query = f"/2.0/{what}".partition("?")
    more = [part.split("=", 1) for part in query.split("&") if part]
    options = {**how, "params": {**dict(more), **how.get("params", {})}}
    return served.get(path, **options)


_NOBODY = [stranger for stranger in STRANGERS if stranger != "trusted user"]


@pytest.mark.parametrize("stranger", _NOBODY)
def test_strangers_see_no_private_byte(mixed: MixedMirror, stranger: str) -> None:
    """Hidden objects look missing, and answers contain nothing hidden except what the caller sent."""
    if stranger not in WITHOUT_CREDENTIAL:
        assert {_ask(mixed, stranger, what).status_code for what in (*HIDDEN, *SHOWN)} == {401}
        return
    missing = _ask(mixed, stranger, "repositories/jespern/nothing-there")
    for what in HIDDEN:
        answer = _ask(mixed, stranger, what)
        assert answer.status_code == 404, what
        assert answer.content == missing.content, what
    for what in SHOWN:
        answer = _ask(mixed, stranger, what)
        assert answer.status_code == 200, (what, answer.text)
        body = answer.json()
        for place in ("next", "previous"):  # which repeat what was asked
            body.pop(place, None)
        seen = [secret for secret in SECRETS if secret.lower() in repr(body).lower().encode()]
        assert not seen, (what, seen)


@pytest.mark.parametrize("stranger", _NOBODY)
def test_anonymous_requests_get_401_where_bitbucket_gives_it(mixed: MixedMirror, stranger: str) -> None:
    """For the caller's own objects and for members, with how to log in."""
    for what in ("user", "user/workspaces", "user/permissions/repositories", "workspaces/brodie/members"):
        answer = _ask(mixed, stranger, what)
        assert answer.status_code == 401, what
        assert "WWW-Authenticate" in answer.headers


@pytest.mark.parametrize("token", ["read", "write"])
def test_holders_of_a_token_see_everything(mixed: MixedMirror, token: str) -> None:
    """Everything that lives; tombstones are 404 for them too."""
    for headers in (bearer(mixed.tokens[token]), basic("whoever", mixed.tokens[token])):
        for what in (*HIDDEN, *SHOWN):
            answer = mixed.served.get(f"/2.0/{what}", headers=headers)
            assert answer.status_code == (404 if "buried" in what else 200), (what, answer.text)
        listed = mixed.served.json("/2.0/repositories?pagelen=100", headers=headers)
        names = {row["full_name"] for row in listed["values"]}
        assert {"jespern/arriving", "jespern/once-hidden", "brodie/hg-project"} <= names
        assert "brodie/buried-treasure" not in names
        assert listed["size"] == len(names)


def test_a_trusted_user_sees_their_own_and_their_workspaces(mixed: MixedMirror) -> None:
    """As owner or member; the counts of lists agree."""
    for user, theirs, foreign in (
        ("jespern", "jespern/arriving", "brodie/hg-project"),
        ("mcatalbas", "brodie/hg-project", "jespern/arriving"),
    ):
        headers = basic(user, "any")
        listed = mixed.trusting.json("/2.0/repositories?pagelen=100", headers=headers)
        names = {row["full_name"] for row in listed["values"]}
        assert theirs in names
        assert foreign not in names
        assert listed["size"] == len(names)
        assert mixed.trusting.get(f"/2.0/repositories/{foreign}", headers=headers).status_code == 404
        assert mixed.trusting.json("/2.0/user", headers=headers)["username"] == user
    mine = mixed.trusting.json("/2.0/user/permissions/repositories", headers=basic("mcatalbas", "any"))
    told = {row["repository"]["full_name"]: row["permission"] for row in mine["values"]}
    assert told == {
        "brodie/hg-project": "admin",
        "mcatalbas/codeigniter": "admin",
        "mcatalbas/copy": "admin",
    }
    members = "/2.0/workspaces/brodie/members"
    assert mixed.trusting.get(members, headers=basic("mcatalbas", "any")).status_code == 200
    assert mixed.trusting.get(members, headers=basic("jespern", "any")).status_code == 403


def test_size_counts_rows_that_the_caller_sees(mixed: MixedMirror) -> None:
    """Of all, of a workspace, of forks, by query: the size is the number of rows on all pages."""
    for headers in ({}, bearer(mixed.tokens["read"])):
        for what in ("repositories", "repositories/jespern", "repositories/brodie", "workspaces"):
            told = mixed.served.json(f"/2.0/{what}?pagelen=100", headers=headers)
            assert told["size"] == len(told["values"]), what
            asked = mixed.served.json(f"/2.0/{what}?pagelen=1&fields=size", headers=headers)
            assert asked == {"size": told["size"]}


def test_hidden_forks_are_not_counted(mixed_db: FixtureDb) -> None:
    """The upstream's number minus the forks that the caller may not see, also in conditions."""
    parent = repository("jespern/parent", forks_count=3)
    fork = {"parent_uuid": parent.uuid, "parent_full_name": parent.full_name}
    mixed_db.repositories([parent])
    mixed_db.repositories([repository("brodie/fork", owner("brodie"), is_private=True, **fork)])
    token = make_tokens(mixed_db.store)["read"]
    served: AsgiClient = client_of(mixed_db.path)
    for headers, count in (({}, 2), (bearer(token), 3)):
        assert served.json("/2.0/repositories/jespern/parent", headers=headers)["forks_count"] == count
        assert served.json("/1.0/repositories/jespern/parent", headers=headers)["forks_count"] == count
        listed = served.json("/2.0/repositories?q=forks_count=3&fields=values.full_name", headers=headers)
        assert (listed["values"] != []) == (count == 3)


def test_a_login_cookie_reads_and_an_access_token_in_the_address_too(mixed: MixedMirror) -> None:
    """As in API 1.0; answers to a token in the address are kept out of shared caches."""
    path = "/2.0/repositories/jespern/arriving"
    answer = mixed.served.get(path, params={"access_token": mixed.tokens["read"]})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "private, no-store"
