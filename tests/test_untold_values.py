"""Values that no upstream sent are null or absent: no zero, no empty list, no invented identity."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from asgi_client import AsgiClient, client_of
from fixtures_db import FixtureDb, owner, repository
from older_files import MIGRATIONS
from sqlite_utils import Database

from mirror.model import Ref
from mirror.store.migrations import migrations
from mirror.upstream import api1, datacenter_decode

BARE = repository(
    "team/bare",
    owner("team"),
    description=None,
    website=None,
    language=None,
    size=None,
    has_issues=None,
    has_wiki=None,
    fork_policy=None,
    created_at=None,
    updated_at=None,
    main_branch=None,
)
AUTHORS = (
    Ref(kind="branch", name="main", target_hash="a" * 40, target_author="Jane Doe <jane@example.com>"),
    Ref(kind="tag", name="v1", target_hash="b" * 40),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiClient]:
    """A repository of which only the name is known, beside one of a Data Center."""
    filled = FixtureDb(tmp_path_factory.mktemp("untold") / "mirror.db")
    project = datacenter_decode.ProjectJson(key="PRJ", id=8, name="Project")
    there = datacenter_decode.to_repository(
        datacenter_decode.RepositoryJson(slug="tool", id=3, project=project, public=True)
    )
    fork = repository("team/fork", parent_uuid="{elsewhere}", parent_full_name="other/elsewhere")
    filled.repositories((BARE, there, fork))
    filled.refs("team/bare", AUTHORS)
    served = client_of(filled.store.path)
    yield served
    filled.store.close()


def test_api_1_serves_a_minimal_repository(served: AsgiClient) -> None:
    """Numbers, flags, texts and dates are null, also in search."""
    told = served.json("/1.0/repositories/team/bare")
    for key in (
        *("followers_count", "forks_count", "size", "has_wiki", "has_issues", "no_forks", "no_public_forks"),
        *("description", "website", "language", "logo", "created_on", "last_updated", "utc_created_on"),
    ):
        assert told[key] is None, key
    (found,) = served.json("/1.0/repositories?name=bare")["repositories"]
    assert (found["followers_count"], found["description"]) == (None, None)


def test_unknown_lists_are_not_empty_lists(served: AsgiClient) -> None:
    """Followers of a repository and of a user are 501; forks are the upstream's number."""
    assert served.get("/1.0/repositories/team/bare/followers").status_code == 501
    assert served.get("/2.0/repositories/team/bare/watchers").status_code == 501
    assert served.get("/1.0/users/team/followers").status_code == 501
    assert served.json("/1.0/repositories/team/bare/forks")["count"] is None


def test_an_owner_without_details_is_served(served: AsgiClient) -> None:
    """No name, picture, status or visibility is invented."""
    user = served.json("/1.0/users/team")["user"]
    assert [user[key] for key in ("first_name", "last_name", "display_name", "avatar")] == [None] * 4
    assert "account_status" not in served.json("/2.0/users/team")
    workspace = served.json("/2.0/workspaces/team")
    assert "is_private" not in workspace
    assert (workspace["name"], workspace["created_on"]) == (None, None)
    assert "avatar" not in workspace["links"]


def test_an_author_without_account_is_not_a_user(served: AsgiClient) -> None:
    """2.0 has only the author line, if any; unknown parents are null."""
    branch, tag = served.json("/2.0/repositories/team/bare/refs")["values"]
    assert branch["target"]["author"] == {"type": "author", "raw": "Jane Doe <jane@example.com>"}
    assert tag["target"]["author"] is None
    changeset = served.json("/1.0/repositories/team/bare/branches")["main"]
    assert (changeset["author"], changeset["parents"]) == ("Jane Doe", None)


@pytest.mark.parametrize(
    ("author", "raw", "account"),
    [
        ("Jane Doe", "Jane Doe <jane@example.com>", None),
        ("jane", "jane", None),
        ("Jane Doe", None, None),
        ("jdoe", "Jane Doe <jane@example.com>", "jdoe"),
        (None, "Jane Doe <jane@example.com>", None),
        (None, None, None),
    ],
)
def test_api_1_names_an_account_or_repeats_the_line(
    author: str | None, raw: str | None, account: str | None
) -> None:
    """The name in the line is no account's; the line is kept, so 1.0 shows the same author."""
    row = {"name": "default", "changeset": {"raw_node": "a" * 40, "author": author, "raw_author": raw}}
    ref = api1.to_ref(msgspec.convert(row, api1.NamedChangesetJson), "branch")
    assert ref.target_author_name == account
    assert ref.target_author == (raw or author)


def test_a_number_is_not_a_uuid(served: AsgiClient) -> None:
    """Data Center's numbers are not shown as uuids, in answers or queries."""
    told = served.json("/2.0/repositories/PRJ/tool")
    assert told["project"] == {**told["project"], "key": "PRJ", "uuid": None}
    assert (told["uuid"], told["workspace"]["uuid"]) == (None, None)
    assert "id:" not in json.dumps(told)
    found = served.json('/2.0/repositories?q=project.uuid="id:8"')
    assert found["values"] == []


def test_a_parent_that_is_not_mirrored_has_no_name(served: AsgiClient) -> None:
    """Only its full name is known; strangers see nothing of it."""
    assert served.json("/2.0/repositories/team/fork")["parent"] is None


def test_authors_stored_as_accounts_by_older_versions_are_corrected(tmp_path: Path) -> None:
    """Names repeated from the author line, only of API 1.0, only whole names."""
    connection = sqlite3.connect(tmp_path / "mirror.db")
    db = Database(connection, execute_plugins=False)
    migrations.apply(db, stop_before=next(name for name in MIGRATIONS if "authors_without" in name))
    connection.executescript(
        """INSERT INTO upstreams (id, name, kind, url)
            VALUES (1, 'old', 'legacy', ''), (2, 'new', 'cloud', '');
        INSERT INTO users (id, upstream_id, uuid, kind, first_seen_at, last_seen_at)
            VALUES (1, 1, 'u', 'user', '', ''), (2, 2, 'u', 'user', '', '');
        INSERT INTO repositories (id, upstream_id, uuid, owner_id, slug, name, full_name, is_private,
            first_seen_at, last_seen_at) VALUES (1, 1, 'r', 1, '', '', '', 0, '', ''),
            (2, 2, 'r', 2, '', '', '', 0, '', '')"""
    )
    connection.executemany(
        """INSERT INTO tags (repository_id, name, target_hash, target_author, target_author_name)
            VALUES (?, ?, '', ?, ?)""",
        [
            (1, "a", "Jane <j@x>", "Jane"),
            (1, "b", "Jane", "Jane"),
            (1, "c", "Jane <j@x>", "jdoe"),
            (1, "d", "J_ne Doe <j@x>", "J_ne"),
            (2, "e", "Jane <j@x>", "Jane"),
        ],
    )
    migrations.apply(db)
    names = connection.execute("SELECT target_author_name FROM tags ORDER BY name").fetchall()
    assert [name for (name,) in names] == [None, None, "jdoe", "J_ne", "Jane"]
    connection.close()
