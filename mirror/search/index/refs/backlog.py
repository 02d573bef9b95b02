"""The backlog of the index of refs: what it does not contain yet, and when that is flushed.

It consists of *pending* refs, which the index has as they were before a change (`search_ref_pending`), of
*moved* repositories, whose refs became hidden, public or gone (`search_ref_moved`), and of *new* ones, whose
id is above `search_ref_state.up_to`.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mirror.search.index.refs.format import (
    COLLECTION,
    COMMON_COST,
    HASH_DIGITS,
    ORDER,
    TABLES,
    hash_number,
    list_of,
    up_to,
)

FLUSH_FROM = 3_000
"""During a sync, apply the backlog once it is this long."""

REBUILD_FROM = 20_000
REBUILD_SHARE = 30
"""Rebuild rather than update if the backlog exceeds REBUILD_FROM and 1/REBUILD_SHARE of the indexed refs."""

REPOSITORIES_AT_ONCE = 5_000
"""How many repositories one update takes."""


class RefKey(NamedTuple):
    """The key of a ref within its repository."""

    kind: int
    name: str


class RefEntry(NamedTuple):
    """A ref in the index: its list, its order there, and the number of its hash."""

    list: int
    order: int
    hash: int | None


class RepositoryChange(NamedTuple):
    """The refs of a repository as the index has them and as it should, and the collections that they are in.

    A collection is None where the index has none of them, or should not.
    """

    id: int
    was_collection: int | None
    collection: int | None
    was: dict[RefKey, RefEntry]
    now: dict[RefKey, RefEntry]


_WANTED = "(SELECT value FROM json_each(:ids))"
_HELD = " UNION ALL ".join(
    f"""SELECT repository_id, {kind}, name, {ORDER.format(date="target_date", repository="repository_id")},
        substr(target_hash, 1, {HASH_DIGITS}) FROM {table} WHERE repository_id IN {_WANTED}"""
    for kind, table in enumerate(TABLES)
)
_PENDING = f"""SELECT repository_id, kind, name, {ORDER.format(date="was_date", repository="repository_id")},
    substr(was_hash, 1, {HASH_DIGITS}) FROM search_ref_pending WHERE repository_id IN {_WANTED}"""
_COLLECTIONS = f"SELECT r.id, {COLLECTION.format(r='r')} FROM repositories r WHERE r.id IN {_WANTED}"
_MOVED = f"SELECT repository_id, was FROM search_ref_moved WHERE repository_id IN {_WANTED}"

AFFECTED = "(SELECT repository_id FROM search_ref_pending UNION SELECT repository_id FROM search_ref_moved)"
"""SQL for the ids of the repositories with pending refs, and of those that moved."""


def changes_of(connection: sqlite3.Connection, ids: Iterable[int]) -> Iterator[RepositoryChange]:
    """Yield the changes of some repositories of the backlog."""
    wanted = list(ids)
    known = up_to(connection)
    values = {"ids": json.dumps(wanted)}
    collections = dict(connection.execute(_COLLECTIONS, values).fetchall())
    was_collections = {one: held for one, held in collections.items() if one <= known}
    was_collections |= dict(connection.execute(_MOVED, values).fetchall())
    held = {one: dict[RefKey, tuple[int, str]]() for one in wanted}
    before = {one: dict[RefKey, tuple[int, str] | None]() for one in wanted}
    for repository, kind, name, order, target in connection.execute(_HELD, values):
        held[repository][RefKey(kind, name)] = (order, target)
    for repository, kind, name, order, target in connection.execute(_PENDING, values):
        before[repository][RefKey(kind, name)] = None if target is None else (order, target)
    for one in wanted:
        was, now = was_collections.get(one), collections.get(one)
        indexed = {key: ref for key, ref in (held[one] | before[one]).items() if ref is not None}
        yield RepositoryChange(
            one, was, now, _entries(was, indexed if one <= known else {}), _entries(now, held[one])
        )


def _entries(collection: int | None, refs: dict[RefKey, tuple[int, str]]) -> dict[RefKey, RefEntry]:
    if collection is None:
        return {}
    return {
        key: RefEntry(list_of(collection, key.kind), order, hash_number(target))
        for key, (order, target) in refs.items()
    }


def update_after_refs(connection: sqlite3.Connection) -> None:
    """Apply the backlog once it is long; call it in the transaction that wrote refs or repositories.

    An index that was never built is left alone, so that a first load pays nothing.
    """
    known, noted, moved, highest = connection.execute(
        """SELECT up_to, (SELECT coalesce(max(id), 0) FROM search_ref_pending),
            (SELECT count(*) FROM search_ref_moved), (SELECT coalesce(max(id), 0) FROM repositories)
        FROM search_ref_state"""
    ).fetchone()
    if known and noted + moved + highest - known >= FLUSH_FROM:
        apply_refs_backlog(connection)


def flush_refs_step(connection: sqlite3.Connection) -> bool:
    """Apply a part of the backlog; return whether there was any. Call it until it returns False.

    Each call belongs in a transaction of its own.
    """
    known = up_to(connection)
    highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
    affected = connection.execute(f"SELECT EXISTS {AFFECTED}").fetchone()[0]
    if not affected and highest <= known:
        return False
    if not known or _size(connection, known) > max(REBUILD_FROM, _indexed(connection) // REBUILD_SHARE):
        rebuild_refs_index(connection)
    else:
        apply_refs_backlog(connection)
    return True


def rebuild_refs_index(connection: sqlite3.Connection, common_cost: int = COMMON_COST) -> None:
    """Rebuild the index from the rows; call it in a transaction. `common_cost` is for tests."""
    from mirror.search.index.refs.build import build_refs_index  # noqa: PLC0415 - numpy is slow to import

    build_refs_index(connection, common_cost)


def apply_refs_backlog(connection: sqlite3.Connection, common_cost: int = COMMON_COST) -> None:
    """Apply the backlog of REPOSITORIES_AT_ONCE repositories, the changed ones first.

    `common_cost` is for tests.
    """
    from mirror.search.index.refs.update import apply_ref_changes  # noqa: PLC0415 - most commands never update

    known = up_to(connection)
    highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
    found = connection.execute(
        f"SELECT repository_id FROM {AFFECTED} ORDER BY 1 LIMIT ?", (REPOSITORIES_AT_ONCE,)
    ).fetchall()
    changed = [row[0] for row in found]
    upper = known
    if len(changed) < REPOSITORIES_AT_ONCE:
        upper = max(known, min(highest, known + REPOSITORIES_AT_ONCE))
    ids = sorted({*changed, *range(known + 1, upper + 1)})
    apply_ref_changes(connection, list(changes_of(connection, ids)), common_cost)
    done = json.dumps(ids)
    for table in ("pending", "moved"):
        which = "repository_id IN (SELECT value FROM json_each(?))"
        connection.execute(f"DELETE FROM search_ref_{table} WHERE {which}", (done,))
    connection.execute("UPDATE search_ref_state SET up_to = ?", (upper,))


def _size(connection: sqlite3.Connection, known: int) -> int:
    """Count the refs of the backlog."""
    new = " + ".join(f"(SELECT count(*) FROM {table} WHERE repository_id > :known)" for table in TABLES)
    moved = " + ".join(
        f"(SELECT count(*) FROM {table} WHERE repository_id IN (SELECT repository_id FROM search_ref_moved))"
        for table in TABLES
    )
    sql = f"SELECT (SELECT count(*) FROM search_ref_pending) + {new} + {moved}"
    return int(connection.execute(sql, {"known": known}).fetchone()[0])


def _indexed(connection: sqlite3.Connection) -> int:
    row = connection.execute(
        "SELECT coalesce(sum(branches + tags), 0) FROM search_ref_common WHERE path = x''"
    ).fetchone()
    return int(row[0])
