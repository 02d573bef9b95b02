"""The texts that the index is built from: all documents, read from the rows, the most popular first.

Terms and shapes of arrays as in `mirror.search.index.build`.
"""

import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.columns import COLLECTION, VALUES, ColumnWriter
from mirror.search.index.format import DEEPEST, END
from mirror.search.names import COLLECTIONS, searched_text

Numbers = NDArray[np.uint32]

_BYTES_AT_ONCE = 16_000_000
_ROWS_AT_ONCE = 50_000
_END = END[0]

_ROWS = f"SELECT id, name, slug, {VALUES} FROM repositories ORDER BY id"
_AGES = "SELECT dense_rank() OVER (ORDER BY coalesce(created_at, '')) FROM repositories ORDER BY id"


@dataclass(slots=True)
class Corpus:
    """All documents, the most popular first.

    text: the documents one after another, then DEEPEST zeros, so that every suffix can be cut out.
    starts: where in `text` each document begins [D].
    ids, collection, followers: of each document's repository [D].
    has_collection: whether a collection has any repository [4].
    """

    text: NDArray[np.uint8]
    starts: Numbers
    ids: Numbers
    collection: NDArray[np.uint8]
    followers: NDArray[np.int64]
    has_collection: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """The number of documents."""
        return self.ids.size

    @property
    def highest_id(self) -> int:
        """The highest id; 0 without rows."""
        return int(self.ids.max(initial=0))

    def first_bytes(self) -> list[int]:
        """Return the bytes that suffixes begin with, without END."""
        counts = np.zeros(256, dtype=np.int64)
        for begin in range(0, self.text.size - DEEPEST, _BYTES_AT_ONCE):
            counts += np.bincount(self.text[begin : begin + _BYTES_AT_ONCE], minlength=256)
        counts[0] -= DEEPEST  # the zeros after the last document
        return [byte for byte in np.flatnonzero(counts).tolist() if byte != _END]

    def suffixes(self, byte: int) -> tuple[Numbers, Numbers]:
        """Return the positions of the suffixes that begin with a byte, and their documents, both in order."""
        text = self.text[:-DEEPEST]
        positions, docs = [np.zeros(0, dtype=np.uint32)], [np.zeros(0, dtype=np.uint32)]
        for begin in range(0, text.size, _BYTES_AT_ONCE):
            here = (np.flatnonzero(text[begin : begin + _BYTES_AT_ONCE] == byte) + begin).astype(np.uint32)
            positions.append(here)
            docs.append(np.searchsorted(self.starts, here, side="right").astype(np.uint32) - np.uint32(1))
        return np.concatenate(positions), np.concatenate(docs)


def read_corpus(connection: sqlite3.Connection) -> Corpus:
    """Read all rows, write their columns, sort them by popularity. At ten million rows every copy counts."""
    writer = ColumnWriter(connection)
    size = connection.execute("SELECT count(*) FROM repositories").fetchone()[0]
    raw = bytearray()
    lengths = np.empty(size, dtype=np.uint32)
    ids = np.empty(size, dtype=np.uint32)
    collection = np.empty(size, dtype=np.uint8)
    # Followers, forks and time, negated: ascending order is the order of popularity.
    negated = np.empty((3, size), dtype=np.int64)
    begin, has_odd_times = 0, False
    cursor = connection.execute(_ROWS)
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        end = begin + len(rows)
        row_ids, names, slugs, *values = zip(*rows, strict=True)
        columns, odd_times = writer.encoded(*values)
        texts = list(map(searched_text, names, slugs))
        lengths[begin:end] = np.fromiter(map(len, texts), dtype=np.uint32, count=len(texts)) + 1
        raw += END.join(texts) + END
        ids[begin:end] = row_ids
        writer.write(ids[begin:end], columns)
        collection[begin:end] = columns["flags"] & COLLECTION
        followers, forks = values[-3:-1]
        negated[0, begin:end] = [-(number or 0) for number in followers]
        negated[1, begin:end] = [-(number or 0) for number in forks]
        negated[2, begin:end] = -columns["created"]
        has_odd_times |= bool(odd_times.any())
        begin = end
    if has_odd_times:  # let SQLite sort them all
        negated[2] = -np.fromiter((row[0] for row in connection.execute(_AGES)), dtype=np.int64)
    order = np.lexsort(negated[::-1])
    sorted_followers = -negated[0, order]
    del negated
    text, starts = _reordered(raw, lengths, order)
    return Corpus(
        text=text,
        starts=starts,
        ids=ids[order],
        collection=collection[order],
        followers=sorted_followers,
        has_collection=np.bincount(collection, minlength=len(COLLECTIONS)) > 0,
    )


def _reordered(
    raw: bytearray, lengths: NDArray[np.uint32], order: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], Numbers]:
    """Put the documents of `raw` into another order; return the text, with DEEPEST zeros, and the starts."""
    source = np.frombuffer(raw, dtype=np.uint8)
    begins = np.cumsum(lengths, dtype=np.uint32) - lengths
    moved = lengths[order].astype(np.int64)
    ends = np.cumsum(moved)
    text = np.zeros(source.size + DEEPEST, dtype=np.uint8)
    for first in range(0, order.size, _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        here = int(ends[first] - moved[first])
        steps = np.arange(here, ends[some][-1]) - np.repeat(ends[some] - moved[some], moved[some])
        text[here : here + steps.size] = source[np.repeat(begins[order[some]], moved[some]) + steps]
    return text, (ends - moved).astype(np.uint32)
