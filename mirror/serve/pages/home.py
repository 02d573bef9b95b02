"""The home page, the page of questions, the inventory, and Datasette's own index."""

import asyncio
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

from datasette.utils.asgi import AsgiStream, Request, Response
from datasette.views.index import IndexView

from mirror.queries.accounts import owners_named
from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.inventory import CHUNK, COLUMNS, InventoryPage, InventoryPlace, inventory_page
from mirror.queries.repositories import recent_ids, still_visible
from mirror.queries.status import counts_of, ref_counts_of
from mirror.queries.web_links import WebLinks
from mirror.readable import csv_chunks
from mirror.serve.exchange import mirror_of
from mirror.serve.middleware import PAGE
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


# The questions on the home page; nearly every mirror has an answer to them.
OFFERED = ("stale", "stale_branches", "without_tags", "names_under_many_owners")


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
            "web_links": WebLinks(connection, visit.caller).changes(latest),
        }

    counted, recent, context = await asyncio.gather(numbers(visit), updated_last(visit), visit.read(work))
    context |= counted | recent
    context["refresh"] = visit.refresh
    context["questions"] = [(name, QUERIES[name].title) for name in OFFERED]
    return await visit.page("mirror_home.html", context)


PER_PAGE, LONGEST_NAME = 100, 300
NOBODY = 0  # the id of no owner: a name that is not mirrored looks like a hidden one


async def inventory(visit: Visit) -> Response:
    """GET /-/inventory: what a migration needs to know of each repository, by name."""
    # The address has the name at which the page begins, since an id could be that of a hidden row.
    after = InventoryPlace(visit.parameters.get("after", ""), visit.number("id", 0, 2**62))
    found = await visit.read(lambda c: _inventory_page(c, visit, after, PER_PAGE), times=TIMES)
    context = {"owner": _owner_asked(visit), "found": found, "is_later_page": bool(after.full_name)}
    return await visit.page("mirror_inventory.html", context)


TIMES = 5  # how many time limits a page may take: one far behind the first name of a large owner is slow


async def inventory_csv(visit: Visit) -> Response:
    """GET /-/inventory.csv: all lines."""
    # Each part comes from its own snapshot, with its visibility, so that a long download holds none open.
    first = await visit.read(lambda c: _inventory_page(c, visit, InventoryPlace(), CHUNK), times=TIMES)

    async def write(writer: Any) -> None:
        page, header = first, COLUMNS
        while True:
            rows = ([getattr(line, column) for column in COLUMNS] for line in page.lines)
            text = "".join(csv_chunks(header, rows))
            await writer.write(text.encode("utf-8", "replace").decode())
            if page.more is None:
                return
            following = partial(_inventory_page, visit=visit, after=page.more, size=CHUNK)
            page, header = await visit.read(following, times=TIMES), ()

    headers = {**PAGE, "Content-Disposition": 'attachment; filename="inventory.csv"'}
    content_type = "text/csv; charset=utf-8"
    if visit.request.method == "HEAD":
        return Response("", headers=headers, content_type=content_type)
    return AsgiStream(write, headers=headers, content_type=content_type)


def _owner_asked(visit: Visit) -> str:
    return visit.parameters.get("owner", "").strip()[:LONGEST_NAME]


def _inventory_page(
    connection: sqlite3.Connection, visit: Visit, after: InventoryPlace, size: int
) -> InventoryPage:
    owner = _owner_asked(visit)
    owner_ids = (
        tuple(row.id for row in owners_named(connection, visit.caller, owner)) or (NOBODY,) if owner else ()
    )
    return inventory_page(connection, visit.caller, owner_ids=owner_ids, after=after, size=size)
