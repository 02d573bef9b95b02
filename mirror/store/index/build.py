"""Building the index from nothing, level by level over all suffixes at once, with numpy.

Memory is bounded by taking the suffixes in turns by their first bytes; at ten million repositories a build
stays below 1.5 GB. The rows are written in the order of their paths, which packs the tables densely.
"""

import sqlite3
from collections.abc import Iterator
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mirror.store.index.corpus import Corpus, read_corpus
from mirror.store.index.suffixes import Numbers, cut_out, divided, first_of_equals, kept_groups
from mirror.trie import (
    CHUNK_BITS,
    COLLECTIONS,
    DEEPEST,
    END,
    LEAF_SIZE,
    LONG,
    PUBLIC,
    SHORTEST_LISTED,
    listed,
)

TURN = 6_000_000
"""How many suffixes are sorted at once; each costs some 40 bytes."""

Rows = list[tuple[bytes, bytes]]

_END = END[0]
_MARK = 0xFF
_LOW = np.uint64(0xFFFFFFFF)


def build(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Write the index of all rows in `repositories`, in place of what was there; belongs in a transaction."""
    for table in ("common", "rare", "crowds", "pending"):
        connection.execute(f"DELETE FROM search_{table}")
    corpus = read_corpus(connection)
    connection.execute("UPDATE search_state SET up_to = ?", (corpus.highest_id,))
    if corpus.size:
        _Build(connection, corpus, leaf_size).run()


class _Build:
    def __init__(self, connection: sqlite3.Connection, corpus: Corpus, leaf_size: int) -> None:
        self.connection = connection
        self.corpus = corpus
        self.leaf_size = leaf_size
        self.crowded = np.zeros(corpus.size, dtype=bool)
        self.common = list[tuple[bytes, int, int, bytes, int]]()
        self.rare = Rows()
        self.crowds = list[tuple[bytes, bytes, bytes]]()

    def run(self) -> None:
        """Find the crowds first, for the other lists leave them out; then write byte by byte."""
        everyone = np.arange(self.corpus.size, dtype=np.uint32)
        self._tally([b""], np.zeros(1, dtype=np.int64), everyone)
        self._flush()
        self._grow_from(_MARK, only_crowds=True)
        for byte in self.corpus.first_bytes():
            self._grow_from(byte)
            self._flush()

    def _grow_from(self, byte: int, *, only_crowds: bool = False) -> None:
        at, of = self.corpus.suffixes(byte)
        if at.size > TURN:
            self._part(at, of, np.zeros(1, dtype=np.int64), 1, only_crowds=only_crowds)
            self._grow_in_turns(at, of, 2, only_crowds=only_crowds)
        else:
            self._grow(at, of, 1, only_crowds=only_crowds)

    def _grow(self, at: Numbers, of: Numbers, depth: int, *, only_crowds: bool = False) -> None:
        """Follow suffixes that begin alike for `depth` bytes: at these places, of these repositories.

        Sorting by the bytes that follow leaves those that agree in the order of popularity they came in.
        """
        starts = np.zeros(1, dtype=np.int64)
        while at.size:
            common = self._part(at, of, starts, depth, only_crowds=only_crowds)
            at, of, group = kept_groups(at, of, starts, common)
            if not at.size:
                return
            if group[-1] == 0 and at.size > TURN:
                self._grow_in_turns(at, of, depth + 1, only_crowds=only_crowds)
                return
            at, of, starts = divided(self.corpus.text, at, of, group, depth)
            depth += 1

    def _grow_in_turns(self, at: Numbers, of: Numbers, depth: int, *, only_crowds: bool) -> None:
        following = self.corpus.text[at + np.uint32(depth - 1)]
        for byte in np.flatnonzero(np.bincount(following)):
            here = following == byte
            self._grow(at[here], of[here], depth, only_crowds=only_crowds)
            if not only_crowds:
                self._flush()

    def _part(
        self, at: Numbers, of: Numbers, starts: NDArray[np.int64], depth: int, *, only_crowds: bool
    ) -> NDArray[np.bool_]:
        """Tell common groups from rare ones and keep the rows of both; returns which are common."""
        sizes = np.diff(starts, append=at.size)
        first = at[starts]
        ended = self.corpus.text[first + np.uint32(depth - 1)] == _END
        common: NDArray[np.bool_] = (sizes > self.leaf_size) & ~ended & (depth < DEEPEST)
        if only_crowds:
            self._mark_crowds(at, of, np.repeat(ended, sizes))
            return common
        kept = np.repeat(common, sizes)
        paths = cut_out(self.corpus.text, first, depth)
        if common.any():
            shared = np.cumsum(sizes[common]) - sizes[common]
            self._tally(list(compress(paths, common.tolist())), shared, of if kept.all() else of[kept])
        self._list(paths, starts, of, ~kept & np.repeat(~ended, sizes))
        if depth > SHORTEST_LISTED:
            self._list(paths, starts, of, np.repeat(ended, sizes) & ~self.crowded[of], ended=True)
        if ended.any():
            self._list_crowds(paths, starts, at, of, np.repeat(ended, sizes))
        return common

    def _mark_crowds(self, at: Numbers, of: Numbers, ended: NDArray[np.bool_]) -> None:
        whole = ended & (at == self.corpus.starts[of])
        self.crowded[of[whole]] = True

    def _tally(self, paths: list[bytes], starts: NDArray[np.int64], of: Numbers) -> None:
        """Count each common group's repositories, by collection, and list the best: the first of each."""
        corpus = self.corpus
        once = first_of_equals(of)
        once[starts] = True
        for collection in COLLECTIONS:
            if not corpus.holds[collection]:
                if collection == PUBLIC:
                    self.common.extend((path, PUBLIC, 0, b"", 0) for path in paths)
                continue
            mine = once & (corpus.collection[of] == collection) if corpus.holds.sum() > 1 else once
            counts = np.add.reduceat(mine, starts, dtype=np.int64)
            most = np.minimum(counts, np.where(counts < LONG, listed(0), listed(LONG)))
            upto = np.cumsum(most)
            best = of[mine][_heads(counts, most)]
            packed = corpus.ids[best].astype("<u4").tobytes()
            bars = np.where(most > 0, corpus.followers[best[upto - 1]] if best.size else 0, 0)
            cuts = (4 * upto).tolist()
            for path, count, begin, end, bar in zip(
                paths, counts.tolist(), [0, *cuts], cuts, bars.tolist(), strict=False
            ):
                if count or collection == PUBLIC:
                    self.common.append((path, collection, count, packed[begin:end], bar))

    def _list(
        self,
        paths: list[bytes],
        starts: NDArray[np.int64],
        of: Numbers,
        kept: NDArray[np.bool_],
        *,
        ended: bool = False,
    ) -> None:
        """Keep the complete lists of some groups' repositories, each once."""
        for index, chunk, packed in self._lists(starts, of, kept, chunked=ended):
            self.rare.append((paths[index] + chunk if ended else paths[index], packed))

    def _list_crowds(
        self,
        paths: list[bytes],
        starts: NDArray[np.int64],
        at: Numbers,
        of: Numbers,
        ended: NDArray[np.bool_],
    ) -> None:
        kept = ended & self.crowded[of] & (at == self.corpus.starts[of])
        for index, chunk, packed in self._lists(starts, of, kept, chunked=True):
            self.crowds.append((paths[index][:-1], chunk, packed))

    def _lists(
        self, starts: NDArray[np.int64], of: Numbers, kept: NDArray[np.bool_], *, chunked: bool
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (group, chunk, packed ids); without `chunked` there is one list a group."""
        if not kept.any():
            return
        key = np.repeat(np.arange(starts.size, dtype=np.uint64), np.diff(starts, append=of.size))[kept]
        key <<= np.uint64(32)
        key |= self.corpus.ids[of[kept]]
        key.sort()
        key = key[first_of_equals(key)]
        ids = (key & _LOW).astype(np.int64)
        group = (key >> np.uint64(32)).astype(np.int64)
        chunks = ids >> CHUNK_BITS if chunked else np.zeros(ids.size, dtype=np.int64)
        begins = np.flatnonzero(first_of_equals(group) | first_of_equals(chunks))
        steps = np.diff(ids, prepend=0)
        steps[begins] = ids[begins]
        packed, ends = _packed(steps)
        cuts = ends[np.append(begins, ids.size)].tolist()
        names = chunks[begins].tolist()
        for index, chunk, begin, end in zip(group[begins].tolist(), names, cuts[:-1], cuts[1:], strict=True):
            yield index, chunk.to_bytes(2, "big"), packed[begin:end]

    def _flush(self) -> None:
        self.common.sort()
        self.rare.sort()
        self.crowds.sort()
        self.connection.executemany("INSERT INTO search_common VALUES (?, ?, ?, ?, ?)", self.common)
        self.connection.executemany("INSERT INTO search_rare VALUES (?, ?)", self.rare)
        self.connection.executemany("INSERT INTO search_crowds VALUES (?, ?, ?)", self.crowds)
        self.common.clear()
        self.rare.clear()
        self.crowds.clear()


def _packed(numbers: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
    """Write numbers as `mirror.trie.pack_list` does its steps; returns where each ends, too, after a 0."""
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


def _heads(sizes: NDArray[np.int64], most: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the first `most` of each of some runs that follow each other."""
    begins, written = np.cumsum(sizes) - sizes, np.cumsum(most) - most
    return np.repeat(begins - written, most) + np.arange(int(most.sum()))
