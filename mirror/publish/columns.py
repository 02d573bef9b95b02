"""The columns of a published file. Every column of every table is listed here, as copied or refused.

A new column of the schema is in neither list, and a test fails until somebody decides about it. Expressions
read the mirror's rows under the aliases of `fill.py`: `r` is repositories, `u` users, and so on. `kept` is
the row's entry in the list of rows to copy, with its new number.
"""

import sqlite3
from collections.abc import Mapping

from mirror.store.changes import CLOSED


def _same(alias: str, names: str) -> dict[str, str]:
    """Map columns to themselves: they are copied unchanged."""
    return {name: f"{alias}.{name}" for name in names.split()}


_TARGET = "target_hash target_date target_author target_author_name target_author_uuid target_message"

COPIED: Mapping[str, Mapping[str, str]] = {
    "upstreams": {"id": "kept.new", **_same("u", "name kind url refs")},
    "users": {
        "id": "kept.new",
        "upstream_id": "(SELECT new FROM kept_upstreams WHERE old = u.upstream_id)",
        **_same("u", "uuid username display_name first_name last_name nickname account_id kind"),
        "is_owner": "kept.is_owner",
        **_same("u", "avatar_url created_at"),
        **_same("kept", "first_seen_at last_seen_at"),
    },
    "repositories": {
        "id": "kept.new",
        "upstream_id": "(SELECT new FROM kept_upstreams WHERE old = r.upstream_id)",
        "owner_id": "(SELECT new FROM kept_users WHERE old = r.owner_id)",
        **_same("r", "uuid slug name full_name scm is_private description website language size"),
        **_same("r", "main_branch fork_policy"),
        "parent_id": "parent.new",
        "parent_uuid": "p.uuid",
        "parent_full_name": "p.full_name",
        "followers_count": "r.followers_count",
        "forks_count": "iif(r.forks_count IS NULL, NULL, coalesce(kept.forks, 0))",
        **_same("r", "has_issues has_wiki project_key project_name project_uuid avatar_url"),
        **_same("r", "clone_https clone_ssh created_at updated_at archived"),
        "first_seen_at": "kept.first_seen_at",
        "last_seen_at": "r.last_seen_at",
        "refs_synced_at": "iif(kept.has_refs, r.refs_synced_at, NULL)",
        "refs_stale": "iif(kept.has_refs, r.refs_stale, 1)",
    },
    "branches": {"repository_id": "kept.new", **_same("t", f"name {_TARGET} target_parents heads")},
    "tags": {"repository_id": "kept.new", **_same("t", f"name {_TARGET} target_parents tagger message date")},
    "followers": {"repository_id": "kept.new", "user_id": "who.new"},
    "projects": {
        "id": "row_number() OVER (ORDER BY t.id)",
        "upstream_id": "(SELECT new FROM kept_upstreams WHERE old = t.upstream_id)",
        "owner_id": "owner.new",
        **_same("t", "uuid key name description is_private avatar_url"),
        "first_seen_at": "held.first_seen_at",
        "last_seen_at": "held.last_seen_at",
    },
    "changes": {
        "id": "row_number() OVER (ORDER BY c.id)",
        "repository_id": "kept.new",
        **_same("c", "at kind ref old new"),
    },
    "sync_runs": {
        "id": "row_number() OVER (ORDER BY kept.new)",
        "upstream_id": "kept.new",
        "kind": "'full'",
        "state": "'complete'",
        "started_at": "s.finished_at",
        "finished_at": "s.finished_at",
        "repositories_new": "(SELECT count(*) FROM kept_repositories WHERE upstream_id = kept.old)",
    },
}
"""By table: each column that is filled, and the expression for its value."""

REFUSED: Mapping[str, frozenset[str]] = {
    "users": frozenset({"deleted_at", "gone_reason"}),
    "repositories": frozenset({"deleted_at", "gone_reason", "public_from", "refs_known_since"}),
    "changes": frozenset({"run_id", "user_id", "previous_look", "forced", "old_date", "is_main"}),
    "sync_runs": frozenset(
        {
            "requests", "git_requests", "retries", "slept_seconds", "repositories_changed",
            "repositories_gone", "refs_new", "refs_changed", "refs_gone", "failures", "error",
        }
    ),
}  # fmt: skip
"""By copied table: the columns that keep their defaults."""

EMPTY = frozenset(
    {
        "members", "sync_failures", "cursors", "seen_refs", "request_ledger", "request_limits", "api_tokens",
        "writes", "webhook_deliveries", "extras", "measures",
    }
)  # fmt: skip
"""Tables that are not copied. `extras` holds compressed JSON, which no list of columns can check."""

MADE = frozenset(
    {
        "mirror_meta", "_sqlite_migrations",
        "search_state", "search_common", "search_rare", "search_crowds", "search_pending", "search_columns",
        "search_languages", "search_dense",
        "search_ref_state", "search_ref_names", "search_ref_lists", "search_ref_paths",
        "search_ref_common", "search_ref_rare", "search_ref_spans", "search_ref_blocks", "search_ref_counts",
        "search_ref_hashes", "search_ref_pending", "search_ref_moved",
        "search_descriptions", "search_descriptions_config", "search_descriptions_data",
        "search_descriptions_idx", "search_descriptions_texts",
    }
)  # fmt: skip
"""Tables that are built from the published rows, or filled by the program itself."""

OF_PEOPLE: Mapping[str, frozenset[str]] = {
    "branches": frozenset({"target_author", "target_author_name", "target_author_uuid", "target_message"}),
    "tags": frozenset(
        {"target_author", "target_author_name", "target_author_uuid", "target_message", "tagger", "message"}
    ),
}
"""Columns of refs with names and addresses of people. Messages may end in `Signed-off-by: Name <mail>`."""

TOLD_CHANGES = (
    "created", "updated", "deleted", "restored", "branch_created", "branch_moved", "branch_deleted",
    "tag_created", "tag_moved", "tag_deleted",
)  # fmt: skip
"""Kinds of changes that are copied. The others reveal former names, or that something was private."""

HAS_REFS = f"r.public_from < {CLOSED}"
"""Whether the refs of a public repository were read after it became public."""


def columns_of(table: str, *, authors: bool) -> Mapping[str, str]:
    """Return the filled columns of a table; `authors` includes those with names of people."""
    dropped = frozenset() if authors else OF_PEOPLE.get(table, frozenset())
    return {name: value for name, value in COPIED[table].items() if name not in dropped}


def tables_of(connection: sqlite3.Connection) -> dict[str, set[str]]:
    """Map each table of a file to its columns, except SQLite's own tables."""
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' ORDER BY name"
    ).fetchall()
    return {
        table: {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')} for (table,) in tables
    }


def undecided(tables: Mapping[str, set[str]]) -> list[str]:
    """Return the tables and columns of a schema that are neither copied nor refused, or both."""
    found = [table for table in tables if (table in COPIED) + (table in EMPTY) + (table in MADE) != 1]
    for table, copied in COPIED.items():
        refused = REFUSED.get(table, frozenset())
        unclear = (tables.get(table, set()) ^ (copied.keys() | refused)) | (copied.keys() & refused)
        found += [f"{table}.{column}" for column in sorted(unclear)]
    return found
