"""Read the index of refs: look up a path, the names of a leaf, and refs in order."""

import json
import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from heapq import nsmallest

import msgspec

from mirror.search.index.refs.format import (
    KINDS,
    repository_of,
    unpack_bucket,
    unpack_listed,
    unpack_numbers,
    unpack_orders,
)
from mirror.search.names import BOUNDARY, EXACT, PREFIX, SUBSTRING
from mirror.search.query import plain_cursor
from mirror.search.refs.query import RefQuery
from mirror.search.refs.scan import RefHit

_NODE = """SELECT collection, branches, tags, with_branches, with_tags, with_either, best_branches, best_tags
    FROM search_ref_common WHERE path = ?"""
# No leaf's path begins with that of another: so the last one that sorts up to a path is the only candidate.
_LEAF = "SELECT path, names FROM search_ref_rare WHERE path <= ? ORDER BY path DESC LIMIT 1"
_NAMES = "SELECT id, name FROM search_ref_names WHERE id IN (SELECT value FROM json_each(:ids))"
_LISTS = """SELECT start, name_id, list, repositories, ages FROM search_ref_lists
    WHERE name_id IN (SELECT value FROM json_each(:names))
        AND list IN (SELECT value FROM json_each(:lists))"""
_STARTS = """SELECT l.start, l.list, n.id, n.name FROM search_ref_names n
    CROSS JOIN search_ref_lists l ON l.name_id = n.id
    WHERE {} AND l.list IN (SELECT value FROM json_each(:lists)) ORDER BY l.start"""
_CHUNK = "SELECT repositories, ages FROM search_ref_lists WHERE name_id = ? AND list = ? AND start = ?"
_IN_CLASS = {
    EXACT: "n.text = :exact",
    PREFIX: "instr(n.text, :prefix) = 1 AND n.text <> :exact",
    SUBSTRING: "instr(n.text, :needle) > 0 AND (:needle = x'' OR instr(n.text, :prefix) <> 1)",
}
_BUCKETS = "SELECT bucket, digits, repositories FROM search_ref_hashes WHERE bucket BETWEEN ? AND ?"


class SeenNode(msgspec.Struct, frozen=True):
    """A common path, as far as a query may see it: how many refs and repositories, and the best refs.

    `best` has (order, kind, name id), of each list that may be shown the first; `cut_at` the order that each
    list ends with that is not complete, -1 of an empty one.
    """

    refs: int
    repositories: int
    best: list[tuple[int, int, int]]
    cut_at: list[int]


class ListedRefs(msgspec.Struct):
    """Some refs that the index lists: how many, in which repositories, and the first hits of each list."""

    refs: int
    repositories: set[int]
    hits: list[RefHit]


class RefIndexReader:
    """The index of one file, within one snapshot, for one query."""

    def __init__(self, connection: sqlite3.Connection, query: RefQuery) -> None:
        self._cursor = plain_cursor(connection)
        self._query = query
        self._needle = query.part.encode()

    def path(self, match: int) -> bytes:
        """Return the path of the refs of a match class, and of better ones."""
        prefix = BOUNDARY + self._needle
        return {EXACT: prefix + BOUNDARY, PREFIX: prefix, SUBSTRING: self._needle}[match]

    def node(self, path: bytes) -> SeenNode | None:
        """Look up a common path; None for a rare one."""
        rows = self._cursor.execute(_NODE, (path,)).fetchall()
        if not rows:
            return None
        refs = repositories = 0
        best, cut_at = list[tuple[int, int, int]](), list[int]()
        column = 4 if len(self._query.kinds) == len(KINDS) else 2 + self._query.kinds[0]
        for collection, *row in rows:
            if collection not in self._query.collections:
                continue
            repositories += row[column]
            for kind in self._query.kinds:
                listed = unpack_listed(row[5 + kind])
                refs += row[kind]
                best += [(order, kind, name_id) for order, name_id in listed]
                if len(listed) < row[kind]:
                    cut_at.append(listed[-1].order if listed else -1)
        return SeenNode(refs, repositories, best, cut_at)

    def best_hits(self, node: SeenNode, without: AbstractSet[int]) -> list[RefHit]:
        """Return the best refs of a node, without those of some repositories."""
        names = self.names({name_id for _, _, name_id in node.best})
        matches = {name_id: self._query.match(name) for name_id, name in names.items()}
        return [
            RefHit(matches[name_id] or EXACT, order, kind, names[name_id])
            for order, kind, name_id in node.best
            if repository_of(order) not in without
        ]

    def leaf_names(self, path: bytes) -> dict[int, str]:
        """Return the matching names of a rare path, by id."""
        row = self._cursor.execute(_LEAF, (path,)).fetchone()
        if row is None or not path.startswith(row[0]):
            return {}
        names = self.names(unpack_numbers(row[1]))
        return {name_id: name for name_id, name in names.items() if self._query.match(name) is not None}

    def names(self, ids: Iterable[int]) -> dict[int, str]:
        """Return names by their ids."""
        return dict(self._cursor.execute(_NAMES, {"ids": json.dumps(list(ids))}).fetchall())

    def listed(self, names: dict[int, str], without: AbstractSet[int], stop: int) -> ListedRefs:
        """Count all refs of some names, and return hits among which are the first `stop`.

        The refs of the repositories `without` are left out. A chunk has one of the first of a match class
        only if its own first is among the first of as many chunks.
        """
        values = {"names": json.dumps(list(names)), "lists": json.dumps(self._query.lists)}
        matches = {name_id: self._query.match(name) or EXACT for name_id, name in names.items()}
        chunks = defaultdict[int, list[tuple[int, int, int, bytes, bytes]]](list)
        found = ListedRefs(0, set(), [])
        for chunk in self._cursor.execute(_LISTS, values):
            ids: Sequence[int] = unpack_numbers(chunk[3])
            if without:
                ids = [one for one in ids if one not in without]
            found.refs += len(ids)
            found.repositories.update(ids)
            chunks[matches[chunk[1]]].append(chunk)
        for match, its in chunks.items():
            newest = nsmallest(stop, [start for start, *_ in its])
            for start, name_id, which, ids_of, ages in its if newest else ():
                if start > newest[-1] and not without:
                    continue
                orders = unpack_orders(ids_of, ages, None if without else stop)
                kept = (order for order in orders if repository_of(order) not in without)
                name, kind = names[name_id], which % len(KINDS)
                found.hits += [RefHit(match, order, kind, name) for order in kept]
        return found

    def in_order(
        self, match: int, others: Sequence[RefHit], without: AbstractSet[int], stop: int
    ) -> list[RefHit]:
        """Return the first `stop` refs of a match class, or more, in order.

        `others` are refs of this class that the index does not have; what it has of the repositories
        `without` is left out. Chunks are read in the order of their newest refs, until no
        other can hold any newer ref.
        """
        values = {
            "exact": self.path(EXACT),
            "prefix": self.path(PREFIX),
            "needle": self._needle,
            "lists": json.dumps(self._query.lists),
        }
        chunks = self._cursor.execute(_STARTS.format(_IN_CLASS[match]), values).fetchall()
        hits, enough = list(others), stop
        last: int | None = None  # the order of the last hit of so many, once there are
        for start, which, name_id, name in chunks:
            if last is not None and start > last:
                break
            orders = unpack_orders(*self._cursor.execute(_CHUNK, (name_id, which, start)).fetchone())
            if last is not None:
                del orders[bisect_right(orders, last) :]
            kind = which % len(KINDS)
            hits += [RefHit(match, one, kind, name) for one in orders if repository_of(one) not in without]
            if len(hits) >= enough:
                hits.sort()
                del hits[stop:]
                last, enough = hits[-1].order, 2 * stop
        return sorted(hits)

    def repositories_at(self, commit: str) -> set[int]:
        """Return the repositories that may have a ref at a commit whose hash begins so."""
        low, high = int(commit[:8].ljust(8, "0"), 16), int(commit[:8].ljust(8, "f"), 16)
        found = set[int]()
        for bucket, *packed in self._cursor.execute(_BUCKETS, (low >> 16, high >> 16)):
            for digits, repository in unpack_bucket(*packed):
                if low <= (bucket << 16 | digits) <= high:
                    found.add(repository)
        return found
