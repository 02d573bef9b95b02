"""Tables that no SQL of a visitor may read: who holds tokens, and who wrote what.

A mirror without private rows lets anybody run SQL, so the tables are closed where SQLite itself asks for
leave, column by column, on every connection that visitors' SQL runs on: what they hold reads as NULL. It is
no error, because Datasette's page of a row counts the rows of every table that refers to it, these too.

This program's own look-ups open them for the thread and the moment they run in, and carry `OURS`: a prepared
statement is kept by its text, and nobody else's text may find ours, or have been there before it.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CLOSED = frozenset({"api_tokens", "writes", "webhook_deliveries"})

OURS = f"/* {secrets.token_hex(16)} */"
"""A comment that makes a statement of this process unlike any that a visitor could write."""

_own = threading.local()


def close_tables(connection: sqlite3.Connection) -> None:
    """Let the closed tables read as NULL on a connection, but for reads inside `opened`."""
    connection.set_authorizer(_authorize)


@contextmanager
def opened() -> Iterator[None]:
    """Let this thread read the closed tables."""
    _own.reads = True
    try:
        yield
    finally:
        _own.reads = False


def _authorize(action: int, table: str | None, *_: str | None) -> int:
    closed = action == sqlite3.SQLITE_READ and str(table).lower() in CLOSED
    return sqlite3.SQLITE_IGNORE if closed and not getattr(_own, "reads", False) else sqlite3.SQLITE_OK
