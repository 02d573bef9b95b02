"""The format of the name index: sizes, collections, packed lists of ids; and how a path is looked up.

The index is a trie of all suffixes of all searched texts. A path that many texts contain is *common*: its
*node*, in `search_common`, holds the number of its repositories and the best of them. The first path below a
node that is not common is *rare*: its *leaf*, in `search_rare`, holds the complete list.
"""

import re
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import sub
from typing import Any

import msgspec

from mirror.errors import INDEX_LOST, StoreError
from mirror.search.names import BOUNDARY
from mirror.search.query import SWITCHES, plain_cursor

END = b"\xfe"
"""Stands at the end of each searched text in a path. Like BOUNDARY, a byte that UTF-8 never uses."""

LEAF_SIZE = 192
"""A path in more texts than this is common when the index is built; an update splits a leaf at twice this."""

DEEPEST = 32
"""The longest path, in bytes. A leaf at this depth may hold any number of ids."""

SHORTEST_LISTED = 2
"""The shortest end of a text, in bytes, that is listed: its last letter and BOUNDARY."""

CHUNK_BITS = 18
"""Lists without a size limit are split into chunks of 2**18 ids, so that a change rewrites little."""


LONG_LIST_FROM = 2000
"""Nodes that count this many repositories keep the longer list."""


def list_limit(count: int) -> int:
    """Return how many repositories a node lists at most: a page and a few, or three pages if it counts many.

    With few matches, a deeper page is answered as fast by reading all of them.
    """
    return 24 if count < LONG_LIST_FROM else 60


COLLECTION = 3
FORK, ARCHIVED, GIT, HG, KNOWN, UNSURE = (1 << bit for bit in range(2, 8))
"""Bits of `flags`: two for the collection, one for each of the others.

KNOWN: the index has the row. UNSURE: read the row, because lists have it by an earlier name, or because it
has what no array can hold: another scm, a time in another form, a number out of bounds.
"""

MOST_LANGUAGES = (1 << 16) - 1
MOST_COUNTED = (1 << 32) - 1
"""The highest code of a language, and the highest number of followers or forks, that a column holds."""

VALUES = (
    "language",
    f"""(is_private <> 0) + 2 * (deleted_at IS NOT NULL)
        + {FORK} * {SWITCHES["forks"]} + {ARCHIVED} * {SWITCHES["archived"]} + {KNOWN}
        + CASE scm COLLATE NOCASE
            WHEN 'git' THEN {GIT} WHEN 'hg' THEN {HG} ELSE {UNSURE} * (scm IS NOT NULL) END""",
    "owner_id",
    "coalesce(followers_count, 0)",
    "coalesce(forks_count, 0)",
    "created_at",
)
"""What SQL reads of a row of `repositories`: its language, then what `encoded` takes besides its code."""

TIME_SIZES = (13, 32, 24, 60, 61, 1_000_000)
"""How many values a month, day, hour, minute, second and the rest of a time can have."""

_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z", re.ASCII)


def time_number(time: str | None) -> int | None:
    """Return a number that sorts like a time in the form that `mirror.times` writes.

    It is -1 for an unknown time, None for one in another form.
    """
    if time is None:
        return -1
    match = _TIME.fullmatch(time)
    number, *parts = map(int, match.groups()) if match else (0, 99)
    for part, size in zip(parts, TIME_SIZES, strict=False):
        if part >= size:
            return None
        number = number * size + part
    return number


_HIGH_BYTES = bytes(range(128, 256))

UNRANKED = 1 << 31
"""The bit that marks an unranked id in a node's list. No id of a repository is that high."""


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Pack numbers with seven bits a byte, the lowest first; bit 7 is set in every byte but a number's last.

    Example: 5 is ``05``, 300 is ``ac 02``.
    """
    packed = bytearray()
    for number in numbers:
        rest = number
        while rest > 127:
            packed.append(rest & 127 | 128)
            rest >>= 7
        packed.append(rest)
    return bytes(packed)


def pack_best(ids: Sequence[int]) -> bytes:
    """Pack the ids that a node lists, in order: four bytes each, because every search reads them."""
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_best(packed: bytes) -> tuple[list[int], list[int]]:
    """Return the ranked ids of a node's list, in order, and the unranked ones."""
    ids = struct.unpack(f"<{len(packed) // 4}I", packed[: len(packed) & ~3])
    if not ids or max(ids) < UNRANKED:
        return list(ids), []
    ranked = [row_id for row_id in ids if row_id < UNRANKED]
    return ranked, [row_id ^ UNRANKED for row_id in ids if row_id >= UNRANKED]


def pack_list(ids: Iterable[int]) -> bytes:
    """Pack distinct positive ids as the differences between them in ascending order."""
    ordered = sorted(ids)
    return pack_numbers(map(sub, ordered, [0, *ordered]))


def pack_appended(ids: Iterable[int]) -> bytes:
    """Pack ids to be appended to a packed list: for each a 0, which no difference is, and four bytes."""
    return b"".join([b"\0" + row_id.to_bytes(4, "little") for row_id in ids])


def unpack_list(packed: bytes) -> list[int]:
    """Return the ids of `pack_list`, then those of `pack_appended`, which may repeat earlier ones."""
    built, zero, rest = packed.partition(b"\0")  # a 0 begins what was appended
    ids = list(accumulate(built) if built.isascii() else _unpacked(built))
    if zero:  # most often nothing was
        ids += [int.from_bytes(rest[at : at + 4], "little") for at in range(0, len(rest), 5)]
    return ids


def _unpacked(built: bytes) -> Iterator[int]:
    """Yield the ids of a list with differences of several bytes, which few lists of a small mirror have."""
    row_id = number = shift = 0
    for byte in built:
        if byte > 127:
            number |= (byte & 127) << shift
            shift += 7
        else:
            row_id += number | byte << shift
            yield row_id
            number = shift = 0


def max_ids(packed: bytes) -> int:
    """Return an upper bound of the number of ids in a packed list, without unpacking it.

    Each id has at least one byte below 128.
    """
    return len(packed.translate(None, _HIGH_BYTES))


def chunk_of(row_id: int) -> bytes:
    """Return the two bytes of the chunk that an id belongs to."""
    return (row_id >> CHUNK_BITS).to_bytes(2, "big")


# Each prefix of a common path is common. So the last common path that sorts before a query shares the query's
# longest common prefix: it is the deepest node on the way to the query.
_NEAREST = """SELECT path, collection, repositories, best FROM search_common
    WHERE path = (SELECT path FROM search_common WHERE path <= ? ORDER BY path DESC LIMIT 1)"""


def _has(*tables: str) -> str:
    """Return SQL for whether any of some tables has a row."""
    return f"({' OR '.join(f'EXISTS (SELECT 1 FROM search_{table})' for table in tables)})"


NAMES_STATE = f"""search_state WHERE up_to = 0 OR {_has("common")} = {_has("rare", "crowds")}
    AND {_has("common")} <= {_has("columns")} AND {_has("columns", "pending")}
    AND {_has("segments")} <= {_has("pending")}
    AND EXISTS (SELECT 1 FROM search_pending WHERE turn IS NOT NULL) <= {_has("segments")}"""
"""The one row that tells the state of the index of names, if none of its tables was emptied."""

REFS_STATE = f"""search_ref_state WHERE up_to = 0 OR {_has("ref_common")} = {_has("ref_paths")}
    AND {_has("ref_names")} = {_has("ref_lists")} AND {_has("ref_names")} <= {_has("ref_common")}
    AND {_has("ref_names")} <= {_has("ref_rare", "ref_spans")}
    AND {_has("ref_blocks", "ref_counts")} <= {_has("ref_spans")}
    AND ({_has("ref_spans")} AND {_has("ref_lists")}) <= {_has("ref_blocks")}"""
"""The same of the index of refs."""

_STATE = f"""SELECT up_to, EXISTS (SELECT 1 FROM search_pending),
    up_to < coalesce((SELECT max(id) FROM repositories), 0) FROM {NAMES_STATE}"""
_LEAVES_BELOW = "SELECT ids FROM search_rare WHERE path >= ? AND path < ?"
_CROWDS_WITH = "SELECT ids FROM search_crowds WHERE instr(text, ?)"


class NodeSummary(msgspec.Struct, frozen=True):
    """The data of a node for one collection: the number of repositories, and the packed ids of the best."""

    count: int
    best: bytes


class Node(msgspec.Struct, frozen=True):
    """A common path: exact counts and the best repositories, by collection."""

    summaries: dict[int, NodeSummary]

    def shown(self, collections: Iterable[int]) -> list[NodeSummary]:
        """Return what it has of some collections."""
        return [self.summaries[key] for key in collections if key in self.summaries]

    def count(self, collections: Iterable[int]) -> int:
        """Return the number of repositories in some collections."""
        return sum([summary.count for summary in self.shown(collections)])


class Leaf(msgspec.Struct, frozen=True):
    """A rare path. Every repository that has it is among `ids`, which may contain others.

    `path` is that of the leaf: the path that was looked up or a prefix of it.
    """

    ids: list[int]
    path: bytes = b""


def state_of_index(connection: sqlite3.Connection, sql: str) -> Any:
    """Return what a statement reads of the one row that tells the state of an index.

    Searches select FROM NAMES_STATE or REFS_STATE, because they would find less without a table. Raises
    StoreError if there is no such row, which only damage does.
    """
    row = connection.execute(sql).fetchone()
    if row is None:
        raise StoreError(INDEX_LOST)
    return row


def has_lost_state(connection: sqlite3.Connection) -> bool:
    """Return whether one of the two indexes has lost the row that tells its state, or all of a table."""
    states = (NAMES_STATE, REFS_STATE)
    return any(not connection.execute(f"SELECT 1 FROM {state}").fetchone() for state in states)


class IndexReader:
    """The index of one file, within one snapshot."""

    def __init__(self, connection: sqlite3.Connection, found: dict[bytes, Node | Leaf] | None = None) -> None:
        """`found` has what was looked up before in the same state of the file, and keeps what is now."""
        self._cursor = plain_cursor(connection)
        self._found = {} if found is None else found
        self.up_to: int
        """The highest id that the index knows; 0 if it was never built."""
        self.has_pending: bool
        """Whether rows changed since the index was updated."""
        self.has_new: bool
        """Whether there are rows above `up_to`."""
        self.up_to, self.has_pending, self.has_new = state_of_index(connection, _STATE)

    def find(self, path: bytes) -> Node | Leaf:
        """Look up a path. It takes two seeks at most, however many repositories have the path."""
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = self._look_up(path)
        return found

    def _look_up(self, path: bytes) -> Node | Leaf:
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
        summaries = found.shown(collections)
        return [row_id for summary in summaries for ids in unpack_best(summary.best) for row_id in ids]


def children_of(path: bytes, text: bytes) -> set[bytes]:
    """Return the paths one byte below `path` that a text has, its end included."""
    children = set[bytes]()
    ended = text + END
    at = text.find(path)
    while at >= 0:
        children.add(ended[at : at + len(path) + 1])
        at = text.find(path, at + 1)
    return children


def _common_prefix(one: bytes, other: bytes) -> int:
    """Return the length of the longest common prefix."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
