"""Read rows: those that are newer than the index, and those whose ids it has found."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from mirror.search.index.format import Leaf, Node
from mirror.search.names import (
    Popularity,
    all_searched_names,
    match_class,
    popularity,
    searched_names,
)
from mirror.search.query import Conditions, KnownOwners, plain_cursor

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


def described_hits(
    connection: sqlite3.Connection, part: str, written: str, conditions: Conditions
) -> Iterator[Hit]:
    """Yield the repositories that match a query only by their description, unordered.

    `part` is its normal form. The index has other letters than ASCII as they are written: an `ß` is not `ss`.
    """
    words = " OR ".join(filter(None, map(_all_words, (part,) if written.isascii() else (written, part))))
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


def _all_words(text: str) -> str:
    """Return a text in FTS5's language: each word quoted, as the beginning of a described word."""
    # Without AND between them, FTS5 leaves out words that have only signs.
    words = text.replace("\x00", "-").replace("-", " ").split()
    return " ".join(f'"{word.replace(chr(34), chr(34) * 2)}" *' for word in words)
