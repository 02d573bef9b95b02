"""The page of an owner: repositories, members, activity."""

import sqlite3
from datetime import datetime
from typing import Any

from datasette.utils.asgi import Response

from mirror.errors import NotFound
from mirror.queries.accounts import known_account_by_id, known_account_named, members_of, workspaces_of
from mirror.queries.changes import ChangeFilter, latest_changes, timeline
from mirror.queries.first_listings import is_in_first_listing, lacks
from mirror.queries.past import past_copy, pasts_owned
from mirror.queries.repositories import OWNED_ORDERS, owned_page, updates_by_month
from mirror.queries.rows import AccountRow, upstreams_of
from mirror.queries.visibility import Caller
from mirror.queries.web_links import WebLinks
from mirror.serve.pages.status import Bar, bar_chart
from mirror.serve.pages.view import LATER, NotHere, Visit

PER_PAGE, LATEST, MONTHS = 50, 12, 24
PAST_TIMES = 5  # how many time limits the past of an owner may take, which is that of each repository


async def owner_page(visit: Visit) -> Response:
    """GET /-/u/OWNER, or /-/u?id=ROW for a name that does not fit into an address."""
    if visit.names_nothing:
        return Response.redirect(visit.links.search())
    times = PAST_TIMES if visit.at else 1
    found = await visit.read(lambda c: _everything(c, visit), times=times)
    return await visit.page("mirror_owner.html", found)


def _everything(connection: sqlite3.Connection, visit: Visit) -> dict[str, Any]:
    row = _found(connection, visit)
    moments = timeline(connection, visit.caller, ChangeFilter(owner_ids=(row.id,)), visit.at)
    if not visit.at:
        return {**_state(connection, visit, row), "timeline": moments}
    try:
        pasts = pasts_owned(connection, visit.caller, row, visit.at)
    except NotFound as error:
        raise NotHere(f"{error}."[:400]) from None
    with past_copy(connection, visit.caller, pasts) as copy:
        then = known_account_by_id(copy, visit.caller, row.id) or row
        state = _state(copy, visit, then)
    return {**state, **_latest(connection, visit, row.id), "timeline": moments, "members": None}


def _latest(connection: sqlite3.Connection, visit: Visit, owner_id: int) -> dict[str, Any]:
    """Read the changes of an owner until the requested time."""
    until = ChangeFilter(owner_ids=(owner_id,), until=f"{visit.at}~")
    latest = latest_changes(connection, visit.caller, until, limit=LATEST)
    return {
        "at": visit.at,
        "latest": latest,
        "web_links": WebLinks(connection, visit.caller).changes(latest.rows),
    }


def _state(connection: sqlite3.Connection, visit: Visit, row: AccountRow) -> dict[str, Any]:
    """Read an owner in a mirror, or in a copy of its past."""
    caller = visit.caller
    order = visit.parameters.get("by", "")
    order = order if order in OWNED_ORDERS else "updated"
    page = visit.number("page", 1, 100_000)
    months = _months(visit.now)
    updates = updates_by_month(connection, caller, row.id, f"{months[0]}-01")
    return everything_of(connection, caller, row, order=order, page=page, length=PER_PAGE) | {
        "activity": bar_chart(
            [Bar(month, updates.get(month, 0)) for month in months],
            title="Repositories by the month of their last update",
            unit="repositories",
            height=90,
        ),
        "updates": sum(updates.values()),
    }


def everything_of(
    connection: sqlite3.Connection, caller: Caller, row: AccountRow, *, order: str, page: int, length: int
) -> dict[str, Any]:
    """Read what the page shows of an owner, except the activity; `length` repositories are on a page."""
    owned = owned_page(connection, caller, row.id, order=order, page=page, length=length)
    latest = latest_changes(connection, caller, ChangeFilter(owner_ids=(row.id,)), limit=LATEST)
    web = WebLinks(connection, caller)
    return {
        "owner": row,
        "upstream": upstreams_of(connection)[row.upstream_id],
        "url": web.owner(row),
        "owned": owned,
        "web": web.repositories(owned.rows),
        "page": page,
        "length": length,
        "order": order,
        "orders": list(OWNED_ORDERS),
        "is_listed": not is_in_first_listing(connection, row.id),
        "members": members_of(connection, caller, row.id),
        "workspaces": workspaces_of(connection, caller, row.id),
        "latest": latest,
        "web_links": web.changes(latest.rows),
        "at": "",
        "timeline": None,
    }


def _found(connection: sqlite3.Connection, visit: Visit) -> AccountRow:
    """Find the owner that the address names; raises NotHere."""
    if "owner" in visit.names:
        name = visit.named("owner")
        found = known_account_named(connection, visit.caller, name)
    else:
        name = "with that id"
        found = known_account_by_id(connection, visit.caller, visit.number("id", 0, 2**62))
    if found is None:
        query = name if "owner" in visit.names else ""
        later = LATER if query and lacks(connection, visit.caller, query) else ""
        raise NotHere(f"The mirror has no owner {name[:200]}{visit.caller.or_hidden}.{later}", query)
    return found


def _months(now: datetime) -> list[str]:
    last = now.year * 12 + now.month - 1
    return [f"{n // 12:04}-{n % 12 + 1:02}" for n in range(last - MONTHS + 1, last + 1)]
