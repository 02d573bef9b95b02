"""Run one SQL statement, as restricted as the served SQL: read-only, limited in time, rows and size."""

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mirror.errors import ConfigError
from mirror.queries.past import register_past
from mirror.queries.visibility import Caller, hides
from mirror.search import register
from mirror.search.find import one_snapshot
from mirror.search.refs.find import register_refs
from mirror.serve.sql_access import STRANGERS, Reach, restrict, sees_history, suits
from mirror.serve.sql_limits import BoundedConnection
from mirror.store.files import open_reader
from mirror.store.paths import reading_address

SECONDS = 2.0  # the time limit of a statement

LONGEST_CELL = 300  # characters of a value
MOST_CHARACTERS = 50_000  # the largest size of an answer, so that it leaves room in a model's context

_STEPS = 1_000  # steps of SQLite between two looks at the clock
_BUSY_SECONDS = 5
_OWN_FUNCTIONS = (
    "mirror_search", "mirror_search_count", "mirror_refs", "mirror_refs_count", "mirror_refs_repositories",
    "mirror_refs_at", "mirror_repository_at",
)  # fmt: skip
# Only one way to read a comment: otherwise many without a statement would backtrack exponentially.
_READS = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(?:select|with|values|explain)\b", re.IGNORECASE
)


class Rows(msgspec.Struct, frozen=True):
    """The result of a statement; `more` says that it was cut."""

    columns: list[str]
    rows: list[list[Any]]
    more: bool


def ask(
    path: Path, caller: Caller, sql: str, *, limit: int, clock: Callable[[], float] = time.monotonic
) -> Rows:
    """Run a statement that only reads; raises ConfigError for any other, and for one that fails.

    If the file has any row that the caller may not see, all SQL is refused, since it cannot be filtered by
    row. `limit` is the number of rows. Raises StoreError if the file cannot be read.
    """
    if not _READS.match(sql):
        raise ConfigError("only one SELECT is allowed; this tool never writes to the mirror")
    open_reader(path).close()  # reports a file that is no mirror of this version

    def answer(connection: BoundedConnection, reach: Reach) -> Rows | None:
        with one_snapshot(connection):
            _refuse_hidden(connection, caller)
            if not suits(connection, reach):
                return None
            until = clock() + SECONDS
            connection.set_progress_handler(lambda: clock() > until, _STEPS)
            return _rows_within(connection.execute(sql), limit)

    for reach in [Reach.EVERYTHING] if caller.sees_all else STRANGERS:
        with closing(_guarded_connection(path, reach)) as connection:
            try:
                rows = answer(connection, reach)
            except sqlite3.Error as error:
                raise ConfigError(_error_text(error)) from error
        if rows is not None:
            return rows
    raise AssertionError("the last reach suits every file")


def _guarded_connection(path: Path, reach: Reach) -> BoundedConnection:
    connection = sqlite3.connect(
        reading_address(path), uri=True, timeout=_BUSY_SECONDS, factory=BoundedConnection
    )
    seen = partial(sees_history, connection)
    register(connection, visible_private=True, reading=connection.trusted)
    register_refs(connection, visible_private=seen, reading=connection.trusted)
    register_past(connection, sees_all=seen, reading=connection.trusted)
    restrict(connection, reach, _OWN_FUNCTIONS)
    return connection


def _refuse_hidden(connection: BoundedConnection, caller: Caller) -> None:
    with connection.trusted():
        if hides(connection, caller):
            raise ConfigError(
                "not all of this mirror is known to be public, so its SQL is closed here; use the other"
                " tools, or serve a file that `mirror publish` made"
            )


def _rows_within(cursor: sqlite3.Cursor, limit: int) -> Rows:
    columns = [column[0] for column in cursor.description or ()]
    rows, size, more = list[list[Any]](), 0, False
    for row in cursor:
        cells = [_cell(value) for value in row]
        size += sum(len(str(cell)) for cell in cells)
        more = len(rows) == limit or size > MOST_CHARACTERS
        if more:
            break
        rows.append(cells)
    return Rows(columns, rows, more)


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, float) and not -1e300 < value < 1e300:  # JSON has neither Infinity nor NaN
        return str(value)
    if isinstance(value, str) and len(value) > LONGEST_CELL:
        return value[: LONGEST_CELL - 1] + "…"
    return value


def _error_text(error: sqlite3.Error) -> str:
    message = str(error)
    if message == "interrupted":
        return f"the statement took longer than {SECONDS:g} s or too much memory; narrow it down"
    if "prohibited" in message or "not authorized" in message:
        return f"{message}: the statement reads what is not shown, or calls what is not allowed"
    return f"SQLite says: {message}"
