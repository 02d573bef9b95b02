"""The search for refs: takes a query, filters and a page; returns exact counts and the refs of the page.

`register_refs` adds SQL functions, so that any query can join on the results. The index does not know every
filter, and does not contain the latest changes: there, refs are read and compared one by one.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Unpack

import msgspec

from mirror.search.find import limit_of, one_snapshot, text_of
from mirror.search.index.refs.changes import changed_refs
from mirror.search.index.refs.layout import KIND_NAMES, MOST_LISTED, ORDER, TABLES, up_to
from mirror.search.names import EXACT, PREFIX, SUBSTRING
from mirror.search.query import is_encodable, plain_cursor
from mirror.search.refs.query import (
    COMMIT,
    Place,
    RefCondition,
    RefFilters,
    RefHit,
    RefQuery,
    may_be_shown,
    parse_ref_query,
    shown_as_own,
    shown_to_all,
)
from mirror.search.refs.reader import RefIndexReader, SeenNode
from mirror.search.scan import may_contain


class FoundRef(msgspec.Struct, frozen=True):
    """One ref: the id of its repository, "branch" or "tag", and its name."""

    repository: int
    kind: str
    name: str


class RefsResult(msgspec.Struct, frozen=True, kw_only=True):
    """The number of all matching refs, of the repositories that have any, and one page of refs in order."""

    query: str
    count: int
    repositories: int
    refs: list[FoundRef]


def search_refs(
    connection: sqlite3.Connection,
    query: str,
    *,
    limit: int = 20,
    offset: int = 0,
    visible_private: bool = True,
    private_of: Iterable[int] = (),
    **filters: Unpack[RefFilters],
) -> RefsResult:
    """Find branches and tags whose name contains `query`, compared in normal form, or that point to a commit.

    Results are sorted by match (the name is the query, begins with it, contains it; the hash of the commit
    begins with it), then the newest commit first, to the second, then by repository, kind and name.

    :param query: a part of a name, or seven digits and more of a hash; the empty query matches everything
    :param limit: number of refs in the page; negative is 0
    :param offset: number of refs to skip; negative is 0
    :param visible_private: False if the caller may not see what is private: it is neither listed nor counted
    :param private_of: ids of `users` whose private repositories the caller may see nevertheless
    :param filters: those of `RefFilters`
    :raises sqlite3.Error: if the file cannot be read
    """
    start, stop = max(offset, 0), max(offset, 0) + max(limit, 0)
    with one_snapshot(connection):
        parsed = parse_ref_query(
            connection, query, visible_private=visible_private, private_of=tuple(private_of), **filters
        )
        found = _answer(connection, parsed, start, stop) if is_encodable(parsed.part) else RefAnswer(0, 0, [])
    refs = [FoundRef(hit.repository, KIND_NAMES[hit.kind], hit.name) for hit in found.hits]
    return RefsResult(query=query, count=found.refs, repositories=found.repositories, refs=refs)


class RefAnswer(NamedTuple):
    """How many refs match, in how many repositories, and the hits of one page."""

    refs: int
    repositories: int
    hits: Sequence[RefHit]


def _answer(connection: sqlite3.Connection, query: RefQuery, start: int, stop: int) -> RefAnswer:
    if up_to(connection) and query.owners is None:
        return _IndexedAnswer(connection, query).page(start, stop)
    hits = sorted(scanned_hits(connection, query, may_be_shown(query)))
    return RefAnswer(len(hits), len({hit.repository for hit in hits}), hits[start:stop])


class _IndexedAnswer:
    """Answers a query from the index, from changes that it lacks, and from refs that only some may see."""

    def __init__(self, connection: sqlite3.Connection, query: RefQuery) -> None:
        self._query = query
        self._index = RefIndexReader(connection, query)
        lacking = Unindexed(connection, query)
        self._gone = lacking.gone
        self._others = list(lacking.joined)
        self._repositories = lacking.repositories
        if query.private_collections:
            own = list(scanned_hits(connection, query, shown_as_own(query)))
            self._others += own
            self._repositories += len({hit.repository for hit in own})
        if query.commit:
            ids = json.dumps(list(self._index.repositories_at(query.commit) | lacking.pointing))
            sql = f"r.id IN (SELECT value FROM json_each(:at)) AND {shown_to_all(query).sql}"
            found = list(scanned_hits(connection, query, RefCondition(sql, {"at": ids})))
            named = {hit.repository for hit in found if hit.match != COMMIT}
            self._others += [hit for hit in found if hit.match == COMMIT]
            self._repositories += len({hit.repository for hit in found} - named)

    def page(self, start: int, stop: int) -> RefAnswer:
        """Return the counts, and hits `start` to `stop`."""
        found = self._index.at(self._query.worst)
        gone = sum(map(len, self._gone.values()))
        count = self._index.refs(self._query.worst) - gone + len(self._others)
        repositories = found.repositories + self._repositories
        stop = min(stop, count)
        if start >= stop:
            return RefAnswer(count, repositories, [])
        best = self._best(stop) if isinstance(found, SeenNode) else None
        return RefAnswer(count, repositories, self._far(start, stop) if best is None else best[start:stop])

    def _best(self, stop: int) -> list[RefHit] | None:
        """Return the first `stop` hits from the lists of nodes; None if the lists are too short.

        A ref that is missing in the list of a path ranks after the last ref of that list, or is of a better
        class. If it is of a better class, the list of that class contains it, or ends before it too.
        """
        if stop > MOST_LISTED * len(self._classes):  # no lists are that long
            return None
        number = stop + sum(map(len, self._gone.values()))
        hits = set(self._others)
        cut_at = list[tuple[int, int]]()
        for match in self._classes:
            its = self._index.at(match)
            if isinstance(its, SeenNode):
                cut_at += [(match, order) for order in its.cut_at]
                found = self._index.best_hits(its, number)
                hits.update(hit for hit in found if hit[1:] not in self._gone[hit.match])
            else:
                hits.update(self._of_class(match, 0, stop))
            if sum(hit.match <= match for hit in hits) >= stop:
                break
        best = sorted(hits)[:stop]
        if len(best) < stop or any(best[-1][:2] >= cut for cut in cut_at):
            return None
        return best

    def _far(self, start: int, stop: int) -> list[RefHit]:
        """Return hits `start` to `stop`, reading only the match classes in which they are."""
        page, before, counted = list[RefHit](), 0, 0
        for match in self._classes:
            upto = self._index.refs(match)
            joined = sum(hit.match == match for hit in self._others)
            size = upto - counted - len(self._gone[match]) + joined
            low, high = max(start - before, 0), min(stop - before, size)
            if low < high:
                page += self._of_class(match, low, high)
            before, counted = before + size, upto
        pointing = sorted(hit for hit in self._others if hit.match == COMMIT)
        return page + pointing[max(start - before, 0) : max(stop - before, 0)]

    def _of_class(self, match: int, low: int, high: int) -> list[RefHit]:
        """Return hits `low` to `high` of one match class."""
        joined = [hit[1:] for hit in self._others if hit.match == match]
        return [
            RefHit(match, *place) for place in self._index.page(match, self._gone[match], joined, low, high)
        ]

    @property
    def _classes(self) -> list[int]:
        """The match classes of names that the query can have, the best first."""
        if self._query.exact:
            return [EXACT]
        return [EXACT, PREFIX, SUBSTRING] if self._query.part else [SUBSTRING]


def register_refs(
    connection: sqlite3.Connection,
    *,
    visible_private: Callable[[], bool] = lambda: False,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Add three SQL functions to a connection.

    ``mirror_refs(query, limit)`` returns a JSON array of objects with `repository`, `kind` and `name`, in
    order; `limit` is 20 if omitted. ``mirror_refs_count(query)`` returns the number of matching refs,
    ``mirror_refs_repositories(query)`` of the repositories that have any. Example::

        SELECT r.full_name, hit.value ->> 'name' FROM json_each(mirror_refs('hotfix', 20)) AS hit
        JOIN repositories AS r ON r.id = hit.value ->> 'repository' ORDER BY hit.key

    :param visible_private: whether those who run SQL on the connection may read the whole table by now
    :param reading: a context that is entered around each search
    """

    def search(query: Any, limit: int) -> RefsResult:
        with reading():
            return search_refs(connection, text_of(query), limit=limit, visible_private=visible_private())

    def mirror_refs(query: Any, limit: Any = None) -> str:
        return msgspec.json.encode(search(query, limit_of(limit)).refs).decode()

    connection.create_function("mirror_refs", 1, mirror_refs)
    connection.create_function("mirror_refs", 2, mirror_refs)
    connection.create_function("mirror_refs_count", 1, lambda query: search(query, 0).count)
    connection.create_function("mirror_refs_repositories", 1, lambda query: search(query, 0).repositories)


_IS_COMMIT = "(:commit <> '' AND substr(lower(t.target_hash), 1, length(:commit)) = :commit)"
_ORDER = ORDER.format(date="t.target_date", repository="t.repository_id")


def scanned_hits(connection: sqlite3.Connection, query: RefQuery, which: RefCondition) -> Iterator[RefHit]:
    """Yield the matching refs of the repositories that meet a condition, in no particular order."""
    values = which.values | {"part": query.part, "commit": query.commit}
    for kind in query.kinds:
        rows = plain_cursor(connection).execute(
            f"""SELECT t.name, {_ORDER}, t.target_hash FROM repositories r
                CROSS JOIN {TABLES[kind]} t ON t.repository_id = r.id
                WHERE {which.sql} AND ({may_contain("t.name")} OR {_IS_COMMIT})""",
            values,
        )
        for name, order, target in rows:
            match = query.match(name)
            if match is not None:
                yield RefHit(match, order, kind, name)
            elif query.is_commit(target):
                yield RefHit(COMMIT, order, kind, name)


class Unindexed:
    """The matches that changed since the index was updated.

    - `gone`: by match class, the places of refs that the index has, but that are deleted or elsewhere now.
    - `joined`: refs that the index lacks, or has elsewhere.
    - `repositories`: how many more repositories have a match.
    - `pointing`: repositories that may have a ref at the wanted commit.
    """

    def __init__(self, connection: sqlite3.Connection, query: RefQuery) -> None:
        self.gone = defaultdict[int, set[Place]](set)
        self.joined = list[RefHit]()
        self.pointing = set[int]()
        before, after = set[int](), set[int]()
        which = "1" if query.commit else may_contain("{row}.name")
        lists = set(query.lists)
        for repository, kind, name, was, now in changed_refs(connection, which, {"part": query.part}):
            match = query.match(name)
            if query.commit and now is not None and query.may_be_commit(now.hash):
                self.pointing.add(repository)
            if match is not None and was is not None and was.list in lists:
                self.gone[match].add((was.order, kind, name))
                before.add(repository)
            if match is not None and now is not None and now.list in lists:
                self.joined.append(RefHit(match, now.order, kind, name))
                after.add(repository)
        others = _with_other_matches(connection, query, before ^ after) if before ^ after else set[int]()
        self.repositories = len(after - before - others) - len(before - after - others)


_UNCHANGED = """SELECT t.repository_id, t.name FROM {table} t
    WHERE t.repository_id IN (SELECT value FROM json_each(:ids)) AND {may_contain}
        AND t.repository_id <= (SELECT up_to FROM search_ref_state)
        AND t.repository_id NOT IN (SELECT repository_id FROM search_ref_moved)
        AND NOT EXISTS (SELECT 1 FROM search_ref_pending p
            WHERE p.repository_id = t.repository_id AND p.kind = {kind} AND p.name = t.name)"""


def _with_other_matches(connection: sqlite3.Connection, query: RefQuery, ids: Iterable[int]) -> set[int]:
    """Return which of these repositories have another match, one that the index has unchanged."""
    values = {"ids": json.dumps(list(ids)), "part": query.part}
    found = set[int]()
    for kind in query.kinds:
        sql = _UNCHANGED.format(table=TABLES[kind], kind=kind, may_contain=may_contain("t.name"))
        rows = plain_cursor(connection).execute(sql, values)
        found.update(repository for repository, name in rows if query.match(name) is not None)
    return found
