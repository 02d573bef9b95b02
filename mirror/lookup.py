"""Reading one thing: a repository with its refs, the changes since a moment. Read-only, no network."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

REFS_READ, REFS_NOT_MIRRORED = "read", "not mirrored"


def refs_state(alias: str) -> str:
    """Return the SQL that says whether the refs of a repository were read.

    One of "read" (once, in full; `refs_synced_at` says when last), "not read yet", "never read" (it is gone),
    "not mirrored" (the upstream is configured with ``refs = "none"``).
    """
    return f"""CASE WHEN {alias}.refs_synced_at IS NOT NULL THEN '{REFS_READ}'
        WHEN (SELECT refs FROM upstreams WHERE id = {alias}.upstream_id) = 'none' THEN '{REFS_NOT_MIRRORED}'
        WHEN {alias}.deleted_at IS NOT NULL THEN 'never read' ELSE 'not read yet' END"""


class Sight(msgspec.Struct, kw_only=True):
    """A repository as the mirror holds it: rows as mappings of column names to values.

    `refs` says whether branches and tags were read, in the words of `refs_state`; both are None until then.
    """

    repository: dict[str, Any]
    owner: str | None
    upstream: str
    refs: str
    branches: list[dict[str, Any]] | None
    tags: list[dict[str, Any]] | None


def find_repository(connection: sqlite3.Connection, full_name: str) -> Sight | None:
    """Find a repository by ``owner/slug``, whatever the case; a living one before a tombstone."""
    row = _first(
        connection,
        """SELECT * FROM repositories WHERE full_name = ? COLLATE NOCASE
           ORDER BY deleted_at IS NOT NULL, deleted_at DESC, id LIMIT 1""",
        full_name,
    )
    if row is None:
        return None
    owner = _first(connection, "SELECT username FROM users WHERE id = ?", row["owner_id"])
    upstream = _first(connection, "SELECT name FROM upstreams WHERE id = ?", row["upstream_id"])
    (refs,) = connection.execute(
        f"SELECT {refs_state('r')} FROM repositories r WHERE r.id = ?", (row["id"],)
    ).fetchone()
    branches, tags = (
        _refs(connection, table, row["id"]) if refs == REFS_READ else None for table in ("branches", "tags")
    )
    return Sight(
        repository=row,
        owner=owner["username"] if owner else None,
        upstream=upstream["name"] if upstream else "",
        refs=refs,
        branches=branches,
        tags=tags,
    )


def changes_since(connection: sqlite3.Connection, moment: str) -> Iterator[dict[str, Any]]:
    """Yield what was seen to change at or after a moment, in order."""
    found = connection.execute(
        """SELECT c.at, c.kind, up.name AS upstream, r.full_name AS repository, u.username AS owner, c.ref,
                  c.old, c.new
           FROM changes c LEFT JOIN repositories r ON r.id = c.repository_id
           LEFT JOIN users u ON u.id = coalesce(c.user_id, r.owner_id)
           LEFT JOIN upstreams up ON up.id = coalesce(r.upstream_id, u.upstream_id)
           WHERE c.at >= ? ORDER BY c.id""",
        (moment,),
    )
    return (dict(row) for row in found)


def _first(connection: sqlite3.Connection, sql: str, value: Any) -> dict[str, Any] | None:
    row = connection.execute(sql, (value,)).fetchone()
    return dict(row) if row else None


def _refs(connection: sqlite3.Connection, table: str, repository_id: int) -> list[dict[str, Any]]:
    """Read a repository's refs of one kind, the newest first."""
    found = connection.execute(
        f"SELECT * FROM {table} WHERE repository_id = ? ORDER BY target_date DESC, name", (repository_id,)
    )
    return [{key: row[key] for key in row.keys() if key != "repository_id"} for row in found]  # noqa: SIM118
