"""The search itself: takes a query, filters and a page; returns the exact count and ranked ids.

`search` does so; `register` offers it as SQL functions, so that any query can join on it. `QueryEngine`
answers a query in the cheapest way that is exact: from the counts of the index, from rows, or with arrays.
"""

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any, NamedTuple, Unpack

import msgspec

from mirror.search.index.format import IndexReader, Leaf, Node, unpack_best
from mirror.search.names import EXACT, SUBSTRING
from mirror.search.pending import PendingMatches, PendingRows
from mirror.search.query import Filters, Query, is_encodable, owned_ids, parse_query, sql_conditions
from mirror.search.scan import Hit, KeptReads, RowReader, described_hits, new_hits

FEW = 1_500
"""So many rows are read by their ids and compared one by one, in 8 ms; more are found with arrays."""

DEEPEST_LISTED = 1_000
"""The last hit of a page that the lists of the index may have: no node lists so many, in all collections."""

_MORE = 5
"""How many more ids of a collection are ranked than its share of a page."""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The number of all matches, and one page of them, the best first.

    `fuzzy` is True if the query was corrected; `corrected` then holds the name that was searched instead.
    `ids` are rows of `repositories`. `described` of the matches, the last ones, have the query in their
    description alone.
    """

    query: str
    count: int
    fuzzy: bool
    corrected: tuple[str, ...]
    ids: list[int]
    described: int = 0


class ResultPage(NamedTuple):
    """The exact number of all hits, and the hits of one page in order."""

    total: int
    hits: list[Hit]


def search(
    connection: sqlite3.Connection,
    query: str,
    *,
    limit: int = 20,
    offset: int = 0,
    visible_private: bool = True,
    private_of: Iterable[int] = (),
    fuzzy: bool | None = None,
    kept: KeptReads | None = None,
    **filters: Unpack[Filters],
) -> SearchResult:
    """Find repositories whose name or slug contains `query`, compared in normal form.

    Results are sorted by match (the name is the query, begins with it, contains it), then by followers,
    forks, newest `created_at`, and lowest id.

    :param query: a part of a name; ``owner/part`` searches among the repositories of `owner` or, if there is
        no such owner, of the owners that begin so; the empty query matches everything
    :param limit: number of repositories in the page; negative is 0
    :param offset: number of repositories to skip; negative is 0
    :param visible_private: False if the caller may not see private repositories: they are neither
        listed nor counted
    :param private_of: ids of `users` whose private repositories the caller may see nevertheless
    :param fuzzy: True to correct one or two typing errors unless a name is exactly the query, False never to,
        None to correct if nothing matches
    :param kept: what searches have read in the same state of the file
    :param filters: what narrows the search, as `Filters` says
    :raises sqlite3.Error: if the file cannot be read
    """
    parsed = parse_query(query, visible_private=visible_private, private_of=tuple(private_of), **filters)
    start, stop = max(offset, 0), max(offset, 0) + max(limit, 0)
    with one_snapshot(connection):
        engine = QueryEngine(connection, parsed, kept=kept)
        page, described, corrected = _answer(engine, start, stop, fuzzy=fuzzy)
        return SearchResult(
            query=query,
            count=page.total,
            fuzzy=bool(corrected),
            corrected=corrected,
            ids=[hit[-1] for hit in page.hits],
            described=described,
        )


def _answer(
    engine: "QueryEngine", start: int, stop: int, *, fuzzy: bool | None
) -> tuple[ResultPage, int, tuple[str, ...]]:
    """Answer a query as written or corrected.

    Also return how many hits are found by their description alone, and the name that was searched instead,
    if any.
    """
    if fuzzy and not engine.has_exact_match():
        corrected = engine.corrected()
        if corrected is not None:
            return corrected.answer(start, stop), 0, (corrected.query.part,)
    page, behind = engine.answer(start, stop), ResultPage(0, [])
    if engine.query.descriptions:
        behind = engine.described(start - page.total, stop - page.total)
    if fuzzy is None and not page.total and not behind.total:
        corrected = engine.corrected()
        if corrected is not None:
            return corrected.answer(start, stop), 0, (corrected.query.part,)
    return ResultPage(page.total + behind.total, [*page.hits, *behind.hits]), behind.total, ()


@contextmanager
def one_snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let all reads inside the block see one state of the file, also while a sync writes."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # an error of the disk ends it
            # Not ROLLBACK: a statement that called an SQL function is still reading.
            connection.execute("COMMIT")


MAX_IDS = 10_000
"""The highest number of ids that one call returns."""

_DEFAULT_LIMIT = 20


def text_of(value: Any) -> str:
    """Return the text of a value of SQL: a name may be a number, and NULL is the empty text."""
    return "" if value is None else str(value)


def limit_of(value: Any = None) -> int:
    """Return the limit that a value of SQL means; NULL, and a field of a form left empty, is the default."""
    return _DEFAULT_LIMIT if value in (None, "") else int(min(float(value), MAX_IDS))


def register(
    connection: sqlite3.Connection,
    *,
    visible_private: bool = False,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Add two SQL functions to a connection.

    ``mirror_search(query, limit)`` returns a JSON array of ids, the best first; `limit` is 20 if omitted.
    ``mirror_search_count(query)`` returns the number of matches. Example::

        SELECT r.full_name FROM json_each(mirror_search('django', 20)) AS hit
        JOIN repositories AS r ON r.id = hit.value ORDER BY hit.key

    :param visible_private: True if those who run SQL on the connection may read the whole table; by default
        the functions find public repositories only
    :param reading: a context that is entered around each search
    """

    def found(query: Any, limit: int) -> SearchResult:
        with reading():
            part = text_of(query)
            return search(connection, part, limit=limit, visible_private=visible_private, fuzzy=False)

    def mirror_search(query: Any, limit: Any = None) -> str:
        return json.dumps(found(query, limit_of(limit)).ids)

    connection.create_function("mirror_search", 1, mirror_search)
    connection.create_function("mirror_search", 2, mirror_search)
    connection.create_function("mirror_search_count", 1, lambda query: found(query, 0).count)


class QueryEngine:
    """Answers one query on one file, within one snapshot."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        query: Query,
        few: int = FEW,
        index: IndexReader | None = None,
        rows: RowReader | None = None,
        pending: PendingRows | None = None,
        kept: KeptReads | None = None,
    ) -> None:
        """Prepare an answer; `few` is for tests.

        `index`, `rows` and `pending` are of a query with the same filters.
        """
        kept = kept or KeptReads()
        kept.forget_the_most()
        self.connection = connection
        self.query = query
        self.index = index or IndexReader(connection, kept.paths)
        conditions = rows.conditions if rows else sql_conditions(connection, query, kept.owners)
        self.rows = rows or RowReader(connection, conditions, self.index.up_to, kept)
        self.conditions = conditions
        self._pending_rows = pending or PendingRows(connection, has_any=self.index.has_pending)
        self.pending = PendingMatches(self._pending_rows, query, self.rows)
        self._few = few

    def has_exact_match(self) -> bool:
        """Return whether the query is the whole name of a repository."""
        return any(hit[0] == EXACT for hit in self.answer(0, 1).hits)

    def corrected(self) -> "QueryEngine | None":
        """Return an engine for the query that was probably meant; None if no name is near enough."""
        if not is_encodable(self.query.part):
            return None
        # Most queries match something, and this import takes longer than they do.
        from mirror.search.fuzzy import nearest_name  # noqa: PLC0415

        name = nearest_name(self.connection, self.index, self.rows, self._pending_rows, self.query)
        if name is None:
            return None
        query = msgspec.structs.replace(self.query, part=name)
        return QueryEngine(self.connection, query, self._few, self.index, self.rows, self._pending_rows)

    def answer(self, start: int, stop: int) -> ResultPage:
        """Return the number of all hits, and hits `start` to `stop` of them."""
        if not is_encodable(self.query.part):
            return ResultPage(0, [])
        found = self.index.find(self.query.needle)
        if isinstance(found, Node) and self.conditions.is_plain:
            page = self._by_counts(found, start, stop)
            if page is not None:
                return page
        ids = self._few_candidates(found)
        if ids is None:
            return self._by_arrays(start, stop)
        return _count_and_cut([*self._matching(ids), *self._new_hits()], start, stop)

    def described(self, start: int, stop: int) -> ResultPage:
        """Return how many repositories match only by their description, and some of them in order."""
        if not is_encodable(self.query.part):
            return ResultPage(0, [])
        query = self.query
        hits = described_hits(self.connection, query.part, query.written, self.conditions)
        return _count_and_cut(hits, max(start, 0), max(stop, 0))

    def _by_counts(self, found: Node, start: int, stop: int) -> ResultPage | None:
        """Answer a common query without looking at all hits; None if the page is too deep for that."""
        fresh = [*self._matching(self.pending.unprepared), *self._new_hits()]
        total = found.count(self.query.collections) + len(fresh) + self.pending.gained
        stop = min(total, stop)
        if start >= stop:
            return ResultPage(total, [])
        if stop > DEEPEST_LISTED:
            return None
        # Few of a small collection are on the page: a share of its list is nearly always enough.
        hits = self._best_hits(found, fresh, stop, share=True) or self._best_hits(found, fresh, stop)
        return None if hits is None else ResultPage(total, hits[start:])

    def _by_arrays(self, start: int, stop: int) -> ResultPage:
        """Answer a query that many repositories match."""
        from mirror.search.many import ARRAY_QUERIES, ManyHits  # noqa: PLC0415 - numpy is slow to import

        with ARRAY_QUERIES.held():
            fresh = [*self._matching(self.pending.unprepared), *self._new_hits()]
            many = ManyHits(
                self.connection, self.index, self.rows, self._pending_rows, self.query, fresh, self._few
            )
            return ResultPage(many.count(), many.page(start, stop))

    def _few_candidates(self, found: Node | Leaf) -> set[int] | None:
        """Return the ids of all repositories that may match, without new ones; None if they are not few."""
        listed: set[int] | None
        if isinstance(found, Leaf):
            listed = set(found.ids)
        else:
            number = found.count(self.query.collections)
            listed = self.index.ids_below(self.query.needle) if number <= self._few else None
        pending = None if listed is None else self.pending.ids(self._few)
        if listed is None or pending is None:
            return owned_ids(self.connection, self.conditions, self._few)
        return listed | pending

    def _best_hits(
        self, found: Node, fresh: list[Hit], stop: int, *, share: bool = False
    ) -> list[Hit] | None:
        """Return the best `stop` hits in order; None if the lists of the index are too short to tell.

        For each match class, the best `stop` ids of its path are enough: a hit that ranks above them is of a
        better class, and the path of that class has contributed its own best `stop`. So what a node lists and
        no better class has contributed is of the node's class, or ranks below the page.
        """
        hits = [*fresh, *self.pending.best(stop)]
        known = set[int]()
        cut_at = list[tuple[int, int]]()  # (match class, id): the list of that class ends with that id
        for match, path in self.query.class_paths:
            of_path = found if match == SUBSTRING else self.index.find(path)
            ids, lasts = self._best_ids(of_path, stop, share=share)
            cut_at += [(match, last) for last in lasts]
            new = ids - known
            if isinstance(of_path, Node):
                hits += self.rows.ranked(new, match)
            else:
                hits += self._matching(new)
            known |= ids
            # Pending hits of worse classes do not end the page. The length is quicker to look at.
            if len(hits) >= stop and sum([hit[0] <= match for hit in hits]) >= stop:
                break
        best = sorted(hits)[:stop]
        if not cut_at:
            return best
        popularity = {hit[-1]: hit[1:] for hit in hits}
        # A list that is too short does not matter if the page ends above the last id that it has.
        if any(last not in popularity or best[-1] > (match, *popularity[last]) for match, last in cut_at):
            return None
        return best if len(best) == stop else None

    def _best_ids(self, found: Node | Leaf, limit: int, *, share: bool) -> tuple[set[int], list[int]]:
        """Return the ids of the best `limit` repositories of a path, without pending ones.

        With `share`, return fewer of a collection: its share of the path, and some more. Also return the last
        id of each list that is neither complete nor `limit` long; 0 for an empty list.
        """
        if isinstance(found, Leaf):
            return set(found.ids) - self._pending_rows.among(found.ids), []
        best, lasts = set[int](), list[int]()
        summaries = found.shown(self.query.collections)
        total = sum([summary.count for summary in summaries])
        for summary in summaries:
            ranked, unranked = unpack_best(summary.best)
            pending = self._pending_rows.among([*ranked, *unranked])
            ids = [row_id for row_id in ranked if row_id not in pending]
            if len(ranked) + len(unranked) < summary.count:
                ids = ids[: min(limit, limit * summary.count // total + _MORE) if share else limit]
                if len(ids) < limit:
                    lasts.append(ids[-1] if ids else 0)
            best |= {*ids, *unranked} - pending
        return best, lasts

    def _matching(self, ids: set[int]) -> list[Hit]:
        return self.rows.matching(ids, self.query.part) if ids else []

    def _new_hits(self) -> list[Hit]:
        """Return the hits among the rows that are newer than the index."""
        if not self.index.has_new:
            return []
        return list(new_hits(self.connection, self.query.part, self.conditions, self.index.up_to))


def _count_and_cut(hits: Iterable[Hit], start: int, stop: int) -> ResultPage:
    """Count all hits and return one page of them; no more than `stop` hits are kept in memory."""
    number = count()
    best = heapq.nsmallest(max(stop, 1), (hit for hit, _ in zip(hits, number, strict=False)))
    return ResultPage(next(number), best[start:stop])
