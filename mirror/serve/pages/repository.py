"""One repository's page: everything that the mirror knows of it."""

import math
import sqlite3
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from datasette.utils.asgi import Response

from mirror.queries import repositories as reads
from mirror.queries.changes import Wanted, changes
from mirror.queries.rows import Row
from mirror.serve.pages.urls import safe_external
from mirror.serve.pages.view import NotHere, Visit
from mirror.times import from_text

HISTORY, REFS = 15, 25


async def repository(visit: Visit) -> Response:
    """GET /-/r/OWNER/SLUG, or /-/r?id=ROW for names that fit into no address."""
    return await visit.page("mirror_repository.html", await visit.read(lambda c: _everything(c, visit)))


def _everything(connection: sqlite3.Connection, visit: Visit) -> dict[str, Any]:
    found = _found(connection, visit)
    row_id = found["id"]
    latest = changes(connection, visit.caller, Wanted(repository_id=row_id, limit=HISTORY))
    return {
        "repository": found,
        "website": safe_external(found["website"]),
        "refs": {table: _refs(connection, visit, row_id, table) for table in ("branches", "tags")},
        "newest_tag": reads.newest_tag(connection, row_id),
        "family": reads.family(connection, visit.caller, found),
        "namesakes": reads.namesakes(connection, visit.caller, found),
        "failures": reads.failures(connection, row_id),
        "history": latest[:HISTORY],
        "more_history": len(latest) > HISTORY,
    }


def _found(connection: sqlite3.Connection, visit: Visit) -> Row:
    """Find the repository that an address names; raises NotHere, also where it is not for this visitor."""
    if "owner" in visit.names:
        try:
            names = [unquote(visit.names[part], errors="strict") for part in ("owner", "slug")]
        except UnicodeDecodeError:
            raise NotHere("That address is not UTF-8.") from None
        full_name = "/".join(names)
        found = reads.by_name(connection, visit.caller, full_name)
    else:
        full_name = "repository of that number"
        found = reads.by_id(connection, visit.caller, visit.number("id", 0, 2**62))
    if found is None:
        slug = full_name.partition("/")[2]
        raise NotHere(f"The mirror holds no {full_name[:200]}, or you may not see it.", slug)
    return found


def _refs(connection: sqlite3.Connection, visit: Visit, row_id: int, table: str) -> dict[str, Any]:
    """Read the refs that the page shows; the search and the order of a table are its own parameters."""
    said = visit.parameters
    order = said.get(f"{table}_by", "")
    listed = reads.refs(
        connection,
        row_id,
        reads.RefsWanted(
            table=table,
            part=said.get(table, "").strip()[:200],
            order=order if order in reads.ORDERS else "newest",
            page=visit.number(f"{table}_page", 1, 100_000),
            size=REFS,
        ),
    )
    oldest = _days(listed["oldest"], visit.now)
    for row in listed["rows"]:
        days = _days(row["date"], visit.now)
        row["days"] = days
        row["bar"] = None if days is None else _bar(days, max(oldest or 0.0, days))
    return listed


def _days(moment: str | None, now: datetime) -> float | None:
    """Say how many days ago a moment was."""
    try:
        return max(0.0, (now - from_text(moment)).total_seconds() / 86400) if moment else None
    except (ValueError, OverflowError):
        return None


def _bar(days: float, oldest: float) -> int:
    """Draw an age from 2 to 100 beside the oldest; by its logarithm, so that weeks differ as years do."""
    return max(2, round(100 * math.log1p(days) / math.log1p(oldest))) if oldest else 2
