"""A cache that is valid until the file changes: counts, owners of repositories, encoded repositories.

`PRAGMA data_version` shows whether another connection has written, so nothing here is older than the file.
Connections belong to threads, so each thread has a cache of its own.
"""

import sqlite3
import threading
from typing import Any

import msgspec

from mirror.store.schema import snapshot_moment

MOST_COUNTS = 200
MOST_ACCOUNTS = 5000
MOST_ENCODED = 2000
"""Repositories that are kept as JSON of about 2 KB."""


class FileState(msgspec.Struct):
    """One state of a file, as one connection sees it."""

    connection: sqlite3.Connection
    version: int
    counts: dict[tuple[str, str], int] = {}
    accounts: dict[int, Any] = {}
    upstreams: dict[int, Any] = {}
    encoded: dict[tuple[Any, int], Any] = {}
    has_extras: bool | None = None
    published_at: str | msgspec.UnsetType | None = msgspec.UNSET


class _Memory(threading.local):
    state: FileState | None = None


_memory = _Memory()


def file_state(connection: sqlite3.Connection) -> FileState:
    """Return the cache for the present state of the file; an empty one if the file changed or it is full."""
    cursor = connection.cursor()
    cursor.row_factory = None
    (version,) = cursor.execute("PRAGMA data_version").fetchone()
    known = _memory.state
    if (
        known is None
        or known.connection is not connection
        or known.version != version
        or len(known.counts) > MOST_COUNTS
        or len(known.accounts) > MOST_ACCOUNTS
    ):
        known = _memory.state = FileState(connection, version)
    return known


def encoded_in(connection: sqlite3.Connection) -> dict[tuple[Any, int], Any]:
    """Return what is kept of encoded repositories, by all that it depends on and the number of a row."""
    known = file_state(connection).encoded
    if len(known) > MOST_ENCODED:
        known.clear()
    return known


def published_at(connection: sqlite3.Connection) -> str | None:
    """Return `mirror.store.schema.snapshot_moment` of the file, which is asked for with each answer."""
    state = file_state(connection)
    if state.published_at is msgspec.UNSET:
        state.published_at = snapshot_moment(connection)
    return state.published_at
