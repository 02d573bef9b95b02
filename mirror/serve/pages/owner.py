"""The page of an owner: repositories, members, activity."""

import sqlite3
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from datasette.utils.asgi import Response

from mirror.queries.accounts import known_account_by_id, known_account_named, members_of, workspaces_of
from mirror.queries.caller import Caller
from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.crawl import upstreams
from mirror.queries.repositories import OWNED_ORDERS, owned_page, updates_by_month
from mirror.queries.rows import AccountRow
from mirror.queries.web_links import WebLinks
from mirror.serve.pages.charts import Bar, bar_chart
from mirror.serve.pages.view import NotHere, Visit

PER_PAGE, LATEST, MONTHS = 50, 12, 24


async def owner_page(visit: Visit) -> Response:
    """GET /-/u/OWNER, or /-/u?id=ROW for a name that does not fit into an address."""
    return await visit.page("mirror_owner.html", await visit.read(lambda c: _everything(c, visit)))


def _everything(connection: sqlite3.Connection, visit: Visit) -> dict[str, Any]:
    row, caller = _found(connection, visit), visit.caller
    order = visit.parameters.get("by", "")
    order = order if order in OWNED_ORDERS else "updated"
    page = visit.number("page", 1, 100_000)
    months = _months(visit.now)
    updates = updates_by_month(connection, caller, row.id, f"{months[0]}-01")
    return everything_of(connection, caller, row, order=order, page=page, length=PER_PAGE) | {
        "activity": bar_chart(
            [Bar(month, updates.get(month, 0)) for month in months],
            title="Repositories by the month of their last update",
            height=90,
        ),
        "updates": sum(updates.values()),
    }


def everything_of(
    connection: sqlite3.Connection, caller: Caller, row: AccountRow, *, order: str, page: int, length: int
) -> dict[str, Any]:
    """Read what the page shows of an owner, but for the activity; `length` repositories are on a page."""
    owned = owned_page(connection, caller, row.id, order=order, page=page, length=length)
    latest = latest_changes(connection, caller, ChangeFilter(owner_ids=(row.id,)), limit=LATEST)
    web = WebLinks(connection, caller)
    return {
        "owner": row,
        "upstream": next(one for one in upstreams(connection) if one.id == row.upstream_id),
        "url": web.owner(row),
        "owned": owned,
        "web": web.repositories(owned.rows),
        "page": page,
        "length": length,
        "order": order,
        "orders": list(OWNED_ORDERS),
        "members": members_of(connection, caller, row.id),
        "workspaces": workspaces_of(connection, caller, row.id),
        "latest": latest,
        "there": web.changes(latest.rows),
    }


def _found(connection: sqlite3.Connection, visit: Visit) -> AccountRow:
    """Find the owner that the address names; raises NotHere."""
    if "owner" in visit.names:
        try:
            name = unquote(visit.names["owner"], errors="strict")
        except UnicodeDecodeError:
            raise NotHere("That address is not UTF-8.") from None
        found = known_account_named(connection, visit.caller, name)
    else:
        name = "with that id"
        found = known_account_by_id(connection, visit.caller, visit.number("id", 0, 2**62))
    if found is None:
        raise NotHere(f"The mirror has no owner {name[:200]}.", name if "owner" in visit.names else "")
    return found


def _months(now: datetime) -> list[str]:
    """Return the last months, the present one last."""
    last = now.year * 12 + now.month - 1
    return [f"{n // 12:04}-{n % 12 + 1:02}" for n in range(last - MONTHS + 1, last + 1)]
