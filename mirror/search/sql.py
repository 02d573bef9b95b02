"""The search as SQL functions, so that any query can join on it."""

import json
import sqlite3

from mirror.search.find import search


def register(connection: sqlite3.Connection, *, visible_private: bool = False) -> None:
    """Give a connection two SQL functions.

    ``mirror_search(query, limit)`` returns a JSON array of ids, the best first;
    ``mirror_search_count(query)`` the number of matches. To use them::

        SELECT r.full_name FROM json_each(mirror_search('django', 20)) AS hit
        JOIN repositories AS r ON r.id = hit.value ORDER BY hit.key

    Without `visible_private` they know of public repositories alone; pass True where whoever may run SQL
    may read the whole table.
    """

    def mirror_search(query: str | None, limit: int = 20) -> str:
        found = search(
            connection, query or "", limit=int(limit), visible_private=visible_private, fuzzy=False
        )
        return json.dumps([row["id"] for row in found.repositories])

    def mirror_search_count(query: str | None) -> int:
        return search(connection, query or "", limit=0, visible_private=visible_private, fuzzy=False).count

    connection.create_function("mirror_search", 1, mirror_search)
    connection.create_function("mirror_search", 2, mirror_search)
    connection.create_function("mirror_search_count", 1, mirror_search_count)
