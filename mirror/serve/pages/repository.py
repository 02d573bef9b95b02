"""The page of a repository: all that the mirror knows of it."""

import math
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from datasette.utils.asgi import Response

from mirror.addresses import safe_external
from mirror.errors import NotFound
from mirror.model import RefKind
from mirror.queries import refs
from mirror.queries.changes import ChangeFilter, Timeline, latest_changes, timeline
from mirror.queries.crawl import failures_of
from mirror.queries.first_listings import lacks
from mirror.queries.forks import family_of
from mirror.queries.past import known_since, past_copy, past_named, past_of
from mirror.queries.past_state import Past
from mirror.queries.repositories import namesakes, repository_by_id, repository_named
from mirror.queries.rows import RefRow, RepositoryRow, upstreams_of
from mirror.queries.visibility import Caller
from mirror.queries.web_links import WebLinks
from mirror.serve.pages.view import LATER, NotHere, Visit
from mirror.store.schema import REF_TABLES
from mirror.times import from_text

HISTORY, REFS = 15, 25


async def repository_page(visit: Visit) -> Response:
    """GET /-/r/OWNER/SLUG, or /-/r?id=ROW for a name that does not fit into an address."""
    if visit.names_nothing:
        return Response.redirect(visit.links.search())
    return await visit.page("mirror_repository.html", await visit.read(lambda c: _everything(c, visit)))


def _everything(connection: sqlite3.Connection, visit: Visit) -> dict[str, Any]:
    if not visit.at:
        today = _found(connection, visit)
        return {**_state(connection, visit, today), "timeline": _timeline(connection, visit, today.id)}
    past = _past(connection, visit)
    with past_copy(connection, visit.caller, [past]) as copy:
        row = repository_by_id(copy, visit.caller, past.columns["id"])
        if row is None:  # it was private, and was transferred since
            raise NotHere("You may not see that repository as it was then.")
        return {**_state(copy, visit, row), **_history(connection, visit, row.id), "past": past}


def _state(connection: sqlite3.Connection, visit: Visit, row: RepositoryRow) -> dict[str, Any]:
    """Read a repository in a mirror, or in a copy of its past."""
    wanted = {kind: _wanted(visit, row, kind) for kind in refs.KINDS}
    return everything_of(connection, visit.caller, row, wanted, now=visit.now)


def _history(connection: sqlite3.Connection, visit: Visit, row_id: int) -> dict[str, Any]:
    """Read the changes of a repository until the requested time, and when the changes around it were."""
    until = ChangeFilter(repository_id=row_id, until=f"{visit.at}~")
    history = latest_changes(connection, visit.caller, until, limit=HISTORY)
    return {
        "at": visit.at,
        "history": history,
        "timeline": _timeline(connection, visit, row_id),
        "web_links": WebLinks(connection, visit.caller).changes(history.rows),
    }


def _timeline(connection: sqlite3.Connection, visit: Visit, row_id: int) -> Timeline:
    since = known_since(connection, visit.caller, row_id)
    wanted = ChangeFilter(repository_id=row_id)
    return timeline(connection, visit.caller, wanted, visit.at, since=since)


def everything_of(
    connection: sqlite3.Connection,
    caller: Caller,
    row: RepositoryRow,
    wanted: Mapping[RefKind, refs.RefsWanted],
    *,
    now: datetime | None,
) -> dict[str, Any]:
    """Read what the page shows of a repository; without `now`, refs have no bars of their ages."""
    history = latest_changes(connection, caller, ChangeFilter(repository_id=row.id), limit=HISTORY)
    web = WebLinks(connection, caller)
    shown = {REF_TABLES[kind]: _refs(connection, row, one, now) for kind, one in wanted.items()}
    return {
        "repository": row,
        "web": web.repositories([row])[row.id],
        "ref_links": web.refs(row, [one.ref for table in shown.values() for one in table["rows"]]),
        "web_links": web.changes(history.rows),
        "upstreams": upstreams_of(connection),
        "website": safe_external(row.website),
        "refs": shown,
        "newest_tag": refs.newest_tag(connection, row.id),
        "family": family_of(connection, caller, row.id),
        "namesakes": namesakes(connection, caller, row),
        "failures": failures_of(connection, row.id),
        "history": history,
        "at": "",
        "past": None,
        "timeline": None,
    }


def _past(connection: sqlite3.Connection, visit: Visit) -> Past:
    """Find the repository of the address as it was at the requested time; raises NotHere."""
    try:
        if "owner" not in visit.names:
            return past_of(connection, visit.caller, visit.number("id", 0, 2**62), visit.at)
        return past_named(connection, visit.caller, visit.named("owner", "slug"), visit.at)
    except NotFound as error:
        raise NotHere(f"{error}."[:400]) from None


def _found(connection: sqlite3.Connection, visit: Visit) -> RepositoryRow:
    """Find the repository of the address; raises NotHere, also if it is hidden from the visitor."""
    if "owner" in visit.names:
        full_name = visit.named("owner", "slug")
        found = repository_named(connection, visit.caller, full_name, gone=True)
    else:
        full_name = "repository with that id"
        found = repository_by_id(connection, visit.caller, visit.number("id", 0, 2**62))
    if found is None:
        owner, _, slug = full_name.partition("/")
        later = LATER if slug and lacks(connection, visit.caller, owner) else ""
        raise NotHere(f"The mirror has no {full_name[:200]}{visit.caller.or_hidden}.{later}", slug)
    return found


class AgedRef(NamedTuple):
    """A ref, its age in days, and the length of its bar, 2 to 100; both are None if the age is not known."""

    ref: RefRow
    days: float | None
    bar: int | None


def _wanted(visit: Visit, row: RepositoryRow, kind: RefKind) -> refs.RefsWanted:
    """Return which branches or tags are requested; each table has its own parameters."""
    given, table = visit.parameters, REF_TABLES[kind]
    order = given.get(f"{table}_by", "")
    return refs.RefsWanted(
        kind=kind,
        first=row.main_branch if kind == "branch" else None,
        part=given.get(table, "").strip()[:200],
        order=order if order in refs.ORDERS else "newest",
        page=visit.number(f"{table}_page", 1, 100_000),
        size=REFS,
    )


def _refs(
    connection: sqlite3.Connection, row: RepositoryRow, wanted: refs.RefsWanted, now: datetime | None
) -> dict[str, Any]:
    """Read the branches or tags that the page shows."""
    found = refs.refs_page(connection, row.id, wanted)
    oldest = _days(found.oldest, now) or 0.0
    aged = [(one, _days(one.made_at, now)) for one in found.rows]
    rows = [AgedRef(one, days, None if days is None else _bar(days, max(oldest, days))) for one, days in aged]
    return {"page": found, "wanted": wanted, "rows": rows}


def _bar(days: float, oldest: float) -> int:
    # Logarithmic, so that weeks are as visible as years.
    return max(2, round(100 * math.log1p(days) / math.log1p(oldest))) if oldest else 2


def _days(moment: str | None, now: datetime | None) -> float | None:
    try:
        return max(0.0, (now - from_text(moment)).total_seconds() / 86400) if moment and now else None
    except (ValueError, OverflowError):
        return None
