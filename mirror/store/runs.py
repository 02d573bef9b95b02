"""What runs did, in the table `sync_runs`, and what they could not read, in `sync_failures`."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mirror.store.cursors import Cursors
from mirror.store.rows import fetch_as, fetch_dicts, fetch_row, fetch_value
from mirror.times import to_text

_SPENT = ("requests", "git_requests", "retries", "slept_seconds")
_FOUND = (
    "repositories_new", "repositories_changed", "repositories_gone", "refs_new", "refs_changed", "refs_gone",
    "failures",
)  # fmt: skip
_COUNTS = (*_SPENT, *_FOUND)

# The message of a run whose process was killed before it could record its end.
ENDED_UNSEEN = {"state": "interrupted", "error": "the process ended"}


def start_run(connection: sqlite3.Connection, upstream_id: int, kind: str, *, at: str) -> int:
    """Record a run that begins and return its id."""
    # Any run that still claims to be running was killed, since only one process at a time has the lock.
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


def restart_run(connection: sqlite3.Connection, run_id: int, *, at: str) -> None:
    """Correct when a run began: the clock was wrong."""
    connection.execute("UPDATE sync_runs SET started_at = ? WHERE id = ?", (at, run_id))


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


class _Run(NamedTuple):
    """A run; `group` is its hour and state, `found_nothing` is 1 for a watch run without news."""

    id: int
    finished_at: str | None
    group: str
    found_nothing: int


def merge_watch_runs(connection: sqlite3.Connection, upstream_id: int) -> None:
    """Merge the last two runs into one row, if both were watch runs of one hour that found nothing."""
    nothing = " AND ".join(f"{column} = 0" for column in _FOUND)
    runs = fetch_as(
        _Run,
        connection,
        f"""SELECT id, finished_at, substr(started_at, 1, 13) || state,
                   kind = 'watch' AND state IN ('complete', 'incomplete') AND {nothing}
            FROM sync_runs WHERE upstream_id = ? ORDER BY id DESC LIMIT 2""",
        (upstream_id,),
    )
    if len(runs) < 2 or not all(run.found_nothing for run in runs) or runs[0].group != runs[1].group:
        return
    last, previous = runs
    connection.execute(
        f"""UPDATE sync_runs AS run
            SET finished_at = ?, {", ".join(f"{name} = run.{name} + last.{name}" for name in _SPENT)}
            FROM sync_runs AS last WHERE run.id = ? AND last.id = ?""",
        (last.finished_at, previous.id, last.id),
    )
    connection.execute("DELETE FROM sync_runs WHERE id = ?", (last.id,))


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


FIRST_DELAY = timedelta(minutes=15)
LEAST_DELAY = timedelta(seconds=10)
LONGEST_DELAY = timedelta(days=7)
MOST_STEPS = 6  # 15 min * 4**6 exceeds the longest delay; much more would overflow a timedelta

ACCEPTABLE = (401, 403, 404, 451)  # statuses of refusals that `accept_missing` accepts; 401 by Data Center

# The kind of failure for members that the credential may not see: reported, but not missing.
HIDDEN_MEMBERS = "hidden members"

# Kinds whose subject begins with the name of a workspace.
OF_WORKSPACES = ("workspace", "members", HIDDEN_MEMBERS, "absence", "row", "page")


class Failure(NamedTuple):
    """Something that could not be read.

    - `kind`: refs, ref, repository, row, page, members, hidden members, workspace, workspaces, absence.
    - `subject`: its name for people, unique within its kind.
    - `error`: what came instead, with the upstream's `status` if there was one.
    - `place`: for a page, what to request again.
    - `next_try_at`: computed from `attempts` if it is empty.
    - `retry_after`: the first delay in seconds, if the upstream gave one.
    - `accepted`: the operator accepts it, so the run can be complete all the same.
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


LEFT_OUT = """owner_id IN (SELECT id FROM users
    WHERE upstream_id = :upstream AND uuid IN (SELECT value FROM json_each(:left_out)))"""
"""The condition for repositories of owners (`:left_out`, as JSON) that are not mirrored any more."""

_THIS = "FROM sync_failures WHERE upstream_id = ? AND kind = ? AND subject = ?"


class Failures:
    """The failures of one upstream."""

    def __init__(self, connection: sqlite3.Connection, upstream_id: int) -> None:
        self._connection, self._upstream_id = connection, upstream_id

    def read(self) -> list[Failure]:
        """Read all failures, earliest next try first."""
        found = fetch_dicts(
            self._connection,
            """SELECT kind, subject, error, repository_id, status, place, attempts, next_try_at, accepted
               FROM sync_failures WHERE upstream_id = ? ORDER BY next_try_at, id""",
            (self._upstream_id,),
        )
        return [Failure(**row | {"accepted": bool(row["accepted"])}) for row in found]

    def save(self, failure: Failure, now: datetime) -> Failure:
        """Record a failure, or one more attempt; return it with its attempts and next try.

        Each attempt multiplies the delay to the next try by four, from 15 minutes to 7 days.
        """
        subject = (self._upstream_id, failure.kind, failure.subject)
        attempts = (fetch_value(self._connection, f"SELECT attempts {_THIS}", subject) or 0) + 1
        given = failure.retry_after
        first = FIRST_DELAY if given is None else max(LEAST_DELAY, timedelta(seconds=given))
        delay = min(first * 4 ** min(attempts - 1, MOST_STEPS), LONGEST_DELAY)
        failure = failure._replace(attempts=attempts, next_try_at=failure.next_try_at or to_text(now + delay))
        self._connection.execute(
            """INSERT INTO sync_failures (upstream_id, kind, subject, repository_id, status, error, place,
                                          first_at, last_at, attempts, next_try_at)
               VALUES (:upstream, :kind, :subject, :repository_id, :status, :error, :place,
                       :now, :now, :attempts, :next_try_at)
               ON CONFLICT (upstream_id, kind, subject) DO UPDATE SET
                   repository_id = excluded.repository_id, status = excluded.status,
                   error = excluded.error, place = excluded.place, last_at = excluded.last_at,
                   attempts = excluded.attempts, next_try_at = excluded.next_try_at""",
            failure._asdict() | {"upstream": self._upstream_id, "now": to_text(now)},
        )
        return failure

    def accept(self, names: Sequence[str]) -> None:
        """Mark the failures that the operator accepts, and no others.

        These are refusals (`ACCEPTABLE`) of the repositories `names` (``owner/slug``, in any case), and
        members that the credential may not see.
        """
        self._connection.execute(
            f"""UPDATE sync_failures SET accepted = kind = :hidden OR (
                   status IN {ACCEPTABLE} AND kind IN ('refs', 'repository') AND repository_id IN (
                       SELECT id FROM repositories WHERE upstream_id = :upstream
                       AND lower(full_name) IN (SELECT value FROM json_each(:names))))
               WHERE upstream_id = :upstream""",
            {
                "hidden": HIDDEN_MEMBERS,
                "upstream": self._upstream_id,
                "names": json.dumps([name.lower() for name in names]),
            },
        )

    def waits(self, kind: str, subject: str, now: str) -> bool:
        """Return whether the next try of something is still to come."""
        values = (self._upstream_id, kind, subject, now)
        return fetch_row(self._connection, f"SELECT 1 {_THIS} AND next_try_at > ?", values) is not None

    def retry_all(self) -> None:
        """Let nothing wait for its next try: the reason for the failures may be gone."""
        self._connection.execute(
            "UPDATE sync_failures SET next_try_at = last_at WHERE upstream_id = ?", (self._upstream_id,)
        )

    def due_pages(self, now: str) -> list[tuple[str, str]]:
        """List the subject and place of missing pages whose next try is due."""
        return self._connection.execute(
            """SELECT subject, place FROM sync_failures WHERE upstream_id = ? AND kind = 'page'
               AND place IS NOT NULL AND next_try_at <= ? ORDER BY id""",
            (self._upstream_id, now),
        ).fetchall()

    def drop(self, kind: str, subject: str) -> None:
        """Delete a failure, because the same request has succeeded."""
        self._connection.execute(f"DELETE {_THIS}", (self._upstream_id, kind, subject))

    def drop_kinds(self, *kinds: str) -> None:
        """Delete all failures of these kinds."""
        self._connection.executemany(
            "DELETE FROM sync_failures WHERE upstream_id = ? AND kind = ?",
            [(self._upstream_id, kind) for kind in kinds],
        )

    def drop_refs(self, repository_id: int, *, single: bool) -> None:
        """Delete the failure to list a repository's refs, and with `single` those of single refs."""
        self._connection.execute(
            "DELETE FROM sync_failures WHERE repository_id = ? AND kind IN ('refs', ?)",
            (repository_id, "ref" if single else "refs"),
        )

    def drop_rows_and_pages(self, workspace: str, *, before: str) -> None:
        """Delete bad rows and missing pages of a workspace from before a moment."""
        prefix = f"{workspace}: "
        self._connection.execute(
            """DELETE FROM sync_failures WHERE upstream_id = ? AND kind IN ('row', 'page')
               AND substr(subject, 1, ?) = ? AND last_at < ?""",
            (self._upstream_id, len(prefix), prefix, before),
        )

    def drop_left_out(self, owners: Sequence[str]) -> None:
        """Delete failures of the repositories of owners that are not mirrored any more.

        Their refs stay stale, and are read if the owner is mirrored again.
        """
        values = {"upstream": self._upstream_id, "left_out": json.dumps(owners)}
        ids = f"SELECT id FROM repositories WHERE {LEFT_OUT}"
        self._connection.execute(
            f"""UPDATE repositories SET refs_stale = 1 WHERE {LEFT_OUT} AND deleted_at IS NULL
                AND id IN (SELECT repository_id FROM sync_failures WHERE kind IN ('refs', 'ref'))""",
            values,
        )
        self._connection.execute(f"DELETE FROM sync_failures WHERE repository_id IN ({ids})", values)

    def drop_seen_since(self) -> None:
        """Delete failures of repositories that were seen afterwards."""
        self._connection.execute(
            """DELETE FROM sync_failures WHERE upstream_id = ? AND kind = 'repository' AND EXISTS (
                   SELECT 1 FROM repositories r WHERE r.id = repository_id AND r.last_seen_at > last_at)""",
            (self._upstream_id,),
        )

    def drop_other_workspaces(self, listed: Collection[str]) -> None:
        """Delete failures of workspaces that are not `listed` (in lower case)."""
        self._connection.executemany(
            "DELETE FROM sync_failures WHERE id = ?",
            [(row_id,) for row_id, name, _ in self._of_workspaces() if name.lower() not in listed],
        )

    def spell(self, workspaces: Iterable[str]) -> None:
        """Give the failures of workspaces the names by which they are listed now; only the case differs."""
        now = {name.lower(): name for name in workspaces}
        renamed = [
            (now[name.lower()] + rest, row_id)
            for row_id, name, rest in self._of_workspaces()
            if now.get(name.lower(), name) != name
        ]
        self._connection.executemany("UPDATE OR REPLACE sync_failures SET subject = ? WHERE id = ?", renamed)

    def _of_workspaces(self) -> list[tuple[int, str, str]]:
        """List the failures of workspaces: row, name of the workspace, rest of the subject."""
        found = self._connection.execute(
            f"""SELECT id, subject FROM sync_failures
                WHERE upstream_id = ? AND kind IN ({", ".join("?" * len(OF_WORKSPACES))})""",
            (self._upstream_id, *OF_WORKSPACES),
        ).fetchall()
        split = [(row_id, *subject.partition(": ")) for row_id, subject in found]
        return [(row_id, name, colon + rest) for row_id, name, colon, rest in split]
