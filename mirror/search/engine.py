"""How a question is answered exactly at the least cost: by counts and lists, by candidates, or by a scan."""

import heapq
import sqlite3
from collections.abc import Iterable
from functools import cached_property
from itertools import count, islice
from typing import NamedTuple

import msgspec

from mirror.search.fuzzy import nearest_name
from mirror.search.index.format import SHORTEST_LISTED, unpack_best
from mirror.search.index.reader import Common, Rare, Trie
from mirror.search.names import EXACT, MARK, PREFIX, SUBSTRING
from mirror.search.pending import Unsettled
from mirror.search.query import Request, conditions_of
from mirror.search.scan import Hit, Scan, by_popularity

LOOKUP = 12
"""What finding and judging a row by its id costs, in rows that SQL reads one after another."""

JUDGED = 9
"""What judging a row in Python costs that SQL has read anyway."""


class Answer(NamedTuple):
    """The exact number of hits, and those of the page in order."""

    total: int
    page: list[Hit]


class Question:
    """One question to one file, in one snapshot."""

    def __init__(self, connection: sqlite3.Connection, request: Request) -> None:
        self.connection = connection
        self.request = request
        self.trie = Trie(connection)
        self.conditions = conditions_of(connection, request)
        self.scan = Scan(connection, request.part, self.conditions)

    @cached_property
    def unsettled(self) -> Unsettled:
        """What the index does not know of rows that it knows."""
        return Unsettled(self.connection, self.request)

    def names_one_exactly(self) -> bool:
        """Say whether a repository is called just so."""
        return any(hit[0] == EXACT for hit in self.answer(0, 1).page)

    def corrected(self) -> "Question | None":
        """Return the question that was meant, if a name that occurs is near enough to the one typed."""
        if not self.request.is_storable:
            return None
        name = nearest_name(
            self.connection, self.trie, self.request.part, self.request.collections, self.conditions
        )
        if name is None:
            return None
        return Question(self.connection, msgspec.structs.replace(self.request, part=name))

    def answer(self, start: int, stop: int) -> Answer:
        """Return hits `start` to `stop` of all that there are, by the cheapest way that is exact."""
        if not self.request.is_storable:
            return Answer(0, [])
        if not self.trie.up_to:
            return self._scanned(start, stop)
        found = self.trie.find(self.request.needle)
        if isinstance(found, Common) and self.conditions.is_plain:
            return self._plain(found, start, stop)
        if self._cost_below(found, self.request.needle) > self.scan.cost:
            return self._scanned(start, stop)
        return _cut(self._below(found, self.request.needle), start, stop)

    def _plain(self, found: Common, start: int, stop: int) -> Answer:
        """Answer by the counts of the index, without a look at all hits."""
        self.unsettled.count()
        fresh = [*self._judged(self.unsettled.loose), *self._later()]
        total = self._count(found, SUBSTRING, fresh)
        stop = min(total, stop)
        hits = self._ranked(found, fresh, stop) if start < stop else []
        if hits is not None:
            return Answer(total, hits[start:])
        counts = [self._count(self.trie.find(path), match, fresh) for match, path in self._ways()]
        return Answer(total, self._page(counts, start, stop))

    def _scanned(self, start: int, stop: int) -> Answer:
        """Answer by a look at all rows, which SQL takes and counts, and by the order of popularity."""
        counts = self.scan.counts()
        total = counts[SUBSTRING]
        return Answer(
            total, self._page([counts[match] for match, _ in self._ways()], start, min(total, stop))
        )

    def _count(self, found: Common | Rare, worst: int, fresh: list[Hit]) -> int:
        """Count the hits of a class and of all better ones, whom the path that was found stands for."""
        counted = sum([hit[0] <= worst for hit in fresh])
        if isinstance(found, Rare):
            hits = self._judged(set(found.ids) - self.unsettled.ids)
            return counted + self.unsettled.matching(worst) + sum([hit[0] <= worst for hit in hits])
        counted += self.unsettled.gained(worst)
        for collection in self.request.collections:
            if collection in found.tallies:
                counted += found.tallies[collection].count - self.unsettled.lost(collection, worst)
        return counted

    def _ranked(self, found: Common, fresh: list[Hit], stop: int) -> list[Hit] | None:
        """Return the best `stop` hits in order; None where the lists do not reach that far.

        Each class is a path of its own. The best `stop` of a path cannot miss one that belongs on the page:
        whatever is ranked above them by class comes from the path before, of which as many are taken. A list
        that ends sooner will do if the page ends before its last.
        """
        hits = [*fresh, *self.unsettled.best(stop)]
        known = set[int]()
        bars = list[tuple[int, int]]()
        for match, path in self._ways():
            ids, lasts = self._best(found if match == SUBSTRING else self.trie.find(path), stop)
            bars += [(match, last) for last in lasts]
            hits += self._judged(ids - known)
            known |= ids
            if sum([hit[0] <= match for hit in hits]) >= stop:
                break
        best = heapq.nsmallest(stop, hits)
        popularity = {hit[-1]: hit[1:] for hit in hits}
        if any(last not in popularity or best[-1] > (match, *popularity[last]) for match, last in bars):
            return None
        return best if not bars or len(best) == stop else None

    def _best(self, found: Common | Rare, limit: int) -> tuple[set[int], list[int]]:
        """Return the best of a path, and the last of each list that ends before `limit`, 0 if it is empty."""
        if isinstance(found, Rare):
            return set(found.ids) - self.unsettled.among(found.ids), []
        best, lasts = set[int](), list[int]()
        for collection in self.request.collections:
            if collection in found.tallies:
                tally = found.tallies[collection]
                ranked, joined = unpack_best(tally.best)
                pending = self.unsettled.among([*ranked, *joined])
                ids = [row_id for row_id in ranked if row_id not in pending]
                if len(ranked) + len(joined) < tally.count:
                    ids = ids[:limit]
                    if len(ids) < limit:
                        lasts.append(ids[-1] if ids else 0)
                best |= {*ids, *joined} - pending
        return best, lasts

    def _page(self, counts: list[int], start: int, stop: int) -> list[Hit]:
        """Return hits `start` to `stop`, class by class; each is counted with all better ones."""
        page, before = list[Hit](), 0
        for (match, path), upto in zip(self._ways(), counts, strict=True):
            low, high = max(start, before), min(stop, upto)
            if low < high:
                ranked = self._class(match, path, size=upto - before, high=high - before)
                page += ranked[low - before :]
            before = upto
        return page

    def _class(self, match: int, path: bytes, *, size: int, high: int) -> list[Hit]:
        """Return the best `high` hits of a class that has `size`, in the cheapest way."""
        found = self.trie.find(path)
        walked = LOOKUP * high * self.scan.rows // size
        below = self._cost_below(found, path)
        scanned = self.scan.cost + JUDGED * size
        hits: Iterable[Hit]
        if not self.request.gone and walked < min(below, scanned):  # who has gone is in no order
            hits = by_popularity(self.connection, self.request.part, self.conditions)
            return list(islice((hit for hit in hits if hit[0] == match), high))
        hits = self._below(found, path) if below < scanned else self.scan.hits()
        return heapq.nsmallest(high, (hit for hit in hits if hit[0] == match))

    def _ways(self) -> list[tuple[int, bytes]]:
        """Return the classes in order, each with the path of those that are in it or in a better one."""
        needle = self.request.needle
        ways = [(EXACT, MARK + needle + MARK), (PREFIX, MARK + needle)] if needle else []
        return [*ways, (SUBSTRING, needle)]

    def _cost_below(self, found: Common | Rare, path: bytes) -> int:
        """Say what `_below` costs, in rows that are scanned; more than all where a path knows no list."""
        candidates = self.scan.rows
        if isinstance(found, Rare):
            candidates = len(found.ids)
        elif len(path) >= SHORTEST_LISTED:
            candidates = sum([tally.count for tally in found.tallies.values()])
        return LOOKUP * candidates + self.scan.rows - self.trie.up_to

    def _below(self, found: Common | Rare, path: bytes) -> list[Hit]:
        """Judge all that a path has, and all that the index does not know."""
        ids = set(found.ids) if isinstance(found, Rare) else self.trie.below(path)
        return [*self._judged(ids | self.unsettled.ids), *self._later()]

    def _judged(self, ids: set[int]) -> list[Hit]:
        return self.trie.judge(ids, self.request.part, self.conditions) if ids else []

    def _later(self) -> list[Hit]:
        """Return the hits among the rows that are newer than the index."""
        if self.scan.rows <= self.trie.up_to:
            return []
        return list(Scan(self.connection, self.request.part, self.conditions, after=self.trie.up_to).hits())


def _cut(hits: Iterable[Hit], start: int, stop: int) -> Answer:
    """Count all hits and keep a page of them, with no more in memory than that takes."""
    number = count()
    best = heapq.nsmallest(max(stop, 1), (hit for hit, _ in zip(hits, number, strict=False)))
    return Answer(next(number), best[start:stop])
