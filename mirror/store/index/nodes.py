"""The common paths while they change: read when first asked for, kept in memory, written back together."""

import sqlite3
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from mirror.names import Popularity, popularity
from mirror.trie import PUBLIC, listed, pack, unpack

_READ = "SELECT collection, repositories, best FROM search_common WHERE path = ?"
_WRITE = "INSERT OR REPLACE INTO search_common VALUES (?, ?, ?, ?)"
_POPULARITY = "SELECT followers_count, forks_count, created_at, id FROM repositories WHERE id = ?"


@dataclass(slots=True)
class Tally:
    """One collection's share of a node: how many repositories, and the best of them in order.

    `best` is always exact as far as it goes; it may be short after removals.
    """

    count: int = 0
    best: list[int] = field(default_factory=list)
    joining: list[Popularity] = field(default_factory=list)


class Nodes:
    """The common paths of a file; a container of paths for `walk`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._nodes = dict[bytes, dict[int, Tally] | None]()
        self._changed = set[tuple[bytes, int]]()
        self._popularity = dict[int, Popularity]()

    def __contains__(self, path: object) -> bool:
        return isinstance(path, bytes) and self._node(path) is not None

    def create(self, path: bytes) -> None:
        """Make a path common, with nothing in it yet."""
        self._nodes[path] = {PUBLIC: Tally()}
        self._changed.add((path, PUBLIC))

    def leave(self, path: bytes, collection: int, row_id: int) -> None:
        """Take one repository out of a node."""
        tally = self._tally(path, collection)
        tally.count -= 1
        if row_id in tally.best:
            tally.best.remove(row_id)

    def join(self, path: bytes, collection: int, popular: Popularity) -> None:
        """Put one repository into a node; all leave before the first joins, and `settle` ends it."""
        self._tally(path, collection).joining.append(popular)

    def settle(self) -> set[tuple[bytes, int]]:
        """Rank those that joined, write what changed, and return the nodes (path, collection) that did."""
        changed, self._changed = self._changed, set()
        rows = []
        for path, collection in sorted(changed):
            tally = (self._nodes[path] or {})[collection]
            self._rank(tally)
            rows.append((path, collection, tally.count, pack(tally.best)))
        self._connection.executemany(_WRITE, rows)
        return changed

    def tally(self, path: bytes, collection: int) -> Tally:
        """Return one collection's share of a common path; raises KeyError for a path that is not common."""
        return (self._node(path) or {})[collection]

    def learn(self, ranked: Iterable[Popularity]) -> None:
        """Remember the popularity of rows that have been read anyway."""
        for popular in ranked:
            self._popularity[popular[-1]] = popular

    def refill(self, path: bytes, collection: int, ranked: Iterable[Popularity]) -> None:
        """Give a node its list anew, from all that are in it."""
        tally = self._tally(path, collection)
        tally.best = [popular[-1] for popular in sorted(ranked)[: listed(tally.count)]]

    def _rank(self, tally: Tally) -> None:
        """Merge those that joined into the best; where the list is not complete, its last is the bar."""
        for popular in sorted(tally.joining):
            at = bisect(tally.best, popular, key=self.popularity_of)
            complete = len(tally.best) == tally.count
            tally.count += 1
            if at < len(tally.best) or complete:
                tally.best.insert(at, popular[-1])
                del tally.best[listed(tally.count) :]
        tally.joining.clear()

    def popularity_of(self, row_id: int) -> Popularity:
        """Return how popular a row is, reading it unless it is known."""
        known = self._popularity.get(row_id)
        if known is None:
            row = self._connection.execute(_POPULARITY, (row_id,)).fetchone()
            known = self._popularity[row_id] = popularity(*row)
        return known

    def _tally(self, path: bytes, collection: int) -> Tally:
        node = self._node(path)
        if node is None:
            raise KeyError(path)
        self._changed.add((path, collection))
        return node.setdefault(collection, Tally())

    def _node(self, path: bytes) -> dict[int, Tally] | None:
        try:
            return self._nodes[path]
        except KeyError:
            rows = self._connection.execute(_READ, (path,)).fetchall()
            node = {row[0]: Tally(row[1], unpack(row[2])) for row in rows} or None
            self._nodes[path] = node
            return node
