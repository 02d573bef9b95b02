"""Read rows: those that the index does not contain yet or has as they were, and those whose ids it has found.

Some thousands of rows may be pending while a sync writes, and a query of one letter matches most of them. So
SQL counts and ranks *prepared* rows, whose derived columns `prepare_pending` has filled. Only *unprepared*
rows are read and compared one by one: those that were changed by anyone but the sync.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import msgspec

from mirror.search.index.format import Leaf, Node
from mirror.search.names import (
    BOUNDARY,
    EXACT,
    PREFIX,
    SUBSTRING,
    Popularity,
    all_searched_names,
    match_class,
    popularity,
    searched_names,
)
from mirror.search.query import Conditions, KnownOwners, Query, plain_cursor

RANKED_COLUMNS = "id, name, slug, followers_count, forks_count, created_at"

Hit = tuple[int, int, int, bytes, int]
"""A repository that matches: its match class, then its popularity key, which ends with its id.

Hits sort in the order of the results.
"""


def may_contain(*columns: str) -> str:
    """Return an SQL condition that is true of every row of which a column contains ``:part``.

    Of plain names, ASCII with single spaces, it is exact; it is true of all others.
    """
    each = """instr(replace(lower({0}), ' ', '-'), :part) OR {0} GLOB '*[^ -~]*'
        OR instr({0}, '  ') OR instr({0}, char(0))"""
    return f"({' OR '.join(each.format(column) for column in columns)})"


def new_hits(connection: sqlite3.Connection, part: str, conditions: Conditions, after: int) -> Iterator[Hit]:
    """Yield the hits among the rows with an id above `after`, in no particular order."""
    rows = plain_cursor(connection).execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories NOT INDEXED
            WHERE id > :after AND {may_contain("name", "slug")} AND {conditions.sql}""",
        conditions.values | {"after": after, "part": part},
    )
    for row_id, name, slug, followers, forks, created_at in rows:
        match = match_class(searched_names(name, slug), part)
        if match is not None:
            yield (match, *popularity(followers, forks, created_at, row_id))


Names = tuple[str, str]
"""The normalised name and slug of a repository."""

_MOST_KEPT = 20_000
_MOST_PATHS_KEPT = 500
_MOST_OWNERS_KEPT = 20


class KeptReads(msgspec.Struct):
    """What searches have read: good for one state of a file, and for one thread.

    `names` are by conditions, and None of a row that does not meet them; `paths` are those of the index.
    """

    names: dict[str, dict[int, Names | None]] = {}
    ranks: dict[int, Popularity] = {}
    paths: dict[bytes, Node | Leaf] = {}
    owners: KnownOwners = {}

    def names_of(self, conditions: Conditions) -> dict[int, Names | None]:
        """Return the names that are kept for some conditions; those with values are asked less often."""
        return {} if conditions.values else self.names.setdefault(conditions.sql, {})

    def forget_the_most(self) -> None:
        """Begin anew where too much is kept: of names and ranks 200 bytes each, of the others kilobytes."""
        if sum(map(len, self.names.values())) > _MOST_KEPT:
            self.names.clear()
        if len(self.ranks) > _MOST_KEPT:
            self.ranks.clear()
        if len(self.paths) > _MOST_PATHS_KEPT:
            self.paths.clear()
        if len(self.owners) > _MOST_OWNERS_KEPT:
            self.owners.clear()


class RowReader:
    """The rows that meet some conditions, by id, within one snapshot. A search reads no row twice."""

    def __init__(
        self, connection: sqlite3.Connection, conditions: Conditions, up_to: int, kept: KeptReads
    ) -> None:
        """`up_to` is the highest id that the index knows."""
        self._cursor = plain_cursor(connection)
        self.conditions = conditions
        self._up_to = up_to
        self._names, self._ranks = kept.names_of(conditions), kept.ranks

    def names(self, ids: Iterable[int]) -> dict[int, Names]:
        """Return the normalised name and slug of those of some repositories that meet the conditions."""
        ids = list(ids)
        missing = [row_id for row_id in ids if row_id not in self._names]
        if missing:
            self._names |= dict.fromkeys(missing)
            # Three texts take half the time that hundreds of rows do.
            found = self._cursor.execute(
                f"""SELECT json_group_array(id), json_group_array(name), json_group_array(slug)
                    FROM {_BY_ID} WHERE {self.conditions.sql}""",
                self.conditions.values | {"wanted": _as_json(missing)},
            ).fetchone()
            row_ids, names, slugs = map(msgspec.json.decode, found)
            self._names.update(zip(row_ids, all_searched_names(names, slugs), strict=True))
        return {row_id: names for row_id in ids if (names := self._names[row_id]) is not None}

    def matching(self, ids: Iterable[int], part: str) -> list[Hit]:
        """Return the hits among some repositories: those whose name or slug contains `part`."""
        classes = defaultdict[int, list[int]](list)
        # A list may contain the id of a deleted row, and SQLite may have given it to a new row that the index
        # does not know. New rows are read elsewhere.
        for row_id, names in self.names(row_id for row_id in ids if row_id <= self._up_to).items():
            match = match_class(names, part)
            if match is not None:
                classes[match].append(row_id)
        return [hit for match, some in classes.items() for hit in self.ranked(some, match)]

    def ranked(self, ids: Iterable[int], match: int) -> list[Hit]:
        """Return hits of one match class: read what their order depends on, but no names."""
        ids, ranks = list(ids), self._ranks
        missing = [row_id for row_id in ids if row_id not in ranks]
        if missing:
            found = self._cursor.execute(_RANKED, {"wanted": _as_json(missing)})
            ranks.update((ranked[-1], popularity(*ranked)) for ranked in found)
        return [(match, *ranks[row_id]) for row_id in ids if row_id in ranks]


# Faster than `id IN (...)`, which sorts the ids first. The inner SELECT hides json_each's own `id`.
_BY_ID = """(SELECT value AS wanted FROM json_each(:wanted))
    CROSS JOIN repositories NOT INDEXED ON id = wanted"""
_RANKED = f"SELECT followers_count, forks_count, created_at, id FROM {_BY_ID}"


def _as_json(ids: Iterable[int]) -> str:
    return msgspec.json.encode(list(ids)).decode()


DESCRIBED = 3
"""The match class of what is found by its description: behind all matches of names."""


def described_hits(connection: sqlite3.Connection, part: str, conditions: Conditions) -> Iterator[Hit]:
    """Yield the repositories that match a normalised query only by their description, unordered."""
    words = _expression(part)
    if not words:
        return
    rows = plain_cursor(connection).execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories WHERE {conditions.sql}
            AND id IN (SELECT rowid FROM search_descriptions WHERE search_descriptions MATCH :words)""",
        {**conditions.values, "words": words},
    )
    for row_id, name, slug, followers, forks, created_at in rows:
        if match_class(searched_names(name, slug), part) is None:
            yield (DESCRIBED, *popularity(followers, forks, created_at, row_id))


def _expression(part: str) -> str:
    """Return the query in FTS5's language: each word quoted, as the beginning of a described word."""
    words = part.replace("\x00", "-").split("-")
    return " AND ".join(f'"{word.replace(chr(34), chr(34) * 2)}" *' for word in words if word)


_MAYBE = f"(name IS NULL OR {may_contain('name', 'slug', 'was_name', 'was_slug')})"
_UNPREPARED = f"""SELECT id, was_collection, was_name, was_slug FROM search_pending
    WHERE text IS NULL AND {_MAYBE}"""
_MATCHES = f"(text IS NULL AND {_MAYBE} OR instr(text, :needle) OR instr(was_text, :needle))"
_IDS = f"SELECT id FROM search_pending WHERE {_MATCHES}"
_AMONG = "SELECT id FROM search_pending WHERE id IN (SELECT value FROM json_each(?))"

# `visible` has a bit for each collection, which is quicker than a list. A row that keeps its text and its
# collection, most often for a new follower, would add one to either side, so it is left out.
# SQLite evaluates both sides of an AND of which it wants the value; in a WHERE or an iif, only what decides.
_COUNTED = """SELECT coalesce(sum(text IS NULL), 0),
    coalesce(sum(iif(text IS NULL, 0, iif(instr(text, :needle), :visible >> collection & 1, 0)
        - iif(instr(was_text, :needle), coalesce(:visible >> was_collection & 1, 0), 0))), 0)
    FROM search_pending WHERE text IS NULL OR (was_text <> text OR was_collection IS NOT collection)
        AND (instr(text, :needle) OR instr(was_text, :needle))"""
_CLASS = f"""WHEN NOT instr(text, :prefix) THEN {SUBSTRING}
    WHEN instr(text, :exact) THEN {EXACT} ELSE {PREFIX} END, by_followers, by_forks, by_creation, id"""
_BEST = f"""SELECT CASE {_CLASS} FROM search_pending WHERE instr(text, :needle) AND :visible >> collection & 1
    ORDER BY 1, 2, 3, 4, 5 LIMIT :most"""

_FEW = 500
_SOME = f"""SELECT CASE
        WHEN NOT coalesce(instr(text, :needle) AND :visible >> collection & 1, 0) THEN NULL {_CLASS},
        text IS NULL, iif(instr(was_text, :needle), was_collection, NULL)
    FROM search_pending WHERE {_MATCHES} LIMIT {_FEW + 1}"""


class PendingMatches:
    """The pending rows that match a query now, or matched it as the index still has them.

    Most queries match few of them, which one look at all rows finds; of many, SQL counts and ranks.
    """

    def __init__(self, connection: sqlite3.Connection, query: Query, *, has_any: bool = True) -> None:
        """`has_any` is whether any row is pending: most often none is, and nothing has to be read."""
        self._query = query
        self._cursor = plain_cursor(connection) if has_any else None
        if not has_any:
            return
        needle = query.needle
        self._values: dict[str, Any] = {
            "part": query.part,
            "needle": needle,
            # The empty query has no exact and no prefix matches: no text has four BOUNDARYs in a row.
            "prefix": BOUNDARY + needle if needle else BOUNDARY * 4,
            "exact": BOUNDARY + needle + BOUNDARY if needle else BOUNDARY * 4,
            "visible": sum(1 << collection for collection in query.collections),
        }

    @cached_property
    def ids(self) -> set[int]:
        """The ids of all pending rows. The index is out of date for these: read their rows."""
        if self._some is None:
            return {row_id for (row_id,) in self._rows(_IDS)}
        return {row_id for *_, row_id, _, _ in self._some}

    @cached_property
    def unprepared(self) -> set[int]:
        """The ids of those that are not prepared."""
        return {row_id for row_id, *_ in self._unprepared}

    @cached_property
    def gained(self) -> int:
        """How many more prepared rows match now than the index counts, less the others that it counts."""
        if self._cursor is None:
            return 0
        part, visible = self._query.part, self._query.collections
        lost = [
            row_id
            for row_id, collection, name, slug in self._unprepared
            if collection in visible and match_class(searched_names(name, slug), part) is not None
        ]
        return self._counted[1] - len(lost)

    @cached_property
    def _some(self) -> list[Any] | None:
        """The rows that match now or matched before; None if they are more than _FEW."""
        rows = self._rows(_SOME)
        return rows if len(rows) <= _FEW else None

    @cached_property
    def _counted(self) -> tuple[int, int]:
        """The number of unprepared rows, and `gained` of the prepared ones."""
        if self._some is None:
            counted: list[tuple[int, int]] = self._rows(_COUNTED)
            return counted[0]
        prepared = [(match, was) for match, *_, is_unprepared, was in self._some if not is_unprepared]
        gained = sum([(match is not None) - (was in self._query.collections) for match, was in prepared])
        return len(self._some) - len(prepared), gained

    @cached_property
    def _unprepared(self) -> list[Any]:
        return self._rows(_UNPREPARED) if self._cursor and self._counted[0] else []

    def best(self, most: int) -> list[Hit]:
        """Return the best hits among the prepared rows, `most` at most, in order."""
        if self._some is None:
            return self._rows(_BEST, most=most)
        hits = [(match, *rank) for match, *rank, _, _ in self._some if match is not None]
        return sorted(hits)[:most]

    def among(self, ids: Iterable[int]) -> set[int]:
        """Return which of these repositories are pending, regardless of their name."""
        if self._cursor is None:
            return set()
        return {row_id for (row_id,) in self._cursor.execute(_AMONG, (_as_json(ids),))}

    def _rows(self, sql: str, **more: int) -> list[Any]:
        return self._cursor.execute(sql, self._values | more).fetchall() if self._cursor else []
