"""Build the index from the rows, level by level over all suffixes at once, with numpy.

Terms: a *document* is the searched text of one repository, followed by END; documents are numbered in order
of popularity. A *suffix* is a position in the text of all documents. A *group* is a run of suffixes that
begin with the same path. Array shapes: S suffixes, G groups, D documents.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, compress, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Corpus, Numbers, read_corpus
from mirror.search.index.columns import add_dense, dense_from
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

SUFFIXES_AT_ONCE = 1_500_000
"""How many suffixes are sorted at once, at about 40 bytes each. It bounds the memory of a build."""

_ROWS_AT_ONCE = 400  # in one statement
_LOW = np.uint64(0xFFFFFFFF)
_END, _BOUNDARY = END[0], BOUNDARY[0]


def build_index(
    connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE, at_once: int = SUFFIXES_AT_ONCE
) -> None:
    """Replace the index by one built from the rows of `repositories`; call it in a transaction.

    Other sizes are for tests. At ten million repositories it takes less than 1.5 GB of memory.
    """
    for table in ("common", "rare", "crowds", "pending", "columns", "languages", "dense"):
        connection.execute(f"DELETE FROM search_{table}")
    corpus = read_corpus(connection)
    connection.execute("UPDATE search_state SET up_to = ?", (corpus.highest_id,))
    if corpus.size:
        _Build(connection, corpus, leaf_size, at_once).run()


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
    key = group << np.uint64(8) | text[positions + np.uint32(depth)]
    key <<= np.uint64(32)
    key |= np.arange(positions.size, dtype=np.uint64)
    key.sort()  # no two are equal; numpy sorts such with vectors, four times as fast as a stable sort
    starts = np.flatnonzero(differs_from_previous(key >> np.uint64(32)))
    key &= _LOW
    order = key.astype(np.intp)
    return positions[order], docs[order], starts


def keep_groups(
    positions: Numbers, docs: Numbers, starts: NDArray[np.int64], kept: NDArray[np.bool_]
) -> tuple[Numbers, Numbers, NDArray[np.uint64]]:
    """Drop the groups that are not `kept` [G]; return positions, documents and new groups of the suffixes."""
    sizes = np.diff(starts, append=positions.size)
    each = np.repeat(kept, sizes)
    group = np.repeat(np.arange(np.count_nonzero(kept), dtype=np.uint64), sizes[kept])
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
    connection: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]], on_conflict: str = ""
) -> None:
    """Insert rows in the order of their keys, many with one statement: it takes half as long as one each."""
    ordered = sorted(rows)
    if not ordered:
        return
    marks = f"({', '.join('?' * len(ordered[0]))})"
    rest = len(ordered) % _ROWS_AT_ONCE
    many = f"INSERT INTO {table} VALUES {', '.join([marks] * _ROWS_AT_ONCE)} {on_conflict}"
    connection.executemany(f"INSERT INTO {table} VALUES {marks} {on_conflict}", ordered[:rest])
    for first in range(rest, len(ordered), _ROWS_AT_ONCE):
        some = ordered[first : first + _ROWS_AT_ONCE]
        connection.execute(many, list(chain.from_iterable(some)))


# Building


class _Build:
    """Collects the rows of the index, and writes them sorted by path, which packs the tables densely."""

    def __init__(self, connection: sqlite3.Connection, corpus: Corpus, leaf_size: int, at_once: int) -> None:
        self.connection = connection
        self.corpus = corpus
        self.leaf_size = leaf_size
        self.at_once = at_once
        self.in_crowd = np.zeros(corpus.size, dtype=bool)
        # Rows of search_common, search_rare and search_crowds that are not written yet.
        self.common = list[tuple[bytes, int, int, bytes, int]]()
        self.rare = list[tuple[bytes, bytes]]()
        self.crowds = list[tuple[bytes, bytes, bytes]]()

    def run(self) -> None:
        everything = np.arange(self.corpus.size, dtype=np.uint32)
        self._add_nodes([b""], np.zeros(1, dtype=np.int64), everything)
        # Crowds first: the leaves of ends leave out documents that are in a crowd.
        self._follow(*self.corpus.suffixes(_BOUNDARY, _BOUNDARY), only_crowds=True)
        for lowest, highest in _ranges(self.corpus.first_bytes(), self.at_once):
            self._follow(*self.corpus.suffixes(lowest, highest), is_one=lowest == highest)

    def _follow(
        self,
        positions: Numbers,
        docs: Numbers,
        depth: int = 0,
        *,
        is_one: bool = True,
        only_crowds: bool = False,
    ) -> None:
        """Build everything below a path of `depth` bytes, given some of its suffixes in order of popularity.

        With `is_one`, the next byte of all of them is the same.
        """
        group, starts = np.zeros(positions.size, dtype=np.uint64), np.zeros(1, dtype=np.int64)
        while positions.size:
            if not is_one:
                positions, docs, starts = split_groups(self.corpus.text, positions, docs, group, depth)
            depth += 1
            positions, docs, group = self._add_groups(positions, docs, starts, depth, only_crowds=only_crowds)
            if is_one and positions.size > self.at_once:
                self._follow_in_turns(positions, docs, depth, only_crowds=only_crowds)
                break
            is_one = False
        self._write()

    def _follow_in_turns(self, positions: Numbers, docs: Numbers, depth: int, *, only_crowds: bool) -> None:
        """Follow many suffixes of one path by ranges of their next byte."""
        following = self.corpus.text[positions + np.uint32(depth)]
        for lowest, highest in _ranges(np.bincount(following), self.at_once):
            here = (following >= lowest) & (following <= highest)
            self._follow(
                positions[here], docs[here], depth, is_one=lowest == highest, only_crowds=only_crowds
            )

    def _add_groups(
        self, positions: Numbers, docs: Numbers, starts: NDArray[np.int64], depth: int, *, only_crowds: bool
    ) -> tuple[Numbers, Numbers, NDArray[np.uint64]]:
        """Add the node or leaf of each group, whose paths have `depth` bytes; return those of nodes."""
        first = positions[starts]
        ended = self.corpus.text[first + np.uint32(depth - 1)] == _END
        common = (np.diff(starts, append=positions.size) > self.leaf_size) & ~ended & (depth < DEEPEST)
        kept = keep_groups(positions, docs, starts, common)
        if only_crowds:
            positions, docs, _ = keep_groups(positions, docs, starts, ended)
            self.in_crowd[docs[self._are_whole(positions, docs)]] = True
            return kept
        paths = paths_at(self.corpus.text, first, depth)
        if kept[0].size:
            nodes = np.flatnonzero(differs_from_previous(kept[2]))
            self._add_nodes(list(compress(paths, common.tolist())), nodes, kept[1])
        rare = ~common & ~ended
        _, in_leaves, leaf = keep_groups(positions, docs, starts, rare)
        _, lists = _packed_lists(leaf, self.corpus.ids[in_leaves])
        self.rare.extend(zip(compress(paths, rare.tolist()), lists, strict=True))
        if ended.any():
            self._add_ends(
                list(compress(paths, ended.tolist())), *keep_groups(positions, docs, starts, ended)
            )
        return kept

    def _add_ends(
        self, paths: list[bytes], positions: Numbers, docs: Numbers, group: NDArray[np.uint64]
    ) -> None:
        """Add the lists of paths that end with END: leaves and crowds."""
        in_crowd = self.in_crowd[docs]
        if len(paths[0]) > SHORTEST_LISTED:
            for index, chunk, packed in self._chunks(docs, group, ~in_crowd):
                self.rare.append((paths[index] + chunk, packed))
        for index, chunk, packed in self._chunks(docs, group, in_crowd & self._are_whole(positions, docs)):
            self.crowds.append((paths[index][:-1], chunk, packed))

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

    def _add_nodes(self, paths: list[bytes], starts: NDArray[np.int64], docs: Numbers) -> None:
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
            rows = zip(
                paths, repeat(collection), counts.tolist(),
                cut(corpus.ids[best].astype("<u4").tobytes(), 4 * np.append(0, ends)),
                bars.tolist(),
            )  # fmt: skip
            # Each node has a row for the public collection, even if empty.
            self.common.extend(rows if collection == PUBLIC else compress(rows, counts.tolist()))
        for index in np.flatnonzero(totals >= dense_from(corpus.size, self.leaf_size)).tolist():
            if paths[index]:
                add_dense(self.connection, paths[index], corpus.ids[docs[bounds[index] : bounds[index + 1]]])

    def _write(self) -> None:
        insert_rows(self.connection, "search_common", self.common)
        insert_rows(self.connection, "search_rare", self.rare)
        insert_rows(self.connection, "search_crowds", self.crowds)
        for rows in (self.common, self.rare, self.crowds):
            rows.clear()


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
    sizes = np.ones(numbers.size, dtype=np.uint8)
    for bits in (7, 14, 21, 28):
        sizes += numbers >> np.uint32(bits) > 0
    digits = np.empty((numbers.size, int(sizes.max(initial=1))), dtype=np.uint8)
    for place in range(digits.shape[1]):
        digits[:, place] = numbers >> np.uint32(7 * place) & np.uint32(127) | np.uint32(128) * (
            sizes > place + 1
        )
    used = np.arange(digits.shape[1], dtype=np.uint8) < sizes[:, None]
    ends = np.zeros(numbers.size + 1, dtype=np.int64)
    np.cumsum(sizes, out=ends[1:])
    return digits.ravel().compress(used.ravel()).tobytes(), ends


def _first_of_runs(sizes: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indexes of the first `wanted` elements of each of several consecutive runs."""
    begins, written = np.cumsum(sizes) - sizes, np.cumsum(wanted) - wanted
    return np.repeat(begins - written, wanted) + np.arange(int(wanted.sum()))
