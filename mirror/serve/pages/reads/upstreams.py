"""How each upstream stands, for the foot of every page; and the counts, which cost a scan."""

import sqlite3

from mirror.serve.callers import Caller
from mirror.serve.lookups import visible
from mirror.serve.pages.reads.rows import Row, ids_of, one, rows


def upstreams(connection: sqlite3.Connection) -> list[Row]:
    """Read each upstream with the moment of its last complete sync and how its last run went.

    A look at what is likely to have changed, or a second try, is a run, but no complete sync.
    """
    return rows(
        connection,
        """SELECT up.id, up.name, up.kind, up.url, up.refs,
               (SELECT s.finished_at FROM sync_runs s WHERE s.upstream_id = up.id AND s.state = 'complete'
                    AND s.kind IN ('full', 'incremental') ORDER BY s.id DESC LIMIT 1) AS complete_at,
               last.state AS run_state, last.kind AS run_kind, last.started_at AS run_started_at,
               last.finished_at AS run_finished_at
           FROM upstreams up LEFT JOIN sync_runs last ON last.id =
               (SELECT max(id) FROM sync_runs WHERE upstream_id = up.id) ORDER BY up.id""",
    )


def counts(connection: sqlite3.Connection, caller: Caller) -> Row:
    """Count repositories and owners: all of them in an index, less what is gone or not for the visitor."""
    living, gone = "r.deleted_at IS NULL", "r.deleted_at IS NOT NULL"
    known = _by_upstream(connection, caller, "1")
    tombstones = _by_upstream(connection, caller, gone)
    private = _by_upstream(connection, caller, f"r.is_private = 1 AND {living}")
    waiting = _by_upstream(connection, caller, f"r.refs_stale AND {living}")
    unread = _by_upstream(connection, caller, f"r.refs_stale AND r.refs_synced_at IS NULL AND {living}")
    by_upstream = {
        row_id: {
            "living": count - tombstones.get(row_id, 0),
            "private": private.get(row_id, 0),
            "gone": tombstones.get(row_id, 0),
            "refs_waiting": waiting.get(row_id, 0),
            "refs_unread": unread.get(row_id, 0),
        }
        for row_id, count in known.items()
    }
    return {
        "by_upstream": by_upstream,
        "repositories": sum(row["living"] for row in by_upstream.values()),
        "refs_unread": sum(row["refs_unread"] for row in by_upstream.values()),
        "owners": one(
            connection,
            f"""SELECT count(DISTINCT r.owner_id) FROM repositories r
                WHERE {living} AND {visible(caller, "r")}""",
            {"ids": ids_of(caller)},
        ),
    }


def ref_counts(connection: sqlite3.Connection, caller: Caller) -> Row:
    """Count branches and tags: all of them, less those of repositories that the visitor may not see.

    SQLite counts a whole table page by page, without a look at its rows; a cold file of ten million refs
    has to be read once, all the same.
    """
    return {table: _count(connection, caller, table) for table in ("branches", "tags")}


def _count(connection: sqlite3.Connection, caller: Caller, table: str) -> int:
    everything = int(one(connection, f"SELECT count(*) FROM {table}"))
    if caller.sees_all:
        return everything
    hidden = one(
        connection,
        f"""SELECT count(*) FROM repositories r JOIN {table} x ON x.repository_id = r.id
            WHERE r.is_private = 1 AND NOT {visible(caller, "r")}""",
        {"ids": ids_of(caller)},
    )
    return everything - int(hidden)


def _by_upstream(connection: sqlite3.Connection, caller: Caller, condition: str) -> dict[int, int]:
    """Count the repositories of each upstream that a visitor may see."""
    ids = [row["id"] for row in rows(connection, "SELECT id FROM upstreams")]
    found = _grouped(connection, condition, ids, {})
    if caller.sees_all:
        return found
    concealed = f"{condition} AND r.is_private = 1 AND NOT {visible(caller, 'r')}"
    hidden = _grouped(connection, concealed, ids, {"ids": ids_of(caller)})
    return {row_id: count - hidden.get(row_id, 0) for row_id, count in found.items()}


def _grouped(
    connection: sqlite3.Connection, condition: str, upstream_ids: list[int], values: dict[str, str]
) -> dict[int, int]:
    """Count by upstream; where there is one alone, in the index that the condition has, without the rows."""
    if len(upstream_ids) == 1:
        sql = f"SELECT count(*) FROM repositories r WHERE {condition}"
        return {upstream_ids[0]: int(one(connection, sql, values))}
    sql = f"SELECT r.upstream_id, count(*) AS n FROM repositories r WHERE {condition} GROUP BY 1"
    return {row["upstream_id"]: row["n"] for row in rows(connection, sql, values)}
