"""API 2.0's writes: JSON bodies reach the same writer as API 1.0's forms, and answers have 2.0's shape."""

from pathlib import Path
from typing import Any

import pytest
from filled import fill_mixed
from served import asking, bearer, make_tokens
from test_api1_writes import StoreWriter

from mirror.errors import UpstreamRefused
from mirror.serve.forms import RepositoryForm


class World:
    """A mirror that takes writes."""

    def __init__(self, path: Path) -> None:
        filled = fill_mixed(path)
        self.tokens = make_tokens(filled.store)
        self.writer = StoreWriter(filled)
        self.served = asking(path, writes=True, writer=self.writer)

    def __call__(self, method: str, what: str, *tokens: str, **options: Any) -> Any:
        """Write with a token, the one that may unless told."""
        return self.served(
            method, f"/2.0/{what}", headers=bearer(self.tokens[[*tokens, "write"][0]]), **options
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One for each test: they write."""
    return World(tmp_path / "mirror.db")


def test_a_repository_is_created_where_the_address_says(world: World) -> None:
    """The answer is the new repository in 2.0's shape; without an scm it is git."""
    answer = world("POST", "repositories/jespern/new", json={"is_private": True, "fork_policy": "no_forks"})
    assert answer.status_code == 200
    assert answer.json()["full_name"] == "jespern/new"
    assert answer.json()["type"] == "repository"
    (call,) = world.writer.calls
    assert call[:2] == ("create", "jespern/new")
    form = call[2]
    assert isinstance(form, RepositoryForm)
    assert (form.name, form.scm, form.is_private, form.no_forks) == ("new", "git", True, True)


@pytest.mark.parametrize(("name", "passed"), [("New", "New"), ("Quite another", "new")])
def test_a_name_gives_way_to_the_slug_of_the_address(world: World, name: str, passed: str) -> None:
    """Clients ask for the address that they wrote to, so a name that would lead elsewhere is not kept."""
    world("POST", "repositories/jespern/new", json={"name": name})
    form = world.writer.calls[0][2]
    assert form is not None
    assert form.name == passed


def test_a_repository_is_changed(world: World) -> None:
    """A new description is 200; a new name is 201 with the address it has moved to."""
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
    """The workspace is in the body, the name is the parent's unless it is told; without any owner, 400."""
    answer = world(
        "POST", "repositories/mcatalbas/codeigniter/forks", json={"workspace": {"slug": "dchambers"}}
    )
    assert answer.status_code == 201
    assert world.writer.calls[0][1] == "dchambers/CodeIgniter"
    refused = world("POST", "repositories/mcatalbas/codeigniter/forks", json={})
    assert refused.status_code == 400
    assert "workspace" in refused.json()["error"]["fields"]


@pytest.mark.parametrize(
    ("token", "status"), [("read", 403), ("revoked", 401), ("expired", 401), ("bad", 401), ("write", 200)]
)
def test_who_may_write(world: World, token: str, status: int) -> None:
    """Only tokens with the scope may, and nobody else reaches the writer."""
    assert world("POST", "repositories/jespern/new", token, json={}).status_code == status
    assert len(world.writer.calls) == (status == 200)


@pytest.mark.parametrize(
    "body", ["[1]", "{", '{"fork_policy": "maybe"}', '{"scm": "cvs"}', '{"is_private": "perhaps"}']
)
def test_bodies_that_cannot_be_read_are_refused(world: World, body: str) -> None:
    """400 in the form of 2.0's errors, before the writer is asked."""
    answer = world("POST", "repositories/jespern/new", content=body)
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert not world.writer.calls


def test_an_upstream_s_refusal_is_passed_on(world: World) -> None:
    """With its status, in the form of 2.0's errors."""
    world.writer.error = UpstreamRefused("Repository with this Slug and Owner already exists.", status=400)
    answer = world("POST", "repositories/jespern/new", json={})
    assert answer.status_code == 400
    assert answer.json() == {"type": "error", "error": {"message": str(world.writer.error)}}


def test_without_a_writer_nothing_is_written(tmp_path: Path) -> None:
    """405 that names what is allowed and how to change it, for everybody."""
    filled = fill_mixed(tmp_path / "mirror.db")
    token = make_tokens(filled.store)["write"]
    served = asking(tmp_path / "mirror.db", writes=True)
    for method in ("POST", "PUT", "DELETE"):
        answer = served(method, "/2.0/repositories/jespern/django-piston", headers=bearer(token))
        assert answer.status_code == 405
        assert "writes = true" in answer.json()["error"]["detail"]
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
