"""Change the nodes of the index of refs: each is read once and written once."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from mirror.search.index.refs.format import (
    BRANCH,
    KINDS,
    LISTED,
    MOST_LISTED,
    TAG,
    Listed,
    pack_listed,
    unpack_listed,
)
from mirror.search.index.refs.lists import ListChange
from mirror.search.names import PUBLIC

_PATHS = "SELECT path FROM search_ref_common WHERE collection = ?"
_READ = """SELECT branches, tags, with_branches, with_tags, with_either, best_branches, best_tags
    FROM search_ref_common WHERE path = ? AND collection = ?"""
_WRITE = "INSERT OR REPLACE INTO search_ref_common VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NAME = "SELECT name FROM search_ref_names WHERE id = ?"


class NameChange(NamedTuple):
    """The effect of a changed list on the nodes: its growth, and what left and joined it.

    Of what joined, the first refs are enough, in order.
    """

    name_id: int
    grows: int
    gone: set[int]
    fresh: list[Listed]


def name_change(name_id: int, change: ListChange) -> NameChange:
    """Return what the change of a list is for the nodes on the paths of its name."""
    fresh = [Listed(order, name_id) for order in nsmallest(MOST_LISTED + 1, change.added - change.removed)]
    grows = len(change.added) - len(change.removed)
    return NameChange(name_id, grows, change.removed - change.added, fresh)


@dataclass(slots=True)
class RefNodeChange:
    """The changes of a node for one collection: lists of each kind, and numbers of repositories."""

    lists: tuple[list[NameChange], ...] = field(default_factory=lambda: tuple([] for _ in KINDS))
    repositories: list[int] = field(default_factory=lambda: [0, 0, 0])

    def count(self, path: bytes, texts: tuple[bytes, bytes], number: int) -> None:
        """Count a repository, given the searched texts of its branches and of its tags."""
        has = [path in text if path else bool(text) for text in texts]
        for index, counts in enumerate((has[BRANCH], has[TAG], any(has))):
            self.repositories[index] += number * counts


@dataclass(slots=True)
class RefNode:
    """The data of a node for one collection."""

    refs: list[int]
    repositories: list[int]
    best: list[list[Listed]]


class RefNodes:
    """The nodes of the index. `paths` are all of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._names = dict[int, str]()
        self.paths = {row[0] for row in connection.execute(_PATHS, (PUBLIC,))}
        if b"" not in self.paths:
            self.write(b"", PUBLIC, RefNode([0, 0], [0, 0, 0], [[], []]))

    def apply(self, changes: Mapping[tuple[bytes, int], RefNodeChange]) -> None:
        """Write what changes, by path and collection."""
        for (path, collection), changed in sorted(changes.items(), key=itemgetter(0)):
            node = self._read(path, collection)
            for kind in KINDS:
                is_complete = len(node.best[kind]) == node.refs[kind]
                node.refs[kind] += sum([change.grows for change in changed.lists[kind]])
                node.best[kind] = self._changed(node.best[kind], changed.lists[kind], is_complete=is_complete)
            node.repositories = [
                one + more for one, more in zip(node.repositories, changed.repositories, strict=True)
            ]
            self.write(path, collection, node)

    def write(self, path: bytes, collection: int, node: RefNode) -> None:
        """Write a node."""
        self.paths.add(path)
        best = [pack_listed(refs) for refs in node.best]
        self._connection.execute(_WRITE, (path, collection, *node.refs, *node.repositories, *best))

    def _read(self, path: bytes, collection: int) -> RefNode:
        row = self._connection.execute(_READ, (path, collection)).fetchone()
        if row is None:
            return RefNode([0, 0], [0, 0, 0], [[], []])
        return RefNode(list(row[:2]), list(row[2:5]), [unpack_listed(packed) for packed in row[5:]])

    def _changed(
        self, best: list[Listed], changes: Sequence[NameChange], *, is_complete: bool
    ) -> list[Listed]:
        """Return a list of the best after the lists of some names changed.

        It stays what it is: the first of all in order. So what ranks below the last of a list that is not
        complete is left out.
        """
        gone = {change.name_id: change.gone for change in changes if change.gone}
        kept = [ref for ref in best if ref.name_id not in gone or ref.order not in gone[ref.name_id]]
        last = kept[-1] if kept else Listed(-1, 0)
        joined = list[Listed]()
        for change in changes:
            for ref in change.fresh:
                if not is_complete and (ref.order > last.order or not self._is_before(ref, last)):
                    break
                joined.append(ref)
        if joined:
            kept = self.ranked([*kept, *joined])
        return kept[:LISTED] if len(kept) > MOST_LISTED else kept

    def _is_before(self, one: Listed, other: Listed) -> bool:
        if one.order != other.order:
            return one.order < other.order
        return self._name(one.name_id) < self._name(other.name_id)

    def ranked(self, refs: Iterable[Listed]) -> list[Listed]:
        """Sort refs: the newest first; of one repository at one second, by name."""
        ranked = sorted(refs)
        if any(one.order == other.order for one, other in pairwise(ranked)):
            ranked.sort(key=lambda ref: (ref.order, self._name(ref.name_id)))
        return ranked

    def _name(self, name_id: int) -> str:
        if name_id not in self._names:
            self._names[name_id] = self._connection.execute(_NAME, (name_id,)).fetchone()[0]
        return self._names[name_id]
