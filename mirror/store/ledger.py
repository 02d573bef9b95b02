"""The request ledger: how many requests each credential has sent in the rolling hour, for all processes.

A row counts the requests of one second in one bucket: `requests` were reserved and limit what may still be
asked, `sent` went out and are shown in charts and reports. A second leaves the hour only as a whole, so the
count errs on the side of asking less. Buckets are names without secrets (`mirror.credentials`). Rows more
than an hour ahead were written by a wrong clock, and are ignored.
"""

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mirror.model import NoRoom

if TYPE_CHECKING:
    from mirror.store.database import Store

HOUR = 3600

MORE_THAN_ANY = 1_000_000
"""Requests that count as sent where nobody knows how many may be: more than any limit."""


class RequestLedger:
    """`mirror.upstream.budget.Ledger` over the mirror file."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def reserve(self, bucket: str, limit: int | None, now: datetime) -> NoRoom | None:
        """Count one request, which is sent at once, and return None; or return when the next one is free.

        `limit` None counts without refusing. A held bucket refuses whatever the count.
        """
        second = int(now.timestamp())
        with self._store.transaction() as connection:
            held = connection.execute(
                """SELECT held_until FROM request_limits
                   WHERE bucket = ? AND held_until > ? AND held_until <= ?""",
                (bucket, now.timestamp(), second + HOUR + 1),
            ).fetchone()
            if held:
                return NoRoom(datetime.fromtimestamp(held[0], UTC), held=True)
            if limit is not None and self._count(bucket, second) >= limit:
                return NoRoom(self._next_free(bucket, second, limit), held=False)
            connection.execute(
                """INSERT INTO request_ledger (bucket, at, requests, sent) VALUES (?, ?, 1, 1)
                   ON CONFLICT DO UPDATE SET requests = requests + 1, sent = sent + 1""",
                (bucket, second),
            )
        return None

    def take_back(self, bucket: str, reserved_at: datetime) -> None:
        """Undo the reservation of a request that never left this machine."""
        with self._store.transaction() as connection:
            connection.execute(
                """UPDATE request_ledger SET requests = requests - 1, sent = sent - 1
                   WHERE bucket = ? AND at = ? AND sent > 0""",
                (bucket, int(reserved_at.timestamp())),
            )

    def used(self, bucket: str, now: datetime) -> int:
        """Count the requests of the hour that ends now."""
        return self._count(bucket, int(now.timestamp()))

    def sent(self, bucket: str, now: datetime) -> list[tuple[int, int]]:
        """List the seconds of the hour that ends now, the oldest first, with their requests."""
        second = int(now.timestamp())
        return self._store.rows(
            "SELECT at, requests FROM request_ledger WHERE bucket = ? AND at BETWEEN ? AND ? ORDER BY at",
            (bucket, second - HOUR, second + HOUR),
        )

    def hold(self, bucket: str, until: datetime) -> None:
        """Refuse every request of a bucket until a moment, because the upstream answered 429."""
        with self._store.transaction() as connection:
            connection.execute(
                """INSERT INTO request_limits (bucket, held_until) VALUES (:bucket, :until)
                   ON CONFLICT DO UPDATE SET held_until = excluded.held_until
                       WHERE held_until IS NULL OR held_until < excluded.held_until
                           OR held_until > excluded.held_until + :hour""",
                {"bucket": bucket, "until": until.timestamp(), "hour": HOUR},
            )

    def learn(self, bucket: str, limit: int) -> None:
        """Save the limit per hour that the upstream gave for a bucket."""
        with self._store.transaction() as connection:
            connection.execute(
                """INSERT INTO request_limits (bucket, requests_per_hour) VALUES (?, ?)
                   ON CONFLICT DO UPDATE SET requests_per_hour = excluded.requests_per_hour""",
                (bucket, limit),
            )

    def limit(self, bucket: str) -> int | None:
        """Return the limit per hour that the upstream gave, if it ever did."""
        limit: int | None = self._store.value(
            "SELECT requests_per_hour FROM request_limits WHERE bucket = ?", (bucket,)
        )
        return limit

    def forget(self, now: datetime) -> None:
        """Drop what is older than two days: a clock that goes wrong by some hours loses nothing."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM request_ledger WHERE at < ?", (int(now.timestamp()) - 48 * HOUR,))

    def _count(self, bucket: str, second: int) -> int:
        count: int = self._store.value(
            "SELECT coalesce(sum(requests), 0) FROM request_ledger WHERE bucket = ? AND at BETWEEN ? AND ?",
            (bucket, second - HOUR, second + HOUR),
        )
        return count

    def _next_free(self, bucket: str, second: int, limit: int) -> datetime:
        """Return when enough seconds have left the hour for one request to fit."""
        excess = self._count(bucket, second) - limit + 1
        for at, requests in self._store.rows(
            "SELECT at, requests FROM request_ledger WHERE bucket = ? AND at BETWEEN ? AND ? ORDER BY at",
            (bucket, second - HOUR, second + HOUR),
        ):
            excess -= requests
            if excess <= 0:
                return datetime.fromtimestamp(at, UTC) + timedelta(seconds=HOUR + 1)
        return datetime.fromtimestamp(second + HOUR + 1, UTC)  # a limit of zero: nothing ever fits


def told_limits(connection: sqlite3.Connection) -> dict[str, int]:
    """Map buckets to the limit per hour that their upstream gave, where it gave one."""
    return dict(
        connection.execute(
            "SELECT bucket, requests_per_hour FROM request_limits WHERE requests_per_hour IS NOT NULL"
        ).fetchall()
    )


def count_all_as_spent(
    connection: sqlite3.Connection, limits: Mapping[str, int | None], now: datetime
) -> None:
    """Count the budget of this hour as spent, for each account of the file and each of `limits`.

    `limits` maps accounts to their requests an hour, None for no limit.
    """
    named = connection.execute("SELECT bucket FROM request_ledger UNION SELECT bucket FROM request_limits")
    spent = {**dict.fromkeys((row[0] for row in named), MORE_THAN_ANY), **limits}
    connection.executemany(
        """INSERT INTO request_ledger (bucket, at, requests, sent) VALUES (?, ?, ?, 0)
           ON CONFLICT DO UPDATE SET requests = requests + excluded.requests""",
        [(bucket, int(now.timestamp()), count) for bucket, count in spent.items() if count],
    )


def take_over(connection: sqlite3.Connection, other: sqlite3.Connection) -> None:
    """Count what another file of the same accounts has counted, and hold what it holds."""
    connection.executemany(
        """INSERT INTO request_ledger (bucket, at, requests, sent) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
           SET requests = max(requests, excluded.requests), sent = max(sent, excluded.sent)""",
        other.execute("SELECT bucket, at, requests, sent FROM request_ledger"),
    )
    connection.executemany(
        """INSERT INTO request_limits (bucket, requests_per_hour, held_until) VALUES (?, ?, ?)
           ON CONFLICT DO UPDATE SET requests_per_hour = excluded.requests_per_hour,
               held_until = excluded.held_until""",
        other.execute("SELECT bucket, requests_per_hour, held_until FROM request_limits"),
    )
