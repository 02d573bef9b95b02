"""Projects, as far as a caller may see them."""

import json
import sqlite3
from collections.abc import Sequence

from mirror.queries.rows import ProjectRow, fetch_as
from mirror.queries.visibility import Caller, visible_project

PROJECT_COLUMNS = ", ".join(f"p.{field}" for field in ProjectRow.__struct_fields__)


def project_named(
    connection: sqlite3.Connection, caller: Caller, owners: Sequence[int], key: str
) -> ProjectRow | None:
    """Find a project of a workspace by its key, or by its uuid with braces; the one that was seen last.

    `owners` are the rows of the workspace: with several upstreams there can be more than one.
    """
    is_named = "p.uuid IN (:key, lower(:key))" if key.startswith("{") else "p.key = :key COLLATE NOCASE"
    found = fetch_as(
        ProjectRow,
        connection,
        f"""SELECT {PROJECT_COLUMNS} FROM projects p
            WHERE p.owner_id IN (SELECT value FROM json_each(:owners)) AND {is_named}
            AND {visible_project(caller, "p")} ORDER BY p.last_seen_at DESC, p.id LIMIT 1""",
        {"owners": json.dumps(owners), "key": key, **caller.values},
    )
    return found[0] if found else None
