"""How much the mirror holds, and what was updated last: counted behind the page, which never waits long."""

import asyncio
import sqlite3
from typing import Any

from mirror.serve.pages.reads import recent
from mirror.serve.pages.reads.rows import Row
from mirror.serve.pages.reads.upstreams import counts, ref_counts
from mirror.serve.pages.visit import Visit


async def numbers(visit: Visit) -> dict[str, Any]:
    """Return the counts for a template, each None for as long as nobody has counted it."""
    found = await asyncio.gather(
        visit.tally("counts", lambda connection: counts(connection, visit.caller)),
        visit.tally("refs", lambda connection: ref_counts(connection, visit.caller)),
    )
    return dict(zip(("counts", "ref_counts"), found, strict=True))


async def updated_last(visit: Visit) -> list[Row] | None:
    """Return the repositories that were updated last; which, is remembered, their rows are read each time."""
    ids = await visit.tally("recent", lambda connection: recent.ids(connection, visit.caller))

    def work(connection: sqlite3.Connection) -> list[Row]:
        return recent.repositories(connection, visit.caller, ids or [])

    return None if ids is None else await visit.read(work)
