"""Change the nodes and leaves of the index of refs: those of a batch at once, each read and written once.

Array shapes: E entries (refs that leave or join lists), P pairs of an entry and a node that it passes, T
nodes of one collection that change, C = 2 T *cells*: their lists of the best branches and of the best tags.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import nsmallest
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.format import END, children_of
from mirror.search.index.refs.layout import (
    DEEPEST,
    ID_BITS,
    ID_MASK,
    KINDS,
    LISTED,
    LISTS,
    MOST_LISTED,
    NAME_COST,
    Listed,
    list_of,
    pack_listed,
    pack_numbers,
    repository_of,
    unpack_numbers,
    unpack_orders,
)
from mirror.search.names import COLLECTIONS, PUBLIC

Integers = NDArray[np.int64]

_PATHS = "SELECT path, node FROM search_ref_paths ORDER BY path"
_WRITE_PATH = "INSERT OR REPLACE INTO search_ref_paths VALUES (?, ?)"
_COPY = (
    """INSERT INTO search_ref_common SELECT ?, collection, branches, tags, with_branches, with_tags,
        with_either, best_branches, best_tags FROM search_ref_common WHERE node = ?""",
    """INSERT INTO search_ref_counts SELECT ?, collection, branches, tags FROM search_ref_counts
        WHERE node = ?""",
)
_READ = """SELECT branches, tags, with_branches, with_tags, with_either, best_branches, best_tags
    FROM search_ref_common WHERE node = ? AND collection = ?"""
_WRITE = "INSERT OR REPLACE INTO search_ref_common VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_RANKED = "SELECT id FROM search_ref_names WHERE id IN (SELECT value FROM json_each(?)) ORDER BY name"
_EMPTY = (0, 0, 0, 0, 0, b"", b"")


@dataclass(frozen=True, slots=True)
class Entries:
    """Refs that leave lists, or that join them.

    ids: the id of the name of each [E]; lists, orders: its list and its order there [E].
    entry, node: the pairs of an entry and the number of a node on the paths of its name [P].
    """

    ids: Integers
    lists: Integers
    orders: Integers
    entry: Integers
    node: Integers

    @classmethod
    def of(
        cls, rows: Sequence[tuple[int, int, int]], ids: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> "Entries":
        """Make the arrays of (number of the name, list, order), with the ids and nodes of names by number."""
        names, lists, orders = np.array(rows, dtype=np.int64).reshape(-1, 3).T
        lengths = np.array([len(some) for some in nodes], dtype=np.int64)
        flat = np.array([node for some in nodes for node in some], dtype=np.int64)
        begins = np.cumsum(lengths) - lengths
        entry = np.repeat(np.arange(names.size), lengths[names])
        within = np.arange(entry.size) - np.repeat(np.cumsum(lengths[names]) - lengths[names], lengths[names])
        node = flat[np.repeat(begins[names], lengths[names]) + within]
        return cls(np.array(ids, dtype=np.int64)[names], lists, orders, entry, node)

    @property
    def rows(self) -> list[tuple[int, int, int]]:
        """Each entry as (id of the name, list, order)."""
        return list(zip(self.ids.tolist(), self.lists.tolist(), self.orders.tolist(), strict=True))

    @property
    def cells(self) -> Integers:
        """The number of each pair's list of the best: of the node, the collection and the kind [P]."""
        return self.node * LISTS + self.lists[self.entry]

    @property
    def identities(self) -> Integers:
        """The number of each ref: of its repository, its name and its list [E]. No two refs share one."""
        return (self.orders & ID_MASK) << 32 | self.ids * LISTS + self.lists


@dataclass(slots=True)
class RefNode:
    """The data of a new node for one collection."""

    refs: list[int]
    repositories: list[int]
    best: list[list[Listed]]


class RefNodes:
    """The nodes of the index: `numbers` maps each path to its node, `paths` each node to its paths."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.numbers = dict[bytes, int]()
        self.paths = defaultdict[int, list[bytes]](list)
        for path, number in connection.execute(_PATHS):
            self.numbers[path] = number
            self.paths[number].append(path)
        self.refs = dict[int, int]()
        """How many refs the changed nodes have, each in its largest collection."""
        if b"" not in self.numbers:
            self.write(b"", PUBLIC, RefNode([0, 0], [0, 0, 0], [[], []]))

    def write(self, path: bytes, collection: int, node: RefNode) -> None:
        """Write a new node of one path for one collection."""
        if path not in self.numbers:
            self._move([path])
        best = [pack_listed(refs) for refs in node.best]
        key = (self.numbers[path], collection)
        self._connection.execute(_WRITE, (*key, *node.refs, *node.repositories, *best))

    def split(self, passed: AbstractSet[bytes]) -> None:
        """Split each node of which a new name has some paths and not all; `passed` are its paths."""
        for node in {self.numbers[path] for path in passed}:
            apart = [path for path in self.paths[node] if path in passed]
            others = [path for path in self.paths[node] if path not in passed]
            if others:
                self.paths[node] = others
                number = self._move(apart)
                for copy in _COPY:
                    self._connection.execute(copy, (number, node))

    def _move(self, paths: list[bytes]) -> int:
        """Give some paths a node of their own, and return its number."""
        number = max(self.paths, default=0) + 1
        self.paths[number] = paths
        self.numbers.update(dict.fromkeys(paths, number))
        self._connection.executemany(_WRITE_PATH, ((path, number) for path in paths))
        return number

    def apply(
        self, left: Entries, joined: Entries, repositories: Mapping[tuple[int, int], Sequence[int]]
    ) -> None:
        """Write what changes; `repositories` has the growth of their numbers, by node and collection."""
        counted = [node * len(COLLECTIONS) + collection for node, collection in repositories]
        touched = np.unique(
            np.concatenate((left.cells // 2, joined.cells // 2, np.array(counted, dtype=np.int64)))
        )
        keys = [divmod(row, len(COLLECTIONS)) for row in touched.tolist()]
        rows = [self._connection.execute(_READ, key).fetchone() or _EMPTY for key in keys]
        counts = np.array([row[:5] for row in rows], dtype=np.int64).reshape(-1, 5)
        held = [packed for row in rows for packed in row[5:]]
        best = _Best(self._connection, touched, held, counts[:, :2].reshape(-1)).changed(left, joined)
        for entries, sign in ((left, -1), (joined, 1)):
            cells = np.searchsorted(touched, entries.cells // 2) * 2 + entries.cells % 2
            counts[:, :2] += sign * np.bincount(cells, minlength=2 * touched.size).reshape(-1, 2)
        for place, growth in zip(
            np.searchsorted(touched, counted).tolist(), repositories.values(), strict=True
        ):
            counts[place, 2:] += growth
        changed = list[tuple[object, ...]]()
        for at, (key, row, numbers) in enumerate(zip(keys, rows, counts.tolist(), strict=True)):
            self.refs[key[0]] = max(self.refs.get(key[0], 0), numbers[0] + numbers[1])
            new = (*numbers, best[2 * at], best[2 * at + 1])
            if new != row:
                changed.append((*key, *new))
        self._connection.executemany(_WRITE, changed)


class _Best:
    """The lists of the best refs of some nodes, before they change: the cell, order and name of each ref."""

    def __init__(
        self, connection: sqlite3.Connection, touched: Integers, held: Sequence[bytes], refs: Integers
    ) -> None:
        self._connection = connection
        self._touched = touched
        lengths = np.array([len(packed) // 12 for packed in held], dtype=np.int64)
        self._is_complete = lengths == refs
        self._cells = np.repeat(np.arange(len(held)), lengths)
        ages, repositories, self._ids = (
            np.frombuffer(b"".join(held), dtype="<u4").reshape(-1, 3).astype(np.int64).T
        )
        self._orders = ages << ID_BITS | repositories

    def changed(self, left: Entries, joined: Entries) -> list[bytes]:
        """Return the lists, packed, after some refs left and others joined.

        A list always has the first refs in order. So a ref that ranks after the last one of an incomplete
        list is left out.
        """
        kept = ~self._leaving(left)
        places = np.searchsorted(self._touched, joined.cells // 2) * 2 + joined.cells % 2
        cells = np.concatenate((self._cells[kept], places))
        orders = np.concatenate((self._orders[kept], joined.orders[joined.entry]))
        ids = np.concatenate((self._ids[kept], joined.ids[joined.entry]))
        is_new = np.concatenate(
            (np.zeros(np.count_nonzero(kept), dtype=bool), np.ones(places.size, dtype=bool))
        )
        order = self._ranked(cells, orders, ids)
        cells, orders, ids, is_new = cells[order], orders[order], ids[order], is_new[order]
        lengths = np.bincount(cells, minlength=self._is_complete.size)
        begins = np.cumsum(lengths) - lengths
        place = np.arange(cells.size) - begins[cells]
        last = np.full(lengths.size, -1, dtype=np.int64)
        np.maximum.at(last, cells[~is_new], place[~is_new])
        lengths = np.where(self._is_complete, lengths, last + 1)
        lengths = np.where(lengths > MOST_LISTED, LISTED, lengths)  # well below, so the next cut is far off
        packed = np.stack((orders >> ID_BITS, orders & ID_MASK, ids), axis=1).astype("<u4").tobytes()
        return [
            packed[12 * begin : 12 * (begin + length)]
            for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True)
        ]

    def _leaving(self, left: Entries) -> NDArray[np.bool_]:
        """Return which of the listed refs leave."""
        lists = self._touched[self._cells // 2] % len(COLLECTIONS) * len(KINDS) + self._cells % 2
        identities = (self._orders & ID_MASK) << 32 | self._ids * LISTS + lists
        return np.isin(identities, left.identities)

    def _ranked(self, cells: Integers, orders: Integers, ids: Integers) -> Integers:
        """Sort refs by cell: the newest first; of one repository at one second, by name."""
        ranked: Integers = np.lexsort((orders, cells))
        same = np.flatnonzero((np.diff(orders[ranked]) == 0) & (np.diff(cells[ranked]) == 0))
        if same.size:
            tied = np.unique(ids[ranked[np.concatenate((same, same + 1))]])
            by_name = [row[0] for row in self._connection.execute(_RANKED, (json.dumps(tied.tolist()),))]
            rank = np.zeros(int(ids.max()) + 1, dtype=np.int64)
            rank[by_name] = np.arange(len(by_name))
            ranked = np.lexsort((rank[ids], orders, cells))
        return ranked


def best_of(connection: sqlite3.Connection, refs: Sequence[Listed]) -> list[Listed]:
    """Return the first LISTED refs: the newest first; of one repository at one second, by name."""
    last = max((order for order, _ in nsmallest(LISTED, refs)), default=0)
    found = sorted(ref for ref in refs if ref.order <= last)
    ids = {one.name_id for pair in pairwise(found) if pair[0].order == pair[1].order for one in pair}
    if ids:
        rows = connection.execute(_RANKED, (json.dumps(list(ids)),))
        rank = {row[0]: number for number, row in enumerate(rows)}
        found.sort(key=lambda ref: (ref.order, rank.get(ref.name_id, 0)))
    return found[:LISTED]


_READ_LEAF = "SELECT cost, names FROM search_ref_rare WHERE path = ?"
_WRITE_LEAF = "INSERT OR REPLACE INTO search_ref_rare VALUES (?, ?, ?)"
_DROP_LEAF = "DELETE FROM search_ref_rare WHERE path = ?"
_WANTED = "(SELECT value FROM json_each(?))"
_TEXTS = f"SELECT id, text FROM search_ref_names WHERE id IN {_WANTED}"
_LISTS = f"SELECT name_id, list, repositories, ages FROM search_ref_lists WHERE name_id IN {_WANTED}"


class RefLeaves:
    """Collects what changes in leaves; `flush` writes it."""

    def __init__(self, connection: sqlite3.Connection, nodes: RefNodes, common_cost: int) -> None:
        self._connection = connection
        self._nodes = nodes
        self._common_cost = common_cost
        self._costs = defaultdict[bytes, int](int)
        self._new = defaultdict[bytes, list[int]](list)

    def change(self, path: bytes, grows: int, new_name: int | None) -> None:
        """Add to the number of refs of the names of a leaf, and append the id of a new name."""
        self._costs[path] += grows
        if new_name is not None:
            self._costs[path] += NAME_COST
            self._new[path].append(new_name)

    def flush(self) -> None:
        """Write what changed, and split the leaves that cost too much."""
        too_much = list[bytes]()
        for path, cost in sorted(self._costs.items()):
            row = self._connection.execute(_READ_LEAF, (path,)).fetchone() or (0, b"")
            if not cost and path not in self._new:
                continue
            self._connection.execute(
                _WRITE_LEAF, (path, row[0] + cost, row[1] + pack_numbers(self._new[path]))
            )
            if row[0] + cost > 2 * self._common_cost and _may_split(path):
                too_much.append(path)
        while too_much:
            too_much += self._split(too_much.pop())

    def _split(self, path: bytes) -> list[bytes]:
        """Make a node of a leaf, with leaves one byte below; return which of these are to be split as well.

        If names that are gone make it cost too much, the leaf is cleaned instead.
        """
        _, packed = self._connection.execute(_READ_LEAF, (path,)).fetchone()
        ids = json.dumps(unpack_numbers(packed))
        texts = {row[0]: row[1] for row in self._connection.execute(_TEXTS, (ids,)) if path in row[1]}
        lists = defaultdict[int, list[Listed]](list)
        costs = dict.fromkeys(texts, NAME_COST)
        for name_id, which, *chunk in self._connection.execute(_LISTS, (ids,)):
            if name_id in texts:
                lists[which] += [Listed(order, name_id) for order in unpack_orders(*chunk)]
                costs[name_id] += len(chunk[0]) // 4
        if sum(costs.values()) <= self._common_cost:
            self._connection.execute(_WRITE_LEAF, (path, sum(costs.values()), pack_numbers(sorted(texts))))
            return []
        self._connection.execute(_DROP_LEAF, (path,))
        for collection in COLLECTIONS:
            of_kinds = [lists[list_of(collection, kind)] for kind in KINDS]
            if any(of_kinds) or collection == PUBLIC:
                self._nodes.write(path, collection, self._node(of_kinds))
        children = defaultdict[bytes, list[int]](list)
        for name_id, text in sorted(texts.items()):
            for child in children_of(path, text):
                children[child].append(name_id)
        for child, names in children.items():
            cost = sum(costs[name_id] for name_id in names)
            self._connection.execute(_WRITE_LEAF, (child, cost, pack_numbers(names)))
        limit = 2 * self._common_cost
        return [
            child
            for child, names in children.items()
            if _may_split(child) and sum(costs[name_id] for name_id in names) > limit
        ]

    def _node(self, of_kinds: list[list[Listed]]) -> RefNode:
        """Count and rank the refs of each kind."""
        repositories = [{repository_of(ref.order) for ref in refs} for refs in of_kinds]
        return RefNode(
            [len(refs) for refs in of_kinds],
            [*map(len, repositories), len(repositories[0] | repositories[1])],
            [best_of(self._connection, refs) for refs in of_kinds],
        )


def _may_split(path: bytes) -> bool:
    """Return whether a leaf may become a node; another one may list any number of names."""
    return len(path) < DEEPEST and not path.endswith(END)
