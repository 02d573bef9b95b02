"""The format of the name index: sizes, collections, and how lists of ids are packed into bytes.

The index is a trie of all suffixes of all searched texts. A path that many texts contain is *common*: its
*node*, in `search_common`, holds the number of its repositories and the best of them. The first path below a
node that is not common is *rare*: its *leaf*, in `search_rare`, holds the complete list.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import sub

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


def pack_unranked(ids: Sequence[int]) -> bytes:
    """Pack ids to be appended to a node's list without a rank."""
    return pack_best([row_id | UNRANKED for row_id in ids])


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


def max_ids(packed: bytes) -> int:
    """Return an upper bound of the number of ids in a packed list, without unpacking it.

    Each id has at least one byte below 128.
    """
    return len(packed.translate(None, _HIGH_BYTES))


def chunk_of(row_id: int) -> bytes:
    """Return the two bytes of the chunk that an id belongs to."""
    return (row_id >> CHUNK_BITS).to_bytes(2, "big")
