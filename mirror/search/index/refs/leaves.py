"""Change the leaves of the index of refs, and make a node of a leaf that has become common."""

import json
import sqlite3
from collections import defaultdict

from mirror.search.index.format import END
from mirror.search.index.refs.layout import (
    DEEPEST,
    KINDS,
    NAME_COST,
    Listed,
    list_of,
    pack_numbers,
    repository_of,
    unpack_numbers,
    unpack_orders,
)
from mirror.search.index.refs.nodes import RefNode, RefNodes, best_of
from mirror.search.names import COLLECTIONS, PUBLIC

_READ = "SELECT cost, names FROM search_ref_rare WHERE path = ?"
_WRITE = "INSERT OR REPLACE INTO search_ref_rare VALUES (?, ?, ?)"
_DROP = "DELETE FROM search_ref_rare WHERE path = ?"
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
        """Let the names of a leaf have more refs, or fewer, and append the id of a new name."""
        self._costs[path] += grows
        if new_name is not None:
            self._costs[path] += NAME_COST
            self._new[path].append(new_name)

    def flush(self) -> None:
        """Write what changed, and split the leaves that cost too much."""
        too_much = list[bytes]()
        for path, cost in sorted(self._costs.items()):
            row = self._connection.execute(_READ, (path,)).fetchone() or (0, b"")
            if not cost and path not in self._new:
                continue
            self._connection.execute(_WRITE, (path, row[0] + cost, row[1] + pack_numbers(self._new[path])))
            if row[0] + cost > 2 * self._common_cost and _may_split(path):
                too_much.append(path)
        while too_much:
            too_much += self._split(too_much.pop())

    def _split(self, path: bytes) -> list[bytes]:
        """Make a node of a leaf, with leaves one byte below; return which of these are to be split as well.

        Where only names cost too much that are gone, the leaf is cleaned instead.
        """
        _, packed = self._connection.execute(_READ, (path,)).fetchone()
        ids = json.dumps(unpack_numbers(packed))
        texts = {row[0]: row[1] for row in self._connection.execute(_TEXTS, (ids,)) if path in row[1]}
        lists = defaultdict[int, list[Listed]](list)
        costs = dict.fromkeys(texts, NAME_COST)
        for name_id, which, *chunk in self._connection.execute(_LISTS, (ids,)):
            if name_id in texts:
                lists[which] += [Listed(order, name_id) for order in unpack_orders(*chunk)]
                costs[name_id] += len(chunk[0]) // 4
        if sum(costs.values()) <= self._common_cost:
            self._connection.execute(_WRITE, (path, sum(costs.values()), pack_numbers(sorted(texts))))
            return []
        self._connection.execute(_DROP, (path,))
        for collection in COLLECTIONS:
            of_kinds = [lists[list_of(collection, kind)] for kind in KINDS]
            if any(of_kinds) or collection == PUBLIC:
                self._nodes.write(path, collection, self._node(of_kinds))
        children = defaultdict[bytes, list[int]](list)
        for name_id, text in sorted(texts.items()):
            for child in _children(path, text):
                children[child].append(name_id)
        for child, names in children.items():
            cost = sum(costs[name_id] for name_id in names)
            self._connection.execute(_WRITE, (child, cost, pack_numbers(names)))
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


def _children(path: bytes, text: bytes) -> set[bytes]:
    """Return the paths one byte below `path` that a text has."""
    children = set[bytes]()
    ended = text + END
    at = text.find(path)
    while at >= 0:
        children.add(ended[at : at + len(path) + 1])
        at = text.find(path, at + 1)
    return children


def _may_split(path: bytes) -> bool:
    """Return whether a leaf may become a node; one that may not lists any number of names."""
    return len(path) < DEEPEST and not path.endswith(END)
