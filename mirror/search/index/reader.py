"""Read the name index: look up a path, and list the repositories below it."""

import json
import sqlite3
from collections.abc import Iterable

import msgspec

from mirror.search.index.format import unpack_best, unpack_list
from mirror.search.names import BOUNDARY
from mirror.search.query import Conditions, plain_cursor
from mirror.search.scan import RANKED_COLUMNS, Hit, matching_hits

# Each prefix of a common path is common. So the last common path that sorts before a query shares the query's
# longest common prefix: it is the deepest node on the way to the query.
_NEAREST = """SELECT path, collection, repositories, best FROM search_common
    WHERE path = (SELECT path FROM search_common WHERE path <= ? ORDER BY path DESC LIMIT 1)"""

_LEAVES_BELOW = "SELECT ids FROM search_rare WHERE path >= ? AND path < ?"
_CROWDS_WITH = "SELECT ids FROM search_crowds WHERE instr(text, ?)"


class NodeSummary(msgspec.Struct, frozen=True):
    """The data of a node for one collection: the number of repositories, and the packed ids of the best."""

    count: int
    best: bytes


class Node(msgspec.Struct, frozen=True):
    """A common path: exact counts and the best repositories, by collection."""

    summaries: dict[int, NodeSummary]


class Leaf(msgspec.Struct, frozen=True):
    """A rare path. Every repository that has it is among `ids`, which may contain others.

    `path` is that of the leaf: the path that was looked up or a prefix of it.
    """

    ids: list[int]
    path: bytes = b""


class IndexReader:
    """The index of one file, within one snapshot."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = plain_cursor(connection)
        self.up_to: int = self._cursor.execute("SELECT up_to FROM search_state").fetchone()[0]
        """The highest id that the index knows; 0 if it was never built."""

    def find(self, path: bytes) -> Node | Leaf:
        """Look up a path. It takes two seeks at most, however many repositories have the path."""
        rows = self._cursor.execute(_NEAREST, (path,)).fetchall()
        if not rows:
            return Leaf([])
        nearest = rows[0][0]
        if nearest == path:
            return Node({collection: NodeSummary(count, best) for _, collection, count, best in rows})
        leaf = path[: _common_prefix(nearest, path) + 1]
        row = self._cursor.execute("SELECT ids FROM search_rare WHERE path = ?", (leaf,)).fetchone()
        return Leaf(unpack_list(row[0]) if row else [], leaf)

    def lists_below(self, path: bytes) -> list[bytes]:
        """Return packed lists with the ids of all repositories with a common path.

        There may be more: an id stays in a list when its name changes. A single BOUNDARY, at the end of all
        texts, is not listed.
        """
        # A text has at most three BOUNDARYs in a row (an empty name), so four sort after every longer path.
        leaves = self._cursor.execute(_LEAVES_BELOW, (path, path + BOUNDARY * 4)).fetchall()
        return [packed for (packed,) in [*leaves, *self._cursor.execute(_CROWDS_WITH, (path,))]]

    def ids_below(self, path: bytes) -> set[int]:
        """Return the ids in `lists_below`."""
        return {row_id for packed in self.lists_below(path) for row_id in unpack_list(packed)}

    def listed_ids(self, found: Node | Leaf, collections: Iterable[int]) -> list[int]:
        """Return the ids that a leaf lists, or those that a node lists for some collections."""
        if isinstance(found, Leaf):
            return found.ids
        summaries = [found.summaries[key] for key in collections if key in found.summaries]
        return [row_id for summary in summaries for ids in unpack_best(summary.best) for row_id in ids]

    def matching(self, ids: Iterable[int], part: str, conditions: Conditions) -> list[Hit]:
        """Read the rows with these ids and return those that meet the conditions and contain `part`."""
        # A list may contain the id of a deleted row, and SQLite may have given it to a new row that the index
        # does not know. New rows are read elsewhere, hence `up_to`.
        rows = self._cursor.execute(
            f"""SELECT {RANKED_COLUMNS} FROM repositories NOT INDEXED
                WHERE id IN (SELECT value FROM json_each(:wanted)) AND id <= :up_to AND {conditions.sql}""",
            conditions.values | {"wanted": json.dumps(list(ids)), "up_to": self.up_to},
        )
        return list(matching_hits(rows, part))


def _common_prefix(one: bytes, other: bytes) -> int:
    """Return the length of the longest common prefix."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
