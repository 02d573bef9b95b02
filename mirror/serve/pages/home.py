"""The first page: a search box, how current the mirror is, what changed last; and Datasette's own index."""

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from datasette.utils.asgi import Request, Response
from datasette.views.index import IndexView

from mirror.serve.mirrors import mirrors
from mirror.serve.pages.numbers import numbers, updated_last
from mirror.serve.pages.questions import OFFERED
from mirror.serve.pages.reads.changes import Wanted, changes
from mirror.serve.pages.reads.upstreams import upstreams
from mirror.serve.pages.visit import Visit, page
from mirror.serve.queries import QUERIES

if TYPE_CHECKING:
    from datasette.app import Datasette

LATEST = 10


async def home(datasette: "Datasette", request: Request) -> Response:
    """GET /: the mirror's home, or Datasette's where no mirror is attached."""
    if next(mirrors(datasette), None) is None:
        return await index(datasette, request)
    response: Response = await page(_home)(datasette, request)
    return response


async def index(datasette: "Datasette", request: Request) -> Response:
    """GET /-/index: all attached databases, as Datasette lists them."""
    route = dict(request.scope.get("url_route") or {})
    route["kwargs"] = {"format": None, **(route.get("kwargs") or {})}
    request.scope["url_route"] = route
    response: Response = await IndexView(datasette).get(request)
    return response


async def _home(visit: Visit) -> Response:
    def work(connection: sqlite3.Connection) -> dict[str, Any]:
        return {
            "upstreams": upstreams(connection),
            "latest": changes(connection, visit.caller, Wanted(limit=LATEST))[:LATEST],
        }

    context = await visit.read(work)
    counted, context["recent"] = await asyncio.gather(numbers(visit), updated_last(visit))
    context |= counted
    context["questions"] = [(name, QUERIES[name].title) for name in OFFERED]
    return await visit.page("mirror_home.html", context)
