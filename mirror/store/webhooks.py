"""Save what webhooks report: deliveries, so that a retry is recognised, and the refs that a push moved.

A push is applied only if it begins at the commit that the mirror has. The rest is for the upstream to say: a
hint makes the next run ask it.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from mirror.model import Ref, RefKind
from mirror.search.index.refs.changes import update_after_refs
from mirror.store.changes import Change
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.refs import mark_refs_stale, move_ref
from mirror.store.rows import fetch_row

KEPT_HOURS = 24  # for how long a delivery is remembered, to recognise a repeated one


class Delivery(NamedTuple):
    """A received webhook. `request` is the sender's id of it, or "".

    A retry has the id, the event and the body of the first attempt; anything else is another delivery.
    """

    event: str
    body_hash: str
    request: str
    at: str


class RefUpdate(NamedTuple):
    """A ref that moved from one commit to another; None if it did not exist before, or was deleted.

    `forced` is whether the sender reports a forced push; None if it does not say.
    """

    kind: RefKind
    name: str
    old: str | None
    new: Ref | None
    forced: bool | None = None


class RepositoryEvent(NamedTuple):
    """A webhook's report on one repository: the moved refs, and whether its `row` may have changed.

    `is_private` says that it was private when they moved.
    """

    uuid: str
    full_name: str
    updates: Sequence[RefUpdate] = ()
    row: bool = False
    is_private: bool = False


def is_new_delivery(
    connection: sqlite3.Connection, upstream_id: int, delivery: Delivery, *, forget_before: str
) -> bool:
    """Record a delivery and return whether it is new; delete those from before `forget_before`."""
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
    """Apply what can be checked, add a hint at the repository, and return the changes to record.

    If the repository is not known in its workspace, but that is mirrored, the hint is at the workspace too:
    where only names can be requested, one that was moved would seem to be deleted.
    """
    cursors = Cursors(connection, upstream_id)
    row = fetch_row(
        connection,
        """SELECT id, refs_synced_at, is_private, full_name FROM repositories
           WHERE upstream_id = ? AND uuid = ? AND deleted_at IS NULL""",
        (upstream_id, event.uuid),
    )
    workspace = event.full_name.partition("/")[0]
    is_known_there = row is not None and row[3].partition("/")[0].lower() == workspace.lower()
    if not is_known_there and cursors.workspace(workspace).exists():
        cursors.hints.add_workspace(workspace, at=at)
    if row is None:
        return []
    row_id, refs_synced_at, is_private, _ = row
    may_be_hidden = event.is_private and not is_private
    cursors.hints.add(Hint(uuid=event.uuid, row=event.row or may_be_hidden, at=at))
    # Refs that were never listed in full must not look complete, and a listing since then is newer.
    if refs_synced_at is None or refs_synced_at >= at or not event.updates:
        return []
    mark_refs_stale(connection, row_id)
    if may_be_hidden:  # strangers must not see what was pushed: the upstream is asked first
        return []
    changes = list[Change]()
    for update in event.updates:
        changes += move_ref(
            connection,
            row_id,
            update.kind,
            update.name,
            old=update.old,
            new=update.new,
            forced=update.forced,
            previous_look=refs_synced_at,
        )
    update_after_refs(connection)
    return changes
