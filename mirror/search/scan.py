"""Search without an index: every row that may match is read. Exact by construction; all else must equal it.

It serves whatever the index does not hold: rows that are newer than it, and questions it cannot answer.
"""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from mirror.names import Popularity, match_class, popularity, searched_text
from mirror.search.request import Conditions

RANKED_COLUMNS = "id, name, slug, followers_count, forks_count, created_at"

# Rows whose name and slug are plain ASCII without white space are decided by SQLite alone; of the others,
# which Python must normalise, all pass. GLOB stops at a NUL, so that is asked for apart.
_MAY_CONTAIN = """(instr(lower(name), :part) OR instr(lower(slug), :part)
    OR name GLOB '*[^!-~]*' OR slug GLOB '*[^!-~]*' OR instr(name, char(0)) OR instr(slug, char(0)))"""


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
    clauses, values = [*conditions.clauses], dict(conditions.values)
    if part:
        try:
            values["part"] = part.encode().decode()
        except UnicodeEncodeError:
            return  # a lone surrogate: no stored name has one
        clauses.append(_MAY_CONTAIN)
    cursor = connection.cursor()
    cursor.row_factory = None
    needle = part.encode()
    for row in cursor.execute(
        f"SELECT {RANKED_COLUMNS} FROM repositories WHERE {' AND '.join(clauses) or '1'}", values
    ):
        hit = hit_of(row, needle)
        if hit is not None:
            yield hit


def hit_of(row: tuple[int, str, str, int | None, int | None, str | None], needle: bytes) -> Hit | None:
    """Judge one row of RANKED_COLUMNS by an encoded query; None where it does not match."""
    row_id, name, slug, followers, forks, created_at = row
    match = match_class(searched_text(name, slug), needle)
    return None if match is None else Hit(match, popularity(followers, forks, created_at, row_id))
