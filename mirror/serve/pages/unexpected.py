"""The page of what moved that should not: a section for each kind, the latest first."""

import sqlite3

from datasette.utils.asgi import Response

from mirror.queries.changes import ChangeFilter, ChangesPage, latest_changes
from mirror.queries.unexpected import TITLES
from mirror.serve.pages.view import Visit

LATEST = 10


async def unexpected_page(visit: Visit) -> Response:
    """GET /-/unexpected: tags and branches that moved or went, repositories gone, shown or transferred."""

    def work(connection: sqlite3.Connection) -> dict[str, ChangesPage]:
        return {
            name: latest_changes(connection, visit.caller, ChangeFilter(unexpected=(name,)), limit=LATEST)
            for name in TITLES
        }

    return await visit.page("mirror_unexpected.html", {"found": await visit.read(work), "titles": TITLES})
