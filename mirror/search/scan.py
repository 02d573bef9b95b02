"""Search without an index: every row that may match is read. Exact by construction; all else must equal it.

It serves whatever the index does not hold: rows that are newer than it, and questions it cannot answer.
SQLite alone decides on *plain* names, ASCII with single spaces, which nearly all are. The others, *odd*
ones, have an index, and Python judges them.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from mirror.search.names import EXACT, PREFIX, SUBSTRING, match_class, popularity, searched_names
from mirror.search.query import Conditions

RANKED_COLUMNS = "id, name, slug, followers_count, forks_count, created_at"
RankedRow = tuple[int, str, str, int | None, int | None, str | None]

Hit = tuple[int, int, int, bytes, int]
"""A repository that matches: its class, then its popularity, the id last; hits sort as they are listed."""

FOUND_BY_OWNER = 6
"""What reading a row that an index led to costs, in rows that are read one after another."""

_ODD_ROWS = "repositories INDEXED BY search_odd_names"
_ODD = """(name GLOB '*[^ -~]*' OR instr(name, '  ') OR instr(name, char(0))
    OR slug GLOB '*[^ -~]*' OR instr(slug, '  ') OR instr(slug, char(0)))"""  # a GLOB stops at a NUL
_WILD = {"-": "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}  # a hyphen may stand for a space
_LONGEST_PATTERN = 1_000  # SQLite takes none of 50,000 bytes


def may_contain(*columns: str) -> str:
    """Return an SQL condition that holds wherever one of some names contains ``:part``, and seldom elsewhere.

    Plain ones are decided by it, all odd ones pass.
    """
    each = """instr(replace(lower({0}), ' ', '-'), :part) OR {0} GLOB '*[^ -~]*'
        OR instr({0}, '  ') OR instr({0}, char(0))"""
    return f"({' OR '.join(each.format(column) for column in columns)})"


class Scan:
    """A look at every row that meets some conditions, for a normalised query; from `after` on, if given."""

    def __init__(
        self, connection: sqlite3.Connection, part: str, conditions: Conditions, *, after: int | None = None
    ) -> None:
        self._connection = connection
        self._part = part
        self._conditions = conditions.sql if after is None else f"{conditions.sql} AND id > {after}"
        self._names_owners = conditions.name_owners and after is None
        pattern = "".join(_WILD.get(letter, letter) for letter in part)
        self._values = conditions.values | {
            "part": part,
            "anywhere": f"%{pattern}%",
            "begins": f"{pattern}%",
        }

    @cached_property
    def cost(self) -> int:
        """Say how many rows are read, in such that are read one after another."""
        return min(self.rows, FOUND_BY_OWNER * self._owned) if self._names_owners else self.rows

    def hits(self) -> Iterator[Hit]:
        """Yield those that match, in no order."""
        contains = self._contains()
        if contains:
            yield from self._judged(self._table, contains)
        if self._part:
            yield from self._judged(_ODD_ROWS, f"{_ODD} AND NOT ({contains or 0})")

    def counts(self) -> list[int]:
        """Count those that match, for each class with all better ones, without a look at each in Python."""
        if not self._part:
            table = "repositories" if self._names_owners else self._table  # an index alone counts an owner's
            return [0, 0, self._one("count(*)", f"{table} WHERE {self._conditions}")[0]]
        odd = [hit[0] for hit in self._judged(_ODD_ROWS, _ODD)]
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
        """Say how many rows there are, at most: the highest id."""
        return int(self._one("coalesce(max(id), 0)", "repositories")[0])

    @cached_property
    def _owned(self) -> int:
        where = "repositories WHERE owner_id IN (SELECT value FROM json_each(:owners))"
        return int(self._one("count(*)", where)[0])

    @property
    def _table(self) -> str:
        """Read in order rather than by an index that leads all over the file, unless few have an owner."""
        if self._names_owners and FOUND_BY_OWNER * self._owned < self.rows:
            return "repositories"
        return "repositories NOT INDEXED"

    def _contains(self) -> str:
        """Return an SQL condition that plain names meet where they match; "" where none can."""
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

    def _like(self, column: str, pattern: str, certainly: str) -> str:
        """Ask for a pattern, which takes no time, and then what it leaves open."""
        like = f"{column} LIKE :{pattern} ESCAPE '\\'"
        if len(self._part) > _LONGEST_PATTERN:
            return certainly.format(column)
        return f"({like} AND {certainly.format(column)})" if "-" in self._part else like

    def _judged(self, table: str, condition: str) -> Iterator[Hit]:
        return hits_of(
            self._read(RANKED_COLUMNS, f"{table} WHERE {condition} AND {self._conditions}"), self._part
        )

    def _one(self, what: str, where: str) -> Any:
        return self._read(what, where).fetchone()

    def _read(self, what: str, where: str) -> sqlite3.Cursor:
        cursor = self._connection.cursor()
        cursor.row_factory = None
        return cursor.execute(f"SELECT {what} FROM {where}", self._values)


def hits_of(rows: Iterable[RankedRow], part: str) -> Iterator[Hit]:
    """Judge rows of RANKED_COLUMNS by a normalised query, and yield those that match."""
    for row_id, name, slug, followers, forks, created_at in rows:
        match = match_class(searched_names(name, slug), part)
        if match is not None:
            yield (match, *popularity(followers, forks, created_at, row_id))


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
