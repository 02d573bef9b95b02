"""A mirror of a mirror by Data Center's API: the same repositories and refs, from any first upstream."""

from pathlib import Path
from typing import Any

import pytest
from live_server import serving
from test_api2_mirrored import synced

from mirror.sandbox import Sandbox, World, running
from mirror.store import Store, tokens

NAME = "lower(ltrim(r.full_name, '~'))"
ALIKE = {
    "repositories": f"""SELECT {NAME}, r.slug, r.name, r.scm, r.is_private, r.description, r.archived,
            r.clone_ssh, r.clone_https, r.fork_policy = 'no_forks', lower(ltrim(r.parent_full_name, '~')),
            r.main_branch IN (SELECT name FROM branches WHERE repository_id = r.id), r.refs_synced_at IS NULL
        FROM repositories r WHERE r.deleted_at IS NULL ORDER BY 1""",
    "branches": f"""SELECT {NAME}, b.name, b.target_hash, substr(b.target_date, 1, 23), b.target_author,
            b.target_author_name, b.target_message, json(b.target_parents), b.name = r.main_branch
        FROM branches b JOIN repositories r ON r.id = b.repository_id
        WHERE r.deleted_at IS NULL ORDER BY 1, 2""",
    "tags": f"""SELECT {NAME}, t.name, t.target_hash
        FROM tags t JOIN repositories r ON r.id = t.repository_id
        WHERE r.deleted_at IS NULL ORDER BY 1, 2""",
    "members": """SELECT lower(ltrim(w.username, '~')), lower(u.username), m.permission
        FROM members m JOIN users w ON w.id = m.workspace_id JOIN users u ON u.id = m.user_id
        ORDER BY 1, 2""",
}
"""What an original and its copy have alike, as far as this API tells it."""

OWN = """SELECT uuid, full_name, parent_uuid, project_uuid, project_key, project_name FROM repositories
    WHERE deleted_at IS NULL ORDER BY uuid"""
"""What a copy has alike besides, where the original is of a Data Center."""


def rows(path: Path, sql: str) -> list[Any]:
    """Read from a mirror's file."""
    with Store(path) as store:
        return [tuple(row) for row in store.rows(sql)]


def copied(original: Path, copy: Path) -> None:
    """Sync a copy from a served mirror, twice: the second time finds nothing new."""
    with Store(original) as store:
        token = tokens.create(store, "copier", "read")
    with serving(original) as address:
        for news in (True, False):
            (summary,) = synced(copy, address, token, kind="datacenter")
            assert (summary.state, summary.failures) == ("complete", []), summary.error
            assert (summary.counts.repositories_new > 0) is news
            assert summary.counts.repositories_changed == 0


@pytest.mark.parametrize("kind", ["sandbox", "datacenter"])
def test_a_mirror_of_a_mirror_is_equal_to_it(tmp_path: Path, kind: str) -> None:
    """Of Cloud and of a Data Center: repositories, forks, branches with their commits, tags, members."""
    first, copy = tmp_path / "first.db", tmp_path / "copy.db"
    with running(Sandbox(World(120))) as sandbox:
        address = f"{sandbox.origin}/2.0" if kind == "sandbox" else sandbox.origin
        (summary,) = synced(first, address, "sandbox", kind=kind)
    assert summary.state == "complete"
    copied(first, copy)
    for what, sql in ALIKE.items():
        told, kept = rows(first, sql), rows(copy, sql)
        assert len(told) == len(kept), what
        for one, other in zip(told, kept, strict=True):
            assert other == one, what
    assert (rows(first, OWN) == rows(copy, OWN)) is (kind == "datacenter")


def test_a_copy_of_a_copy_keeps_its_identities(tmp_path: Path, public_path: Path) -> None:
    """Ids are passed on, so the third mirror equals the second."""
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    copied(public_path, first)
    copied(first, second)
    assert rows(first, OWN) == rows(second, OWN)
    for what, sql in ALIKE.items():
        assert rows(public_path, sql) == rows(second, sql), what


def test_an_anonymous_copy_holds_the_public_part(tmp_path: Path, mixed_path: Path) -> None:
    """Without a token and without named projects; refs that the original has not read are failures."""
    with serving(mixed_path) as address:
        (summary,) = synced(tmp_path / "copy.db", address, kind="datacenter")
    assert {failure.kind for failure in summary.failures} == {"refs"}
    public = f"SELECT {NAME} FROM repositories r WHERE r.deleted_at IS NULL AND r.is_private = 0 ORDER BY 1"
    assert rows(tmp_path / "copy.db", public) == rows(mixed_path, public)
    assert not rows(tmp_path / "copy.db", "SELECT 1 FROM repositories WHERE is_private")
