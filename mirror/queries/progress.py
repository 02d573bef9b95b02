"""The progress of an upstream's sync, from the file and its lock, in the same words everywhere."""

import sqlite3
from datetime import datetime
from typing import Any

import msgspec

from mirror.queries.rows import fetch_value
from mirror.store.crawl_state import Progress
from mirror.store.cursors import Cursors
from mirror.store.runs import ENDED_UNSEEN
from mirror.times import from_text, minute_text


class SyncProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a sync is that is running, or has stopped early: paused, interrupted or failed.

    `percent` belongs to the present phase, and is 100 only where nothing of it is left. For the others see
    `mirror.store.crawl_state.Progress`.
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
    """Read how far the sync of an upstream is; None where none has begun that is not done.

    `syncing` says whether a process holds the lock, None where that is not known.
    """
    progress = Cursors(connection, upstream_id).progress.read()
    if progress is None:
        return None
    state = fetch_value(connection, "SELECT state FROM sync_runs WHERE id = :id", {"id": progress.run_id})
    if state in (None, "complete", "incomplete"):
        return None
    return _shown(progress, run_now({"state": state}, syncing=syncing)["state"])


def run_now(run: dict[str, Any], *, syncing: bool | None) -> dict[str, Any]:
    """Return the row of a run; a run that is marked as running without a lock was killed."""
    return run | ENDED_UNSEEN if run["state"] == "running" and syncing is False else run


def _shown(progress: Progress, state: str) -> SyncProgress:
    return SyncProgress(
        state=state,
        what=progress.what,
        done=progress.done,
        total=progress.total,
        percent=_percent(progress),
        done_at=progress.done_at,
        waits_until=progress.waits_until,
        why=progress.why,
        at=progress.at,
    )


def _percent(progress: Progress) -> int | None:
    """Return the share of the phase that is done, in whole per cent; None where its total is not known."""
    if progress.total is None:
        return None
    return 100 * progress.done // progress.total if progress.total else 100


def progress_text(progress: SyncProgress, now: datetime) -> str:
    """Say how far a sync is: ``refs 234 of 2,000, 12 %, done about 02:56 CET``."""
    parts = [f"{progress.what} {progress.done:,}"]
    if progress.total is not None:
        parts = [f"{parts[0]} of {progress.total:,}", f"{progress.percent} %"]
    if progress.state != "running":
        parts.append(progress.state)
    if progress.waits_until and from_text(progress.waits_until) > now:
        parts.append(f"nothing is asked until {minute_text(from_text(progress.waits_until), now)}")
    if progress.done_at:
        parts.append(f"done about {minute_text(max(now, from_text(progress.done_at)), now)}")
    return ", ".join(parts)


def line_of(progress: Progress) -> str:
    """Say the same of a run of this process."""
    return progress_text(_shown(progress, "running"), from_text(progress.at))
