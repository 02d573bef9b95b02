"""What the index does not know yet, as far as one question is concerned.

While a sync writes, some thousands of repositories may be pending, and a query of one letter is in most of
them. So what the sync has noted of them is counted and ranked by SQL; only rows that somebody else changed
are *loose*, and judged one by one.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from mirror.search.index.format import END
from mirror.search.names import EXACT, MARK, PREFIX, SUBSTRING, match_class, searched_names
from mirror.search.query import Request
from mirror.search.scan import Hit, may_contain

_LOOSE = f"""SELECT id, was_collection, was_name, was_slug FROM search_pending
    WHERE text IS NULL AND (name IS NULL OR {may_contain("name", "slug", "was_name", "was_slug")})"""
_NOTED = "text IS NOT NULL AND (instr(text, :needle) OR instr(was_text, :needle))"
_MATCHING = """SELECT count(*) FROM search_pending
    WHERE instr(text, :path) AND collection IN (SELECT value FROM json_each(:collections))"""
_AMONG = "SELECT id FROM search_pending WHERE id IN (SELECT value FROM json_each(?))"


def _class_of(text: str) -> str:
    """Return an SQL expression for how a text matches, NULL where it does not; as `match_class` says it."""
    return f"""CASE WHEN NOT instr({text}, :needle) THEN NULL WHEN NOT instr({text}, :prefix) THEN {SUBSTRING}
        WHEN instr({text}, :exact) THEN {EXACT} ELSE {PREFIX} END"""


_MOVED = f"""SELECT was_collection, {_class_of("was_text")}, collection, {_class_of("text")}
    FROM search_pending WHERE (was_text <> text OR was_collection IS NOT collection) AND {_NOTED}"""
_BEST = f"""SELECT {_class_of("text")}, by_followers, by_forks, by_creation, id FROM search_pending
    WHERE instr(text, :needle) AND collection IN (SELECT value FROM json_each(:collections))
    ORDER BY 1, 2, 3, 4, 5 LIMIT :most"""


class Unsettled:
    """The pending rows whose name contains what is asked for, or did when the index learnt of them."""

    def __init__(self, connection: sqlite3.Connection, request: Request) -> None:
        self._cursor = connection.cursor()
        self._cursor.row_factory = None
        needle = request.needle
        self._values = {
            "part": request.part,
            "needle": needle,
            "prefix": MARK + needle if needle else END,  # which is in no text
            "exact": MARK + needle + MARK if needle else END,
            "collections": json.dumps(request.collections),
        }
        self._collections = request.collections
        self.loose = set[int]()
        self._lost = Counter[tuple[int | None, int | None]]()
        self._gained = Counter[tuple[int | None, int | None]]()
        for row_id, collection, name, slug in self._cursor.execute(_LOOSE, self._values):
            self.loose.add(row_id)
            if collection is not None:
                self._lost[collection, match_class(searched_names(name, slug), request.part)] += 1

    @cached_property
    def ids(self) -> set[int]:
        """Return all of them: who must be judged by their rows, and by nothing that the index says."""
        rows = self._cursor.execute(f"SELECT id FROM search_pending WHERE {_NOTED}", self._values)
        return self.loose.union(row_id for (row_id,) in rows)

    def count(self) -> None:
        """Count who moved, of those that were noted, once for all that `lost` and `gained` will be asked.

        Whoever keeps text and collection, most often for a new follower, is lost and gained at once.
        """
        for (*was, collection, match), number in Counter(self._cursor.execute(_MOVED, self._values)).items():
            self._lost[was[0], was[1]] += number
            self._gained[collection, match] += number

    def lost(self, collection: int, worst: int) -> int:
        """Return how many of them a collection of the index still counts as matches of a class or better."""
        return sum([self._lost[collection, match] for match in range(worst + 1)])

    def matching(self, worst: int) -> int:
        """Return how many that were noted match, of a class or better, and may be shown."""
        path = self._values[("exact", "prefix", "needle")[worst]]
        return int(self._cursor.execute(_MATCHING, self._values | {"path": path}).fetchone()[0])

    def gained(self, worst: int) -> int:
        """Return how many that were noted match now, of a class or better, and may be shown."""
        return sum([self._gained[key, match] for key in self._collections for match in range(worst + 1)])

    def best(self, most: int) -> list[Hit]:
        """Return the first of those that were noted, in order."""
        return self._cursor.execute(_BEST, self._values | {"most": most}).fetchall()

    def among(self, ids: Iterable[int]) -> set[int]:
        """Return which of some repositories are pending, whatever they are called."""
        return {row_id for (row_id,) in self._cursor.execute(_AMONG, (json.dumps(list(ids)),))}
