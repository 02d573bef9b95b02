"""The budget of requests: each one is counted in a ledger before it is sent.

Bitbucket limits requests by a rolling hour and by identity, and does not report how many are left
(support.atlassian.com/bitbucket-cloud/docs/api-request-limits), so the mirror counts them itself. Threads,
processes and restarts share the ledger; the budget decides, the store keeps the ledger.
"""

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple, Protocol

from mirror.errors import BudgetSpent, Paused, StoreError
from mirror.model import NoRoom
from mirror.times import Clock, time_text

RequestKind = Literal["api", "git"]
Wait = Callable[[float, str], None]  # sleep for a number of seconds and tell the user why; raises Interrupted

ANONYMOUS_LIMIT = 58  # Bitbucket allows 60 requests an hour; a margin is left
AUTHENTICATED_LIMIT = 950  # of 1,000
GIT_LIMIT = 57_000  # of 60,000

LONGEST_DELAY = 3600.0  # the longest wait that an answer can ask for, in seconds
FIRST_HOLD = 60.0  # clients that came back after 5 s stayed locked out
SHORTEST_HOLD = 1.0  # seconds
ENOUGH = 30  # requests of a run that makes progress: a Data Center's listing with its probes in each thread
SHORT_WAIT = 30.0  # seconds that even a run that may not wait waits, less than a hold that nobody told


class Ledger(Protocol):
    """The ledger of requests that the store keeps; each method may be called by several threads."""

    def reserve(self, bucket: str, limit: int | None, now: datetime) -> NoRoom | None:
        """Count one request, to be sent at once, and return None; or count nothing, and return the reason.

        There is no room while `limit` requests are counted in the hour before `now`, or while the bucket is
        held. With a `limit` of None, only the hold counts.
        """

    def take_back(self, bucket: str, reserved_at: datetime) -> None:
        """Undo the count of a request that was reserved at a time but never sent."""

    def settle(self, now: datetime) -> None:
        """Write the requests that were sent, but are not in the file yet."""

    def close(self) -> None:
        """Settle at the end, and return reservations that were not used."""

    def hold(self, bucket: str, until: datetime) -> None:
        """Allow no request of the bucket before `until`; a later hold stays."""

    def last_hold(self, bucket: str) -> float:
        """Return for how many seconds the bucket was last held, 0 if a request was sent since."""

    def learn(self, bucket: str, limit: int) -> None:
        """Save the hourly limit that the upstream reported."""

    def limit(self, bucket: str) -> int | None:
        """Return the hourly limit that was last reported; None if none was."""

    def used(self, bucket: str, now: datetime) -> int:
        """Return how many requests are counted in the hour before `now`."""

    def sent(self, bucket: str, now: datetime) -> list[tuple[int, int]]:
        """List the seconds of that hour, as timestamps and oldest first, with their requests."""


class _Thread(threading.local):
    """Whether the next request of a thread is a retry."""

    repeats = False


class Reservation(NamedTuple):
    """A counted request that is sent next: when it was reserved, and whether it is a retry."""

    at: datetime
    is_repeat: bool


class Waiting(NamedTuple):
    """Until when no request is sent, and why."""

    until: datetime
    why: str


class Budget:
    """The requests that one run may send, and those that it has sent.

    `requests`, `git_requests` and `retries` count what was sent; `answers` counts answers by status,
    `latest_headers` are those of the last one. Requests by git have a bucket and a limit of their own.

    :param bucket: names the account in the ledger.
    :param wait: sleeps and tells the user why.
    :param limit: the operator's hourly limit; None if none is set.
    :param default: the hourly limit where the operator set none, unless the upstream reports another. If it
        is None too, requests are counted, but never delayed.
    :param may_wait: False makes a spent budget end the run.
    :param max_requests: limits this run; None for no limit.
    :param timer: measures waits, in seconds; the clock by default.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        bucket: str,
        wait: Wait,
        clock: Clock,
        limit: int | None = None,
        default: int | None = AUTHENTICATED_LIMIT,
        may_wait: bool = True,
        max_requests: int | None = None,
        timer: Callable[[], float] | None = None,
    ) -> None:
        self.buckets: dict[RequestKind, str] = {"api": bucket, "git": f"git-{bucket}"}
        self.requests = 0
        self.git_requests = 0
        self.retries = 0
        self.answers = Counter[int]()
        self.latest_headers: Mapping[str, str] = {}
        self._ledger = ledger
        self._clock = clock
        self._timer = timer or (lambda: clock().timestamp())
        self._wait = wait
        self._may_wait = may_wait
        self._max_requests = max_requests
        self._set = {"api": limit, "git": None}
        self._default = {"api": default, "git": GIT_LIMIT}
        self._reported = {kind: ledger.limit(name) for kind, name in self.buckets.items()}
        self._counts = threading.Lock()
        self._taken = 0
        self._waiting = 0
        self._waiting_since = 0.0
        self._waited = 0.0
        self._waits: Waiting | None = None
        self._thread = _Thread()
        self._gates = {"api": threading.Lock(), "git": threading.Lock()}
        self._held: dict[RequestKind, datetime] = {}
        # In seconds, and 0 after an answer; it may be of an earlier run.
        self._last_hold = {kind: ledger.last_hold(name) for kind, name in self.buckets.items()}

    def limit(self, kind: RequestKind = "api") -> int | None:
        """Return the hourly limit in force."""
        return limit_in_force(
            reported=self._reported[kind], ours=self._set[kind], default=self._default[kind]
        )

    def used(self, kind: RequestKind = "api") -> int:
        """Return how many requests of the past hour are counted, in all processes."""
        return self._ledger.used(self.buckets[kind], self._clock())

    @property
    def slept_seconds(self) -> float:
        """The seconds in which at least one thread waited, a wait under way included."""
        with self._counts:
            return self._waited + (self._timer() - self._waiting_since if self._waiting else 0.0)

    @property
    def waiting(self) -> Waiting | None:
        """The wait that is under way, if there is one."""
        with self._counts:
            return self._waits if self._waiting else None

    def seconds_for(self, requests: int, pace: float, kind: RequestKind = "api") -> float:
        """Estimate how many seconds it takes to send that many more requests.

        `pace` is how many seconds one takes if nothing waits.
        """
        limit = self.limit(kind)
        if requests <= 0 or not limit:
            return max(0, requests) * pace
        # Those that do not fit into this hour follow in the rhythm in which its requests leave it.
        hours, rest = divmod(requests - 1, limit)
        fits = self._fits_in(rest + 1, limit, kind)
        return max(requests * pace, max((rest + 1) * pace, fits) + hours * 3600)

    def _fits_in(self, requests: int, limit: int, kind: RequestKind) -> float:
        """Return after how many seconds there is room for that many requests, at most the limit."""
        now = self._clock()
        sent = self._ledger.sent(self.buckets[kind], now)
        must_leave = requests + sum(count for _, count in sent) - limit
        for at, count in sent:
            if must_leave <= 0:
                break
            must_leave -= count
            if must_leave <= 0:
                return max(0.0, at + 3601 - now.timestamp())  # a second leaves the hour as a whole
        return 0.0

    def take(self, kind: RequestKind = "api") -> Reservation:
        """Wait for room, then count one request, which is sent next.

        Raises BudgetSpent if the run may not wait, Paused after `max_requests`, and what `wait` raises;
        nothing is counted then.
        """
        self._claim()
        try:
            # One thread at a time: it waits for the others too, and the user is told once.
            with self._gates[kind]:
                reserved_at = self._clock()
                while (no_room := self._reserve(kind, reserved_at)) is not None:
                    self._await(kind, no_room)
                    reserved_at = self._clock()
        except BaseException:
            with self._counts:
                self._taken -= 1
            raise
        finally:
            is_repeat, self._thread.repeats = self._thread.repeats, False
        self._count(kind, 1, repeats=int(is_repeat))
        return Reservation(reserved_at, is_repeat)

    def take_back(self, kind: RequestKind, reservation: Reservation) -> None:
        """Undo the count of a request that was never sent."""
        self._ledger.take_back(self.buckets[kind], reservation.at)
        with self._counts:
            self._taken -= 1
        self._count(kind, -1, repeats=-int(reservation.is_repeat))

    def stop_waiting(self) -> None:
        """From now on, end the run if the budget is spent: the rest of the work is not worth a long wait."""
        self._may_wait = False

    def settle(self) -> None:
        """Write what was sent, for other processes; call it every few seconds."""
        self._ledger.settle(self._clock())

    def close(self) -> None:
        """Return reservations that were not used, at the end of a run."""
        self._ledger.close()

    @property
    def longest_wait(self) -> float:
        """The most seconds that a retry may be waited for."""
        return math.inf if self._may_wait else SHORT_WAIT

    def pause(self, seconds: float, why: str) -> None:
        """Wait before a retry."""
        self._sleep(seconds, why)

    def observe(self, kind: RequestKind, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer: a reported limit, and from a 429 that the whole bucket is held."""
        with self._counts:
            self.answers[status] += 1
            self.latest_headers = headers
        if "x-ratelimit-limit" in headers and headers.get("x-ratelimit-interval-seconds", "3600") == "3600":
            self._learn(kind, headers["x-ratelimit-limit"])
        if status == 429:
            self._hold(kind, headers)
        elif status < 500:
            self._last_hold[kind] = 0.0

    def repeat_next(self) -> None:
        """Note that the next request of this thread is a retry."""
        self._thread.repeats = True

    def _claim(self) -> None:
        """Count one request against `max_requests`; raises Paused after the last."""
        with self._counts:
            if self._max_requests is not None and self._taken >= self._max_requests:
                why = f"the {self._max_requests} requests of this run are used; run it again to resume"
                if self._max_requests < ENOUGH:
                    why += f", with at least {ENOUGH} if it makes no progress: some answers take several"
                raise Paused(why)
            self._taken += 1

    def _count(self, kind: RequestKind, number: int, repeats: int = 0) -> None:
        with self._counts:
            self.retries += repeats
            if kind == "api":
                self.requests += number
            else:
                self.git_requests += number

    def _reserve(self, kind: RequestKind, now: datetime) -> NoRoom | None:
        return self._ledger.reserve(self.buckets[kind], self.limit(kind), now)

    def _await(self, kind: RequestKind, no_room: NoRoom) -> None:
        """Wait until there is room, or end the run if it may not wait so long."""
        until, held = no_room
        seconds = max(0.0, (until - self._clock()).total_seconds())
        why = f"{self._reason(kind, held=held)}; goes on at {time_text(until)}"
        if not self._may_wait and not (held and seconds <= SHORT_WAIT):
            raise BudgetSpent(why, resumes_at=until)
        self._sleep(seconds + 0.001, why)

    def _reason(self, kind: RequestKind, *, held: bool) -> str:
        if held:
            return "the upstream answered 429, too many requests"
        what = "git requests" if kind == "git" else "requests"
        return f"the budget of {self.limit(kind) or 0:,} {what} an hour is spent"

    def _sleep(self, seconds: float, why: str) -> None:
        """Wait, and measure the time; if several threads wait at once, it counts once."""
        with self._counts:
            if self._waiting == 0:
                self._waiting_since = self._timer()
            self._waiting += 1
            self._waits = Waiting(self._clock() + timedelta(seconds=seconds), why)
        try:
            self._wait(seconds, why)
        finally:
            with self._counts:
                self._waiting -= 1
                if self._waiting == 0:
                    self._waited += max(0.0, self._timer() - self._waiting_since)

    def _learn(self, kind: RequestKind, header: str) -> None:
        reported = hourly_limit(header)
        if reported is not None and reported != self._reported[kind]:
            self._reported[kind] = reported
            with suppress(StoreError):  # must not lose the answer, which may be that of a write
                self._ledger.learn(self.buckets[kind], reported)

    def _hold(self, kind: RequestKind, headers: Mapping[str, str]) -> None:
        now = self._clock()
        seconds = retry_delay(headers, now)
        with self._counts:
            if now >= self._held.get(kind, now):  # several answers to one excess count once
                self._last_hold[kind] = min(max(FIRST_HOLD, 2 * self._last_hold[kind]), LONGEST_DELAY)
            if seconds is None:
                seconds = self._last_hold[kind]
            until = now + timedelta(seconds=max(seconds, SHORTEST_HOLD))
            self._held[kind] = max(until, self._held.get(kind, until))
        self._ledger.hold(self.buckets[kind], until)


def limit_in_force(*, reported: int | None, ours: int | None, default: int | None) -> int | None:
    """Return the hourly limit that counts: a reported one may lower the operator's, but not raise it."""
    # Servers without a default report limits that they do not enforce; a 429 holds the requests in any case.
    if reported is None or (ours is None and default is None):
        return ours if ours is not None else default
    return with_margin(reported) if ours is None else min(ours, with_margin(reported))


def with_margin(limit: int) -> int:
    """Return a limit less a margin, for other programs with the same identity."""
    return max(1, limit - max(2, limit // 25))


_POLICY = re.compile(r"(?<!\d)(\d{1,9})\s*;\s*w\s*=\s*(\d{1,9})(?!\d)")


def hourly_limit(header: str) -> int | None:
    """Parse X-RateLimit-Limit: ``1000``, or ``60, 60;w=3600`` with a window in seconds; only hours count."""
    policies = [(int(limit), int(window)) for limit, window in _POLICY.findall(header)]
    hourly = [limit for limit, window in policies if window == 3600]
    if policies:
        return min(hourly) if hourly and min(hourly) > 0 else None
    first = header.partition(",")[0].strip()
    return int(first) if re.fullmatch(r"[0-9]{1,9}", first) and int(first) > 0 else None


def retry_delay(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds to wait that an answer asks for, at most an hour; None if it does not say.

    Retry-After is seconds or a date (RFC 9110); Bitbucket's X-RateLimit-Reset is the seconds left.
    """
    header = headers.get("retry-after", "").strip()
    seconds = _seconds(header)
    if seconds is None and header:
        with suppress(ValueError, TypeError, OverflowError):
            moment = parsedate_to_datetime(header)
            seconds = (moment.replace(tzinfo=moment.tzinfo or now.tzinfo) - now).total_seconds()
    if seconds is None:
        seconds = _seconds(headers.get("x-ratelimit-reset", "").strip())
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_DELAY)


def _seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text) else None
