"""A batch of changed rows, as arrays. Shapes: E entries.

It consists of *entries*, which take the place of documents in `build`: an entry is a text that leaves the
index or joins it.
"""

from dataclasses import dataclass
from itertools import compress
from operator import eq

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.backlog import PreparedRows
from mirror.search.index.format import (
    DEEPEST,
    END,
)


@dataclass(slots=True)
class Batch:
    """The entries of changed rows: an old text leaves the index, a new text joins it.

    A repository that keeps its text and collection is one entry that leaves and joins.

    text: the entries' texts, each followed by END, then DEEPEST zeros.
    starts: where in `text` each entry begins [E].
    row: the number of each entry's row among those that changed [E].
    ids, collection, followers: of each entry's repository [E].
    leaves, joins: whether the entry leaves, and whether it joins [E].
    is_new: whether it joins with another text than the old one, so that leaves must learn its id [E].
    """

    text: NDArray[np.uint8]
    starts: Numbers
    row: NDArray[np.int64]
    ids: Numbers
    leaves: NDArray[np.bool_]
    joins: NDArray[np.bool_]
    is_new: NDArray[np.bool_]
    collection: NDArray[np.uint8]
    followers: NDArray[np.int64]

    def suffixes(self) -> tuple[Numbers, Numbers]:
        """Return the position of every suffix except a single END, and its entry, both in order."""
        text = self.text[:-DEEPEST]
        positions = np.flatnonzero(text != END[0]).astype(np.uint32)
        entries = np.searchsorted(self.starts, positions, side="right").astype(np.uint32) - np.uint32(1)
        return positions, entries


def batch_of(changed: PreparedRows) -> Batch:
    """Return the entries of changed rows, in their order: of each, what leaves before what joins."""
    same_text = np.array(list(map(eq, changed.was_texts, changed.texts)), dtype=bool)
    same = same_text & list(map(eq, changed.was_collections, changed.collections))
    was_there = np.array(list(map(bool, changed.was_texts)), dtype=bool)
    joining = ~same & list(map(bool, changed.texts))
    texts = [*compress(changed.was_texts, was_there.tolist()), *compress(changed.texts, joining.tolist())]
    row = np.concatenate([np.flatnonzero(was_there), np.flatnonzero(joining)])
    order = np.argsort(row, kind="stable")
    row, leaves = row[order], order < np.count_nonzero(was_there)
    texts = list(map(texts.__getitem__, order.tolist()))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1
    collections = [
        *compress(changed.was_collections, was_there.tolist()),
        *compress(changed.collections, joining.tolist()),
    ]
    return Batch(
        text=np.frombuffer(END.join([*texts, bytes(DEEPEST)]), dtype=np.uint8),
        starts=(np.cumsum(lengths) - lengths).astype(np.uint32),
        row=row,
        ids=np.array(changed.ids, dtype=np.uint32)[row],
        leaves=leaves,
        joins=~leaves | same[row],
        is_new=~leaves & ~same_text[row],
        collection=np.array(collections, dtype=np.uint8)[order],
        followers=np.array(changed.followers, dtype=np.int64)[row],
    )
