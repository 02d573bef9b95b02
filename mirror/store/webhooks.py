"""Writing what a webhook said: at once where it can be checked, and marked for a run to confirm in any case.

A push names for each ref the commit it was at and the one it is at now. It is applied where the mirror has
the former, so that pushes which arrive late, twice or out of order never turn a ref back.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from mirror.model import Ref, RefKind
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.refs import TABLES, write_refs
from mirror.store.repositories import Change

KEPT_HOURS = 24


class Delivery(NamedTuple):
    """A webhook as it came. `request` is the sender's own number of it, "" where it was sent without one.

    A retry has the number, the event and the body of the first attempt; everything else is another delivery.
    """

    event: str
    body_hash: str
    request: str
    at: str


class Move(NamedTuple):
    """A ref that was at one commit and is at another; None for one that was not or is not there."""

    kind: RefKind
    name: str
    old: str | None
    new: Ref | None


class News(NamedTuple):
    """What is said of one repository: which refs moved, and whether its row may have changed."""

    uuid: str
    full_name: str
    moves: Sequence[Move] = ()
    row: bool = False


def is_new(
    connection: sqlite3.Connection, upstream_id: int, delivery: Delivery, *, forget_before: str
) -> bool:
    """Remember a delivery and return whether it was not taken before; older ones are forgotten."""
    connection.execute("DELETE FROM webhook_deliveries WHERE at < ?", (forget_before,))
    written = connection.execute(
        """INSERT OR IGNORE INTO webhook_deliveries (upstream_id, body_hash, request, event, at)
           VALUES (?, ?, ?, ?, ?)""",
        (upstream_id, delivery.body_hash, delivery.request, delivery.event, delivery.at),
    )
    return written.rowcount == 1


def save_news(connection: sqlite3.Connection, upstream_id: int, news: News, *, at: str) -> list[Change]:
    """Apply what can be checked, mark the repository, and return the changes to record.

    Moves that came (`at`) before the refs were listed last are not applied: the listing is newer.
    """
    cursors = Cursors(connection, upstream_id)
    row = connection.execute(
        """SELECT id, refs_synced_at FROM repositories
           WHERE upstream_id = ? AND uuid = ? AND deleted_at IS NULL""",
        (upstream_id, news.uuid),
    ).fetchone()
    if row is None:
        workspace = news.full_name.partition("/")[0]
        if cursors.workspace(workspace).exists():
            cursors.hints.add_workspace(workspace, at=at)
        return []
    cursors.hints.add(Hint(uuid=news.uuid, row=news.row, at=at))
    if row[1] is None or row[1] >= at or not news.moves:
        return []  # refs that were never listed in full must not seem to be
    connection.execute("UPDATE repositories SET refs_stale = 1 WHERE id = ?", (row[0],))
    return [change for move in news.moves for change in _moved(connection, row[0], move)]


def _moved(connection: sqlite3.Connection, repository_id: int, move: Move) -> list[Change]:
    """Move one ref if it is where the push says it was."""
    table = TABLES[move.kind]
    found = connection.execute(
        f"SELECT target_hash FROM {table} WHERE repository_id = ? AND name = ?", (repository_id, move.name)
    ).fetchone()
    stands, target = found[0] if found else None, move.new.target_hash if move.new else None
    if stands != move.old or stands == target:
        return []
    if move.new is None:
        connection.execute(
            f"DELETE FROM {table} WHERE repository_id = ? AND name = ?", (repository_id, move.name)
        )
        return [Change(f"{move.kind}_deleted", repository_id, ref=move.name, old=stands)]
    write_refs(connection, repository_id, [move.new])
    verb = "created" if stands is None else "moved"
    return [Change(f"{move.kind}_{verb}", repository_id, ref=move.name, old=stands, new=target)]
