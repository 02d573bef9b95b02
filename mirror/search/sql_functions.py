"""The search as SQL functions, so that any query can join on it."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mirror.search.find import search

MAX_IDS = 10_000
"""The highest number of ids that one call returns."""


def register(
    connection: sqlite3.Connection,
    *,
    visible_private: bool = False,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Add two SQL functions to a connection.

    ``mirror_search(query, limit)`` returns a JSON array of ids, the best first; `limit` is 20 if omitted.
    ``mirror_search_count(query)`` returns the number of matches. Example::

        SELECT r.full_name FROM json_each(mirror_search('django', 20)) AS hit
        JOIN repositories AS r ON r.id = hit.value ORDER BY hit.key

    :param visible_private: True if those who run SQL on the connection may read the whole table; by default
        the functions find public repositories only
    :param reading: a context that is entered around each search
    """

    def mirror_search(query: str | None, limit: int = 20) -> str:
        most = min(int(limit), MAX_IDS)
        with reading():
            found = search(connection, query or "", limit=most, visible_private=visible_private, fuzzy=False)
        return json.dumps(found.ids)

    def mirror_search_count(query: str | None) -> int:
        with reading():
            found = search(connection, query or "", limit=0, visible_private=visible_private, fuzzy=False)
        return found.count

    connection.create_function("mirror_search", 1, mirror_search)
    connection.create_function("mirror_search", 2, mirror_search)
    connection.create_function("mirror_search_count", 1, mirror_search_count)
