"""The dense paths of the index: those that a large share of all texts contain, with one bit for each id.

Their lists would be long to read. Like those, the bits of a path may have ids whose text no longer has it,
but never lack one. A path that becomes dense later gets its bits at the next rebuild.
"""

import sqlite3
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.backlog import IndexChange, IndexedText
from mirror.search.query import plain_cursor

DENSE_LEAVES, DENSE_SHARE = 20, 16
"""A path is dense if its texts would fill so many leaves, and are this share of all texts."""

CHUNK = 1 << 17
"""How many ids have their bits in one row."""


def dense_from(texts: int, leaf_size: int) -> int:
    """Return how many of all texts must contain a path to make it dense."""
    return max(DENSE_LEAVES * leaf_size, -(-texts // DENSE_SHARE))


def add_dense(connection: sqlite3.Connection, path: bytes, ids: NDArray[np.uint32]) -> None:
    """Set the bits of some ids for a path."""
    cursor = plain_cursor(connection)
    for chunk in np.unique(ids // CHUNK).tolist():
        places = ids[ids // CHUNK == chunk] % CHUNK
        found = cursor.execute(
            "SELECT bits FROM search_dense WHERE path = ? AND chunk = ?", (path, chunk)
        ).fetchone()
        known = _unpacked(found[0]) if found else np.zeros(0, dtype=bool)
        bits = np.zeros(max(known.size, int(places.max()) + 1), dtype=bool)
        bits[: known.size] = known
        bits[places] = True
        packed = np.packbits(bits, bitorder="little").tobytes()
        cursor.execute("INSERT OR REPLACE INTO search_dense VALUES (?, ?, ?)", (path, chunk, packed))


def update_dense(connection: sqlite3.Connection, changes: Iterable[IndexChange]) -> None:
    """Set the bits of new texts for all dense paths in them; call it in a transaction."""
    new = [(change.new.text, change.id) for change in changes if change.new not in (None, change.old)]
    for (path,) in connection.execute("SELECT DISTINCT path FROM search_dense").fetchall():
        ids = [row_id for text, row_id in new if path in text]
        if ids:
            add_dense(connection, path, np.array(ids, np.uint32))


def read_dense(cursor: sqlite3.Cursor, path: bytes, size: int) -> NDArray[np.bool_] | None:
    """Return for the ids below `size` whether they have a path; None if it is not dense."""
    rows = cursor.execute("SELECT chunk, bits FROM search_dense WHERE path = ?", (path,)).fetchall()
    if not rows:
        return None
    has = np.zeros(size, dtype=bool)
    for chunk, packed in rows:
        part = has[chunk * CHUNK : (chunk + 1) * CHUNK]
        bits = _unpacked(packed)[: part.size]
        part[: bits.size] = bits
    return has


def dense_faults(
    connection: sqlite3.Connection, entries: Iterable[tuple[int, IndexedText]], up_to: int
) -> Iterator[str]:
    """Yield a line for each bit that is missing; `entries` are what the index should contain, by id."""
    cursor = plain_cursor(connection)
    paths = [path for (path,) in cursor.execute("SELECT DISTINCT path FROM search_dense").fetchall()]
    dense = {path: read_dense(cursor, path, up_to + 1) for path in paths}
    for row_id, entry in entries if dense else ():
        for path, has in dense.items():
            if path in entry.text and has is not None and not has[row_id]:
                yield f"dense path {path!r} lacks {row_id}"


def _unpacked(packed: bytes) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
