"""What a running server tells of itself: `/-/health` for watchdogs, `/-/metrics` for Prometheus."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from datasette.utils.asgi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from mirror.errors import StoreError
from mirror.observe.health import Health, read_health
from mirror.search.find import one_snapshot
from mirror.serve import auth as permissions
from mirror.serve.database import mirrors
from mirror.serve.exchange import SAFETY
from mirror.serve.state import served
from mirror.store.files import open_reader
from mirror.times import utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

HEALTH = r"^/-/health$"
METRICS = r"^/-/metrics$"


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
