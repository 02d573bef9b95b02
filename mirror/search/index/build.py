"""Build the index from the rows, level by level over all suffixes at once, with numpy.

Terms: a *document* is the searched text of one repository, followed by END; documents are numbered in order
of popularity. A *suffix* is a position in the text of all documents. A *group* is a run of suffixes that
begin with the same path. Array shapes: S suffixes, G groups, D documents.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, compress, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Corpus, Numbers, computed_ahead, read_corpus
from mirror.search.index.columns import dense_bits, dense_from
from mirror.search.index.format import (
    CHUNK_BITS,
    DEEPEST,
    END,
    LEAF_SIZE,
    LONG_LIST_FROM,
    SHORTEST_LISTED,
    list_limit,
)
from mirror.search.names import BOUNDARY, COLLECTIONS, PUBLIC
from mirror.search.query import plain_cursor

SUFFIXES_AT_ONCE, SHARE_AT_ONCE = 350_000, 200
"""How many suffixes a thread sorts at once: so many, or this share of all bytes if that is more. A suffix
takes about 40 bytes meanwhile. Smaller parts take more passes over all suffixes to find them."""

_CACHE_KIB = 32_000
"""What SQLite may keep of the file meanwhile: most pages are read and written once, in the order of keys."""

_ROWS_AT_ONCE = 1000  # in one statement
_LOW = np.uint64(0xFFFFFFFF)
_END, _BOUNDARY = END[0], BOUNDARY[0]


def build_index(
    connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE, at_once: int = SUFFIXES_AT_ONCE
) -> None:
    """Replace the index by one built from the rows of `repositories`; call it in a transaction.

    Other sizes are for tests. At ten million repositories it takes less than 1.5 GB of memory.
    """
    kept = connection.execute("PRAGMA cache_size").fetchone()[0]
    if kept < -_CACHE_KIB:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    try:
        _rebuild(connection, leaf_size, at_once)
    finally:
        connection.execute(f"PRAGMA cache_size = {kept}")


def _rebuild(connection: sqlite3.Connection, leaf_size: int, at_once: int) -> None:
    for table in ("common", "rare", "crowds", "pending", "segments", "columns", "languages", "dense"):
        connection.execute(f"DELETE FROM search_{table}")
    corpus = read_corpus(connection)
    connection.execute(  # damage may have taken the row
        """INSERT INTO search_state (id, up_to) VALUES (1, ?)
           ON CONFLICT (id) DO UPDATE SET up_to = excluded.up_to""",
        (corpus.highest_id,),
    )
    if corpus.size:
        at_once = max(at_once, corpus.text.size // SHARE_AT_ONCE)
        for rows in _Build(corpus, leaf_size, at_once).rows():
            rows.write(connection)


# Groups of suffixes: the steps that a build and an update share


def split_groups(
    text: NDArray[np.uint8], positions: Numbers, docs: Numbers, group: NDArray[np.uint64], depth: int
) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """Split groups of suffixes by their byte number `depth`, counted from 0.

    :param positions: where each suffix begins in `text` [S]
    :param docs: the document of each suffix [S]
    :param group: the number of each suffix's group [S], ascending
    :returns: positions and documents in their new order, and the index at which each new group starts [G].
        Suffixes of one group keep the order they had.
    """
    key = group << np.uint64(8)
    key |= text[depth:][positions]
    key <<= np.uint64(32)
    key |= np.arange(positions.size, dtype=np.uint64)
    key.sort()  # no two are equal, so it may be unstable: numpy does that with vectors, four times as fast
    starts = np.flatnonzero(differs_from_previous(key.astype("<u8", copy=False).view("<u4")[1::2]))
    key &= _LOW
    order = key.view(np.int64)
    return positions[order], docs[order], starts


def keep_groups(
    positions: Numbers, docs: Numbers, starts: NDArray[np.int64], kept: NDArray[np.bool_]
) -> tuple[Numbers, Numbers, NDArray[np.uint64]]:
    """Drop the groups that are not `kept` [G]; return positions, documents and new groups of the suffixes."""
    sizes = np.diff(starts, append=positions.size)
    group = np.repeat(np.arange(np.count_nonzero(kept), dtype=np.uint64), sizes[kept])
    if kept.all():  # no copy: at ten million repositories, a group may have twenty million suffixes
        return positions, docs, group
    each = np.repeat(kept, sizes)
    return positions[each], docs[each], group


def paths_at(text: NDArray[np.uint8], positions: Numbers, length: int) -> list[bytes]:
    """Return the `length` bytes that begin at each position."""
    cut = text[positions[:, None] + np.arange(length, dtype=np.uint32)].tobytes()
    return [cut[begin : begin + length] for begin in range(0, len(cut), length)]


def differs_from_previous(key: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each element whether it differs from the one before; True for the first."""
    differs = np.ones(key.size, dtype=bool)
    np.not_equal(key[1:], key[:-1], out=differs[1:])
    return differs


def cut(packed: bytes, bounds: NDArray[np.int64]) -> list[bytes]:
    """Cut bytes into parts, from each bound to the next."""
    cuts = bounds.tolist()
    return list(map(packed.__getitem__, map(slice, cuts[:-1], cuts[1:])))


def insert_rows(
    connection: sqlite3.Connection,
    table: str,
    rows: Iterable[tuple[Any, ...]],
    ending: str = "",
    *values: Any,
) -> list[tuple[Any, ...]]:
    """Insert rows in the order of their keys, many with one statement: it takes half as long as one each.

    `ending` ends the statement, with `values`; what it returns is returned.
    """
    ordered, returned = sorted(rows), list[tuple[Any, ...]]()
    if not ordered:
        return returned
    cursor = plain_cursor(connection)
    marks = f"({', '.join('?' * len(ordered[0]))})"
    rest = len(ordered) % _ROWS_AT_ONCE
    many = f"INSERT INTO {table} VALUES {', '.join([marks] * _ROWS_AT_ONCE)} {ending}"
    one = f"INSERT INTO {table} VALUES {marks} {ending}"
    for row in ordered[:rest]:
        returned += cursor.execute(one, (*row, *values))
    for first in range(rest, len(ordered), _ROWS_AT_ONCE):
        some = ordered[first : first + _ROWS_AT_ONCE]
        returned += cursor.execute(many, [*chain.from_iterable(some), *values])
    return returned


# Building


@dataclass(slots=True)
class _Rows:
    """Rows of the index, not written yet."""

    common: list[tuple[bytes, int, int, bytes, int]] = field(default_factory=list)
    rare: list[tuple[bytes, bytes]] = field(default_factory=list)
    crowds: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    dense: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    ends: list[tuple[list[bytes], Numbers, Numbers, NDArray[np.uint64]]] = field(default_factory=list)
    """What `_Build._add_lists` makes lists of: paths that end with END, and their suffixes."""

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the rows sorted by path, which packs the tables densely."""
        insert_rows(connection, "search_common", self.common)
        insert_rows(connection, "search_rare", self.rare)
        insert_rows(connection, "search_crowds", self.crowds)
        insert_rows(connection, "search_dense", self.dense)


@dataclass(slots=True)
class _Part:
    """Suffixes that begin with the same `depth` bytes, in order of popularity, and the rows made of them.

    With `is_one`, the next byte of all of them is the same.
    """

    positions: Numbers
    docs: Numbers
    depth: int
    is_one: bool
    rows: _Rows = field(default_factory=_Rows)


class _Build:
    """Makes the rows of the index: each thread takes one part of the suffixes after another."""

    def __init__(self, corpus: Corpus, leaf_size: int, at_once: int) -> None:
        self.corpus = corpus
        self.leaf_size = leaf_size
        self.at_once = at_once
        self.in_crowd = np.zeros(corpus.size, dtype=bool)

    def rows(self) -> Iterator[_Rows]:
        """Yield the rows of the index in the order of their paths."""
        root = _Rows()
        everything = np.arange(self.corpus.size, dtype=np.uint32)
        self._add_nodes(root, [b""], np.zeros(1, dtype=np.int64), everything)
        yield root
        # The lists of ends leave out documents in a crowd. Crowds are whole texts, which begin with BOUNDARY.
        last = list(computed_ahead(self._follow, self._parts([(_BOUNDARY, _BOUNDARY)])))
        for rows in last:
            for _, positions, docs, _ in rows.ends:
                self.in_crowd[docs[self._are_whole(positions, docs)]] = True
        counts = self.corpus.first_bytes()
        counts[_BOUNDARY] = 0
        yield from computed_ahead(self._finish, self._parts(_ranges(counts, self.at_once)))
        yield from map(self._add_lists, last)

    def _finish(self, part: _Part) -> _Rows:
        return self._add_lists(self._follow(part))

    def _parts(self, ranges: Iterable[tuple[int, int]]) -> Iterator[_Part]:
        """Yield parts that together have all suffixes whose first byte is in one of some ranges."""
        for lowest, highest in ranges:
            yield from self._cut(_Part(*self.corpus.suffixes(lowest, highest), 0, lowest == highest))

    def _cut(self, part: _Part) -> Iterator[_Part]:
        """Cut a part with too many suffixes by ranges of the second byte to come; the first is the same."""
        if not part.is_one or part.positions.size <= self.at_once:
            yield part
            return
        depth = part.depth + 1
        positions, docs, _ = self._add_groups(
            part.rows, part.positions, part.docs, np.zeros(1, dtype=np.int64), depth
        )
        part.positions = part.docs = positions[:0]  # its node or leaf is made; the suffixes go on in parts
        yield part
        following = self.corpus.text[depth:][positions]
        for lowest, highest in _ranges(np.bincount(following), self.at_once):
            here = (following >= lowest) & (following <= highest)
            yield from self._cut(_Part(positions[here], docs[here], depth, lowest == highest))

    def _follow(self, part: _Part) -> _Rows:
        """Make the rows of everything below the path of a part."""
        positions, docs, depth, is_one = part.positions, part.docs, part.depth, part.is_one
        group, starts = np.zeros(positions.size, dtype=np.uint64), np.zeros(1, dtype=np.int64)
        while positions.size:
            if not is_one:
                positions, docs, starts = split_groups(self.corpus.text, positions, docs, group, depth)
            depth, is_one = depth + 1, False
            positions, docs, group = self._add_groups(part.rows, positions, docs, starts, depth)
        return part.rows

    def _add_groups(
        self, rows: _Rows, positions: Numbers, docs: Numbers, starts: NDArray[np.int64], depth: int
    ) -> tuple[Numbers, Numbers, NDArray[np.uint64]]:
        """Add the node or leaf of each group, whose paths have `depth` bytes; return those of nodes."""
        first = positions[starts]
        ended = self.corpus.text[first + np.uint32(depth - 1)] == _END
        common = (np.diff(starts, append=positions.size) > self.leaf_size) & ~ended & (depth < DEEPEST)
        kept = keep_groups(positions, docs, starts, common)
        paths = paths_at(self.corpus.text, first, depth)
        if kept[0].size:
            nodes = np.flatnonzero(differs_from_previous(kept[2]))
            self._add_nodes(rows, list(compress(paths, common.tolist())), nodes, kept[1])
        rare = ~common & ~ended
        _, in_leaves, leaf = keep_groups(positions, docs, starts, rare)
        _, lists = _packed_lists(leaf, self.corpus.ids[in_leaves])
        rows.rare.extend(zip(compress(paths, rare.tolist()), lists, strict=True))
        if depth > SHORTEST_LISTED and ended.any():
            ends = keep_groups(positions, docs, starts, ended)
            rows.ends.append((list(compress(paths, ended.tolist())), *ends))
        return kept

    def _add_lists(self, rows: _Rows) -> _Rows:
        """Add the lists of the paths in `ends`: leaves and crowds."""
        for paths, positions, docs, group in rows.ends:
            in_crowd = self.in_crowd[docs]
            for index, chunk, packed in self._chunks(docs, group, ~in_crowd):
                rows.rare.append((paths[index] + chunk, packed))
            whole = in_crowd & self._are_whole(positions, docs)
            for index, chunk, packed in self._chunks(docs, group, whole):
                rows.crowds.append((paths[index][:-1], chunk, packed))
        rows.ends.clear()
        return rows

    def _are_whole(self, positions: Numbers, docs: Numbers) -> NDArray[np.bool_]:
        """Return which suffixes are whole documents [S]."""
        whole: NDArray[np.bool_] = positions == self.corpus.starts[docs]
        return whole

    def _chunks(
        self, docs: Numbers, group: NDArray[np.uint64], listed: NDArray[np.bool_]
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (group, chunk, packed ids) of the suffixes that are `listed` [S]."""
        ids = self.corpus.ids[docs[listed]]
        for number, packed in zip(*_packed_lists(group[listed], ids, CHUNK_BITS), strict=True):
            index, chunk = divmod(number, 1 << 32 - CHUNK_BITS)
            yield index, chunk.to_bytes(2, "big"), packed

    def _add_nodes(self, rows: _Rows, paths: list[bytes], starts: NDArray[np.int64], docs: Numbers) -> None:
        """Count each group's documents by collection. The first of each are its best: they are sorted."""
        corpus = self.corpus
        once = differs_from_previous(docs)  # a document may have a path more than once
        once[starts] = True
        collections = corpus.collection[docs]
        bounds = np.append(starts, docs.size)
        totals = np.zeros(starts.size, dtype=np.int64)
        for collection in COLLECTIONS:
            if not corpus.has_collection[collection] and collection != PUBLIC:
                continue
            members = np.flatnonzero(once & (collections == collection))
            counts = np.diff(np.searchsorted(members, bounds))
            totals += counts
            limits = np.where(counts < LONG_LIST_FROM, list_limit(0), list_limit(LONG_LIST_FROM))
            listed = np.minimum(counts, limits)
            best = docs[members[_first_of_runs(counts, listed)]]
            ends = np.cumsum(listed)
            bars = np.where(listed > 0, corpus.followers[best[ends - 1]] if best.size else 0, 0)
            found = zip(
                paths, repeat(collection), counts.tolist(),
                cut(corpus.ids[best].astype("<u4").tobytes(), 4 * np.append(0, ends)),
                bars.tolist(),
            )  # fmt: skip
            # Each node has a row for the public collection, even if empty.
            rows.common.extend(found if collection == PUBLIC else compress(found, counts.tolist()))
        for index in np.flatnonzero(totals >= dense_from(corpus.size, self.leaf_size)).tolist():
            if path := paths[index]:
                ids = corpus.ids[docs[bounds[index] : bounds[index + 1]]]
                rows.dense += [(path, chunk, bits.tobytes()) for chunk, bits in dense_bits(ids)]


def _ranges(counts: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of bytes, from a lowest to a highest: of one byte, or of `most` suffixes together."""
    some, size = list[int](), 0
    for byte in np.flatnonzero(counts).tolist():
        if some and size + counts[byte] > most:
            yield some[0], some[-1]
            some, size = [], 0
        some.append(byte)
        size += counts[byte]
    if some:
        yield some[0], some[-1]


def _packed_lists(group: NDArray[np.uint64], ids: Numbers, bits: int = 32) -> tuple[list[int], list[bytes]]:
    """Pack ids, each once, in lists: a list has those of a group that agree in all but their lowest `bits`.

    Return the number of each list, which is that of the group, then the upper bits of the ids; and the lists.
    """
    key = group << np.uint64(32) | ids
    key.sort()
    key = key.compress(differs_from_previous(key))
    ordered = key.astype(np.uint32)
    key >>= np.uint64(bits)
    begins = np.flatnonzero(differs_from_previous(key)) if key.size else np.zeros(0, dtype=np.int64)
    steps = np.diff(ordered, prepend=np.uint32(0))
    steps[begins] = ordered[begins]
    packed, ends = _pack_numbers(steps)
    return key[begins].tolist(), cut(packed, ends[np.append(begins, steps.size)])


def _pack_numbers(numbers: Numbers) -> tuple[bytes, NDArray[np.int64]]:
    """Pack numbers as `format.pack_numbers` does; also return 0 and where each number ends."""
    width = -(-int(numbers.max(initial=1)).bit_length() // 7)
    digits = np.empty((numbers.size, width), dtype=np.uint8)
    used = np.ones((numbers.size, width), dtype=bool)
    sizes = np.ones(numbers.size, dtype=np.uint8)
    rest = numbers
    for place in range(width):
        digit = rest.astype(np.uint8) & np.uint8(127)
        rest = rest >> np.uint32(7)
        if place + 1 < width:
            more = rest > 0
            used[:, place + 1] = more
            sizes += more
            digit |= more.view(np.uint8) << np.uint8(7)
        digits[:, place] = digit
    ends = np.zeros(numbers.size + 1, dtype=np.int64)
    np.cumsum(sizes, out=ends[1:])
    return digits.ravel().compress(used.ravel()).tobytes(), ends


def _first_of_runs(sizes: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indexes of the first `wanted` elements of each of several consecutive runs."""
    begins, written = np.cumsum(sizes) - sizes, np.cumsum(wanted) - wanted
    return np.repeat(begins - written, wanted) + np.arange(int(wanted.sum()))
