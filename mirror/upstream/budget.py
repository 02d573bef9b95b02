"""How often may be asked: every request is counted in a ledger before it is sent.

Bitbucket counts by a rolling hour and by identity, and does not say how much is left
(support.atlassian.com/bitbucket-cloud/docs/api-request-limits), so we keep our own account. The ledger
is shared by threads, processes and restarts; this file decides, the store writes it down.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple, Protocol

from mirror.errors import BudgetSpent, Paused
from mirror.model import NoRoom
from mirror.times import Clock, local

RequestKind = Literal["api", "git"]
Wait = Callable[[float, str], None]
"""Sleep so many seconds, interruptibly, telling the user why; raises Interrupted."""

ANONYMOUS_LIMIT = 58
AUTHENTICATED_LIMIT = 950
GIT_LIMIT = 57_000

LONGEST_DELAY = 3600.0
FIRST_HOLD = 60.0  # clients that came back after 5 s kept themselves locked out
SHORTEST_HOLD = 1.0
SHORT_HOLD = 90.0  # even a run that may not wait sits out a pause as short as this


class Ledger(Protocol):
    """The account of requests, as the store keeps it; every method may be called by several threads."""

    def reserve(self, bucket: str, limit: int | None, now: datetime) -> NoRoom | None:
        """Count one request, which is sent at once, and return None; or count nothing, and say why.

        There is no room while `limit` requests are counted in the hour before `now`, or the bucket is held;
        a `limit` of None leaves only the hold.
        """

    def take_back(self, bucket: str, reserved_at: datetime) -> None:
        """Count a request no longer that was reserved at a moment and never sent."""

    def hold(self, bucket: str, until: datetime) -> None:
        """Let nobody of the bucket ask before `until`; a later hold is kept."""

    def learn(self, bucket: str, limit: int) -> None:
        """Remember the hourly limit that the upstream told."""

    def limit(self, bucket: str) -> int | None:
        """Return the limit last learnt."""

    def used(self, bucket: str, now: datetime) -> int:
        """Return how many requests are counted in the hour before `now`."""


class _Thread(threading.local):
    """What a thread knows of its next request."""

    repeats = False


class Reservation(NamedTuple):
    """A request that is counted and sent next: when it was reserved, and whether it was asked before."""

    at: datetime
    is_repeat: bool


class Budget:
    """What one run may spend, and what it has spent.

    `requests`, `git_requests` and `retries` count what was sent, `slept_seconds` is the time in which at
    least one thread waited, by `timer` (in seconds; the clock's own unless given).

    `limit` and `git_limit` are the operator's, None where not set; `default` and `git_default` hold then,
    unless the upstream tells another limit. None everywhere means: count, but never stop.
    `max_requests` is this run's own; `may_wait` false makes a spent budget end the run.
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
        git_bucket: str = "",
        git_limit: int | None = None,
        git_default: int | None = GIT_LIMIT,
        may_wait: bool = True,
        max_requests: int | None = None,
        timer: Callable[[], float] | None = None,
    ) -> None:
        self.buckets: dict[RequestKind, str] = {"api": bucket, "git": git_bucket or f"git-{bucket}"}
        self.requests = 0
        self.git_requests = 0
        self.retries = 0
        self.answers = Counter[int]()
        self._ledger = ledger
        self._clock = clock
        self._timer = timer or (lambda: clock().timestamp())
        self._wait = wait
        self._may_wait = may_wait
        self._max_requests = max_requests
        self._set = {"api": limit, "git": git_limit}
        self._default = {"api": default, "git": git_default}
        self._told = {kind: ledger.limit(name) for kind, name in self.buckets.items()}
        self._counts = threading.Lock()
        self._taken = 0
        self._waiting = 0
        self._waiting_since = 0.0
        self._waited = 0.0
        self._thread = _Thread()
        self._gates = {"api": threading.Lock(), "git": threading.Lock()}
        self._held: dict[RequestKind, datetime] = {}
        self._refused_in_row: Counter[RequestKind] = Counter()

    def limit(self, kind: RequestKind = "api") -> int | None:
        """Return the hourly limit in force."""
        return limit_in_force(told=self._told[kind], ours=self._set[kind], default=self._default[kind])

    def used(self, kind: RequestKind = "api") -> int:
        """Return how many requests of the past hour are counted, by whichever process."""
        return self._ledger.used(self.buckets[kind], self._clock())

    @property
    def slept_seconds(self) -> float:
        """How long was waited until now, a wait that goes on included."""
        with self._counts:
            return self._waited + (self._timer() - self._waiting_since if self._waiting else 0.0)

    def take(self, kind: RequestKind = "api") -> Reservation:
        """Count one request that is sent next, waiting for room first.

        Raises BudgetSpent where the run may not wait, Paused when the run's own number is used up, and
        what `wait` raises; nothing is counted then.
        """
        self._claim()
        try:
            # One at a time: the thread that waits does so for the others, and the user is told once.
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
        """Count a request no longer that never left this machine."""
        self._ledger.take_back(self.buckets[kind], reservation.at)
        with self._counts:
            self._taken -= 1
        self._count(kind, -1, repeats=-int(reservation.is_repeat))

    def pause(self, seconds: float, why: str) -> None:
        """Wait between two tries of one request; raises BudgetSpent where the run may not wait so long."""
        if seconds > SHORT_HOLD and not self._may_wait:
            resumes_at = self._clock() + timedelta(seconds=seconds)
            raise BudgetSpent(f"{why}; goes on at {clock_text(resumes_at)}", resumes_at=resumes_at)
        self._sleep(seconds, why)

    def observe(self, kind: RequestKind, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer: its limit headers, and from 429 that everybody of the bucket must hold."""
        with self._counts:
            self.answers[status] += 1
        if "x-ratelimit-limit" in headers and headers.get("x-ratelimit-interval-seconds", "3600") == "3600":
            self._learn(kind, headers["x-ratelimit-limit"])
        if status == 429:
            self._hold(kind, headers)
        elif self._refused_in_row[kind] and status < 500:
            self._refused_in_row[kind] = 0

    def repeat_next(self) -> None:
        """Note that the next request of this thread is one that is asked again."""
        self._thread.repeats = True

    def _claim(self) -> None:
        """Take one request of the run's own number; raises Paused where that is used up."""
        with self._counts:
            if self._max_requests is not None and self._taken >= self._max_requests:
                raise Paused(f"the {self._max_requests} requests of this run are used; run it again to go on")
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
        why = f"{self._reason(kind, held=held)}; goes on at {clock_text(until)}"
        if not self._may_wait and not (held and seconds <= SHORT_HOLD):
            raise BudgetSpent(why, resumes_at=until)
        self._sleep(seconds + 0.001, why)

    def _reason(self, kind: RequestKind, *, held: bool) -> str:
        if held:
            return "the upstream answered 429, too many requests"
        what = "git requests" if kind == "git" else "requests"
        return f"the budget of {self.limit(kind) or 0:,} {what} an hour is spent"

    def _sleep(self, seconds: float, why: str) -> None:
        """Wait, and count the time that passes; where several threads wait at once, it counts once."""
        with self._counts:
            if self._waiting == 0:
                self._waiting_since = self._timer()
            self._waiting += 1
        try:
            self._wait(seconds, why)
        finally:
            with self._counts:
                self._waiting -= 1
                if self._waiting == 0:
                    self._waited += max(0.0, self._timer() - self._waiting_since)

    def _learn(self, kind: RequestKind, header: str) -> None:
        told = hourly_limit(header)
        if told is not None and told != self._told[kind]:
            self._told[kind] = told
            self._ledger.learn(self.buckets[kind], told)

    def _hold(self, kind: RequestKind, headers: Mapping[str, str]) -> None:
        now = self._clock()
        seconds = retry_delay(headers, now)
        with self._counts:
            if now >= self._held.get(kind, now):  # several threads' answers to one excess count once
                self._refused_in_row[kind] += 1
            if seconds is None:
                seconds = min(FIRST_HOLD * 2 ** (self._refused_in_row[kind] - 1), LONGEST_DELAY)
            until = now + timedelta(seconds=max(seconds, SHORTEST_HOLD))
            self._held[kind] = max(until, self._held.get(kind, until))
        self._ledger.hold(self.buckets[kind], until)


def limit_in_force(*, told: int | None, ours: int | None, default: int | None) -> int | None:
    """Return the hourly limit that counts: a told one may lower the operator's, never raise it.

    Where there is no limit by default, a told one is known but not kept: such servers tell limits that
    they do not enforce, or of other kinds, and a 429 is heard in any case.
    """
    if told is None or (ours is None and default is None):
        return ours if ours is not None else default
    return with_margin(told) if ours is None else min(ours, with_margin(told))


def with_margin(limit: int) -> int:
    """Leave room for requests that other programs make under the same identity."""
    return max(1, limit - max(2, limit // 25))


_POLICY = re.compile(r"(?<!\d)(\d{1,9})\s*;\s*w\s*=\s*(\d{1,9})(?!\d)")


def hourly_limit(header: str) -> int | None:
    """Read X-RateLimit-Limit: ``1000``, or ``60, 60;w=3600`` with a window in seconds; only hours count."""
    policies = [(int(limit), int(window)) for limit, window in _POLICY.findall(header)]
    hourly = [limit for limit, window in policies if window == 3600]
    if policies:
        return min(hourly) if hourly and min(hourly) > 0 else None
    first = header.partition(",")[0].strip()
    return int(first) if re.fullmatch(r"[0-9]{1,9}", first) and int(first) > 0 else None


def retry_delay(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how many seconds to stay away, at most an hour, or None where nothing is said.

    Retry-After is seconds or a date (RFC 9110); Bitbucket's X-RateLimit-Reset is the seconds left, no epoch.
    """
    told = headers.get("retry-after", "").strip()
    seconds = _seconds(told)
    if seconds is None and told:
        with suppress(ValueError, TypeError, OverflowError):
            moment = parsedate_to_datetime(told)
            seconds = (moment.replace(tzinfo=moment.tzinfo or now.tzinfo) - now).total_seconds()
    if seconds is None:
        seconds = _seconds(headers.get("x-ratelimit-reset", "").strip())
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_DELAY)


def _seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text) else None


def clock_text(moment: datetime) -> str:
    """Say a moment as the clock on the user's wall does."""
    return local(moment).strftime("%H:%M:%S")
