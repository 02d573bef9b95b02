"""Reading the index: what a query's path holds, and who is below it."""

import json
import sqlite3
from collections.abc import Iterable

import msgspec

from mirror.search.index import format as trie
from mirror.search.query import Conditions
from mirror.search.scan import RANKED_COLUMNS, Hit, hits_of

# Common paths are closed under prefixes: whatever sorts last before a query, its longest common prefix with
# the query is the deepest common node on the query's way.
_NEAREST = """SELECT path, collection, repositories, best FROM search_common
    WHERE path = (SELECT path FROM search_common WHERE path <= ? ORDER BY path DESC LIMIT 1)"""


class Tally(msgspec.Struct, frozen=True):
    """What a node knows of one collection: its repositories' number, and the ids of the best, in order."""

    count: int
    best: bytes


class Common(msgspec.Struct, frozen=True):
    """A path in many texts: exact counts and the best, by collection."""

    tallies: dict[int, Tally]


class Rare(msgspec.Struct, frozen=True):
    """A path in few texts: whoever has it is among these ids, which may be more; its leaf has a path, too."""

    ids: list[int]
    path: bytes = b""


class Trie:
    """The index of one file, as one question finds it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._cursor.row_factory = None
        self.up_to: int = self._cursor.execute("SELECT up_to FROM search_state").fetchone()[0]

    def find(self, path: bytes) -> Common | Rare:
        """Look a path up: two seeks at most, however many repositories have it."""
        rows = self._cursor.execute(_NEAREST, (path,)).fetchall()
        if not rows:
            return Rare([])
        nearest = rows[0][0]
        if nearest == path:
            return Common({collection: Tally(count, best) for _, collection, count, best in rows})
        leaf = path[: _common_prefix(nearest, path) + 1]
        row = self._cursor.execute("SELECT ids FROM search_rare WHERE path = ?", (leaf,)).fetchone()
        return Rare(trie.unpack_list(row[0]) if row else [], leaf)

    def below(self, path: bytes) -> set[int]:
        """Enumerate who has a common path, and perhaps some who had it; it takes SHORTEST_LISTED bytes."""
        return trie.below(self._connection, path)

    def listed(self, found: Common | Rare, collections: Iterable[int]) -> list[int]:
        """Return all whom a leaf lists, or a node: everybody in any order, or the best, who joined last."""
        if isinstance(found, Rare):
            return found.ids
        tallies = [found.tallies[key] for key in collections if key in found.tallies]
        return [row_id for tally in tallies for ids in trie.unpack_best(tally.best) for row_id in ids]

    def judge(self, ids: Iterable[int], part: str, conditions: Conditions) -> list[Hit]:
        """Read rows and return the hits among them: those that meet the conditions and contain `part`.

        A list may still name a row that was deleted, whose id a row has now that the index does not know.
        """
        rows = self._cursor.execute(
            f"""SELECT {RANKED_COLUMNS} FROM repositories NOT INDEXED
                WHERE id IN (SELECT value FROM json_each(:wanted)) AND id <= :up_to AND {conditions.sql}""",
            conditions.values | {"wanted": json.dumps(list(ids)), "up_to": self.up_to},
        )
        return list(hits_of(rows, part))


def _common_prefix(one: bytes, other: bytes) -> int:
    """Return for how many bytes two paths agree."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
