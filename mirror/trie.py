"""The form of the name index, agreed on by the room that writes it and the room that reads it.

The index is a trie of all suffixes of all searched texts, cut off where few repositories are left. A path
that is in many texts is *common*: its node holds how many repositories have it and which are the best. The
first path below that is not common is *rare*: its leaf holds the complete list. docs/search.md draws it.
"""

import sqlite3
import struct
from collections.abc import Iterable

END = b"\xfe"
"""Stands behind each text in a path; like the mark, a byte that UTF-8 never uses."""

LEAF_SIZE = 256
"""A path in more texts than this becomes common when the index is built, at twice as many when it grows."""

BEST = 40
"""How many repositories a node lists at most, the most popular ones: two pages of twenty."""

DEEPEST = 32
"""No path is longer, in bytes; a leaf down there may hold any number."""

SHORTEST_LISTED = 3
"""Paths that are at least this long can be enumerated; shorter ones are in too many texts to be worth it."""

CHUNK_BITS = 18
"""Lists that know no bound are cut by id into chunks of this many bits, so that a change rewrites little."""

PUBLIC, PRIVATE, GONE_PUBLIC, GONE_PRIVATE = COLLECTIONS = range(4)
"""Each repository is in one collection; nodes count and list each apart, so that every sum is exact."""


def collection_of(is_private: object, deleted_at: object) -> int:
    """Return the collection of a row; both values as SQLite gives them."""
    return (PRIVATE if is_private else PUBLIC) + (GONE_PUBLIC if deleted_at is not None else 0)


def width_for(highest_id: int) -> int:
    """Return how many bytes an id needs: 3, with room for a third as many again, or 4."""
    return 3 if highest_id < 12_000_000 else 4


def pack(ids: Iterable[int], width: int) -> bytes:
    """Write ids with so many bytes each, the lowest byte first."""
    return b"".join([row_id.to_bytes(width, "little") for row_id in ids])


def unpack(packed: bytes, width: int) -> list[int]:
    """Read what `pack` wrote."""
    if width == 3:
        triples = zip(packed[::3], packed[1::3], packed[2::3], strict=True)
        return [low | middle << 8 | high << 16 for low, middle, high in triples]
    return list(struct.unpack(f"<{len(packed) // 4}I", packed))


def chunk_of(row_id: int) -> bytes:
    """Return the chunk of an unbounded list that an id belongs into, as it ends a path."""
    return (row_id >> CHUNK_BITS).to_bytes(2, "big")


def below(connection: sqlite3.Connection, path: bytes, width: int) -> set[int]:
    """Read the ids of all repositories whose text has a common path of SHORTEST_LISTED bytes or more.

    Some may be there that had it once; none that has it is missing.
    """
    cursor = connection.cursor()
    cursor.row_factory = None
    ids = set[int]()
    for (packed,) in cursor.execute(_LEAVES_BELOW, (path, path + b"\xff" * 4)):
        ids.update(unpack(packed, width))
    for (packed,) in cursor.execute(_CROWDS_WITH, (path,)):
        ids.update(unpack(packed, width))
    return ids


# A text has at most three marks in a row (an empty name), so four follow whatever a path goes on with.
_LEAVES_BELOW = "SELECT ids FROM search_rare WHERE path >= ? AND path < ?"
_CROWDS_WITH = "SELECT ids FROM search_crowds WHERE instr(text, ?)"
