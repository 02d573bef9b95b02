"""Writing what the crawler did: runs, failures with their next try, cursors that say where it goes on."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mirror.times import to_text

_NEWS = (
    "repositories_new", "repositories_changed", "repositories_gone", "refs_new", "refs_changed", "refs_gone",
    "failures",
)  # fmt: skip
_ADDED = ("requests", "git_requests", "retries", "slept_seconds")


def merge_look(connection: sqlite3.Connection, upstream_id: int) -> None:
    """Add the last run to the one before, if both were looks of the same hour that found nothing."""
    nothing = " AND ".join(f"{column} = 0" for column in _NEWS)
    found = connection.execute(
        f"""SELECT id, finished_at, substr(started_at, 1, 13), {", ".join(_ADDED)},
                   iif(kind = 'watch' AND state IN ('complete', 'incomplete') AND {nothing}, state, NULL)
            FROM sync_runs WHERE upstream_id = ? ORDER BY id DESC LIMIT 2""",
        (upstream_id,),
    ).fetchall()
    if len(found) < 2 or found[0][-1] is None or found[0][-1] != found[1][-1] or found[0][2] != found[1][2]:
        return
    new, old = found
    connection.execute(
        f"""UPDATE sync_runs SET finished_at = ?, {", ".join(f"{name} = {name} + ?" for name in _ADDED)}
            WHERE id = ?""",
        (new[1], *new[3:-1], old[0]),
    )
    connection.execute("DELETE FROM sync_runs WHERE id = ?", (new[0],))


FIRST_DELAY = timedelta(minutes=15)
LEAST_DELAY = timedelta(seconds=10)
LONGEST_DELAY = timedelta(days=7)
ENOUGH = 6  # times four is more than the longest delay; a few times more is more than a timedelta holds

_COUNTS = (
    "requests", "git_requests", "retries", "slept_seconds", "repositories_new", "repositories_changed",
    "repositories_gone", "refs_new", "refs_changed", "refs_gone", "failures",
)  # fmt: skip


class Failure(NamedTuple):
    """Something that could not be asked for: what it was, what came instead, when it is tried again.

    `kind` is refs, ref, repository, row, page, members, hidden members, workspace, workspaces, absence;
    `subject` names it for people and is unique within its kind; `place` is what to ask again for a page.
    `retry_after` is the first delay in seconds, where the upstream told one.
    `next_try_at` is computed from `attempts` where it is empty. What is `accepted` keeps no run from being
    complete.
    """

    kind: str
    subject: str
    error: str
    repository_id: int | None = None
    status: int | None = None
    place: str | None = None
    attempts: int = 1
    next_try_at: str = ""
    retry_after: float | None = None
    accepted: bool = False


ACCEPTABLE = (403, 404, 451)
"""Statuses of refusals that `accept_missing` accepts."""

HIDDEN_MEMBERS = "hidden members"
"""The kind of failure of members that the credential may not see: reported, and not missing."""


ENDED_UNSEEN = {"state": "interrupted", "error": "the process ended"}
"""What is said of a run whose process was killed before it could record how the run ended."""


def start_run(connection: sqlite3.Connection, upstream_id: int, kind: str, *, at: str) -> int:
    """Record a run that begins; whatever still claims to be running was killed."""
    connection.execute(
        """UPDATE sync_runs SET state = :state, finished_at = :at, error = :error
           WHERE upstream_id = :upstream AND state = 'running'""",
        ENDED_UNSEEN | {"at": at, "upstream": upstream_id},
    )
    cursor = connection.execute(
        "INSERT INTO sync_runs (upstream_id, kind, started_at, state) VALUES (?, ?, ?, 'running')",
        (upstream_id, kind, at),
    )
    return int(cursor.lastrowid or 0)


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


def save_counts(connection: sqlite3.Connection, run_id: int, *, kind: str, counts: dict[str, Any]) -> None:
    """Record what a run has done until now."""
    connection.execute(
        f"UPDATE sync_runs SET kind = ?, {', '.join(f'{name} = ?' for name in _COUNTS)} WHERE id = ?",
        (kind, *(counts.get(name, 0) for name in _COUNTS), run_id),
    )


def save_failure(
    connection: sqlite3.Connection, upstream_id: int, failure: Failure, now: datetime
) -> Failure:
    """Record a failure, or one more of the same.

    Each attempt multiplies the delay to the next try by four, from 15 minutes to 7 days.
    """
    row = connection.execute(
        "SELECT attempts FROM sync_failures WHERE upstream_id = ? AND kind = ? AND subject = ?",
        (upstream_id, failure.kind, failure.subject),
    ).fetchone()
    attempts = (row[0] if row else 0) + 1
    told = failure.retry_after
    first = FIRST_DELAY if told is None else max(LEAST_DELAY, timedelta(seconds=told))
    delay = min(first * 4 ** min(attempts - 1, ENOUGH), LONGEST_DELAY)
    failure = failure._replace(attempts=attempts, next_try_at=failure.next_try_at or to_text(now + delay))
    connection.execute(
        """INSERT INTO sync_failures (upstream_id, kind, subject, repository_id, status, error, place,
                                      first_at, last_at, attempts, next_try_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (upstream_id, kind, subject) DO UPDATE SET
               repository_id = excluded.repository_id, status = excluded.status,
               error = excluded.error, place = excluded.place, last_at = excluded.last_at,
               attempts = excluded.attempts, next_try_at = excluded.next_try_at""",
        (
            upstream_id,
            failure.kind,
            failure.subject,
            failure.repository_id,
            failure.status,
            failure.error,
            failure.place,
            to_text(now),
            to_text(now),
            attempts,
            failure.next_try_at,
        ),
    )
    return failure


def accept(connection: sqlite3.Connection, upstream_id: int, names: Sequence[str]) -> None:
    """Mark the failures that the operator accepts, and those only.

    These are refusals (403, 404, 451) of the repositories called `names` (``owner/slug``, in any case), and
    members that the credential may not see.
    """
    connection.execute(
        f"""UPDATE sync_failures SET accepted = kind = :hidden OR (
               status IN {ACCEPTABLE} AND kind IN ('refs', 'repository') AND repository_id IN (
                   SELECT id FROM repositories WHERE upstream_id = :upstream
                   AND lower(full_name) IN (SELECT value FROM json_each(:names))))
           WHERE upstream_id = :upstream""",
        {
            "hidden": HIDDEN_MEMBERS,
            "upstream": upstream_id,
            "names": json.dumps([name.lower() for name in names]),
        },
    )


def read_failures(connection: sqlite3.Connection, upstream_id: int) -> list[Failure]:
    """Read all that an upstream's mirror is known to miss, the earliest next try first."""
    rows = connection.execute(
        """SELECT kind, subject, error, repository_id, status, place, attempts, next_try_at, accepted
           FROM sync_failures WHERE upstream_id = ? ORDER BY next_try_at, id""",
        (upstream_id,),
    )
    return [Failure(*row[:-1])._replace(accepted=bool(row[-1])) for row in rows]


def drop_failure(connection: sqlite3.Connection, upstream_id: int, kind: str, subject: str) -> None:
    """Forget a failure, because the same thing has been answered."""
    connection.execute(
        "DELETE FROM sync_failures WHERE upstream_id = ? AND kind = ? AND subject = ?",
        (upstream_id, kind, subject),
    )


def save_cursor(
    connection: sqlite3.Connection, upstream_id: int, stream: str, value: str, *, at: str
) -> None:
    """Record where a stream goes on; belongs into the transaction of the page that leads there."""
    connection.execute(
        """INSERT INTO cursors VALUES (?, ?, ?, ?)
           ON CONFLICT DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at""",
        (upstream_id, stream, value, at),
    )


STREAM = "answers"


def add_answers(
    connection: sqlite3.Connection, upstream_id: int, answers: Mapping[int, int], *, at: str
) -> None:
    """Add the answers of a run to those of all runs before."""
    if not answers:
        return
    row = connection.execute(
        "SELECT value FROM cursors WHERE upstream_id = ? AND stream = ?", (upstream_id, STREAM)
    ).fetchone()
    total = {int(status): int(count) for status, count in json.loads(row[0]).items()} if row else {}
    for status, count in answers.items():
        total[status] = total.get(status, 0) + count
    save_cursor(connection, upstream_id, STREAM, json.dumps(dict(sorted(total.items()))), at=at)
