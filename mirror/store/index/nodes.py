"""The common paths while they change: read when first asked for, kept in memory, written back together."""

import json
import sqlite3
from collections.abc import Container, Iterable

import msgspec

from mirror.names import Popularity, popularity
from mirror.trie import COLLECTIONS, PUBLIC, listed, pack_best, pack_joined, unpack_best

_READ = "SELECT path, collection, repositories, best, bar FROM search_common WHERE collection = ? AND path IN"
_WRITE = """INSERT INTO search_common VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
    SET repositories = excluded.repositories, best = excluded.best, bar = excluded.bar"""
_AT_ONCE = 200
_POPULARITY = "SELECT followers_count, forks_count, created_at, id FROM repositories WHERE id = ?"
_POPULARITIES = """SELECT followers_count, forks_count, created_at, id FROM repositories
    WHERE id IN (SELECT value FROM json_each(?))"""


class Tally(msgspec.Struct, gc=False):  # half a million of them are made, and none is in a cycle
    """One collection's share of a node: how many repositories, and all of them or the best, packed.

    A list of all is in any order. Any other is ranked as far as it goes, and whoever might be above its last
    has joined it since: all who have at least `bar` followers, which its last had when it was ranked.
    """

    path: bytes
    collection: int
    count: int = 0
    best: bytes = b""
    bar: int = 0
    is_touched: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all are listed."""
        return len(self.best) == 4 * self.count

    @property
    def is_long(self) -> bool:
        """Whether so many have joined that those at the end may go."""
        return len(self.best) > 6 * listed(self.count)


class Nodes:
    """The common paths of a file, with all that they know.

    `common` holds those that have been read; after `read_ahead` for a text, all that `walk` asks for. Each of
    them has a tally of the public collection, be it of nobody; `read_others` reads the others where needed.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tallies: dict[int, dict[bytes, Tally]] = {collection: {} for collection in COLLECTIONS}
        self.common: Container[bytes] = self._tallies[PUBLIC]
        self._absent = set[bytes]()
        self._touched = list[Tally]()
        self._popularity = dict[int, Popularity]()

    def __contains__(self, path: object) -> bool:
        if path in self.common:
            return True
        if not isinstance(path, bytes) or path in self._absent:
            return False
        self._read([path], PUBLIC)
        if path not in self.common:
            self._absent.add(path)
        return path in self.common

    def read_ahead(self, texts: Iterable[bytes]) -> None:
        """Read all nodes that some texts will pass, level by level, many at a time."""
        suffixes = {text[start:] for text in set(texts) for start in range(len(text))}
        public = self._tallies[PUBLIC]
        depth = 1
        while suffixes:
            self._read(sorted({suffix[:depth] for suffix in suffixes} - public.keys()), PUBLIC)
            suffixes = {suffix for suffix in suffixes if len(suffix) > depth and suffix[:depth] in public}
            depth += 1

    def read_others(self, paths: Iterable[bytes], collection: int) -> None:
        """Read the tallies that some common paths have of a collection that is going to change there."""
        if collection != PUBLIC:
            self._read(sorted(set(paths)), collection)

    def create(self, path: bytes) -> None:
        """Make a path common, with nothing in it yet."""
        self._absent.discard(path)
        self._touch([path], PUBLIC)

    def leave(self, paths: Iterable[bytes], collection: int, row_id: int) -> None:
        """Take one repository out of some common paths."""
        packed, joined = pack_best([row_id]), pack_joined([row_id])
        for tally in self._touch(paths, collection):
            tally.count -= 1
            if packed in tally.best or joined in tally.best:
                tally.best = _without(row_id, tally.best, is_complete=len(tally.best) > 4 * tally.count)

    def join(self, paths: Iterable[bytes], collection: int, popular: Popularity) -> None:
        """Put one repository into some common paths.

        Most nodes list nobody who has so few followers: there it is counted, and that is all.
        """
        followers = -popular[0]
        packed, joined = pack_best(popular[-1:]), pack_joined(popular[-1:])
        for tally in self._touch(paths, collection):
            if tally.is_complete:
                tally.best += packed
            elif followers >= tally.bar and tally.best:
                tally.best += joined
            tally.count += 1

    def concerned(self, paths: Iterable[bytes], collection: int, popular: Popularity) -> list[bytes]:
        """Return the paths whose lists change when one that they count has become so popular."""
        packed, joined = pack_best(popular[-1:]), pack_joined(popular[-1:])
        followers = -popular[0]
        tallies = self._tallies[collection]
        return [
            path
            for path in paths
            if (followers >= (tally := tallies[path]).bar or packed in tally.best or joined in tally.best)
            and not tally.is_complete
        ]

    def settle(self) -> None:
        """Rank the lists that have become long, and write what changed."""
        long = [tally for tally in self._touched if tally.is_long]
        self._read_popularity({row_id for tally in long for ids in unpack_best(tally.best) for row_id in ids})
        for tally in long:
            self._rank(tally)
        rows = []
        for tally in self._touched:
            tally.is_touched = False
            rows.append((tally.path, tally.collection, tally.count, tally.best, tally.bar))
        self._connection.executemany(_WRITE, sorted(rows))
        self._touched.clear()

    def learn(self, ranked: Iterable[Popularity]) -> None:
        """Remember the popularity of rows that have been read anyway."""
        for popular in ranked:
            self._popularity[popular[-1]] = popular

    def _read_popularity(self, ids: set[int]) -> None:
        rows = self._connection.execute(_POPULARITIES, (json.dumps(list(ids - self._popularity.keys())),))
        self.learn(popularity(*row) for row in rows)

    def _rank(self, tally: Tally) -> None:
        """List the best in order; those below the last of a list that is not of all are not the next best."""
        ranked, joined = unpack_best(tally.best)
        ids = sorted([*ranked, *joined], key=self.popularity_of)
        if not tally.is_complete:
            ids = ids[: ids.index(ranked[-1]) + 1]
        ids = ids[: listed(tally.count)]
        tally.best, tally.bar = pack_best(ids), -self.popularity_of(ids[-1])[0]

    def popularity_of(self, row_id: int) -> Popularity:
        """Return how popular a row is, reading it unless it is known."""
        known = self._popularity.get(row_id)
        if known is None:
            row = self._connection.execute(_POPULARITY, (row_id,)).fetchone()
            known = self._popularity[row_id] = popularity(*(row or (None, None, None, row_id)))
        return known

    def _touch(self, paths: Iterable[bytes], collection: int) -> list[Tally]:
        """Return tallies that are going to change."""
        tallies = self._tallies[collection]
        touched = list[Tally]()
        for path in paths:
            tally = tallies.get(path)
            if tally is None:
                tally = tallies[path] = Tally(path, collection)
            if not tally.is_touched:
                tally.is_touched = True
                self._touched.append(tally)
            touched.append(tally)
        return touched

    def _read(self, paths: list[bytes], collection: int) -> None:
        tallies = self._tallies[collection]
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            for row in self._connection.execute(f"{_READ} ({marks})", (collection, *some)):
                tallies[row[0]] = Tally(*row)


def _without(row_id: int, best: bytes, *, is_complete: bool) -> bytes:
    """Take one out of a list; nothing is known of one that has lost all that were ranked."""
    ranked, joined = ([other for other in ids if other != row_id] for ids in unpack_best(best))
    return pack_best(ranked) + pack_joined(joined) if ranked or is_complete else b""
