"""Search without an index: every row that may match is read. Exact by construction; all else must equal it.

It serves whatever the index does not hold: rows that are newer than it, and questions it cannot answer.
"""

import sqlite3
from collections.abc import Iterable, Iterator

from mirror.names import match_class, popularity, searched_names
from mirror.search.request import Conditions

RANKED_COLUMNS = "id, name, slug, followers_count, forks_count, created_at"
RankedRow = tuple[int, str, str, int | None, int | None, str | None]

Hit = tuple[int, int, int, bytes, int]
"""A repository that matches: its class, then its popularity, the id last; hits sort as they are listed."""


def may_contain(*columns: str) -> str:
    """Return an SQL condition that holds wherever one of some names contains ``:part``, and seldom elsewhere.

    SQLite alone decides on plain ASCII with single spaces; all other names pass, and Python judges them.
    GLOB stops at a NUL, so that is asked for apart.
    """
    each = """instr(replace(lower({0}), ' ', '-'), :part) OR {0} GLOB '*[^ -~]*'
        OR instr({0}, '  ') OR instr({0}, char(0))"""
    return f"({' OR '.join(each.format(column) for column in columns)})"


def scan(connection: sqlite3.Connection, part: str, conditions: Conditions) -> Iterator[Hit]:
    """Yield, in no order, the repositories that meet the conditions and contain `part`, normalised."""
    cursor = connection.cursor()
    cursor.row_factory = None
    # Read in order rather than by a partial index that leads from row to row all over the file.
    table = "repositories" if "owners" in conditions.values else "repositories NOT INDEXED"
    rows = cursor.execute(
        f"""SELECT {RANKED_COLUMNS} FROM {table}
            WHERE {conditions.sql} AND {may_contain("name", "slug") if part else "1"}""",
        conditions.values | {"part": part},
    )
    return hits_of(rows, part)


def hits_of(rows: Iterable[RankedRow], part: str) -> Iterator[Hit]:
    """Judge rows of RANKED_COLUMNS by a normalised query, and yield those that match."""
    for row_id, name, slug, followers, forks, created_at in rows:
        match = match_class(searched_names(name, slug), part)
        if match is not None:
            yield (match, *popularity(followers, forks, created_at, row_id))
