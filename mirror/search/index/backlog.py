"""The backlog: what the index does not contain yet, and when it is flushed.

It consists of *pending* rows, which the index contains as they were before a change (table `search_pending`),
and of *new* rows, whose id is above `search_state.up_to`. A page of a sync flushes a long backlog, the end
of a sync any.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mirror.search.index.format import LEAF_SIZE
from mirror.search.names import collection_of, popularity, searched_texts
from mirror.search.query import plain_cursor


class IndexedText(NamedTuple):
    """The searched text and the collection of a repository in the index."""

    text: bytes
    collection: int


_ROW = "r.name, r.slug, r.is_private, r.deleted_at, r.followers_count, r.forks_count, r.created_at"
_PENDING = f"""SELECT p.id, p.was_name, p.was_slug, {_ROW}
    FROM search_pending p LEFT JOIN repositories r ON r.id = p.id"""
_PREPARED = """SELECT id, was_text, was_collection, text, collection, -by_followers FROM search_pending
    ORDER BY id"""


class PreparedRows(NamedTuple):
    """The pending rows, all prepared, by id: a list of each column of `search_pending`.

    `was_texts` and `was_collections` are what the index contains, the others what it should contain; a text
    is empty if that is nothing.
    """

    ids: Sequence[int]
    was_texts: Sequence[bytes]
    was_collections: Sequence[int | None]
    texts: Sequence[bytes]
    collections: Sequence[int | None]
    followers: Sequence[int]


Derived = tuple[bytes, bytes, int | None, int, int, bytes, int]
"""The derived columns of a pending row: `was_text`, `text`, `collection`, popularity with its id.

A text is empty if the repository is not in the index, or should not be.
"""


def derived_columns(connection: sqlite3.Connection) -> list[Derived]:
    """Return the derived columns of all pending rows, made from the rows."""
    return _derived(connection.execute(f"{_PENDING} ORDER BY p.id"))


def prepare_pending(connection: sqlite3.Connection, most_new: int = -1) -> None:
    """Make new rows pending and fill the derived columns of all pending rows, so that SQL can count them.

    Call it in a transaction. `most_new` is how many new rows, those with the lowest ids; negative for all.
    """
    added = connection.execute(
        """INSERT INTO search_pending (id, name, slug) SELECT id, name, slug FROM repositories
           WHERE id > (SELECT up_to FROM search_state) ORDER BY id LIMIT ?""",
        (most_new,),
    ).rowcount
    last = "search_pending" if added == most_new else "repositories"
    connection.execute(
        f"UPDATE search_state SET up_to = max(up_to, coalesce((SELECT max(id) FROM {last}), 0))"
    )
    connection.executemany(
        """UPDATE search_pending SET was_text = ?, text = ?, collection = ?,
               by_followers = ?, by_forks = ?, by_creation = ? WHERE id = ?""",
        _derived(connection.execute(f"{_PENDING} WHERE p.text IS NULL")),
    )


# Damage may have taken the row of the state: searches tell so, and `verify --repair` mends it.
_SIZE = """SELECT (SELECT count(*) FROM search_pending)
    + max(0, coalesce((SELECT max(id) FROM repositories), 0) - coalesce(max(up_to), 0)) FROM search_state"""


def backlog_size(connection: sqlite3.Connection) -> int:
    """Return the number of pending and new rows; unused ids among the new ones count too."""
    row = connection.execute(_SIZE).fetchone()
    return int(row[0])


def _derived(found: Iterable[Sequence[Any]]) -> list[Derived]:
    """Shape rows of _PENDING. Their texts are made together, which is faster."""
    rows = list(found)
    was_texts = searched_texts([row[1] or "" for row in rows], [row[2] or "" for row in rows])
    texts = searched_texts([row[3] or "" for row in rows], [row[4] or "" for row in rows])
    return [
        (
            b"" if was_name is None else was_text,
            b"" if name is None else text,
            None if name is None else collection_of(private, deleted),
            *popularity(followers, forks, created, row_id),
        )
        for (
            row_id,
            was_name,
            _,
            name,
            _,
            private,
            deleted,
            followers,
            forks,
            created,
        ), was_text, text in zip(rows, was_texts, texts, strict=True)
    ]


FLUSH_FROM = 10_000
"""During a sync, apply the backlog once it is this long. A shorter one costs a search 6 ms at most."""

REBUILD_FROM = 5_000
REBUILD_SHARE = 15
"""Rebuild rather than update if the backlog exceeds REBUILD_FROM and 1/REBUILD_SHARE of the indexed rows."""

BATCH_SIZE = 10_000
"""How many new rows one update adds."""


def update_after_page(connection: sqlite3.Connection) -> None:
    """Prepare the rows that a page of a sync changed, or apply the backlog once it is long.

    Call it in the transaction of the page. While a file grows to a multiple of its size, the index is rebuilt
    only when the backlog equals the indexed size: all rebuilds together cost at most twice the last.
    """
    size = backlog_size(connection)
    if not size:
        return
    indexed = _highest_id(connection) - size
    if size < FLUSH_FROM:
        prepare_pending(connection)
    elif not indexed // 10 < size < indexed:
        flush_step(connection)


def flush_step(connection: sqlite3.Connection) -> bool:
    """Apply a part of the backlog; return whether there was any. Call it until it returns False.

    Each call belongs in a transaction of its own.
    """
    size = backlog_size(connection)
    if not size:
        return False
    indexed = _highest_id(connection) - size
    if size > max(REBUILD_FROM, indexed // REBUILD_SHARE):
        rebuild_index(connection)
    else:
        apply_backlog(connection)
    return True


def rebuild_index(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Rebuild the index from the rows; call it in a transaction. `leaf_size` is for tests."""
    from mirror.search.index.build import build_index  # noqa: PLC0415 - numpy is slow to import

    build_index(connection, leaf_size)


def apply_backlog(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Apply all pending changes and add the first BATCH_SIZE new rows. `leaf_size` is for tests."""
    from mirror.search.index.columns import update_columns  # noqa: PLC0415
    from mirror.search.index.update import apply_changes  # noqa: PLC0415

    prepare_pending(connection, BATCH_SIZE)
    rows = plain_cursor(connection).execute(_PREPARED).fetchall()
    if rows:
        changed = PreparedRows(*zip(*rows, strict=True))
        apply_changes(connection, changed, leaf_size)
        update_columns(connection, changed)
        connection.execute("DELETE FROM search_pending")
    # The last rows may be gone, and SQLite may give their ids to others.
    connection.execute("UPDATE search_state SET up_to = min(up_to, ?)", (_highest_id(connection),))


def _highest_id(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()
    return int(row[0])
