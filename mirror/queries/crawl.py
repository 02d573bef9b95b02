"""The crawl as the file records it: state and progress of each upstream, requests, freshness, failures.

Each measure is a single statement, so that its page can link to it as SQL.
"""

import sqlite3
from datetime import datetime
from typing import Any

import msgspec

from mirror.queries.visibility import Caller, known_upstreams, visible
from mirror.store.crawl_state import Progress
from mirror.store.cursors import Cursors
from mirror.store.rows import fetch_as, fetch_dicts, fetch_one, fetch_value
from mirror.store.runs import ENDED_UNSEEN
from mirror.times import from_text, minute_text

HOUR = """
select bucket, (at - :since) / 60 as minute, sum(sent) as requests
from request_ledger where at >= :since
group by 1, 2 order by 1, 2"""
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
from repositories r where deleted_at is null and {visible}
group by 1 order by 1"""
GROWTH = """
select substr(created_at, 1, :letters) as period, count(*) as created
from repositories r where created_at is not null and {visible}
group by 1 order by 1"""
FAILURES = """
select f.kind, f.subject, f.status, f.error, f.attempts, f.first_at, f.last_at, f.next_try_at,
       f.accepted, f.repository_id, r.full_name, u.name as upstream
from sync_failures f join upstreams u on u.id = f.upstream_id
left join repositories r on r.id = f.repository_id
where {visible}
order by f.accepted, f.next_try_at limit 100"""
MISSING = """
select sum(not f.accepted) as missing, sum(f.accepted) as accepted
from sync_failures f left join repositories r on r.id = f.repository_id
where {visible}"""


class Measure(msgspec.Struct, frozen=True):
    """The result of a statement, and the statement with its values, to be shown as SQL."""

    rows: list[dict[str, Any]]
    sql: str
    values: dict[str, Any]


def measure(connection: sqlite3.Connection, sql: str, **values: Any) -> Measure:
    """Read a statement that is for everybody whom the page lets read it."""
    sql = sql.strip()
    return Measure(fetch_dicts(connection, sql, values), sql, values)


def measure_visible(connection: sqlite3.Connection, caller: Caller, sql: str, **values: Any) -> Measure:
    """Read a statement about repositories, as far as the caller may see them."""
    sql = sql.replace("{visible}", visible(caller, "r"))
    return measure(connection, sql, **values, **(caller.values if ":ids" in sql else {}))


def failures(connection: sqlite3.Connection, caller: Caller) -> Measure:
    """Read what failed; what concerns no repository may name what is not public."""
    return measure_visible(connection, caller, _errors_for(caller, FAILURES, "f.error"))


def _errors_for(caller: Caller, sql: str, column: str) -> str:
    """Return a statement without its column of errors, unless the caller sees everything.

    Errors may name what is not public, such as the address to which an upstream redirects.
    """
    return sql if caller.sees_all else sql.replace(column, "NULL AS error")


class RepositoryFailure(msgspec.Struct, frozen=True):
    """A failure of a repository: what could not be read, the number of tries, and the next try."""

    kind: str
    status: int | None
    attempts: int
    next_try_at: str


def failures_of(connection: sqlite3.Connection, repository_id: int) -> list[RepositoryFailure]:
    """List what could not be read of a repository."""
    sql = """SELECT kind, status, attempts, next_try_at FROM sync_failures
        WHERE repository_id = ? ORDER BY next_try_at"""
    return fetch_as(RepositoryFailure, connection, sql, (repository_id,))


class Missing(msgspec.Struct, frozen=True):
    """How many failures keep the mirror from being complete, and how many others were accepted."""

    missing: int | None
    accepted: int | None


def missing(connection: sqlite3.Connection, caller: Caller, *, is_open: bool) -> Missing:
    """Count what is missing; in an open file all of it."""
    # Numbers alone name nothing that is private.
    sql = MISSING.replace("{visible}", "1" if is_open else visible(caller, "r"))
    return fetch_one(Missing, connection, sql, caller.values) or Missing(0, 0)


def runs(connection: sqlite3.Connection, caller: Caller, *, syncing: bool | None) -> Measure:
    """Read the last runs. For `syncing` see `standing`."""
    found = measure(connection, _errors_for(caller, RUNS, "s.error"))
    return msgspec.structs.replace(found, rows=[run_now(run, syncing=syncing) for run in found.rows])


class SyncProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a sync that is running or has stopped early: paused, interrupted or failed.

    `percent` belongs to the current phase, is 100 only if the phase is complete, and None if its total is
    unknown. `done_at` is None of a run that failed or was interrupted: nothing says when it will be resumed.
    For the other fields see `mirror.store.crawl_state.Progress`.
    """

    state: str
    what: str
    done: int
    total: int | None
    percent: int | None
    done_at: str | None
    waits_until: str | None
    why: str | None
    at: str


def read_progress(
    connection: sqlite3.Connection, upstream_id: int, *, syncing: bool | None
) -> SyncProgress | None:
    """Read the progress of an unfinished sync of an upstream; None if there is none.

    `syncing` says whether a process holds the lock, None if unknown.
    """
    progress = Cursors(connection, upstream_id).progress.read()
    if progress is None:
        return None
    state = fetch_value(connection, "SELECT state FROM sync_runs WHERE id = ?", (progress.run_id,))
    if state in (None, "complete", "incomplete"):
        return None
    return _sync_progress(progress, run_now({"state": state}, syncing=syncing)["state"])


def run_now(run: dict[str, Any], *, syncing: bool | None) -> dict[str, Any]:
    """Return the row of a run. A run that is marked as running while no process has the lock was killed."""
    # Only a process with the lock is a run, so another one ended without a word.
    return run | ENDED_UNSEEN if run["state"] == "running" and syncing is False else run


GOES_ON = ("running", "paused")
"""The states of a run that has an expected end: a service resumes one that paused; others may fail again."""


def _sync_progress(progress: Progress, state: str) -> SyncProgress:
    percent = None
    if progress.total is not None:
        percent = 100 * progress.done // progress.total if progress.total else 100
    return SyncProgress(
        state=state,
        what=progress.what,
        done=progress.done,
        total=progress.total,
        percent=percent,
        done_at=progress.done_at if state in GOES_ON else None,
        waits_until=progress.waits_until,
        why=progress.why,
        at=progress.at,
    )


def progress_text(progress: SyncProgress, now: datetime) -> str:
    """Describe the progress of a sync: ``refs 234 of 2,000, 12 %, done about 02:56 CET``."""
    parts = [f"{progress.what} {progress.done:,}"]
    if progress.total is not None:
        parts = [f"{parts[0]} of {progress.total:,}", f"{progress.percent} %"]
    if progress.state != "running":
        parts.append(progress.state)
    if progress.waits_until and from_text(progress.waits_until) > now:
        parts.append(f"nothing is asked until {minute_text(from_text(progress.waits_until), now)}")
    is_overdue = progress.state != "running" and progress.done_at and from_text(progress.done_at) < now
    if progress.done_at and not is_overdue:
        parts.append(f"done about {minute_text(max(now, from_text(progress.done_at)), now)}")
    return ", ".join(parts)


def line_of(progress: Progress) -> str:
    """Describe the progress of a run of this process."""
    return progress_text(_sync_progress(progress, "running"), from_text(progress.at))


class UpstreamSummary(msgspec.Struct, frozen=True):
    """An upstream, when its last complete sync ended, and how its last run went.

    A watch run, or a second try, is a run, but no complete sync.
    """

    id: int
    name: str
    kind: str
    url: str
    refs: str | None
    complete_at: str | None
    run_state: str | None
    run_kind: str | None
    run_started_at: str | None
    run_finished_at: str | None
    progress: SyncProgress | None = None


def upstreams(connection: sqlite3.Connection, caller: Caller) -> list[UpstreamSummary]:
    """Read the upstreams that a caller may know, in the order in which they were added."""
    return fetch_as(
        UpstreamSummary,
        connection,
        f"""SELECT up.id, up.name, up.kind, up.url, up.refs,
               (SELECT s.finished_at FROM sync_runs s WHERE s.upstream_id = up.id AND s.state = 'complete'
                    AND s.kind IN ('full', 'incremental') ORDER BY s.id DESC LIMIT 1),
               last.state, last.kind, last.started_at, last.finished_at
           FROM upstreams up LEFT JOIN sync_runs last ON last.id =
               (SELECT max(id) FROM sync_runs WHERE upstream_id = up.id)
           WHERE {known_upstreams(connection, caller)} ORDER BY up.id""",
        caller.values,
    )


def standing(
    connection: sqlite3.Connection, caller: Caller, *, syncing: bool | None, with_progress: bool
) -> list[UpstreamSummary]:
    """Read the upstreams that a caller may know, if `with_progress` with how far their syncs are.

    The progress counts private rows too.

    `syncing` says whether a process holds the lock of the file, None where that is not known. Without one,
    a run that claims to be running was killed.
    """
    return [
        msgspec.structs.replace(
            row,
            run_state=run_now({"state": row.run_state}, syncing=syncing)["state"],
            progress=read_progress(connection, row.id, syncing=syncing) if with_progress else None,
        )
        for row in upstreams(connection, caller)
    ]
