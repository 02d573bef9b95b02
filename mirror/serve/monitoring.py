"""Monitoring of a running server: `/-/health` for watchdogs, `/-/metrics` for Prometheus."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasette.utils.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from mirror.errors import StoreError
from mirror.observe.health import Health, read_health
from mirror.search.find import one_snapshot
from mirror.serve.auth import ActorVisitor
from mirror.serve.exchange import SAFETY, json_response, mirror_of, served_of
from mirror.store.files import open_reader
from mirror.store.lock import is_syncing
from mirror.times import utc_now

HEALTH = r"^/-/health$"
METRICS = r"^/-/metrics$"


async def health(request: Request) -> Response:
    """Answer 200, or 503 with the reasons."""
    server = served_of(request)

    def read(connection: sqlite3.Connection, path: Path) -> Health:
        return read_health(
            connection, path, utc_now(), patience=server.stale_after, is_copy=server.config.read_only
        )

    found = await _from_file(request, read)
    if found is None:
        found = Health(status="unwell", reasons=["no mirror can be read"], warnings=[])
    status = 200 if found.status == "ok" else 503
    return json_response(found, _HEADERS, status=status, content_type="application/json")


async def metrics(request: Request) -> Response:
    """Answer with the metrics of this process, and of the file if the caller may count private rows."""
    server, mirror, visitor = served_of(request), mirror_of(request), ActorVisitor(request.actor)
    name = mirror.name if mirror else ""

    def read(connection: sqlite3.Connection, path: Path) -> bytes:
        with one_snapshot(connection):
            if not visitor.sees_all(name) and visitor.lacks(connection, name):
                return _CLOSED
            return server.file_metrics.text(connection, server.limits(connection), syncing=is_syncing(path))

    text = await _from_file(request, read)
    return Response(
        (text or b"") + server.latencies.text(), headers=_HEADERS, content_type=CONTENT_TYPE_LATEST
    )


async def _from_file(request: Request, read: Callable[[sqlite3.Connection, Path], Any]) -> Any:
    """Read the mirror in a thread, on a connection of its own: those of Datasette have a time limit.

    Returns None if no mirror can be read.
    """
    mirror = mirror_of(request)
    if mirror is None:
        return None
    path = Path(mirror.path)

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
