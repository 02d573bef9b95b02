"""What a running server tells of itself: `/-/health` for watchdogs, `/-/metrics` for Prometheus."""

import asyncio
import contextlib
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from datasette.utils.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from mirror.errors import StoreError
from mirror.observe.health import Health, read_health
from mirror.search.find import one_snapshot
from mirror.serve import auth as permissions
from mirror.serve.api1.formats import SAFETY
from mirror.serve.database import mirrors
from mirror.serve.state import served
from mirror.store.files import open_reader
from mirror.times import utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

HEALTH = r"^/-/health$"
METRICS = r"^/-/metrics$"

_KINDS = (
    ("api1", re.compile(r"^/(?:(?:!|%21)?api/)?1\.0(/|$)")),
    ("api2", re.compile(r"^/(?:(?:!|%21)?api/)?2\.0(/|$)")),
    ("search", re.compile(r"^/-/search")),
    ("webhook", re.compile(r"^/-/webhook/")),
    ("watch", re.compile(r"^/-/(health|metrics)$")),
    ("page", re.compile(r"^/(-/.*)?$")),
)
"""What a path is asked for; whatever else there is are tables and SQL. A path itself is never a label."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def health(datasette: "Datasette", request: Request) -> Response:
    """Answer 200, or 503 with the reasons."""
    del request
    found = await _from_file(datasette, lambda connection, path: _health(datasette, connection, path))
    if found is None:
        found = Health(status="unwell", reasons=["there is no mirror that can be read"], warnings=[])
    status = 200 if found.status == "ok" else 503
    return Response(
        msgspec.json.encode(found), status=status, headers=_HEADERS, content_type="application/json"
    )


async def metrics(datasette: "Datasette", request: Request) -> Response:
    """Answer all metrics: the file's, if the caller may count what is private, and those of this process."""
    known = served(datasette)
    name = next((one.name for one in mirrors(datasette)), "")
    asking = permissions.Visitor(request.actor)

    def read(connection: sqlite3.Connection, _: Path) -> bytes:
        with one_snapshot(connection):
            if not asking.sees_all(name) and asking.lacks(connection, name):
                return _CLOSED
            return known.file_metrics.text(connection, known.limits(connection))

    text = await _from_file(datasette, read)
    return Response(
        (text or b"") + known.latencies.text(), headers=_HEADERS, content_type=CONTENT_TYPE_LATEST
    )


def timed(datasette: "Datasette", application: Application) -> Application:
    """Measure how long answers take."""

    async def measured(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await application(scope, receive, sending)
        finally:
            served(datasette).latencies.answered(
                kind_of(scope.get("path", "")), status, time.perf_counter() - began
            )

    return measured


def kind_of(path: str) -> str:
    """Name what a path is asked for."""
    return next((name for name, pattern in _KINDS if pattern.match(path)), "table")


def _health(datasette: "Datasette", connection: sqlite3.Connection, path: Path) -> Health:
    return read_health(connection, path, utc_now(), patience=served(datasette).stale_after)


async def _from_file(datasette: "Datasette", read: Callable[[sqlite3.Connection, Path], Any]) -> Any:
    """Read the first mirror in a thread, on a connection of its own: Datasette's have a time limit."""
    path = next((Path(database.path) for database in mirrors(datasette)), None)
    if path is None:
        return None

    def work() -> Any:
        with contextlib.closing(open_reader(path)) as connection:
            return read(connection, path)

    try:
        return await asyncio.to_thread(work)
    except StoreError:
        return None


ROUTES = [(HEALTH, health), (METRICS, metrics)]
_CLOSED = b"# The mirror holds private repositories: the metrics of its file need a token of its own.\n"
_HEADERS = {**SAFETY, "Cache-Control": "no-store"}
