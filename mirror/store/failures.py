"""The table `sync_failures`: what could not be had, and when each of it is tried again."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from mirror.times import to_text

FIRST_DELAY = timedelta(minutes=15)
LEAST_DELAY = timedelta(seconds=10)
LONGEST_DELAY = timedelta(days=7)
MOST_STEPS = 6  # 15 min * 4**6 exceeds the longest delay; much more would overflow a timedelta

ACCEPTABLE = (403, 404, 451)
"""Statuses of refusals that `accept_missing` accepts."""

HIDDEN_MEMBERS = "hidden members"
"""The kind of failure of members that the credential may not see: reported, and not missing."""

OF_WORKSPACES = ("workspace", "members", HIDDEN_MEMBERS, "absence", "row", "page")
"""Kinds whose subject begins with the name of a workspace."""


class Failure(NamedTuple):
    """Something that could not be had.

    - `kind`: refs, ref, repository, row, page, members, hidden members, workspace, workspaces, absence.
    - `subject`: its name for people, unique within its kind.
    - `error`: what came instead, with the upstream's `status` where there was one.
    - `place`: what to ask for again, for a page.
    - `next_try_at`: computed from `attempts` where it is empty.
    - `retry_after`: the first delay in seconds, where the upstream gave one.
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


class Failures:
    """The failures of one upstream."""

    def __init__(self, connection: sqlite3.Connection, upstream_id: int) -> None:
        self._connection, self._upstream_id = connection, upstream_id

    def read(self) -> list[Failure]:
        """Read all that the mirror is known to miss, the earliest next try first."""
        rows = self._connection.execute(
            """SELECT kind, subject, error, repository_id, status, place, attempts, next_try_at, accepted
               FROM sync_failures WHERE upstream_id = ? ORDER BY next_try_at, id""",
            (self._upstream_id,),
        )
        return [Failure(*row[:-1])._replace(accepted=bool(row[-1])) for row in rows]

    def save(self, failure: Failure, now: datetime) -> Failure:
        """Record a failure, or one more of the same; return it with its attempts and its next try.

        Each attempt multiplies the delay to the next try by four, from 15 minutes to 7 days.
        """
        row = self._connection.execute(
            "SELECT attempts FROM sync_failures WHERE upstream_id = ? AND kind = ? AND subject = ?",
            (self._upstream_id, failure.kind, failure.subject),
        ).fetchone()
        attempts = (row[0] if row else 0) + 1
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
        """Mark the failures that the operator accepts, and those only.

        These are refusals (403, 404, 451) of the repositories called `names` (``owner/slug``, in any case),
        and members that the credential may not see.
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
        """Return whether something that failed is not to be asked for again yet."""
        found = self._connection.execute(
            """SELECT 1 FROM sync_failures
               WHERE upstream_id = ? AND kind = ? AND subject = ? AND next_try_at > ?""",
            (self._upstream_id, kind, subject, now),
        )
        return found.fetchone() is not None

    def due_pages(self, now: str) -> list[tuple[str, str]]:
        """List subject and place of the missing pages whose next try is due."""
        return self._connection.execute(
            """SELECT subject, place FROM sync_failures WHERE upstream_id = ? AND kind = 'page'
               AND place IS NOT NULL AND next_try_at <= ? ORDER BY id""",
            (self._upstream_id, now),
        ).fetchall()

    def drop(self, kind: str, subject: str) -> None:
        """Forget a failure, because the same thing has been answered."""
        self._connection.execute(
            "DELETE FROM sync_failures WHERE upstream_id = ? AND kind = ? AND subject = ?",
            (self._upstream_id, kind, subject),
        )

    def drop_kinds(self, *kinds: str) -> None:
        """Forget all failures of some kinds."""
        self._connection.executemany(
            "DELETE FROM sync_failures WHERE upstream_id = ? AND kind = ?",
            [(self._upstream_id, kind) for kind in kinds],
        )

    def drop_refs(self, repository_id: int, *, single: bool) -> None:
        """Forget that a repository's refs could not be listed, and with `single` those not understood."""
        self._connection.execute(
            "DELETE FROM sync_failures WHERE repository_id = ? AND kind IN ('refs', ?)",
            (repository_id, "ref" if single else "refs"),
        )

    def drop_rows_and_pages(self, workspace: str, *, before: str) -> None:
        """Forget bad rows and missing pages of a workspace that failed before a moment."""
        prefix = f"{workspace}: "
        self._connection.execute(
            """DELETE FROM sync_failures WHERE upstream_id = ? AND kind IN ('row', 'page')
               AND substr(subject, 1, ?) = ? AND last_at < ?""",
            (self._upstream_id, len(prefix), prefix, before),
        )

    def drop_seen_since(self) -> None:
        """Forget failures of repositories that have been seen since."""
        self._connection.execute(
            """DELETE FROM sync_failures WHERE upstream_id = ? AND kind = 'repository' AND EXISTS (
                   SELECT 1 FROM repositories r WHERE r.id = repository_id AND r.last_seen_at > last_at)""",
            (self._upstream_id,),
        )

    def drop_other_workspaces(self, listed: Collection[str]) -> None:
        """Forget failures of workspaces that are not among those `listed` (lower case)."""
        found = self._connection.execute(
            f"""SELECT id, subject FROM sync_failures
                WHERE upstream_id = ? AND kind IN ({", ".join("?" * len(OF_WORKSPACES))})""",
            (self._upstream_id, *OF_WORKSPACES),
        ).fetchall()
        self._connection.executemany(
            "DELETE FROM sync_failures WHERE id = ?",
            [(row_id,) for row_id, subject in found if subject.partition(": ")[0].lower() not in listed],
        )
