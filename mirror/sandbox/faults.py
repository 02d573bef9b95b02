"""Faults on demand: which requests fail, and how."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from mirror.sandbox.exchange import (
    HTML,
    TEXT,
    Request,
    SandboxResponse,
    Transfer,
    error,
    no_credentials,
    no_repository,
    removed,
    too_many_requests,
)

KINDS = {
    "hang": "never answers",
    "slow": "answers after `seconds`",
    "drip": "sends a few bytes at a time, over `seconds`",
    "drop": "closes the connection without an answer",
    "reset": "resets the connection",
    "truncate": "sends half a body and closes the connection",
    "html": "200 with a web page",
    "invalid_json": "200 with JSON that ends early",
    "empty": "200 with no rows",
    "nonsense": "200 with JSON of another shape",
    "bad_row": "one row of the page has the wrong types",
    "page_500": "this page answers 500 for ever, unless asked with fields=next",
    "redirect": "302 to another host",
    "foreign_next": "the link to the next page leads to another host",
    "loop_next": "the link to the next page leads to the same page",
    "gzip_bomb": "a small body that unpacks to 64 MB",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, for which requests, and how often.

    what: a status from 400 to 599, or one of KINDS.
    where: a kind of endpoint, or a glob over paths.
    nth: the first matching request that fails, counted from 1; None for every one.
    times: how many requests fail; by default one, with nth=None all.
    retry_after: the Retry-After header of a status: seconds, or "date:SECONDS" for a date.
    seconds: how long `slow` and `drip` take.
    """

    what: str
    where: str = "*"
    nth: int | None = 1
    times: int | None = None
    retry_after: str | None = None
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.what not in KINDS and not (self.what.isdecimal() and 400 <= int(self.what) <= 599):
            raise ValueError(
                f"fault {self.what!r} is neither a status from 400 to 599 nor one of {', '.join(KINDS)}"
            )
        if (self.nth is not None and self.nth < 1) or (self.times is not None and self.times < 1):
            raise ValueError("nth and times count from 1")


def parse_fault(spec: str) -> Fault:
    """Parse ``WHAT[,where=KIND|GLOB][,nth=N|every][,times=N][,retry_after=S|date:S][,seconds=S]``."""
    what, *rest = (part.strip() for part in spec.split(","))
    values: dict[str, Any] = {}
    for part in rest:
        name, equals, value = part.partition("=")
        if not equals or name == "what":
            raise ValueError(f"fault {spec!r}: {part!r} is not NAME=VALUE")
        values[name] = value
    return fault_from({"what": what, **values})


def fault_from(values: dict[str, Any]) -> Fault:
    """Return a fault with these values; raises ValueError if one is unknown or wrong."""
    known = {each.name for each in fields(Fault)}
    if unknown := values.keys() - known:
        raise ValueError(f"a fault has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    given = {name: value for name, value in values.items() if value is not None}
    try:
        nth = given.get("nth", 1)
        return Fault(
            what=str(given.get("what", "")),
            where=str(given.get("where", "*")),
            nth=None if nth == "every" else int(nth),
            times=int(given["times"]) if "times" in given else None,
            retry_after=_checked(str(given["retry_after"])) if "retry_after" in given else None,
            seconds=float(given.get("seconds", 1.0)),
        )
    except (TypeError, ValueError) as bad:
        raise ValueError(f"bad fault {json.dumps(values)}: {bad}") from None


def _checked(retry_after: str) -> str:
    int(retry_after.removeprefix("date:"))
    return retry_after


@dataclass(slots=True)
class ActiveFault:
    """A fault with its counters: requests that matched, and requests that failed."""

    fault: Fault
    seen: int = 0
    fired: int = 0
    broken_pages: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.fault.what == "gzip_bomb":
            _bomb()  # made now: it takes longer than some clients wait for an answer

    def strikes(self, kind: str, request: Request) -> bool:
        """Count a request, and return whether it fails. Call it once for every request."""
        where = self.fault.where
        if where != kind and not fnmatchcase(request.path, where):
            return False
        if self.fault.what == "page_500" and _page(request) in self.broken_pages:
            return request.parameters.get("fields") != "next"
        self.seen += 1
        if not self._due():
            return False
        self.fired += 1
        if self.fault.what == "page_500":
            self.broken_pages.add(_page(request))
            return request.parameters.get("fields") != "next"
        return True

    def _due(self) -> bool:
        times = self.fault.times
        if self.fault.nth is None:
            return times is None or self.fired < times
        return self.fault.nth <= self.seen < self.fault.nth + (times or 1)


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(64 << 20), 6)


_INSTEAD: dict[str, Callable[[], SandboxResponse]] = {
    "hang": lambda: SandboxResponse(200, delivery=Transfer.HANG),
    "drop": lambda: SandboxResponse(200, delivery=Transfer.DROP),
    "reset": lambda: SandboxResponse(200, delivery=Transfer.RESET),
    "page_500": lambda: error(500, "Something went wrong"),
    "html": lambda: SandboxResponse(200, b"<!DOCTYPE html><title>Bitbucket</title><h1>Sign in</h1>", HTML),
    "nonsense": lambda: SandboxResponse(200, b'{"items": {"count": 3}, "values": {"next": []}}'),
    "redirect": lambda: SandboxResponse(
        302, headers={"Location": "http://redirected.invalid/"}, content_type=TEXT
    ),
    "gzip_bomb": lambda: SandboxResponse(200, _bomb(), headers={"Content-Encoding": "gzip"}),
}


def afflict(fault: Fault, request: Request, answer: Callable[[], SandboxResponse]) -> SandboxResponse:
    """Return the faulty response. `answer` produces the regular one."""
    if fault.what.isdecimal():
        return _status(fault)
    instead = _INSTEAD.get(fault.what)
    return instead() if instead else _spoilt(fault, request, answer())


def _spoilt(fault: Fault, request: Request, answer: SandboxResponse) -> SandboxResponse:
    match fault.what:
        case "slow":
            answer.delay = fault.seconds
        case "drip":
            answer.delivery, answer.delay = Transfer.DRIP, fault.seconds
        case "truncate":
            answer.delivery = Transfer.TRUNCATE
        case "invalid_json":
            answer.body = answer.body[: len(answer.body) * 2 // 3]
        case what if answer.status < 300 and answer.body.startswith(b"{"):
            page = json.loads(answer.body)
            _spoil(what, page, request)
            answer.body = json.dumps(page).encode()
        case _:
            pass
    return answer


def _spoil(what: str, page: dict[str, Any], request: Request) -> None:
    rows = page.get("values")
    match what:
        case "empty":
            page["values"] = []
            page.pop("next", None)
        case "bad_row" if isinstance(rows, list) and rows:
            rows[len(rows) // 2] = {"type": "repository", "uuid": None, "full_name": 42, "name": ["?"]}
        case "bad_row":
            page |= {"uuid": None, "full_name": 42}
        case "foreign_next":
            page["next"] = "http://elsewhere.invalid/2.0/repositories/x?page=2"
        case "loop_next":
            page["next"] = f"{request.origin}{request.path}?{request.query}"
        case _:
            pass


def _status(fault: Fault) -> SandboxResponse:
    status = int(fault.what)
    made = {401: no_credentials, 404: no_repository, 410: removed, 429: too_many_requests}.get(status)
    if made is not None:
        answer = made()
    elif status == 503:
        answer = SandboxResponse(503, b"<html><body>Service Unavailable</body></html>", HTML)
    else:
        detail = "Access denied" if status == 403 else "An error occurred"
        answer = error(status, "Something went wrong", detail=detail)
    if fault.retry_after is not None:
        answer.headers["Retry-After"] = _retry_after(fault.retry_after)
    return answer


def _retry_after(text: str) -> str:
    if not text.startswith("date:"):
        return text
    moment = datetime.now(UTC) + timedelta(seconds=int(text.removeprefix("date:")))
    return format_datetime(moment, usegmt=True)


def _page(request: Request) -> str:
    return f"{request.path}?{sorted((k, v) for k, v in request.parameters.items() if k != 'fields')}"
