"""How each upstream stands, for the foot of every page; and the counts, which cost a scan."""

import sqlite3
from typing import Any

import msgspec

from mirror.queries.caller import Caller
from mirror.queries.rows import Row, ids_of, one, rows
from mirror.queries.visible import visible

HOUR = """
select bucket, (at - :since) / 60 as minute, sum(sent) as requests
from request_ledger where at >= :since
group by 1, 2 order by 1, 2"""
LIMITS = "select bucket, requests_per_hour, held_until from request_limits"
DAYS = """
select substr(started_at, 1, 10) as day, count(*) as runs,
       sum(requests) as requests, sum(git_requests) as git_requests,
       round(sum(slept_seconds)) as waited_seconds, sum(retries) as retries
from sync_runs where started_at >= :since
group by 1 order by 1"""
RUNS = """
select s.id, u.name as upstream, s.kind, s.state, s.started_at, s.finished_at, s.requests, s.git_requests,
       s.slept_seconds, s.repositories_new, s.repositories_changed, s.repositories_gone,
       s.refs_new + s.refs_changed + s.refs_gone as refs, s.failures, s.error
from sync_runs s join upstreams u on u.id = s.upstream_id
order by s.id desc limit 10"""
FRESHNESS = """
select case when last_seen_at >= :hour then 0 when last_seen_at >= :day then 1
            when last_seen_at >= :week then 2 when last_seen_at >= :month then 3 else 4 end as age,
       sum(refs_stale = 0) as repositories, sum(refs_stale <> 0) as refs_waiting
from repositories r where deleted_at is null and {seen}
group by 1 order by 1"""
GROWTH = """
select substr(created_at, 1, :letters) as period, count(*) as created
from repositories r where created_at is not null and {seen}
group by 1 order by 1"""
FAILURES = """
select f.kind, f.subject, f.status, f.error, f.attempts, f.first_at, f.last_at, f.next_try_at,
       f.accepted, f.repository_id, r.full_name, u.name as upstream
from sync_failures f join upstreams u on u.id = f.upstream_id
left join repositories r on r.id = f.repository_id
where {seen}
order by f.accepted, f.next_try_at limit 100"""
MISSING = """
select sum(not f.accepted) as missing, sum(f.accepted) as accepted
from sync_failures f left join repositories r on r.id = f.repository_id
where {seen}"""


class Measure(msgspec.Struct, frozen=True):
    """What a statement found, and the statement with its values, to be looked at as SQL."""

    rows: list[Row]
    sql: str
    values: dict[str, Any]


def measure(connection: sqlite3.Connection, sql: str, **values: Any) -> Measure:
    """Read a statement that is for everybody whom the page lets read it."""
    sql = sql.strip()
    return Measure(rows(connection, sql, values), sql, values)


def measure_seen(connection: sqlite3.Connection, caller: Caller, sql: str, **values: Any) -> Measure:
    """Read a statement about repositories, as far as the caller may see them."""
    seen = "1" if caller.sees_all else visible(caller, "r")
    sql = sql.strip().replace("{seen}", seen)
    if ":ids" in sql:
        values["ids"] = ids_of(caller)
    return Measure(rows(connection, sql, values), sql, values)


def failures(connection: sqlite3.Connection, caller: Caller) -> Measure:
    """Read what failed; what concerns no repository may name what is not public."""
    return measure_seen(connection, caller, FAILURES)


def missing(connection: sqlite3.Connection, caller: Caller, *, is_open: bool) -> Row:
    """Count what is missing; in an open file all of it, since numbers name nothing."""
    found = measure(connection, MISSING.replace("{seen}", "1")) if is_open else None
    return (found or measure_seen(connection, caller, MISSING)).rows[0]


def runs(connection: sqlite3.Connection, caller: Caller) -> Measure:
    """Read the last runs; their errors may name what is not public."""
    return measure(connection, RUNS if caller.sees_all else RUNS.replace("s.error", "NULL AS error"))


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
