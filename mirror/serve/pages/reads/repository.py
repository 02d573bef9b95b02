"""One repository: its row, its refs by page, its family of forks, what could not be read of it."""

import sqlite3
from typing import Any

import msgspec

from mirror.lookup import refs_state
from mirror.serve.callers import Caller
from mirror.serve.lookups import visible
from mirror.serve.pages.reads.rows import Row, first, ids_of, one, rows

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
