"""Webhooks: write at once what can be checked, and leave a hint for a run to confirm it in any case.

A push names for each ref the commit it was at and the one it is at now. It is applied where the mirror has
the former, so pushes that arrive late, twice or out of order never move a ref back.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from mirror.model import Ref, RefKind
from mirror.search.index.refs.changes import update_after_refs
from mirror.store.changes import Change, RefTarget, ref_change
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.refs import TABLES, let_be_read, write_refs

KEPT_HOURS = 24


class Delivery(NamedTuple):
    """A webhook as it came. `request` is the sender's own number of it, or "".

    A retry has the number, the event and the body of the first attempt; anything else is another delivery.
    """

    event: str
    body_hash: str
    request: str
    at: str


class RefUpdate(NamedTuple):
    """A ref that was at one commit and is at another; None: it did not exist before, or was deleted.

    `forced` is whether the sender says that the push was forced; None where it says nothing.
    """

    kind: RefKind
    name: str
    old: str | None
    new: Ref | None
    forced: bool | None = None


class RepositoryEvent(NamedTuple):
    """A webhook's report on one repository: the refs that moved, and whether its `row` may have changed."""

    uuid: str
    full_name: str
    updates: Sequence[RefUpdate] = ()
    row: bool = False


def is_new(
    connection: sqlite3.Connection, upstream_id: int, delivery: Delivery, *, forget_before: str
) -> bool:
    """Record a delivery and tell whether it is new; those before `forget_before` are forgotten."""
    connection.execute("DELETE FROM webhook_deliveries WHERE at < ?", (forget_before,))
    written = connection.execute(
        """INSERT OR IGNORE INTO webhook_deliveries (upstream_id, body_hash, request, event, at)
           VALUES (?, ?, ?, ?, ?)""",
        (upstream_id, delivery.body_hash, delivery.request, delivery.event, delivery.at),
    )
    return written.rowcount == 1


def save_event(
    connection: sqlite3.Connection, upstream_id: int, event: RepositoryEvent, *, at: str
) -> list[Change]:
    """Apply what can be checked, leave a hint at the repository, and return the changes to record.

    Updates that came (`at`) before the refs were last listed are not applied: the listing is newer. For a
    repository that is not mirrored, its workspace is hinted at, if that is mirrored.
    """
    cursors = Cursors(connection, upstream_id)
    row = connection.execute(
        """SELECT id, refs_synced_at FROM repositories
           WHERE upstream_id = ? AND uuid = ? AND deleted_at IS NULL""",
        (upstream_id, event.uuid),
    ).fetchone()
    if row is None:
        workspace = event.full_name.partition("/")[0]
        if cursors.workspace(workspace).exists():
            cursors.hints.add_workspace(workspace, at=at)
        return []
    cursors.hints.add(Hint(uuid=event.uuid, row=event.row, at=at))
    row_id, refs_synced_at = row
    if refs_synced_at is None or refs_synced_at >= at or not event.updates:
        return []  # refs that were never listed in full must not seem to be
    let_be_read(connection, row_id)
    changes = [
        change for update in event.updates for change in _applied(connection, row_id, update, refs_synced_at)
    ]
    update_after_refs(connection)
    return changes


def _applied(
    connection: sqlite3.Connection, repository_id: int, update: RefUpdate, seen: str
) -> list[Change]:
    """Apply one update if the ref is where the push says it was."""
    table = TABLES[update.kind]
    found = connection.execute(
        f"SELECT target_hash, target_date FROM {table} WHERE repository_id = ? AND name = ?",
        (repository_id, update.name),
    ).fetchone()
    stands = RefTarget(*found) if found else None
    target = update.new.target_hash if update.new else None
    if (stands and stands.hash) != update.old or update.old == target:
        return []
    if update.new is None:
        connection.execute(
            f"DELETE FROM {table} WHERE repository_id = ? AND name = ?", (repository_id, update.name)
        )
    else:
        write_refs(connection, repository_id, [update.new])
    return [
        ref_change(
            repository_id,
            update.kind,
            update.name,
            stands,
            target,
            previous_look=seen,
            forced=update.forced if target else None,
        )
    ]
