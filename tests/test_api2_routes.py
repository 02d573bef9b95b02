"""API 2.0 over HTTP: addresses, names, links, pages, fields, order, errors; as clients use it."""

from pathlib import Path
from typing import Any

import pytest
from filled import PISTON, PISTON_REFS, SEEN, Filled, fill_mixed
from served import Asking, asking, bearer, make_tokens

PREFIXES = ("/2.0", "/api/2.0", "/!api/2.0", "/%21api/2.0")


class World:
    """A served mirror, the store behind it, and tokens."""

    def __init__(self, filled: Filled) -> None:
        self.filled = filled
        self.tokens = make_tokens(filled.store)
        self.served: Asking = asking(filled.store.path)

    def get(self, what: str, **options: Any) -> Any:
        """Ask for JSON that must be there."""
        return self.served.json(f"/2.0/{what}", **options)

    def refusal(self, status: int, what: str, **options: Any) -> Any:
        """Ask for what must be refused with a status, and return the error."""
        answer = self.served.get(f"/2.0/{what}", **options)
        assert answer.status_code == status, (what, answer.status_code, answer.text[:300])
        body = answer.json()
        assert body["type"] == "error"
        return body["error"]

    def names(self, what: str, **options: Any) -> list[str]:
        """List the full names on a page."""
        return [row["full_name"] for row in self.get(what, **options)["values"]]

    def holding(self, token: str) -> dict[str, Any]:
        """Options to ask as the holder of a token."""
        return {"headers": bearer(self.tokens[token])}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once; tests that write make their own."""
    return World(fill_mixed(tmp_path_factory.mktemp("world") / "mirror.db"))


ROUTES = (
    "repositories",
    "repositories/jespern",
    "repositories/%7Bjespern-uuid%7D",
    "repositories/jespern/django-piston",
    "repositories/JESPERN/Django-Piston",
    "repositories/jespern/%7Bjespern%2Fdjango-piston%7D",
    "repositories/jespern/django-piston/refs",
    "repositories/jespern/django-piston/refs/branches",
    "repositories/jespern/django-piston/refs/branches/default",
    "repositories/jespern/django-piston/refs/tags",
    "repositories/jespern/django-piston/refs/tags/0.2.1",
    "repositories/jespern/django-piston/forks",
    "repositories/jespern/django-piston/watchers",
    "workspaces",
    "workspaces/jespern",
    "workspaces/%7Bjespern-uuid%7D",
    "workspaces/jespern/members",
    "user",
    "user/workspaces",
    "user/permissions/repositories",
    "users/jespern",
    "users/%7Bjespern-uuid%7D",
)


@pytest.mark.parametrize("route", ROUTES)
def test_every_address_answers_under_every_prefix_with_and_without_a_slash(world: World, route: str) -> None:
    """No prefix and no slash is redirected, and all of them give the same but for the links."""
    answers = [
        world.served.get(f"{prefix}/{route}{slash}", **world.holding("user"))
        for prefix in PREFIXES
        for slash in ("", "/")
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    bodies = {
        answer.text.replace("/!api/2.0", "/2.0").replace("/%21api/2.0", "/2.0").replace("/api/2.0", "/2.0")
        for answer in answers
    }
    assert len(bodies) == 1


def test_answers_tell_their_age(world: World) -> None:
    """When the mirror last saw what it tells is in the headers, as a moment and in seconds."""
    answer = world.served.get("/2.0/repositories/jespern/django-piston")
    assert answer.headers["X-Mirror-Synced-At"] == SEEN
    assert int(answer.headers["Age"]) > 0


def test_a_repository_is_told_as_its_upstream_told_it(world: World) -> None:
    """The values of a row come back under Bitbucket's names."""
    told = world.get("repositories/jespern/django-piston")
    assert told["uuid"] == PISTON.uuid
    assert told["size"] == PISTON.size
    assert told["mainbranch"] == {"type": "named_branch", "name": "default"}
    assert told["created_on"] == "2011-11-20T18:25:29.000000+00:00"


def test_refs_come_in_the_byte_order_of_their_names(world: World) -> None:
    """Branches and tags are one list, sorted as Bitbucket sorts it without being told."""
    told = world.get("repositories/jespern/django-piston/refs")
    assert [ref["name"] for ref in told["values"]] == sorted(ref.name for ref in PISTON_REFS)


def test_what_is_not_there_is_refused_in_the_form_of_the_api(world: World, tmp_path: Path) -> None:
    """Missing repositories, workspaces, refs and addresses are 404 with type and message."""
    for route in ("repositories/jespern/none", "repositories/nobody", "workspaces/nobody", "users/nobody"):
        assert world.refusal(404, route)["message"]
    error = world.refusal(404, "repositories/jespern/django-piston/src")
    assert error == {"message": "Resource not found", "detail": "There is no API hosted at this URL"}
