"""API 2.0's writes: JSON bodies reach the same writer as API 1.0's forms, and answers have 2.0's shape."""

from pathlib import Path
from typing import Any

import pytest
from asgi_client import bearer, client_of, make_tokens
from fake_writer import FakeWriter
from fixtures_db import FixtureDb, fill_mixed

from mirror.errors import UpstreamRefused
from mirror.model import RepositorySettings
from mirror.store import tokens


class World:
    """A mirror that takes writes."""

    def __init__(self, path: Path, user: str | None = None) -> None:
        filled = fill_mixed(path)
        self.tokens = make_tokens(filled.store)
        if user:
            self.tokens["write"] = tokens.create(filled.store, f"writes as {user}", "write", user=user)
        self.writer = FakeWriter(filled)
        self.served = client_of(path, writes=True, writer=self.writer)

    def __call__(self, method: str, what: str, who: str = "write", *, kind: str = "", **options: Any) -> Any:
        """Write with a token, the one that may unless told; `kind` is the type of the body."""
        headers = bearer(self.tokens[who]) | ({"Content-Type": kind} if kind else {})
        return self.served(method, f"/2.0/{what}", headers=headers, **options)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One for each test: they write."""
    return World(tmp_path / "mirror.db")


def test_a_repository_is_created_at_its_address(world: World) -> None:
    """The answer is the new repository in 2.0's form; without `scm` it is git."""
    answer = world("POST", "repositories/jespern/new", json={"is_private": True, "fork_policy": "no_forks"})
    assert answer.status_code == 200
    assert answer.json()["full_name"] == "jespern/new"
    assert answer.json()["type"] == "repository"
    (call,) = world.writer.calls
    assert call[:2] == ("create", "jespern/new")
    form = call[2]
    assert isinstance(form, RepositorySettings)
    assert (form.name, form.scm, form.is_private, form.fork_policy) == ("new", "git", True, "no_forks")


@pytest.mark.parametrize(("method", "slug"), [("POST", "new"), ("PUT", "django-piston")])
def test_what_terraform_sends_is_written(world: World, method: str, slug: str) -> None:
    """Its client, as others in Go, sends an empty type and the year 1 for dates that it does not set."""
    never = "0001-01-01T00:00:00Z"
    body = {"type": "", "created_on": never, "updated_on": never, "description": "x"}
    assert world(method, f"repositories/jespern/{slug}", json=body).status_code == 200
    (call,) = world.writer.calls
    assert call[2] is not None
    assert call[2].description == "x"


@pytest.mark.parametrize(("name", "passed"), [("New", "New"), ("Quite another", "new"), ("`New`", "`New`")])
def test_the_slug_of_the_address_wins_over_the_name(world: World, name: str, passed: str) -> None:
    """Clients read the address that they wrote to, so a name with another slug is not kept."""
    world("POST", "repositories/jespern/new", json={"name": name})
    form = world.writer.calls[0][2]
    assert form is not None
    assert form.name == passed


def test_a_repository_is_changed(world: World) -> None:
    """A new description is 200; a new name is 201 with the new address."""
    assert world("PUT", "repositories/jespern/django-piston", json={"description": "x"}).status_code == 200
    answer = world("PUT", "repositories/jespern/django-piston", json={"name": "piston"})
    assert answer.status_code == 201
    assert answer.headers["Location"] == "http://localhost/2.0/repositories/jespern/piston"


def test_a_repository_is_deleted_and_gone(world: World) -> None:
    """204 without a body, and 404 from then on."""
    answer = world("DELETE", "repositories/jespern/django-piston")
    assert (answer.status_code, answer.content) == (204, b"")
    assert world("GET", "repositories/jespern/django-piston").status_code == 404
    assert world("DELETE", "repositories/jespern/django-piston").status_code == 404


def test_a_repository_is_forked_into_a_workspace(world: World) -> None:
    """The body names the workspace; the default name is the parent's; without an owner it is 400."""
    answer = world(
        "POST", "repositories/mcatalbas/codeigniter/forks", json={"workspace": {"slug": "dchambers"}}
    )
    assert answer.status_code == 201
    assert world.writer.calls[0][1] == "dchambers/CodeIgniter"
    refused = world("POST", "repositories/mcatalbas/codeigniter/forks", json={})
    assert refused.status_code == 400
    assert "workspace" in refused.json()["error"]["fields"]


UUIDS = {"mcatalbas": "{mcatalbas-uuid}", "jespern": "%7Bjespern-uuid%7D"}


@pytest.mark.parametrize(
    "body",
    [
        {"workspace": {"uuid": UUIDS["mcatalbas"]}},
        {"workspace": {"uuid": UUIDS["mcatalbas"].strip("{}")}},
        {"workspace": UUIDS["mcatalbas"]},
        {"workspace": None, "owner": {"type": "team", "uuid": UUIDS["mcatalbas"]}},
        {"workspace": {"slug": "mcatalbas"}, "owner": {"uuid": "{of-a-person}"}},
    ],
    ids=str,
)
def test_a_workspace_is_named_by_its_uuid(world: World, body: dict[str, Any]) -> None:
    """The fork is created there, not at the caller; a creation may repeat its address."""
    forks = "repositories/jespern/django-piston/forks"
    assert world("POST", forks, json={**body, "name": "mine"}).status_code == 201
    assert world("POST", "repositories/mcatalbas/new", json=body).status_code == 200
    assert world("POST", f"repositories/{UUIDS['jespern']}/other", json={}).status_code == 200
    assert [call[1] for call in world.writer.calls] == ["mcatalbas/mine", "mcatalbas/new", "jespern/other"]


@pytest.mark.parametrize(
    "body",
    [
        {"workspace": {"uuid": "{nobody}"}},
        {"workspace": {"uuid": ""}},
        {"workspace": {"name": "mcatalbas"}},
        {"workspace": {}},
        {"workspace": []},
        {"workspace": ""},
        {"workspace": 7},
        {"workspace": {"slug": ["mcatalbas"]}},
        {"workspace": {"uuid": 5}},
        {"owner": {"uuid": "{nobody}"}},
        {"owner": {"display_name": "Somebody"}},
    ],
    ids=str,
)
def test_an_unknown_workspace_never_means_the_caller(tmp_path: Path, body: dict[str, Any]) -> None:
    """400 with the field, also for a token with a user; nothing is written."""
    world = World(tmp_path / "mirror.db", user="jespern")
    for path in ("repositories/mcatalbas/codeigniter/forks", "repositories/jespern/new"):
        answer = world("POST", path, json=body)
        assert answer.status_code == 400
        assert {"workspace", "owner"} & answer.json()["error"]["fields"].keys()
    assert not world.writer.calls


def test_contradicting_workspaces_are_refused(world: World) -> None:
    """An address and a body that contradict each other are refused; an unknown uuid in an address is 404."""
    body = {"workspace": {"slug": "mcatalbas"}}
    assert world("POST", "repositories/jespern/new", json=body).status_code == 400
    assert world("POST", "repositories/%7Bnobody%7D/new", json={}).status_code == 404
    assert not world.writer.calls


PISTON = "repositories/jespern/django-piston"
"""A repository of the world, as a path."""


@pytest.mark.parametrize("path", [PISTON, "repositories/jespern/arriving", "repositories/mcatalbas/copy"])
def test_what_was_read_is_sent_back_with_one_edit(world: World, path: str) -> None:
    """Clients read a repository, edit it and send all of it back: the edit is made."""
    told = world("GET", path).json()
    assert world("PUT", path, json={**told, "description": "Edited"}).status_code == 200
    sent = world.writer.calls[0][2]
    assert sent is not None
    assert (sent.description, sent.scm, sent.name) == ("Edited", None, told["name"])


@pytest.mark.parametrize(
    "sent",
    [
        {"owner": "jespern"},
        {"workspace": "{jespern-uuid}"},
        {"owner": {"username": "JESPERN"}},
        {"project": {}, "links": {"clone": None}, "uuid": None, "mainbranch": None},
        {"name": "Piston 2", "slug": "piston-2"},
        {
            "type": "repository",
            "updated_on": "2001-01-01",
            "links": {"html": {"href": "https://example.com"}},
        },
        {"created_on": "2012-03-04T05:06:07Z", "owner": {"created_on": "0001-01-01T00:00:00Z"}},
    ],
    ids=str,
)
def test_what_says_nothing_else_is_taken(world: World, sent: dict[str, Any]) -> None:
    """A single part, null, and values that depend on the caller or the time, or are dates."""
    assert world("PUT", PISTON, json=sent).status_code == (201 if "name" in sent else 200)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("owner", {"display_name": "Somebody"}),
        ("owner", "mcatalbas"),
        ("workspace", {"slug": "mcatalbas"}),
        ("scm", "git"),
        ("uuid", "{another}"),
        ("full_name", "jespern/other"),
        ("slug", "other"),
        ("mainbranch", {"name": "x"}),
        ("mainbranch", "x"),
        ("size", 7),
        ("size", []),
    ],
)
def test_what_cannot_be_changed_is_refused_by_name(world: World, name: str, value: Any) -> None:
    """Settings in the same body are not written either."""
    answer = world("PUT", PISTON, json={name: value, "description": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["fields"] == {name: ["This field cannot be changed."]}
    assert not world.writer.calls


@pytest.mark.parametrize(
    "slug",
    ["with%20space", "%7Bx%7D", "%2e%2e%2Fx", "%2e%2e", "-x", "x-", "%C3%BC", "%E2%84%AA", "x" * 63, "a'b"],
)
def test_an_address_that_ends_in_no_slug_makes_nothing(world: World, slug: str) -> None:
    """400, because the repository would get another name."""
    for body in ({}, {"name": "x"}):
        assert world("POST", f"repositories/jespern/{slug}", json=body).status_code == 400
    assert not world.writer.calls


@pytest.mark.parametrize("slug", ["A.b_c-1", ".x", "x" * 62])
def test_an_address_that_ends_in_a_slug_makes_it(world: World, slug: str) -> None:
    """In upper or lower case."""
    assert world("POST", f"repositories/jespern/{slug}", json={}).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("", 200),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_a_body_needs_a_json_content_type(world: World, kind: str, status: int) -> None:
    """Or none; a body of another type is not read, an empty body needs no type."""
    path = "repositories/jespern/new"
    assert world("POST", path, kind=kind, content='{"description": "x"}').status_code == status
    assert len(world.writer.calls) == (status == 200)
    assert world("PUT", "repositories/jespern/django-piston", kind="text/plain").status_code == 200


@pytest.mark.parametrize(
    ("token", "status"), [("read", 403), ("revoked", 401), ("expired", 401), ("bad", 401), ("write", 200)]
)
def test_only_tokens_with_the_scope_may_write(world: World, token: str, status: int) -> None:
    """Only tokens with the scope; for others the writer is not called."""
    assert world("POST", "repositories/jespern/new", token, json={}).status_code == status
    assert len(world.writer.calls) == (status == 200)


@pytest.mark.parametrize(
    "body",
    [
        "[1]",
        "{",
        '{"fork_policy": "maybe"}',
        '{"fork_policy": []}',
        '{"fork_policy": {}}',
        '{"scm": "cvs"}',
        '{"is_private": "perhaps"}',
        '{"name": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"name": ' + '{"a": ' * 30_000 + "1" + "}" * 30_000 + "}",
    ],
    ids=lambda body: body[:30],
)
def test_unreadable_bodies_are_refused(world: World, body: str) -> None:
    """400 in the form of 2.0's errors, before the writer is asked."""
    for method, slug in (("POST", "new"), ("PUT", "django-piston")):
        answer = world(method, f"repositories/jespern/{slug}", content=body)
        assert answer.status_code == 400
        assert answer.json()["type"] == "error"
    assert not world.writer.calls


def test_the_upstreams_refusal_is_passed_on(world: World) -> None:
    """With its status, in the form of 2.0's errors."""
    world.writer.error = UpstreamRefused("Repository with this Slug and Owner already exists.", status=400)
    answer = world("POST", "repositories/jespern/new", json={})
    assert answer.status_code == 400
    assert answer.json() == {"type": "error", "error": {"message": str(world.writer.error)}}


def test_a_refusal_carries_the_upstreams_message(world: World) -> None:
    """Once, with its field errors and without the upstream's address, in both APIs."""
    world.writer.error = UpstreamRefused(
        "https://api.bitbucket.org/2.0/repositories/a/b: 400: Bad request; name: Too long.",
        status=400,
        words="Bad request",
        fields={"name": "Too long."},
    )
    answer = world("POST", "repositories/jespern/new", json={})
    error = {"message": "Bad request", "fields": {"name": ["Too long."]}}
    assert (answer.status_code, answer.json()) == (400, {"type": "error", "error": error})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", PISTON),
        ("POST", "repositories/jespern/new"),
        ("POST", "repositories/mcatalbas/codeigniter/forks"),
    ],
)
@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"project": {"key": "K"}}, "project"),
        ({"colour": "red", "description": "x"}, "colour"),
        ({"description": {"raw": "x"}}, "description"),
        ({"is_private": [True]}, "is_private"),
        ({"x" * 300: 1}, "x" * 100),
    ],
)
def test_settings_that_are_not_passed_on_are_refused_by_name(
    world: World, method: str, path: str, body: Any, named: str
) -> None:
    """Nothing is written in part; an unreadable value does not count as a missing one."""
    answer = world(method, path, json={"workspace": {"slug": "jespern"}, **body})
    assert answer.status_code == 400
    assert list(answer.json()["error"]["fields"]) == [named]
    assert not world.writer.calls


def test_writes_need_a_writer(mixed_db: FixtureDb) -> None:
    """405 for all callers, with the allowed methods and how to change that."""
    token = make_tokens(mixed_db.store)["write"]
    served = client_of(mixed_db.path, writes=True)
    for method in ("POST", "PUT", "DELETE"):
        answer = served(method, "/2.0/repositories/jespern/django-piston", headers=bearer(token))
        assert answer.status_code == 405
        assert "writes = true" in answer.json()["error"]["detail"]
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
