"""The request ledger: how many requests each credential has sent in the rolling hour, for all processes.

A row counts the requests of one second in one bucket: `requests` were reserved and limit further requests,
`sent` were sent and appear in charts and reports. A second leaves the hour only as a whole, so the count
errs on the safe side. A sync reserves ahead, so that not every request waits for a transaction. It returns
unsent reservations; they count as spent only if the process is killed. Buckets are names without secrets
(`mirror.credentials`).

Rows in the future are of a clock that was ahead. Up to an hour ahead they count as they are. Others may be of
any moment until now, so they count as sent now: the hour is not spent twice. Nothing tells a clock that is
set forward by more than an hour from an hour that passed.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mirror.model import NoRoom
from mirror.store.files import open_reader
from mirror.store.rows import fetch, fetch_row, fetch_value

if TYPE_CHECKING:
    from mirror.store.database import Store

HOUR = 3600  # in seconds

MORE_THAN_ANY = 1_000_000  # the number of requests that count as sent if it is unknown: more than any limit

AHEAD = 50  # the most requests that a sync reserves ahead
SHARE = 50  # a sync reserves one request ahead for this many that are left; none near the end of a budget
AHEAD_SECONDS = 1  # for how long reserved requests may be sent; until then they count in its last second
LOOK_EVERY = timedelta(milliseconds=10)  # how long a look for a 429 of another process is good

_HELD = "SELECT held_until FROM request_limits WHERE bucket = ? AND held_until > ? AND held_until <= ?"

_OF_HOUR = "FROM request_ledger WHERE bucket = ? AND at BETWEEN ? AND ?"


@dataclass
class _Batch:
    """Requests of a bucket that were reserved ahead: `left` are unsent, `sent` counts sent ones by second.

    `looked` is when the bucket was last seen not to be held.
    """

    began: datetime
    size: int
    left: int
    looked: datetime
    sent: Counter[int] = field(default_factory=Counter)

    @property
    def counted_at(self) -> int:
        """The second in which all of them count until they are settled; none is sent later."""
        return int(self.began.timestamp()) + AHEAD_SECONDS

    def is_over(self, now: datetime) -> bool:
        """Return whether they may no longer be sent; also true after the clock was set back."""
        return not self.began <= now < self.began + timedelta(seconds=AHEAD_SECONDS)

    def must_look(self, now: datetime) -> bool:
        """Return whether another process may have got a 429 since: to look takes a transaction."""
        return not self.looked <= now < self.looked + LOOK_EVERY


class RequestLedger:
    """`mirror.upstream.budget.Ledger` over the mirror file.

    `ahead` is the number of requests that may be reserved ahead; if it is not 0, call `close` at the end.
    """

    def __init__(self, store: "Store", *, ahead: int = 0) -> None:
        self._store = store
        self._ahead = ahead
        self._batches = dict[str, _Batch]()
        self._pace = dict[str, int]()
        self._lock = threading.Lock()  # a thread that waits for the file does not hold it
        self._reader: sqlite3.Connection | None = None

    def reserve(self, bucket: str, limit: int | None, now: datetime) -> NoRoom | None:
        """Count one request, to be sent at once, and return None; or return when the next one is allowed.

        A `limit` of None never refuses. A held bucket refuses regardless of the count.
        """
        if self._was_reserved(bucket, now):
            return None  # most requests of a sync: no transaction
        second = int(now.timestamp())
        with self._store.transaction() as connection:
            self._settle(connection, bucket)
            if held := held_until(connection, bucket, now):
                return NoRoom(held, held=True)
            count_future_now(connection, second, bucket)
            room = None if limit is None else limit - self._count(bucket, second)
            if room is not None and room <= 0:
                return NoRoom(self._next_free(bucket, second, limit or 0), held=False)
            _add(connection, bucket, second, reserved=1, sent=1)
            number = self._number_ahead(bucket, room)
            batch = _Batch(now, number, number, looked=now)
            if number:
                _add(connection, bucket, batch.counted_at, reserved=number, sent=0)
        if self._ahead:
            with self._lock:
                self._batches[bucket] = batch
        return None

    def take_back(self, bucket: str, reserved_at: datetime) -> None:
        """Undo the reservation of a request that never left this machine."""
        second = int(reserved_at.timestamp())
        with self._lock:
            batch = self._batches.get(bucket)
            if batch is not None and batch.sent[second]:
                batch.sent[second] -= 1
                batch.left += 1
                return
        with self._store.transaction() as connection:
            connection.execute(
                """UPDATE request_ledger SET requests = requests - 1, sent = sent - 1
                   WHERE bucket = ? AND at = ? AND sent > 0""",
                (bucket, second),
            )

    def settle(self, now: datetime) -> None:
        """Count the sent requests of batches that are over, and give back the others."""
        with self._lock:
            over = [bucket for bucket, batch in self._batches.items() if batch.is_over(now)]
        if over:
            with self._store.transaction() as connection:
                for bucket in over:
                    self._settle(connection, bucket)

    def close(self) -> None:
        """Stop reserving ahead, and give back unsent reservations."""
        with self._store.transaction() as connection:
            self._ahead = 0
            for bucket in list(self._batches):
                self._settle(connection, bucket)
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _was_reserved(self, bucket: str, now: datetime) -> bool:
        """Take a request from the batch, unless that is over or another process got a 429."""
        with self._lock:
            batch = self._batches.get(bucket)
            if batch is None or not batch.left or batch.is_over(now):
                return False
            second = int(now.timestamp())
            if batch.must_look(now):
                # On a separate connection: the store's may be in a transaction.
                self._reader = self._reader or open_reader(self._store.path)
                if held_until(self._reader, bucket, now):
                    return False
                batch.looked = now
            batch.left -= 1
            batch.sent[second] += 1
            return True

    def _settle(self, connection: sqlite3.Connection, bucket: str) -> None:
        """Count the requests of a batch in the seconds in which they were sent."""
        with self._lock:
            # Forgotten first: if the transaction fails, the whole batch stays counted as spent.
            batch = self._batches.pop(bucket, None)
            if batch is None:
                return
            self._pace[bucket] = batch.sent.total()
        connection.execute(
            "UPDATE request_ledger SET requests = max(sent, requests - ?) WHERE bucket = ? AND at = ?",
            (batch.size, bucket, batch.counted_at),
        )
        for second, number in batch.sent.items():
            _add(connection, bucket, second, reserved=number, sent=number)
        connection.execute(
            "DELETE FROM request_ledger WHERE bucket = ? AND at = ? AND requests = 0 AND sent = 0",
            (bucket, batch.counted_at),
        )

    def _number_ahead(self, bucket: str, room: int | None) -> int:
        """Return how many to reserve: none for a first request, then twice the number last sent."""
        pace = self._pace.get(bucket)
        wanted = 0 if pace is None else 2 * pace + 1
        return min(self._ahead, wanted, self._ahead if room is None else (room - 1) // SHARE)

    def _stop_batch(self, bucket: str) -> None:
        """Send no more reserved requests: less is allowed than was known."""
        with self._lock:
            if bucket in self._batches:
                self._batches[bucket].left = 0

    def used(self, bucket: str, now: datetime) -> int:
        """Count the requests of the last hour."""
        return self._count(bucket, int(now.timestamp()))

    def sent(self, bucket: str, now: datetime) -> list[tuple[int, int]]:
        """List the seconds of the last hour with their requests, oldest first."""
        return self._seconds(bucket, int(now.timestamp()))

    def _seconds(self, bucket: str, second: int) -> list[tuple[int, int]]:
        return self._store.rows(
            f"SELECT at, requests {_OF_HOUR} ORDER BY at", (bucket, second - HOUR, second + HOUR)
        )

    def hold(self, bucket: str, until: datetime) -> None:
        """Refuse all requests of a bucket until a moment, because the upstream answered 429."""
        self._stop_batch(bucket)
        with self._store.transaction() as connection:
            connection.execute(
                """INSERT INTO request_limits (bucket, held_until) VALUES (:bucket, :until)
                   ON CONFLICT DO UPDATE SET held_until = excluded.held_until
                       WHERE held_until IS NULL OR held_until < excluded.held_until
                           OR held_until > excluded.held_until + :hour""",
                {"bucket": bucket, "until": until.timestamp(), "hour": HOUR},
            )

    def last_hold(self, bucket: str) -> float:
        """Return for how many seconds a bucket was last held, 0 if a request was sent since."""
        seconds: float | None = self._store.value(
            """SELECT held_until - at FROM request_limits JOIN request_ledger USING (bucket)
               WHERE bucket = ? AND requests > 0 ORDER BY at DESC LIMIT 1""",
            (bucket,),
        )
        return max(0.0, seconds or 0.0)

    def learn(self, bucket: str, limit: int) -> None:
        """Save the hourly limit that the upstream reported for a bucket."""
        self._stop_batch(bucket)
        with self._store.transaction() as connection:
            connection.execute(
                """INSERT INTO request_limits (bucket, requests_per_hour) VALUES (?, ?)
                   ON CONFLICT DO UPDATE SET requests_per_hour = excluded.requests_per_hour""",
                (bucket, limit),
            )

    def limit(self, bucket: str) -> int | None:
        """Return the hourly limit that the upstream reported, if it did."""
        limit: int | None = self._store.value(
            "SELECT requests_per_hour FROM request_limits WHERE bucket = ?", (bucket,)
        )
        return limit

    def forget(self, now: datetime) -> None:
        """Delete rows older than two days."""
        with self._store.transaction() as connection:
            # Not after an hour: a clock that is wrong by hours must not lose rows.
            connection.execute("DELETE FROM request_ledger WHERE at < ?", (int(now.timestamp()) - 48 * HOUR,))

    def _count(self, bucket: str, second: int) -> int:
        count: int = self._store.value(
            f"SELECT coalesce(sum(requests), 0) {_OF_HOUR}", (bucket, second - HOUR, second + HOUR)
        )
        return count

    def _next_free(self, bucket: str, second: int, limit: int) -> datetime:
        """Return when enough seconds have left the hour to allow one request."""
        excess = self._count(bucket, second) - limit + 1
        for at, requests in self._seconds(bucket, second):
            excess -= requests
            if excess <= 0:
                return _left_at(at)
        return _left_at(second)  # a limit of zero: no request is ever allowed


def _left_at(second: int) -> datetime:
    """Return when a second leaves the rolling hour: only as a whole."""
    return datetime.fromtimestamp(second + HOUR + 1, UTC)


def held_until(connection: sqlite3.Connection, bucket: str, now: datetime) -> datetime | None:
    """Return until when a 429 holds a bucket; None if it is not held."""
    latest = int(now.timestamp()) + HOUR + 1  # a later moment is of a clock that was ahead
    held = fetch_value(connection, _HELD, (bucket, now.timestamp(), latest))
    return None if held is None else datetime.fromtimestamp(held, UTC)


def used_in_hour(connection: sqlite3.Connection, bucket: str, now: datetime) -> tuple[int, datetime | None]:
    """Count the requests of the last hour; return also when the first of them leaves it, None without any."""
    second = int(now.timestamp())
    hour = (bucket, second - HOUR, second + HOUR)
    used, oldest = fetch_row(connection, f"SELECT coalesce(sum(requests), 0), min(at) {_OF_HOUR}", hour)
    return used, None if oldest is None else _left_at(oldest)


def _add(connection: sqlite3.Connection, bucket: str, second: int, *, reserved: int, sent: int) -> None:
    connection.execute(
        """INSERT INTO request_ledger (bucket, at, requests, sent) VALUES (?, ?, ?, ?)
           ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, sent = sent + excluded.sent""",
        (bucket, second, reserved, sent),
    )


def count_future_now(connection: sqlite3.Connection, second: int, bucket: str | None = None) -> None:
    """Count requests dated more than an hour ahead as sent now: of a bucket, or of all."""
    values = {"now": second, "ahead": second + HOUR, "bucket": bucket}
    future = f"{'' if bucket is None else 'bucket = :bucket AND '}at > :ahead"
    moved = connection.execute(
        f"""INSERT INTO request_ledger (bucket, at, requests, sent)
            SELECT bucket, :now, sum(requests), sum(sent) FROM request_ledger WHERE {future} GROUP BY bucket
            ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, sent = sent + excluded.sent""",
        values,
    )
    if moved.rowcount:
        connection.execute(f"DELETE FROM request_ledger WHERE {future}", values)


def reported_limits(connection: sqlite3.Connection) -> dict[str, int]:
    """Map buckets to the hourly limits that their upstreams reported."""
    sql = "SELECT bucket, requests_per_hour FROM request_limits WHERE requests_per_hour IS NOT NULL"
    return dict(fetch(connection, sql))


def count_all_as_spent(
    connection: sqlite3.Connection, limits: Mapping[str, int | None], now: datetime
) -> None:
    """Count the budget of this hour as spent, for each bucket of the file and of `limits`.

    `limits` maps buckets to requests per hour, None for no limit.
    """
    named = connection.execute("SELECT bucket FROM request_ledger UNION SELECT bucket FROM request_limits")
    spent = {**dict.fromkeys((bucket for (bucket,) in named), MORE_THAN_ANY), **limits}
    connection.executemany(
        """INSERT INTO request_ledger (bucket, at, requests, sent) VALUES (?, ?, ?, 0)
           ON CONFLICT DO UPDATE SET requests = requests + excluded.requests""",
        [(bucket, int(now.timestamp()), count) for bucket, count in spent.items() if count],
    )


def take_over(connection: sqlite3.Connection, other: sqlite3.Connection) -> None:
    """Copy the counts and holds of another file of the same buckets."""
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
