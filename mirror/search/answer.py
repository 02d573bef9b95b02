"""How a question is answered exactly at the least cost: by counts and lists, by candidates, or by a scan."""

import heapq
import sqlite3
from collections.abc import Iterable
from itertools import count, islice
from typing import NamedTuple

import msgspec

from mirror.names import EXACT, MARK, PREFIX, SUBSTRING
from mirror.search.fuzzy import nearest_name
from mirror.search.order import by_popularity
from mirror.search.request import Conditions, Request, conditions_of
from mirror.search.scan import Hit, scan
from mirror.search.trie import Common, Rare, Trie
from mirror.search.unsettled import Unsettled
from mirror.trie import SHORTEST_LISTED, unpack_best

LOOKUP = 5
"""What reading a row by its id costs, in rows that are read one after another."""


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
        found = self.trie.find(self.request.needle) if self.trie.up_to else None
        if found is None or (isinstance(found, Common) and self._is_scan_cheaper(found)):
            return _cut(scan(self.connection, self.request.part, self.conditions), start, stop)
        unsettled = Unsettled(self.connection, self.request)
        if isinstance(found, Rare):
            return _cut([*self._judged({*found.ids, *unsettled.ids}), *self._later()], start, stop)
        if self.request.is_plain:
            return self._plain(found, unsettled, start, stop)
        return self._enumerated(found, unsettled, start, stop)

    def _plain(self, found: Common, unsettled: Unsettled, start: int, stop: int) -> Answer:
        """Answer by the counts of the index, without a look at all hits."""
        unsettled.count()
        fresh = [*self._judged(unsettled.loose), *self._later()]
        total = self._count(found, SUBSTRING, unsettled, fresh)
        stop = min(total, stop)
        hits = self._ranked(found, unsettled, fresh, stop) if start < stop else []
        if hits is not None:
            return Answer(total, hits[start:])
        if self.request.gone:  # which the order of popularity does not hold
            return self._enumerated(found, unsettled, start, stop)
        return Answer(total, self._deep(unsettled, fresh, start, stop))

    def _count(self, found: Common | Rare, worst: int, unsettled: Unsettled, fresh: list[Hit]) -> int:
        """Count the hits of a class and of all better ones, whom the path that was found stands for."""
        counted = sum([hit[0] <= worst for hit in fresh])
        if isinstance(found, Rare):
            hits = self._judged(set(found.ids) - unsettled.ids)
            return counted + unsettled.matching(worst) + sum([hit[0] <= worst for hit in hits])
        counted += unsettled.gained(worst)
        for collection in self.request.collections:
            if collection in found.tallies:
                counted += found.tallies[collection].count - unsettled.lost(collection, worst)
        return counted

    def _ranked(self, found: Common, unsettled: Unsettled, fresh: list[Hit], stop: int) -> list[Hit] | None:
        """Return the best `stop` hits in order; None where the lists do not reach that far.

        Each class is a path of its own. The best `stop` of a path cannot miss one that belongs on the page:
        whatever is ranked above them by class comes from the path before, of which as many are taken. A list
        that ends sooner will do if the page ends before its last.
        """
        hits = [*fresh, *unsettled.best(stop)]
        known = set[int]()
        bars = list[tuple[int, int]]()
        for match, path in self._ways():
            ids, lasts = self._best(found if match == SUBSTRING else self.trie.find(path), unsettled, stop)
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

    def _best(self, found: Common | Rare, unsettled: Unsettled, limit: int) -> tuple[set[int], list[int]]:
        """Return the best of a path, and the last of each list that ends before `limit`, 0 if it is empty."""
        if isinstance(found, Rare):
            return set(found.ids) - unsettled.among(found.ids), []
        best, lasts = set[int](), list[int]()
        for collection in self.request.collections:
            if collection in found.tallies:
                tally = found.tallies[collection]
                ranked, joined = unpack_best(tally.best)
                pending = unsettled.among([*ranked, *joined])
                ids = [row_id for row_id in ranked if row_id not in pending]
                if len(ranked) + len(joined) < tally.count:
                    ids = ids[:limit]
                    if len(ids) < limit:
                        lasts.append(ids[-1] if ids else 0)
                best |= {*ids, *joined} - pending
        return best, lasts

    def _deep(self, unsettled: Unsettled, fresh: list[Hit], start: int, stop: int) -> list[Hit]:
        """Return hits `start` to `stop`, which the lists do not reach, class by class in the cheapest way."""
        page, before = list[Hit](), 0
        for match, path in self._ways():
            found = self.trie.find(path)
            upto = self._count(found, match, unsettled, fresh)
            low, high = max(start, before), min(stop, upto)
            if low < high:
                size, skipped = upto - before, before
                ranked = self._class(match, path, found, unsettled, size=size, high=high - skipped)
                page += ranked[low - skipped : high - skipped]
            before = upto
        return page

    def _class(
        self, match: int, path: bytes, found: Common | Rare, unsettled: Unsettled, *, size: int, high: int
    ) -> list[Hit]:
        """Return the best `high` hits of a class that has `size`."""
        below = self._enumerable(found, path)
        walked = LOOKUP * high * self.trie.up_to // size
        hits: Iterable[Hit]
        if walked < min(LOOKUP * below, self.trie.up_to):
            walk = by_popularity(self.connection, self.request.part, self.conditions)
            return list(islice((hit for hit in walk if hit[0] == match), high))
        if LOOKUP * below < self.trie.up_to:
            ids = set(found.ids) if isinstance(found, Rare) else self.trie.below(path)
            hits = [*self._judged(ids | unsettled.ids), *self._later()]
        else:
            hits = scan(self.connection, self.request.part, self.conditions)
        return heapq.nsmallest(high, (hit for hit in hits if hit[0] == match))

    def _ways(self) -> list[tuple[int, bytes]]:
        """Return the classes in order, each with the path of those that are in it or in a better one."""
        needle = self.request.needle
        ways = [(EXACT, MARK + needle + MARK), (PREFIX, MARK + needle)] if needle else []
        return [*ways, (SUBSTRING, needle)]

    def _is_scan_cheaper(self, found: Common) -> bool:
        """Say whether a question that the counts cannot answer is better put to the rows themselves."""
        if self.request.is_plain:
            return False
        return self._scanned() < LOOKUP * self._enumerable(found, self.request.needle)

    def _scanned(self) -> int:
        """Say how many rows a scan would read."""
        if not self.request.names_owners:
            return self.trie.up_to
        row = self.connection.execute(
            "SELECT count(*) FROM repositories WHERE owner_id IN (SELECT value FROM json_each(:owners))",
            {"owners": self.conditions.values["owners"]},
        ).fetchone()
        return int(row[0])

    def _enumerable(self, found: Common | Rare, path: bytes) -> int:
        """Say how many candidates a path has; more than any scan where they cannot be enumerated."""
        if isinstance(found, Rare):
            return len(found.ids)
        if len(path) < SHORTEST_LISTED:
            return self.trie.up_to
        return sum([tally.count for tally in found.tallies.values()])

    def _enumerated(self, found: Common, unsettled: Unsettled, start: int, stop: int) -> Answer:
        """Judge all that there are: what the lists are too short for."""
        if self._scanned() < LOOKUP * self._enumerable(found, self.request.needle):
            return _cut(scan(self.connection, self.request.part, self.conditions), start, stop)
        ids = self.trie.below(self.request.needle) | unsettled.ids
        return _cut([*self._judged(ids), *self._later()], start, stop)

    def _judged(self, ids: set[int]) -> list[Hit]:
        return self.trie.judge(ids, self.request.part, self.conditions) if ids else []

    def _later(self) -> list[Hit]:
        """Return the hits among the rows that are newer than the index."""
        row = self.connection.execute("SELECT max(id) FROM repositories").fetchone()
        if row[0] is None or row[0] <= self.trie.up_to:
            return []
        later = Conditions(
            [*self.conditions.clauses, "+id > :up_to" if self.request.names_owners else "id > :up_to"],
            self.conditions.values | {"up_to": self.trie.up_to},
        )
        return list(scan(self.connection, self.request.part, later))


def _cut(hits: Iterable[Hit], start: int, stop: int) -> Answer:
    """Count all hits and keep a page of them, with no more in memory than that takes."""
    number = count()
    best = heapq.nsmallest(max(stop, 1), (hit for hit, _ in zip(hits, number, strict=False)))
    return Answer(next(number), best[start:stop])
