"""Answer a query exactly in the cheapest way: from the counts of the index, from its lists, or by a scan."""

import heapq
import sqlite3
from collections.abc import Iterable
from functools import cached_property
from itertools import count, islice
from typing import NamedTuple

import msgspec

from mirror.search.descriptions import described_hits
from mirror.search.index.format import SHORTEST_LISTED, unpack_best
from mirror.search.index.reader import IndexReader, Leaf, Node
from mirror.search.names import BOUNDARY, EXACT, PREFIX, SUBSTRING
from mirror.search.pending import PendingMatches
from mirror.search.query import Query, sql_conditions
from mirror.search.scan import Hit, Scan, hits_by_popularity

LOOKUP_COST = 12
"""The cost of reading a row by its id and comparing it. The unit of all costs: one row of a table scan."""

COMPARE_COST = 9
"""The cost of comparing, in Python, a row that SQL has read anyway."""


class ResultPage(NamedTuple):
    """The exact number of all hits, and the hits of one page in order."""

    total: int
    hits: list[Hit]


class QueryEngine:
    """Answers one query on one file, within one snapshot."""

    def __init__(self, connection: sqlite3.Connection, query: Query) -> None:
        self.connection = connection
        self.query = query
        self.index = IndexReader(connection)
        self.conditions = sql_conditions(connection, query)
        self.scan = Scan(connection, query.part, self.conditions)

    @cached_property
    def pending(self) -> PendingMatches:
        """The rows of which the index is out of date."""
        return PendingMatches(self.connection, self.query)

    def has_exact_match(self) -> bool:
        """Return whether the query is the whole name of a repository."""
        return any(hit[0] == EXACT for hit in self.answer(0, 1).hits)

    def corrected(self) -> "QueryEngine | None":
        """Return an engine for the query that was probably meant; None if no name is near enough."""
        if not self.query.is_encodable:
            return None
        # Most queries match something, and this import takes longer than they do.
        from mirror.search.fuzzy import nearest_name  # noqa: PLC0415

        name = nearest_name(
            self.connection, self.index, self.query.part, self.query.collections, self.conditions
        )
        if name is None:
            return None
        return QueryEngine(self.connection, msgspec.structs.replace(self.query, part=name))

    def answer(self, start: int, stop: int) -> ResultPage:
        """Return the number of all hits, and hits `start` to `stop` of them."""
        if not self.query.is_encodable:
            return ResultPage(0, [])
        if not self.index.up_to:
            return self._by_scan(start, stop)
        found = self.index.find(self.query.needle)
        if isinstance(found, Node) and self.conditions.is_plain:
            return self._by_counts(found, start, stop)
        if self._listing_cost(found, self.query.needle) > self.scan.cost:
            return self._by_scan(start, stop)
        return _count_and_cut(self._listed_hits(found, self.query.needle), start, stop)

    def described(self, start: int, stop: int) -> ResultPage:
        """Return how many repositories match only by their description, and some of them in order."""
        if not self.query.is_encodable:
            return ResultPage(0, [])
        hits = described_hits(self.connection, self.query.part, self.conditions)
        return _count_and_cut(hits, max(start, 0), max(stop, 0))

    def _by_counts(self, found: Node, start: int, stop: int) -> ResultPage:
        """Answer a common query without looking at all hits."""
        self.pending.count()
        fresh = [*self._matching(self.pending.unprepared), *self._new_rows()]
        total = self._count(found, SUBSTRING, fresh)
        stop = min(total, stop)
        hits = self._best_hits(found, fresh, stop) if start < stop else []
        if hits is not None:
            return ResultPage(total, hits[start:])
        counts = [self._count(self.index.find(path), match, fresh) for match, path in self._class_paths()]
        return ResultPage(total, self._deep_page(counts, start, stop))

    def _by_scan(self, start: int, stop: int) -> ResultPage:
        """Answer without the index."""
        counts = self.scan.counts()
        total = counts[SUBSTRING]
        by_class = [counts[match] for match, _ in self._class_paths()]
        return ResultPage(total, self._deep_page(by_class, start, min(total, stop)))

    def _count(self, found: Node | Leaf, worst: int, fresh: list[Hit]) -> int:
        """Count the hits of match class `worst` or better.

        :param found: what the index has for the path of that class, see `_class_paths`
        :param fresh: the hits among unprepared and new rows, which the index does not count
        """
        counted = sum([hit[0] <= worst for hit in fresh])
        if isinstance(found, Leaf):
            hits = self._matching(set(found.ids) - self.pending.ids)
            return counted + self.pending.matching(worst) + sum([hit[0] <= worst for hit in hits])
        counted += self.pending.gained(worst)
        for collection in self.query.collections:
            if collection in found.summaries:
                counted += found.summaries[collection].count - self.pending.lost(collection, worst)
        return counted

    def _best_hits(self, found: Node, fresh: list[Hit], stop: int) -> list[Hit] | None:
        """Return the best `stop` hits in order; None if the lists of the index are too short to tell.

        For each match class, the best `stop` ids of its path are enough: a hit that ranks above them is of a
        better class, and the path of that class has contributed its own best `stop`.
        """
        hits = [*fresh, *self.pending.best(stop)]
        known = set[int]()
        cut_at = list[tuple[int, int]]()  # (match class, id): the list of that class ends with that id
        for match, path in self._class_paths():
            ids, lasts = self._best_ids(found if match == SUBSTRING else self.index.find(path), stop)
            cut_at += [(match, last) for last in lasts]
            hits += self._matching(ids - known)
            known |= ids
            if sum([hit[0] <= match for hit in hits]) >= stop:
                break
        best = heapq.nsmallest(stop, hits)
        popularity = {hit[-1]: hit[1:] for hit in hits}
        # A list that is too short does not matter if the page ends above the last id that it has.
        if any(last not in popularity or best[-1] > (match, *popularity[last]) for match, last in cut_at):
            return None
        return best if not cut_at or len(best) == stop else None

    def _best_ids(self, found: Node | Leaf, limit: int) -> tuple[set[int], list[int]]:
        """Return the ids of the best `limit` repositories of a path, without pending ones.

        Also return the last id of each list that is neither complete nor `limit` long; 0 for an empty list.
        """
        if isinstance(found, Leaf):
            return set(found.ids) - self.pending.among(found.ids), []
        best, lasts = set[int](), list[int]()
        for collection in self.query.collections:
            if collection in found.summaries:
                summary = found.summaries[collection]
                ranked, unranked = unpack_best(summary.best)
                pending = self.pending.among([*ranked, *unranked])
                ids = [row_id for row_id in ranked if row_id not in pending]
                if len(ranked) + len(unranked) < summary.count:
                    ids = ids[:limit]
                    if len(ids) < limit:
                        lasts.append(ids[-1] if ids else 0)
                best |= {*ids, *unranked} - pending
        return best, lasts

    def _deep_page(self, counts: list[int], start: int, stop: int) -> list[Hit]:
        """Return hits `start` to `stop`, reading only the match classes in which they are.

        :param counts: for each of `_class_paths`, the number of hits of that class or better
        """
        page, before = list[Hit](), 0
        for (match, path), upto in zip(self._class_paths(), counts, strict=True):
            low, high = max(start, before), min(stop, upto)
            if low < high:
                ranked = self._best_of_class(match, path, size=upto - before, stop=high - before)
                page += ranked[low - before :]
            before = upto
        return page

    def _best_of_class(self, match: int, path: bytes, *, size: int, stop: int) -> list[Hit]:
        """Return the best `stop` hits of a match class that has `size` hits, in the cheapest way."""
        found = self.index.find(path)
        by_popularity_cost = LOOKUP_COST * stop * self.scan.rows // size
        listing_cost = self._listing_cost(found, path)
        scan_cost = self.scan.cost + COMPARE_COST * size
        hits: Iterable[Hit]
        # The SQL indexes by popularity do not contain what is gone.
        if not self.query.gone and by_popularity_cost < min(listing_cost, scan_cost):
            hits = hits_by_popularity(self.connection, self.query.part, self.conditions)
            return list(islice((hit for hit in hits if hit[0] == match), stop))
        hits = self._listed_hits(found, path) if listing_cost < scan_cost else self.scan.hits()
        return heapq.nsmallest(stop, (hit for hit in hits if hit[0] == match))

    def _class_paths(self) -> list[tuple[int, bytes]]:
        """Return the match classes, the best first, each with the path of its hits and all better ones.

        Example for `flask`: (EXACT, ``^flask^``), (PREFIX, ``^flask``), (SUBSTRING, ``flask``).
        """
        needle = self.query.needle
        paths = [(EXACT, BOUNDARY + needle + BOUNDARY), (PREFIX, BOUNDARY + needle)] if needle else []
        return [*paths, (SUBSTRING, needle)]

    def _listing_cost(self, found: Node | Leaf, path: bytes) -> int:
        """Return the cost of `_listed_hits`; of a path too short to be listed, more than a scan costs."""
        candidates = self.scan.rows
        if isinstance(found, Leaf):
            candidates = len(found.ids)
        elif len(path) >= SHORTEST_LISTED:
            candidates = sum([summary.count for summary in found.summaries.values()])
        return LOOKUP_COST * candidates + self.scan.rows - self.index.up_to

    def _listed_hits(self, found: Node | Leaf, path: bytes) -> list[Hit]:
        """Return all hits of a path, by reading the rows that the index lists and those it does not know."""
        ids = set(found.ids) if isinstance(found, Leaf) else self.index.ids_below(path)
        return [*self._matching(ids | self.pending.ids), *self._new_rows()]

    def _matching(self, ids: set[int]) -> list[Hit]:
        return self.index.matching(ids, self.query.part, self.conditions) if ids else []

    def _new_rows(self) -> list[Hit]:
        """Return the hits among the rows that are newer than the index."""
        if self.scan.rows <= self.index.up_to:
            return []
        return list(Scan(self.connection, self.query.part, self.conditions, after=self.index.up_to).hits())


def _count_and_cut(hits: Iterable[Hit], start: int, stop: int) -> ResultPage:
    """Count all hits and return one page of them; no more than `stop` hits are kept in memory."""
    number = count()
    best = heapq.nsmallest(max(stop, 1), (hit for hit, _ in zip(hits, number, strict=False)))
    return ResultPage(next(number), best[start:stop])
