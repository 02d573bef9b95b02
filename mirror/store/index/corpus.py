"""All searched texts in one piece, as the building of the index needs them."""

import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirror.names import searched_text
from mirror.trie import COLLECTIONS, DEEPEST, END, collection_of

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
