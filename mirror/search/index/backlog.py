"""The backlog: what the index does not contain yet.

It consists of *pending* rows, which the index contains as they were before a change (table `search_pending`),
and of *new* rows, whose id is above `search_state.up_to`.
"""

import sqlite3
from typing import NamedTuple

from mirror.search.index.format import collection_of
from mirror.search.names import Popularity, popularity, searched_text


class IndexedText(NamedTuple):
    """What the index contains of a repository: its searched text and its collection."""

    text: bytes
    collection: int


class IndexChange(NamedTuple):
    """The change that brings the index up to date for one repository.

    `old` is what the index contains now, None if nothing; `new` what it should contain, None if nothing.
    """

    id: int
    old: IndexedText | None
    new: IndexedText | None
    popularity: Popularity


_ROW = "r.name, r.slug, r.is_private, r.deleted_at, r.followers_count, r.forks_count, r.created_at"
_PENDING = f"""SELECT p.id, p.was_name, p.was_slug, p.was_collection, {_ROW}
    FROM search_pending p LEFT JOIN repositories r ON r.id = p.id"""
_NEW = f"""SELECT r.id, NULL, NULL, NULL, {_ROW} FROM repositories r
    WHERE r.id > (SELECT up_to FROM search_state) ORDER BY r.id LIMIT ?"""


def pending_changes(connection: sqlite3.Connection) -> list[IndexChange]:
    """Return the changes of all pending rows."""
    return [_change(*row) for row in connection.execute(f"{_PENDING} ORDER BY p.id")]


def new_rows(connection: sqlite3.Connection, limit: int) -> list[IndexChange]:
    """Return the changes that add new rows, those with the lowest ids first."""
    return [_change(*row) for row in connection.execute(_NEW, (limit,))]


def prepare_pending(connection: sqlite3.Connection) -> None:
    """Make new rows pending and fill the derived columns of all pending rows, so that SQL can count them.

    Call it in a transaction.
    """
    connection.execute(
        """INSERT INTO search_pending (id, name, slug)
           SELECT id, name, slug FROM repositories WHERE id > (SELECT up_to FROM search_state)"""
    )
    connection.execute(
        "UPDATE search_state SET up_to = max(up_to, coalesce((SELECT max(id) FROM repositories), 0))"
    )
    changes = [_change(*row) for row in connection.execute(f"{_PENDING} WHERE p.text IS NULL")]
    connection.executemany(
        """UPDATE search_pending SET was_text = ?, text = ?, collection = ?,
               by_followers = ?, by_forks = ?, by_creation = ? WHERE id = ?""",
        [(*derived_columns(change), change.id) for change in changes],
    )


def derived_columns(change: IndexChange) -> tuple[bytes, bytes, int | None, int, int, bytes]:
    """Return `was_text`, `text`, `collection` and the popularity columns of a pending row.

    A text is empty if the repository is not in the index, or should not be.
    """
    return (
        b"" if change.old is None else change.old.text,
        b"" if change.new is None else change.new.text,
        None if change.new is None else change.new.collection,
        *change.popularity[:3],
    )


def backlog_size(connection: sqlite3.Connection) -> int:
    """Return the number of pending and new rows; unused ids among the new ones count too."""
    row = connection.execute(
        """SELECT (SELECT count(*) FROM search_pending)
            + max(0, coalesce((SELECT max(id) FROM repositories), 0) - (SELECT up_to FROM search_state))"""
    ).fetchone()
    return int(row[0])


def _change(
    row_id: int,
    was_name: str | None,
    was_slug: str | None,
    was_collection: int | None,
    name: str | None,
    slug: str | None,
    is_private: int | None,
    deleted_at: str | None,
    followers: int | None,
    forks: int | None,
    created_at: str | None,
) -> IndexChange:
    """Shape a row of _PENDING or _NEW."""
    old = new = None
    if was_name is not None and was_slug is not None and was_collection is not None:
        old = IndexedText(searched_text(was_name, was_slug), was_collection)
    if name is not None and slug is not None:
        new = IndexedText(searched_text(name, slug), collection_of(is_private, deleted_at))
    return IndexChange(row_id, old, new, popularity(followers, forks, created_at, row_id))
