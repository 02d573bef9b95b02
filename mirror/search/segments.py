"""Segments: pending rows that one page changed, written once and never changed, to be searched as texts.

A *pending* row is one that the index contains as it was before a change, or not at all. A segment says what
its rows were, by the index or by earlier segments, and what they are. So numbers of matches add up: what the
index counts, and for each segment what came less what left. Later segments supersede earlier ones.
"""

import sqlite3
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from sys import byteorder
from typing import NamedTuple

import msgspec

from mirror.errors import StoreError
from mirror.search.index.format import END


class PendingRow(NamedTuple):
    """A pending row as it was before and as it is.

    A text is empty, and its collection 0, if the index did not have the row, or the file no longer does.
    `created` is a number of `format.time_number`; `flags` and `language` are as in the columns of the index.
    """

    id: int
    was_text: bytes
    was_collection: int
    text: bytes
    collection: int
    followers: int
    forks: int
    created: int
    flags: int
    language: int
    owner: int


_CODES = {
    "starts": "I",
    "ids": "I",
    "followers": "I",
    "forks": "I",
    "created": "q",
    "flags": "B",
    "language": "H",
    "owner": "I",
}
"""The columns of texts, with types as `array` names them: B, H and I are of 1, 2 and 4 bytes, q of 8."""

_RANKED = list(_CODES)[2:]


class Texts(NamedTuple):
    """Searched texts of one collection, each followed by END, the most popular first.

    columns: by name, the values of each text: where it begins in `texts` (`starts`), the id of its
    repository, and, unless it has left, what the columns of the index have.
    """

    texts: bytes
    columns: Mapping[str, "array[int]"]

    def holding(self, path: bytes) -> Iterator[int]:
        """Yield the number of each text that contains a path, in order; the empty path is in all."""
        texts, starts = self.texts, self.columns["starts"]
        at = texts.find(path)
        while at >= 0:
            following = bisect_right(starts, at)
            yield following - 1
            at = texts.find(path, starts[following]) if following < len(starts) else -1

    def rank(self, number: int) -> tuple[int, int, int, int]:
        """Return what sorts a text: the most popular first, then the lowest id."""
        of = self.columns
        return -of["followers"][number], -of["forks"][number], -of["created"][number], of["ids"][number]


Lists = Mapping[int, Texts]
"""Texts by collection."""


class Segment(NamedTuple):
    """The rows of a segment.

    left: texts that the index, or an earlier segment, has and that are no longer true.
    came: texts that neither has; `kept` are those whose row has another rank, or passes other filters.
    """

    left: Lists
    came: Lists
    kept: Lists


_PackedLists = dict[int, tuple[bytes, dict[str, bytes]]]


def digest_of(data: bytes) -> bytes:
    """Return what names the content of a packed segment: equal for equal content alone."""
    return blake2b(data, digest_size=16).digest()


def pack_segment(rows: Iterable[PendingRow]) -> bytes:
    """Pack rows, each id once, whose numbers fit into their columns."""
    lists = left, came, kept = [defaultdict[int, list[PendingRow]](list) for _ in range(3)]
    for row in sorted(rows, key=_rank):
        if row.was_text == row.text and row.was_collection == row.collection:
            kept[row.collection].append(row)
            continue
        if row.was_text:
            left[row.was_collection].append(row)
        came[row.collection].append(row)
    return msgspec.msgpack.encode(
        [{key: _packed(some, has_left=one is left) for key, some in one.items()} for one in lists]
    )


def _rank(row: PendingRow) -> tuple[int, int, int, int]:
    return -row.followers, -row.forks, -row.created, row.id


def _packed(rows: Sequence[PendingRow], *, has_left: bool) -> tuple[bytes, dict[str, bytes]]:
    ids, was_texts, _, texts, _, *values = list(zip(*rows, strict=True))
    listed = was_texts if has_left else texts
    ends = list(accumulate([len(text) + 1 for text in listed], initial=0))
    columns = {
        "starts": ends[:-1],
        "ids": ids,
        **({} if has_left else dict(zip(_RANKED, values, strict=True))),
    }
    return END.join([*listed, b""]), {
        name: _little_endian(array(_CODES[name], column)).tobytes() for name, column in columns.items()
    }


def read_segment(data: bytes, digest: bytes) -> Segment:
    """Return the segment that `pack_segment` packed. Raises StoreError if it is not what has this digest."""
    if digest_of(data) != digest:
        raise StoreError(
            "a search index is damaged; `mirror sync` or `mirror verify --repair` builds it anew"
        )
    lists = msgspec.msgpack.decode(data, type=tuple[_PackedLists, _PackedLists, _PackedLists])
    return Segment(*({key: _unpacked(*one) for key, one in some.items()} for some in lists))


def has_damaged_segment(connection: sqlite3.Connection) -> bool:
    """Return whether a segment of a file is not what its digest names."""
    found = connection.execute("SELECT data, digest FROM search_segments")
    return any(digest_of(data) != digest for data, digest in found)


def _unpacked(texts: bytes, columns: dict[str, bytes]) -> Texts:
    return Texts(texts, {name: _little_endian(array(_CODES[name], data)) for name, data in columns.items()})


def _little_endian(numbers: "array[int]") -> "array[int]":
    """Return numbers in the order of bytes of this machine as those of a file, and the other way round."""
    if byteorder == "big":
        numbers.byteswap()
    return numbers


def rows_of(segment: Segment) -> Iterator[PendingRow]:
    """Yield the rows of a segment."""
    was = {
        row_id: (text, collection)
        for collection, (texts, columns) in segment.left.items()
        for row_id, text in zip(columns["ids"], texts.split(END), strict=False)
    }
    for is_kept, lists in enumerate((segment.came, segment.kept)):
        for collection, (texts, columns) in lists.items():
            values = [columns[name] for name in _RANKED]
            found = zip(columns["ids"], texts.split(END)[:-1], *values, strict=True)
            for row_id, text, followers, forks, created, flags, language, owner in found:
                was_text, was_collection = (text, collection) if is_kept else was.get(row_id, (b"", 0))
                yield PendingRow(
                    row_id, was_text, was_collection, text, collection,
                    followers, forks, created, flags, language, owner,
                )  # fmt: skip


def net(rows: Iterable[PendingRow]) -> dict[int, PendingRow]:
    """Return what several changes of rows are together, by id: as it was first, and as it is last."""
    known = dict[int, PendingRow]()
    for row in rows:
        before = known.get(row.id)
        if before is not None:
            row = row._replace(was_text=before.was_text, was_collection=before.was_collection)  # noqa: PLW2901
        known[row.id] = row
    return known
