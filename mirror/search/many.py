"""Hits among all repositories at once, as arrays: for questions that many repositories match.

The lists of the index say which repositories have a part in their name, the columns which pass the filters.
Where neither is sure, and for what changed since, rows are read one by one.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.columns import (
    ARCHIVED,
    FORK,
    GIT,
    HG,
    KNOWN,
    UNSURE,
    language_code,
    read_column,
    read_dense,
)
from mirror.search.index.format import IndexReader, Leaf
from mirror.search.names import COLLECTIONS
from mirror.search.query import Conditions, Query, plain_cursor
from mirror.search.scan import Hit

Ids = NDArray[np.int64]
_SWITCHES = {"forks": FORK, "archived": ARCHIVED}
_SCMS = {"git": GIT, "hg": HG}


class ManyHits:
    """The hits of one query within one snapshot.

    :param conditions: those of the query, for the rows that are read
    :param pending: the hits among pending and new rows, of which the index is out of date
    :param few: up to how many repositories that pass the filters are read and compared one by one
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        index: IndexReader,
        query: Query,
        conditions: Conditions,
        pending: list[Hit],
        few: int,
    ) -> None:
        self._cursor = plain_cursor(connection)
        self._query, self._conditions = query, conditions
        self._index = index
        self._size = self._index.up_to + 1
        self._columns = dict[str, NDArray[Any]]()
        passing, unsure = self._passing()
        self._read = pending
        """The hits whose rows were read; `_sure` marks the others."""
        if np.count_nonzero(passing) + np.count_nonzero(unsure) <= few:
            self._read = [*pending, *self._matching(np.flatnonzero(passing | unsure))]
            passing[:] = False
        elif query.part:
            named = self._named(query.needle)
            self._read = [*pending, *self._matching(np.flatnonzero(unsure & named))]
            passing &= named
        else:
            self._read = [*pending, *self._matching(np.flatnonzero(unsure))]
        self._sure = passing

    def count(self) -> int:
        """Return the number of all hits."""
        return int(np.count_nonzero(self._sure)) + len(self._read)

    def page(self, start: int, stop: int, classes: Iterable[tuple[int, bytes]]) -> list[Hit]:
        """Return hits `start` to `stop` in order.

        :param classes: the match classes, the best first, each with the path of its hits
        """
        page, before, rest = list[Hit](), 0, self._sure.copy()
        for match, path in classes:
            here = self._of_class(match, path, rest)
            rest[here] = False
            read = [hit for hit in self._read if hit[0] == match]
            upto = before + here.size + len(read)
            if max(start, before) < min(stop, upto):
                page += self._cut(here, read, max(start - before, 0), min(stop, upto) - before)
            before = upto
            if stop <= upto:
                break
        return page

    def _cut(self, ids: Ids, read: list[Hit], start: int, stop: int) -> list[Hit]:
        """Return hits `start` to `stop` of one match class, which has these ids and these that were read."""
        skipped = max(start - len(read), 0)  # that many of the ids come before `start` in any case
        best = self._best(ids, stop)[skipped:]
        return sorted([*read, *self._matching(best)])[start - skipped : stop - skipped]

    def _best(self, ids: Ids, most: int) -> Ids:
        """Return the most popular ids in order."""
        chosen, left = list[Ids](), ids
        for name in ("followers", "forks", "created"):
            missing = most - sum(some.size for some in chosen)
            if left.size <= missing:
                break
            values = self._column(name)[left]
            bar = np.partition(values, left.size - missing)[left.size - missing] if missing else None
            chosen.append(left[values > bar])
            left = left[values == bar]
        best = np.concatenate([*chosen, left])
        keys = [self._column(name)[best].astype(np.int64) for name in ("created", "forks", "followers")]
        return best[np.lexsort([best, *(-key for key in keys)])][:most]

    def _of_class(self, match: int, path: bytes, rest: NDArray[np.bool_]) -> Ids:
        """Return which of the ids in `rest` match as the given class; all better classes have left it."""
        if path == self._query.needle:
            return np.flatnonzero(rest)
        found = self._index.find(path)
        if isinstance(found, Leaf):  # it may list others, too
            ids = [row_id for row_id in set(found.ids) if row_id < rest.size and rest[row_id]]
            return np.array(sorted(hit[-1] for hit in self._matching(ids) if hit[0] == match), np.int64)
        return np.flatnonzero(rest & self._named(path))

    def _passing(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which repositories pass the filters, and of which only their rows tell; none is pending."""
        query, flags = self._query, self._column("flags")
        pending = self._cursor.execute("SELECT id FROM search_pending WHERE id < ?", (self._size,)).fetchall()
        flags[[row_id for (row_id,) in pending]] = 0
        unsure = (flags & (KNOWN | UNSURE)) == KNOWN | UNSURE
        shown = np.array([collection in query.collections for collection in COLLECTIONS])
        looked_at, expected = KNOWN | UNSURE, KNOWN
        for name, bit in _SWITCHES.items():
            if getattr(query, name) is not None:
                looked_at |= bit
                expected |= bit * getattr(query, name)
        passing = ((flags & looked_at) == expected) & shown[flags & 3]
        if query.scm is not None:
            passing &= (flags & _SCMS.get(query.scm.lower(), 0)) != 0
        if query.language is not None:
            code = language_code(self._cursor, self._conditions.values["language"])
            passing &= self._column("language") == code if code else False
        if query.private_of and not query.visible_private:
            passing &= ((flags & 1) == 0) | self._owned_by(query.private_of)
        if self._conditions.owners is not None:
            passing &= self._owned_by(self._conditions.owners)
        return passing, unsure

    def _owned_by(self, owners: Iterable[int]) -> NDArray[np.bool_]:
        """Return which repositories belong to some owners."""
        column = self._column("owner")
        wanted = np.zeros(int(column.max(initial=0)) + 1, dtype=bool)
        ids = np.fromiter(owners, np.int64)
        wanted[ids[ids < wanted.size]] = True
        owned: NDArray[np.bool_] = wanted[column]
        return owned

    def _named(self, path: bytes) -> NDArray[np.bool_]:
        """Return which repositories the index lists under a common path; of UNSURE ones it may be wrong."""
        named = read_dense(self._cursor, path, self._size)
        if named is None:
            named = np.zeros(self._size, dtype=bool)
            ids = unpack_lists(self._index.lists_below(path))
            named[ids[ids < self._size]] = True
        return named

    def _matching(self, ids: Iterable[int]) -> list[Hit]:
        """Read the rows with these ids; return those that are hits."""
        wanted = [int(row_id) for row_id in ids]
        return self._index.matching(wanted, self._query.part, self._conditions) if wanted else []

    def _column(self, name: str) -> NDArray[Any]:
        """Return a column of all that the index knows; each is read once."""
        if name not in self._columns:
            self._columns[name] = read_column(self._cursor, name, self._size)
        return self._columns[name]


def unpack_lists(lists: Iterable[bytes]) -> NDArray[np.int64]:
    """Return the ids of packed lists, as `format.unpack_list` does those of one."""
    parts = [packed.partition(b"\0") for packed in lists]  # a 0 begins what was appended
    appended = np.frombuffer(b"".join([zero + ids for _, zero, ids in parts]), "u1").reshape(-1, 5)
    data = np.frombuffer(b"\0".join([built for built, _, _ in parts]), "u1")
    ends = np.flatnonzero(data < 128)
    sizes = np.diff(ends, prepend=-1)
    numbers = data[ends].astype(np.int64) << 7 * (sizes - 1)
    for byte in range(1, int(sizes.max(initial=0))):
        longer = np.flatnonzero(sizes > byte)
        low = (data[ends[longer] - byte] & 127).astype(np.int64)
        numbers[longer] |= low << 7 * (sizes[longer] - byte - 1)
    sums, between = np.cumsum(numbers), numbers == 0
    ids = sums - np.maximum.accumulate(np.where(between, sums, 0))
    return np.concatenate([ids[~between], np.ascontiguousarray(appended[:, 1:]).view("<u4").ravel()])
