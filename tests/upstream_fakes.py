"""Fakes for tests of upstreams, in place of a network, a store, a clock and sleep."""

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx

from mirror.config import Duration, Retry, UpstreamConfig
from mirror.model import NoRoom
from mirror.upstream.budget import Budget
from mirror.upstream.connect import connect
from mirror.upstream.protocol import Upstream

ANSWERS = Path(__file__).parent / "answers"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

Responder = Callable[[httpx.Request], httpx.Response]


class MemoryLedger:
    """A ledger that keeps the times of requests in memory."""

    def __init__(self) -> None:
        self.asked = dict[str, list[datetime]]()
        self.held = dict[str, datetime]()
        self.told = dict[str, int]()

    def reserve(self, bucket: str, limit: int | None, now: datetime) -> NoRoom | None:
        if now < self.held.get(bucket, now):
            return NoRoom(self.held[bucket], held=True)
        counted = [moment for moment in self.asked.get(bucket, []) if moment > now - timedelta(hours=1)]
        if limit is not None and len(counted) >= limit:
            return NoRoom(counted[-limit] + timedelta(hours=1), held=False)
        self.asked[bucket] = [*counted, now]
        return None

    def take_back(self, bucket: str, reserved_at: datetime) -> None:
        self.asked[bucket].remove(reserved_at)

    def settle(self, now: datetime) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is reserved ahead."""

    def hold(self, bucket: str, until: datetime) -> None:
        self.held[bucket] = max(until, self.held.get(bucket, until))

    def last_hold(self, bucket: str) -> float:
        last = max(self.asked.get(bucket, []), default=None)
        return max(0.0, (self.held[bucket] - last).total_seconds()) if last and bucket in self.held else 0.0

    def learn(self, bucket: str, limit: int) -> None:
        self.told[bucket] = limit

    def limit(self, bucket: str) -> int | None:
        return self.told.get(bucket)

    def sent(self, bucket: str, now: datetime) -> list[tuple[int, int]]:
        asked = self.asked.get(bucket, [])
        return [(int(moment.timestamp()), 1) for moment in asked if moment > now - timedelta(hours=1)]

    def used(self, bucket: str, now: datetime) -> int:
        return sum(moment > now - timedelta(hours=1) for moment in self.asked.get(bucket, []))


@dataclass
class FakeClock:
    """A clock that only waits move."""

    now: datetime = NOON
    naps: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def clock(self) -> datetime:
        return self.now

    def wait(self, seconds: float, why: str) -> None:
        self.naps.append(round(seconds, 2))
        self.told.append(why)
        self.now += timedelta(seconds=seconds)


class Script:
    """A server with prepared answers in turn, the last one for ever, that records requests."""

    def __init__(self, answers: Iterable[httpx.Response | Exception | Responder]) -> None:
        self._answers = deque(answers)
        self.asked = list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return answer(request)
        # A response can be read once only; the last one may be given many times.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def urls(self) -> list[str]:
        return [str(request.url) for request in self.asked]


@dataclass
class FakeUpstream:
    """An upstream under test with everything that it was given."""

    upstream: Upstream
    budget: Budget
    server: Script
    time: FakeClock
    ledger: MemoryLedger


def faked(
    *answers: httpx.Response | Exception | Responder,
    kind: str = "cloud",
    url: str = "",
    credential: str | None = None,
    attempts: int = 3,
    may_wait: bool = True,
    max_requests: int | None = None,
    **settings: Any,
) -> FakeUpstream:
    """Connect an upstream to prepared answers; `credential` is the secret's text itself."""
    time, ledger, server = FakeClock(), MemoryLedger(), Script(answers)
    config = UpstreamConfig(
        name="test",
        kind=kind,  # type: ignore[arg-type]
        url=url,
        credential="env:SECRET" if credential else None,
        retry=Retry(attempts=attempts, first_delay=Duration(1), max_delay=Duration(600)),
        **settings,
    )
    upstream, budget = connect(
        config,
        ledger=ledger,
        wait=time.wait,
        clock=time.clock,
        may_wait=may_wait,
        max_requests=max_requests,
        random=Random(1),
        environ={"SECRET": credential or ""},
        transport=httpx.MockTransport(server),
    )
    return FakeUpstream(upstream, budget, server, time, ledger)


def answer(body: Any = None, status: int = 200, **headers: str) -> httpx.Response:
    """Prepare an answer: bytes and texts as they are, everything else as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, bytes):
        return httpx.Response(status, content=body, headers=named)
    if isinstance(body, str):
        return httpx.Response(status, text=body, headers=named)
    content = b"" if body is None else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers={"content-type": "application/json", **named})


def page(*values: Any, **others: Any) -> httpx.Response:
    """Prepare a page of rows."""
    return answer({"pagelen": 100, "values": list(values), **others})


def recorded(name: str) -> Any:
    """Read a recorded answer."""
    return json.loads((ANSWERS / name).read_text("utf-8"))
