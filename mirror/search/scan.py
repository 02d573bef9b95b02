"""Search without an index: every row that may match is read. Exact by construction; all else must equal it.

It serves whatever the index does not hold: rows that are newer than it, and questions it cannot answer.
"""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from mirror.names import Popularity, match_class, popularity, searched_text
from mirror.search.request import Conditions

RANKED_COLUMNS = "id, name, slug, followers_count, forks_count, created_at"


def may_contain(*columns: str) -> str:
    """Return an SQL condition that holds wherever one of some names contains ``:part``, and seldom elsewhere.

    SQLite alone decides on plain ASCII with single spaces; all other names pass, and Python judges them.
    GLOB stops at a NUL, so that is asked for apart.
    """
    each = """instr(replace(lower({0}), ' ', '-'), :part) OR {0} GLOB '*[^ -~]*'
        OR instr({0}, '  ') OR instr({0}, char(0))"""
    return f"({' OR '.join(each.format(column) for column in columns)})"


class Hit(NamedTuple):
    """A repository that matches; hits sort as they are listed."""

    match: int
    popularity: Popularity

    @property
    def id(self) -> int:
        """The row in `repositories`."""
        return self.popularity[-1]


def scan(connection: sqlite3.Connection, part: str, conditions: Conditions) -> Iterator[Hit]:
    """Yield, in no order, the repositories that meet the conditions and contain the normalised `part`."""
    cursor = connection.cursor()
    cursor.row_factory = None
    needle = part.encode()
    found = cursor.execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories
            WHERE {conditions.sql} AND {may_contain("name", "slug") if part else "1"}""",
        conditions.values | {"part": part},
    )
    return (hit for row in found if (hit := hit_of(row, needle)) is not None)


def hit_of(row: tuple[int, str, str, int | None, int | None, str | None], needle: bytes) -> Hit | None:
    """Judge one row of RANKED_COLUMNS by an encoded query; None where it does not match."""
    row_id, name, slug, followers, forks, created_at = row
    match = match_class(searched_text(name, slug), needle)
    return None if match is None else Hit(match, popularity(followers, forks, created_at, row_id))
