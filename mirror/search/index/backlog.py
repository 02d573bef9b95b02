"""The backlog: what the index does not contain yet, and when it is flushed.

It consists of *pending* rows, which the index contains as they were before a change (table `search_pending`),
and of *new* rows, whose id is above `search_state.up_to`. A page of a sync writes both into a *segment*,
which is searched beside the index. Only a long backlog is flushed, since that takes much longer.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, takewhile
from typing import NamedTuple

from mirror.search.index.format import (
    COLLECTION,
    LEAF_SIZE,
    MOST_COUNTED,
    MOST_LANGUAGES,
    UNSURE,
    VALUES,
    time_number,
)
from mirror.search.names import searched_texts
from mirror.search.query import plain_cursor
from mirror.search.segments import PendingRow, digest_of, net, pack_segment, read_segment, rows_of


class IndexedText(NamedTuple):
    """The searched text and the collection of a repository in the index."""

    text: bytes
    collection: int


class PreparedRows(NamedTuple):
    """All pending rows, by id, as a list of each field of `PendingRow`.

    `was_texts` and `was_collections` are what the index contains, the others what it should contain; a text
    is empty if that is nothing.
    """

    ids: Sequence[int]
    was_texts: Sequence[bytes]
    was_collections: Sequence[int]
    texts: Sequence[bytes]
    collections: Sequence[int]
    followers: Sequence[int]
    forks: Sequence[int]
    created: Sequence[int]
    flags: Sequence[int]
    languages: Sequence[int]
    owners: Sequence[int]


_ADD_NEW = """INSERT INTO search_pending (id) SELECT id FROM repositories
    WHERE id > (SELECT up_to FROM search_state) ORDER BY id LIMIT ?"""

_LEARN_LANGUAGES = """INSERT OR IGNORE INTO search_languages (language)
    SELECT language FROM search_pending JOIN repositories USING (id)
    WHERE turn IS NULL AND language IS NOT NULL ORDER BY id"""

_ROWS = f"""SELECT p.id, p.was_name, p.was_slug, p.was_collection, r.name, r.slug,
        (SELECT code FROM search_languages l WHERE l.language = r.language), {", ".join(VALUES[1:])}
    FROM search_pending p LEFT JOIN repositories r ON r.id = p.id"""

_SET_TURN = """UPDATE search_pending
    SET turn = ?, was_name = NULL, was_slug = NULL, was_collection = NULL, name = NULL, slug = NULL
    WHERE turn IS NULL AND id NOT IN (SELECT value FROM json_each(?))"""


def prepare_pending(connection: sqlite3.Connection, most_new: int = -1, least: int = 1) -> None:
    """Make new rows pending, and write a segment of all rows that are in none, if these are `least` or more.

    Call it in a transaction. `most_new` is how many new rows, those with the lowest ids; negative for all.
    Rows that are gone stay unprepared, because the next row may get their id; so do rows with a value that
    no segment can hold. Searches read these one by one.
    """
    added = connection.execute(_ADD_NEW, (most_new,)).rowcount
    last = "search_pending" if added == most_new else "repositories"
    connection.execute(
        f"UPDATE search_state SET up_to = max(up_to, coalesce((SELECT max(id) FROM {last}), 0))"
    )
    connection.execute(_LEARN_LANGUAGES)
    rows, unfit = unprepared_rows(connection)
    if len(rows) >= least:
        (turn,) = connection.execute("SELECT coalesce(max(last_turn), 0) + 1 FROM search_segments").fetchone()
        connection.execute(_SET_TURN, (turn, json.dumps([row.id for row in unfit])))
        _write_segment(connection, turn, turn, rows)
        _merge_segments(connection)


class ReadRows(NamedTuple):
    """Pending rows, by id: those that a segment can hold, and others."""

    fit: list[PendingRow]
    unfit: list[PendingRow]


def unprepared_rows(connection: sqlite3.Connection) -> ReadRows:
    """Return the pending rows that are in no segment, as they are now."""
    return _read_rows(connection, "p.turn IS NULL")


def prepared_rows(connection: sqlite3.Connection) -> list[PendingRow]:
    """Return the others as they are now, which is what segments should say; nothing is known of before."""
    return [row for rows in _read_rows(connection, "p.turn IS NOT NULL") for row in rows]


def _read_rows(connection: sqlite3.Connection, condition: str) -> ReadRows:
    found = plain_cursor(connection).execute(f"{_ROWS} WHERE {condition} ORDER BY p.id").fetchall()
    # Texts are made together, which is faster.
    was_texts = searched_texts([row[1] or "" for row in found], [row[2] or "" for row in found])
    texts = searched_texts([row[4] or "" for row in found], [row[5] or "" for row in found])
    read = ReadRows([], [])
    for row, was_text, text in zip(found, was_texts, texts, strict=True):
        row_id, was_name, _, was_collection, name, _, code, flags, owner, followers, forks, created_at = row
        created, language = time_number(created_at), code or 0
        fits = name is not None and created is not None and language <= MOST_LANGUAGES
        fits = fits and 0 <= followers <= MOST_COUNTED and 0 <= forks <= MOST_COUNTED
        (read.fit if fits else read.unfit).append(
            PendingRow(
                id=row_id,
                was_text=b"" if was_name is None else was_text,
                was_collection=0 if was_name is None else was_collection,
                text=b"" if name is None else text,
                collection=0 if name is None else flags & COLLECTION,
                followers=followers,
                forks=forks,
                created=-1 if created is None else created,
                flags=(flags or 0) | (0 if fits or name is None else UNSURE),
                language=language,
                owner=owner or 0,
            )
        )
    return read


class WrittenSegment(NamedTuple):
    """The rows of a segment, and the turns whose changes it has."""

    first_turn: int
    last_turn: int
    rows: list[PendingRow]


def written_segments(connection: sqlite3.Connection, first_turn: int = 0) -> list[WrittenSegment]:
    """Return the segments from a turn on, the oldest first. Raises StoreError if one is damaged."""
    found = connection.execute(
        """SELECT first_turn, last_turn, data, digest FROM search_segments
           WHERE first_turn >= ? ORDER BY last_turn""",
        (first_turn,),
    ).fetchall()
    return [
        WrittenSegment(first, last, list(rows_of(read_segment(data, digest))))
        for first, last, data, digest in found
    ]


def _net_of(segments: Iterable[WrittenSegment]) -> dict[int, PendingRow]:
    return net(row for segment in segments for row in segment.rows)


def pending_rows(connection: sqlite3.Connection) -> list[PendingRow]:
    """Return all pending rows, by id: as the index contains them, and as they are now."""
    segments = _net_of(written_segments(connection))
    return sorted(net(chain(segments.values(), *unprepared_rows(connection))).values())


def _write_segment(connection: sqlite3.Connection, first: int, last: int, rows: Iterable[PendingRow]) -> None:
    rows = list(rows)
    data = pack_segment(rows)
    connection.execute(
        "INSERT INTO search_segments VALUES (?, ?, ?, ?, ?)", (last, first, len(rows), digest_of(data), data)
    )


MERGED_AT_ONCE = 16
"""How many segments of about a size become one. Searches look at each; each row is merged once for a size."""


def _merge_segments(connection: sqlite3.Connection) -> None:
    """Merge the last segments where so many are of about a size."""
    size = MERGED_AT_ONCE
    while True:
        found = connection.execute("SELECT first_turn, rows FROM search_segments ORDER BY last_turn DESC")
        sizes = found.fetchall()
        small = [first for first, _ in takewhile(partial(_is_smaller, size), sizes)]
        if len(small) >= MERGED_AT_ONCE:
            merged = written_segments(connection, small[-1])
            first, last = merged[0].first_turn, merged[-1].last_turn
            connection.execute("DELETE FROM search_segments WHERE last_turn >= ?", (first,))
            _write_segment(connection, first, last, _net_of(merged).values())
        elif len(small) == len(sizes):
            return
        size *= MERGED_AT_ONCE


def _is_smaller(size: int, segment: tuple[int, int]) -> bool:
    return segment[1] < size


# Damage may have taken the row of the state: searches tell so, and `verify --repair` mends it.
_SIZE = """SELECT (SELECT count(*) FROM search_pending {which})
    + max(0, coalesce((SELECT max(id) FROM repositories), 0) - coalesce(max(up_to), 0)) FROM search_state"""


def backlog_size(connection: sqlite3.Connection) -> int:
    """Return the number of pending and new rows; unused ids among the new ones count too."""
    row = connection.execute(_SIZE.format(which="")).fetchone()
    return int(row[0])


def _unprepared_size(connection: sqlite3.Connection) -> int:
    """Return the same without the rows that are in segments."""
    row = connection.execute(_SIZE.format(which="WHERE turn IS NULL")).fetchone()
    return int(row[0])


FLUSH_FROM = 20_000
"""Flush the backlog once it is this long. A shorter one costs a search a millisecond."""

REBUILD_SHARE = 15
"""Rebuild the index rather than update it if the backlog exceeds 1/REBUILD_SHARE of the indexed rows."""


PREPARE_FROM = 20
"""Prepare rows once there are so many. Searches read fewer, as writes and webhooks leave them, one by one."""


def update_after_page(connection: sqlite3.Connection) -> None:
    """Prepare the rows that a page of a sync changed, or flush a part of a long backlog.

    Call it in the transaction of the page. While a file grows to a multiple of its size, the index is rebuilt
    only when the backlog equals the indexed size: all rebuilds together cost at most twice the last.
    """
    size = backlog_size(connection)
    indexed = _highest_id(connection) - size
    if size >= FLUSH_FROM and not indexed // 10 < size < indexed:
        flush_step(connection)
    elif size >= PREPARE_FROM and _unprepared_size(connection) >= PREPARE_FROM:
        prepare_pending(connection, least=PREPARE_FROM)  # some may be unfit


def finish_step(connection: sqlite3.Connection) -> bool:
    """Flush a part of a long backlog, prepare a short one; return whether to go on.

    Each call belongs in a transaction of its own. It flushes as soon as the index can be rebuilt, because
    that takes less time for each row than anything else.
    """
    size = backlog_size(connection)
    if size < FLUSH_FROM and size <= (_highest_id(connection) - size) // REBUILD_SHARE:
        if size:
            prepare_pending(connection)
        return False
    return flush_step(connection)


def flush_step(connection: sqlite3.Connection) -> bool:
    """Apply a part of the backlog; return whether there was any. Call it until it returns False.

    Each call belongs in a transaction of its own.
    """
    size = backlog_size(connection)
    if not size:
        return False
    if size > (_highest_id(connection) - size) // REBUILD_SHARE:
        rebuild_index(connection)
    else:
        apply_backlog(connection)
    return True


def rebuild_index(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Rebuild the index from the rows; call it in a transaction. `leaf_size` is for tests."""
    from mirror.search.index.build import build_index  # noqa: PLC0415 - numpy is slow to import

    build_index(connection, leaf_size)


def apply_backlog(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Apply all pending changes and add the first FLUSH_FROM new rows. `leaf_size` is for tests."""
    from mirror.search.index.columns import update_columns  # noqa: PLC0415
    from mirror.search.index.update import apply_changes  # noqa: PLC0415

    prepare_pending(connection, FLUSH_FROM)
    rows = pending_rows(connection)
    if rows:
        changed = PreparedRows(*zip(*rows, strict=True))
        apply_changes(connection, changed, leaf_size)
        update_columns(connection, changed)
        connection.execute("DELETE FROM search_pending")
        connection.execute("DELETE FROM search_segments")
    # The last rows may be gone, and SQLite may give their ids to others.
    connection.execute("UPDATE search_state SET up_to = min(up_to, ?)", (_highest_id(connection),))


def _highest_id(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()
    return int(row[0])
