"""The reads of single things, and of the rows that a page of ids stands for: indexed, and as far as visible.

Conditions name the caller's own rows of `users` as `:ids`.
"""

import json
import sqlite3
from collections.abc import Iterable
from functools import cache
from typing import Any

from mirror.serve.callers import Caller
from mirror.serve.cloud.memory import state
from mirror.serve.cloud.rows import Account, Ref, Repository
from mirror.serve.lookups import forks_count, visible

Values = dict[str, Any]

_RELATED = ("parent_name", "has_parent", "forks_count")
_PLAIN = ", ".join(f"r.{field}" for field in Repository.__struct_fields__ if field not in _RELATED)
ACCOUNT_COLUMNS = Account.__struct_fields__
REF_COLUMNS = Ref.__struct_fields__
ANY_UPSTREAM = "upstream_id IN (SELECT id FROM upstreams)"
"""Lets a uuid be found by its index, which begins with the upstream."""


def parent_is_told(caller: Caller) -> str:
    """Return the condition under which a caller may see what `r` was forked from.

    A parent that is not mirrored may be private, so only those who see everything are told of it.
    """
    if caller.sees_all:
        return "(r.parent_uuid IS NOT NULL OR r.parent_full_name IS NOT NULL)"
    return f"""EXISTS (SELECT 1 FROM repositories p
        WHERE p.id = r.parent_id AND p.deleted_at IS NULL AND {visible(caller, "p")})"""


@cache
def _select(told: str, forks: str) -> str:
    """Build the statement that reads whole repositories."""
    return f"""SELECT {_PLAIN}, p.name, {told}, {forks}
        FROM {{source}} repositories r LEFT JOIN repositories p ON p.id = r.parent_id AND p.deleted_at IS NULL
        {{condition}}"""


def tuples(connection: sqlite3.Connection, sql: str, values: Values) -> list[Any]:
    """Execute for plain tuples, whatever the connection makes of rows."""
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, values).fetchall()


def _repositories(
    connection: sqlite3.Connection, caller: Caller, condition: str, values: Values, source: str = ""
) -> list[Repository]:
    sql = _select(parent_is_told(caller), forks_count(caller, "r")).format(source=source, condition=condition)
    found = tuples(connection, sql, {**values, "ids": json.dumps(caller.user_ids)})
    return [Repository(*row) for row in found]


def repositories(connection: sqlite3.Connection, caller: Caller, ids: list[int]) -> list[Repository]:
    """Read the repositories of a page, in its order."""
    if not ids:
        return []
    found = _repositories(
        connection,
        caller,
        "WHERE r.id = wanted.value",
        {"wanted": json.dumps(ids)},
        "json_each(:wanted) AS wanted CROSS JOIN",
    )
    if [row.id for row in found] != ids:  # SQLite goes by the array, but does not promise it
        by_id = {row.id: row for row in found}
        return [by_id[one] for one in ids]
    return found


def repository(
    connection: sqlite3.Connection, caller: Caller, workspace: str, name: str
) -> Repository | None:
    """Find a living repository by workspace and slug, or by uuid wherever it lives; None if it is hidden.

    As upstream, a uuid is enough, so that a transferred repository answers under its old workspace too.
    """
    if name.startswith("{"):
        condition, values = f"r.{ANY_UPSTREAM} AND r.uuid IN (:uuid, lower(:uuid))", {"uuid": name}
    else:
        owner = account(connection, workspace, owners_only=True)
        if owner is None or owner.username is None:
            return None
        condition = "r.full_name = :full_name COLLATE NOCASE"
        values = {"full_name": f"{owner.username}/{name}"}
    found = _repositories(
        connection,
        caller,
        f"WHERE {condition} AND r.deleted_at IS NULL AND {visible(caller, 'r')} ORDER BY r.id LIMIT 1",
        values,
    )
    return found[0] if found else None


def account(connection: sqlite3.Connection, name: str, *, owners_only: bool = False) -> Account | None:
    """Find somebody by name, by uuid with its braces, or by account id; owners of namespaces first."""
    found = accounts_named(connection, name, owners_only=owners_only)
    return found[0] if found else None


def accounts_named(connection: sqlite3.Connection, name: str, *, owners_only: bool = False) -> list[Account]:
    """Find everybody of a name or a uuid: with several upstreams there can be more than one."""
    if name.startswith("{"):
        condition = f"u.{ANY_UPSTREAM} AND u.uuid IN (:name, lower(:name))"
    elif _is_account_id(name) and not owners_only:
        condition = "(u.account_id = :name OR u.username = :name COLLATE NOCASE)"
    else:
        condition = "u.username = :name COLLATE NOCASE"
    owning = "AND u.is_owner" if owners_only else ""
    return _accounts(
        connection,
        f"{condition} AND u.deleted_at IS NULL {owning} ORDER BY u.is_owner DESC, u.id",
        {"name": name},
    )


def _is_account_id(name: str) -> bool:
    """Tell whether a name is Atlassian's: 24 hexadecimal digits, or a number, a colon and a uuid."""
    return ":" in name or (len(name) == 24 and all(letter in "0123456789abcdef" for letter in name))


def accounts(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, Account]:
    """Read some accounts by their rows: once for each state of the file, because most rows share a few."""
    known = state(connection).accounts
    wanted = set(ids)
    missing = wanted.difference(known)
    if missing:
        condition = "u.id IN (SELECT value FROM json_each(:wanted))"
        found = _accounts(connection, condition, {"wanted": json.dumps(sorted(missing))})
        known.update((row.id, row) for row in found)
    return {one: known[one] for one in wanted if one in known}


def _accounts(connection: sqlite3.Connection, condition: str, values: Values) -> list[Account]:
    columns = ", ".join(f"u.{field}" for field in ACCOUNT_COLUMNS)
    return [
        Account(*row)
        for row in tuples(connection, f"SELECT {columns} FROM users u WHERE {condition}", values)
    ]


def belongs(connection: sqlite3.Connection, caller: Caller, workspace: int) -> bool:
    """Tell whether a workspace is the caller's, or has the caller among its members."""
    found = tuples(
        connection,
        """SELECT 1 FROM json_each(:ids) AS mine WHERE mine.value = :workspace OR EXISTS
            (SELECT 1 FROM members WHERE workspace_id = :workspace AND user_id = mine.value)""",
        {"ids": json.dumps(caller.user_ids), "workspace": workspace},
    )
    return bool(found)


def has_followers(connection: sqlite3.Connection, repository_id: int) -> bool:
    """Tell whether the upstream told anybody who follows a repository."""
    sql = "SELECT 1 FROM followers WHERE repository_id = :repository LIMIT 1"
    return bool(tuples(connection, sql, {"repository": repository_id}))


def ref(connection: sqlite3.Connection, repository_id: int, kind: str, name: str) -> Ref | None:
    """Find a branch or a tag by its whole name."""
    found = tuples(
        connection,
        f"SELECT {', '.join(REF_COLUMNS)} FROM ({refs_of(kind)}) WHERE name = :name",
        {"repository": repository_id, "name": name},
    )
    return Ref(*found[0]) if found else None


def refs_of(*kinds: str) -> str:
    """Return the statement that reads the branches, the tags or both of `:repository`."""
    plain = ", ".join(field for field in REF_COLUMNS if field.startswith("target_"))
    none = "NULL AS tagger, NULL AS message, NULL AS date"
    each = {
        "branch": f"SELECT 'branch' AS kind, name, {plain}, heads, {none} FROM branches",
        "tag": f"SELECT 'tag' AS kind, name, {plain}, NULL AS heads, tagger, message, date FROM tags",
    }
    return " UNION ALL ".join(f"{each[kind]} WHERE repository_id = :repository" for kind in kinds)
