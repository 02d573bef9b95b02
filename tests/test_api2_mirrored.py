"""A mirror of a mirror: what one serves as API 2.0, another reads as Bitbucket Cloud, row by row."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from asgi_client import client_of
from fixtures_db import FixtureDb
from live_server import serving
from prepared_files import opened

from mirror.config import Config, UpstreamConfig
from mirror.operations import Control, SyncOptions, sync_all
from mirror.report import Summary
from mirror.sandbox import Sandbox, World, running
from mirror.store import Store, tokens

OWN = {
    "id", "upstream_id", "owner_id", "parent_id", "first_seen_at", "last_seen_at", "refs_synced_at",
    "refs_stale", "refs_known_since", "deleted_at", "gone_reason", "repository_id", "workspace_id", "user_id",
}  # fmt: skip
"""Columns in which a copy has its own values: numbers of rows, and when it saw them."""

COMPARED = {
    "users": "FROM users t WHERE t.deleted_at IS NULL ORDER BY t.uuid",
    "repositories": ", o.uuid, p.uuid FROM repositories t JOIN users o ON o.id = t.owner_id "
    "LEFT JOIN repositories p ON p.id = t.parent_id AND p.deleted_at IS NULL "
    "WHERE t.deleted_at IS NULL ORDER BY t.uuid",
    "branches": ", r.uuid FROM branches t JOIN repositories r ON r.id = t.repository_id "
    "WHERE r.deleted_at IS NULL ORDER BY r.uuid, t.name",
    "tags": ", r.uuid FROM tags t JOIN repositories r ON r.id = t.repository_id "
    "WHERE r.deleted_at IS NULL ORDER BY r.uuid, t.name",
    "members": ", w.uuid, u.uuid FROM members t JOIN users w ON w.id = t.workspace_id "
    "JOIN users u ON u.id = t.user_id ORDER BY w.uuid, u.uuid",
}


def synced(path: Path, url: str, secret: str | None = None, **said: Any) -> list[Summary]:
    """Sync a file from a server, as `mirror sync` does."""
    credential = None
    if secret is not None:
        path.with_suffix(".secret").write_text(secret)
        credential = f"file:{path.with_suffix('.secret')}"
    upstream = UpstreamConfig(
        **{"name": "other", "kind": "cloud", "url": url, "credential": credential, **said}
    )
    opened(path).close()
    config = Config(database=str(path), upstreams=(upstream,))
    return sync_all(config, SyncOptions(may_wait=False), Control())


def rows_of(path: Path, table: str) -> list[dict[str, Any]]:
    """Read what a copy must have alike; lists in JSON are alike however they are spaced."""
    with Store(path) as store:
        names = [row[1] for row in store.rows(f"PRAGMA table_info({table})") if row[1] not in OWN]
        listed = ", ".join(f"t.{name}" for name in names)
        rows = store.rows(f"SELECT {listed} {COMPARED[table]}")
    return [dict(zip([*names, "of", "with"], row, strict=False)) for row in rows]


def assert_copied(original: Path, copy: Path) -> None:
    """Compare everything that is alive in the original."""
    for table in COMPARED:
        told, kept = rows_of(original, table), rows_of(copy, table)
        assert len(kept) == len(told), table
        for one, other in zip(told, kept, strict=True):
            assert other == one, table


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of the sandbox, which has every oddity seen at Bitbucket."""
    path = tmp_path_factory.mktemp("original") / "mirror.db"
    with running(Sandbox(World(250))) as sandbox:
        (summary,) = synced(path, f"{sandbox.origin}/2.0", "sandbox", kind="sandbox")
    assert summary.state == "complete"
    return path


class Copied(NamedTuple):
    """A mirror of a mirror, and what its first two syncs did."""

    path: Path
    first: Summary
    again: Summary


@pytest.fixture(scope="module")
def copied(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Copied:
    """A copy by one token."""
    path = tmp_path_factory.mktemp("copied") / "copy.db"
    with Store(original) as store:
        token = tokens.create(store, "copier", "read")
    with serving(original) as address:
        (first,) = synced(path, f"{address}/2.0", token)
        assert first.state == "complete", (first.error, first.failures)
        assert_copied(original, path)
        (again,) = synced(path, f"{address}/2.0", token)
    return Copied(path, first, again)


def test_a_mirror_of_a_mirror_is_equal_to_it(original: Path, copied: Copied) -> None:
    """Users, members, repositories, branches, tags: every column but the copy's own, with one token."""
    assert_copied(original, copied.path)
    assert (copied.again.counts.repositories_new, copied.again.counts.repositories_changed) == (0, 0)
    assert copied.first.counts.repositories_new > 200


def test_a_mirror_of_a_mirror_of_a_mirror_is_equal(original: Path, copied: Copied, tmp_path: Path) -> None:
    """Nothing is lost on the way."""
    with Store(copied.path) as store:
        token = tokens.create(store, "copier", "read")
    with serving(copied.path) as address:
        synced(tmp_path / "copy.db", f"{address}/2.0", token)
    assert_copied(original, tmp_path / "copy.db")


def test_a_stranger_s_copy_holds_what_is_public(tmp_path: Path, mixed_db: FixtureDb) -> None:
    """Without a token, a copy of named workspaces gets only their public repositories."""
    mixed_db.store.close()
    with serving(mixed_db.path) as address:
        synced(tmp_path / "copy.db", f"{address}/2.0", workspaces=("jespern", "brodie", "dchambers"))
    names = {row["full_name"] for row in rows_of(tmp_path / "copy.db", "repositories")}
    assert names == {"jespern/django-piston", "dchambers/django-piston", "jespern/shown"}
    tags = {row["name"] for row in rows_of(tmp_path / "copy.db", "tags")}
    assert tags == {"0.2.1", "0.2.2", "0.2.3", "tip"}


def test_links_to_the_mirror_are_the_copy_s_own(tmp_path: Path, mixed_db: FixtureDb) -> None:
    """Of repositories, workspaces and accounts, alone and inside of each other."""
    mixed_db.store.close()
    with serving(mixed_db.path) as address:
        synced(tmp_path / "copy.db", f"{address}/2.0", workspaces=("jespern", "dchambers"))
    copy = client_of(tmp_path / "copy.db")
    for path in ("repositories/jespern", "workspaces", "workspaces/jespern", "users/jespern"):
        text = copy.get(f"/2.0/{path}").text
        shown = re.findall(r'"mirror": {"href": "([^"]*)"', text)
        assert shown, path
        assert all(link.startswith("http://localhost/-/") for link in shown), (path, shown)
