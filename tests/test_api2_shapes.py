"""API 2.0's shapes, compared key by key with recorded answers and with Bitbucket's published schemas."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, bearer, client_of
from fixtures_db import FixtureDb, hg_ref, owner, repository

from mirror.model import Member
from mirror.queries.accounts import owner_named
from mirror.queries.repositories import repository_by_id
from mirror.queries.visibility import OPERATOR
from mirror.serve.api2.shapes import ApiLinks, Shapes
from mirror.store import tokens
from mirror.store.owners import save_members

RECORDED = Path(__file__).parent.parent.parent / "shared" / "recorded" / "cloud2"
DOCUMENT = RECORDED / "MunifTanjim-node-bitbucket" / "bitbucket-cloud-swagger-assembled.json"
SAMPLES: dict[str, Any] = json.loads((Path(__file__).parent / "answers/api2/samples.json").read_text())
"""Recorded answers, cut to their keys and types, so that they can be compared with everywhere."""

UNKNOWN = {
    "repository": {"override_settings", "links.issues", "project.links.avatar"},
    "branch": {
        "merge_strategies", "default_merge_strategy", "target.author.user.account_id",
        "target.author.user.nickname", "target.author.user.links.avatar", "target.author.user.links.html",
        "target.links.html", "target.links.diff", "target.links.approve", "target.links.comments",
        "target.links.statuses", "target.parents.links.html",
    },
    "workspace": {"is_private", "is_privacy_enforced", "forking_mode", "links.hooks", "links.html_overview"},
}  # fmt: skip
UNKNOWN["tag"] = UNKNOWN["branch"] | {
    "tagger.user",
    *(f"target.author.user.{key}" for key in ("created_on", "kind", "account_status")),
}
"""What Bitbucket tells and the mirror does not know; docs/api-2.0.md lists it too."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FixtureDb]:
    """One repository with all values, one without any, and a fork."""
    made = FixtureDb(tmp_path_factory.mktemp("shapes") / "mirror.db")
    uuid = "{4115785a-a1b9-4887-9af2-ca401bc7f168}"
    known = owner(
        "known", uuid=uuid, display_name="Known", nickname="known", account_id="557058:x",
        avatar_url="https://example.com/a.png", created_at="2011-12-20T16:34:07.132459Z",
    )  # fmt: skip
    full = repository(
        "known/full", known, uuid="{b8313f5b-2134-488d-9aca-830fb95206c5}", description="All", language="go",
        project_key="OS", project_name="Open", project_uuid="{e5abc9b3-0ac5-4ae9-add6-a817b1fea161}",
        avatar_url="https://example.com/r.png", clone_https="https://bitbucket.org/known/full.git",
        clone_ssh="git@bitbucket.org:known/full.git", followers_count=3, forks_count=1,
    )  # fmt: skip
    bare = repository(
        "bare/bare", owner("bare", uuid="name:bare", kind="workspace"), uuid="name:bare/bare", scm=None,
        description=None, website=None, language=None, size=None, main_branch=None, fork_policy=None,
        has_issues=None, has_wiki=None, created_at=None, updated_at=None,
    )  # fmt: skip
    fork = repository("bare/fork", bare.owner, parent_uuid=full.uuid, parent_full_name=full.full_name)
    made.repositories([full, bare, fork])
    made.refs(
        "known/full",
        [
            hg_ref("branch", "feature/x", "a", target_author_uuid=uuid, target_author_name="Known"),
            hg_ref("branch", "default", "b", heads=("b" * 40,)),
            hg_ref("tag", "light", "c", target_author_name=None, target_author_uuid=None),
            hg_ref("tag", "v1", "c", tagger="K <k@e.com>", message="One", date="2023-11-06T14:53:55.000000Z"),
            hg_ref(
                "tag", "git", "d", target_date=None, target_author=None, target_author_name=None,
                target_author_uuid=None, target_message=None, target_parents=None,
            ),
        ],
    )  # fmt: skip
    with made.store.transaction() as connection:
        (row,) = connection.execute("SELECT id FROM users WHERE username = 'known'").fetchone()
        save_members(
            connection, made.upstream_id, row, [Member(user=known, permission="owner")],
            seen_at="2026-11-01T12:00:00.000000Z",
        )  # fmt: skip
        connection.execute("INSERT INTO followers SELECT 1, id FROM users")
    yield made
    made.store.close()


class World:
    """The file served, asked with a token that speaks for `known`."""

    def __init__(self, filled: FixtureDb) -> None:
        self._served: AsgiClient = client_of(filled.store.path)
        self._token = tokens.create(filled.store, "known", "read", user="known")

    def __call__(self, what: str) -> Any:
        """Ask for JSON that must be there."""
        return self._served.json(f"/2.0/{what}", headers=bearer(self._token))


@pytest.fixture(scope="module")
def ask(filled: FixtureDb) -> World:
    """Made once."""
    return World(filled)


def _typed(value: Any, path: str = "") -> Iterator[tuple[str, type]]:
    """List every path of a value and the type that stands there; the items of lists are alike."""
    if isinstance(value, dict):
        for key, item in value.items():
            where = f"{path}.{key}".strip(".")
            yield where, type(item)
            yield from _typed(item, where)
    elif isinstance(value, list):
        for item in value:
            yield from _typed(item, path)


TOLD = {
    "repository": "repositories/known/full",
    "branch": "repositories/known/full/refs/branches/feature/x",
    "tag": "repositories/known/full/refs/tags/v1",
    "workspace": "workspaces/known",
    "workspace_access": "user/workspaces?q=workspace.slug=%22known%22",
}


@pytest.mark.parametrize("kind", TOLD)
def test_recorded_objects_are_served_in_full(ask: World, kind: str) -> None:
    """Every recorded key has a value of the same type, except for data that no mirror has."""
    told = ask(TOLD[kind])
    told = dict(_typed(told["values"][0] if "values" in told else told))
    recorded = {path: name for path, name in SAMPLES[kind].items() if name != "NoneType"}
    missing = {path for path in recorded if path not in told}
    unknown = UNKNOWN.get(kind, set())
    assert {
        path for path in missing if not any(path == one or path.startswith(f"{one}.") for one in unknown)
    } == set()
    assert {path for path in recorded if path in told and told[path].__name__ != recorded[path]} == set()


def _types(body: Any) -> Iterator[Any]:
    if isinstance(body, dict):
        yield body
        for value in body.values():
            yield from _types(value)
    elif isinstance(body, list):
        for value in body:
            yield from _types(value)


EVERYTHING = (
    "repositories", "repositories/known", "repositories/known/full", "repositories/bare/bare",
    "repositories/known/full/refs", "repositories/known/full/refs/branches",
    "repositories/known/full/refs/tags", "repositories/known/full/refs/tags/git",
    "repositories/known/full/forks", "repositories/known/full/watchers",
    "workspaces", "workspaces/known", "workspaces/known/members", "user", "user/workspaces",
    "user/permissions/repositories", "users/known", "users/bare", "teams/bare",
)  # fmt: skip


@pytest.mark.parametrize("what", EVERYTHING)
def test_every_object_has_a_type(ask: World, what: str) -> None:
    """All except links and pages."""
    for one in _types(ask(what)):
        if not {"href", "self", "values", "pagelen"} & set(one) and one:
            assert "type" in one, one


def test_unknown_uuids_are_null(ask: World) -> None:
    """The mirror's own identities are not shown."""
    bare = ask("repositories/bare/bare")
    assert bare["uuid"] is bare["workspace"]["uuid"] is None
    assert "uuid" not in bare["owner"]
    assert ask("users/bare")["uuid"] is None
    assert "name:" not in json.dumps([ask(what) for what in EVERYTHING])


def test_unknown_values_are_null(ask: World) -> None:
    """They are neither left out nor guessed."""
    bare = ask("repositories/bare/bare")
    for key in (
        "description",
        "website",
        "language",
        "size",
        "mainbranch",
        "parent",
        "project",
        "created_on",
    ):
        assert bare[key] is None
    assert bare["links"]["clone"] == []
    git = ask("repositories/known/full/refs/tags/git")
    assert (git["target"]["date"], git["target"]["author"], git["target"]["parents"]) == (None, None, None)
    assert git["target"]["hash"] == "d" * 40


def test_a_fork_names_its_parent(ask: World) -> None:
    """In short, with links."""
    parent = ask("repositories/bare/fork")["parent"]
    assert parent["full_name"] == "known/full"
    assert parent["uuid"] == "{b8313f5b-2134-488d-9aca-830fb95206c5}"
    assert parent["links"]["self"]["href"] == "http://localhost/2.0/repositories/known/full"


def test_a_mercurial_branch_has_heads(ask: World) -> None:
    """And another type."""
    told = ask("repositories/known/full/refs/branches/default")
    assert told["type"] == "named_branch"
    assert [head["hash"] for head in told["heads"]] == ["b" * 40]


def test_answers_share_the_shaped_owner(filled: FixtureDb) -> None:
    """Shaping it again for each answer would cost more than the rest of a short one."""
    with closing(sqlite3.connect(filled.store.path)) as connection:
        row = repository_by_id(connection, OPERATOR, 1)
        account = owner_named(connection, OPERATOR, "known")
    assert row is not None
    assert account is not None
    one, other = (
        Shapes(ApiLinks("http://localhost", "http://localhost/2.0")).repository(row, account) for _ in "ab"
    )
    assert one["owner"] is other["owner"]


SCHEMAS = {
    "repositories": "paginated_repositories",
    "repositories/known": "paginated_repositories",
    "repositories/known/full": "repository",
    "repositories/known/full/refs": "paginated_refs",
    "repositories/known/full/refs/branches": "paginated_branches",
    "repositories/known/full/refs/branches/feature/x": "branch",
    "repositories/known/full/refs/tags": "paginated_tags",
    "repositories/known/full/refs/tags/v1": "tag",
    "repositories/known/full/forks": "paginated_repositories",
    "repositories/known/full/watchers": "paginated_accounts",
    "workspaces": "paginated_workspaces",
    "workspaces/known": "workspace",
    "workspaces/known/members": "paginated_workspace_memberships",
    "user/permissions/repositories": "paginated_repository_permissions",
    "user": "user",
    "users/known": "user",
    "teams/bare": "team",
}
LISTED = (
    "None is not of type",  # what nobody knows is null, as `website`, `parent` and others are in answers
    "None is not one of",
    "'branches', 'mirror', 'source', 'tags' were unexpected",  # recorded, and the mirror's own page
    "Additional properties are not allowed ('mirror' was unexpected)",
    "Additional properties are not allowed ('self' was unexpected)",  # recorded, of projects
)
"""Where answers differ from the published schemas; docs/api-2.0.md has the same list."""


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the published description is not here")
@pytest.mark.parametrize("what", SCHEMAS)
def test_answers_keep_to_the_published_schemas(ask: World, what: str) -> None:
    """All differences are of the listed kinds."""
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(DOCUMENT.read_text())
    schema = {"$ref": f"#/definitions/{SCHEMAS[what]}", "definitions": document["definitions"]}
    validator = jsonschema.Draft4Validator(schema)
    differences = {error.message for error in validator.iter_errors(ask(what))}
    assert {one for one in differences if not any(kind in one for kind in LISTED)} == set()
