"""The tables and conditions of API listings with their counts, including what the caller may see.

`mirror.serve.api2.paging` and `mirror.serve.datacenter.edge` add the caller's own conditions and order.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mirror.queries.file_state import file_state
from mirror.queries.refs import select_refs
from mirror.queries.rows import RefRow, Values
from mirror.queries.visibility import (
    IS_OWN_ID,
    Caller,
    account_columns,
    is_known,
    is_own,
    project_columns,
    visible,
    visible_project,
)
from mirror.store.rows import fetch_value

if TYPE_CHECKING:
    from mirror.model import RefKind

_RANK = "CASE m.permission WHEN 'owner' THEN 3 WHEN 'collaborator' THEN 2 ELSE 1 END"
_IN_WORKSPACE = f"""(SELECT CASE max({_RANK}) WHEN 3 THEN 'admin' WHEN 2 THEN 'write' WHEN 1 THEN 'read' END
    FROM members m WHERE m.workspace_id = r.owner_id AND m.user_id {IS_OWN_ID})"""

REPOSITORY_PERMISSION = f"CASE WHEN r.owner_id {IS_OWN_ID} THEN 'admin' ELSE {_IN_WORKSPACE} END"
"""The caller's permission in a repository, by the role in its workspace; the mirror knows no other."""

WORKSPACE_PERMISSION = f"""CASE WHEN u.id {IS_OWN_ID} THEN 'owner' ELSE (SELECT m.permission FROM members m
    WHERE m.workspace_id = u.id AND m.user_id {IS_OWN_ID} ORDER BY {_RANK} DESC LIMIT 1) END"""
"""The caller's role in a workspace."""


def has_all_roles(caller: Caller) -> bool:
    """Return whether a caller has every role: a token without a user is for the whole mirror."""
    return caller.sees_all and not caller.user_ids


def workspace_permission(caller: Caller) -> str:
    """Return the SQL of the caller's role in a workspace."""
    return "'owner'" if has_all_roles(caller) else WORKSPACE_PERMISSION


def administers(caller: Caller) -> str:
    """Return the SQL of whether the caller administers a workspace."""
    return f"coalesce(({workspace_permission(caller)}) = 'owner', 0)"


_IS_NAMESPACE = "u.is_owner AND u.deleted_at IS NULL AND u.username IS NOT NULL"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that can be listed.

    `keys` are expressions that identify a row. `count` counts the rows if there is a quicker way
    than to look at each.
    """

    columns: str
    table: str
    where: str
    values: Values
    keys: tuple[str, ...]
    count: Callable[[sqlite3.Connection], int] | None = None


def repositories(
    caller: Caller,
    *,
    owners: Sequence[int] | None = None,
    parent: int | None = None,
    since: str | None = None,
    role: str | None = None,
) -> Source:
    """List the ids of repositories: all, of an owner's rows, of a parent, created since a moment, by role."""
    narrowed, values = ["r.deleted_at IS NULL", visible(caller, "r")], dict(caller.values)
    if owners is not None:
        narrowed.append(_owned_by(owners))
        values["owner"] = owners[0] if len(owners) == 1 else json.dumps(owners)
    if parent is not None:
        narrowed.append("r.parent_id = :parent")
        values["parent"] = parent
    if since is not None:
        narrowed.append("r.created_at >= :since")
        values["since"] = since
    if role is not None:
        narrowed.append(_has_role(caller, role))
    # With other conditions, there is no quicker count than to look at each row.
    is_plain = parent is None and since is None and role is None
    counted = CountedOwners(_owned_by(owners) if owners is not None else "", values)
    return Source(
        columns="r.id",
        table="repositories r",
        where=" AND ".join(narrowed),
        values=values,
        keys=("r.id",),
        count=counter(caller, counted) if is_plain else None,
    )


def _owned_by(owners: Sequence[int]) -> str:
    """Return the condition on a repository's owner."""
    is_one = len(owners) == 1  # with a single owner, SQLite keeps the order of the index
    return "r.owner_id = :owner" if is_one else "r.owner_id IN (SELECT value FROM json_each(:owner))"


def _has_role(caller: Caller, role: str) -> str:
    """Return the condition under which a caller has a role; a token without a user has all roles."""
    if has_all_roles(caller):
        return "1"
    if role == "owner":
        return f"r.owner_id {IS_OWN_ID}"
    wanted = {"member": ("admin", "write", "read"), "contributor": ("admin", "write"), "admin": ("admin",)}
    return f"{REPOSITORY_PERMISSION} IN ({_quoted(wanted[role])})"


def own_repositories(caller: Caller, workspaces: Sequence[int] | None = None) -> Source:
    """List the ids of repositories of the caller and of the caller's workspaces, with the permission."""
    narrowed = "" if workspaces is None else " AND r.owner_id IN (SELECT value FROM json_each(:workspaces))"
    return Source(
        columns=f"r.id, {REPOSITORY_PERMISSION}",
        table="repositories r",
        where=f"r.deleted_at IS NULL AND {is_own('r')}{narrowed}",
        values={**caller.values, "workspaces": json.dumps(workspaces)},
        keys=("r.id",),
    )


def workspaces(caller: Caller, role: str | None = None) -> Source:
    """List namespaces: all of them for tokens, else those that own something the caller may see."""
    narrowed = [_IS_NAMESPACE]
    if not caller.sees_all:
        narrowed.append(
            f"""(u.id {IS_OWN_ID} OR EXISTS (SELECT 1 FROM repositories r
                WHERE r.owner_id = u.id AND r.deleted_at IS NULL AND {visible(caller, "r")}))"""
        )
    if role is not None and not has_all_roles(caller):
        wanted = {"owner": ("owner",), "collaborator": ("owner", "collaborator")}.get(role)
        narrowed.append(_belongs(f"AND m.permission IN ({_quoted(wanted)})" if wanted else ""))
    return _accounts(caller, narrowed)


def own_workspaces(
    caller: Caller, *, administrator: bool | None = None, among: Sequence[int] | None = None
) -> Source:
    """List the caller's namespaces with their permission there; only some rows with `among`.

    A token that speaks for no user may work in all of them.
    """
    narrowed = [_IS_NAMESPACE]
    if not has_all_roles(caller):
        narrowed.append(_belongs())
    if administrator is not None:
        narrowed.append(f"{administers(caller)} = {int(administrator)}")
    if among is not None:
        narrowed.append(f"u.id IN ({', '.join(map(str, among))})")
    return _accounts(caller, narrowed, f", {workspace_permission(caller)}")


def _belongs(limited: str = "") -> str:
    """Return the condition that the caller owns a workspace or is a member of it."""
    return f"""(u.id {IS_OWN_ID} OR u.id IN
        (SELECT m.workspace_id FROM members m WHERE m.user_id {IS_OWN_ID} {limited}))"""


def _accounts(caller: Caller, narrowed: Sequence[str], more: str = "") -> Source:
    return Source(
        columns=account_columns(caller) + more,
        table="users u",
        where=" AND ".join(narrowed),
        values=caller.values,
        keys=("u.id",),
    )


def people(caller: Caller) -> Source:
    """List the people that a caller may see.

    Of some, a Data Center only reports the personal project, whose name begins with a tilde. Such a row is
    left out if the person has another one.
    """
    listed_twice = """u.username GLOB '~*' AND EXISTS (SELECT 1 FROM users o
        WHERE o.username = substr(u.username, 2) COLLATE NOCASE
        AND o.upstream_id = u.upstream_id AND o.kind = 'user' AND o.deleted_at IS NULL)"""
    return _accounts(
        caller,
        [
            "u.kind = 'user' AND u.deleted_at IS NULL AND u.username IS NOT NULL",
            is_known(caller, "u"),
            f"NOT ({listed_twice})",
        ],
    )


def members(caller: Caller, workspace: int, member: int | None = None) -> Source:
    """List the members of a workspace with their permissions, or the membership of one of them."""
    only = "" if member is None else "AND m.user_id = :member"
    return Source(
        columns=f"{account_columns(caller)}, m.permission",
        table="members m JOIN users u ON u.id = m.user_id",
        where=f"m.workspace_id = :workspace AND u.deleted_at IS NULL {only}",
        values={**caller.values, "workspace": workspace, "member": member},
        keys=("m.user_id",),
    )


def projects(caller: Caller, workspaces: Sequence[int]) -> Source:
    """List the projects of a workspace, which may have several rows, as far as the caller may see them."""
    return Source(
        columns=project_columns(caller),
        table="projects p",
        where=f"p.owner_id IN (SELECT value FROM json_each(:owners)) AND {visible_project(caller, 'p')}",
        values={"owners": json.dumps(workspaces), **caller.values},
        keys=("p.id",),
    )


def watchers(caller: Caller, repository: int) -> Source:
    """List the followers of a repository that the upstream reports."""
    return Source(
        columns=account_columns(caller),
        table="followers f JOIN users u ON u.id = f.user_id",
        where="f.repository_id = :repository AND u.deleted_at IS NULL",
        values={**caller.values, "repository": repository},
        keys=("f.user_id",),
    )


def refs(repository: int, *kinds: "RefKind") -> Source:
    """List branches, tags or both."""
    return Source(
        columns=", ".join(RefRow.__struct_fields__),
        table=f"({select_refs(*kinds)})",
        where="1",
        values={"repository": repository},
        keys=("name", "kind"),
    )


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


class CountedOwners(msgspec.Struct, frozen=True):
    """The owners whose repositories to count: a condition on `r.owner_id`, "" for all, and its values."""

    condition: str
    values: Values

    def counting(self, *conditions: str) -> str:
        """Return a subquery that counts repositories; without conditions, SQLite reads no entry."""
        where = " AND ".join(one for one in (*conditions, self.condition) if one)
        return f"(SELECT count(*) FROM repositories r {'WHERE ' if where else ''}{where})"


def counter(caller: Caller, owners: CountedOwners) -> Callable[[sqlite3.Connection], int]:
    """Return a function that counts the living repositories of some owners that a caller may see."""
    # All, minus gone ones, minus living private ones, plus the private ones that the caller may see: each
    # number is read from an index.
    private = ("r.is_private = 1", "r.deleted_at IS NULL")
    parts = [owners.counting(), "-", owners.counting("r.deleted_at IS NOT NULL")]
    if not caller.sees_all:
        parts += ["-", owners.counting(*private)]
        if caller.user_ids:
            parts += ["+", owners.counting(*private, visible(caller, "r"))]

    sql = f"SELECT {' '.join(parts)}"
    return lambda connection: _remembered(connection, sql, owners.values)


def _remembered(connection: sqlite3.Connection, sql: str, values: Values) -> int:
    """Count once for each state of the file."""
    # Counting 100,000 rows costs as much as reading a page.
    counts, key = file_state(connection).counts, (sql, repr(values))
    if key not in counts:
        counts[key] = int(fetch_value(connection, sql, values))
    return counts[key]
