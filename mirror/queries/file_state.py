"""The cache of what is read of a file again and again: counts, accounts, upstreams, encoded repositories.

A `FileState` belongs to one connection, and is valid until the file changes.
"""

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from mirror.store.files import snapshot_moment
from mirror.store.rows import fetch_value

if TYPE_CHECKING:
    from mirror.queries.rows import RepositoryRow
    from mirror.search.scan import KeptReads

MOST_COUNTS = 200
MOST_ACCOUNTS = 5000
MOST_KEPT = 2000
"""The most repositories that are kept as rows, and as JSON, of about 2 KB each."""


class FileState(msgspec.Struct):
    """One state of a file, as one connection sees it."""

    connection: sqlite3.Connection
    version: tuple[int, int]
    counts: dict[tuple[str, str], int] = {}
    accounts: dict[int, Any] = {}
    upstreams: dict[int, Any] = {}
    repositories: dict[Any, dict[int, Any]] = {}
    encoded: dict[Any, dict[int, Any]] = {}
    searched: "KeptReads | None" = None
    has_extras: bool | None = None
    awaits_listing: bool | None = None
    in_first_listing: frozenset[int] | None = None
    published_at: str | msgspec.UnsetType | None = msgspec.UNSET


class _Memory(threading.local):  # as connections belong to threads
    state: FileState | None = None


_memory = _Memory()


def file_state(connection: sqlite3.Connection) -> FileState:
    """Return the cache for the present state of the file; an empty one if the file changed or it is full."""
    # What others commit changes the first number, what this connection writes the second one.
    version = (fetch_value(connection, "PRAGMA data_version"), connection.total_changes)
    if connection.total_changes and connection.in_transaction:
        return FileState(connection, version)  # what was written may be taken back
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


def kept_repositories(connection: sqlite3.Connection, *, sees_all: bool) -> "dict[int, RepositoryRow]":
    """Return the repositories that are kept, by row id, as strangers see them or who sees everything."""
    return _kept(file_state(connection).repositories, sees_all)


def encoded_in(connection: sqlite3.Connection, key: Any) -> dict[int, Any]:
    """Return the encoded repositories that are kept, by row id; `key` is what their encoding depends on."""
    return _kept(file_state(connection).encoded, key)


def _kept(known: dict[Any, dict[int, Any]], key: Any) -> dict[int, Any]:
    if sum(map(len, known.values())) > MOST_KEPT:
        known.clear()
    return known.setdefault(key, {})


def published_at(connection: sqlite3.Connection) -> str | None:
    """Return `mirror.store.files.snapshot_moment` of the file, cached since each answer needs it."""
    state = file_state(connection)
    if state.published_at is msgspec.UNSET:
        state.published_at = snapshot_moment(connection)
    return state.published_at
