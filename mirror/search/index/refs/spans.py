"""Blocks and spans of the index of refs: keep their numbers of refs, and cut long ones.

A block has its number of refs for each list. A span consists of blocks, and has its number of refs for each
of the most common paths.

Array shapes: S spans, E entries (refs that leave or join lists), P pairs of an entry and a node.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from mirror.search.index.format import END
from mirror.search.index.refs.layout import (
    CHUNKS_IN_RANGE,
    KINDS,
    LISTS,
    NO_END,
    Sizes,
    list_key,
    pack_numbers,
    paths_of,
    unpack_counts,
    unpack_numbers,
    unpack_orders,
)
from mirror.search.index.refs.nodes import Entries, Integers, RefNodes
from mirror.search.names import COLLECTIONS

_STARTS = "SELECT start FROM search_ref_spans ORDER BY start"
_BEGIN = "INSERT INTO search_ref_spans VALUES (?)"
_BLOCKS_OF = """SELECT o.value, (SELECT max(start) FROM search_ref_blocks WHERE start <= o.value)
    FROM json_each(?) o"""
_BLOCK = "SELECT lists, counts FROM search_ref_blocks WHERE start = ?"
_END = "SELECT min(start) FROM search_ref_blocks WHERE start > ?"
_BLOCKS = "SELECT start, lists, counts FROM search_ref_blocks WHERE start >= ? AND start < ? ORDER BY start"
_WRITE_BLOCK = "INSERT OR REPLACE INTO search_ref_blocks VALUES (?, ?, ?)"
_DROP_BLOCK = "DELETE FROM search_ref_blocks WHERE start = ?"
_COUNTED = "SELECT path FROM search_ref_paths WHERE node IN (SELECT node FROM search_ref_counts)"
_ROWS = "SELECT node, collection, branches, tags FROM search_ref_counts"
_READ = "SELECT branches, tags FROM search_ref_counts WHERE node = ? AND collection = ?"
_WRITE = "INSERT OR REPLACE INTO search_ref_counts VALUES (?, ?, ?, ?)"
_LISTS_OF = """SELECT l.list, l.repositories, l.ages FROM search_ref_names n
    CROSS JOIN search_ref_lists l ON l.name_id = n.id WHERE instr(n.text, ?)"""
_IN_RANGE = f"SELECT l.name_id, l.list, l.repositories, l.ages FROM {CHUNKS_IN_RANGE}"
_DROP_LEAF = "DELETE FROM search_ref_rare WHERE path = ?"
_TEXTS = "SELECT id, text FROM search_ref_names WHERE id IN (SELECT value FROM json_each(?))"


def pack_counts(counts: Integers) -> bytes:
    """Pack numbers of one, two or four bytes each, as few as the largest needs."""
    largest = int(counts.max(initial=0))
    return counts.astype("u1" if largest < 1 << 8 else "<u2" if largest < 1 << 16 else "<u4").tobytes()


class Spans:
    """The blocks and spans of the index; a short index has none."""

    def __init__(self, connection: sqlite3.Connection, sizes: Sizes) -> None:
        self._connection = connection
        self._sizes = sizes
        self._starts = np.array([row[0] for row in connection.execute(_STARTS)], dtype=np.int64)
        self.counted = {row[0] for row in connection.execute(_COUNTED)}

    def apply(self, left: Entries, joined: Entries, nodes: RefNodes) -> None:
        """Count the refs that leave and join, begin to count paths that have grown, and cut what is long."""
        if not self._starts.size:
            return
        too_long = self._change_blocks(left, joined)
        self._change(left, joined, nodes)
        for node, refs in nodes.refs.items():
            if refs > 2 * self._sizes.counted and nodes.paths[node][0] not in self.counted:
                self._begin_to_count(node, nodes.paths[node])
        for start in too_long:
            self._cut_block(start)
        self._cut_long(nodes)

    def _change_blocks(self, left: Entries, joined: Entries) -> list[int]:
        """Change the numbers of refs in blocks; return the blocks that have become too long."""
        orders = json.dumps(np.unique(np.concatenate((left.orders, joined.orders))).tolist())
        block = dict(self._connection.execute(_BLOCKS_OF, (orders,)).fetchall())
        growth = defaultdict[int, Counter[int]](Counter)
        for entries, sign in ((left, -1), (joined, 1)):
            for name_id, which, order in entries.rows:
                growth[block[order]][list_key(name_id, which)] += sign
        too_long = list[int]()
        for start, more in sorted(growth.items()):
            lists, counts = self._connection.execute(_BLOCK, (start,)).fetchone()
            keys = unpack_numbers(lists)
            held = Counter(dict(zip(keys, unpack_counts(counts, len(keys)), strict=True)))
            held.update(more)
            if self._write_block(start, {key: count for key, count in held.items() if count > 0}):
                too_long.append(start)
        return too_long

    def _write_block(self, start: int, held: Mapping[int, int]) -> bool:
        """Write how many refs of each list a block has; return whether it is too long.

        A block that has none is dropped, unless a span begins with it.
        """
        if held or start in self._starts:
            counts = pack_counts(np.array(list(held.values()), dtype=np.int64))
            self._connection.execute(_WRITE_BLOCK, (start, pack_numbers(held), counts))
        else:
            self._connection.execute(_DROP_BLOCK, (start,))
        return sum(held.values()) > 2 * self._sizes.block

    def _cut_block(self, start: int) -> None:
        """Cut a block into parts of the right length, newest first; refs of one order stay together."""
        (end,) = self._connection.execute(_END, (start,)).fetchone()
        keys, orders = self._refs(start, end or NO_END)
        cuts = np.unique(np.sort(orders)[:: self._sizes.block])[1:]
        parts = np.searchsorted(cuts, orders, side="right")
        for part, begin in enumerate([start, *cuts.tolist()]):
            some, counts = np.unique(keys[parts == part], return_counts=True)
            self._write_block(begin, dict(zip(some.tolist(), counts.tolist(), strict=True)))

    def _change(self, left: Entries, joined: Entries, nodes: RefNodes) -> None:
        """Change the numbers of the counted nodes that the names of the entries have."""
        counted = np.zeros(max(nodes.paths) + 1, dtype=bool)
        counted[[node for node, paths in nodes.paths.items() if paths[0] in self.counted]] = True
        parts = []
        for entries, sign in ((left, -1), (joined, 1)):
            kept = counted[entries.node]
            spans = self._at(entries.orders)[entries.entry[kept]]
            parts.append((entries.cells[kept], spans, np.full(spans.size, sign)))
        cells, spans, signs = (np.concatenate(some) for some in zip(*parts, strict=True))
        order = np.argsort(cells // 2, kind="stable")
        rows, spans, signs = (
            cells[order] // 2,
            spans[order] + cells[order] % 2 * self._starts.size,
            signs[order],
        )
        touched, begins = np.unique(rows, return_index=True)
        ends = [*begins.tolist(), rows.size][1:]
        written = []
        for row, begin, end in zip(touched.tolist(), begins.tolist(), ends, strict=True):
            key = divmod(row, len(COLLECTIONS))
            growth = np.bincount(spans[begin:end], signs[begin:end], minlength=2 * self._starts.size)
            if growth.any():
                found = self._connection.execute(_READ, key).fetchone()
                counts = self._unpacked(found) + growth.astype(np.int64).reshape(2, -1)
                written.append((*key, *map(pack_counts, counts)))
        self._connection.executemany(_WRITE, written)

    def _begin_to_count(self, node: int, paths: Sequence[bytes]) -> None:
        """Count the refs of a node in each span."""
        self.counted.update(paths)
        # No reader looks below a counted path: see `paths_of`.
        self._connection.executemany(_DROP_LEAF, ((path + END,) for path in paths))
        orders = [list[int]() for _ in range(LISTS)]
        for which, *chunk in self._connection.execute(_LISTS_OF, (paths[0],)):
            orders[which] += unpack_orders(*chunk)
        counts = [
            np.bincount(self._at(np.array(some, dtype=np.int64)), minlength=self._starts.size)
            for some in orders
        ]
        for collection in COLLECTIONS:
            its = counts[2 * collection : 2 * collection + 2]
            if any(some.any() for some in its):
                self._connection.execute(_WRITE, (node, collection, *map(pack_counts, its)))

    def _cut_long(self, nodes: RefNodes) -> None:
        """Cut the spans with more than twice as many refs as they should have."""
        every = nodes.numbers[b""]
        rows = [self._connection.execute(_READ, (every, collection)).fetchone() for collection in COLLECTIONS]
        lengths = np.sum([self._unpacked(row) for row in rows], axis=(0, 1))
        for at in reversed(np.flatnonzero(lengths > 2 * self._sizes.span).tolist()):
            self._cut(at, nodes)

    def _cut(self, at: int, nodes: RefNodes) -> None:
        """Cut a span into parts of about the right length, where blocks begin."""
        low = int(self._starts[at])
        high = int(self._starts[at + 1]) if at + 1 < self._starts.size else NO_END
        cuts, keys, parts, length = list[int](), list[Integers](), list[Integers](), 0
        for start, lists, counts in self._connection.execute(_BLOCKS, (low, high)):
            its = np.array(unpack_numbers(lists), dtype=np.int64)
            keys.append(np.repeat(its, unpack_counts(counts, its.size)))
            if length >= self._sizes.span:
                cuts.append(start)
                length = 0
            length += keys[-1].size
            parts.append(np.full(keys[-1].size, len(cuts)))
        if not cuts:
            return
        self._connection.executemany(_BEGIN, ((start,) for start in cuts))
        counted = self._counts(np.concatenate(keys), np.concatenate(parts), len(cuts) + 1, nodes)
        for node, collection, *packed in self._connection.execute(_ROWS).fetchall():
            before = self._unpacked(packed)
            its = counted.get((node, collection), np.zeros((2, len(cuts) + 1), dtype=np.int64))
            after = np.concatenate((before[:, :at], its, before[:, at + 1 :]), axis=1)
            self._connection.execute(_WRITE, (node, collection, *map(pack_counts, after)))
        self._starts = np.concatenate((self._starts[: at + 1], cuts, self._starts[at + 1 :])).astype(np.int64)

    def _refs(self, low: int, high: int) -> tuple[Integers, Integers]:
        """Return the refs of a block: the number of the list of each, and its order."""
        keys, orders = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        lists, _ = self._connection.execute(_BLOCK, (low,)).fetchone()
        values = {"keys": json.dumps(unpack_numbers(lists)), "low": low, "high": high}
        for name_id, which, *chunk in self._connection.execute(_IN_RANGE, values):
            its = np.array(unpack_orders(*chunk), dtype=np.int64)
            orders.append(its[(its >= low) & (its < high)])
            keys.append(np.full(orders[-1].size, name_id * LISTS + which))
        return np.concatenate(keys), np.concatenate(orders)

    def _counts(
        self, keys: Integers, parts: Integers, number: int, nodes: RefNodes
    ) -> Mapping[tuple[int, int], Integers]:
        """Count refs by node, collection, kind and part."""
        by_key, rows = np.unique(keys, return_inverse=True)
        of_key = np.bincount(rows * number + parts, minlength=by_key.size * number).reshape(-1, number)
        ids = json.dumps(np.unique(by_key // LISTS).tolist())
        texts = dict(self._connection.execute(_TEXTS, (ids,)).fetchall())
        passed = {
            name_id: {nodes.numbers[path] for path in paths_of(text, self.counted)[0]}
            for name_id, text in texts.items()
        }
        counts = defaultdict[tuple[int, int], Integers](lambda: np.zeros((2, number), dtype=np.int64))
        for key, its in zip(by_key.tolist(), of_key, strict=True):
            name_id, which = divmod(key, LISTS)
            for node in passed[name_id]:
                counts[node, which // len(KINDS)][which % len(KINDS)] += its
        return counts

    def _at(self, orders: Integers) -> Integers:
        """Return the span of each order."""
        spans: Integers = np.searchsorted(self._starts, orders, side="right") - 1
        return spans

    def _unpacked(self, packed: Sequence[bytes] | None) -> Integers:
        """Return the numbers of branches and of tags in each span [2, S]; zeros for no row."""
        if packed is None:
            return np.zeros((2, self._starts.size), dtype=np.int64)
        kinds = ({1: "u1", 2: "<u2", 4: "<u4"}[len(part) // self._starts.size] for part in packed)
        parts = [np.frombuffer(part, dtype=kind) for part, kind in zip(packed, kinds, strict=True)]
        return np.stack(parts).astype(np.int64)
