"""Building the index from nothing, level by level over all suffixes at once, with numpy.

Memory is bounded by taking the suffixes in turns by their first bytes; at ten million repositories a build
stays below 1.5 GB. The rows are written in the order of their paths, which packs the tables densely.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.format import (
    CHUNK_BITS,
    COLLECTIONS,
    DEEPEST,
    END,
    LEAF_SIZE,
    LONG,
    PUBLIC,
    SHORTEST_LISTED,
    collection_of,
    listed,
)
from mirror.search.names import searched_text

CHUNK = 16_000_000
ROWS = 50_000

_ROWS = """SELECT id, name, slug, is_private, deleted_at, followers_count, forks_count, created_at
    FROM repositories ORDER BY id"""
_AGES = "SELECT dense_rank() OVER (ORDER BY coalesce(created_at, '')) FROM repositories ORDER BY id"


@dataclass(slots=True)
class Corpus:
    """The texts of all repositories, each with END behind it, the most popular first.

    Repositories are known by their place in that order; `starts` says where their text begins. `holds` says
    which collections are not empty.
    """

    text: NDArray[np.uint8]
    starts: NDArray[np.uint32]
    ids: NDArray[np.uint32]
    collection: NDArray[np.uint8]
    followers: NDArray[np.int64]
    holds: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """How many repositories there are."""
        return self.ids.size

    @property
    def highest_id(self) -> int:
        """The highest id; 0 where there is none."""
        return int(self.ids.max(initial=0))

    def first_bytes(self) -> list[int]:
        """Return the bytes that suffixes begin with, END left out."""
        counts = np.zeros(256, dtype=np.int64)
        for begin in range(0, self.text.size - DEEPEST, CHUNK):
            counts += np.bincount(self.text[begin : begin + CHUNK], minlength=256)
        counts[0] -= DEEPEST  # what stands behind the last text
        return [byte for byte in np.flatnonzero(counts).tolist() if byte != END[0]]

    def suffixes(self, byte: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Find the suffixes that begin with a byte: where they are, and whose; the most popular first."""
        text = self.text[:-DEEPEST]
        at, of = [np.zeros(0, dtype=np.uint32)], [np.zeros(0, dtype=np.uint32)]
        for begin in range(0, text.size, CHUNK):
            here = (np.flatnonzero(text[begin : begin + CHUNK] == byte) + begin).astype(np.uint32)
            at.append(here)
            of.append(np.searchsorted(self.starts, here, side="right").astype(np.uint32) - np.uint32(1))
        return np.concatenate(at), np.concatenate(of)


def read_corpus(connection: sqlite3.Connection) -> Corpus:
    """Read everything that the index is built from; at ten million rows every copy counts."""
    size = connection.execute("SELECT count(*) FROM repositories").fetchone()[0]
    raw = bytearray()
    lengths = np.empty(size, dtype=np.uint32)
    ids = np.empty(size, dtype=np.uint32)
    collection = np.empty(size, dtype=np.uint8)
    falling = np.empty((3, size), dtype=np.int64)  # followers, forks, moments, all below zero: low is popular
    begin, is_odd = 0, False
    cursor = connection.execute(_ROWS)
    while rows := cursor.fetchmany(ROWS):
        end = begin + len(rows)
        row_ids, names, slugs, private, deleted, followers, forks, created = zip(*rows, strict=True)
        texts = list(map(searched_text, names, slugs))
        lengths[begin:end] = np.fromiter(map(len, texts), dtype=np.uint32, count=len(texts)) + 1
        raw += END.join(texts) + END
        ids[begin:end] = row_ids
        collection[begin:end] = np.fromiter(map(collection_of, private, deleted), dtype=np.uint8)
        falling[0, begin:end] = [-(number or 0) for number in followers]
        falling[1, begin:end] = [-(number or 0) for number in forks]
        moments = _moments(created)
        is_odd |= moments is None
        falling[2, begin:end] = 0 if moments is None else -moments
        begin = end
    if is_odd:  # a moment of unusual form: SQLite orders them all
        falling[2] = -np.fromiter((row[0] for row in connection.execute(_AGES)), dtype=np.int64)
    order = np.lexsort(falling[::-1])
    followed = -falling[0, order]
    del falling
    text, starts = _reordered(raw, lengths, order)
    return Corpus(
        text=text,
        starts=starts,
        ids=ids[order],
        collection=collection[order],
        followers=followed,
        holds=np.bincount(collection, minlength=len(COLLECTIONS)) > 0,
    )


def _reordered(
    raw: bytearray, lengths: NDArray[np.uint32], order: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Put texts into another order, with room behind the last; returns them and where each begins."""
    source = np.frombuffer(raw, dtype=np.uint8)
    begins = np.cumsum(lengths, dtype=np.uint32) - lengths
    moved = lengths[order].astype(np.int64)
    ends = np.cumsum(moved)
    text = np.zeros(source.size + DEEPEST, dtype=np.uint8)
    for first in range(0, order.size, ROWS):
        some = slice(first, first + ROWS)
        here = int(ends[first] - moved[first])
        steps = np.arange(here, ends[some][-1]) - np.repeat(ends[some] - moved[some], moved[some])
        text[here : here + steps.size] = source[np.repeat(begins[order[some]], moved[some]) + steps]
    return text, (ends - moved).astype(np.uint32)


_DIGITS = np.array([index for index, letter in enumerate("0000-00-00T00:00:00.000000Z") if letter == "0"])
_FIXED = np.array([index for index, letter in enumerate("0000-00-00T00:00:00.000000Z") if letter != "0"])
_BETWEEN = np.frombuffer(b"--T::.Z", dtype=np.uint8)


def _moments(texts: tuple[str | None, ...]) -> NDArray[np.int64] | None:
    """Read moments in the form of `mirror.times` as numbers that keep their order; None for another form."""
    told = np.array([text is not None for text in texts])
    if not all(text is None or (len(text) == 27 and text.isascii()) for text in texts):
        return None
    letters = np.frombuffer(
        "".join(text or "0000-00-00T00:00:00.000000Z" for text in texts).encode(), np.uint8
    )
    letters = letters.reshape(-1, 27)
    digits = letters[:, _DIGITS].astype(np.int64) - ord("0")
    if (letters[:, _FIXED] != _BETWEEN).any() or (digits < 0).any() or (digits > 9).any():
        return None
    seconds = _number(digits[:, :4])
    for begin, size in ((4, 13), (6, 32), (8, 24), (10, 60), (12, 61)):
        part = _number(digits[:, begin : begin + 2])
        if (part >= size).any():
            return None
        seconds = seconds * size + part
    return np.where(told, seconds * 1_000_000 + _number(digits[:, 14:]), -1)


def _number(digits: NDArray[np.int64]) -> NDArray[np.int64]:
    number = digits[:, 0]
    for column in range(1, digits.shape[1]):
        number = number * 10 + digits[:, column]
    return number


Numbers = NDArray[np.uint32]

_LOW = np.uint64(0xFFFFFFFF)


def divided(
    text: NDArray[np.uint8], at: Numbers, of: Numbers, group: NDArray[np.uint64], depth: int
) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """Divide groups of suffixes by their byte number `depth`, counted from 0.

    `group` numbers the group that each is in, in rising order. Returns the suffixes in their new order, in
    which those of a group keep the order they came in, and where each new group starts.
    """
    key = group << np.uint64(8) | text[at + np.uint32(depth)]
    key <<= np.uint64(32)
    key |= np.arange(at.size, dtype=np.uint64)
    key.sort(kind="stable")  # which is quick with what is nearly in order
    order = (key & _LOW).astype(np.uint32)
    key >>= np.uint64(32)
    return at[order], of[order], np.flatnonzero(first_of_equals(key))


def kept_groups(
    at: Numbers, of: Numbers, starts: NDArray[np.int64], kept: NDArray[np.bool_]
) -> tuple[Numbers, Numbers, NDArray[np.uint64]]:
    """Leave out the groups that are not followed any further; returns each suffix's group, too."""
    sizes = np.diff(starts, append=at.size)
    each = np.repeat(kept, sizes)
    return at[each], of[each], np.repeat(np.arange(np.count_nonzero(kept), dtype=np.uint64), sizes[kept])


def cut_out(text: NDArray[np.uint8], at: Numbers, length: int) -> list[bytes]:
    """Cut out what begins at some places."""
    cut = text[at[:, None] + np.arange(length, dtype=np.uint32)].tobytes()
    return [cut[begin : begin + length] for begin in range(0, len(cut), length)]


def first_of_equals(key: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each key whether it differs from the one before."""
    first = np.ones(key.size, dtype=bool)
    np.not_equal(key[1:], key[:-1], out=first[1:])
    return first


TURN = 6_000_000
"""How many suffixes are sorted at once; each costs some 40 bytes."""

Rows = list[tuple[bytes, bytes]]

_END = END[0]
_MARK = 0xFF


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
    """Encode numbers as `format.pack_list` does its steps; also return where each ends, after a 0."""
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
