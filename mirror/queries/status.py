"""The status of the mirror, read from the file: its numbers, and how far it is in step with its upstreams."""

import sqlite3
from datetime import datetime, timedelta
from typing import Any

import msgspec

from mirror.queries.crawl import SyncProgress, read_progress, run_now
from mirror.queries.rows import UpstreamRow, Values, upstreams_of
from mirror.queries.visibility import Caller, shows_refs, visible
from mirror.store.compaction import compacted_before
from mirror.store.cursors import Cursors
from mirror.store.ledger import held_until, used_in_hour
from mirror.store.repair import SKEW, latest_ahead
from mirror.store.rows import fetch, fetch_dicts, fetch_value
from mirror.times import from_text, to_text


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
    """Count branches and tags: all of them, minus those that the caller may not see."""
    # SQLite counts a whole table page by page, without its rows; a cold file still has to be read once.
    return RefCounts(_count_refs(connection, caller, "branches"), _count_refs(connection, caller, "tags"))


def _count_refs(connection: sqlite3.Connection, caller: Caller, table: str) -> int:
    everything = int(fetch_value(connection, f"SELECT count(*) FROM {table}"))
    if caller.sees_all:
        return everything
    hidden = fetch_value(
        connection,
        f"""SELECT count(*) FROM repositories r JOIN {table} x ON x.repository_id = r.id
            WHERE (r.is_private = 1 OR r.id IN (SELECT repository_id FROM changes WHERE kind = 'made_public'))
                AND NOT ({visible(caller, "r")} AND {shows_refs(caller)})""",
        caller.values,
    )
    return everything - int(hidden)


def _by_upstream(connection: sqlite3.Connection, caller: Caller, condition: str) -> dict[int, int]:
    """Count the repositories of each upstream that a caller may see."""
    found = _grouped(connection, condition, {})
    if caller.sees_all:
        return found
    concealed = f"{condition} AND r.is_private = 1 AND NOT {visible(caller, 'r')}"
    hidden = _grouped(connection, concealed, caller.values)
    return {row_id: count - hidden.get(row_id, 0) for row_id, count in found.items()}


def _grouped(connection: sqlite3.Connection, condition: str, values: Values) -> dict[int, int]:
    """Count by upstream."""
    upstreams = upstreams_of(connection)
    if len(upstreams) == 1:  # in the condition's index, without the rows
        sql = f"SELECT count(*) FROM repositories r WHERE {condition}"
        return dict.fromkeys(upstreams, int(fetch_value(connection, sql, values)))
    sql = f"SELECT r.upstream_id, count(*) FROM repositories r WHERE {condition} GROUP BY 1"
    return dict(fetch(connection, sql, values))


HOUR = timedelta(hours=1)
QUANTILES = (0.5, 0.95, 1.0)


class BudgetLeft(msgspec.Struct, kw_only=True):
    """Requests of the rolling hour: `limit` None means that none is known or set.

    `held_until` is when the upstream allows requests again, after a 429.
    """

    limit: int | None
    used: int
    left: int | None
    resets_at: str | None
    held_until: str | None = None


class HistoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded history: the number of changes, the first moment, and their bytes with indexes.

    The bytes include former sizes, and are None if SQLite cannot tell. Before `compacted_before`, the past is
    exact to the day.
    """

    changes: int
    bytes: int | None
    since: str | None
    compacted_before: str | None


def history_status(connection: sqlite3.Connection) -> HistoryStatus:
    """Read how much history the file holds."""
    return HistoryStatus(
        changes=fetch_value(connection, "SELECT count(*) FROM changes"),
        bytes=_bytes(connection),
        since=fetch_value(connection, "SELECT min(at) FROM changes"),
        compacted_before=compacted_before(connection),
    )


def _bytes(connection: sqlite3.Connection) -> int | None:
    sql = """SELECT sum(d.pgsize) FROM sqlite_master m CROSS JOIN dbstat d
        WHERE m.tbl_name IN ('changes', 'measures') AND d.name = m.name"""
    try:
        return fetch_value(connection, sql) or 0
    except sqlite3.Error:  # this SQLite has no dbstat
        return None


class UpstreamStatus(msgspec.Struct, kw_only=True):
    """One upstream as the file knows it. `freshness_seconds` is the age of the last complete sync.

    - `refs_waiting`: repositories whose refs are to be read; `refs_unread`: those whose refs were never read,
      so that the numbers of branches and tags are not totals.
    - `refs`: how refs are mirrored: api, git or none; None if an older version made the last sync.
    - `missing`: failures that keep a run from being complete; `accepted`: the other `failures`.
    - `clock_ahead`: the latest moment in the file that is in the future, from a wrong clock. The next sync
      corrects it.
    - `listed_seconds`: maps quantiles ("0.5", "0.95", "1") to how long ago the workspaces of repositories
      were listed, weighted by repositories.
    - `next_runs`: maps each kind of scheduled work to its next start; empty if no service runs.
    - `service_running`: None if unknown. `configured`: whether the configuration names it.
    - `restored_at`: when a copy was restored that no full listing has confirmed; None if none waits for one.
    """

    name: str
    kind: str
    url: str
    repositories: int
    gone: int
    branches: int
    tags: int
    refs_waiting: int
    refs_unread: int
    refs: str | None
    missing: int
    accepted: int
    last_complete_sync: str | None
    freshness_seconds: float | None
    listed_seconds: dict[str, float]
    last_run: dict[str, Any] | None
    budget: BudgetLeft
    failures: list[dict[str, Any]]
    service_running: bool | None = None
    clock_ahead: str | None = None
    restored_at: str | None = None
    next_runs: dict[str, str] = {}
    configured: bool = True
    progress: SyncProgress | None = None


def read_status(
    connection: sqlite3.Connection,
    now: datetime,
    limits: dict[str, tuple[str, int | None]] | None = None,
    *,
    syncing: bool | None = None,
) -> list[UpstreamStatus]:
    """Read the status of every upstream; `syncing` says whether a process holds the lock, None if unknown.

    `limits` maps the names of upstreams to their buckets in the request ledger and their hourly limits.
    Others have an empty budget.
    """
    return [
        _status(connection, row, now, (limits or {}).get(row.name, ("", None)), syncing=syncing)
        for row in upstreams_of(connection).values()
    ]


_ALIVE = "FROM repositories WHERE upstream_id = ? AND deleted_at IS NULL"
_COUNTS = {
    "repositories": f"SELECT count(*) {_ALIVE}",
    "gone": "SELECT count(*) FROM repositories WHERE upstream_id = ? AND deleted_at IS NOT NULL",
    "branches": f"SELECT count(*) FROM branches WHERE repository_id IN (SELECT id {_ALIVE})",
    "tags": f"SELECT count(*) FROM tags WHERE repository_id IN (SELECT id {_ALIVE})",
    "refs_waiting": f"SELECT count(*) {_ALIVE} AND refs_stale",
    "refs_unread": f"SELECT count(*) {_ALIVE} AND refs_synced_at IS NULL",
    "refs": "SELECT refs FROM upstreams WHERE id = ?",
}
"""The fields of a status that are single values."""


def _status(
    connection: sqlite3.Connection,
    upstream: UpstreamRow,
    now: datetime,
    limit: tuple[str, int | None],
    *,
    syncing: bool | None,
) -> UpstreamStatus:
    upstream_id = upstream.id
    counts: dict[str, Any] = {
        field: fetch_value(connection, sql, (upstream_id,)) for field, sql in _COUNTS.items()
    }
    complete = fetch_value(
        connection,
        """SELECT finished_at FROM sync_runs WHERE upstream_id = ? AND state = 'complete'
           AND kind IN ('full', 'incremental') AND finished_at <= ?
           ORDER BY id DESC LIMIT 1""",
        (upstream_id, to_text(now)),
    )
    failures = _failures(connection, upstream_id)
    return UpstreamStatus(
        name=upstream.name,
        kind=upstream.kind,
        url=upstream.url,
        **counts,
        missing=sum(not failure["accepted"] for failure in failures),
        accepted=sum(failure["accepted"] for failure in failures),
        last_complete_sync=complete,
        freshness_seconds=(now - from_text(complete)).total_seconds() if complete else None,
        listed_seconds=_listed(connection, upstream_id, now),
        last_run=_last_run(connection, upstream_id, syncing=syncing),
        budget=budget_left(connection, now, *limit),
        failures=failures,
        progress=read_progress(connection, upstream_id, syncing=syncing),
        clock_ahead=latest_ahead(connection, upstream_id, now),
        restored_at=Cursors(connection, upstream_id).restored.read(),
    )


def _last_run(
    connection: sqlite3.Connection, upstream_id: int, *, syncing: bool | None
) -> dict[str, Any] | None:
    """Return the row of the last run; None if there is none."""
    sql = "SELECT * FROM sync_runs WHERE upstream_id = ? ORDER BY id DESC LIMIT 1"
    return next((run_now(run, syncing=syncing) for run in fetch_dicts(connection, sql, (upstream_id,))), None)


def _listed(connection: sqlite3.Connection, upstream_id: int, now: datetime) -> dict[str, float]:
    """Return quantiles of how many seconds ago the workspaces of repositories were last listed."""
    sql = """SELECT o.uuid, count(*) FROM users o
        JOIN repositories r ON r.owner_id = o.id AND r.deleted_at IS NULL
        WHERE o.upstream_id = ? GROUP BY o.id"""
    counts = dict(fetch(connection, sql, (upstream_id,)))
    states = [state for _, state in Cursors(connection, upstream_id).workspaces()]
    ages = sorted(
        (max(0.0, age), counts[state.owner_uuid])
        for state in states
        if state.cursor and state.owner_uuid in counts
        # A moment further ahead was written by a wrong clock.
        if (age := (now - from_text(state.cursor)).total_seconds()) >= -SKEW
    )
    total = sum(count for _, count in ages)
    return {f"{share:g}": _quantile(ages, share * total) for share in QUANTILES} if total else {}


def _quantile(ages: list[tuple[float, int]], rank: float) -> float:
    seen = 0
    for age, count in ages:
        seen += count
        if seen >= rank:
            return age
    return ages[-1][0]


def budget_left(connection: sqlite3.Connection, now: datetime, bucket: str, limit: int | None) -> BudgetLeft:
    """Count the requests of a bucket in the last hour, and return when the oldest one leaves it."""
    used, frees = used_in_hour(connection, bucket, now)
    held = held_until(connection, bucket, now)
    frees = held or frees
    return BudgetLeft(
        limit=limit,
        used=used,
        left=None if limit is None else max(0, limit - used),
        resets_at=to_text(frees) if frees else None,
        held_until=to_text(held) if held else None,
    )


def _failures(connection: sqlite3.Connection, upstream_id: int) -> list[dict[str, Any]]:
    found = fetch_dicts(
        connection,
        """SELECT f.kind, coalesce(r.full_name, f.subject) AS subject, f.status, f.error, f.attempts,
                  f.first_at, f.last_at, f.next_try_at, f.accepted
           FROM sync_failures f LEFT JOIN repositories r ON r.id = f.repository_id
           WHERE f.upstream_id = ? ORDER BY f.last_at DESC, f.id""",
        (upstream_id,),
    )
    return [row | {"accepted": bool(row["accepted"])} for row in found]
