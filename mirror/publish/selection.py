"""Which columns and rows are public, and the SQL that copies them into an empty file.

Every column of every table is listed here, as copied or refused. A new column of the schema is in neither
list, and a test fails until somebody decides about it.

The mirror is the main database of the connection, so the conditions of `queries/visibility.py` hold as they
are; the new file is attached as `copy`. Rows get new numbers, so that no gap reveals what was left out:
temporary tables map old numbers to new ones.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from mirror.queries.visibility import ANONYMOUS, first_seen, visible, visible_parent, visible_project
from mirror.store.paths import reading_address
from mirror.store.rows import fetch, fetch_value
from mirror.store.schema import HIDDEN


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
        # Only a parent that is published, too, is named.
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
        # Not in the order of their numbers: one may have been read first with a private repository.
        "id": "row_number() OVER (ORDER BY owner.new, t.uuid)",
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
    # Of each upstream only when its last run ended: what a run counted includes private rows.
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
        "search_state", "search_common", "search_rare", "search_crowds", "search_pending", "search_segments",
        "search_columns", "search_languages", "search_dense",
        "search_ref_state", "search_ref_names", "search_ref_lists", "search_ref_paths",
        "search_ref_common", "search_ref_rare", "search_ref_spans", "search_ref_blocks", "search_ref_counts",
        "search_ref_hashes", "search_ref_pending", "search_ref_moved",
        "search_descriptions", "search_descriptions_config", "search_descriptions_data",
        "search_descriptions_idx", "search_descriptions_texts",
    }
)  # fmt: skip
"""Tables that are built from the published rows, or that the program fills itself."""

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

HAS_REFS = f"r.public_from < {HIDDEN}"
"""The refs of a public repository were read after it became public."""


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


_LIVES = visible_parent(ANONYMOUS, "r")
"""A repository that strangers see, and that is not gone: also what may be shown as a parent."""

_KEPT = (
    """CREATE TEMP TABLE kept_repositories (old INTEGER PRIMARY KEY, new INTEGER NOT NULL,
        upstream_id INTEGER NOT NULL, owner_id INTEGER NOT NULL, project_key TEXT, has_refs INTEGER NOT NULL,
        public_from INTEGER NOT NULL, first_seen_at TEXT NOT NULL, last_seen_at TEXT NOT NULL,
        forks INTEGER)""",
    f"""INSERT INTO kept_repositories
        SELECT r.id, row_number() OVER (ORDER BY r.id), r.upstream_id, r.owner_id, r.project_key, {HAS_REFS},
            r.public_from, {first_seen(ANONYMOUS)}, r.last_seen_at, NULL
        FROM repositories r WHERE {_LIVES} ORDER BY r.id""",
    f"""UPDATE kept_repositories SET forks = found.forks
        FROM (SELECT r.parent_id, count(*) AS forks FROM repositories r
            WHERE r.parent_id IS NOT NULL AND {_LIVES} GROUP BY r.parent_id) AS found
        WHERE found.parent_id = old""",
    "CREATE TEMP TABLE kept_upstreams (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)",
    """INSERT INTO kept_upstreams SELECT id, row_number() OVER (ORDER BY id) FROM upstreams
        WHERE id IN (SELECT upstream_id FROM kept_repositories)""",
    """CREATE TEMP TABLE kept_users (old INTEGER PRIMARY KEY, new INTEGER NOT NULL,
        is_owner INTEGER NOT NULL, first_seen_at TEXT NOT NULL, last_seen_at TEXT NOT NULL)""",
    # Numbers and moments come from their public repositories: their own would reveal private ones.
    """INSERT INTO kept_users
        SELECT id, row_number() OVER (ORDER BY first, NOT owns, uuid), max(owns), min(seen), max(last)
        FROM (
            SELECT owner_id AS id, min(new) AS first, 1 AS owns, min(first_seen_at) AS seen,
                max(last_seen_at) AS last, '' AS uuid
            FROM kept_repositories GROUP BY owner_id
            UNION ALL
            SELECT u.id, min(k.new), 0, min(k.first_seen_at), max(k.last_seen_at), u.uuid
            FROM followers f JOIN kept_repositories k ON k.old = f.repository_id
            JOIN users u ON u.id = f.user_id
            WHERE u.deleted_at IS NULL AND u.id NOT IN (SELECT owner_id FROM kept_repositories)
            GROUP BY u.id
        ) GROUP BY id""",
)
"""The statements that list the rows to copy: old and new numbers, and what follows from public rows alone."""

# CROSS JOIN has SQLite read the tables in this order, so that the sort of ORDER BY costs nothing.
_SOURCES = {
    "upstreams": "kept_upstreams kept JOIN upstreams u ON u.id = kept.old ORDER BY kept.new",
    "users": "kept_users kept CROSS JOIN users u ON u.id = kept.old ORDER BY kept.new",
    "repositories": """kept_repositories kept CROSS JOIN repositories r ON r.id = kept.old
        LEFT JOIN kept_repositories parent ON parent.old = r.parent_id
        LEFT JOIN repositories p ON p.id = parent.old ORDER BY kept.old""",
    "branches": """kept_repositories kept CROSS JOIN branches t ON t.repository_id = kept.old
        WHERE kept.has_refs ORDER BY kept.old, t.name""",
    "tags": """kept_repositories kept CROSS JOIN tags t ON t.repository_id = kept.old
        WHERE kept.has_refs ORDER BY kept.old, t.name""",
    "followers": """followers f JOIN kept_repositories kept ON kept.old = f.repository_id
        JOIN kept_users who ON who.old = f.user_id ORDER BY 1, 2""",
    "projects": f"""projects t JOIN kept_users owner ON owner.old = t.owner_id
        JOIN (SELECT owner_id, project_key, min(first_seen_at) AS first_seen_at,
                max(last_seen_at) AS last_seen_at
            FROM kept_repositories WHERE project_key IS NOT NULL GROUP BY 1, 2) AS held
            ON held.owner_id = t.owner_id AND held.project_key = t.key
        WHERE {visible_project(ANONYMOUS, "t")} ORDER BY 1""",
    # Edits of older versions may name the parent, which may be private.
    "changes": f"""changes c CROSS JOIN kept_repositories kept ON kept.old = c.repository_id
        WHERE c.id > kept.public_from AND c.kind IN ({", ".join(f"'{kind}'" for kind in TOLD_CHANGES)})
            AND NOT (c.kind = 'updated' AND instr(coalesce(c.old, '') || coalesce(c.new, ''), '"parent_'))
        ORDER BY c.id""",
    "sync_runs": """kept_upstreams kept JOIN sync_runs s ON s.id = (SELECT max(id) FROM sync_runs
        WHERE upstream_id = kept.old AND state = 'complete' AND kind IN ('full', 'incremental'))
        ORDER BY kept.new""",
}
"""The source of each table's rows, in the order in which the new table is written."""


def choose_rows(connection: sqlite3.Connection) -> None:
    """List the rows to copy in temporary tables."""
    for statement in _KEPT:
        connection.execute(statement)


def copy_rows(
    connection: sqlite3.Connection, *, authors: bool, progress: Callable[[str], None]
) -> dict[str, int]:
    """Copy the public rows into the empty tables of `copy`; return how many rows each table got."""
    copied = dict[str, int]()
    for table, source in _SOURCES.items():
        progress(table)
        columns = columns_of(table, authors=authors)
        copied[table] = connection.execute(
            f"""INSERT INTO copy.{table} ({", ".join(columns)})
                SELECT {", ".join(columns.values())} FROM {source}"""
        ).rowcount
    return copied


def moment_of(connection: sqlite3.Connection, schema: str = "main") -> str | None:
    """Return the moment of the rows of a database: the last complete sync, else the last listing."""
    found: Any = fetch_value(
        connection,
        f"""SELECT coalesce((SELECT max(finished_at) FROM {schema}.sync_runs
                WHERE state = 'complete' AND kind IN ('full', 'incremental')),
            (SELECT max(last_seen_at) FROM {schema}.repositories))""",
    )
    return None if found is None else str(found)


# `--check` does not trust the lists above: it searches every value of a finished file for the full names and
# uuids of private repositories and projects, and for the hashes of tokens. A bare name proves nothing, since
# `api` is everywhere. A hit may be public upstream, as in `Merged in team/secret`: people must judge.
_WORD = re.compile(rb"[^\s\"'`<>()\[\],;:?#=&|]+")
"""A possible name, path or uuid."""

_ROWS_AT_ONCE = 5_000

_PRIVATE = f"""
    SELECT uuid FROM repositories r WHERE NOT ({visible(ANONYMOUS, "r")})
    UNION SELECT full_name FROM repositories r WHERE NOT ({visible(ANONYMOUS, "r")})
    UNION SELECT uuid FROM projects p WHERE NOT ({visible_project(ANONYMOUS, "p")})
    UNION SELECT token_hash FROM api_tokens"""
_PUBLIC = f"""
    SELECT uuid FROM repositories r WHERE {visible(ANONYMOUS, "r")}
    UNION SELECT full_name FROM repositories r WHERE {visible(ANONYMOUS, "r")}
    UNION SELECT uuid FROM projects p WHERE {visible_project(ANONYMOUS, "p")}"""


class PrivateText(NamedTuple):
    """A private text, and a table of the file that contains it."""

    text: str
    table: str

    def __str__(self) -> str:
        return f"{self.text} in {self.table}"


def private_texts(connection: sqlite3.Connection) -> list[str]:
    """List the texts of a mirror that a published file must not contain."""
    public = {row[0].lower() for row in fetch(connection, _PUBLIC)}
    return sorted({row[0] for row in fetch(connection, _PRIVATE) if row[0].lower() not in public})


def find_private(file: Path, texts: list[str]) -> list[PrivateText]:
    """Find private texts in a file, in any case; return those found and their tables."""
    wanted = {text.lower().encode(): text for text in texts}
    with closing(sqlite3.connect(reading_address(file), uri=True)) as connection:
        tables = connection.execute(
            """SELECT name FROM sqlite_master
               WHERE type = 'table' AND name NOT GLOB 'sqlite_*' AND name NOT GLOB 'search_*' ORDER BY name"""
        ).fetchall()
        return [
            PrivateText(wanted[found], table)
            for (table,) in tables
            for found in sorted(_found(_values(connection, table), wanted.keys()))
        ]


def _values(connection: sqlite3.Connection, table: str) -> Iterator[bytes]:
    """Yield the values of a table, joined by line ends, many rows at a time."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = " || x'0a' || ".join(f"coalesce(CAST({name} AS BLOB), x'')" for name in columns)
    cursor = connection.execute(f"SELECT CAST({values} AS BLOB) FROM {table}")
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield b"\n".join(row[0] for row in rows)


def _found(chunks: Iterator[bytes], wanted: Iterable[bytes]) -> set[bytes]:
    """Return the wanted texts that occur as a word, or as one or two adjacent parts of a path."""
    found, all_wanted = set[bytes](), frozenset(wanted)
    for chunk in chunks:
        words = set(_WORD.findall(chunk.lower()))
        found |= words & all_wanted
        for word in words:
            if b"/" in word:
                parts = [part.removesuffix(b".git").rstrip(b".") for part in word.split(b"/")]
                found |= all_wanted.intersection(map(b"/".join, pairwise(parts)))
                found |= all_wanted.intersection(parts)
    return found
