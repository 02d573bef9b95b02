"""The search as SQL functions, so that any query can join on it."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mirror.search.find import search

MOST_IDS = 10_000
"""How many ids one call returns, at most."""


def register(
    connection: sqlite3.Connection,
    *,
    visible_private: bool = False,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Give a connection two SQL functions.

    ``mirror_search(query, limit)`` returns a JSON array of ids, the best first;
    ``mirror_search_count(query)`` the number of matches. To use them::

        SELECT r.full_name FROM json_each(mirror_search('django', 20)) AS hit
        JOIN repositories AS r ON r.id = hit.value ORDER BY hit.key

    Without `visible_private` they find public repositories alone; pass True where a caller who may run SQL
    may read the whole table. `reading` is entered around each search.
    """

    def mirror_search(query: str | None, limit: int = 20) -> str:
        most = min(int(limit), MOST_IDS)
        with reading():
            found = search(connection, query or "", limit=most, visible_private=visible_private, fuzzy=False)
        return json.dumps([row["id"] for row in found.repositories])

    def mirror_search_count(query: str | None) -> int:
        with reading():
            return search(
                connection, query or "", limit=0, visible_private=visible_private, fuzzy=False
            ).count

    connection.create_function("mirror_search", 1, mirror_search)
    connection.create_function("mirror_search", 2, mirror_search)
    connection.create_function("mirror_search_count", 1, mirror_search_count)
