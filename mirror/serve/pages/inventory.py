"""The inventory: as a page, and as a CSV file that is sent in parts."""

import sqlite3
from functools import partial
from typing import Any

from datasette.utils.asgi import AsgiStream, Response

from mirror.queries.accounts import owners_named
from mirror.queries.inventory import CHUNK, COLUMNS, InventoryPage, InventoryPlace, inventory_page
from mirror.readable import csv_chunks
from mirror.serve.middleware import PAGE
from mirror.serve.pages.view import Visit

PER_PAGE, LONGEST_NAME = 100, 300
NOBODY = 0
"""The id of no owner: a name that is not mirrored looks like a hidden one."""


async def inventory(visit: Visit) -> Response:
    """GET /-/inventory: what a migration needs to know of each repository, by name."""
    owner, after = _owner(visit), _after(visit)
    found = await visit.read(lambda c: _page(c, visit, owner, after, PER_PAGE), times=FAR)
    context: dict[str, Any] = {"owner": owner, "found": found, "is_later_page": bool(after.full_name)}
    return await visit.page("mirror_inventory.html", context)


FAR = 5
"""How many time limits a page may take: one far behind the first name of a large owner is slow."""


async def as_csv(visit: Visit) -> Response:
    """GET /-/inventory.csv: all lines. Each part comes from its own snapshot, with its visibility."""
    owner = _owner(visit)
    first = await visit.read(lambda c: _page(c, visit, owner, InventoryPlace(), CHUNK), times=FAR)

    async def write(writer: Any) -> None:
        page, header = first, COLUMNS
        while True:
            rows = ([getattr(line, column) for column in COLUMNS] for line in page.lines)
            text = "".join(csv_chunks(header, rows))
            await writer.write(text.encode("utf-8", "replace").decode())
            more = page.more
            if more is None:
                return
            page = await visit.read(
                partial(_page, visit=visit, owner=owner, after=more, size=CHUNK), times=FAR
            )
            header = ()

    headers = {**PAGE, "Content-Disposition": 'attachment; filename="inventory.csv"'}
    content_type = "text/csv; charset=utf-8"
    if visit.request.method == "HEAD":
        return Response("", headers=headers, content_type=content_type)
    return AsgiStream(write, headers=headers, content_type=content_type)


def _owner(visit: Visit) -> str:
    return visit.parameters.get("owner", "").strip()[:LONGEST_NAME]


def _after(visit: Visit) -> InventoryPlace:
    """Return where the page begins. The address has the name, since an id could be that of a hidden row."""
    return InventoryPlace(visit.parameters.get("after", ""), visit.number("id", 0, 2**62))


def _page(
    connection: sqlite3.Connection, visit: Visit, owner: str, after: InventoryPlace, size: int
) -> InventoryPage:
    owner_ids = tuple(row.id for row in owners_named(connection, owner)) or (NOBODY,) if owner else ()
    return inventory_page(connection, visit.caller, owner_ids=owner_ids, after=after, size=size)
