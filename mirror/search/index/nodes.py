"""Write the nodes of the index: for each common path and collection, a count and a list of the best.

Array shapes: E entries, G groups.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.batch import Batch
from mirror.search.index.build import (
    cut,
    differs_from_previous,
    insert_rows,
)
from mirror.search.index.format import (
    LONG_LIST_FROM,
    UNRANKED,
    list_limit,
    pack_best,
    unpack_best,
)
from mirror.search.names import COLLECTIONS, PUBLIC, Popularity, popularity
from mirror.search.query import plain_cursor

_PATHS_AT_ONCE = 500  # in one SQL statement

_READ = "SELECT path, collection, repositories, best, bar FROM search_common WHERE path IN"

_REPLACE = """ON CONFLICT DO UPDATE
    SET repositories = excluded.repositories, best = excluded.best, bar = excluded.bar"""

_POPULARITIES = """SELECT followers_count, forks_count, created_at, id FROM repositories
    WHERE id IN (SELECT value FROM json_each(?))"""

_UNREACHABLE = (1 << 63) - 1  # greater than any follower count
_WIDTH = len(COLLECTIONS)

NodeRow = tuple[bytes, int, int, bytes, int]
"""A row of `search_common`: path, collection, number of repositories, `best` and `bar`.

`best` holds the packed ids of all repositories, in any order, or of the best. A partial list starts with ids
in rank order; ids added since (UNRANKED set) are candidates with at least `bar` followers, which is how many
the last ranked one had when it was ranked.
"""


class NodeWriter:
    """Changes the nodes of the index for one batch; `flush` writes them."""

    def __init__(self, connection: sqlite3.Connection, batch: Batch) -> None:
        self._connection = connection
        self._batch = batch
        self._changed = list[NodeRow]()
        self._too_long = list[NodeRow]()  # their lists are to be ranked and cut
        # The lists of a collection have only ids that the index knows there, so no list has another's.
        self._leaving = np.zeros(int(batch.ids.max(initial=0)) + 2, dtype=bool)
        self._leaving[batch.ids[batch.leaves]] = True

    def read(self, paths: Sequence[bytes]) -> list[NodeRow]:
        """Return the rows of those of some paths that are nodes, in order. Every node has one for PUBLIC."""
        rows = list[NodeRow]()
        cursor = plain_cursor(self._connection)
        for first in range(0, len(paths), _PATHS_AT_ONCE):
            some = paths[first : first + _PATHS_AT_ONCE]
            rows += cursor.execute(f"{_READ} ({', '.join('?' * len(some))})", some)
        return rows

    def create(self, path: bytes, ranked: dict[int, list[Popularity]]) -> None:
        """Create a node, given the popularity of its repositories by collection, in rank order."""
        for collection, members in ({PUBLIC: list[Popularity]()} | ranked).items():
            best = members[: list_limit(len(members))]
            ids, bar = pack_best([popular[-1] for popular in best]), -best[-1][0] if best else 0
            self._changed.append((path, collection, len(members), ids, bar))
        self.flush()

    def change(
        self, rows: list[NodeRow], paths: list[bytes], group: NDArray[np.uint64], entries: Numbers
    ) -> None:
        """Let entries leave or join the nodes of their groups.

        A joining id is appended to a complete list, or to a ranked one if it has enough followers. Most nodes
        list no repository with so few followers: they only count it.

        :param rows: all rows of the nodes; those of collections that a node does not have yet are added
        :param paths: the path of each group [G]
        :param group: the group of each entry, ascending
        :param entries: the entries, each once a group
        """
        if not entries.size:
            return
        index = _row_of_each(rows, paths, group, self._batch.collection[entries])
        names, collections, counts, lists, bars = zip(*rows, strict=True)
        best = list(lists)
        joins = self._batch.joins[entries]
        left = np.bincount(index[self._batch.leaves[entries]], minlength=len(rows))
        joined = np.bincount(index[joins], minlength=len(rows))
        count = np.array(counts, dtype=np.int64) - left
        sizes = np.fromiter(map(len, best), dtype=np.int64, count=len(rows)) // 4
        changed = left != joined
        for place, packed in _lists_without(self._leaving, best, sizes, count):
            best[place] = packed
            sizes[place] = len(packed) // 4
            changed[place] = True
        bar = np.where(sizes > 0, np.array(bars, dtype=np.int64), _UNREACHABLE)
        complete = sizes == count
        listed = joins & (complete[index] | (self._batch.followers[entries] >= bar[index]))
        listed = np.flatnonzero(listed)
        listed = listed[np.argsort(index[listed], kind="stable")]
        places = index[listed]
        ids = self._batch.ids[entries[listed]] | np.where(complete[places], 0, UNRANKED).astype(np.uint32)
        begins = np.flatnonzero(differs_from_previous(places)) if places.size else places
        parts = cut(ids.astype("<u4").tobytes(), 4 * np.append(begins, places.size))
        for place, packed in zip(places[begins].tolist(), parts, strict=True):
            best[place] += packed
        changed[places] = True
        sizes += np.bincount(places, minlength=len(rows))
        count += joined
        limits = np.where(count < LONG_LIST_FROM, list_limit(0), list_limit(LONG_LIST_FROM))
        too_long = 2 * sizes > 3 * limits
        new = list(zip(names, collections, count.tolist(), best, bars, strict=True))
        self._changed += compress(new, (changed & ~too_long).tolist())
        self._too_long += compress(new, (changed & too_long).tolist())

    def flush(self) -> None:
        """Rank and cut the lists that are too long, and write all changed rows."""
        known = self._popularities(
            {row_id for row in self._too_long for ids in unpack_best(row[3]) for row_id in ids}
        )
        for path, collection, count, packed, _ in self._too_long:
            self._changed.append((path, collection, count, *_ranked(packed, count, known)))
        insert_rows(self._connection, "search_common", self._changed, _REPLACE)
        self._changed.clear()
        self._too_long.clear()

    def _popularities(self, ids: set[int]) -> dict[int, Popularity]:
        """Read the popularity of some repositories; deleted ones are the least popular."""
        known = {row_id: popularity(None, None, None, row_id) for row_id in ids}
        rows = self._connection.execute(_POPULARITIES, (json.dumps(list(ids)),))
        return known | {row[-1]: popularity(*row) for row in rows}


def _row_of_each(
    rows: list[NodeRow], paths: list[bytes], group: NDArray[np.uint64], collection: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the index of the row that each entry belongs to; add the rows that are missing."""
    number = dict(zip(paths, range(0, len(paths) * _WIDTH, _WIDTH), strict=True))
    keys = np.fromiter((number[row[0]] + row[1] for row in rows), dtype=np.int64, count=len(rows))
    row_of = np.full(len(paths) * _WIDTH, -1, dtype=np.int64)
    row_of[keys] = np.arange(len(rows))
    wanted = group.astype(np.int64) * _WIDTH + collection
    is_missing = np.zeros(row_of.size, dtype=bool)
    is_missing[wanted] = row_of[wanted] < 0
    missing = np.flatnonzero(is_missing)  # in the order of np.unique, in a tenth of its time
    row_of[missing] = np.arange(len(rows), len(rows) + missing.size)
    rows += [(paths[key // _WIDTH], key % _WIDTH, 0, b"", 0) for key in missing.tolist()]
    index: NDArray[np.int64] = row_of[wanted]
    return index


def _lists_without(
    leaving: NDArray[np.bool_], lists: Sequence[bytes], sizes: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[int, bytes]]:
    """Yield (index of the row, new packed list) for each list that contains any leaving id.

    `leaving` says of each id whether it leaves, and no higher one than the last does.

    A partial list that has lost all its ranked ids becomes empty: nothing is known of the best any more.
    """
    ids = np.frombuffer(b"".join(lists), dtype="<u4")
    leaves = leaving.take(ids & np.uint32(UNRANKED - 1), mode="clip")
    index = np.repeat(np.arange(sizes.size), sizes)
    lost = np.bincount(index[leaves], minlength=sizes.size)
    kept, sizes = ids[~leaves], sizes - lost
    packed, ends = kept.tobytes(), np.cumsum(sizes)
    # Ranked ids come first, so that the first one tells whether any is left.
    first = kept[np.minimum(ends - sizes, kept.size - 1)] if kept.size else np.zeros(sizes.size, ids.dtype)
    is_known = (sizes == counts) | ((sizes > 0) & (first < UNRANKED))
    for row in np.flatnonzero(lost).tolist():
        yield row, packed[4 * (ends[row] - sizes[row]) : 4 * ends[row]] if is_known[row] else b""


def _ranked(packed: bytes, count: int, known: dict[int, Popularity]) -> tuple[bytes, int]:
    """Sort a node's list and cut it to its limit; return it, packed, and its bar."""
    ranked, unranked = unpack_best(packed)
    ids = sorted([*ranked, *unranked], key=known.__getitem__)
    if len(ids) < count:  # below its last ranked id, a partial list may have gaps
        ids = ids[: ids.index(ranked[-1]) + 1]
    ids = ids[: list_limit(count)]
    return pack_best(ids), -known[ids[-1]][0]
