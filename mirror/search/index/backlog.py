"""What the index does not know yet: pending rows with what they were, and rows behind the last it knows."""

import sqlite3
from typing import NamedTuple

from mirror.search.index.format import collection_of
from mirror.search.names import Popularity, popularity, searched_text


class Place(NamedTuple):
    """What the index holds of a repository: its text, and in which collection it counts."""

    text: bytes
    collection: int


class Move(NamedTuple):
    """One repository from where the index has it to where it belongs; None is nowhere."""

    id: int
    was: Place | None
    now: Place | None
    popularity: Popularity


_ROW = "r.name, r.slug, r.is_private, r.deleted_at, r.followers_count, r.forks_count, r.created_at"
_PENDING = f"""SELECT p.id, p.was_name, p.was_slug, p.was_collection, {_ROW}
    FROM search_pending p LEFT JOIN repositories r ON r.id = p.id"""
_LATER = f"""SELECT r.id, NULL, NULL, NULL, {_ROW} FROM repositories r
    WHERE r.id > (SELECT up_to FROM search_state) ORDER BY r.id LIMIT ?"""


def pending(connection: sqlite3.Connection) -> list[Move]:
    """Read what has changed since the index learnt of it."""
    return [_move(*row) for row in connection.execute(f"{_PENDING} ORDER BY p.id")]


def later(connection: sqlite3.Connection, limit: int) -> list[Move]:
    """Read the first rows that the index has not seen at all."""
    return [_move(*row) for row in connection.execute(_LATER, (limit,))]


def note(connection: sqlite3.Connection) -> None:
    """Let a search count at once what is not known: new rows become pending, all are noted as they are."""
    connection.execute(
        """INSERT INTO search_pending (id, name, slug)
           SELECT id, name, slug FROM repositories WHERE id > (SELECT up_to FROM search_state)"""
    )
    connection.execute(
        "UPDATE search_state SET up_to = max(up_to, coalesce((SELECT max(id) FROM repositories), 0))"
    )
    moves = [_move(*row) for row in connection.execute(f"{_PENDING} WHERE p.text IS NULL")]
    connection.executemany(
        """UPDATE search_pending SET was_text = ?, text = ?, collection = ?,
               by_followers = ?, by_forks = ?, by_creation = ? WHERE id = ?""",
        [(*noted(move), move.id) for move in moves],
    )


def noted(move: Move) -> tuple[bytes, bytes, int | None, int, int, bytes]:
    """Return what is noted of a move: both texts, none as an empty one, then as what the row counts now."""
    return (
        b"" if move.was is None else move.was.text,
        b"" if move.now is None else move.now.text,
        None if move.now is None else move.now.collection,
        *move.popularity[:3],
    )


def backlog(connection: sqlite3.Connection) -> int:
    """Count what the index does not know yet; ids that were never given count too."""
    row = connection.execute(
        """SELECT (SELECT count(*) FROM search_pending)
            + max(0, coalesce((SELECT max(id) FROM repositories), 0) - (SELECT up_to FROM search_state))"""
    ).fetchone()
    return int(row[0])


def _move(
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
) -> Move:
    """Shape one row of either query."""
    was = now = None
    if was_name is not None and was_slug is not None and was_collection is not None:
        was = Place(searched_text(was_name, was_slug), was_collection)
    if name is not None and slug is not None:
        now = Place(searched_text(name, slug), collection_of(is_private, deleted_at))
    return Move(row_id, was, now, popularity(followers, forks, created_at, row_id))
