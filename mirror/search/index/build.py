"""Build the index from the rows, level by level over all suffixes at once, with numpy.

Terms: a *document* is the searched text of one repository, followed by END; documents are numbered in order
of popularity. A *suffix* is a position in the text of all documents. A *group* is a run of suffixes that
begin with the same path. Array shapes: S suffixes, G groups, D documents.
"""

import sqlite3
from collections.abc import Iterator
from itertools import compress
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

SUFFIXES_AT_ONCE = 6_000_000
"""How many suffixes are sorted at once, at about 40 bytes each. It bounds the memory of a build."""

_LOW = np.uint64(0xFFFFFFFF)
_END, _BOUNDARY = END[0], BOUNDARY[0]


def build_index(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Replace the index by one built from the rows of `repositories`; call it in a transaction.

    `leaf_size` is for tests. At ten million repositories it takes less than 1.5 GB of memory.
    """
    for table in ("common", "rare", "crowds", "pending", "columns", "languages", "dense"):
        connection.execute(f"DELETE FROM search_{table}")
    corpus = read_corpus(connection)
    connection.execute("UPDATE search_state SET up_to = ?", (corpus.highest_id,))
    if corpus.size:
        _Build(connection, corpus, leaf_size).run()


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
    key.sort(kind="stable")  # the fastest sort for keys that are nearly in order
    order = (key & _LOW).astype(np.uint32)
    key >>= np.uint64(32)
    return positions[order], docs[order], np.flatnonzero(differs_from_previous(key))


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


# Building


class _Build:
    """Collects the rows of the index, and writes them sorted by path, which packs the tables densely."""

    def __init__(self, connection: sqlite3.Connection, corpus: Corpus, leaf_size: int) -> None:
        self.connection = connection
        self.corpus = corpus
        self.leaf_size = leaf_size
        self.in_crowd = np.zeros(corpus.size, dtype=bool)
        # Rows of search_common, search_rare and search_crowds that are not written yet.
        self.common = list[tuple[bytes, int, int, bytes, int]]()
        self.rare = list[tuple[bytes, bytes]]()
        self.crowds = list[tuple[bytes, bytes, bytes]]()

    def run(self) -> None:
        everything = np.arange(self.corpus.size, dtype=np.uint32)
        self._add_nodes([b""], np.zeros(1, dtype=np.int64), everything)
        self._write()
        # Crowds first: the leaves of ends leave out documents that are in a crowd.
        self._follow_from(_BOUNDARY, only_crowds=True)
        for byte in self.corpus.first_bytes():
            self._follow_from(byte)
            self._write()

    def _follow_from(self, byte: int, *, only_crowds: bool = False) -> None:
        """Build everything below a path of one byte."""
        positions, docs = self.corpus.suffixes(byte)
        if positions.size > SUFFIXES_AT_ONCE:
            self._add_groups(positions, docs, np.zeros(1, dtype=np.int64), 1, only_crowds=only_crowds)
            self._follow_in_turns(positions, docs, 2, only_crowds=only_crowds)
        else:
            self._follow(positions, docs, 1, only_crowds=only_crowds)

    def _follow(self, positions: Numbers, docs: Numbers, depth: int, *, only_crowds: bool = False) -> None:
        """Build everything below a path of `depth` bytes, given its suffixes in order of popularity."""
        starts = np.zeros(1, dtype=np.int64)
        while positions.size:
            common = self._add_groups(positions, docs, starts, depth, only_crowds=only_crowds)
            positions, docs, group = keep_groups(positions, docs, starts, common)
            if not positions.size:
                return
            if group[-1] == 0 and positions.size > SUFFIXES_AT_ONCE:
                self._follow_in_turns(positions, docs, depth + 1, only_crowds=only_crowds)
                return
            positions, docs, starts = split_groups(self.corpus.text, positions, docs, group, depth)
            depth += 1

    def _follow_in_turns(self, positions: Numbers, docs: Numbers, depth: int, *, only_crowds: bool) -> None:
        """Split one large group by its byte number `depth`, counted from 1, and follow each part in turn."""
        following = self.corpus.text[positions + np.uint32(depth - 1)]
        for byte in np.flatnonzero(np.bincount(following)):
            here = following == byte
            self._follow(positions[here], docs[here], depth, only_crowds=only_crowds)
            if not only_crowds:
                self._write()

    def _add_groups(
        self, positions: Numbers, docs: Numbers, starts: NDArray[np.int64], depth: int, *, only_crowds: bool
    ) -> NDArray[np.bool_]:
        """Add the node or leaf of each group, whose paths have `depth` bytes; return which are common [G]."""
        text = self.corpus.text
        sizes = np.diff(starts, append=positions.size)
        first = positions[starts]
        ended = text[first + np.uint32(depth - 1)] == _END
        common: NDArray[np.bool_] = (sizes > self.leaf_size) & ~ended & (depth < DEEPEST)
        if only_crowds:
            self.in_crowd[docs[self._whole(positions, docs, np.repeat(ended, sizes))]] = True
            return common
        in_common = np.repeat(common, sizes)
        paths = paths_at(text, first, depth)
        if common.any():
            node_starts = np.cumsum(sizes[common]) - sizes[common]
            node_docs = docs if in_common.all() else docs[in_common]
            self._add_nodes(list(compress(paths, common.tolist())), node_starts, node_docs)
        lists = self._packed_lists(starts, docs, np.repeat(~common & ~ended, sizes), chunked=False)
        self.rare.extend((paths[index], packed) for index, _, packed in lists)
        if ended.any():
            self._add_ends(paths, starts, positions, docs, np.repeat(ended, sizes))
        return common

    def _add_ends(
        self,
        paths: list[bytes],
        starts: NDArray[np.int64],
        positions: Numbers,
        docs: Numbers,
        in_ended: NDArray[np.bool_],
    ) -> None:
        """Add the lists of the groups whose path ends with END: leaves and crowds."""
        in_crowd = self.in_crowd[docs]
        if len(paths[0]) > SHORTEST_LISTED:
            lists = self._packed_lists(starts, docs, in_ended & ~in_crowd, chunked=True)
            self.rare.extend((paths[index] + chunk, packed) for index, chunk, packed in lists)
        shared = self._whole(positions, docs, in_ended) & in_crowd
        lists = self._packed_lists(starts, docs, shared, chunked=True)
        self.crowds.extend((paths[index][:-1], chunk, packed) for index, chunk, packed in lists)

    def _whole(self, positions: Numbers, docs: Numbers, in_ended: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which suffixes are whole documents that are common to their end [S]."""
        whole: NDArray[np.bool_] = in_ended & (positions == self.corpus.starts[docs])
        return whole

    def _add_nodes(self, paths: list[bytes], starts: NDArray[np.int64], docs: Numbers) -> None:
        """Count each group's documents by collection. The first of each are its best: they are sorted."""
        corpus = self.corpus
        once = differs_from_previous(docs)  # a document may have a path more than once
        once[starts] = True
        self._add_dense(paths, np.add.reduceat(once, starts, dtype=np.int64), docs[once])
        for collection in COLLECTIONS:
            if not corpus.has_collection[collection]:
                if collection == PUBLIC:  # each node has a row for the public collection, even if empty
                    self.common.extend((path, PUBLIC, 0, b"", 0) for path in paths)
                continue
            members = (
                once & (corpus.collection[docs] == collection) if corpus.has_collection.sum() > 1 else once
            )
            counts = np.add.reduceat(members, starts, dtype=np.int64)
            limits = np.where(counts < LONG_LIST_FROM, list_limit(0), list_limit(LONG_LIST_FROM))
            listed = np.minimum(counts, limits)
            upto = np.cumsum(listed)
            best = docs[members][_first_of_runs(counts, listed)]
            packed = corpus.ids[best].astype("<u4").tobytes()
            bars = np.where(listed > 0, corpus.followers[best[upto - 1]] if best.size else 0, 0)
            cuts = (4 * upto).tolist()
            for path, count, begin, end, bar in zip(
                paths, counts.tolist(), [0, *cuts], cuts, bars.tolist(), strict=False
            ):
                if count or collection == PUBLIC:
                    self.common.append((path, collection, count, packed[begin:end], bar))

    def _add_dense(self, paths: list[bytes], counts: NDArray[np.int64], docs: Numbers) -> None:
        """Add the bits of the dense ones of some nodes, given the number of their documents [G] and these."""
        ends = np.cumsum(counts)
        for index in np.flatnonzero(counts >= dense_from(self.corpus.size, self.leaf_size)).tolist():
            if paths[index]:
                members = docs[ends[index] - counts[index] : ends[index]]
                add_dense(self.connection, paths[index], self.corpus.ids[members])

    def _packed_lists(
        self, starts: NDArray[np.int64], docs: Numbers, listed: NDArray[np.bool_], *, chunked: bool
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (group, chunk, packed ids) of the suffixes that are `listed` [S], each id once.

        With `chunked`, a group has one list for each chunk, otherwise one list.
        """
        if not listed.any():
            return
        key = np.repeat(np.arange(starts.size, dtype=np.uint64), np.diff(starts, append=docs.size))[listed]
        key <<= np.uint64(32)
        key |= self.corpus.ids[docs[listed]]
        key.sort()
        key = key[differs_from_previous(key)]
        ids = (key & _LOW).astype(np.int64)
        group = (key >> np.uint64(32)).astype(np.int64)
        chunks = ids >> CHUNK_BITS if chunked else np.zeros(ids.size, dtype=np.int64)
        begins = np.flatnonzero(differs_from_previous(group) | differs_from_previous(chunks))
        steps = np.diff(ids, prepend=0)
        steps[begins] = ids[begins]
        packed, ends = _pack_numbers(steps)
        cuts = ends[np.append(begins, ids.size)].tolist()
        names = chunks[begins].tolist()
        for index, chunk, begin, end in zip(group[begins].tolist(), names, cuts[:-1], cuts[1:], strict=True):
            yield index, chunk.to_bytes(2, "big"), packed[begin:end]

    def _write(self) -> None:
        self._insert("search_common VALUES (?, ?, ?, ?, ?)", self.common)
        self._insert("search_rare VALUES (?, ?)", self.rare)
        self._insert("search_crowds VALUES (?, ?, ?)", self.crowds)

    def _insert(self, into: str, rows: list[Any]) -> None:
        rows.sort()
        self.connection.executemany(f"INSERT INTO {into}", rows)
        rows.clear()


def _pack_numbers(numbers: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
    """Pack numbers as `format.pack_numbers` does; also return 0 and where each number ends."""
    sizes = np.ones(numbers.size, dtype=np.int64)
    for bits in (7, 14, 21, 28):
        sizes += numbers >= 1 << bits
    ends = np.concatenate([[0], np.cumsum(sizes)])
    packed = np.zeros(int(ends[-1]), dtype=np.uint8)
    for byte in range(int(sizes.max(initial=0))):
        here = sizes > byte
        more = (sizes[here] > byte + 1) * 128
        packed[ends[:-1][here] + byte] = (numbers[here] >> 7 * byte & 127) | more
    return packed.tobytes(), ends


def _first_of_runs(sizes: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indexes of the first `wanted` elements of each of several consecutive runs."""
    begins, written = np.cumsum(sizes) - sizes, np.cumsum(wanted) - wanted
    return np.repeat(begins - written, wanted) + np.arange(int(wanted.sum()))
