"""Build the index of refs from the rows, with numpy: lists by name, then the trie of the names' suffixes.

Array shapes: R refs, L lists, D different names, S suffixes, G groups of suffixes that begin alike.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.build import differs_from_previous, keep_groups, paths_at, split_groups
from mirror.search.index.format import END
from mirror.search.index.refs.layout import (
    AGE,
    CHUNK,
    COLLECTION,
    DEEPEST,
    HASH_DIGITS,
    ID_BITS,
    KINDS,
    LISTED,
    LISTS,
    NAME_COST,
    SIZES,
    TABLES,
    Sizes,
    has_hashes,
    hash_number,
    list_of,
    order_of,
    text_of,
)
from mirror.search.index.refs.spans import pack_counts
from mirror.search.names import COLLECTIONS, PUBLIC

_ROWS_AT_ONCE = 50_000
_NONE = 255
_COLUMNS = (np.uint32, np.uint8, np.uint32, np.uint32, np.uint32, np.bool_)
_HASH = f"substr(target_hash, 1, {HASH_DIGITS})"
_REFS = f"SELECT repository_id, name, {AGE.format(date='target_date')}, {_HASH} FROM {{table}}"
_COLLECTIONS = f"SELECT id, {COLLECTION.format(r='r')} FROM repositories r"

TABLES_OF_INDEX = ("names", "lists", "common", "rare", "spans", "counts", "hashes", "pending", "moved")


def build_refs_index(connection: sqlite3.Connection, sizes: Sizes = SIZES) -> None:
    """Replace the index by one built from the rows; call it in a transaction.

    It takes about 60 bytes of memory a ref.
    """
    for table in TABLES_OF_INDEX:
        connection.execute(f"DELETE FROM search_ref_{table}")
    refs = read_refs(connection)
    connection.execute("UPDATE search_ref_state SET up_to = ?", (refs.highest_id,))
    if has_hashes(connection):
        _write_hashes(connection, refs)
    lists = _write_names_and_lists(connection, refs)
    spans = _write_spans(connection, lists, sizes)
    _NameTrie(connection, refs.names, lists, spans, refs.highest_id, sizes).run()


@dataclass(slots=True)
class AllRefs:
    """All refs: the name of each, an index into `names`, its list, age, repository and hash [R].

    `names` are sorted. `hashed` says which have a hash that the index takes [R]. Refs without repository are
    in no list.
    """

    highest_id: int
    names: list[str]
    name: Numbers
    list: NDArray[np.uint8]
    age: Numbers
    repository: Numbers
    hash: Numbers
    hashed: NDArray[np.bool_]


class _Numbered(dict[str, int]):
    """Numbers names in the order in which they are first asked for."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


def read_refs(connection: sqlite3.Connection) -> AllRefs:
    """Read all refs."""
    highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
    collection = np.full(highest + 1, _NONE, dtype=np.uint8)
    cursor = connection.execute(_COLLECTIONS)
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        ids, collections = zip(*rows, strict=True)
        collection[list(ids)] = collections
    numbers = _Numbered()
    parts: list[tuple[NDArray[Any], ...]] = []
    for kind, table in enumerate(TABLES):
        cursor = connection.execute(_REFS.format(table=table))
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            ids, its_names, ages, hashes = zip(*rows, strict=True)
            repository = np.array(ids, dtype=np.uint32)
            its = collection[repository]
            parts.append(
                (
                    np.fromiter(map(numbers.__getitem__, its_names), dtype=np.uint32, count=len(rows)),
                    np.where(its == _NONE, _NONE, its * len(KINDS) + kind).astype(np.uint8),
                    np.array(ages, dtype=np.uint32),
                    repository,
                    *_hash_numbers(hashes),
                )
            )
    if not parts:
        parts.append(tuple(np.zeros(0, dtype=kind) for kind in _COLUMNS))
    name, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    # In the order of the names, the order of their numbers decides between refs that are equally new.
    names = sorted(numbers)
    rank = np.empty(len(names), dtype=np.uint32)
    rank[[numbers[name] for name in names]] = np.arange(len(names), dtype=np.uint32)
    return AllRefs(highest, names, rank[name], *columns)


def _hash_numbers(hashes: Sequence[str]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return the number of each hash, 0 for none, and whether it is one."""
    try:
        packed = bytes.fromhex("".join(hashes))
        if len(packed) == len(hashes) * HASH_DIGITS // 2 and set(map(len, hashes)) == {HASH_DIGITS}:
            return np.frombuffer(packed, dtype=">u4").astype(np.uint32), np.ones(len(hashes), dtype=bool)
    except ValueError:
        pass
    numbers = [hash_number(one) for one in hashes]
    return (
        np.array([number or 0 for number in numbers], dtype=np.uint32),
        np.array([number is not None for number in numbers], dtype=bool),
    )


def _write_hashes(connection: sqlite3.Connection, refs: AllRefs) -> None:
    kept = refs.hashed & (refs.list != _NONE)
    order = np.lexsort((refs.repository[kept], refs.hash[kept]))
    hashes, repositories = refs.hash[kept][order], refs.repository[kept][order]
    buckets = hashes >> np.uint32(16)
    digits = (hashes & np.uint32(0xFFFF)).astype("<u2").tobytes()
    packed = repositories.astype("<u4").tobytes()
    begins = np.flatnonzero(differs_from_previous(buckets)) if buckets.size else np.zeros(0, dtype=np.int64)
    cuts = [*begins.tolist(), buckets.size]
    connection.executemany(
        "INSERT INTO search_ref_hashes VALUES (?, ?, ?)",
        (
            (bucket, digits[2 * begin : 2 * end], packed[4 * begin : 4 * end])
            for bucket, begin, end in zip(buckets[begins].tolist(), cuts[:-1], cuts[1:], strict=True)
        ),
    )


@dataclass
class _Lists:
    """The lists of all names: where each begins and ends in `age` and `repository`.

    bounds: by name and list [D, LISTS, 2]. place: the name and the list of each ref, as one number [R].
    """

    bounds: NDArray[np.int64]
    place: NDArray[np.int64]
    age: Numbers
    repository: Numbers

    @cached_property
    def orders(self) -> NDArray[np.int64]:
        """The order of each ref [R]."""
        orders: NDArray[np.int64] = self.age.astype(np.int64) << ID_BITS | self.repository
        return orders

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of refs in each list [D, LISTS]."""
        sizes: NDArray[np.int64] = self.bounds[:, :, 1] - self.bounds[:, :, 0]
        return sizes


def _write_names_and_lists(connection: sqlite3.Connection, refs: AllRefs) -> _Lists:
    """Write the names, numbered from 1 on, and their lists; return the lists."""
    connection.executemany(
        "INSERT INTO search_ref_names VALUES (?, ?, ?)",
        ((number, name, text_of(name)) for number, name in enumerate(refs.names, 1)),
    )
    kept = refs.list != _NONE
    place = refs.name[kept].astype(np.int64) * LISTS + refs.list[kept]
    order = np.lexsort((refs.repository[kept], refs.age[kept], place))
    place = place[order]
    lists = _Lists(
        np.zeros((len(refs.names), LISTS, 2), dtype=np.int64),
        place,
        refs.age[kept][order],
        refs.repository[kept][order],
    )
    begins = np.flatnonzero(differs_from_previous(place)) if place.size else np.zeros(0, dtype=np.int64)
    ends = np.append(begins[1:], place.size) if begins.size else begins
    lists.bounds.reshape(-1, 2)[place[begins]] = np.stack((begins, ends), axis=1)
    ages, repositories = lists.age.astype("<u4").tobytes(), lists.repository.astype("<u4").tobytes()

    def rows() -> Iterator[tuple[int, int, int, bytes, bytes]]:
        for at, begin, end in zip(place[begins].tolist(), begins.tolist(), ends.tolist(), strict=True):
            for first in range(begin, end, CHUNK):
                some = slice(4 * first, 4 * min(first + CHUNK, end))
                start = order_of(int(lists.age[first]), int(lists.repository[first]))
                yield at // LISTS + 1, at % LISTS, start, repositories[some], ages[some]

    connection.executemany("INSERT INTO search_ref_lists VALUES (?, ?, ?, ?, ?)", rows())
    return lists


@dataclass
class _Spans:
    """The span of each ref of the lists [R], and how many spans there are; none in a short index."""

    of: NDArray[np.uint32]
    number: int


def _write_spans(connection: sqlite3.Connection, lists: _Lists, sizes: Sizes) -> _Spans:
    """Cut all refs into spans, and write which lists have a ref in each."""
    if lists.orders.size + NAME_COST * len(lists.bounds) <= sizes.counted:
        return _Spans(np.zeros(0, dtype=np.uint32), 0)
    starts = np.unique(np.sort(lists.orders)[:: sizes.span])
    starts[0] = 0
    spans = (np.searchsorted(starts, lists.orders, side="right") - 1).astype(np.uint32)
    order = np.argsort(spans, kind="stable")  # within a span, refs stay in the order of their lists
    of, places = spans[order], lists.place[order]
    once = differs_from_previous(of) | differs_from_previous(places)
    # Names are numbered from 1 on, and the number of a list among all is that of its name and its own.
    of, keys = of[once], (places[once] + LISTS).astype("<u4").tobytes()
    begins = np.flatnonzero(differs_from_previous(of)).tolist()
    connection.executemany(
        "INSERT INTO search_ref_spans (start, lists) VALUES (?, ?)",
        (
            (start, keys[4 * begin : 4 * end])
            for start, begin, end in zip(starts.tolist(), begins, [*begins[1:], of.size], strict=True)
        ),
    )
    return _Spans(spans, starts.size)


CountedRow = tuple[int, int, int, int, int, int, bytes, bytes]
"""A row of a node without its path: collection, branches, tags, repositories with branches, with tags, with
either, and the best branches and tags."""

SpanRow = tuple[int, bytes, bytes]
"""A row of a path's numbers in the spans without its path: collection, of branches, of tags."""


class _Stats(NamedTuple):
    """What the index tells of a common path, by collection; `spans` is empty of a path with few refs."""

    rows: list[CountedRow]
    spans: list[SpanRow]


class _NameTrie:
    """Follows the suffixes of all names, level by level, and writes nodes and leaves."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        names: list[str],
        lists: _Lists,
        spans: _Spans,
        highest_id: int,
        sizes: Sizes,
    ) -> None:
        self._connection = connection
        self._lists = lists
        self._sizes = lists.sizes
        self._cost = self._sizes.sum(axis=1) + NAME_COST
        self._spans = spans
        self._limits = sizes
        self._seen = np.zeros(highest_id + 1, dtype=bool)
        self._known = dict[bytes, _Stats]()
        texts = [text_of(name) + END for name in names]
        self._text = np.frombuffer(b"".join(texts) + bytes(DEEPEST + 1), dtype=np.uint8)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self._starts = np.cumsum(lengths) - lengths

    def run(self) -> None:
        common, rare = list[tuple[bytes, _Stats]](), list[tuple[bytes, int, bytes]]()
        common.append((b"", self._stats(np.arange(self._cost.size, dtype=np.uint32))))
        positions = np.flatnonzero(self._text[: -DEEPEST - 1] != END[0]).astype(np.uint32)
        docs = (np.searchsorted(self._starts, positions, side="right") - 1).astype(np.uint32)
        group = np.zeros(positions.size, dtype=np.uint64)
        depth = 0
        while positions.size:
            positions, docs, starts = split_groups(self._text, positions, docs, group, depth)
            depth += 1
            paths = paths_at(self._text, positions[starts], depth)
            once = differs_from_previous(docs)
            once[starts] = True
            costs = np.add.reduceat(np.where(once, self._cost[docs], 0), starts)
            ended = np.array([path.endswith(END) for path in paths])
            is_common = (costs > self._limits.common_cost) & ~ended & (depth < DEEPEST)
            ends = [*starts[1:].tolist(), positions.size]
            for index, (begin, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
                members = docs[begin:end][once[begin:end]]
                if is_common[index]:
                    common.append((paths[index], self._stats(members)))
                else:
                    rare.append((paths[index], int(costs[index]), (members + 1).astype("<u4").tobytes()))
            positions, docs, group = keep_groups(positions, docs, starts, is_common)
        self._write(common, rare)

    def _write(self, common: list[tuple[bytes, _Stats]], rare: list[tuple[bytes, int, bytes]]) -> None:
        self._connection.executemany(
            "INSERT INTO search_ref_common VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((path, *row) for path, stats in sorted(common) for row in stats.rows),
        )
        self._connection.executemany(
            "INSERT INTO search_ref_counts VALUES (?, ?, ?, ?)",
            ((path, *row) for path, stats in sorted(common) for row in stats.spans),
        )
        self._connection.executemany("INSERT INTO search_ref_rare VALUES (?, ?, ?)", sorted(rare))

    def _stats(self, names: Numbers) -> _Stats:
        """Count the refs and repositories of some names, and find the best refs. Many paths have the same."""
        key = hashlib.blake2b(names.tobytes(), digest_size=16).digest()
        if key not in self._known:
            found = (self._of_collection(names, collection) for collection in COLLECTIONS)
            rows = [row for row in found if row[1] or row[2] or row[0] == PUBLIC]
            is_counted = self._spans.number and self._cost[names].sum() > self._limits.counted
            spans = [self._by_span(names, row[0]) for row in rows] if is_counted else []
            self._known[key] = _Stats(rows, spans)
        return self._known[key]

    def _by_span(self, names: Numbers, collection: int) -> SpanRow:
        """Count the refs of some names in each span."""
        counts = list[bytes]()
        for kind in KINDS:
            bounds = self._lists.bounds[names, list_of(collection, kind)]
            parts = [self._spans.of[begin:end] for begin, end in bounds[bounds[:, 1] > 0].tolist()]
            together = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint32)
            counts.append(pack_counts(np.bincount(together, minlength=self._spans.number)))
        return collection, counts[0], counts[1]

    def _of_collection(self, names: Numbers, collection: int) -> CountedRow:
        by_kind = [names[self._sizes[names, list_of(collection, kind)] > 0] for kind in KINDS]
        lists = [list_of(collection, kind) for kind in KINDS]
        branches, tags = (
            int(self._sizes[some, which].sum()) for some, which in zip(by_kind, lists, strict=True)
        )
        ids = [self._repositories(some, which) for some, which in zip(by_kind, lists, strict=True)]
        best = [self._best(some, which) for some, which in zip(by_kind, lists, strict=True)]
        alone = [self._different(some) for some in ids]
        either = self._different(ids[0] + ids[1]) if all(ids) else sum(alone)
        return (collection, branches, tags, alone[0], alone[1], either, best[0], best[1])

    def _repositories(self, names: Numbers, which: int) -> list[Numbers]:
        bounds = self._lists.bounds[names, which].tolist()
        return [self._lists.repository[begin:end] for begin, end in bounds]

    def _different(self, ids: list[Numbers]) -> int:
        """Count the different repositories in some lists, each of which has none twice."""
        if len(ids) < 2:
            return sum(some.size for some in ids)
        together = np.concatenate(ids)
        self._seen[together] = True
        number = int(np.count_nonzero(self._seen))
        self._seen[together] = False
        return number

    def _best(self, names: Numbers, which: int) -> bytes:
        """Pack the best refs of a list of some names.

        A name has one of the best only if its newest ref is among the newest ones of as many names.
        """
        begins = self._lists.bounds[names, which, 0]
        if names.size > LISTED:
            newest = self._lists.orders[begins]
            names = names[newest <= np.partition(newest, LISTED - 1)[LISTED - 1]]
        bounds = self._lists.bounds[names, which]
        begins, sizes = bounds[:, 0], np.minimum(bounds[:, 1] - bounds[:, 0], LISTED)
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if ends.size else 0
        places = np.arange(total) + np.repeat(begins - (ends - sizes), sizes)
        of = np.repeat(names, sizes)
        order = np.lexsort((of, self._lists.orders[places]))[:LISTED]
        ages, repositories = self._lists.age[places[order]], self._lists.repository[places[order]]
        rows = np.stack((ages, repositories, of[order] + np.uint32(1)), axis=1)
        return rows.astype("<u4").tobytes()
