"""The crawl as the file knows it: what was asked, how fresh the rows are, how it grew, what failed.

Each measure is one statement that stands by itself, so that its page can link to it as SQL.
"""

import sqlite3
from typing import Any

import msgspec

from mirror.serve.callers import Caller
from mirror.serve.lookups import visible
from mirror.serve.pages.reads.rows import Row, ids_of, rows

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
