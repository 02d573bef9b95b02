"""The texts that the index is built from: all documents, read from the rows, the most popular first.

Terms and shapes of arrays as in `mirror.search.index.build`.
"""

import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.search.index.columns import CHUNK, ColumnWriter, chunk_rows, encoded
from mirror.search.index.format import COLLECTION, DEEPEST, END, VALUES
from mirror.search.names import COLLECTIONS, searched_texts
from mirror.search.query import plain_cursor

Numbers = NDArray[np.uint32]

_BYTES_AT_ONCE = 1 << 20
_DOCS_AT_ONCE = 20_000
_END = END[0]

# A list of each column: rows of Python values would take twice as long. The lists are in the order of ids,
# because SQLite scans a range of them. A subquery with LIMIT would take half as long again.
_LISTS = ", ".join(f"json_group_array({column})" for column in ("id", "name", "slug", *VALUES))
_ROWS = f"SELECT {_LISTS} FROM repositories NOT INDEXED WHERE id >= ? AND id < ?"
_NEXT = "SELECT id FROM repositories WHERE id >= ? ORDER BY id LIMIT 1"
_AGES = "SELECT dense_rank() OVER (ORDER BY coalesce(created_at, '')) FROM repositories ORDER BY id"

THREADS = 2
"""How many threads compute while the calling one reads and writes the file."""

SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock from the others meanwhile. With Python's 5 ms, a build takes a
tenth longer."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def computed_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work` of each item, in the order of the items; threads compute a few results ahead."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, SWITCH_SECONDS))
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            running = deque[Future[Result]]()
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > THREADS:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
    finally:
        sys.setswitchinterval(interval)


@dataclass(slots=True)
class Corpus:
    """All documents, the most popular first.

    text: the documents one after another, then DEEPEST zeros, so that every suffix can be cut out.
    starts: where in `text` each document begins [D].
    ids, collection, followers: of each document's repository [D].
    has_collection: whether a collection has any repository [4].
    ends: a bit for each byte of `text`: whether it is an END, in words of 64.
    ended: how many documents have ended before each of these words.
    """

    text: NDArray[np.uint8]
    starts: Numbers
    ids: Numbers
    collection: NDArray[np.uint8]
    followers: NDArray[np.int64]
    has_collection: NDArray[np.bool_]
    ends: NDArray[np.uint64] = field(init=False)
    ended: Numbers = field(init=False)

    def __post_init__(self) -> None:
        bits = np.zeros(-(-self.text.size // 64) * 8, dtype=np.uint8)
        for begin in range(0, self.text.size, _BYTES_AT_ONCE):
            some = np.packbits(self.text[begin : begin + _BYTES_AT_ONCE] == _END, bitorder="little")
            bits[begin // 8 : begin // 8 + some.size] = some
        self.ends = bits.view("<u8")
        ending = np.bitwise_count(self.ends)
        self.ended = np.cumsum(ending, dtype=np.uint32) - ending

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
            # One comparison instead of two: bytes below the lowest wrap around and become large.
            found = np.flatnonzero((some - np.uint8(lowest) <= highest - lowest) & (some != _END))
            here = (found + begin).astype(np.uint32)
            positions.append(here)
            docs.append(self._docs_at(here))
        return np.concatenate(positions), np.concatenate(docs)

    def _docs_at(self, positions: Numbers) -> Numbers:
        """Return the document of each position: how many have ended before it."""
        words = positions >> np.uint32(6)
        before = (np.uint64(1) << (positions & np.uint32(63)).astype(np.uint64)) - np.uint64(1)
        before &= self.ends[words]
        docs: Numbers = self.ended[words] + np.bitwise_count(before)
        return docs


class _Chunk(NamedTuple):
    """What is computed of the rows of a chunk of the columns."""

    ids: Numbers
    documents: bytes
    collection: NDArray[np.uint8]
    popularity: NDArray[np.int64]
    has_odd_times: bool
    columns: list[tuple[str, int, bytes]]


def read_corpus(connection: sqlite3.Connection) -> Corpus:
    """Read all rows, write their columns, sort the rows by popularity. At ten million, every copy counts."""
    writer = ColumnWriter(connection)
    size = connection.execute("SELECT count(*) FROM repositories").fetchone()[0]
    raw = bytearray()
    ids = np.empty(size, dtype=np.uint32)
    collection = np.empty(size, dtype=np.uint8)
    popularity = np.empty((3, size), dtype=np.int64)  # followers, forks and time
    begin, has_odd_times = 0, False
    for chunk in computed_ahead(_compute, _read(plain_cursor(connection), writer)):
        end = begin + chunk.ids.size
        ids[begin:end] = chunk.ids
        raw += chunk.documents
        collection[begin:end], popularity[:, begin:end] = chunk.collection, chunk.popularity
        has_odd_times |= chunk.has_odd_times
        writer.write_chunk(chunk.columns)
        begin = end
    writer.stamp()
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


def _read(cursor: sqlite3.Cursor, writer: ColumnWriter) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
    """Yield for each chunk of the columns the lists of _ROWS, and the codes of the languages apart."""
    first = 0
    while row := cursor.execute(_NEXT, (first,)).fetchone():
        first = row[0] // CHUNK * CHUNK
        ids, names, slugs, languages, *values = cursor.execute(_ROWS, (first, first + CHUNK)).fetchone()
        yield [ids, names, slugs, *values], writer.codes(msgspec.json.decode(languages))
        first += CHUNK


def _compute(read: tuple[list[str], NDArray[np.int64]]) -> _Chunk:
    lists, codes = read
    ids, names, slugs, *values = map(msgspec.json.decode, lists)
    columns, popularity, has_odd_times = encoded(codes, *values)
    numbers = np.array(ids, np.uint32)
    collection = columns["flags"] & np.uint8(COLLECTION)
    rows = chunk_rows(numbers, columns)
    return _Chunk(
        numbers, END.join([*searched_texts(names, slugs), b""]), collection, popularity, has_odd_times, rows
    )


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
    for first in range(0, order.size, _DOCS_AT_ONCE):
        some = slice(first, first + _DOCS_AT_ONCE)
        here = int(ends[first] - moved[first])
        source_of = np.repeat(begins[order[some]] - ends[some] + moved[some], moved[some])
        source_of += np.arange(here, here + source_of.size)
        text[here : here + source_of.size] = source[source_of]
    return text, (ends - moved).astype(np.uint32)
