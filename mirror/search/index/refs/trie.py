"""Build the trie of the suffixes of all names, level by level: nodes, leaves, and numbers in spans.

Array shapes: R refs, D different names, S suffixes, G groups of suffixes that begin alike.
"""

import hashlib
import sqlite3
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.build import differs_from_previous, keep_groups, paths_at, split_groups
from mirror.search.index.format import END
from mirror.search.index.refs.layout import (
    DEEPEST,
    ID_BITS,
    KINDS,
    LISTED,
    NAME_COST,
    Sizes,
    list_of,
    text_of,
)
from mirror.search.index.refs.spans import pack_counts
from mirror.search.names import COLLECTIONS, PUBLIC


@dataclass
class AllLists:
    """The lists of all names: where each begins and ends in `age` and `repository`.

    bounds: by name and list [D, LISTS, 2]. place: the name and the list of each ref, as one number [R].
    """

    bounds: NDArray[np.int64]
    place: NDArray[np.int64]
    age: Numbers
    repository: Numbers

    @cached_property
    def orders(self) -> NDArray[np.int64]:
        """The order of each ref [R]."""
        orders: NDArray[np.int64] = self.age.astype(np.int64) << ID_BITS | self.repository
        return orders

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of refs in each list [D, LISTS]."""
        sizes: NDArray[np.int64] = self.bounds[:, :, 1] - self.bounds[:, :, 0]
        return sizes


@dataclass
class AllSpans:
    """The span of each ref of the lists [R], and how many spans there are; none in a short index."""

    of: NDArray[np.uint32]
    number: int


CountedRow = tuple[int, int, int, int, int, int, bytes, bytes]
"""A row of a node without its number: collection; branches, tags; repositories with branches, with tags, with
either; the best branches, the best tags."""

SpanRow = tuple[int, bytes, bytes]
"""A row of a node's counts in the spans, without its number: collection, branches, tags."""


class _Node(NamedTuple):
    """What the index has of common paths, by collection; `spans` is empty for paths with few refs."""

    number: int
    rows: list[CountedRow]
    spans: list[SpanRow]


class NameTrie:
    """Follows the suffixes of all names, level by level, and writes nodes and leaves."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        names: list[str],
        lists: AllLists,
        spans: AllSpans,
        highest_id: int,
        sizes: Sizes,
    ) -> None:
        self._connection = connection
        self._lists = lists
        self._sizes = lists.sizes
        self._cost = self._sizes.sum(axis=1) + NAME_COST
        self._spans = spans
        self._limits = sizes
        self._seen = np.zeros(highest_id + 1, dtype=bool)
        self._known = dict[bytes, _Node]()
        texts = [text_of(name) + END for name in names]
        self._text = np.frombuffer(b"".join(texts) + bytes(DEEPEST + 1), dtype=np.uint8)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self._starts = np.cumsum(lengths) - lengths

    def run(self) -> None:
        """Follow all suffixes to the first path that is not common, and write what they pass."""
        common, rare = list[tuple[bytes, _Node]](), list[tuple[bytes, int, bytes]]()
        common.append((b"", self._node(np.arange(self._cost.size, dtype=np.uint32))))
        positions = np.flatnonzero(self._text[: -DEEPEST - 1] != END[0]).astype(np.uint32)
        docs = (np.searchsorted(self._starts, positions, side="right") - 1).astype(np.uint32)
        group = np.zeros(positions.size, dtype=np.uint64)
        depth = 0
        while positions.size:
            positions, docs, starts = split_groups(self._text, positions, docs, group, depth)
            depth += 1
            paths = paths_at(self._text, positions[starts], depth)
            once = differs_from_previous(docs)
            once[starts] = True
            costs = np.add.reduceat(np.where(once, self._cost[docs], 0), starts)
            ended = np.array([path.endswith(END) for path in paths])
            is_common = (costs > self._limits.common_cost) & ~ended & (depth < DEEPEST)
            ends = [*starts[1:].tolist(), positions.size]
            for index, (begin, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
                members = docs[begin:end][once[begin:end]]
                if is_common[index]:
                    common.append((paths[index], self._node(members)))
                else:
                    rare.append((paths[index], int(costs[index]), (members + 1).astype("<u4").tobytes()))
            positions, docs, group = keep_groups(positions, docs, starts, is_common)
        self._write(common, rare)

    def _write(self, common: list[tuple[bytes, _Node]], rare: list[tuple[bytes, int, bytes]]) -> None:
        self._connection.executemany(
            "INSERT INTO search_ref_paths VALUES (?, ?)",
            ((path, node.number) for path, node in sorted(common, key=itemgetter(0))),
        )
        self._connection.executemany(
            "INSERT INTO search_ref_common VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((node.number, *row) for node in self._known.values() for row in node.rows),
        )
        self._connection.executemany(
            "INSERT INTO search_ref_counts VALUES (?, ?, ?, ?)",
            ((node.number, *row) for node in self._known.values() for row in node.spans),
        )
        ended = {path + END for path, node in common if node.spans}  # see `paths_of`
        self._connection.executemany(
            "INSERT INTO search_ref_rare VALUES (?, ?, ?)",
            (leaf for leaf in sorted(rare) if leaf[0] not in ended),
        )

    def _node(self, names: Numbers) -> _Node:
        """Make the node of some names, once: many paths have the same names."""
        key = hashlib.blake2b(names.tobytes(), digest_size=16).digest()
        if key not in self._known:
            found = (self._of_collection(names, collection) for collection in COLLECTIONS)
            rows = [row for row in found if row[1] or row[2] or row[0] == PUBLIC]
            is_counted = self._spans.number and self._cost[names].sum() > self._limits.counted
            spans = [self._by_span(names, row[0]) for row in rows] if is_counted else []
            self._known[key] = _Node(len(self._known) + 1, rows, spans)
        return self._known[key]

    def _by_span(self, names: Numbers, collection: int) -> SpanRow:
        """Count the refs of some names in each span."""
        counts = list[bytes]()
        for kind in KINDS:
            bounds = self._lists.bounds[names, list_of(collection, kind)]
            parts = [self._spans.of[begin:end] for begin, end in bounds[bounds[:, 1] > 0].tolist()]
            together = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint32)
            counts.append(pack_counts(np.bincount(together, minlength=self._spans.number)))
        return collection, counts[0], counts[1]

    def _of_collection(self, names: Numbers, collection: int) -> CountedRow:
        by_kind = [names[self._sizes[names, list_of(collection, kind)] > 0] for kind in KINDS]
        lists = [list_of(collection, kind) for kind in KINDS]
        branches, tags = (
            int(self._sizes[some, which].sum()) for some, which in zip(by_kind, lists, strict=True)
        )
        ids = [self._repositories(some, which) for some, which in zip(by_kind, lists, strict=True)]
        best = [self._best(some, which) for some, which in zip(by_kind, lists, strict=True)]
        alone = [self._different(some) for some in ids]
        either = self._different(ids[0] + ids[1]) if all(ids) else sum(alone)
        return (collection, branches, tags, alone[0], alone[1], either, best[0], best[1])

    def _repositories(self, names: Numbers, which: int) -> list[Numbers]:
        bounds = self._lists.bounds[names, which].tolist()
        return [self._lists.repository[begin:end] for begin, end in bounds]

    def _different(self, ids: list[Numbers]) -> int:
        """Count the different repositories in some lists, each of which has none twice."""
        if len(ids) < 2:
            return sum(some.size for some in ids)
        together = np.concatenate(ids)
        self._seen[together] = True
        number = int(np.count_nonzero(self._seen))
        self._seen[together] = False
        return number

    def _best(self, names: Numbers, which: int) -> bytes:
        """Pack the best refs of a list of some names.

        Only names whose newest ref is among the LISTED newest ones can have one of the best.
        """
        begins = self._lists.bounds[names, which, 0]
        if names.size > LISTED:
            newest = self._lists.orders[begins]
            names = names[newest <= np.partition(newest, LISTED - 1)[LISTED - 1]]
        bounds = self._lists.bounds[names, which]
        begins, sizes = bounds[:, 0], np.minimum(bounds[:, 1] - bounds[:, 0], LISTED)
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if ends.size else 0
        places = np.arange(total) + np.repeat(begins - (ends - sizes), sizes)
        of = np.repeat(names, sizes)
        order = np.lexsort((of, self._lists.orders[places]))[:LISTED]
        ages, repositories = self._lists.age[places[order]], self._lists.repository[places[order]]
        rows = np.stack((ages, repositories, of[order] + np.uint32(1)), axis=1)
        return rows.astype("<u4").tobytes()
