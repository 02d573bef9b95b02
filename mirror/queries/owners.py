"""One owner: a user, team or workspace, what it owns, who belongs to it, when it was active."""

import json
import sqlite3
from typing import Any

from mirror.queries.caller import Caller
from mirror.queries.rows import Row, first, ids_of, one, rows
from mirror.queries.visible import is_known, visible

ORDERS = {
    "updated": "r.updated_at DESC",
    "name": "r.slug COLLATE NOCASE",
    "followers": "coalesce(r.followers_count, 0) DESC",
    "size": "coalesce(r.size, 0) DESC",
}
"""By what an owner's repositories can be sorted."""


def owner(connection: sqlite3.Connection, caller: Caller, username: str) -> Row | None:
    """Find the row of a name: whoever owns the namespace before a member, a living one before a gone one.

    None where the caller may not know of them.
    """
    return first(
        connection,
        f"""SELECT u.*, up.name AS upstream FROM users u JOIN upstreams up ON up.id = u.upstream_id
            WHERE u.username = :name COLLATE NOCASE AND {is_known(caller, "u")}
            ORDER BY u.deleted_at IS NOT NULL, u.is_owner DESC, u.id LIMIT 1""",
        {"name": username, "ids": ids_of(caller)},
    )


def owner_by_id(connection: sqlite3.Connection, caller: Caller, row_id: int) -> Row | None:
    """Find an owner by the number of its row; None where the caller may not know of them."""
    return first(
        connection,
        f"""SELECT u.*, up.name AS upstream FROM users u JOIN upstreams up ON up.id = u.upstream_id
            WHERE u.id = :id AND {is_known(caller, "u")}""",
        {"id": row_id, "ids": ids_of(caller)},
    )


def repositories(
    connection: sqlite3.Connection, caller: Caller, owner_id: int, *, order: str, page: int, size: int
) -> dict[str, Any]:
    """Read a page of an owner's living repositories, and the totals of all of them."""
    values = {"id": owner_id, "ids": ids_of(caller), "size": size, "start": (page - 1) * size}
    condition = f"r.owner_id = :id AND r.deleted_at IS NULL AND {visible(caller, 'r')}"
    totals = first(
        connection,
        f"""SELECT count(*) AS count, coalesce(sum(r.is_private <> 0), 0) AS private, sum(r.size) AS bytes,
                max(r.updated_at) AS updated_at FROM repositories r WHERE {condition}""",
        values,
    )
    found = rows(
        connection,
        f"""SELECT r.id, r.full_name, r.slug, r.name, r.scm, r.language, r.is_private, r.description, r.size,
                r.followers_count, r.updated_at, r.deleted_at FROM repositories r WHERE {condition}
            ORDER BY {ORDERS[order]}, r.id LIMIT :size OFFSET :start""",
        values,
    )
    return {"totals": totals, "rows": found, "page": page, "size": size}


def activity(connection: sqlite3.Connection, caller: Caller, owner_id: int, since: str) -> dict[str, int]:
    """Count, by month since a moment, the last updates of an owner's repositories."""
    found = rows(
        connection,
        f"""SELECT substr(r.updated_at, 1, 7) AS month, count(*) AS updates FROM repositories r
            WHERE r.owner_id = :id AND r.deleted_at IS NULL AND r.updated_at >= :since
            AND {visible(caller, "r")} GROUP BY 1""",
        {"id": owner_id, "since": since, "ids": ids_of(caller)},
    )
    return {row["month"]: row["updates"] for row in found}


def members(connection: sqlite3.Connection, caller: Caller, owner_id: int) -> list[Row] | None:
    """List the members of a workspace for those who may see what is private in it; None for others."""
    if not caller.sees_all and not _belongs(connection, caller, owner_id):
        return None
    return rows(
        connection,
        """SELECT u.id, u.username, u.display_name, u.nickname, u.kind, m.permission
           FROM members m JOIN users u ON u.id = m.user_id WHERE m.workspace_id = :id
           ORDER BY coalesce(u.username, u.nickname, u.display_name) COLLATE NOCASE LIMIT 500""",
        {"id": owner_id},
    )


def workspaces(connection: sqlite3.Connection, caller: Caller, user_id: int) -> list[Row]:
    """List the workspaces that a user belongs to, of those whose members the caller may know."""
    found = rows(
        connection,
        """SELECT u.id, u.username, m.permission FROM members m JOIN users u ON u.id = m.workspace_id
           WHERE m.user_id = :id AND u.id <> :id ORDER BY u.username COLLATE NOCASE LIMIT 500""",
        {"id": user_id},
    )
    return [one for one in found if caller.sees_all or _belongs(connection, caller, one["id"])]


def _belongs(connection: sqlite3.Connection, caller: Caller, workspace_id: int) -> bool:
    """Tell whether a caller is a workspace or one of its members."""
    return workspace_id in caller.user_ids or bool(
        one(
            connection,
            """SELECT 1 FROM members WHERE workspace_id = :id
               AND user_id IN (SELECT value FROM json_each(:ids)) LIMIT 1""",
            {"id": workspace_id, "ids": json.dumps(caller.user_ids)},
        )
    )
