"""Write the lists of names and the buckets of hashes."""

import sqlite3
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from mirror.search.index.refs.changes import RefChange
from mirror.search.index.refs.layout import (
    CHUNK,
    age_of,
    hash_number,
    order_of,
    repository_of,
)
from mirror.search.index.refs.nodes import Entries

_STARTS = "SELECT start FROM search_ref_lists WHERE name_id = ? AND list = ? ORDER BY start"
_CHUNK = "SELECT repositories, ages FROM search_ref_lists WHERE name_id = ? AND list = ? AND start = ?"
_CHANGE = """UPDATE search_ref_lists SET repositories = ?, ages = ?
    WHERE name_id = ? AND list = ? AND start = ?"""
_DROP = "DELETE FROM search_ref_lists WHERE name_id = ? AND list = ? AND start = ?"
_INSERT = "INSERT INTO search_ref_lists VALUES (?, ?, ?, ?, ?)"


@dataclass(slots=True)
class _ListChange:
    """The orders that leave a list or a chunk, and those that join it."""

    left: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)


def write_lists(connection: sqlite3.Connection, left: Entries, joined: Entries) -> None:
    """Let refs leave lists and join them. Of a long list, only the chunks that change are read."""
    changes = defaultdict[tuple[int, int], _ListChange](_ListChange)
    for name_id, which, order in left.rows:
        changes[name_id, which].left.append(order)
    for name_id, which, order in joined.rows:
        changes[name_id, which].joined.append(order)
    for key, change in sorted(changes.items(), key=itemgetter(0)):
        starts = [row[0] for row in connection.execute(_STARTS, key)]
        parts = defaultdict[int, _ListChange](_ListChange)
        for order in change.left:
            parts[_chunk_at(starts, order)].left.append(order)
        for order in change.joined:
            parts[_chunk_at(starts, order)].joined.append(order)
        for at, part in parts.items():
            _write_chunk(connection, key, starts[at] if starts else None, part)


def _chunk_at(starts: Sequence[int], order: int) -> int:
    return max(bisect_right(starts, order) - 1, 0)


def _write_chunk(
    connection: sqlite3.Connection, key: tuple[int, int], start: int | None, change: _ListChange
) -> None:
    """Change one chunk, and split it where it is too long."""
    row = (b"", b"") if start is None else connection.execute(_CHUNK, (*key, start)).fetchone()
    repositories, ages = map(bytearray, row)
    for order in change.left:
        at = _place(repositories, ages, order)
        if at < len(ages) and _order_at(repositories, ages, at // 4) == order:
            del repositories[at : at + 4], ages[at : at + 4]
    for order in change.joined:
        at = _place(repositories, ages, order)
        repositories[at:at] = repository_of(order).to_bytes(4, "little")
        ages[at:at] = age_of(order).to_bytes(4, "little")
    if ages and len(ages) <= 4 * CHUNK and _order_at(repositories, ages, 0) == start:
        connection.execute(_CHANGE, (repositories, ages, *key, start))
        return
    if start is not None:
        connection.execute(_DROP, (*key, start))
    parts = -(-len(ages) // (4 * CHUNK))
    step = 4 * -(-len(ages) // (4 * max(parts, 1)))
    for first in range(0, len(ages), max(step, 4)):
        some = slice(first, first + step)
        begin = _order_at(repositories, ages, first // 4)
        connection.execute(_INSERT, (*key, begin, repositories[some], ages[some]))


def _place(repositories: bytearray, ages: bytearray, order: int) -> int:
    """Return where an order is in a chunk, or belongs: a multiple of four."""
    return 4 * bisect_left(range(len(ages) // 4), order, key=lambda at: _order_at(repositories, ages, at))


def _order_at(repositories: bytearray, ages: bytearray, at: int) -> int:
    part = slice(4 * at, 4 * at + 4)
    return order_of(int.from_bytes(ages[part], "little"), int.from_bytes(repositories[part], "little"))


_BUCKET = "SELECT digits, repositories FROM search_ref_hashes WHERE bucket = ?"
_WRITE_BUCKET = "INSERT OR REPLACE INTO search_ref_hashes VALUES (?, ?, ?)"
_DROP_BUCKET = "DELETE FROM search_ref_hashes WHERE bucket = ?"


def write_hashes(connection: sqlite3.Connection, changes: Iterable[RefChange]) -> None:
    """Change the buckets of hashes."""
    times = Counter[tuple[int, int]]()
    for change in changes:
        for entry, sign in ((change.was, -1), (change.now, 1)):
            number = None if entry is None else hash_number(entry.hash)
            if number is not None:
                times[number, change.repository] += sign
    by_bucket = defaultdict[int, list[tuple[int, int, int]]](list)
    for (number, repository), more in times.items():
        if more:
            by_bucket[number >> 16].append((number & 0xFFFF, repository, more))
    for bucket, refs in sorted(by_bucket.items()):
        _write_bucket(connection, bucket, refs)


def _write_bucket(connection: sqlite3.Connection, bucket: int, refs: Iterable[tuple[int, int, int]]) -> None:
    """Change a bucket: for each (rest of the hash, repository), how many more refs have them."""
    row = connection.execute(_BUCKET, (bucket,)).fetchone() or (b"", b"")
    digits, repositories = map(bytearray, row)
    for number, repository, more in refs:
        packed = number.to_bytes(2, "little"), repository.to_bytes(4, "little")
        digits += packed[0] * more  # nothing where fewer have them
        repositories += packed[1] * more
        for _ in range(-more):
            at = _ref_at(digits, repositories, *packed)
            del digits[2 * at : 2 * at + 2], repositories[4 * at : 4 * at + 4]
    if digits:
        connection.execute(_WRITE_BUCKET, (bucket, digits, repositories))
    else:
        connection.execute(_DROP_BUCKET, (bucket,))


def _ref_at(digits: bytearray, repositories: bytearray, its_digits: bytes, repository: bytes) -> int:
    """Return the place of a ref in a bucket; its end if the bucket lacks it."""
    at = digits.find(its_digits)
    while at >= 0:
        if not at % 2 and repositories[2 * at : 2 * at + 4] == repository:
            return at // 2
        at = digits.find(its_digits, at + 1)
    return len(digits) // 2
