"""Scheduled work: when it was last done, and when it is due.

The last run is read from `sync_runs`, not from a job store of the scheduler. So manual runs and cron count
too, and the file can be moved to another machine.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from mirror.background.triggers import next_time
from mirror.config import Config, UpstreamConfig
from mirror.store.cursors import Cursors
from mirror.store.files import read_if_possible
from mirror.store.rows import fetch, fetch_row
from mirror.times import from_text, to_text

JobKind = Literal["sync", "sweep", "refs", "retry", "verify", "marked", "watch"]

# The kinds of `sync_runs` rows that record a kind of work.
RUNS: dict[JobKind, tuple[str, ...]] = {
    "sync": ("incremental", "full"),
    "sweep": ("full",),
    "refs": ("refs",),
    "retry": ("retry",),
    "verify": ("verify",),
    "marked": ("marked",),
    "watch": ("watch",),
}

# The setting of an upstream that schedules a kind of work; "" means never by itself.
SETTINGS: dict[JobKind, str] = {
    "sync": "schedule",
    "sweep": "sweep_schedule",
    "refs": "refs_schedule",
    "retry": "retry_schedule",
    "verify": "verify_schedule",
}

ENDED = ("complete", "incomplete")


class Work(NamedTuple):
    """One kind of work for one upstream, with its schedule."""

    upstream: UpstreamConfig
    kind: JobKind
    schedule: str

    @property
    def id(self) -> str:
        """Name the job."""
        return f"{self.upstream.name} {self.kind}"

    @property
    def setting(self) -> str:
        """Name the setting that schedules it."""
        return f"upstream {self.upstream.name}: {SETTINGS[self.kind]}"


class LastRun(NamedTuple):
    """When a kind of work last began (None: never), and whether it was completed.

    `resumes_at` is when the budget that it spent allows a request again; None if it is not waiting.
    """

    began: datetime | None
    ended: bool
    resumes_at: datetime | None = None


def scheduled_work(config: Config) -> Iterator[Work]:
    """Yield the work that a configuration schedules."""
    for upstream in config.upstreams:
        for kind, setting in SETTINGS.items():
            schedule = getattr(upstream, setting).strip()
            if schedule and not (kind == "refs" and upstream.refs == "none"):
                yield Work(upstream, kind, schedule)


def last_done(connection: sqlite3.Connection, work: Work, now: datetime) -> LastRun:
    """Read when work began last, in any process."""
    kinds = RUNS[work.kind]
    # Runs in the future come from a wrong clock.
    row = fetch_row(
        connection,
        f"""SELECT started_at, state, id, upstream_id FROM sync_runs
            WHERE upstream_id = (SELECT id FROM upstreams WHERE name = ?)
            AND kind IN ({", ".join("?" * len(kinds))}) AND started_at <= ? ORDER BY id DESC LIMIT 1""",
        (work.upstream.name, *kinds, to_text(now)),
    )
    if not row:
        return LastRun(None, ended=False)
    began, state, run, upstream = row
    return LastRun(from_text(began), state in ENDED, _resumes_at(connection, upstream, run))


def _resumes_at(connection: sqlite3.Connection, upstream: int, run: int) -> datetime | None:
    """Return when a paused run may send requests again; None if it is not waiting."""
    progress = Cursors(connection, upstream).progress.read()
    if progress is None or progress.run_id != run or progress.waits_until is None:
        return None
    return from_text(progress.waits_until)


def is_missed(work: Work, last: LastRun, *, zone: str, now: datetime) -> bool:
    """Return whether work was due while no service ran, or was not completed."""
    if last.began is None:  # the first sync lists everything, so that other kinds can wait for their time
        return work.kind == "sync"
    if work.kind == "sync" and not last.ended:
        return True
    due = next_time(work.schedule, zone=zone, after=last.began)
    return due is not None and due <= now


def next_run(
    work: Work, last: LastRun, *, zone: str, now: datetime, not_before: datetime | None = None
) -> datetime | None:
    """Return when a running service will begin work next, without jitter; None for never.

    Until `not_before`, watch runs take its place. A run that failed or was interrupted waits for its
    schedule, unless a service starts, or reads its configuration again: that begins missed work at once.
    """
    if last.resumes_at is not None:
        return max(now, last.resumes_at)
    if last.began is None and work.kind == "sync":
        return now
    due = next_time(work.schedule, zone=zone, after=not_before or last.began or now)
    return max(now, due) if due is not None else None


def with_hints(config: Config, now: datetime) -> list[Work]:
    """Return a run for each upstream with a hint that is due."""

    def hinted(connection: sqlite3.Connection) -> list[Work]:
        ids = dict(fetch(connection, "SELECT name, id FROM upstreams"))
        return [
            Work(upstream, "marked", "")
            for upstream in config.upstreams
            if upstream.name in ids and Cursors(connection, ids[upstream.name]).hints.any_to_ask(to_text(now))
        ]

    return read_if_possible(Path(config.database), hinted) or []


def read_last(config: Config, chosen: Iterable[Work], now: datetime) -> list[tuple[Work, LastRun]]:
    """Read when each kind of work last began; never, if the mirror is missing or cannot be read."""
    works = list(chosen)
    found = read_if_possible(
        Path(config.database), lambda connection: [(work, last_done(connection, work, now)) for work in works]
    )
    return found or [(work, LastRun(None, ended=False)) for work in works]
