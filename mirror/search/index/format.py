"""The form of the name index, agreed on by the room that writes it and the room that reads it.

The index is a trie of all suffixes of all searched texts, cut off where few repositories are left. A path
that is in many texts is *common*: its node holds how many repositories have it and which are the best. The
first path below that is not common is *rare*: its leaf holds the complete list. docs/search.md draws it.
"""

import sqlite3
import struct
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import sub

END = b"\xfe"
"""Stands behind each text in a path; like the mark, a byte that UTF-8 never uses."""

LEAF_SIZE = 192
"""A path in more texts than this becomes common when the index is built, at twice as many when it grows."""

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


LONG = 2000
"""A node that counts so many lists more of them."""


def listed(count: int) -> int:
    """Return how many repositories a node lists at most: all, a page with some to spare, or three pages.

    Where few match, reading all of them takes no longer than a page or two.
    """
    return 24 if count < LONG else 60


_HIGH = bytes(range(128, 256))

JOINED = 1 << 31
"""A bit of an id in a list of the best; no file has so many repositories that an id needs it."""


def pack(numbers: Iterable[int]) -> bytes:
    """Write numbers with seven bits a byte, the lowest first; bit 7 is set in all bytes but a last one."""
    packed = bytearray()
    for number in numbers:
        rest = number
        while rest > 127:
            packed.append(rest & 127 | 128)
            rest >>= 7
        packed.append(rest)
    return bytes(packed)


def pack_best(ids: Sequence[int]) -> bytes:
    """Write the ids that a node lists, in their order: four bytes each, for they are read at every search."""
    return struct.pack(f"<{len(ids)}I", *ids)


def pack_joined(ids: Sequence[int]) -> bytes:
    """Write ids to go behind a list of the best that they have joined since it was ranked."""
    return pack_best([row_id | JOINED for row_id in ids])


def unpack_best(packed: bytes) -> tuple[list[int], list[int]]:
    """Read what `pack_best` wrote, in its order; and who has joined since, in none."""
    ids = struct.unpack(f"<{len(packed) // 4}I", packed[: len(packed) & ~3])
    if not ids or max(ids) < JOINED:
        return list(ids), []
    return [row_id for row_id in ids if row_id < JOINED], [
        row_id ^ JOINED for row_id in ids if row_id >= JOINED
    ]


def pack_list(ids: Iterable[int]) -> bytes:
    """Write different ids of 1 and more as the steps from each to the next higher."""
    ordered = sorted(ids)
    return pack(map(sub, ordered, [0, *ordered]))


def appended(ids: Iterable[int]) -> bytes:
    """Write ids to go behind a list, whatever it holds: a zero, which is no step, and four bytes for each."""
    return b"".join([b"\0" + row_id.to_bytes(4, "little") for row_id in ids])


def unpack_list(packed: bytes) -> list[int]:
    """Read what `pack_list` wrote and `appended` added; what was added may be there twice."""
    ids = list[int]()
    row_id = number = shift = 0
    feed = iter(packed)
    for byte in feed:
        if byte > 127:
            number |= (byte & 127) << shift
            shift += 7
        elif byte or shift:
            row_id += number | byte << shift
            ids.append(row_id)
            number = shift = 0
        else:
            ids.append(int.from_bytes(bytes(islice(feed, 4)), "little"))
    return ids


def at_most(packed: bytes) -> int:
    """Say how many ids a list may hold at most, without reading them: each has a byte that is below 128."""
    return len(packed.translate(None, _HIGH))


def chunk_of(row_id: int) -> bytes:
    """Return the chunk of an unbounded list that an id belongs into, as it ends a path."""
    return (row_id >> CHUNK_BITS).to_bytes(2, "big")


def below(connection: sqlite3.Connection, path: bytes) -> set[int]:
    """Read the ids of all repositories whose text has a common path of SHORTEST_LISTED bytes or more.

    Some may be there that had it once; none that has it is missing.
    """
    cursor = connection.cursor()
    cursor.row_factory = None
    ids = set[int]()
    for (packed,) in cursor.execute(_LEAVES_BELOW, (path, path + b"\xff" * 4)):
        ids.update(unpack_list(packed))
    for (packed,) in cursor.execute(_CROWDS_WITH, (path,)):
        ids.update(unpack_list(packed))
    return ids


# A text has at most three marks in a row (an empty name), so four follow whatever a path goes on with.
_LEAVES_BELOW = "SELECT ids FROM search_rare WHERE path >= ? AND path < ?"
_CROWDS_WITH = "SELECT ids FROM search_crowds WHERE instr(text, ?)"
