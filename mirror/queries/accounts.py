"""Accounts and projects: users, teams and workspaces, their members, followers and projects.

Data Center knows a workspace as a project, by a key that begins with a tilde if it is a person's. A project
exists for those who see something in it, so that a hidden one is as good as unknown.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence

import msgspec

from mirror.addresses import PERSONAL
from mirror.queries import sources
from mirror.queries.rows import (
    IS_NAME,
    IS_UUID,
    WRITTEN_SO,
    AccountRow,
    Membership,
    ProjectRow,
    Values,
)
from mirror.queries.visibility import (
    IS_OWN_ID,
    Caller,
    account_columns,
    is_confirmed,
    is_known,
    may_see_members,
    project_columns,
    visible,
    visible_project,
)
from mirror.store.rows import fetch, fetch_as, fetch_one, fetch_value
from mirror.store.runs import HIDDEN_MEMBERS


def _read_accounts(
    connection: sqlite3.Connection, caller: Caller, condition: str, values: Values, source: str = "users u"
) -> list[AccountRow]:
    sql = f"SELECT {account_columns(caller)} FROM {source} {condition}"
    return fetch_as(AccountRow, connection, sql, {**values, **caller.values})


def owner_named(connection: sqlite3.Connection, caller: Caller, name: str) -> AccountRow | None:
    """Find the owner of a namespace by name, or by uuid with its braces."""
    return next(iter(owners_named(connection, caller, name)), None)


def owners_named(connection: sqlite3.Connection, caller: Caller, name: str) -> list[AccountRow]:
    """Find all owners with a name or a uuid: with several upstreams there may be more than one."""
    condition = f"""WHERE {_is_named(name)} AND u.deleted_at IS NULL AND u.is_owner
        AND {is_confirmed(caller)} ORDER BY {WRITTEN_SO}, u.id"""
    return _written_so(_read_accounts(connection, caller, condition, {"name": name}), name)


def account_named(connection: sqlite3.Connection, caller: Caller, name: str) -> AccountRow | None:
    """Find an account by name, by uuid with its braces, or by account id; owners of namespaces first."""
    condition = _is_named(name)
    if _is_account_id(name):
        condition = f"(u.account_id = :name OR {condition})"
    return next(iter(_confirmed(connection, caller, condition, name)), None)


def users_named(connection: sqlite3.Connection, caller: Caller, username: str) -> list[AccountRow]:
    """Find the existing accounts with a username, owners first."""
    return _written_so(_confirmed(connection, caller, IS_NAME, username), username)


def _written_so(found: list[AccountRow], name: str) -> list[AccountRow]:
    """Keep only those whose name is written so, if the first one's is: others are not the same owner."""
    bare = name.removeprefix(PERSONAL)
    names = [(row.username or "").removeprefix(PERSONAL) for row in found]
    if bare not in names[:1]:
        return found
    return [row for row, its in zip(found, names, strict=True) if its == bare]


def _confirmed(connection: sqlite3.Connection, caller: Caller, condition: str, name: str) -> list[AccountRow]:
    """Read owners of namespaces, and other accounts that the caller may know."""
    return _read_accounts(
        connection,
        caller,
        f"""WHERE {condition} AND u.deleted_at IS NULL AND {is_confirmed(caller)}
            ORDER BY u.is_owner DESC, {WRITTEN_SO}, u.id""",
        {"name": name},
    )


def _is_named(name: str) -> str:
    return IS_UUID if name.startswith("{") else IS_NAME


def _is_account_id(name: str) -> bool:
    """Return whether a name is Atlassian's: 24 hexadecimal digits, or a number, a colon and a uuid."""
    return ":" in name or (len(name) == 24 and all(letter in "0123456789abcdef" for letter in name))


def known_account_named(connection: sqlite3.Connection, caller: Caller, username: str) -> AccountRow | None:
    """Find an account with a name that the caller may know, also a deleted one.

    Existing accounts come first, and among them the owner of the namespace.
    """
    condition = f"""WHERE {IS_NAME} AND {is_known(caller, "u")}
        ORDER BY u.deleted_at IS NOT NULL, u.is_owner DESC, {WRITTEN_SO}, u.id LIMIT 1"""
    return next(iter(_read_accounts(connection, caller, condition, {"name": username})), None)


def known_account_by_id(connection: sqlite3.Connection, caller: Caller, row_id: int) -> AccountRow | None:
    """Find an account that the caller may know, also a deleted one, by the id of its row."""
    condition = f"WHERE u.id = :id AND {is_known(caller, 'u')}"
    return next(iter(_read_accounts(connection, caller, condition, {"id": row_id})), None)


def members_of(connection: sqlite3.Connection, caller: Caller, workspace_id: int) -> list[Membership] | None:
    """List the members of a workspace; None if the caller may not see them."""
    if not may_see_members(connection, caller, workspace_id):
        return None
    return _memberships(
        connection,
        caller,
        """users u JOIN members m ON m.user_id = u.id WHERE m.workspace_id = :id
           ORDER BY coalesce(u.username, u.nickname, u.display_name) COLLATE NOCASE LIMIT 500""",
        {"id": workspace_id},
    )


def workspaces_of(connection: sqlite3.Connection, caller: Caller, user_id: int) -> list[Membership]:
    """List the workspaces of a user, as far as the caller may see their members."""
    found = _memberships(
        connection,
        caller,
        """users u JOIN members m ON m.workspace_id = u.id WHERE m.user_id = :id AND u.id <> :id
           ORDER BY u.username COLLATE NOCASE LIMIT 500""",
        {"id": user_id},
    )
    return [one for one in found if may_see_members(connection, caller, one.account.id)]


def _memberships(
    connection: sqlite3.Connection, caller: Caller, source: str, values: Values
) -> list[Membership]:
    sql = f"SELECT {account_columns(caller)}, m.permission FROM {source}"
    found = fetch(connection, sql, {**values, **caller.values})
    return [Membership(AccountRow(*row[:-1]), row[-1]) for row in found]


def own_workspaces(connection: sqlite3.Connection, caller: Caller) -> dict[str, str | None]:
    """Map the workspaces that the caller belongs to, by name, to the permission there."""
    found = fetch(
        connection,
        f"""SELECT u.username, m.permission FROM members m JOIN users u ON u.id = m.workspace_id
            WHERE m.user_id {IS_OWN_ID} AND u.username IS NOT NULL ORDER BY u.username""",
        caller.values,
    )
    return dict(found)


_KNOWS_MEMBERS = """SELECT EXISTS (SELECT 1 FROM members WHERE workspace_id = :id) OR EXISTS (
        SELECT 1 FROM users w JOIN upstreams u ON u.id = w.upstream_id
        WHERE w.id = :id AND u.kind = 'datacenter'
            AND EXISTS (
                SELECT 1 FROM members m JOIN users o ON o.id = m.workspace_id WHERE o.upstream_id = u.id)
            AND NOT EXISTS (
                SELECT 1 FROM sync_failures f WHERE f.upstream_id = u.id AND f.kind IN ('members', :hidden)
                    AND f.subject = w.username COLLATE NOCASE))"""


def knows_members(connection: sqlite3.Connection, workspace_id: int) -> bool:
    """Return whether the members of a workspace were read: the upstream may not list them to its caller.

    A workspace of Cloud has members, so that none were not read. A project of Data Center may give rights to
    groups alone; where members of other projects were read, and reading its own did not fail, it has none.
    """
    values = {"id": workspace_id, "hidden": HIDDEN_MEMBERS}
    return bool(fetch_value(connection, _KNOWS_MEMBERS, values))


def followers_of(connection: sqlite3.Connection, caller: Caller, repository_id: int) -> list[AccountRow]:
    """List who follows a repository, as far as the upstream reports it."""
    return _read_accounts(
        connection,
        caller,
        """WHERE f.repository_id = :id AND u.username IS NOT NULL AND u.deleted_at IS NULL
           ORDER BY u.username COLLATE NOCASE, u.id""",
        {"id": repository_id},
        "followers f JOIN users u ON u.id = f.user_id",
    )


def has_followers(connection: sqlite3.Connection, repository_id: int) -> bool:
    """Return whether the upstream sent a list of followers of a repository."""
    sql = "SELECT 1 FROM followers WHERE repository_id = :id LIMIT 1"
    return fetch_value(connection, sql, {"id": repository_id}) is not None


def is_personal(row: AccountRow) -> bool:
    """Return whether a namespace is a person's."""
    return row.kind == "user"


def key_of(row: AccountRow) -> str:
    """Return the key of a namespace: its name; a person's gets a tilde if it has none."""
    name = row.username or ""
    return f"{PERSONAL}{name}" if is_personal(row) and not name.startswith(PERSONAL) else name


def projects_keyed(connection: sqlite3.Connection, caller: Caller, key: str) -> list[AccountRow]:
    """Find the namespaces of a key, in any case, in which the caller may see something.

    The tilde of a personal project may be left out; then those of teams come first. With several upstreams
    there can be more than one.
    """
    source = sources.workspaces(caller)
    name = key.removeprefix(PERSONAL)
    of_person = "OR (u.kind = 'user' AND u.username = :name COLLATE NOCASE)" if name != key else ""
    found = fetch_as(
        AccountRow,
        connection,
        f"""SELECT {source.columns} FROM {source.table} WHERE {source.where}
            AND (u.username = :key COLLATE NOCASE {of_person})
            ORDER BY u.kind = 'user', u.username COLLATE BINARY IS NOT :key, u.id""",
        {**source.values, "key": key, "name": name},
    )
    return _written_so(found, key)


class ProjectDetails(msgspec.Struct, frozen=True):
    """The known details of a project; `is_public` is 1 or 0."""

    description: str | None
    is_public: int


def project_details(
    connection: sqlite3.Connection, caller: Caller, owner_ids: Collection[int]
) -> dict[int, ProjectDetails]:
    """Read what is known of some namespaces as projects, by their rows.

    A Data Center reports whether a project is public. Elsewhere, one is public if the caller sees public
    repositories in it and no private one.
    """
    # Private ones that the caller may not see count for nothing, so that nobody learns of them.
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
    sql = f"""SELECT {account_columns(caller)} FROM {source.table} WHERE {source.where}
        AND u.username COLLATE NOCASE IN (:slug, '{PERSONAL}' || :slug)
        ORDER BY u.username COLLATE BINARY IS NOT :slug, u.id LIMIT 1"""
    return fetch_one(AccountRow, connection, sql, {**source.values, "slug": slug})


def project_named(
    connection: sqlite3.Connection, caller: Caller, owners: Sequence[int], key: str
) -> ProjectRow | None:
    """Find a project of a workspace by its key, or by its uuid with braces; the one that was seen last.

    `owners` are the rows of the workspace: with several upstreams there can be more than one.
    """
    is_named = "p.uuid IN (:key, lower(:key))" if key.startswith("{") else "p.key = :key COLLATE NOCASE"
    return fetch_one(
        ProjectRow,
        connection,
        f"""SELECT {project_columns(caller)} FROM projects p
            WHERE p.owner_id IN (SELECT value FROM json_each(:owners)) AND {is_named}
            AND {visible_project(caller, "p")} ORDER BY last_seen_at DESC, p.id LIMIT 1""",
        {"owners": json.dumps(owners), "key": key, **caller.values},
    )
