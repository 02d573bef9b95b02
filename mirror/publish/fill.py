"""Copy the public rows of a mirror into an empty file, by SQL, within one read transaction.

The mirror is the main database of the connection, so the conditions of `queries/visibility.py` hold as they
are; the new file is attached as `copy`. Rows get new numbers, so that no gap reveals what was left out:
temporary tables map old numbers to new ones.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from mirror.publish.columns import HAS_REFS, TOLD_CHANGES, columns_of
from mirror.queries.rows import fetch_value
from mirror.queries.visibility import ANONYMOUS, visible_parent, visible_project

_LIVES = visible_parent(ANONYMOUS, "r")
"""A repository that strangers see, and that is not gone: also what may be shown as a parent."""

_KEPT = (
    """CREATE TEMP TABLE kept_repositories (old INTEGER PRIMARY KEY, new INTEGER NOT NULL,
        upstream_id INTEGER NOT NULL, owner_id INTEGER NOT NULL, project_key TEXT, has_refs INTEGER NOT NULL,
        public_from INTEGER NOT NULL, first_seen_at TEXT NOT NULL, last_seen_at TEXT NOT NULL,
        forks INTEGER)""",
    # A repository that was private counts as first seen when it was made public.
    f"""INSERT INTO kept_repositories
        SELECT r.id, row_number() OVER (ORDER BY r.id), r.upstream_id, r.owner_id, r.project_key, {HAS_REFS},
            r.public_from,
            iif(r.public_from = 0, r.first_seen_at, max(r.first_seen_at, coalesce((SELECT max(c.at)
                FROM changes c WHERE c.repository_id = r.id AND c.kind = 'made_public'), r.last_seen_at))),
            r.last_seen_at, NULL
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
"""Lists the rows to copy: old and new numbers, and facts that follow from public rows alone."""

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
        WHERE {visible_project(ANONYMOUS, "t")} ORDER BY t.id""",
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
    """Return the moment that the rows of a database are of: the last complete sync, else the last listing."""
    found: Any = fetch_value(
        connection,
        f"""SELECT coalesce((SELECT max(finished_at) FROM {schema}.sync_runs
                WHERE state = 'complete' AND kind IN ('full', 'incremental')),
            (SELECT max(last_seen_at) FROM {schema}.repositories))""",
    )
    return None if found is None else str(found)
