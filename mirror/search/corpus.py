"""The texts that the index is built from: all documents, read from the rows, the most popular first.

Terms and shapes of arrays as in `mirror.search.index.build`.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.search.index.columns import COLLECTION, VALUES, ColumnWriter
from mirror.search.index.format import DEEPEST, END
from mirror.search.names import BOUNDARY, COLLECTIONS, normalise_all
from mirror.search.query import plain_cursor

Numbers = NDArray[np.uint32]

_BYTES_AT_ONCE = 1_000_000
_ROWS_AT_ONCE = 20_000
_END = END[0]

# A list of each column: as rows of values of Python they would take twice as long.
_COLUMNS = ("id", "name", "slug", "flags", "language", "owner_id", "followers", "forks", "created_at")
_ROWS = f"""SELECT {", ".join(f"json_group_array({column})" for column in _COLUMNS)}
    FROM (SELECT id, name, slug, {VALUES} FROM repositories WHERE id > ? ORDER BY id LIMIT {_ROWS_AT_ONCE})"""
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

    def first_bytes(self) -> NDArray[np.int64]:
        """Return how many suffixes begin with each byte [256], without those that are an END alone."""
        counts = np.zeros(256, dtype=np.int64)
        for begin in range(0, self.text.size - DEEPEST, _BYTES_AT_ONCE):
            counts += np.bincount(self.text[begin : begin + _BYTES_AT_ONCE], minlength=256)
        counts[0] -= DEEPEST  # the zeros after the last document
        counts[_END] = 0
        return counts

    def suffixes(self, lowest: int, highest: int) -> tuple[Numbers, Numbers]:
        """Return the suffixes whose first byte is in a range: positions and documents, both in order."""
        text = self.text[:-DEEPEST]
        positions, docs = [np.zeros(0, dtype=np.uint32)], [np.zeros(0, dtype=np.uint32)]
        for begin in range(0, text.size, _BYTES_AT_ONCE):
            some = text[begin : begin + _BYTES_AT_ONCE]
            here = np.flatnonzero((some >= lowest) & (some <= highest) & (some != _END))
            first, last = np.searchsorted(self.starts, (begin, begin + some.size), side="right").tolist()
            bounds = np.concatenate(([begin], self.starts[first:last], [begin + some.size]))
            doc_of = np.repeat(np.arange(first - 1, last, dtype=np.uint32), np.diff(bounds))
            positions.append((here + begin).astype(np.uint32))
            docs.append(doc_of[here])
        return np.concatenate(positions), np.concatenate(docs)


def read_corpus(connection: sqlite3.Connection) -> Corpus:
    """Read all rows, write their columns, sort them by popularity. At ten million rows every copy counts."""
    writer = ColumnWriter(connection)
    size = connection.execute("SELECT count(*) FROM repositories").fetchone()[0]
    raw = bytearray()
    ids = np.empty(size, dtype=np.uint32)
    collection = np.empty(size, dtype=np.uint8)
    popularity = np.empty((3, size), dtype=np.int64)  # followers, forks and time
    begin, highest, has_odd_times = 0, -1, False
    while begin < size:
        lists = plain_cursor(connection).execute(_ROWS, (highest,)).fetchone()
        row_ids, names, slugs, *values = map(msgspec.json.decode, lists)
        end, highest = begin + len(row_ids), row_ids[-1]
        ids[begin:end] = row_ids
        raw += _documents(names, slugs)
        columns, popularity[:, begin:end], odd_times = writer.encoded(*values)
        writer.write(ids[begin:end], columns)
        collection[begin:end] = columns["flags"] & COLLECTION
        has_odd_times |= odd_times
        begin = end
    if has_odd_times:  # let SQLite sort them all
        popularity[2] = np.fromiter((row[0] for row in connection.execute(_AGES)), dtype=np.int64)
    np.negative(popularity, out=popularity)  # ascending order is now that of popularity
    order = np.lexsort(popularity[::-1])
    followers = -popularity[0, order]
    del popularity
    text, starts = _reordered(raw, order)
    return Corpus(
        text=text,
        starts=starts,
        ids=ids[order],
        collection=collection[order],
        followers=followers,
        has_collection=np.bincount(collection, minlength=len(COLLECTIONS)) > 0,
    )


# Normal forms contain neither: both are white space.
_BETWEEN, _AFTER = "\n\r"
_AS_BYTES = bytes.maketrans(b"\n\r", BOUNDARY + END)


def _documents(names: Sequence[str], slugs: Sequence[str]) -> bytes:
    """Return the documents of some repositories, one after another: each `searched_text` and END."""
    texts = [
        name if name == slug else f"{name}{_BETWEEN}{slug}"
        for name, slug in zip(normalise_all(names), normalise_all(slugs), strict=True)
    ]
    between = _BETWEEN + _AFTER
    joined = f"{between}{_BETWEEN}".join(texts)
    return f"{_BETWEEN}{joined}{between}".encode().translate(_AS_BYTES)


def _reordered(raw: bytearray, order: NDArray[np.int64]) -> tuple[NDArray[np.uint8], Numbers]:
    """Put the documents of `raw` into another order; return the text, with DEEPEST zeros, and the starts."""
    source = np.frombuffer(raw, dtype=np.uint8)
    stops = np.empty(order.size, dtype=np.uint32)
    found = 0
    for first in range(0, source.size, _BYTES_AT_ONCE):
        after = np.flatnonzero(source[first : first + _BYTES_AT_ONCE] == _END) + (first + 1)
        stops[found : found + after.size] = after
        found += after.size
    lengths = np.diff(stops, prepend=np.uint32(0))
    begins = stops - lengths
    moved = lengths[order].astype(np.int64)
    ends = np.cumsum(moved)
    text = np.zeros(source.size + DEEPEST, dtype=np.uint8)
    for first in range(0, order.size, _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        here = int(ends[first] - moved[first])
        steps = np.arange(here, ends[some][-1]) - np.repeat(ends[some] - moved[some], moved[some])
        text[here : here + steps.size] = source[np.repeat(begins[order[some]], moved[some]) + steps]
    return text, (ends - moved).astype(np.uint32)
