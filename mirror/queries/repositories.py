"""The reads of single things, and of the rows that a page of ids stands for: indexed, and as far as visible.

Conditions name the caller's own rows of `users` as `:ids`.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec

from mirror.queries.caller import Caller
from mirror.queries.memory import state
from mirror.queries.rows import Account, Ref, Repository, Row, first, ids_of, one, rows
from mirror.queries.visible import forks_count, is_known, visible

REFS_READ, REFS_NOT_MIRRORED = "read", "not mirrored"


def refs_state(alias: str) -> str:
    """Return the SQL that says whether the refs of a repository were read.

    One of "read" (once, in full; `refs_synced_at` says when last), "not read yet", "never read" (it is gone),
    "not mirrored" (the upstream is configured with ``refs = "none"``).
    """
    return f"""CASE WHEN {alias}.refs_synced_at IS NOT NULL THEN '{REFS_READ}'
        WHEN (SELECT refs FROM upstreams WHERE id = {alias}.upstream_id) = 'none' THEN '{REFS_NOT_MIRRORED}'
        WHEN {alias}.deleted_at IS NOT NULL THEN 'never read' ELSE 'not read yet' END"""


class Sight(msgspec.Struct, kw_only=True):
    """A repository as the mirror holds it: rows as mappings of column names to values.

    `refs` says whether branches and tags were read, in the words of `refs_state`; both are None until then.
    """

    repository: dict[str, Any]
    owner: str | None
    upstream: str
    refs: str
    branches: list[dict[str, Any]] | None
    tags: list[dict[str, Any]] | None


def find_repository(connection: sqlite3.Connection, full_name: str) -> Sight | None:
    """Find a repository by ``owner/slug``, whatever the case; a living one before a tombstone."""
    row = _first(
        connection,
        """SELECT * FROM repositories WHERE full_name = ? COLLATE NOCASE
           ORDER BY deleted_at IS NOT NULL, deleted_at DESC, id LIMIT 1""",
        full_name,
    )
    if row is None:
        return None
    owner = _first(connection, "SELECT username FROM users WHERE id = ?", row["owner_id"])
    upstream = _first(connection, "SELECT name FROM upstreams WHERE id = ?", row["upstream_id"])
    (refs,) = connection.execute(
        f"SELECT {refs_state('r')} FROM repositories r WHERE r.id = ?", (row["id"],)
    ).fetchone()
    branches, tags = (
        _refs(connection, table, row["id"]) if refs == REFS_READ else None for table in ("branches", "tags")
    )
    return Sight(
        repository=row,
        owner=owner["username"] if owner else None,
        upstream=upstream["name"] if upstream else "",
        refs=refs,
        branches=branches,
        tags=tags,
    )


def changes_since(connection: sqlite3.Connection, moment: str) -> Iterator[dict[str, Any]]:
    """Yield what was seen to change at or after a moment, in order."""
    found = connection.execute(
        """SELECT c.at, c.kind, up.name AS upstream, r.full_name AS repository, u.username AS owner, c.ref,
                  c.old, c.new
           FROM changes c LEFT JOIN repositories r ON r.id = c.repository_id
           LEFT JOIN users u ON u.id = coalesce(c.user_id, r.owner_id)
           LEFT JOIN upstreams up ON up.id = coalesce(r.upstream_id, u.upstream_id)
           WHERE c.at >= ? ORDER BY c.id""",
        (moment,),
    )
    return (dict(row) for row in found)


def _first(connection: sqlite3.Connection, sql: str, value: Any) -> dict[str, Any] | None:
    row = connection.execute(sql, (value,)).fetchone()
    return dict(row) if row else None


def _refs(connection: sqlite3.Connection, table: str, repository_id: int) -> list[dict[str, Any]]:
    """Read a repository's refs of one kind, the newest first."""
    found = connection.execute(
        f"SELECT * FROM {table} WHERE repository_id = ? ORDER BY target_date DESC, name", (repository_id,)
    )
    return [{key: row[key] for key in row.keys() if key != "repository_id"} for row in found]  # noqa: SIM118


Values = dict[str, Any]

_RELATED = ("parent_name", "has_parent", "forks_count")
_PLAIN = ", ".join(f"r.{field}" for field in Repository.__struct_fields__ if field not in _RELATED)
ACCOUNT_COLUMNS = Account.__struct_fields__
REF_COLUMNS = Ref.__struct_fields__
ANY_UPSTREAM = "upstream_id IN (SELECT id FROM upstreams)"
"""Lets a uuid be found by its index, which begins with the upstream."""
_IS_UUID = f"u.{ANY_UPSTREAM} AND u.uuid IN (:name, lower(:name))"
_IS_NAME = "u.username = :name COLLATE NOCASE"


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
        named = owner(connection, workspace)
        if named is None or named.username is None:
            return None
        condition = "r.full_name = :full_name COLLATE NOCASE"
        values = {"full_name": f"{named.username}/{name}"}
    found = _repositories(
        connection,
        caller,
        f"WHERE {condition} AND r.deleted_at IS NULL AND {visible(caller, 'r')} ORDER BY r.id LIMIT 1",
        values,
    )
    return found[0] if found else None


def owner(connection: sqlite3.Connection, name: str) -> Account | None:
    """Find the owner of a namespace by name, or by uuid with its braces."""
    found = owners_named(connection, name)
    return found[0] if found else None


def owners_named(connection: sqlite3.Connection, name: str) -> list[Account]:
    """Find all owners of a name or a uuid: with several upstreams there can be more than one."""
    condition = _IS_UUID if name.startswith("{") else _IS_NAME
    return _accounts(
        connection, f"{condition} AND u.deleted_at IS NULL AND u.is_owner ORDER BY u.id", {"name": name}
    )


def account(connection: sqlite3.Connection, caller: Caller, name: str) -> Account | None:
    """Find somebody by name, by uuid with its braces, or by account id; owners of namespaces first.

    As upstream, an owner is told to everybody who names one. Mere members are told as `is_known` says.
    """
    condition = _IS_UUID if name.startswith("{") else _IS_NAME
    if _is_account_id(name):
        condition = f"(u.account_id = :name OR {condition})"
    found = _accounts(
        connection,
        f"""{condition} AND u.deleted_at IS NULL AND (u.is_owner OR {is_known(caller, "u")})
            ORDER BY u.is_owner DESC, u.id LIMIT 1""",
        {"name": name, "ids": json.dumps(caller.user_ids)},
    )
    return found[0] if found else None


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


MOST = 8


def recent_ids(connection: sqlite3.Connection, caller: Caller) -> list[int]:
    """Find them: a scan, since an index in this order would cost every first load a third of its speed."""
    found = rows(
        connection,
        f"""SELECT r.id FROM repositories r
            WHERE r.deleted_at IS NULL AND r.updated_at IS NOT NULL AND {visible(caller, "r")}
            ORDER BY r.updated_at DESC, r.id DESC LIMIT {MOST}""",
        {"ids": ids_of(caller)},
    )
    return [row["id"] for row in found]


def recently_updated(connection: sqlite3.Connection, caller: Caller, wanted: list[int]) -> list[Row]:
    """Read their rows, without those that are gone or closed to the visitor since they were found."""
    return rows(
        connection,
        f"""SELECT r.id, r.full_name, r.name, r.slug, r.scm, r.language, r.is_private, r.description,
                r.followers_count, {forks_count(caller, "r")} AS forks_count, r.updated_at, r.deleted_at
            FROM json_each(:wanted) AS wanted JOIN repositories r ON r.id = wanted.value
            WHERE r.deleted_at IS NULL AND {visible(caller, "r")} ORDER BY wanted.key""",
        {"wanted": json.dumps(wanted), "ids": ids_of(caller)},
    )


HIGHEST, DEEPEST, MOST_FORKS = 10, 4, 200

_SELECT = f"""SELECT r.*, {refs_state("r")} AS refs, u.username AS owner, u.display_name AS owner_name,
        up.name AS upstream, up.kind AS upstream_kind
    FROM repositories r JOIN users u ON u.id = r.owner_id JOIN upstreams up ON up.id = r.upstream_id"""


ORDERS = {
    "newest": "date DESC, name",
    "oldest": "date IS NULL, date, name",
    "name": "name",
    "last": "name DESC",
}
"""In which orders refs can be read."""


class RefsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which refs of a repository: those whose name holds `part`, in one of ORDERS, a page of them."""

    table: str
    part: str = ""
    order: str = "newest"
    page: int = 1
    size: int = 50


def by_name(connection: sqlite3.Connection, caller: Caller, full_name: str) -> Row | None:
    """Find a repository that the caller may see by its name; a living one before a tombstone."""
    return first(
        connection,
        f"""{_SELECT} WHERE r.full_name = :name COLLATE NOCASE AND {visible(caller, "r")}
            ORDER BY r.deleted_at IS NOT NULL, r.id LIMIT 1""",
        {"name": full_name, "ids": ids_of(caller)},
    )


def by_id(connection: sqlite3.Connection, caller: Caller, row_id: int) -> Row | None:
    """Find a repository that the caller may see by the number of its row."""
    return first(
        connection,
        f"{_SELECT} WHERE r.id = :id AND {visible(caller, 'r')}",
        {"id": row_id, "ids": ids_of(caller)},
    )


def namesakes(connection: sqlite3.Connection, caller: Caller, repository: Row) -> list[Row]:
    """List others of the same full name: of another upstream, or gone since."""
    return rows(
        connection,
        f"""SELECT r.id, r.full_name, r.deleted_at, up.name AS upstream
            FROM repositories r JOIN upstreams up ON up.id = r.upstream_id
            WHERE r.full_name = :name COLLATE NOCASE AND r.id <> :id AND {visible(caller, "r")}
            ORDER BY r.id LIMIT 20""",
        {"name": repository["full_name"], "id": repository["id"], "ids": ids_of(caller)},
    )


def refs(connection: sqlite3.Connection, repository_id: int, wanted: RefsWanted) -> dict[str, Any]:
    """Read a page of branches or tags, how many match, how many there are, and the oldest date of all."""
    date = "target_date" if wanted.table == "branches" else "coalesce(date, target_date)"
    annotation = "NULL AS message" if wanted.table == "branches" else "message"
    values = {
        "id": repository_id,
        "part": wanted.part,
        "size": wanted.size,
        "start": (wanted.page - 1) * wanted.size,
    }
    matching = "repository_id = :id AND (:part = '' OR instr(lower(name), lower(:part)) > 0)"
    return {
        "wanted": wanted,
        "total": one(
            connection,
            f"SELECT count(*) FROM {wanted.table} WHERE repository_id = :id",
            {"id": repository_id},
        ),
        "count": one(connection, f"SELECT count(*) FROM {wanted.table} WHERE {matching}", values),
        "oldest": one(
            connection,
            f"SELECT min({date}) FROM {wanted.table} WHERE repository_id = :id",
            {"id": repository_id},
        ),
        "rows": rows(
            connection,
            f"""SELECT name, target_hash, {date} AS date, target_author, target_message, {annotation}
                FROM {wanted.table} WHERE {matching}
                ORDER BY {ORDERS[wanted.order]} LIMIT :size OFFSET :start""",
            values,
        ),
    }


def newest_tag(connection: sqlite3.Connection, repository_id: int) -> Row | None:
    """Find the tag that was made last; Mercurial's pseudo tag is none."""
    return first(
        connection,
        """SELECT name, coalesce(date, target_date) AS date FROM tags
           WHERE repository_id = :id AND name <> 'tip' ORDER BY date DESC, name DESC LIMIT 1""",
        {"id": repository_id},
    )


def family(connection: sqlite3.Connection, caller: Caller, repository: Row) -> dict[str, Any]:
    """Read what a repository was forked from, the first of all first, and its forks as a tree.

    None is seen past a hidden one.
    """
    seen = visible(caller, "r")
    values = {"id": repository["id"], "ids": ids_of(caller), "most": MOST_FORKS}
    ancestors = rows(
        connection,
        f"""WITH RECURSIVE line (id, parent_id, height) AS (
                SELECT id, parent_id, 0 FROM repositories WHERE id = :id
                UNION ALL SELECT r.id, r.parent_id, height + 1
                FROM line JOIN repositories r ON r.id = line.parent_id WHERE height < {HIGHEST} AND {seen})
            SELECT r.id, r.full_name, r.updated_at, r.deleted_at, r.is_private, line.height
            FROM line JOIN repositories r ON r.id = line.id WHERE line.height > 0 ORDER BY line.height""",
        values,
    )
    descendants = rows(
        connection,
        f"""WITH RECURSIVE tree (id, depth) AS (
                SELECT :id, 0
                UNION SELECT r.id, depth + 1
                FROM tree JOIN repositories r ON r.parent_id = tree.id WHERE depth < {DEEPEST} AND {seen}
                LIMIT :most + 1)
            SELECT r.id, r.parent_id, r.full_name, r.updated_at, r.deleted_at, r.is_private
            FROM tree JOIN repositories r ON r.id = tree.id WHERE tree.depth > 0
            ORDER BY r.updated_at DESC, r.id""",
        values,
    )
    line = _without_repeats(ancestors, repository["id"])
    known = {repository["id"], *(one["id"] for one in line)}
    forks = _without_repeats(descendants, *known)[:MOST_FORKS]
    unmirrored = repository["parent_id"] is None and caller.sees_all
    return {
        "line": line[::-1],
        "named_parent": repository["parent_full_name"] if unmirrored else None,
        "forks": _tree(forks, repository["id"]),
        "forks_listed": len(forks),
        "more_forks": len(descendants) > MOST_FORKS,
    }


def _without_repeats(found: list[Row], *known: int) -> list[Row]:
    """Leave out what a circle of parents would show again."""
    seen, kept = set(known), list[Row]()
    for row in found:
        if row["id"] not in seen:
            seen.add(row["id"])
            kept.append(row)
    return kept


def _tree(found: list[Row], root: int) -> list[Row]:
    """Arrange forks under their parents."""
    below = dict[int, list[Row]]()
    for row in found:
        row["forks"] = below.setdefault(row["id"], [])
        below.setdefault(row["parent_id"], []).append(row)
    return below.get(root, [])


def failures(connection: sqlite3.Connection, repository_id: int) -> list[Row]:
    """List what could not be read of a repository, and when it is tried again."""
    return rows(
        connection,
        """SELECT kind, status, error, attempts, last_at, next_try_at FROM sync_failures
           WHERE repository_id = :id ORDER BY next_try_at""",
        {"id": repository_id},
    )
