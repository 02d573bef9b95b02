"""The search itself: takes a query, filters and a page; returns the exact count and ranked ids.

`register` offers it as SQL functions, so that any query can join on it.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Unpack

import msgspec

from mirror.search.engine import QueryEngine, ResultPage
from mirror.search.query import Filters, Query, parse_query


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


def search(
    connection: sqlite3.Connection,
    query: str,
    *,
    limit: int = 20,
    offset: int = 0,
    visible_private: bool = True,
    private_of: Iterable[int] = (),
    fuzzy: bool | None = None,
    **filters: Unpack[Filters],
) -> SearchResult:
    """Find repositories whose name or slug contains `query`, compared in normal form.

    Results are sorted by match (the name is the query, begins with it, contains it), then by followers,
    forks, newest `created_at`, and lowest id.

    :param query: a part of a name; ``owner/part`` searches among the owners that begin with `owner`; the
        empty query matches everything
    :param limit: number of repositories in the page; negative is 0
    :param offset: number of repositories to skip; negative is 0
    :param visible_private: False if the caller may not see private repositories: they are neither
        listed nor counted
    :param private_of: ids of `users` whose private repositories the caller may see nevertheless
    :param fuzzy: True to correct one or two typing errors unless a name is exactly the query, False never to,
        None to correct if nothing matches
    :param filters: what narrows the search, as `Filters` says
    :raises sqlite3.Error: if the file cannot be read
    """
    parsed = parse_query(query, visible_private=visible_private, private_of=tuple(private_of), **filters)
    start, stop = max(offset, 0), max(offset, 0) + max(limit, 0)
    with one_snapshot(connection):
        page, described, corrected = _answer(connection, parsed, start, stop, fuzzy=fuzzy)
        return SearchResult(
            query=query,
            count=page.total,
            fuzzy=bool(corrected),
            corrected=corrected,
            ids=[hit[-1] for hit in page.hits],
            described=described,
        )


def _answer(
    connection: sqlite3.Connection, query: Query, start: int, stop: int, *, fuzzy: bool | None
) -> tuple[ResultPage, int, tuple[str, ...]]:
    """Answer a query as written or corrected.

    Also return how many hits are found by their description alone, and the name that was searched instead,
    if any.
    """
    engine = QueryEngine(connection, query)
    if fuzzy and not engine.has_exact_match():
        corrected = engine.corrected()
        if corrected is not None:
            return corrected.answer(start, stop), 0, (corrected.query.part,)
    page, behind = engine.answer(start, stop), ResultPage(0, [])
    if query.descriptions:
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
        connection.execute("COMMIT")  # not ROLLBACK: a statement that called an SQL function is still reading


MAX_IDS = 10_000
"""The highest number of ids that one call returns."""


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

    def mirror_search(query: str | None, limit: int = 20) -> str:
        most = min(int(limit), MAX_IDS)
        with reading():
            found = search(connection, query or "", limit=most, visible_private=visible_private, fuzzy=False)
        return json.dumps(found.ids)

    def mirror_search_count(query: str | None) -> int:
        with reading():
            found = search(connection, query or "", limit=0, visible_private=visible_private, fuzzy=False)
        return found.count

    connection.create_function("mirror_search", 1, mirror_search)
    connection.create_function("mirror_search", 2, mirror_search)
    connection.create_function("mirror_search_count", 1, mirror_search_count)
