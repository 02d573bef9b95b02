"""One owner's page: what it owns, who belongs to it, when it was active."""

import sqlite3
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from datasette.utils.asgi import Response

from mirror.queries import owners
from mirror.queries.changes import Wanted, changes
from mirror.queries.rows import Row
from mirror.serve.pages.charts import Bar, bar_chart
from mirror.serve.pages.view import NotHere, Visit

PER_PAGE, LATEST, MONTHS = 50, 12, 24


async def owner(visit: Visit) -> Response:
    """GET /-/u/OWNER, or /-/u?id=ROW for names that fit into no address."""
    return await visit.page("mirror_owner.html", await visit.read(lambda c: _everything(c, visit)))


def _everything(connection: sqlite3.Connection, visit: Visit) -> dict[str, Any]:
    found = _found(connection, visit)
    order = visit.parameters.get("by", "updated")
    order = order if order in owners.ORDERS else "updated"
    listed = owners.repositories(
        connection,
        visit.caller,
        found["id"],
        order=order,
        page=visit.number("page", 1, 100_000),
        size=PER_PAGE,
    )
    months = _months(visit.now)
    updates = owners.activity(connection, visit.caller, found["id"], f"{months[0]}-01")
    latest = changes(connection, visit.caller, Wanted(owner_id=found["id"], limit=LATEST))
    return {
        "owner": found,
        "listed": listed,
        "order": order,
        "orders": list(owners.ORDERS),
        "members": owners.members(connection, visit.caller, found["id"]),
        "workspaces": owners.workspaces(connection, visit.caller, found["id"]),
        "activity": bar_chart(
            [Bar(month, updates.get(month, 0)) for month in months],
            title="Repositories by the month of their last update",
            height=90,
        ),
        "updates": sum(updates.values()),
        "latest": latest[:LATEST],
        "more": len(latest) > LATEST,
    }


def _found(connection: sqlite3.Connection, visit: Visit) -> Row:
    """Find the owner that an address names; raises NotHere."""
    if "owner" in visit.names:
        try:
            name = unquote(visit.names["owner"], errors="strict")
        except UnicodeDecodeError:
            raise NotHere("That address is not UTF-8.") from None
        found = owners.owner(connection, visit.caller, name)
    else:
        name = "of that number"
        found = owners.owner_by_id(connection, visit.caller, visit.number("id", 0, 2**62))
    if found is None:
        raise NotHere(f"The mirror knows no owner {name[:200]}.", name if "owner" in visit.names else "")
    return found


def _months(now: datetime) -> list[str]:
    """List the last months, this one last."""
    last = now.year * 12 + now.month - 1
    return [f"{n // 12:04}-{n % 12 + 1:02}" for n in range(last - MONTHS + 1, last + 1)]
