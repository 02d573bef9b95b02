"""Read the index of refs: look up a path, read chunks of lists, and read refs in order from any place."""

import json
import sqlite3
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise, repeat, starmap
from operator import itemgetter
from typing import NamedTuple

import msgspec

from mirror.search.index.refs.layout import (
    CHUNKS_IN_RANGE,
    KINDS,
    LISTS,
    NO_END,
    unpack_bucket,
    unpack_counts,
    unpack_listed,
    unpack_numbers,
    unpack_orders,
)
from mirror.search.names import BOUNDARY, EXACT, PREFIX, SUBSTRING
from mirror.search.query import plain_cursor
from mirror.search.refs.query import Place, RefHit, RefQuery


class Chunk(NamedTuple):
    """A part of a list: the name, the number of the list, the order of its first ref, and the packed refs."""

    name: str
    list: int
    start: int
    repositories: bytes
    ages: bytes

    @property
    def size(self) -> int:
        """How many refs it has."""
        return len(self.ages) // 4

    def places(self, low: int, high: int) -> Iterable[Place]:
        """Return the places of its refs whose order is at least `low` and below `high`."""
        orders = unpack_orders(self.repositories, self.ages)
        some = orders[bisect_left(orders, low) : bisect_left(orders, high)]
        return zip(some, repeat(self.list % len(KINDS)), repeat(self.name))


class RareRefs:
    """All refs of a rare path: their chunks, by match class."""

    def __init__(self, chunks: Iterable[tuple[int, Chunk]]) -> None:
        self.chunks = defaultdict[int, list[Chunk]](list)
        for match, chunk in chunks:
            self.chunks[match].append(chunk)

    def upto(self, worst: int) -> Iterator[Chunk]:
        """Yield the chunks of a match class and of better ones."""
        for match, chunks in self.chunks.items():
            if match <= worst:
                yield from chunks

    def refs(self, worst: int) -> int:
        """Count the refs of a match class and of better ones."""
        return sum(chunk.size for chunk in self.upto(worst))

    @property
    def repositories(self) -> int:
        """How many repositories have any of the refs."""
        found = set[int]()
        for chunks in self.chunks.values():
            for chunk in chunks:
                found.update(unpack_numbers(chunk.repositories))
        return len(found)


def orders_of(chunks: Sequence[Chunk]) -> list[int]:
    """Return the orders of all refs of some chunks, one chunk after the other."""
    repositories, ages = (chunk.repositories for chunk in chunks), (chunk.ages for chunk in chunks)
    return unpack_orders(b"".join(repositories), b"".join(ages))


def page_of(
    chunks: Sequence[Chunk], gone: set[Place], joined: Sequence[Place], low: int, high: int
) -> list[Place]:
    """Return refs `low` to `high` of some chunks, in order, without those in `gone`, with those `joined`."""
    # Sorted as plain numbers, which is fast, the orders tell between which two the page is.
    chunks = _with_first(chunks, high + len(gone))
    orders = orders_of(chunks)
    ranked = sorted(orders)
    first, last = max(low - len(joined), 0), min(high + len(gone), len(ranked))
    begin = ranked[first] if first < len(ranked) else NO_END
    end = ranked[last - 1] if last else -1
    upto = list(accumulate(chunk.size for chunk in chunks))
    near = [at for at, order in enumerate(orders) if begin <= order <= end]
    its = [(orders[at], chunks[bisect_right(upto, at)]) for at in near]
    places = {(order, chunk.list % len(KINDS), chunk.name) for order, chunk in its} - gone
    before = bisect_left(ranked, begin) - sum(order < begin for order, _, _ in gone)
    return sorted([*places, *joined])[low - before : high - before]


def _with_first(chunks: Sequence[Chunk], count: int) -> Sequence[Chunk]:
    """Return the chunks that may have any of the first `count` refs; chunks of a list must be adjacent."""
    # All refs of a chunk come before those of the next chunk of its list.
    pairs = pairwise(chunks)
    for end, size in sorted((after.start, chunk.size) for chunk, after in pairs if chunk[:2] == after[:2]):
        count -= size
        if count <= 0:
            return [chunk for chunk in chunks if chunk.start < end]
    return chunks


_OF_PATH = "node = (SELECT node FROM search_ref_paths WHERE path = ?)"
_NODE = f"""SELECT collection, branches, tags, with_branches, with_tags, with_either, best_branches, best_tags
    FROM search_ref_common WHERE {_OF_PATH}"""
# No leaf's path begins with another's. So only the last one that sorts up to a path can be its beginning.
_LEAF = "SELECT path, names FROM search_ref_rare WHERE path <= ? ORDER BY path DESC LIMIT 1"
# SQLite finds the match class many times as fast as `RefQuery.match`, from the texts of the names.
_NAMES = f"""SELECT n.id, n.name, CASE WHEN :needle = x'' AND :worst = {SUBSTRING} THEN {SUBSTRING}
        WHEN n.text = :exact THEN {EXACT} WHEN instr(n.text, :prefix) = 1 THEN {PREFIX}
        WHEN instr(n.text, :needle) > 0 THEN {SUBSTRING} END AS match
    FROM json_each(:names) k CROSS JOIN search_ref_names n ON n.id = k.value
    WHERE match <= :worst"""
_LEAVES_BELOW = "SELECT names FROM search_ref_rare WHERE path >= ? AND path < ?"
_OF_NAMES = """SELECT n.name, l.list, l.start, l.repositories, l.ages FROM json_each(:names) k
    CROSS JOIN search_ref_names n ON n.id = k.value AND {}
    CROSS JOIN search_ref_lists l ON l.name_id = n.id AND +l.list IN ({})"""
_IN_RANGE = f"SELECT l.name_id, l.list, l.start, l.repositories, l.ages FROM {CHUNKS_IN_RANGE}"
_NAMES_IN_CLASS = """SELECT n.id, n.name FROM json_each(:names) k
    CROSS JOIN search_ref_names n ON n.id = k.value AND {}"""
_IN_CLASS = {
    EXACT: "n.text = :exact",
    PREFIX: "instr(n.text, :prefix) = 1 AND n.text <> :exact",
    SUBSTRING: "instr(n.text, :needle) > 0 AND (:needle = x'' OR instr(n.text, :prefix) <> 1)",
}
_STARTS = "SELECT start FROM search_ref_spans ORDER BY start"
_BLOCKS = "SELECT start, lists, counts FROM search_ref_blocks WHERE start >= ? AND start < ? ORDER BY start"
_COUNTS = f"SELECT collection, branches, tags FROM search_ref_counts WHERE {_OF_PATH}"
_BUCKETS = "SELECT bucket, digits, repositories FROM search_ref_hashes WHERE bucket BETWEEN ? AND ?"


class SeenNode(msgspec.Struct, frozen=True):
    """What a query may see of a common path: the numbers of refs and repositories, and the best refs.

    `best` has (order, kind, name id) of the first refs of each visible list. `cut_at` has the last order of
    each list that is not complete, -1 for an empty one.
    """

    refs: int
    repositories: int
    best: list[tuple[int, int, int]]
    cut_at: list[int]


class RefIndexReader:
    """The index of one file, within one snapshot, for one query."""

    def __init__(self, connection: sqlite3.Connection, query: RefQuery) -> None:
        self._cursor = plain_cursor(connection)
        self._query = query
        self._needle = query.part.encode()
        self._found = dict[int, SeenNode | RareRefs]()

    def at(self, match: int) -> SeenNode | RareRefs:
        """Look up the path of the refs of a match class, and of better ones."""
        if match not in self._found:
            worst = self._found.get(self._query.worst)
            if isinstance(worst, RareRefs):  # it has the refs of all better classes
                return worst
            self._found[match] = self._node(self._path(match)) or self._rare(self._path(match))
        return self._found[match]

    def refs(self, match: int) -> int:
        """Count the refs of a match class and of better ones."""
        found = self.at(match)
        return found.refs if isinstance(found, SeenNode) else found.refs(match)

    def best_hits(self, node: SeenNode, number: int) -> list[RefHit]:
        """Return the `number` newest refs of a node, and all that are as new as the last of these."""
        ranked = sorted(node.best)
        last = max((order for order, _, _ in ranked[:number]), default=0)
        newest = ranked[: bisect_right(ranked, last, key=itemgetter(0))]
        names = self._names({name_id for _, _, name_id in newest})
        hits = list[RefHit]()
        for order, kind, name_id in newest:
            name, match = names[name_id]
            hits.append(RefHit(match, order, kind, name))
        return hits

    def page(self, match: int, gone: set[Place], joined: Sequence[Place], low: int, high: int) -> list[Place]:
        """Return refs `low` to `high` of a match class, without those in `gone`, with those in `joined`."""
        rare = self.at(match)
        if isinstance(rare, RareRefs):
            return page_of(rare.chunks[match], gone, joined, low, high)
        counts = self._span_counts(match)
        if counts is None:
            chunks = list(self._below(self._path(match), _IN_CLASS[match]))
            return page_of(chunks, gone, joined, low, high)
        begin, end, before = _part(self._starts, NO_END, counts, (gone, joined), low, high)
        names, blocks = self._blocks(match, begin, end)
        counts = [sum(held.values()) for _, held in blocks]
        others = _between(gone, begin, end), _between(joined, begin, end)
        low, high = low - before, high - before
        begin, end, before = _part([start for start, _ in blocks], end, counts, others, low, high)
        keys = {key for start, held in blocks if begin <= start < end for key in held}
        found = self._places(names, keys, begin, end).difference(gone).union(_between(joined, begin, end))
        return sorted(found)[low - before : high - before]

    def _blocks(
        self, match: int, begin: int, end: int
    ) -> tuple[dict[int, str], list[tuple[int, dict[int, int]]]]:
        """Return the names of a match class in a range of orders, by id, and the blocks of the range.

        Each block has its start, and its number of refs by list.
        """
        lists = set(self._query.lists)
        blocks = list[tuple[int, dict[int, int]]]()
        for start, packed, counts in self._cursor.execute(_BLOCKS, (begin, end)):
            keys = unpack_numbers(packed)
            held = zip(keys, unpack_counts(counts, len(keys)), strict=True)
            blocks.append((start, {key: count for key, count in held if key % LISTS in lists}))
        ids = {key // LISTS for _, held in blocks for key in held}
        values = self._values | {"names": json.dumps(list(ids))}
        names = dict(self._cursor.execute(_NAMES_IN_CLASS.format(_IN_CLASS[match]), values).fetchall())
        return names, [
            (start, {key: count for key, count in held.items() if key // LISTS in names})
            for start, held in blocks
        ]

    def _places(self, names: Mapping[int, str], keys: Iterable[int], begin: int, end: int) -> set[Place]:
        """Return the places of the refs of some lists with an order from `begin` to before `end`."""
        values = {"keys": json.dumps(list(keys)), "low": begin, "high": end}
        found = set[Place]()
        for name_id, *chunk in self._cursor.execute(_IN_RANGE, values):
            found.update(Chunk(names[name_id], *chunk).places(begin, end))
        return found

    def repositories_at(self, commit: str) -> set[int]:
        """Return the repositories that may have a ref at a commit; `commit` is the beginning of its hash."""
        low, high = int(commit[:8].ljust(8, "0"), 16), int(commit[:8].ljust(8, "f"), 16)
        found = set[int]()
        for bucket, *packed in self._cursor.execute(_BUCKETS, (low >> 16, high >> 16)):
            for digits, repository in unpack_bucket(*packed):
                if low <= (bucket << 16 | digits) <= high:
                    found.add(repository)
        return found

    @cached_property
    def _starts(self) -> list[int]:
        return [row[0] for row in self._cursor.execute(_STARTS)]

    @cached_property
    def _values(self) -> dict[str, bytes]:
        return {
            "exact": self._path(EXACT),
            "prefix": self._path(PREFIX),
            "needle": self._needle,
        }

    def _path(self, match: int) -> bytes:
        prefix = BOUNDARY + self._needle
        return {EXACT: prefix + BOUNDARY, PREFIX: prefix, SUBSTRING: self._needle}[match]

    def _node(self, path: bytes) -> SeenNode | None:
        """Look up a common path; None for a rare one."""
        rows = self._cursor.execute(_NODE, (path,)).fetchall()
        if not rows:
            return None
        refs = repositories = 0
        best, cut_at = list[tuple[int, int, int]](), list[int]()
        column = 4 if len(self._query.kinds) == len(KINDS) else 2 + self._query.kinds[0]
        for collection, *row in rows:
            if collection not in self._query.collections:
                continue
            repositories += row[column]
            for kind in self._query.kinds:
                listed = unpack_listed(row[5 + kind])
                refs += row[kind]
                best += [(order, kind, name_id) for order, name_id in listed]
                if len(listed) < row[kind]:
                    cut_at.append(listed[-1].order if listed else -1)
        return SeenNode(refs, repositories, best, cut_at)

    def _rare(self, path: bytes) -> RareRefs:
        """Read all refs whose name has a rare path."""
        row = self._cursor.execute(_LEAF, (path,)).fetchone()
        if row is None or not path.startswith(row[0]):
            return RareRefs([])
        names = self._names(unpack_numbers(row[1]))
        matches = dict(names.values())
        return RareRefs((matches[chunk.name], chunk) for chunk in self._chunks(names, "1"))

    def _below(self, path: bytes, which: str) -> Iterator[Chunk]:
        """Yield the chunks of the names that have a common path and meet an SQL condition."""
        ids = set[int]()
        # A name has at most two BOUNDARYs in a row, if it is empty. So three sort after every longer path.
        for (packed,) in self._cursor.execute(_LEAVES_BELOW, (path, path + BOUNDARY * 3)):
            ids.update(unpack_numbers(packed))
        return self._chunks(ids, which)

    def _chunks(self, ids: Iterable[int], which: str) -> Iterator[Chunk]:
        """Yield the chunks of the names that have these ids and meet an SQL condition."""
        values = self._values | {"names": json.dumps(list(ids))}
        lists = ", ".join(map(str, self._query.lists))
        return starmap(Chunk, self._cursor.execute(_OF_NAMES.format(which, lists), values))

    def _names(self, ids: Iterable[int]) -> dict[int, tuple[str, int]]:
        """Return which names of these ids match, and their match classes."""
        values = self._values | {"names": json.dumps(list(ids)), "worst": self._query.worst}
        rows = self._cursor.execute(_NAMES, values)
        return {name_id: (name, match) for name_id, name, match in rows}

    def _span_counts(self, match: int) -> list[int] | None:
        """Count the refs of a match class in each span; None if the index does not say."""
        counts = self._counts_of(self._path(match))
        better = match - 1
        if counts is None or match == EXACT or not self._needle or not self.refs(better):
            return counts
        less = self._counts_of(self._path(better))
        if less is None:
            found = self.at(better)
            if isinstance(found, SeenNode):
                which = _IN_CLASS[EXACT] if better == EXACT else "instr(n.text, :prefix) = 1"
                chunks = self._below(self._path(better), which)
            else:
                chunks = found.upto(better)
            ranked = sorted(orders_of(list(chunks)))
            cuts = [*(bisect_left(ranked, start) for start in self._starts), len(ranked)]
            less = [high - low for low, high in pairwise(cuts)]
        return [one - other for one, other in zip(counts, less, strict=True)]

    def _counts_of(self, path: bytes) -> list[int] | None:
        """Return how many refs of a path may be shown in each span; None if the index does not say."""
        parts = list[Sequence[int]]()
        rows = self._cursor.execute(_COUNTS, (path,)).fetchall()
        for collection, *packed in rows:
            if collection in self._query.collections:
                parts += [unpack_counts(packed[kind], len(self._starts)) for kind in self._query.kinds]
        if not rows:
            return None
        return [sum(some) for some in zip(*parts, strict=True)] if parts else [0] * len(self._starts)


def _between(places: Iterable[Place], begin: int, end: int) -> list[Place]:
    """Return the places with an order from `begin` to before `end`."""
    return [place for place in places if begin <= place[0] < end]


def _part(
    starts: Sequence[int],
    end: int,
    counts: list[int],
    others: tuple[Iterable[Place], Iterable[Place]],
    low: int,
    high: int,
) -> tuple[int, int, int]:
    """Find the parts that have refs `low` to `high`, after some refs are gone and others joined.

    :param starts: the order at which each part begins; the last one stops before `end`
    :param counts: how many refs each part has; it is changed
    :param others: the places of refs that are gone, and of those that joined
    :returns: the first order, the order to stop before, and the number of refs before the first
    """
    for places, sign in zip(others, (-1, 1), strict=True):
        for order, _, _ in places:
            counts[bisect_right(starts, order) - 1] += sign
    upto = list(accumulate(counts))
    first, last = bisect_right(upto, low), bisect_left(upto, high)
    return starts[first], [*starts[last + 1 : last + 2], end][0], upto[first - 1] if first else 0
