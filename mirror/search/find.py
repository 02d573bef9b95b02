"""The search itself: takes a query, filters and a page; returns the exact count and the ranked rows."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from mirror.search.engine import QueryEngine, ResultPage
from mirror.search.query import Query, parse_query, plain_cursor

COLUMNS = (
    "id", "owner", "slug", "name", "full_name", "scm", "is_private", "description", "website", "language",
    "followers_count", "forks_count", "created_at", "updated_at", "deleted_at",
)  # fmt: skip
"""The columns of each result. `owner` is the username, the others are columns of `repositories`."""

_EXPRESSIONS = {
    "owner": "u.username",
    # Private forks that the caller may not see are not counted.
    "forks_count": """iif(r.forks_count > 0 AND NOT :all, max(0, r.forks_count -
        (SELECT count(*) FROM repositories f
         WHERE f.parent_id = r.id AND f.deleted_at IS NULL AND f.is_private = 1
            AND f.owner_id NOT IN (SELECT value FROM json_each(:private_of)))), r.forks_count)""",
}
_ROWS = f"""SELECT {", ".join(_EXPRESSIONS.get(column, f"r.{column}") for column in COLUMNS)}
    FROM json_each(:ids) AS wanted JOIN repositories r ON r.id = wanted.value
    JOIN users u ON u.id = r.owner_id
    ORDER BY wanted.key"""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The number of all matches, and one page of them, the best first.

    `fuzzy` is True if the query was corrected; `corrected` then holds the name that was searched instead.
    Each of `repositories` maps COLUMNS to values.
    """

    query: str
    count: int
    fuzzy: bool
    corrected: tuple[str, ...]
    repositories: list[dict[str, Any]]


def search(
    connection: sqlite3.Connection,
    query: str,
    *,
    limit: int = 20,
    offset: int = 0,
    owner: str | None = None,
    scm: str | None = None,
    language: str | None = None,
    private: bool | None = None,
    visible_private: bool = True,
    private_of: Iterable[int] = (),
    forks: bool | None = None,
    gone: bool = False,
    fuzzy: bool | None = None,
) -> SearchResult:
    """Find repositories whose name or slug contains `query`, compared in normal form.

    Results are sorted by match (the name is the query, begins with it, contains it), then by followers,
    forks, newest `created_at`, and lowest id.

    :param query: a part of a name; ``owner/part`` searches among the owners that begin with `owner`; the
        empty query matches everything
    :param limit: number of repositories in the page; negative is 0
    :param offset: number of repositories to skip; negative is 0
    :param owner: only this owner, by whole username in any case
    :param scm: only this scm, such as ``"git"``, in any case
    :param language: only this language, in any case
    :param private: True for private repositories only, False for public ones only, None for both
    :param visible_private: False if the caller may not see private repositories: they are neither listed nor
        counted, also not in the `forks_count` of others
    :param private_of: ids of `users` whose private repositories the caller may see nevertheless
    :param forks: True for forks only, False for others only, None for both
    :param gone: True to include repositories that have disappeared upstream
    :param fuzzy: True to correct one or two typing errors unless a name is exactly the query, False never to,
        None to correct if nothing matches
    :raises sqlite3.Error: if the file cannot be read
    """
    parsed = parse_query(
        query,
        owner=owner,
        scm=scm,
        language=language,
        private=private,
        visible_private=visible_private,
        private_of=tuple(private_of),
        forks=forks,
        gone=gone,
    )
    start, stop = max(offset, 0), max(offset, 0) + max(limit, 0)
    with one_snapshot(connection):
        page, corrected = _answer(connection, parsed, start, stop, fuzzy=fuzzy)
        return SearchResult(
            query=query,
            count=page.total,
            fuzzy=bool(corrected),
            corrected=corrected,
            repositories=_read_rows(connection, [hit[-1] for hit in page.hits], parsed),
        )


def _answer(
    connection: sqlite3.Connection, query: Query, start: int, stop: int, *, fuzzy: bool | None
) -> tuple[ResultPage, tuple[str, ...]]:
    """Answer a query as written or corrected; also return the name that was searched instead, if any."""
    engine = QueryEngine(connection, query)
    if fuzzy and not engine.has_exact_match():
        corrected = engine.corrected()
        if corrected is not None:
            return corrected.answer(start, stop), (corrected.query.part,)
    page = engine.answer(start, stop)
    if fuzzy is None and not page.total:
        corrected = engine.corrected()
        if corrected is not None:
            return corrected.answer(start, stop), (corrected.query.part,)
    return page, ()


def _read_rows(connection: sqlite3.Connection, ids: list[int], query: Query) -> list[dict[str, Any]]:
    """Read the rows of a page in the order of `ids`."""
    values = {
        "ids": json.dumps(ids),
        "all": query.visible_private,
        "private_of": json.dumps(query.private_of),
    }
    found = plain_cursor(connection).execute(_ROWS, values)
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


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
        connection.execute("COMMIT")  # not ROLLBACK: a statement that called an SQL function goes on reading
