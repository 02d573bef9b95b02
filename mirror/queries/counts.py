"""Count repositories, owners and refs, from indexes if possible, without reading rows."""

import sqlite3
from collections.abc import Callable

import msgspec

from mirror.queries.rows import Values, fetch, fetch_value, file_state
from mirror.queries.visibility import Caller, visible


class UpstreamCounts(msgspec.Struct, frozen=True):
    """Numbers of repositories of an upstream; the last three count living ones."""

    living: int
    gone: int
    private: int
    refs_waiting: int
    refs_unread: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of repositories and owners that a caller may see, by upstream and in total."""

    by_upstream: dict[int, UpstreamCounts]
    repositories: int
    refs_unread: int
    owners: int


class RefCounts(msgspec.Struct, frozen=True):
    """Numbers of branches and tags that a caller may see."""

    branches: int
    tags: int


def counts_of(connection: sqlite3.Connection, caller: Caller) -> Counts:
    """Count repositories and owners: all in an index, minus those that are gone or hidden."""
    living = "r.deleted_at IS NULL"
    known, gone, private, waiting, unread = (
        _by_upstream(connection, caller, condition)
        for condition in (
            "1",
            "r.deleted_at IS NOT NULL",
            f"r.is_private = 1 AND {living}",
            f"r.refs_stale AND {living}",
            f"r.refs_stale AND r.refs_synced_at IS NULL AND {living}",
        )
    )
    by_upstream = {
        row_id: UpstreamCounts(
            count - gone.get(row_id, 0), *(each.get(row_id, 0) for each in (gone, private, waiting, unread))
        )
        for row_id, count in known.items()
    }
    return Counts(
        by_upstream=by_upstream,
        repositories=sum(one.living for one in by_upstream.values()),
        refs_unread=sum(one.refs_unread for one in by_upstream.values()),
        owners=fetch_value(
            connection,
            f"""SELECT count(DISTINCT r.owner_id) FROM repositories r
                WHERE {living} AND {visible(caller, "r")}""",
            caller.values,
        ),
    )


def ref_counts_of(connection: sqlite3.Connection, caller: Caller) -> RefCounts:
    """Count branches and tags: all of them, minus those of repositories that the caller may not see.

    SQLite counts a whole table page by page, without its rows; a cold file of ten million refs still has to
    be read once.
    """
    return RefCounts(_count_refs(connection, caller, "branches"), _count_refs(connection, caller, "tags"))


def _count_refs(connection: sqlite3.Connection, caller: Caller, table: str) -> int:
    everything = int(fetch_value(connection, f"SELECT count(*) FROM {table}"))
    if caller.sees_all:
        return everything
    hidden = fetch_value(
        connection,
        f"""SELECT count(*) FROM repositories r JOIN {table} x ON x.repository_id = r.id
            WHERE r.is_private = 1 AND NOT {visible(caller, "r")}""",
        caller.values,
    )
    return everything - int(hidden)


def _by_upstream(connection: sqlite3.Connection, caller: Caller, condition: str) -> dict[int, int]:
    """Count the repositories of each upstream that a caller may see."""
    ids = [row[0] for row in fetch(connection, "SELECT id FROM upstreams")]
    found = _grouped(connection, condition, ids, {})
    if caller.sees_all:
        return found
    concealed = f"{condition} AND r.is_private = 1 AND NOT {visible(caller, 'r')}"
    hidden = _grouped(connection, concealed, ids, caller.values)
    return {row_id: count - hidden.get(row_id, 0) for row_id, count in found.items()}


def _grouped(
    connection: sqlite3.Connection, condition: str, upstream_ids: list[int], values: Values
) -> dict[int, int]:
    """Count by upstream; a single upstream is counted in the condition's index, without the rows."""
    if len(upstream_ids) == 1:
        sql = f"SELECT count(*) FROM repositories r WHERE {condition}"
        return {upstream_ids[0]: int(fetch_value(connection, sql, values))}
    sql = f"SELECT r.upstream_id, count(*) FROM repositories r WHERE {condition} GROUP BY 1"
    return dict(fetch(connection, sql, values))


class Owners(msgspec.Struct, frozen=True):
    """The owners whose repositories to count: a condition on `r.owner_id`, "" for all, and its values."""

    condition: str
    values: Values

    def counting(self, *conditions: str) -> str:
        """Return a subquery that counts repositories; without conditions, SQLite reads no entry."""
        where = " AND ".join(one for one in (*conditions, self.condition) if one)
        return f"(SELECT count(*) FROM repositories r {'WHERE ' if where else ''}{where})"


def counter(caller: Caller, owners: Owners) -> Callable[[sqlite3.Connection], int]:
    """Return a function that counts the living repositories of some owners that a caller may see.

    It takes all, minus gone ones, minus living private ones, plus the private ones that the caller may see.
    """
    private = ("r.is_private = 1", "r.deleted_at IS NULL")
    parts = [owners.counting(), "-", owners.counting("r.deleted_at IS NOT NULL")]
    if not caller.sees_all:
        parts += ["-", owners.counting(*private)]
        if caller.user_ids:
            parts += ["+", owners.counting(*private, visible(caller, "r"))]

    sql = f"SELECT {' '.join(parts)}"
    return lambda connection: _remembered(connection, sql, owners.values)


def _remembered(connection: sqlite3.Connection, sql: str, values: Values) -> int:
    """Count once for each state of the file: counting 100,000 costs as much as reading a page."""
    counts, key = file_state(connection).counts, (sql, repr(values))
    if key not in counts:
        counts[key] = int(fetch_value(connection, sql, values))
    return counts[key]
