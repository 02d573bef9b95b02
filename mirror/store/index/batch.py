"""The changes that the index learns at once, as arrays: who leaves it and who joins it, an entry for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirror.store.index.moves import Move
from mirror.store.index.suffixes import Numbers
from mirror.trie import DEEPEST, END


@dataclass(slots=True)
class Batch:
    """Entries: a repository that moves leaves as it was and joins as it is.

    `text` holds each entry's text with END behind it, beginning at `starts`, and room behind the last.
    `is_new` says of who joins that the text is another than it was, so that its lists have to learn of it.
    """

    text: NDArray[np.uint8]
    starts: Numbers
    ids: Numbers
    joins: NDArray[np.bool_]
    is_new: NDArray[np.bool_]
    collection: NDArray[np.uint8]
    followers: NDArray[np.int64]

    def suffixes(self) -> tuple[Numbers, Numbers]:
        """Return where every suffix begins, END alone left out, and whose it is."""
        text = self.text[:-DEEPEST]
        at = np.flatnonzero(text != END[0]).astype(np.uint32)
        return at, np.searchsorted(self.starts, at, side="right").astype(np.uint32) - np.uint32(1)


def batch_of(moves: Sequence[Move]) -> Batch:
    """Shape some moves."""
    leaving = [(move, move.was) for move in moves if move.was is not None]
    joining = [(move, move.now) for move in moves if move.now is not None]
    entries = [*leaving, *joining]
    text = b"".join([place.text + END for _, place in entries])
    lengths = np.array([len(place.text) + 1 for _, place in entries], dtype=np.int64)
    joins = np.arange(len(entries)) >= len(leaving)
    changed = [move.was is None or move.was.text != place.text for move, place in entries]
    return Batch(
        text=np.frombuffer(text + bytes(DEEPEST), dtype=np.uint8),
        starts=(np.cumsum(lengths) - lengths).astype(np.uint32),
        ids=np.array([move.id for move, _ in entries], dtype=np.uint32),
        joins=joins,
        is_new=joins & np.array(changed, dtype=bool),
        collection=np.array([place.collection for _, place in entries], dtype=np.uint8),
        followers=np.array([-move.popularity[0] for move, _ in entries], dtype=np.int64),
    )
