"""The common paths while they change: read level by level, changed in memory, written back together."""

import json
import sqlite3
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.names import Popularity, popularity
from mirror.store.index.batch import Batch
from mirror.store.index.suffixes import Numbers, first_of_equals
from mirror.trie import COLLECTIONS, JOINED, PUBLIC, listed, pack_best, pack_joined, unpack_best

_READ = """SELECT path, collection, repositories, best, bar FROM search_common
    WHERE collection = ? AND path IN"""
_WRITE = """INSERT INTO search_common VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
    SET repositories = excluded.repositories, best = excluded.best, bar = excluded.bar"""
_AT_ONCE = 200
_NOBODY = (1 << 63) - 1  # so many followers has nobody
_POPULARITIES = """SELECT followers_count, forks_count, created_at, id FROM repositories
    WHERE id IN (SELECT value FROM json_each(?))"""


class Tally(msgspec.Struct, gc=False):  # a hundred thousand of them are made, and none is in a cycle
    """One collection's share of a node: how many repositories, and all of them or the best, packed.

    A list of all is in any order. Any other is ranked as far as it goes, and whoever might be above its last
    has joined it since: all who have at least `bar` followers, which its last had when it was ranked.
    """

    path: bytes
    collection: int
    count: int = 0
    best: bytes = b""
    bar: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all are listed."""
        return len(self.best) == 4 * self.count

    @property
    def is_long(self) -> bool:
        """Whether so many have joined that those at the end may go."""
        return len(self.best) > 6 * listed(self.count)


class Nodes:
    """The common paths of a file, and what they know, while one batch changes it."""

    def __init__(self, connection: sqlite3.Connection, batch: Batch) -> None:
        self._connection = connection
        self._batch = batch
        self._changed = list[Tally]()
        self._leaving = {
            collection: np.sort(batch.ids[~batch.joins & (batch.collection == collection)])
            for collection in COLLECTIONS
        }

    def read(self, paths: Sequence[bytes], collection: int = PUBLIC) -> dict[bytes, Tally]:
        """Read what some paths know of a collection; each common path knows the public one, be it empty."""
        tallies = dict[bytes, Tally]()
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            for row in self._connection.execute(f"{_READ} ({marks})", (collection, *some)):
                tallies[row[0]] = Tally(*row)
        return tallies

    def create(self, path: bytes, ranked: dict[int, list[Popularity]]) -> None:
        """Make a path common; those whom each collection has in it are ranked."""
        for collection, members in ({PUBLIC: list[Popularity]()} | ranked).items():
            best = members[: listed(len(members))]
            ids, bar = pack_best([popular[-1] for popular in best]), -best[-1][0] if best else 0
            self._changed.append(Tally(path, collection, len(members), ids, bar))
        self.settle()

    def change(
        self, tallies: dict[bytes, Tally], paths: list[bytes], group: NDArray[np.uint64], of: Numbers
    ) -> None:
        """Let all entries leave or join their groups' nodes, whose public tallies have been read.

        `group` has the place in `paths` for each of the entries `of`, in rising order.
        """
        for collection in COLLECTIONS:
            mine = self._batch.collection[of] == collection
            if mine.any():
                here = group[mine]
                firsts = first_of_equals(here)
                some = [paths[place] for place in here[firsts].tolist()]
                known = tallies if collection == PUBLIC else self.read(some, collection)
                self._change(
                    [known.get(path) or Tally(path, collection) for path in some],
                    np.cumsum(firsts) - 1,
                    of[mine],
                    self._leaving[collection],
                )

    def _change(self, tallies: list[Tally], place: NDArray[np.int64], of: Numbers, leaving: Numbers) -> None:
        """Let entries of one collection leave or join the tallies at some places.

        Who leaves is in a list or not; who joins comes into a list of all, or with enough followers into a
        ranked one. Most nodes list nobody who has so few: there it is counted, and that is all.
        """
        joins = self._batch.joins[of]
        left = np.bincount(place[~joins], minlength=len(tallies))
        joined = np.bincount(place[joins], minlength=len(tallies))
        changed = left != joined
        for tally, number in zip(tallies, left.tolist(), strict=True):
            tally.count -= number
        for index, best in _without(leaving, tallies):
            tallies[index].best = best
            changed[index] = True
        complete = np.array([tally.is_complete for tally in tallies])
        lowest = np.array([tally.bar if tally.best else _NOBODY for tally in tallies])
        comes = joins & (complete[place] | (self._batch.followers[of] >= lowest[place]))
        for index, row_id in zip(place[comes].tolist(), self._batch.ids[of[comes]].tolist(), strict=True):
            tallies[index].best += pack_best([row_id]) if complete[index] else pack_joined([row_id])
            changed[index] = True
        for tally, number in zip(tallies, joined.tolist(), strict=True):
            tally.count += number
        self._changed += [tally for tally, yes in zip(tallies, changed.tolist(), strict=True) if yes]

    def settle(self) -> None:
        """Rank the lists that have become long, and write what changed."""
        long = [tally for tally in self._changed if tally.is_long]
        known = self._popularities(
            {row_id for tally in long for ids in unpack_best(tally.best) for row_id in ids}
        )
        for tally in long:
            _rank(tally, known)
        rows = [(tally.path, tally.collection, tally.count, tally.best, tally.bar) for tally in self._changed]
        self._connection.executemany(_WRITE, sorted(rows))
        self._changed.clear()

    def _popularities(self, ids: set[int]) -> dict[int, Popularity]:
        """Read how popular some rows are; those that are gone are as unpopular as can be."""
        known = {row_id: popularity(None, None, None, row_id) for row_id in ids}
        rows = self._connection.execute(_POPULARITIES, (json.dumps(list(ids)),))
        return known | {row[-1]: popularity(*row) for row in rows}


def _without(leaving: Numbers, tallies: Sequence[Tally]) -> Iterator[tuple[int, bytes]]:
    """Yield what is left of the lists that any of some ids are in, with the places of their tallies.

    Nothing is known any more of one that has lost all that were ranked.
    """
    ids = np.frombuffer(b"".join([tally.best for tally in tallies]), dtype="<u4")
    stays = ~_among(ids & np.uint32(JOINED - 1), leaving)
    ends = np.cumsum([len(tally.best) // 4 for tally in tallies])
    for index in np.unique(np.searchsorted(ends, np.flatnonzero(~stays), side="right")).tolist():
        tally, end = tallies[index], ends[index]
        here = slice(end - len(tally.best) // 4, end)
        kept = ids[here][stays[here]]
        is_known = kept.size == tally.count or (kept < JOINED).any()
        yield index, kept.tobytes() if is_known else b""


def _among(ids: Numbers, few: Numbers) -> NDArray[np.bool_]:
    """Say which ids are among a few; their lowest bits sort out most of the others at no cost."""
    sieve = np.zeros(1 << 20, dtype=bool)
    lowest = np.uint32(sieve.size - 1)
    sieve[few & lowest] = True
    found: NDArray[np.bool_] = sieve[ids & lowest]
    found[found] = np.isin(ids[found], few)
    return found


def _rank(tally: Tally, known: dict[int, Popularity]) -> None:
    """List the best in order; those below the last of a list that is not of all are not the next best."""
    ranked, joined = unpack_best(tally.best)
    ids = sorted([*ranked, *joined], key=known.__getitem__)
    if not tally.is_complete:
        ids = ids[: ids.index(ranked[-1]) + 1]
    ids = ids[: listed(tally.count)]
    tally.best, tally.bar = pack_best(ids), -known[ids[-1]][0]
