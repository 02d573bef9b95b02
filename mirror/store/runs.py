"""The table `sync_runs` with what each run did, and the answers of the upstream in all runs."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from mirror.store.cursors import Cursors

_SPENT = ("requests", "git_requests", "retries", "slept_seconds")
_FOUND = (
    "repositories_new", "repositories_changed", "repositories_gone", "refs_new", "refs_changed", "refs_gone",
    "failures",
)  # fmt: skip
_COUNTS = (*_SPENT, *_FOUND)

ENDED_UNSEEN = {"state": "interrupted", "error": "the process ended"}
"""The message of a run whose process was killed before it could record its end."""


def start_run(connection: sqlite3.Connection, upstream_id: int, kind: str, *, at: str) -> int:
    """Record a run that begins and return its id.

    Any run that still claims to be running was killed, because only one process at a time has the lock.
    """
    connection.execute(
        """UPDATE sync_runs SET state = :state, finished_at = :at, error = :error
           WHERE state = 'running'""",
        ENDED_UNSEEN | {"at": at},
    )
    cursor = connection.execute(
        "INSERT INTO sync_runs (upstream_id, kind, started_at, state) VALUES (?, ?, ?, 'running')",
        (upstream_id, kind, at),
    )
    return int(cursor.lastrowid or 0)


def save_counts(connection: sqlite3.Connection, run_id: int, *, kind: str, counts: dict[str, Any]) -> None:
    """Record what a run has done so far."""
    connection.execute(
        f"UPDATE sync_runs SET kind = ?, {', '.join(f'{name} = ?' for name in _COUNTS)} WHERE id = ?",
        (kind, *(counts.get(name, 0) for name in _COUNTS), run_id),
    )


def finish_run(
    connection: sqlite3.Connection,
    run_id: int,
    *,
    kind: str,
    state: str,
    at: str,
    counts: dict[str, Any],
    error: str | None,
) -> None:
    """Record how a run ended: complete, incomplete, paused, interrupted or failed."""
    save_counts(connection, run_id, kind=kind, counts=counts)
    connection.execute(
        "UPDATE sync_runs SET state = ?, finished_at = ?, error = ? WHERE id = ?", (state, at, error, run_id)
    )


def merge_watch_runs(connection: sqlite3.Connection, upstream_id: int) -> None:
    """Merge the last two runs into one row, if both were watch runs of one hour that found nothing."""
    nothing = " AND ".join(f"{column} = 0" for column in _FOUND)
    runs = connection.execute(
        f"""SELECT id, finished_at, substr(started_at, 1, 13), state,
                   kind = 'watch' AND state IN ('complete', 'incomplete') AND {nothing}
            FROM sync_runs WHERE upstream_id = ? ORDER BY id DESC LIMIT 2""",
        (upstream_id,),
    ).fetchall()
    if len(runs) < 2:
        return
    (last, finished_at, *last_like), (previous, _, *previous_like) = runs
    if last_like != previous_like or not last_like[-1]:
        return
    connection.execute(
        f"""UPDATE sync_runs AS run
            SET finished_at = ?, {", ".join(f"{name} = run.{name} + last.{name}" for name in _SPENT)}
            FROM sync_runs AS last WHERE run.id = ? AND last.id = ?""",
        (finished_at, previous, last),
    )
    connection.execute("DELETE FROM sync_runs WHERE id = ?", (last,))


def add_answers(
    connection: sqlite3.Connection, upstream_id: int, answers: Mapping[int, int], *, at: str
) -> None:
    """Add a run's number of answers by status to those of all runs before."""
    if not answers:
        return
    cursor = Cursors(connection, upstream_id).answers
    total = cursor.read() or {}
    for status, count in answers.items():
        total[status] = total.get(status, 0) + count
    cursor.save(dict(sorted(total.items())), at=at)
