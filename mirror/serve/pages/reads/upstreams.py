"""How each upstream stands, for the foot of every page; and the counts, which cost a scan."""

import sqlite3

from mirror.serve.callers import Caller
from mirror.serve.lookups import visible
from mirror.serve.pages.reads.rows import Row, ids_of, one, rows


def upstreams(connection: sqlite3.Connection) -> list[Row]:
    """Read each upstream with the moment of its last complete sync and how its last run went."""
    return rows(
        connection,
        """SELECT up.id, up.name, up.kind, up.url,
               (SELECT s.finished_at FROM sync_runs s WHERE s.upstream_id = up.id AND s.state = 'complete'
                    AND s.kind <> 'verify' ORDER BY s.id DESC LIMIT 1) AS complete_at,
               last.state AS run_state, last.kind AS run_kind, last.started_at AS run_started_at
           FROM upstreams up LEFT JOIN sync_runs last ON last.id =
               (SELECT max(id) FROM sync_runs WHERE upstream_id = up.id) ORDER BY up.id""",
    )


def counts(connection: sqlite3.Connection, caller: Caller) -> Row:
    """Count what a visitor may see: a scan of all repositories, owners and refs."""
    seen = visible(caller, "r")
    values = {"ids": ids_of(caller)}
    found = rows(
        connection,
        f"""SELECT r.upstream_id, sum(r.deleted_at IS NULL) AS living,
               sum(r.deleted_at IS NULL AND r.is_private <> 0) AS private,
               sum(r.deleted_at IS NOT NULL) AS gone,
               sum(r.deleted_at IS NULL AND r.refs_stale) AS refs_waiting
            FROM repositories r WHERE {seen} GROUP BY r.upstream_id""",
        values,
    )
    joined = "" if caller.sees_all else f"JOIN repositories r ON r.id = x.repository_id AND {seen}"
    return {
        "by_upstream": {row["upstream_id"]: row for row in found},
        "repositories": sum(row["living"] for row in found),
        "private": sum(row["private"] for row in found),
        "gone": sum(row["gone"] for row in found),
        "owners": one(
            connection,
            f"""SELECT count(DISTINCT r.owner_id) FROM repositories r
                WHERE r.deleted_at IS NULL AND {seen}""",
            values,
        ),
        "branches": one(connection, f"SELECT count(*) FROM branches x {joined}", values),
        "tags": one(connection, f"SELECT count(*) FROM tags x {joined}", values),
    }
