"""Search without the index: read every row that may match.

It answers what the index cannot: rows that the index does not contain yet, and filters it does not know.
SQLite alone decides on *plain* names: ASCII with single spaces, as nearly all are. Other names are *odd*:
Python compares them, and the SQL index `search_odd_names` finds them.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from mirror.search.names import EXACT, PREFIX, SUBSTRING, match_class, popularity, searched_names
from mirror.search.query import Conditions, plain_cursor

RANKED_COLUMNS = "id, name, slug, followers_count, forks_count, created_at"
RankedRow = tuple[int, str, str, int | None, int | None, str | None]

Hit = tuple[int, int, int, bytes, int]
"""A repository that matches: its match class, then its popularity key, which ends with its id.

Hits sort in the order of the results.
"""

INDEXED_ROW_COST = 6
"""The cost of reading a row found by an SQL index. The unit of all costs: reading one row of a table scan."""

_ODD_ROWS = "repositories INDEXED BY search_odd_names"
# A GLOB stops at a NUL, so NULs need a test of their own.
_ODD = """(name GLOB '*[^ -~]*' OR instr(name, '  ') OR instr(name, char(0))
    OR slug GLOB '*[^ -~]*' OR instr(slug, '  ') OR instr(slug, char(0)))"""
_WILD = {"-": "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}  # a hyphen of the query may be a space in the name
_LONGEST_PATTERN = 1_000  # SQLite refuses patterns of 50,000 bytes


def may_contain(*columns: str) -> str:
    """Return an SQL condition that is true of every row of which a column contains ``:part``.

    Of plain names it is exact; it is true of all odd ones.
    """
    each = """instr(replace(lower({0}), ' ', '-'), :part) OR {0} GLOB '*[^ -~]*'
        OR instr({0}, '  ') OR instr({0}, char(0))"""
    return f"({' OR '.join(each.format(column) for column in columns)})"


class Scan:
    """A search of all rows that meet some conditions; with `after`, only of rows with a higher id."""

    def __init__(
        self, connection: sqlite3.Connection, part: str, conditions: Conditions, *, after: int | None = None
    ) -> None:
        self._connection = connection
        self._part = part
        self._conditions = conditions.sql if after is None else f"{conditions.sql} AND id > {after}"
        self._filters_owners = conditions.filter_owners and after is None
        pattern = "".join(_WILD.get(letter, letter) for letter in part)
        self._values = conditions.values | {
            "part": part,
            "anywhere": f"%{pattern}%",
            "begins": f"{pattern}%",
        }

    @cached_property
    def cost(self) -> int:
        """The cost of the scan, in rows of a table scan."""
        return min(self.rows, INDEXED_ROW_COST * self._owned) if self._filters_owners else self.rows

    def hits(self) -> Iterator[Hit]:
        """Yield the matches, in no particular order."""
        contains = self._contains()
        if contains:
            yield from self._compared(self._table, contains)
        if self._part:
            yield from self._compared(_ODD_ROWS, f"{_ODD} AND NOT ({contains or 0})")

    def counts(self) -> list[int]:
        """Return three numbers: of EXACT matches, of those and PREFIX ones, and of all.

        SQL counts plain names; only odd ones are compared in Python.
        """
        if not self._part:
            # Without NOT INDEXED, SQLite counts an owner's repositories in an index.
            table = "repositories" if self._filters_owners else self._table
            return [0, 0, self._one("count(*)", f"{table} WHERE {self._conditions}")[0]]
        odd = [hit[0] for hit in self._compared(_ODD_ROWS, _ODD)]
        plain = [0, 0, 0]
        if contains := self._contains():
            what = f"sum({self._names(self._is_exact)}), sum({self._names(self._begins)}), count(*)"
            where = f"WHERE {contains} AND {self._conditions}"
            everywhere = self._one(what, f"{self._table} {where}")
            among_odd = self._one(what, f"{_ODD_ROWS} {where} AND {_ODD}")
            plain = [(one or 0) - (other or 0) for one, other in zip(everywhere, among_odd, strict=True)]
        return [plain[worst] + sum(match <= worst for match in odd) for worst in (EXACT, PREFIX, SUBSTRING)]

    @cached_property
    def rows(self) -> int:
        """The highest id, which no number of rows exceeds."""
        return int(self._one("coalesce(max(id), 0)", "repositories")[0])

    @cached_property
    def _owned(self) -> int:
        where = "repositories WHERE owner_id IN (SELECT value FROM json_each(:owners))"
        return int(self._one("count(*)", where)[0])

    @property
    def _table(self) -> str:
        # A scan in file order beats an index that leads all over the file, unless few rows have the owner.
        if self._filters_owners and INDEXED_ROW_COST * self._owned < self.rows:
            return "repositories"
        return "repositories NOT INDEXED"

    def _contains(self) -> str:
        """Return an SQL condition that is true of a plain name that matches; "" if no plain name can."""
        if not self._part:
            return "1"
        is_plain = self._part.isascii() and self._part.isprintable()
        return self._names(self._is_within) if is_plain else ""

    def _names(self, condition: Callable[[str], str]) -> str:
        return f"({condition('name')} OR {condition('slug')})"

    def _is_within(self, column: str) -> str:
        return self._like(column, "anywhere", "instr(replace(lower({0}), ' ', '-'), :part)")

    def _begins(self, column: str) -> str:
        return self._like(column, "begins", "instr(replace(lower({0}), ' ', '-'), :part) = 1")

    def _is_exact(self, column: str) -> str:
        return f"({self._begins(column)} AND length({column}) = length(:part))"

    def _like(self, column: str, pattern: str, exact: str) -> str:
        """Return a LIKE, which is fast, and the exact condition where LIKE is not exact: for hyphens."""
        like = f"{column} LIKE :{pattern} ESCAPE '\\'"
        if len(self._part) > _LONGEST_PATTERN:
            return exact.format(column)
        return f"({like} AND {exact.format(column)})" if "-" in self._part else like

    def _compared(self, table: str, condition: str) -> Iterator[Hit]:
        rows = self._read(RANKED_COLUMNS, f"{table} WHERE {condition} AND {self._conditions}")
        return matching_hits(rows, self._part)

    def _one(self, what: str, where: str) -> Any:
        return self._read(what, where).fetchone()

    def _read(self, what: str, where: str) -> sqlite3.Cursor:
        return plain_cursor(self._connection).execute(f"SELECT {what} FROM {where}", self._values)


def matching_hits(rows: Iterable[RankedRow], part: str) -> Iterator[Hit]:
    """Yield the hits among rows of RANKED_COLUMNS, for a normalised query."""
    for row_id, name, slug, followers, forks, created_at in rows:
        match = match_class(searched_names(name, slug), part)
        if match is not None:
            yield (match, *popularity(followers, forks, created_at, row_id))


# Three ranges in order of popularity: rows with followers, other rows with forks, the rest. Each has an SQL
# index by its first sort column; SQLite only sorts rows that are equal in that column.
_RANGES = (
    ("repositories_followed", "followers_count > 0", "followers_count DESC, coalesce(forks_count, 0) DESC"),
    ("repositories_forked", "coalesce(followers_count, 0) <= 0 AND forks_count > 0", "forks_count DESC"),
    ("repositories_created", "coalesce(followers_count, 0) <= 0 AND coalesce(forks_count, 0) <= 0", ""),
)


def hits_by_popularity(connection: sqlite3.Connection, part: str, conditions: Conditions) -> Iterator[Hit]:
    """Yield the hits for a normalised query, the most popular first, regardless of their match class.

    The conditions must exclude repositories that are gone upstream: the SQL indexes do not contain them.
    """
    for index, which, order in _RANGES:
        rows = plain_cursor(connection).execute(
            f"""SELECT {RANKED_COLUMNS} FROM repositories INDEXED BY {index}
                WHERE {which} AND {conditions.sql} ORDER BY {order}{", " * bool(order)}created_at DESC, id""",
            conditions.values,
        )
        yield from matching_hits(rows, part)
