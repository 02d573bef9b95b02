"""Moments ahead of now, which a wrong clock has written.

They count as never: a row that was "seen" a year ahead could not be missed until then, and a failure would
wait that long for its next try. The next run corrects them here; until then readers ignore them.
"""

import sqlite3
from datetime import datetime, timedelta

from mirror.store.cursors import Cursors
from mirror.times import to_text

NEVER = "1970-01-01T00:00:00.000000Z"
"""Stands for never in columns that must hold a moment."""

SKEW = 3600
"""Seconds ahead of now up to which a request is counted: the clock may have been set back since."""

GRACE = timedelta(minutes=1)
"""A moment may be this far ahead: another process may have written it since the clock was read."""

_LATEST = """SELECT max(moment) FROM (
    SELECT max(updated_at) AS moment FROM cursors WHERE upstream_id = :upstream
    UNION ALL SELECT max(max(started_at, coalesce(finished_at, ''))) FROM sync_runs
        WHERE upstream_id = :upstream
    UNION ALL SELECT max(last_at) FROM sync_failures WHERE upstream_id = :upstream
    UNION ALL SELECT max(at) FROM writes WHERE upstream_id = :upstream
    UNION ALL SELECT max(at) FROM changes)"""

_MENDS = (
    """UPDATE repositories SET last_seen_at = iif(last_seen_at > :now, :never, last_seen_at),
           refs_stale = iif(refs_synced_at > :now AND deleted_at IS NULL, 1, refs_stale),
           refs_synced_at = iif(refs_synced_at > :now, :never, refs_synced_at),
           first_seen_at = min(first_seen_at, :now), deleted_at = min(deleted_at, :now)
       WHERE upstream_id = :upstream
           AND max(last_seen_at, first_seen_at, coalesce(refs_synced_at, ''),
                   coalesce(deleted_at, '')) > :now""",
    """UPDATE users SET last_seen_at = iif(last_seen_at > :now, :never, last_seen_at),
           first_seen_at = min(first_seen_at, :now), deleted_at = min(deleted_at, :now)
       WHERE upstream_id = :upstream
           AND max(last_seen_at, first_seen_at, coalesce(deleted_at, '')) > :now""",
    """UPDATE members SET last_seen_at = :never WHERE last_seen_at > :now
           AND workspace_id IN (SELECT id FROM users WHERE upstream_id = :upstream)""",
    """UPDATE sync_failures SET next_try_at = :now, last_at = :now, first_at = min(first_at, :now)
       WHERE upstream_id = :upstream AND last_at > :now""",
    """UPDATE sync_runs SET state = 'interrupted', error = 'the clock was ahead: ' || started_at,
           started_at = min(started_at, :now), finished_at = min(finished_at, :now)
       WHERE upstream_id = :upstream AND max(started_at, coalesce(finished_at, '')) > :now""",
    "UPDATE changes SET at = :now WHERE at > :now",
    "UPDATE writes SET at = :now WHERE upstream_id = :upstream AND at > :now",
    "UPDATE webhook_deliveries SET at = :now WHERE upstream_id = :upstream AND at > :now",
    "DELETE FROM request_ledger WHERE at > :second",
    "UPDATE request_limits SET held_until = NULL WHERE held_until > :second + 1",
)


def latest_ahead(connection: sqlite3.Connection, upstream_id: int, now: datetime) -> str | None:
    """Return the latest moment of the crawl that lies ahead of now, or None where none does."""
    (latest,) = connection.execute(_LATEST, {"upstream": upstream_id}).fetchone()
    return latest if latest is not None and latest > to_text(now + GRACE) else None


def count_as_never(connection: sqlite3.Connection, upstream_id: int, now: datetime) -> None:
    """Correct every moment of an upstream that lies ahead of now.

    What was seen then was never seen, what waits is due, what happened has happened now.
    """
    values = {
        "upstream": upstream_id,
        "now": to_text(now),
        "never": NEVER,
        "second": int(now.timestamp()) + SKEW,
    }
    for statement in _MENDS:
        connection.execute(statement, values)
    Cursors(connection, upstream_id).mend_moments(to_text(now))
