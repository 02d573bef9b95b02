"""Write the lists of names and the buckets of hashes."""

import sqlite3
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mirror.search.index.refs.format import (
    CHUNK,
    pack_numbers,
    pack_orders,
    unpack_bucket,
    unpack_orders,
)

_STARTS = "SELECT start FROM search_ref_lists WHERE name_id = ? AND list = ? ORDER BY start"
_CHUNK = "SELECT repositories, ages FROM search_ref_lists WHERE name_id = ? AND list = ? AND start = ?"
_DROP = "DELETE FROM search_ref_lists WHERE name_id = ? AND list = ? AND start = ?"
_INSERT = "INSERT INTO search_ref_lists VALUES (?, ?, ?, ?, ?)"


@dataclass(slots=True)
class ListChange:
    """The orders that leave a list and those that join it; one that does both stays."""

    removed: set[int] = field(default_factory=set)
    added: set[int] = field(default_factory=set)


def write_lists(connection: sqlite3.Connection, changes: Mapping[tuple[int, int], ListChange]) -> None:
    """Change lists, by the id of the name and the number of the list.

    Of a long list, only the chunks that change are read.
    """
    for (name_id, which), change in sorted(changes.items()):
        starts = [row[0] for row in connection.execute(_STARTS, (name_id, which))]
        parts = defaultdict[int, ListChange](ListChange)
        for order in change.removed - change.added:
            parts[_chunk_at(starts, order)].removed.add(order)
        for order in change.added - change.removed:
            parts[_chunk_at(starts, order)].added.add(order)
        for at, part in parts.items():
            _write_chunk(connection, (name_id, which), starts[at] if starts else None, part)


def _chunk_at(starts: Sequence[int], order: int) -> int:
    return max(bisect_right(starts, order) - 1, 0)


def _write_chunk(
    connection: sqlite3.Connection, which: tuple[int, int], start: int | None, change: ListChange
) -> None:
    """Change one chunk, and split it where it is too long."""
    orders = set[int]()
    if start is not None:
        row = connection.execute(_CHUNK, (*which, start)).fetchone()
        orders.update(unpack_orders(*row))
        connection.execute(_DROP, (*which, start))
    ordered = sorted((orders - change.removed) | change.added)
    parts = max(-(-len(ordered) // CHUNK), 1)
    step = max(-(-len(ordered) // parts), 1)
    for first in range(0, len(ordered), step):
        some = ordered[first : first + step]
        connection.execute(_INSERT, (*which, some[0], *pack_orders(some)))


_BUCKET = "SELECT digits, repositories FROM search_ref_hashes WHERE bucket = ?"
_WRITE_BUCKET = "INSERT OR REPLACE INTO search_ref_hashes VALUES (?, ?, ?)"
_DROP_BUCKET = "DELETE FROM search_ref_hashes WHERE bucket = ?"


def write_hashes(
    connection: sqlite3.Connection, removed: Iterable[tuple[int, int]], added: Iterable[tuple[int, int]]
) -> None:
    """Change the buckets of hashes: (number of the hash, repository) for each ref."""
    changes = Counter(added)
    changes.subtract(Counter(removed))
    by_bucket = defaultdict[int, dict[tuple[int, int], int]](dict)
    for (number, repository), times in changes.items():
        if times:
            by_bucket[number >> 16][number & 0xFFFF, repository] = times
    for bucket, change in sorted(by_bucket.items()):
        row = connection.execute(_BUCKET, (bucket,)).fetchone()
        held = Counter(unpack_bucket(*row)) if row else Counter[tuple[int, int]]()
        held.update(change)
        refs = sorted(held.elements())
        if refs:
            connection.execute(_WRITE_BUCKET, (bucket, *_pack_bucket(refs)))
        else:
            connection.execute(_DROP_BUCKET, (bucket,))


def _pack_bucket(refs: Sequence[tuple[int, int]]) -> tuple[bytes, bytes]:
    digits = b"".join([number.to_bytes(2, "little") for number, _ in refs])
    return digits, pack_numbers(repository for _, repository in refs)
