"""Rows in the order of popularity, read one by one: for pages deep among hits too many to read them all."""

import sqlite3
from collections.abc import Iterator

from mirror.search.request import Conditions
from mirror.search.scan import RANKED_COLUMNS, Hit, hits_of

# Three ranges follow each other: whoever has followers, of the others whoever has forks, the rest. Each has
# an index by what it begins with; SQLite sorts only those that agree in that.
_RANGES = (
    ("repositories_followed", "followers_count > 0", "followers_count DESC, coalesce(forks_count, 0) DESC"),
    ("repositories_forked", "coalesce(followers_count, 0) <= 0 AND forks_count > 0", "forks_count DESC"),
    ("repositories_created", "coalesce(followers_count, 0) <= 0 AND coalesce(forks_count, 0) <= 0", ""),
)


def by_popularity(connection: sqlite3.Connection, part: str, conditions: Conditions) -> Iterator[Hit]:
    """Yield the hits for a normalised query, the most popular first whatever their class.

    The conditions must leave out what has gone: it is in none of the indexes.
    """
    for index, which, order in _RANGES:
        cursor = connection.cursor()
        cursor.row_factory = None
        rows = cursor.execute(
            f"""SELECT {RANKED_COLUMNS} FROM repositories INDEXED BY {index}
                WHERE {which} AND {conditions.sql} ORDER BY {order}{", " * bool(order)}created_at DESC, id""",
            conditions.values,
        )
        yield from hits_of(rows, part)
