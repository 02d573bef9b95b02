"""The reads behind API answers: one indexed statement each, with what the caller may see inside it."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypedDict

from mirror.queries.caller import Caller
from mirror.queries.rows import ChangeRow, FoundRepository, RefRow, RepositoryRow, UserRow

_COUNTED = ("followers", "forks")
_PLAIN = tuple(field for field in RepositoryRow.__struct_fields__ if field not in _COUNTED)
_WIDTH = len(RepositoryRow.__struct_fields__)
_USER = ", ".join(f"u.{field}" for field in UserRow.__struct_fields__)
_REF = tuple(field for field in RefRow.__struct_fields__ if field != "heads")

Values = dict[str, Any]


def visible(caller: Caller, alias: str) -> str:
    """Return the condition under which a caller may see a repository; `:ids` are the caller's own rows."""
    if caller.sees_all:
        return "1"
    if not caller.user_ids:
        return f"{alias}.is_private = 0"
    return f"({alias}.is_private = 0 OR {_theirs(alias)})"


def _theirs(alias: str) -> str:
    """Return the condition under which a repository is the caller's, or of a workspace they belong to."""
    return (
        f"({alias}.owner_id IN (SELECT value FROM json_each(:ids)) OR {alias}.owner_id IN "
        "(SELECT workspace_id FROM members WHERE user_id IN (SELECT value FROM json_each(:ids))))"
    )


def visible_changes(caller: Caller) -> str:
    """Return the condition under which a caller may see a change `c` of the repository `r`.

    Of the time when it was private, though it is public now, only those see something whose it is.
    """
    if caller.sees_all:
        return "1"
    public = "(r.is_private = 0 AND c.id > r.public_from)"
    return f"({public} OR {_theirs('r')})" if caller.user_ids else public


def is_known(caller: Caller, alias: str) -> str:
    """Return the condition under which a caller may know of an account; `:ids` are the caller's own rows.

    It owns or follows something that they may see, is theirs, or is in a workspace of theirs.
    """
    if caller.sees_all:
        return "1"
    seen = visible(caller, "r")
    public = f"""(EXISTS (SELECT 1 FROM repositories r WHERE r.owner_id = {alias}.id AND {seen})
        OR EXISTS (SELECT 1 FROM followers f JOIN repositories r ON r.id = f.repository_id
            WHERE f.user_id = {alias}.id AND {seen}))"""
    if not caller.user_ids:
        return public
    theirs = """(SELECT value FROM json_each(:ids) UNION
        SELECT workspace_id FROM members WHERE user_id IN (SELECT value FROM json_each(:ids)))"""
    return f"""({public} OR {alias}.id IN {theirs}
        OR {alias}.id IN (SELECT user_id FROM members WHERE workspace_id IN {theirs}))"""


def hides(connection: sqlite3.Connection, caller: Caller) -> bool:
    """Tell whether the file holds anything of a repository, a gone one too, that a caller may not see."""
    if caller.sees_all:
        return False
    if not caller.user_ids:
        return holds_private(connection)
    found = _tuples(
        connection,
        f"""SELECT EXISTS (SELECT 1 FROM repositories r WHERE r.is_private = 1 AND NOT {_theirs("r")})
            OR EXISTS (SELECT 1 FROM changes c WHERE c.kind = 'made_public' AND NOT EXISTS
                (SELECT 1 FROM repositories r WHERE r.id = c.repository_id AND {_theirs("r")}))""",
        {"ids": json.dumps(caller.user_ids)},
    )
    return bool(found.fetchone()[0])


class Shown(TypedDict):
    """What of the private repositories `mirror.search` may show."""

    visible_private: bool
    private_of: list[int]


def shown_to(connection: sqlite3.Connection, caller: Caller) -> Shown:
    """Say to the search what `visible` says in SQL: all that is private, or that of some owners."""
    return {"visible_private": caller.sees_all, "private_of": _private_owners(connection, caller)}


def _private_owners(connection: sqlite3.Connection, caller: Caller) -> list[int]:
    """List the owners whose private repositories a caller may see, where not everything is open to them."""
    if caller.sees_all or not caller.user_ids:
        return []
    found = _tuples(
        connection,
        """SELECT value FROM json_each(:ids) UNION
           SELECT workspace_id FROM members WHERE user_id IN (SELECT value FROM json_each(:ids))""",
        {"ids": json.dumps(caller.user_ids)},
    )
    return [row[0] for row in found]


def administered(connection: sqlite3.Connection, caller: Caller) -> frozenset[str] | None:
    """Name the namespaces, in lower case, that a caller owns or administers; None where all are open to them.

    A name that an owner of another upstream has too is left out, because a write goes by the name.
    """
    if caller.sees_all:
        return None
    found = _tuples(
        connection,
        """WITH mine AS (SELECT value AS id FROM json_each(:ids) UNION
               SELECT workspace_id FROM members
               WHERE permission = 'owner' AND user_id IN (SELECT value FROM json_each(:ids)))
           SELECT u.username FROM users u
           WHERE u.id IN mine AND u.is_owner AND u.deleted_at IS NULL AND NOT EXISTS
               (SELECT 1 FROM users o WHERE o.username = u.username COLLATE NOCASE
                AND o.is_owner AND o.deleted_at IS NULL AND o.id NOT IN mine)""",
        {"ids": json.dumps(caller.user_ids)},
    )
    return frozenset(str(row[0]).lower() for row in found)


def forks_count(caller: Caller, alias: str) -> str:
    """Return how many forks a repository has: the upstream's number, less those that are hidden."""
    if caller.sees_all:
        return f"{alias}.forks_count"
    theirs = f" AND NOT {_theirs('h')}" if caller.user_ids else ""
    return f"""iif({alias}.forks_count > 0, max(0, {alias}.forks_count - (SELECT count(*) FROM repositories h
        WHERE h.parent_id = {alias}.id AND h.deleted_at IS NULL AND h.is_private = 1{theirs})),
        {alias}.forks_count)"""


@cache
def _select(seen: str, forks: str) -> str:
    """Build the statement that reads repositories, each with its parent where that may be seen.

    Both are said of an alias `{of}`: the condition, and the expression of how many forks the upstream tells.
    """

    def columns(alias: str) -> str:
        plain = ", ".join(f"{alias}.{field}" for field in _PLAIN)
        return f"""{plain},
            {alias}.followers_count, {forks.format(of=alias)}"""

    return f"""SELECT {columns("r")}, {columns("p")}, r.parent_id, {seen.format(of="r")}
        FROM repositories r LEFT JOIN repositories p
            ON p.id = r.parent_id AND p.deleted_at IS NULL AND {seen.format(of="p")}"""


def _repositories(
    connection: sqlite3.Connection, caller: Caller, condition: str, values: Values
) -> list[FoundRepository]:
    """Read the repositories that meet a condition."""
    select = _select(visible(caller, "{of}"), forks_count(caller, "{of}"))
    found = _tuples(connection, f"{select} {condition}", values | {"ids": json.dumps(caller.user_ids)})
    return [_found(row, caller) for row in found]


def _tuples(connection: sqlite3.Connection, sql: str, values: Values) -> sqlite3.Cursor:
    """Execute for plain tuples, whatever the connection makes of rows."""
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, values)


def _found(row: Sequence[Any], caller: Caller) -> FoundRepository:
    itself = RepositoryRow(*row[:_WIDTH])
    parent = RepositoryRow(*row[_WIDTH : 2 * _WIDTH]) if row[_WIDTH] is not None else None
    unmirrored = row[2 * _WIDTH] is None
    named = itself.parent_full_name if caller.sees_all and unmirrored else None
    return FoundRepository(itself, parent, named, bool(row[2 * _WIDTH + 1]))


def repository(connection: sqlite3.Connection, caller: Caller, full_name: str) -> FoundRepository | None:
    """Find a repository by its name, whatever the case; a living one before a tombstone of the name.

    `visible` says whether the caller may see it: of two living ones the visible one is found.
    """
    found = _repositories(
        connection,
        caller,
        f"""WHERE r.full_name = :full_name COLLATE NOCASE
            ORDER BY r.deleted_at IS NOT NULL, NOT {visible(caller, "r")}, r.id LIMIT 1""",
        {"full_name": full_name},
    )
    return found[0] if found else None


def repositories_of(
    connection: sqlite3.Connection, caller: Caller, users: Iterable[UserRow]
) -> list[FoundRepository]:
    """List the living repositories of an owner that the caller may see, by name."""
    return _repositories(
        connection,
        caller,
        f"""WHERE r.owner_id IN (SELECT value FROM json_each(:owners)) AND r.deleted_at IS NULL
            AND {visible(caller, "r")} ORDER BY r.slug COLLATE NOCASE, r.id""",
        {"owners": json.dumps([user.id for user in users])},
    )


def repositories_for(connection: sqlite3.Connection, caller: Caller) -> list[FoundRepository]:
    """List what the caller owns, and what the workspaces own that the caller belongs to."""
    return _repositories(
        connection,
        caller,
        f"WHERE {_theirs('r')} AND r.deleted_at IS NULL ORDER BY r.full_name COLLATE NOCASE, r.id",
        {},
    )


def followed_by(connection: sqlite3.Connection, caller: Caller) -> list[FoundRepository]:
    """List what the caller follows; one's own repositories are always followed."""
    return _repositories(
        connection,
        caller,
        f"""WHERE (r.owner_id IN (SELECT value FROM json_each(:ids)) OR r.id IN
                (SELECT repository_id FROM followers WHERE user_id IN (SELECT value FROM json_each(:ids))))
            AND r.deleted_at IS NULL AND {visible(caller, "r")}
            ORDER BY r.full_name COLLATE NOCASE, r.id""",
        {},
    )


def forks(connection: sqlite3.Connection, caller: Caller, repository_id: int) -> list[FoundRepository]:
    """List the living forks of a repository that the caller may see."""
    return _repositories(
        connection,
        caller,
        f"""WHERE r.parent_id = :parent AND r.deleted_at IS NULL AND {visible(caller, "r")}
            ORDER BY r.full_name COLLATE NOCASE, r.id""",
        {"parent": repository_id},
    )


def by_ids(connection: sqlite3.Connection, caller: Caller, ids: Iterable[int]) -> dict[int, FoundRepository]:
    """Read some repositories by their rows."""
    found = _repositories(
        connection,
        caller,
        "WHERE r.id IN (SELECT value FROM json_each(:wanted))",
        {"wanted": json.dumps(sorted(set(ids)))},
    )
    return {one.row.id: one for one in found}


def users(connection: sqlite3.Connection, caller: Caller, username: str) -> list[UserRow]:
    """Find the living rows of a name, whatever the case; owners of namespaces first.

    As upstream, a namespace is told to everybody who names it. Mere members are told as `is_known` says.
    """
    found = _tuples(
        connection,
        f"""SELECT {_USER} FROM users u WHERE u.username = :username COLLATE NOCASE AND u.deleted_at IS NULL
            AND (u.is_owner OR {is_known(caller, "u")}) ORDER BY u.is_owner DESC, u.id""",
        {"username": username, "ids": json.dumps(caller.user_ids)},
    )
    return [UserRow(*row) for row in found]


def refs(connection: sqlite3.Connection, table: str, repository_id: int) -> list[RefRow]:
    """Read the branches or tags of a repository, by name."""
    heads = "heads" if table == "branches" else "NULL"
    found = _tuples(
        connection,
        f"SELECT {', '.join(_REF)}, {heads} FROM {table} WHERE repository_id = :id ORDER BY name",
        {"id": repository_id},
    )
    return [RefRow(*row) for row in found]


def state_of_refs(connection: sqlite3.Connection, repository_id: int) -> str:
    """Return whether the refs of a repository were read, in the words of `refs_state`."""
    from mirror.queries.repositories import refs_state  # noqa: PLC0415 - which imports this module

    found = _tuples(
        connection,
        f"SELECT {refs_state('r')} FROM repositories r WHERE r.id = :id",
        {"id": repository_id},
    )
    return str(found.fetchone()[0])


def followers(connection: sqlite3.Connection, repository_id: int) -> list[UserRow]:
    """List who follows a repository, as far as the upstream told."""
    found = _tuples(
        connection,
        f"""SELECT {_USER} FROM followers f JOIN users u ON u.id = f.user_id
            WHERE f.repository_id = :id AND u.username IS NOT NULL AND u.deleted_at IS NULL
            ORDER BY u.username COLLATE NOCASE, u.id""",
        {"id": repository_id},
    )
    return [UserRow(*row) for row in found]


def workspaces_of(connection: sqlite3.Connection, caller: Caller) -> dict[str, str | None]:
    """Map the workspaces that the caller belongs to, by name, to the permission there."""
    found = _tuples(
        connection,
        """SELECT u.username, m.permission FROM members m JOIN users u ON u.id = m.workspace_id
           WHERE m.user_id IN (SELECT value FROM json_each(:ids)) AND u.username IS NOT NULL
           ORDER BY u.username""",
        {"ids": json.dumps(caller.user_ids)},
    )
    return dict(found.fetchall())


def changes(
    connection: sqlite3.Connection,
    caller: Caller,
    condition: str,
    values: Values,
    *,
    kinds: Iterable[str],
    start: int,
    limit: int,
) -> tuple[int, list[ChangeRow]]:
    """Count the changes of repositories that meet a condition on `r`, and read a page, the newest first."""
    source = f"""FROM repositories r JOIN changes c ON c.repository_id = r.id
        WHERE {condition} AND {visible_changes(caller)}
        AND c.kind IN (SELECT value FROM json_each(:kinds))"""
    asked = values | {"ids": json.dumps(caller.user_ids), "kinds": json.dumps(list(kinds))}
    count = _tuples(connection, f"SELECT count(*) {source}", asked).fetchone()[0]
    found = _tuples(
        connection,
        f"""SELECT c.at, c.kind, c.ref, c.old, c.new, r.id {source}
            ORDER BY c.id DESC LIMIT :limit OFFSET :start""",
        asked | {"limit": limit, "start": start},
    )
    return count, [ChangeRow(*row) for row in found]


def logos(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, tuple[str | None, str]]:
    """Map some repositories to their logo and to when they were last seen."""
    found = _tuples(
        connection,
        """SELECT id, avatar_url, last_seen_at FROM repositories
           WHERE id IN (SELECT value FROM json_each(:wanted))""",
        {"wanted": json.dumps(list(ids))},
    )
    return {row[0]: (row[1], row[2]) for row in found}


def holds_private(connection: sqlite3.Connection) -> bool:
    """Tell whether the file holds anything that is not for everybody; tombstones count.

    A repository that was made public counts too: what changed in it before that is on record.
    """
    return bool(
        connection.execute(
            """SELECT EXISTS (SELECT 1 FROM repositories WHERE is_private = 1)
                   OR EXISTS (SELECT 1 FROM changes WHERE kind = 'made_public')"""
        ).fetchone()[0]
    )
