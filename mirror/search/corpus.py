"""The texts that the index is built from: all documents, read from the rows, the most popular first.

Terms and shapes of arrays as in `mirror.search.index.build`.
"""

import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.format import DEEPEST, END
from mirror.search.names import COLLECTIONS, collection_of, searched_text

Numbers = NDArray[np.uint32]

_BYTES_AT_ONCE = 16_000_000
_ROWS_AT_ONCE = 50_000
_END = END[0]

_ROWS = """SELECT id, name, slug, is_private, deleted_at, followers_count, forks_count, created_at
    FROM repositories ORDER BY id"""
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
    """Read all rows and sort them by popularity. At ten million rows every copy counts."""
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
        row_ids, names, slugs, private, deleted, followers, forks, created = zip(*rows, strict=True)
        texts = list(map(searched_text, names, slugs))
        lengths[begin:end] = np.fromiter(map(len, texts), dtype=np.uint32, count=len(texts)) + 1
        raw += END.join(texts) + END
        ids[begin:end] = row_ids
        collection[begin:end] = np.fromiter(map(collection_of, private, deleted), dtype=np.uint8)
        negated[0, begin:end] = [-(number or 0) for number in followers]
        negated[1, begin:end] = [-(number or 0) for number in forks]
        times = _times_as_numbers(created)
        has_odd_times |= times is None
        negated[2, begin:end] = 0 if times is None else -times
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


_TIME = "0000-00-00T00:00:00.000000Z"  # the form that `mirror.times` writes
_DIGITS = np.array([index for index, letter in enumerate(_TIME) if letter == "0"])
_SIGNS = np.array([index for index, letter in enumerate(_TIME) if letter != "0"])
_SIGN_BYTES = np.frombuffer(b"--T::.Z", dtype=np.uint8)


def _times_as_numbers(texts: tuple[str | None, ...]) -> NDArray[np.int64] | None:
    """Return times as numbers of the same order, -1 for None; None if any is not of the form _TIME."""
    known = np.array([text is not None for text in texts])
    if not all(text is None or (len(text) == len(_TIME) and text.isascii()) for text in texts):
        return None
    letters = np.frombuffer("".join(text or _TIME for text in texts).encode(), np.uint8)
    letters = letters.reshape(-1, len(_TIME))
    digits = letters[:, _DIGITS].astype(np.int64) - ord("0")
    if (letters[:, _SIGNS] != _SIGN_BYTES).any() or (digits < 0).any() or (digits > 9).any():
        return None
    seconds = _decimal(digits[:, :4])
    for begin, size in ((4, 13), (6, 32), (8, 24), (10, 60), (12, 61)):
        part = _decimal(digits[:, begin : begin + 2])
        if (part >= size).any():
            return None
        seconds = seconds * size + part
    return np.where(known, seconds * 1_000_000 + _decimal(digits[:, 14:]), -1)


def _decimal(digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers whose decimal digits are the rows of an array."""
    number = digits[:, 0]
    for column in range(1, digits.shape[1]):
        number = number * 10 + digits[:, column]
    return number
