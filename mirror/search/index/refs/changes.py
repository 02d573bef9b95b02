"""The backlog of the index of refs: the changes that it does not contain yet, and when they are flushed.

It consists of *pending* refs, which the index has as they were before a change (`search_ref_pending`), of
*moved* repositories, whose refs became hidden, public or gone (`search_ref_moved`), and of *new* ones, whose
id is above `search_ref_state.up_to`.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import compress, product
from typing import Any, NamedTuple

from mirror.search.index.format import state_of_index
from mirror.search.index.refs.layout import (
    COLLECTION,
    HASH_DIGITS,
    KINDS,
    NAME_COST,
    ORDER,
    SIZES,
    TABLES,
    Sizes,
    has_hashes,
    up_to,
)
from mirror.search.query import plain_cursor

FLUSH_FROM = 1_000
"""During a sync, apply the backlog once it is this long."""

REBUILD_FROM = 20_000
REBUILD_SHARE = 30
"""Rebuild rather than update if the backlog exceeds REBUILD_FROM and 1/REBUILD_SHARE of the indexed refs."""

REPOSITORIES_AT_ONCE = 10_000
"""How many repositories one update handles."""


class RefEntry(NamedTuple):
    """A ref in the index: its list, its order there, and the first digits of its hash."""

    list: int
    order: int
    hash: str


class RefChange(NamedTuple):
    """A ref as the index has it, and as it should have it; None if it has none, or should have none."""

    repository: int
    kind: int
    name: str
    was: RefEntry | None
    now: RefEntry | None


def _entry(collection: str, row: str, date: str, target: str) -> str:
    """Return SQL for the columns of an entry: list, order, digits of the hash."""
    order = ORDER.format(date=f"{row}.{date}", repository=f"{row}.repository_id")
    digits = f"substr({row}.{target}, 1, {HASH_DIGITS})"
    return f"{len(KINDS)} * {collection} + {{kind}}, {order}, {digits}"


_COLLECTION = COLLECTION.format(r="r")
_NOW = _entry(_COLLECTION, "t", "target_date", "target_hash")
# {which} is a condition on a ref, whose row is {row} in it.
_PENDING = f"""SELECT p.repository_id, {{kind}}, p.name,
        {_entry(f"coalesce(m.was, {_COLLECTION})", "p", "was_date", "was_hash")}, {_NOW}
    FROM search_ref_pending p
    LEFT JOIN search_ref_moved m ON m.repository_id = p.repository_id
    LEFT JOIN repositories r ON r.id = p.repository_id
    LEFT JOIN {{table}} t ON t.repository_id = p.repository_id AND t.name = p.name
    WHERE p.kind = {{kind}} AND {{which}}"""
_MOVED = f"""SELECT t.repository_id, {{kind}}, t.name,
        {_entry("m.was", "t", "target_date", "target_hash")}, {_NOW}
    FROM search_ref_moved m
    CROSS JOIN {{table}} t ON t.repository_id = m.repository_id
    LEFT JOIN repositories r ON r.id = m.repository_id
    WHERE NOT EXISTS (SELECT 1 FROM search_ref_pending p
        WHERE p.repository_id = t.repository_id AND p.kind = {{kind}} AND p.name = t.name) AND {{which}}"""
_NEW = f"""SELECT t.repository_id, {{kind}}, t.name, NULL, NULL, NULL, {_NOW}
    FROM repositories r CROSS JOIN {{table}} t ON t.repository_id = r.id
    WHERE r.id > :known AND {{which}}"""

# Usually nothing waits, and one statement finds that out.
_WAITING = """SELECT up_to,
    EXISTS (SELECT 1 FROM search_ref_pending), EXISTS (SELECT 1 FROM search_ref_moved),
    (SELECT max(id) FROM repositories) > up_to FROM search_ref_state"""

_AFFECTED = """(SELECT repository_id FROM search_ref_pending
    UNION SELECT repository_id FROM search_ref_moved)"""


def changed_refs(
    connection: sqlite3.Connection, which: str = "1", values: Mapping[str, Any] | None = None
) -> Iterator[RefChange]:
    """Yield the refs of the backlog, in no particular order.

    :param which: an SQL condition on a ref, with `{row}` for the alias of its row
    :param values: the values that the condition names
    """
    known, *waiting = state_of_index(connection, _WAITING)
    parts = compress(((_PENDING, "p"), (_MOVED, "t"), (_NEW, "t")), waiting)
    for (sql, row), (kind, table) in product(parts, enumerate(TABLES)):
        rows = plain_cursor(connection).execute(
            sql.format(kind=kind, table=table, which=which.format(row=row)),
            {"known": known, **(values or {})},
        )
        for repository, _, name, *entries in rows:
            was, now = _entry_of(*entries[:3]), _entry_of(*entries[3:])
            if was is not None or now is not None:
                yield RefChange(repository, kind, name, was, now)


def _entry_of(which: int | None, order: int, digits: str | None) -> RefEntry | None:
    """Return an entry; None if there is no repository or no ref."""
    return None if which is None or digits is None else RefEntry(which, order, digits)


def update_after_refs(connection: sqlite3.Connection) -> None:
    """Apply the backlog once it is long; call it in the transaction that wrote refs or repositories."""
    # An index that was never built (`up_to` is 0) is left alone, so that a first load pays nothing.
    ((waiting,),) = connection.execute(
        """SELECT iif(max(up_to), (SELECT coalesce(max(id), 0) FROM search_ref_pending)
                + (SELECT count(*) FROM search_ref_moved)
                + (SELECT coalesce(max(id), 0) FROM repositories) - max(up_to), 0) FROM search_ref_state"""
    )
    if waiting >= FLUSH_FROM:
        apply_refs_backlog(connection)


def flush_refs_step(connection: sqlite3.Connection) -> bool:
    """Apply a part of the backlog; return whether there was any. Call it until it returns False.

    Each call belongs in a transaction of its own.
    """
    known = up_to(connection)
    highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
    affected = connection.execute(f"SELECT EXISTS {_AFFECTED}").fetchone()[0]
    if not affected and highest <= known:
        return False
    indexed = _indexed(connection)
    if (
        not known
        or _size(connection, known) > max(REBUILD_FROM, indexed // REBUILD_SHARE)
        or _has_odd_spans(connection, indexed)
    ):
        rebuild_refs_index(connection)
    else:
        apply_refs_backlog(connection)
    return True


def rebuild_refs_index(connection: sqlite3.Connection, sizes: Sizes = SIZES) -> None:
    """Rebuild the index from the rows; call it in a transaction."""
    from mirror.search.index.refs.rebuild import build_refs_index  # noqa: PLC0415 - numpy is slow to import

    build_refs_index(connection, sizes)


def apply_refs_backlog(connection: sqlite3.Connection, sizes: Sizes = SIZES) -> None:
    """Apply the backlog of REPOSITORIES_AT_ONCE repositories, the changed ones first."""
    known = up_to(connection)
    highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
    found = connection.execute(
        f"SELECT repository_id FROM {_AFFECTED} ORDER BY 1 LIMIT ?", (REPOSITORIES_AT_ONCE,)
    ).fetchall()
    changed = [row[0] for row in found]
    upper = known
    if len(changed) < REPOSITORIES_AT_ONCE:
        upper = max(known, min(highest, known + REPOSITORIES_AT_ONCE))
    ids = json.dumps([*changed, *range(known + 1, upper + 1)])
    wanted = "repository_id IN (SELECT value FROM json_each(:ids))"
    changes = list(changed_refs(connection, f"{{row}}.{wanted}", {"ids": ids}))
    if changes:
        from mirror.search.index.refs.apply import apply_ref_changes  # noqa: PLC0415 - numpy is slow to import

        apply_ref_changes(connection, changes, sizes)
    for table in ("pending", "moved"):
        connection.execute(f"DELETE FROM search_ref_{table} WHERE {wanted}", {"ids": ids})
    connection.execute("UPDATE search_ref_state SET up_to = ?", (upper,))


def search_commits(connection: sqlite3.Connection, *, wanted: bool) -> None:
    """Turn the search by commit on or off; call it in a transaction. It may rebuild the index."""
    if has_hashes(connection) == wanted:
        return
    connection.execute("UPDATE search_ref_state SET commits = ?", (wanted,))
    if not wanted:
        connection.execute("DELETE FROM search_ref_hashes")
    elif up_to(connection):
        rebuild_refs_index(connection)


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
        """SELECT coalesce(sum(branches + tags), 0) FROM search_ref_common
            WHERE node = (SELECT node FROM search_ref_paths WHERE path = x'')"""
    ).fetchone()
    return int(row[0])


def _has_odd_spans(connection: sqlite3.Connection, indexed: int) -> bool:
    """Return whether a long index has no spans, or twice as many as it needs, most of them nearly empty."""
    spans = connection.execute("SELECT count(*) FROM search_ref_spans").fetchone()[0]
    if not spans:
        names = connection.execute("SELECT count(*) FROM search_ref_names").fetchone()[0]
        return indexed + NAME_COST * int(names) > 2 * SIZES.counted
    return int(spans) > 2 * indexed // SIZES.span + 64
