"""The search itself: a query, filters and a page in; the exact count and the ranked rows out."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from mirror.search.engine import Answer, Question
from mirror.search.query import Request, request_of

COLUMNS = (
    "id", "owner", "slug", "name", "full_name", "scm", "is_private", "description", "website", "language",
    "followers_count", "forks_count", "created_at", "updated_at", "deleted_at",
)  # fmt: skip
"""What each row of an answer holds; `owner` is the username, the rest are columns of `repositories`."""

_TOLD = {
    "owner": "u.username",
    "forks_count": """iif(r.forks_count > 0 AND NOT :all, max(0, r.forks_count -
        (SELECT count(*) FROM repositories f
         WHERE f.parent_id = r.id AND f.deleted_at IS NULL AND f.is_private = 1
            AND f.owner_id NOT IN (SELECT value FROM json_each(:private_of)))), r.forks_count)""",
}
_ROWS = f"""SELECT {", ".join(_TOLD.get(column, f"r.{column}") for column in COLUMNS)}
    FROM json_each(:ids) AS wanted JOIN repositories r ON r.id = wanted.value
    JOIN users u ON u.id = r.owner_id
    ORDER BY wanted.key"""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: how many repositories match in all, and one page of them, the best first.

    `fuzzy` says that the query was corrected, because nothing matched it as written or because that was
    wished; `corrected` holds the names that were searched in its place. `repositories` map COLUMNS to values.
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
) -> Found:
    """Find repositories whose name or slug contains `query`; raises sqlite3.Error.

    Both sides are compared in the form of `mirror.search.names.normalise`. ``owner/part`` looks for `part`
    among the owners that begin with `owner`; an empty query lists everything. Exact names come first, then
    those that begin with the query, then the rest; each the most followed first, then the most forked, then
    the newest (by creation), then the first in the file. `limit` and `offset` count repositories.

    `owner` is one owner's whole username. `private`, `forks` and `gone` filter: None, for the first two,
    takes both; `gone` adds what has disappeared upstream. Without `visible_private` private repositories
    are neither listed nor counted, among the forks of others neither, but for those of the owners
    `private_of`, rows of `users`. `fuzzy` corrects one or two typing
    errors: True always, False never, None when nothing matches as written.
    """
    request = request_of(
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
        answer, corrected = _answer(connection, request, start, stop, fuzzy=fuzzy)
        return Found(
            query=query,
            count=answer.total,
            fuzzy=bool(corrected),
            corrected=corrected,
            repositories=_rows_of(connection, [hit[-1] for hit in answer.page], request),
        )


def _answer(
    connection: sqlite3.Connection, request: Request, start: int, stop: int, *, fuzzy: bool | None
) -> tuple[Answer, tuple[str, ...]]:
    """Answer a question as it is written or corrected; returns the names that took the query's place."""
    question = Question(connection, request)
    if fuzzy and not question.names_one_exactly():
        corrected = question.corrected()
        if corrected is not None:
            return corrected.answer(start, stop), (corrected.request.part,)
    answer = question.answer(start, stop)
    if fuzzy is None and not answer.total:
        corrected = question.corrected()
        if corrected is not None:
            return corrected.answer(start, stop), (corrected.request.part,)
    return answer, ()


def _rows_of(connection: sqlite3.Connection, ids: list[int], request: Request) -> list[dict[str, Any]]:
    """Read the rows of a page in the order of their ids; private forks count where they may be seen."""
    cursor = connection.cursor()
    cursor.row_factory = None
    values = {
        "ids": json.dumps(ids),
        "all": request.visible_private,
        "private_of": json.dumps(request.private_of),
    }
    found = cursor.execute(_ROWS, values)
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


@contextmanager
def one_snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let all reads inside see one state of the file, also while a sync writes."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")  # not ROLLBACK: a statement that called an SQL function goes on reading
