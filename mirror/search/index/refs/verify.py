"""Check the index of refs: derive from the rows what it should contain, and compare."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.search.find import one_snapshot
from mirror.search.index.check import MOST
from mirror.search.index.refs.layout import (
    COLLECTION,
    HASH_DIGITS,
    ID_MASK,
    KINDS,
    LISTS,
    NAME_COST,
    ORDER,
    TABLES,
    has_hashes,
    hash_number,
    list_key,
    list_of,
    paths_of,
    text_of,
    unpack_bucket,
    unpack_counts,
    unpack_listed,
    unpack_numbers,
    unpack_orders,
    up_to,
)
from mirror.search.names import COLLECTIONS, PUBLIC

# What the index should have: refs without a recorded change, and the others as they were before it.
_WAS = f"coalesce(m.was, {COLLECTION.format(r='r')})"
_UNCHANGED = f"""SELECT t.repository_id, t.name, {_WAS},
        {ORDER.format(date="t.target_date", repository="t.repository_id")},
        substr(t.target_hash, 1, {HASH_DIGITS})
    FROM {{table}} t LEFT JOIN repositories r ON r.id = t.repository_id
    LEFT JOIN search_ref_moved m ON m.repository_id = t.repository_id
    WHERE t.repository_id <= :known AND NOT EXISTS (SELECT 1 FROM search_ref_pending p
        WHERE p.repository_id = t.repository_id AND p.kind = {{kind}} AND p.name = t.name)"""
_CHANGED = f"""SELECT p.repository_id, p.name, {_WAS},
        {ORDER.format(date="p.was_date", repository="p.repository_id")},
        substr(p.was_hash, 1, {HASH_DIGITS})
    FROM search_ref_pending p LEFT JOIN repositories r ON r.id = p.repository_id
    LEFT JOIN search_ref_moved m ON m.repository_id = p.repository_id
    WHERE p.repository_id <= :known AND p.kind = {{kind}} AND p.was_hash IS NOT NULL"""
_NODES = """SELECT node, collection, branches, tags, with_branches, with_tags, with_either,
    best_branches, best_tags FROM search_ref_common"""
_HASH_BITS = 0xFFFFFFFFFFFFFFFF


def check_refs_index(connection: sqlite3.Connection) -> list[str]:
    """Compare the whole index with the refs; return a line for each fault, none if it is right.

    It takes 30 to 80 microseconds for each ref, more if there are many different names, and memory for each
    different name and each node. Raises sqlite3.Error.
    """
    with one_snapshot(connection):
        return _RefsCheck(connection).run()


@dataclass(slots=True)
class _RefSum:
    """How many refs something has, and the sum of their hashes: equal for the same refs in any order."""

    count: int = 0
    total: int = 0

    def add(self, refs: Iterable[object]) -> None:
        """Add some refs."""
        for ref in refs:
            self.count += 1
            self.total = self.total + hash(ref) & _HASH_BITS


Orders = NDArray[np.int64]
NOTHING: Orders = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class _IndexedName:
    """A name in the index: its nodes, its rare paths, its place among all, and the orders in each list."""

    name: str
    nodes: set[int]
    rare: set[bytes]
    rank: int = 0
    lists: list[Orders] = field(default_factory=lambda: [NOTHING] * LISTS)

    @property
    def size(self) -> int:
        """How many refs have the name."""
        return sum(orders.size for orders in self.lists)


class _RefsCheck:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._faults = list[str]()
        self._nodes = dict(connection.execute("SELECT path, node FROM search_ref_paths").fetchall())
        self._paths = Counter(self._nodes.values())
        self._names = dict[int, _IndexedName]()
        self._ids = dict[str, int]()
        self._lists = defaultdict[tuple[int, int], _RefSum](_RefSum)
        self._buckets = defaultdict[int, _RefSum](_RefSum)
        highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
        self._with_node = defaultdict[tuple[int, int], list[tuple[int, Orders]]](list)
        self._seen = np.zeros(max(highest, up_to(connection)) + 1, dtype=bool)

    def run(self) -> list[str]:
        self._read_names()
        self._expect()
        self._check_lists()
        self._check_hashes()
        self._check_nodes()
        self._check_leaves()
        self._check_spans()
        return self._faults[:MOST]

    def _read_names(self) -> None:
        of_counted = "SELECT path FROM search_ref_paths WHERE node IN (SELECT node FROM search_ref_counts)"
        counted = {row[0] for row in self._connection.execute(of_counted)}
        for name_id, name, text in self._connection.execute("SELECT id, name, text FROM search_ref_names"):
            if text != text_of(name):
                self._faults.append(f"the name {name!r} has a wrong text")
            common, rare = paths_of(text_of(name), self._nodes, counted)
            having = Counter(self._nodes[path] for path in common if path in self._nodes)
            if any(self._paths[node] != paths for node, paths in having.items()):
                self._faults.append(f"the name {name!r} has some of the paths of a node, and not all")
            self._names[name_id] = _IndexedName(name, set(having), rare)
            self._ids[name] = name_id

    def _expect(self) -> None:
        """Add what the index should have of each ref."""
        with_hashes = has_hashes(self._connection)
        for kind, repository, name, collection, order, digits in self._refs():
            name_id = self._ids.get(name)
            if collection is None:
                continue
            if name_id is None:
                self._faults.append(f"the name {name!r} is missing")
                continue
            self._lists[name_id, list_of(collection, kind)].add([order])
            number = hash_number(digits) if with_hashes else None
            if number is not None:
                self._buckets[number >> 16].add([(number & 0xFFFF, repository)])

    def _refs(self) -> Iterator[tuple[Any, ...]]:
        """Yield each ref as the index should have it: its kind, and a row of `_UNCHANGED` or `_CHANGED`."""
        known = {"known": up_to(self._connection)}
        for (kind, table), sql in product(enumerate(TABLES), (_UNCHANGED, _CHANGED)):
            for row in self._connection.execute(sql.format(table=table, kind=kind), known):
                yield (kind, *row)

    def _check_lists(self) -> None:
        held = defaultdict[tuple[int, int], _RefSum](_RefSum)
        last = dict[tuple[int, int], int]()
        parts = defaultdict[tuple[int, int], list[Orders]](list)
        rows = self._connection.execute(
            """SELECT name_id, list, start, repositories, ages FROM search_ref_lists
                ORDER BY name_id, list, start"""
        )
        for name_id, which, start, *chunk in rows:
            orders = unpack_orders(*chunk)
            before = last.get((name_id, which), -1)
            if not orders or orders[0] != start or any(a >= b for a, b in pairwise([before, *orders])):
                self._faults.append(f"list {which} of name {name_id} is not in order")
            held[name_id, which].add(orders)
            last[name_id, which] = orders[-1] if orders else start
            if name_id in self._names:
                parts[name_id, which].append(np.array(orders, dtype=np.int64))
        for (name_id, which), chunks in parts.items():
            self._names[name_id].lists[which] = np.concatenate(chunks)
        for key in held.keys() | self._lists.keys():
            if held[key] != self._lists[key]:
                self._faults.append(f"list {key[1]} of name {key[0]} does not have the refs of that name")
        for name in self._names.values():
            if not name.size:
                self._faults.append(f"no ref has the name {name.name!r}")

    def _check_hashes(self) -> None:
        for bucket, *packed in self._connection.execute("SELECT * FROM search_ref_hashes"):
            held = _RefSum()
            held.add(unpack_bucket(*packed))
            if held != self._buckets.pop(bucket, None):
                self._faults.append(f"bucket {bucket:04x} does not have the refs of its hashes")
        self._faults += [f"bucket {bucket:04x} is missing" for bucket in self._buckets]

    def _check_nodes(self) -> None:
        """Compare the nodes with the lists, which have been compared with the rows."""
        with_node = self._with_node
        for rank, name in enumerate(sorted(self._names.values(), key=attrgetter("name"))):
            name.rank = rank
            for which, orders in enumerate(name.lists):
                for node in name.nodes if orders.size else ():
                    with_node[node, which].append((rank, orders))
        rows = {(node, collection): row for node, collection, *row in self._connection.execute(_NODES)}
        for path, node in self._nodes.items():
            if (node, PUBLIC) not in rows or (path and path[:-1] not in self._nodes):
                self._faults.append(f"common path {path!r} has no row for what is public, or no parent")
        for node, collection in product(self._paths.keys() | {node for node, _ in rows}, COLLECTIONS):
            row = rows.get((node, collection), [0, 0, 0, 0, 0, b"", b""])
            lists = [with_node.get((node, list_of(collection, kind)), []) for kind in KINDS]
            self._check_node(f"node {node} in collection {collection}", row, lists)

    def _check_node(self, where: str, row: list[Any], lists: list[list[tuple[int, Orders]]]) -> None:
        """Compare a row with the lists of its branches and of its tags, by the rank of their names."""
        counts = [sum(orders.size for _, orders in of_kind) for of_kind in lists]
        repositories = [self._different(some) for some in (*lists, lists[0] + lists[1])]
        if row[:5] != [*counts, *repositories]:
            self._faults.append(f"{where} counts {row[:5]}, there are {[*counts, *repositories]}")
        for kind in KINDS:
            listed = [(order, self._rank(name_id)) for order, name_id in unpack_listed(row[5 + kind])]
            if listed != _first(lists[kind], len(listed)):
                self._faults.append(f"{where} does not list the best refs")

    def _different(self, lists: list[tuple[int, Orders]]) -> int:
        """Count the different repositories in some lists."""
        if not lists:
            return 0
        ids = np.concatenate([orders for _, orders in lists]) & ID_MASK
        ids = ids[ids < self._seen.size]
        self._seen[ids] = True
        number = int(np.count_nonzero(self._seen))
        self._seen[ids] = False
        return number

    def _rank(self, name_id: int) -> int:
        return self._names[name_id].rank if name_id in self._names else -1

    def _check_leaves(self) -> None:
        expected = defaultdict[bytes, set[int]](set)
        refs = Counter[bytes]()
        for name_id, name in self._names.items():
            for path in name.rare:
                expected[path].add(name_id)
                refs[path] += name.size
        for path, cost, packed in self._connection.execute("SELECT path, cost, names FROM search_ref_rare"):
            ids = unpack_numbers(packed)
            if path in self._nodes or path[:-1] not in self._nodes:
                self._faults.append(f"rare path {path!r} is common, or not below a common one")
            elif cost != NAME_COST * len(ids) + refs[path]:
                self._faults.append(f"{path!r} has a wrong cost")
            missing = expected.pop(path, set()) - set(ids)
            self._faults += [f"{path!r} does not list name {name_id}" for name_id in missing]
        self._faults += [f"rare path {path!r} is missing" for path in expected]

    def _check_spans(self) -> None:
        """Compare the blocks and spans with the lists."""
        rows = self._connection.execute("SELECT start FROM search_ref_spans ORDER BY start").fetchall()
        starts = np.array([row[0] for row in rows], dtype=np.int64)
        if rows and starts[0] != 0:
            self._faults.append("the first span does not begin at 0")
        self._check_blocks(starts)
        self._check_counts(starts)

    def _check_blocks(self, starts: Orders) -> None:
        """Compare the numbers of refs in each block with the lists."""
        rows = self._connection.execute("SELECT * FROM search_ref_blocks ORDER BY start").fetchall()
        blocks = np.array([row[0] for row in rows], dtype=np.int64)
        if not np.isin(starts, blocks).all() or (rows and not starts.size):
            self._faults.append("a span does not begin with a block")
            return
        expected = [dict[int, int]() for _ in rows]
        for name_id, name in self._names.items() if rows else ():
            for which, orders in enumerate(name.lists):
                of = np.searchsorted(blocks, orders, side="right") - 1
                for at, count in zip(*np.unique(of, return_counts=True), strict=True):
                    expected[at][list_key(name_id, which)] = int(count)
        for (start, lists, counts), its in zip(rows, expected, strict=True):
            keys = unpack_numbers(lists)
            if dict(zip(keys, unpack_counts(counts, len(keys)), strict=False)) != its:
                self._faults.append(f"block {start} has wrong numbers of refs")

    def _check_counts(self, starts: Orders) -> None:
        """Compare the numbers of refs in each span with the lists."""
        rows = self._connection.execute("SELECT node, collection, branches, tags FROM search_ref_counts")
        told = {(node, collection): packed for node, collection, *packed in rows}
        if told and not starts.size:
            self._faults.append("refs are counted in spans, and there are none")
            return
        for node in {node for node, _ in told}:
            for which in range(LISTS):
                packed = told.get((node, which // len(KINDS)))
                lists = self._with_node.get((node, which), [])
                orders = np.concatenate([NOTHING, *(orders for _, orders in lists)])
                spans = np.searchsorted(starts, orders, side="right") - 1
                expected = np.bincount(spans, minlength=starts.size).tolist()
                held = unpack_counts(packed[which % len(KINDS)], starts.size) if packed else [0] * starts.size
                if list(held) != expected:
                    self._faults.append(f"node {node} has wrong numbers of list {which} in the spans")


def _first(lists: list[tuple[int, Orders]], most: int) -> list[tuple[int, int]]:
    """Return the first `most` of the refs in some lists: their orders, and the ranks of the names."""
    if not most or not lists:
        return []
    heads = [(rank, orders[:most]) for rank, orders in lists]
    orders = np.concatenate([head for _, head in heads])
    ranks = np.repeat([rank for rank, _ in heads], [head.size for _, head in heads])
    best = np.lexsort((ranks, orders))[:most]
    return list(zip(orders[best].tolist(), ranks[best].tolist(), strict=True))
