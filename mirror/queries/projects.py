"""Projects, as far as a caller may see them.

Data Center knows a workspace as a project, by a key that begins with a tilde if it is a person's. A project
exists for those who see something in it, so that a hidden one is as good as unknown.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence

import msgspec

from mirror.queries import sources
from mirror.queries.accounts import ACCOUNT_COLUMNS
from mirror.queries.rows import AccountRow, ProjectRow, fetch, fetch_as
from mirror.queries.visibility import Caller, visible, visible_project
from mirror.queries.web_pages import PERSONAL


def is_personal(row: AccountRow) -> bool:
    """Return whether a namespace is a person's."""
    return row.kind == "user"


def key_of(row: AccountRow) -> str:
    """Return the key of a namespace: its name; a person's gets a tilde if it has none."""
    name = row.username or ""
    return f"{PERSONAL}{name}" if is_personal(row) and not name.startswith(PERSONAL) else name


def projects_keyed(connection: sqlite3.Connection, caller: Caller, key: str) -> list[AccountRow]:
    """Find the namespaces of a key, in any case, in which the caller may see something.

    The tilde of a personal project may be left out, since the name alone is the workspace's; those of
    teams come first then. With several upstreams there can be more than one.
    """
    source = sources.workspaces(caller)
    name = key.removeprefix(PERSONAL)
    of_person = "OR (u.kind = 'user' AND u.username = :name COLLATE NOCASE)" if name != key else ""
    return fetch_as(
        AccountRow,
        connection,
        f"""SELECT {source.columns} FROM {source.table} WHERE {source.where}
            AND (u.username = :key COLLATE NOCASE {of_person}) ORDER BY u.kind = 'user', u.id""",
        {**source.values, "key": key, "name": name},
    )


class ProjectDetails(msgspec.Struct, frozen=True):
    """The known details of a project; `is_public` is 1 or 0."""

    description: str | None
    is_public: int


def project_details(
    connection: sqlite3.Connection, caller: Caller, owner_ids: Collection[int]
) -> dict[int, ProjectDetails]:
    """Read what is known of some namespaces as projects, by their rows.

    A Data Center reports whether a project is public. Elsewhere, one is public if the caller sees public
    repositories in it and no private one; so nobody learns of a private one that is hidden from them.
    """
    found = fetch(
        connection,
        f"""SELECT u.id, p.description, coalesce(p.is_private = 0,
                EXISTS (SELECT 1 FROM repositories r
                    WHERE r.owner_id = u.id AND r.deleted_at IS NULL AND r.is_private = 0)
                AND NOT EXISTS (SELECT 1 FROM repositories r WHERE r.owner_id = u.id
                    AND r.deleted_at IS NULL AND r.is_private = 1 AND {visible(caller, "r")}))
            FROM json_each(:owners) AS o JOIN users u ON u.id = o.value
            LEFT JOIN projects p ON p.owner_id = u.id AND p.uuid = u.uuid""",
        {**caller.values, "owners": json.dumps(sorted(owner_ids))},
    )
    return {row_id: ProjectDetails(*more) for row_id, *more in found}


def person_named(connection: sqlite3.Connection, caller: Caller, slug: str) -> AccountRow | None:
    """Find a person by name, in any case, if the caller may see that person."""
    source = sources.people(caller)
    sql = f"""SELECT {ACCOUNT_COLUMNS} FROM {source.table} WHERE {source.where}
        AND u.username COLLATE NOCASE IN (:slug, '{PERSONAL}' || :slug) ORDER BY u.id LIMIT 1"""
    found = fetch_as(AccountRow, connection, sql, {**source.values, "slug": slug})
    return found[0] if found else None


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
        f"""SELECT {sources.PROJECT_COLUMNS} FROM projects p
            WHERE p.owner_id IN (SELECT value FROM json_each(:owners)) AND {is_named}
            AND {visible_project(caller, "p")} ORDER BY p.last_seen_at DESC, p.id LIMIT 1""",
        {"owners": json.dumps(owners), "key": key, **caller.values},
    )
    return found[0] if found else None
