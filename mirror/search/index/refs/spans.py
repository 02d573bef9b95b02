"""Spans of the index of refs: keep how many refs of the most common paths lie in each, and cut long ones.

Array shapes: S spans, E entries (refs that leave or join lists), P pairs of an entry and a node.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from mirror.search.index.format import END
from mirror.search.index.refs.layout import (
    IN_SPAN,
    KINDS,
    LISTS,
    NO_END,
    Sizes,
    list_key,
    pack_numbers,
    paths_of,
    unpack_numbers,
    unpack_orders,
)
from mirror.search.index.refs.nodes import Entries, Integers, RefNodes
from mirror.search.names import COLLECTIONS

_STARTS = "SELECT start FROM search_ref_spans ORDER BY start"
_KEYS = "SELECT lists FROM search_ref_spans WHERE start = ?"
_WRITE_KEYS = """INSERT INTO search_ref_spans (start, lists) VALUES (?, ?)
    ON CONFLICT DO UPDATE SET lists = excluded.lists"""
_COUNTED = "SELECT DISTINCT path FROM search_ref_counts"
_ROWS = "SELECT path, collection, branches, tags FROM search_ref_counts"
_READ = "SELECT branches, tags FROM search_ref_counts WHERE path = ? AND collection = ?"
_WRITE = "INSERT OR REPLACE INTO search_ref_counts VALUES (?, ?, ?, ?)"
_LISTS_OF = """SELECT l.list, l.repositories, l.ages FROM search_ref_names n
    CROSS JOIN search_ref_lists l ON l.name_id = n.id WHERE instr(n.text, ?)"""
_IN_SPAN = f"""SELECT l.name_id, l.list, l.repositories, l.ages FROM json_each(:keys) k
    CROSS JOIN search_ref_lists l ON l.name_id = k.value / {LISTS} AND l.list = k.value % {LISTS}
    WHERE {IN_SPAN}"""
_DROP_LEAF = "DELETE FROM search_ref_rare WHERE path = ?"
_TEXTS = "SELECT id, text FROM search_ref_names WHERE id IN (SELECT value FROM json_each(?))"


def pack_counts(counts: Integers) -> bytes:
    """Pack numbers of one, two or four bytes each, as few as the largest needs."""
    largest = int(counts.max(initial=0))
    return counts.astype("u1" if largest < 1 << 8 else "<u2" if largest < 1 << 16 else "<u4").tobytes()


class Spans:
    """The spans of the index. None where the index is short."""

    def __init__(self, connection: sqlite3.Connection, sizes: Sizes) -> None:
        self._connection = connection
        self._sizes = sizes
        self._starts = np.array([row[0] for row in connection.execute(_STARTS)], dtype=np.int64)
        self.counted = {row[0] for row in connection.execute(_COUNTED)}

    def apply(self, left: Entries, joined: Entries, nodes: RefNodes) -> None:
        """Count what leaves and joins, count in more paths where these have grown, and cut long spans."""
        if not self._starts.size:
            return
        self._add_keys(joined)
        self._change(left, joined, nodes)
        for path, refs in nodes.refs.items():
            if refs > 2 * self._sizes.counted and path not in self.counted:
                self._begin_to_count(path)
        self._cut_long()

    def _add_keys(self, joined: Entries) -> None:
        """Let the spans list all lists that have a ref there; those that have none any more stay."""
        keys = defaultdict[int, set[int]](set)
        for at, (name_id, which, _) in zip(self._at(joined.orders).tolist(), joined.rows, strict=True):
            keys[at].add(list_key(name_id, which))
        for at, its in keys.items():
            start = int(self._starts[at])
            held = self._keys(start)
            if new := its.difference(held):
                self._write_keys(start, [*held, *sorted(new)])

    def _change(self, left: Entries, joined: Entries, nodes: RefNodes) -> None:
        """Change the numbers of the counted paths that the names of the entries have."""
        counted = np.array([path in self.counted for path in nodes.paths])
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
        ends = [*begins[1:].tolist(), rows.size]
        written = []
        for row, begin, end in zip(touched.tolist(), begins.tolist(), ends, strict=True):
            key = (nodes.paths[row // len(COLLECTIONS)], row % len(COLLECTIONS))
            growth = np.bincount(spans[begin:end], signs[begin:end], minlength=2 * self._starts.size)
            if growth.any():
                found = self._connection.execute(_READ, key).fetchone()
                counts = self._unpacked(found) + growth.astype(np.int64).reshape(2, -1)
                written.append((*key, *map(pack_counts, counts)))
        self._connection.executemany(_WRITE, written)

    def _begin_to_count(self, path: bytes) -> None:
        """Count the refs of a path in each span."""
        self.counted.add(path)
        self._connection.execute(_DROP_LEAF, (path + END,))
        orders = [list[int]() for _ in range(LISTS)]
        for which, *chunk in self._connection.execute(_LISTS_OF, (path,)):
            orders[which] += unpack_orders(*chunk)
        counts = [
            np.bincount(self._at(np.array(some, dtype=np.int64)), minlength=self._starts.size)
            for some in orders
        ]
        for collection in COLLECTIONS:
            its = counts[2 * collection : 2 * collection + 2]
            if any(some.any() for some in its):
                self._connection.execute(_WRITE, (path, collection, *map(pack_counts, its)))

    def _cut_long(self) -> None:
        """Cut the spans with more than twice as many refs as they should have."""
        rows = [self._connection.execute(_READ, (b"", collection)).fetchone() for collection in COLLECTIONS]
        lengths = np.sum([self._unpacked(row) for row in rows], axis=(0, 1))
        for at in reversed(np.flatnonzero(lengths > 2 * self._sizes.span).tolist()):
            self._cut(at)

    def _cut(self, at: int) -> None:
        """Cut a span into parts of the right length, newest first; refs of one order stay together."""
        low = int(self._starts[at])
        high = int(self._starts[at + 1]) if at + 1 < self._starts.size else NO_END
        keys, orders = self._refs(low, high)
        cuts = np.unique(np.sort(orders)[:: self._sizes.span])[1:]
        parts = np.searchsorted(cuts, orders, side="right")
        for part, start in enumerate([low, *cuts.tolist()]):
            self._write_keys(start, np.unique(keys[parts == part]).tolist())
        counts = self._counts(keys, parts, cuts.size + 1)
        for path, collection, *packed in self._connection.execute(_ROWS).fetchall():
            before = self._unpacked(packed)
            its = counts.get((path, collection), np.zeros((2, cuts.size + 1), dtype=np.int64))
            after = np.concatenate((before[:, :at], its, before[:, at + 1 :]), axis=1)
            self._connection.execute(_WRITE, (path, collection, *map(pack_counts, after)))
        self._starts = np.concatenate((self._starts[: at + 1], cuts, self._starts[at + 1 :]))

    def _refs(self, low: int, high: int) -> tuple[Integers, Integers]:
        """Return the refs of a span: the number of the list of each, and its order."""
        keys, orders = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        values = {"keys": json.dumps(self._keys(low)), "low": low, "high": high}
        for name_id, which, *chunk in self._connection.execute(_IN_SPAN, values):
            its = np.array(unpack_orders(*chunk), dtype=np.int64)
            orders.append(its[(its >= low) & (its < high)])
            keys.append(np.full(orders[-1].size, name_id * LISTS + which))
        return np.concatenate(keys), np.concatenate(orders)

    def _counts(self, keys: Integers, parts: Integers, number: int) -> Mapping[tuple[bytes, int], Integers]:
        """Count refs by path, collection, kind and part."""
        by_key, rows = np.unique(keys, return_inverse=True)
        of_key = np.bincount(rows * number + parts, minlength=by_key.size * number).reshape(-1, number)
        ids = json.dumps(np.unique(by_key // LISTS).tolist())
        texts = dict(self._connection.execute(_TEXTS, (ids,)).fetchall())
        paths = {name_id: paths_of(text, self.counted)[0] for name_id, text in texts.items()}
        counts = defaultdict[tuple[bytes, int], Integers](lambda: np.zeros((2, number), dtype=np.int64))
        for key, its in zip(by_key.tolist(), of_key, strict=True):
            name_id, which = divmod(key, LISTS)
            for path in paths[name_id]:
                counts[path, which // len(KINDS)][which % len(KINDS)] += its
        return counts

    def _at(self, orders: Integers) -> Integers:
        """Return the span of each order."""
        spans: Integers = np.searchsorted(self._starts, orders, side="right") - 1
        return spans

    def _keys(self, start: int) -> Sequence[int]:
        row = self._connection.execute(_KEYS, (start,)).fetchone()
        return unpack_numbers(row[0]) if row else ()

    def _write_keys(self, start: int, keys: Sequence[int]) -> None:
        self._connection.execute(_WRITE_KEYS, (start, pack_numbers(keys)))

    def _unpacked(self, packed: Sequence[bytes] | None) -> Integers:
        """Return the numbers of branches and of tags in each span [2, S]; zeros for no row."""
        if packed is None:
            return np.zeros((2, self._starts.size), dtype=np.int64)
        kinds = ({1: "u1", 2: "<u2", 4: "<u4"}[len(part) // self._starts.size] for part in packed)
        parts = [np.frombuffer(part, dtype=kind) for part, kind in zip(packed, kinds, strict=True)]
        return np.stack(parts).astype(np.int64)
