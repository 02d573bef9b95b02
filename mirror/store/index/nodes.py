"""The common paths while they change: read when first asked for, kept in memory, written back together."""

import sqlite3
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from mirror.names import Popularity, popularity
from mirror.trie import END, LONG, PUBLIC, listed, pack, unpack

_READ = "SELECT path, collection, repositories, best, bar FROM search_common WHERE path IN"
_WRITE = "INSERT OR REPLACE INTO search_common VALUES (?, ?, ?, ?, ?)"
_AT_ONCE = 200
_POPULARITY = "SELECT followers_count, forks_count, created_at, id FROM repositories WHERE id = ?"


@dataclass(slots=True)
class Tally:
    """One collection's share of a node: how many repositories, and the best of them in order, packed.

    The list is always exact as far as it goes; it may be short after removals. It is seldom touched, so it
    stays packed until it must be. Where it is not complete, who has fewer followers than `bar` need not
    be compared with it.
    """

    count: int = 0
    best: bytes = b""
    bar: int = 0
    joining: list[Popularity] = field(default_factory=list)

    def last(self) -> int:
        """Return the last id of the list, which is not empty."""
        end = len(self.best) - 1
        while end and self.best[end - 1] > 127:
            end -= 1
        return unpack(self.best[end:])[0]


class Nodes:
    """The common paths of a file; a container of paths for `walk`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._nodes = dict[bytes, dict[int, Tally] | None]()
        self._changed = set[tuple[bytes, int]]()
        self._popularity = dict[int, Popularity]()

    def __contains__(self, path: object) -> bool:
        return isinstance(path, bytes) and self._node(path) is not None

    def read_ahead(self, texts: Iterable[bytes]) -> None:
        """Read all nodes that some texts will pass, level by level, many at a time."""
        ways = [(text + END, start) for text in set(texts) for start in range(len(text))]
        depth = 1
        while ways:
            paths = {text[start : start + depth] for text, start in ways} - self._nodes.keys()
            self._read(sorted(paths))
            ways = [way for way in ways if self._nodes[way[0][way[1] : way[1] + depth]] is not None]
            depth += 1

    def create(self, path: bytes) -> None:
        """Make a path common, with nothing in it yet."""
        self._nodes[path] = {PUBLIC: Tally()}
        self._changed.add((path, PUBLIC))

    def leave(self, paths: Iterable[bytes], collection: int, row_id: int) -> None:
        """Take one repository out of some common paths."""
        packed = pack([row_id])
        for path in paths:
            tally = self._tally(path, collection)
            tally.count -= 1
            if packed in tally.best:
                tally.best = _without(tally.best, row_id)

    def join(self, paths: Iterable[bytes], collection: int, popular: Popularity) -> None:
        """Put one repository into some common paths; all leave before the first joins, `settle` ends it."""
        for path in paths:
            self._tally(path, collection).joining.append(popular)

    def concerned(self, paths: Iterable[bytes], collection: int, popular: Popularity) -> list[bytes]:
        """Return the paths whose lists change when one that they count has become so popular."""
        packed = pack([popular[-1]])
        tallies = ((path, (self._nodes[path] or {})[collection]) for path in paths)
        return [
            path
            for path, tally in tallies
            if tally.count <= listed(LONG) or -popular[0] >= tally.bar or packed in tally.best
        ]

    def settle(self) -> None:
        """Rank those that joined, and write what changed."""
        changed, self._changed = self._changed, set()
        rows = []
        for path, collection in sorted(changed):
            tally = (self._nodes[path] or {})[collection]
            self._rank(tally)
            rows.append((path, collection, tally.count, tally.best, tally.bar))
        self._connection.executemany(_WRITE, rows)

    def learn(self, ranked: Iterable[Popularity]) -> None:
        """Remember the popularity of rows that have been read anyway."""
        for popular in ranked:
            self._popularity[popular[-1]] = popular

    def _rank(self, tally: Tally) -> None:
        """Merge those that joined into the best; where the list is not complete, its last is the bar."""
        joining = tally.joining
        if tally.best and tally.count > listed(LONG):
            last = tally.last()
            better = [it for it in joining if -it[0] >= tally.bar and it < self.popularity_of(last)]
            tally.count += len(joining) - len(better)
            joining = better
        if joining:
            self._merge(tally, sorted(joining))
        tally.joining = []

    def _merge(self, tally: Tally, joining: list[Popularity]) -> None:
        best = unpack(tally.best)
        for popular in joining:
            at = bisect(best, popular, key=self.popularity_of)
            complete = len(best) == tally.count
            tally.count += 1
            if at < len(best) or complete:
                best.insert(at, popular[-1])
                del best[listed(tally.count) :]
        tally.best = pack(best)
        tally.bar = -self.popularity_of(best[-1])[0] if best else 0

    def popularity_of(self, row_id: int) -> Popularity:
        """Return how popular a row is, reading it unless it is known."""
        known = self._popularity.get(row_id)
        if known is None:
            row = self._connection.execute(_POPULARITY, (row_id,)).fetchone()
            known = self._popularity[row_id] = popularity(*row)
        return known

    def _tally(self, path: bytes, collection: int) -> Tally:
        self._changed.add((path, collection))
        node = self._nodes[path] or {}
        tally = node.get(collection)
        if tally is None:
            tally = node[collection] = Tally()
        return tally

    def _node(self, path: bytes) -> dict[int, Tally] | None:
        try:
            return self._nodes[path]
        except KeyError:
            self._read([path])
            return self._nodes[path]

    def _read(self, paths: list[bytes]) -> None:
        self._nodes.update(dict.fromkeys(paths))
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            for path, collection, count, best, bar in self._connection.execute(f"{_READ} ({marks})", some):
                node = self._nodes[path]
                if node is None:
                    node = self._nodes[path] = {}
                node[collection] = Tally(count, best, bar)


def _without(best: bytes, row_id: int) -> bytes:
    """Take an id out of a packed list, if it is there: bytes of two neighbours may look like it."""
    return pack([listed_id for listed_id in unpack(best) if listed_id != row_id])
