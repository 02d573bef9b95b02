"""The pending rows of one snapshot: which of them match a query, and what they change in its numbers.

Rows of segments are counted and ranked by their texts. Rows that no segment has yet, because anyone but the
sync changed them, are read and compared one by one.
"""

import heapq
import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from threading import Lock
from typing import Any, NamedTuple

from mirror.search.index.format import END
from mirror.search.names import match_class, searched_names
from mirror.search.query import Query, plain_cursor
from mirror.search.scan import Hit, RowReader, may_contain
from mirror.search.segments import Segment, Texts, read_segment

_SEGMENTS = "SELECT last_turn, first_turn, digest FROM search_segments ORDER BY last_turn"
_DATA = "SELECT data FROM search_segments WHERE last_turn = ?"
_TURNS = "SELECT id, turn FROM search_pending WHERE id IN (SELECT value FROM json_each(?))"
_UNPREPARED = f"""SELECT id, was_collection, was_name, was_slug FROM search_pending WHERE turn IS NULL
    AND (name IS NULL OR {may_contain("name", "slug", "was_name", "was_slug")})"""

_AHEAD = 20
"""How many hits are looked at together: one statement tells which of them are superseded."""

_MOST_COUNTS_KEPT = 1_000


class ReadSegment:
    """A segment in memory, whose content never changes: threads and files may share it."""

    def __init__(self, data: bytes, digest: bytes) -> None:
        """Unpack a segment. Raises StoreError if its data does not have the digest."""
        self.content: Segment = read_segment(data, digest)
        self.digest = digest
        self.size = len(data)
        self._gained = dict[tuple[bytes, int], int]()

    def gained(self, path: bytes, collection: int) -> int:
        """Return how many more texts of a collection contain a path than before."""
        found = self._gained.get((path, collection))
        if found is None:
            # As fast as a look for the path where few texts have it, and several times as fast as a loop.
            having = re.compile(re.escape(path) + b"[^" + END + b"]*+" + END)
            texts = (lists.get(collection) for lists in (self.content.came, self.content.left))
            came, left = (len(having.findall(some.texts)) if some else 0 for some in texts)
            found = came - left
            if len(self._gained) >= _MOST_COUNTS_KEPT:
                self._gained.clear()
            self._gained[path, collection] = found
        return found

    def listed(self, collections: Iterable[int]) -> Iterator[Texts]:
        """Yield the texts of some collections as they are now."""
        for lists in (self.content.came, self.content.kept):
            yield from (lists[collection] for collection in collections if collection in lists)


_MOST_KEPT = 32_000_000
"""How many bytes of segments are kept: 60 for each pending row, of several states of several files."""

_kept = dict[bytes, ReadSegment]()  # by digest, the last used one at the end
_keeping = Lock()


def _kept_segment(digest: bytes, read: Callable[[], bytes]) -> ReadSegment:
    """Return the segment with a digest, which all connections of a process share; `read` reads its data."""
    with _keeping:
        segment = _kept.pop(digest, None)
        if segment is None:
            segment = ReadSegment(read(), digest)
        _kept[digest] = segment
        kept = sum(one.size for one in _kept.values())
        while kept > _MOST_KEPT and len(_kept) > 1:
            kept -= _kept.pop(next(iter(_kept))).size
        return segment


class _Place(NamedTuple):
    """A segment, and the turns whose changes it has."""

    first_turn: int
    last_turn: int
    segment: ReadSegment


class Found(NamedTuple):
    """A text that contains a path: its rank, and the number of its segment."""

    rank: tuple[int, int, int, int]
    segment: int

    @property
    def id(self) -> int:
        """The repository."""
        return self.rank[-1]


class PendingRows:
    """The pending rows of a snapshot, whatever the query."""

    def __init__(self, connection: sqlite3.Connection, *, has_any: bool) -> None:
        """`has_any` is whether any row is pending: most often none is, and nothing has to be read."""
        self._cursor = plain_cursor(connection) if has_any else None

    def read(self, sql: str, *values: Any) -> list[Any]:
        """Return the rows of a statement; none if no row is pending."""
        return self._cursor.execute(sql, *values).fetchall() if self._cursor else []

    @cached_property
    def segments(self) -> list[_Place]:
        """All segments, the oldest first."""
        return [
            _Place(first, last, _kept_segment(digest, partial(self._data, last)))
            for last, first, digest in self.read(_SEGMENTS)
        ]

    def _data(self, last_turn: int) -> bytes:
        data: bytes = self.read(_DATA, (last_turn,))[0][0]
        return data

    @property
    def digests(self) -> list[bytes]:
        """What names the content of all segments."""
        return [place.segment.digest for place in self.segments]

    def unprepared_below(self, row_id: int) -> list[int]:
        """Return the ids below one that are pending and in no segment."""
        found = self.read("SELECT id FROM search_pending WHERE turn IS NULL AND id < ?", (row_id,))
        return [row_id for (row_id,) in found]

    def among(self, ids: Iterable[int]) -> set[int]:
        """Return which of these repositories are pending, regardless of their name."""
        return set(self._turns(ids))

    def gained(self, path: bytes, collections: Collection[int]) -> int:
        """Return how many more texts contain a path by the segments than by the index."""
        return sum([place.segment.gained(path, one) for place in self.segments for one in collections])

    def lists_with(self, path: bytes, collections: Collection[int]) -> list[tuple[int, Texts]]:
        """Return the lists that have a path, each with the number of its segment."""
        return [
            (number, texts)
            for number, place in enumerate(self.segments)
            for texts in place.segment.listed(collections)
            if path in texts.texts
        ]

    def current(self, found: Sequence[Found]) -> list[Found]:
        """Return those that no later change supersedes."""
        turns = self._turns(one.id for one in found)
        return [one for one in found if self._has(self.segments[one.segment], turns.get(one.id))]

    def _turns(self, ids: Iterable[int]) -> dict[int, int | None]:
        """Return the turn of those of some repositories that are pending."""
        return dict(self.read(_TURNS, (json.dumps(list(ids)),))) if self._cursor else {}

    @staticmethod
    def _has(place: _Place, turn: int | None) -> bool:
        return turn is not None and place.first_turn <= turn <= place.last_turn


def found_in(lists: Iterable[tuple[int, Texts]], path: bytes) -> Iterator[Found]:
    """Yield the texts that contain a path, the most popular first; later changes may supersede some."""
    return heapq.merge(*(_found_in_one(texts, path, number) for number, texts in lists))


def _found_in_one(texts: Texts, path: bytes, segment: int) -> Iterator[Found]:
    for number in texts.holding(path):
        yield Found(texts.rank(number), segment)


class PendingMatches:
    """The pending rows that match a query now, or matched it as the index still has them."""

    def __init__(self, pending: PendingRows, query: Query, rows: RowReader) -> None:
        """`rows` are those that pass the filters of the query."""
        self._pending = pending
        self._query = query
        self._rows = rows

    @cached_property
    def _unprepared(self) -> list[Any]:
        return self._pending.read(_UNPREPARED, {"part": self._query.part})

    @cached_property
    def unprepared(self) -> set[int]:
        """The ids of those that are in no segment: read their rows."""
        return {row_id for row_id, *_ in self._unprepared}

    @cached_property
    def gained(self) -> int:
        """How many more rows of segments match now than the index counts, less the others that it counts."""
        part, visible = self._query.part, self._query.collections
        lost = [
            row_id
            for row_id, collection, name, slug in self._unprepared
            if collection in visible and match_class(searched_names(name, slug), part) is not None
        ]
        return self._pending.gained(self._query.needle, visible) - len(lost)

    @cached_property
    def _lists(self) -> list[tuple[int, Texts]]:
        return self._pending.lists_with(self._query.needle, self._query.collections)

    def ids(self, most: int) -> set[int] | None:
        """Return the ids of all that match, and of some more; None if they may be more than `most`."""
        needle = self._query.needle
        if sum([texts.texts.count(needle) for _, texts in self._lists]) > most:
            return None
        return {one.id for one in found_in(self._lists, needle)} | self.unprepared

    def best(self, most: int) -> list[Hit]:
        """Return the best hits among the rows of segments, `most` at most, in no particular order."""
        hits, taken = list[Hit](), set[int]()
        for match, path in self._query.class_paths if self._lists else ():
            found = found_in(self._lists, path)
            while len(taken) < most and (some := list(islice(found, _AHEAD))):
                new = [one.id for one in self._pending.current(some) if one.id not in taken]
                hits += self._rows.ranked(new[: most - len(taken)], match)
                taken.update(new)
        return hits
