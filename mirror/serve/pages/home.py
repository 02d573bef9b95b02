"""The home page, the page of questions, and Datasette's own index."""

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from datasette.utils.asgi import Request, Response
from datasette.views.index import IndexView

from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.counts import counts_of, ref_counts_of
from mirror.queries.repositories import recent_ids, still_visible
from mirror.queries.web_links import WebLinks
from mirror.serve.exchange import mirror_of
from mirror.serve.pages.view import Visit, page
from mirror.serve.stored_queries import GROUPS, QUERIES

if TYPE_CHECKING:
    from datasette.app import Datasette


async def numbers(visit: Visit) -> dict[str, Any]:
    """Return the counts for a template; each is None until it has been counted."""
    found = await asyncio.gather(
        visit.count("counts", lambda connection: counts_of(connection, visit.caller)),
        visit.count("refs", lambda connection: ref_counts_of(connection, visit.caller)),
    )
    return dict(zip(("counts", "ref_counts"), found, strict=True))


async def updated_last(visit: Visit) -> dict[str, Any]:
    """Read the repositories that were updated last. Their ids are cached, their rows are not."""
    ids = await visit.count("recent", lambda connection: recent_ids(connection, visit.caller))
    if ids is None:
        return {"recent": None}

    def work(connection: sqlite3.Connection) -> dict[str, Any]:
        rows = still_visible(connection, visit.caller, ids)
        return {"recent": rows, "web": WebLinks(connection, visit.caller).repositories(rows)}

    return await visit.read(work)


OFFERED = ("stale", "stale_branches", "without_tags", "names_under_many_owners")
"""The questions on the home page; nearly every mirror has an answer to them."""


async def questions(visit: Visit) -> Response:
    """GET /-/questions: the stored queries; Datasette's pages show their answers."""
    return await visit.page("mirror_questions.html", {"groups": GROUPS})


LATEST = 10


async def home_page(datasette: "Datasette", request: Request) -> Response:
    """GET /: the mirror's home page, or Datasette's if no mirror is attached."""
    if mirror_of(request) is None:
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
        latest = latest_changes(connection, visit.caller, ChangeFilter(), limit=LATEST).rows
        return {
            "upstreams": visit.standing(connection),
            "latest": latest,
            "there": WebLinks(connection, visit.caller).changes(latest),
        }

    counted, recent, context = await asyncio.gather(numbers(visit), updated_last(visit), visit.read(work))
    context |= counted | recent
    context["refresh"] = visit.refresh
    context["questions"] = [(name, QUERIES[name].title) for name in OFFERED]
    return await visit.page("mirror_home.html", context)
