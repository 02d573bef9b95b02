"""Hits among all repositories at once, as arrays: for queries that many repositories match.

The lists of the index say which repositories have a part in their name, the columns which pass the filters.
Where neither is sure, and for what changed since, rows are read one by one.
"""

import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.columns import kept_columns, language_code, read_column, read_dense
from mirror.search.index.format import (
    ARCHIVED,
    COLLECTION,
    FORK,
    GIT,
    HG,
    KNOWN,
    UNSURE,
    IndexReader,
    Leaf,
    Node,
)
from mirror.search.names import SUBSTRING
from mirror.search.overlay import overlaid, overlay_names
from mirror.search.pending import PendingRows
from mirror.search.query import Query, plain_cursor
from mirror.search.scan import Hit, RowReader

Ids = NDArray[np.int64]
Marks = NDArray[np.bool_]
"""One for each id of the columns."""
_POPULAR, _MORE_POPULAR = 8_192, 262_144
"""How many of the most followed repositories are kept in order: for pages that end early, for deep ones."""
_EARLY = 1_000
_KEYS = ("followers", "forks", "created")
_SWITCHES = {"forks": FORK, "archived": ARCHIVED}
_SCMS = {"git": GIT, "hg": HG}


class FairSemaphore:
    """Lets a few threads work at once; the others wait, and go on in the order in which they came."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting = deque[Lock]()
        self._changing = Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work inside the block."""
        with self._changing:
            mine = Lock()
            self._waiting.append(mine)
            mine.acquire()
            self._call()
        try:
            mine.acquire()
            yield
        finally:
            with self._changing:
                if mine in self._waiting:  # something ended the wait, such as Ctrl-C
                    self._waiting.remove(mine)
                else:
                    self._free += 1
                    self._call()

    def _call(self) -> None:
        """Let the next one go on, if any may."""
        if self._free and self._waiting:
            self._free -= 1
            self._waiting.popleft().release()


ARRAY_QUERIES = FairSemaphore(2)
"""For queries that arrays answer: more at once wait for Python's lock at each step, and all end late."""


class ManyHits:
    """The hits of one query within one snapshot.

    :param rows: reads the rows that the arrays are not sure of
    :param pending: the pending rows, which overlay the arrays
    :param fresh: the hits among new rows, and among pending ones of no segment
    :param few: up to how many repositories that pass the filters are read and compared one by one
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        index: IndexReader,
        rows: RowReader,
        pending: PendingRows,
        query: Query,
        fresh: list[Hit],
        few: int,
    ) -> None:
        self._cursor = plain_cursor(connection)
        self._query, self._conditions = query, rows.conditions
        self._index, self._rows, self._pending = index, rows, pending
        self._kept = kept_columns(self._cursor, pending.digests)
        self._columns = dict[str, NDArray[Any]]()
        self._size = self._column("flags").size
        passing, unsure = self._passing()
        self._read = fresh
        """The hits whose rows were read; `_sure` marks the others."""
        if np.count_nonzero(passing) + unsure.size <= few:
            self._read = [*fresh, *self._matching([*np.flatnonzero(passing), *unsure])]
            passing[:] = False
        elif query.part:
            named = self._named(SUBSTRING, query.needle)
            self._read = [*fresh, *self._matching(unsure[named[unsure]])]
            passing &= named
        else:
            self._read = [*fresh, *self._matching(unsure)]
        self._sure = passing

    def count(self) -> int:
        """Return the number of all hits."""
        return int(np.count_nonzero(self._sure)) + len(self._read)

    def page(self, start: int, stop: int) -> list[Hit]:
        """Return hits `start` to `stop` in order."""
        page, before, rest = list[Hit](), 0, self._sure
        for match, path in self._query.class_paths:
            # Hits of better classes have left the rest, whose rows all have the needle.
            here = rest if match == SUBSTRING else rest & self._named(match, path)
            read = [hit for hit in self._read if hit[0] == match]
            upto = before + int(np.count_nonzero(here)) + len(read)
            if max(start, before) < min(stop, upto):
                page += self._cut(here, read, max(start - before, 0), min(stop, upto) - before)
            before = upto
            if stop <= upto:
                break
            rest = rest & ~here
        return page

    def _cut(self, here: Marks, read: list[Hit], start: int, stop: int) -> list[Hit]:
        """Return hits `start` to `stop` of one match class: those marked `here`, and those read."""
        skipped = max(start - len(read), 0)  # that many of the marked come before `start` in any case
        number = _POPULAR if stop <= _EARLY else _MORE_POPULAR
        popular = self._kept.get(f"popular {number}", partial(self._most_followed, number))
        ids = popular[here[popular]]
        if ids.size >= stop:
            best = ids[skipped:stop]
        else:
            best = self._ranked(np.flatnonzero(here), skipped, stop, _KEYS)
        return sorted([*read, *self._matching(best)])[start - skipped : stop - skipped]

    def _most_followed(self, number: int) -> Ids:
        """Return a number of ids in order: of all repositories that have more followers than the next one."""
        followers = self._column("followers")
        next_one = max(followers.size - number - 1, 0)
        bar = np.partition(followers, next_one)[next_one] if followers.size else 0
        return self._in_order(np.flatnonzero(followers > bar), _KEYS)

    def _in_order(self, ids: Ids, keys: Sequence[str]) -> Ids:
        """Return some ids in the order of popularity, the lowest first where all keys are the same."""
        sort_by = [-self._column(name)[ids].astype(np.int64) for name in reversed(keys)]
        return ids[np.lexsort([ids, *sort_by])]

    def _ranked(self, ids: Ids, start: int, stop: int, keys: Sequence[str]) -> Ids:
        """Return of some ids, in ascending order, those at `start` to `stop` in the order of popularity."""
        start, stop = max(start, 0), min(stop, ids.size)
        if start >= stop or not keys:
            return ids[start:stop]
        values = self._column(keys[0])[ids]
        first, last = ids.size - 1 - start, ids.size - stop
        parted = np.partition(values, (last, first))
        high, low = parted[first], parted[last]
        above, not_below = (int(np.count_nonzero(some)) for some in (values > high, values > low))
        ties = self._ranked(ids[values == high], start - above, stop - above, keys[1:])
        if high == low:
            return ties
        between = self._in_order(ids[(values < high) & (values > low)], keys)
        lowest = self._ranked(ids[values == low], 0, stop - not_below, keys[1:])
        return np.concatenate([ties, between, lowest])

    def _passing(self) -> tuple[Marks, Ids]:
        """Return which repositories pass the filters, and those whose rows must be read."""
        query, flags = self._query, self._column("flags")
        of_flags = self._passing_flags(np.arange(256))
        # A table of 256 answers, looked up by the bytes of the column.
        passing = np.frombuffer(bytearray(flags.tobytes().translate(of_flags.tobytes())), bool)
        unsure = np.flatnonzero(flags >= KNOWN | UNSURE)
        unprepared = np.array(self._pending.unprepared_below(self._size), np.int64)  # read elsewhere
        if unprepared.size:
            passing[unprepared] = False
            unsure = np.setdiff1d(unsure, unprepared)
        if query.language is not None:
            code = language_code(self._cursor, self._conditions.values["language"])
            passing &= self._column("language") == code if code else False
        if query.private_of and not query.visible_private:
            passing &= ((flags & 1) == 0) | self._owned_by(np.array(query.private_of, np.int64))
        owners = self._conditions.owners
        if owners is not None:
            ids = np.fromstring(owners.text[1:-1], np.int64, sep=",")
            passing &= self._owned_by(ids) ^ owners.excluded
        return passing, unsure

    def _passing_flags(self, flags: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return of which values of `flags` the repositories pass the filters that those know of."""
        looked_at, expected = KNOWN | UNSURE, KNOWN
        for name, bit in _SWITCHES.items():
            if getattr(self._query, name) is not None:
                looked_at |= bit
                expected |= bit * getattr(self._query, name)
        passing = ((flags & looked_at) == expected) & np.isin(flags & COLLECTION, self._query.collections)
        if self._query.scm is not None:
            passing &= (flags & _SCMS.get(self._query.scm.lower(), 0)) != 0
        return np.asarray(passing, bool)

    def _owned_by(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which repositories belong to some owners."""
        column = self._column("owner")
        wanted = np.zeros(int(column.max(initial=0)) + 1, dtype=bool)
        wanted[ids[ids < wanted.size]] = True
        # All are in range; `clip` spares a look at each, and so half the time.
        owned: NDArray[np.bool_] = wanted.take(column, mode="clip")
        return owned

    def _named(self, match: int, path: bytes) -> Marks:
        """Return which repositories have the path of a match class; of UNSURE ones it may be wrong."""
        found = self._index.find(path)
        named = None if isinstance(found, Leaf) else read_dense(self._cursor, path, self._size)
        if named is None:
            named = np.zeros(self._size, dtype=bool)
            named[self._listed(match, path, found)] = True
        overlay_names(named, path, self._pending)
        return named

    def _listed(self, match: int, path: bytes, found: Node | Leaf) -> Ids:
        """Return the ids of the index that have a path, read from a leaf or from all lists below a node."""
        if isinstance(found, Leaf):  # it may list others, too
            hits = self._matching([row_id for row_id in set(found.ids) if row_id < self._size])
            return np.array([hit[-1] for hit in hits if hit[0] <= match], np.int64)
        ids = unpack_lists(self._index.lists_below(path))
        return ids[ids < self._size]

    def _matching(self, ids: Iterable[int]) -> list[Hit]:
        """Read the rows with these ids; return those that are hits."""
        wanted = [int(row_id) for row_id in ids]
        return self._rows.matching(wanted, self._query.part) if wanted else []

    def _column(self, name: str) -> NDArray[Any]:
        """Return a column; each is read once."""
        if name not in self._columns:
            self._columns[name] = self._kept.get(name, partial(self._read_column, name))
        return self._columns[name]

    def _read_column(self, name: str) -> NDArray[Any]:
        if not self._pending.segments:
            return read_column(self._cursor, name)
        indexed = kept_columns(self._cursor).get(name, partial(read_column, self._cursor, name))
        return overlaid(indexed, name, self._pending)


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
