"""Apply webhooks: write what can be checked at once, and leave a hint so that a run confirms it.

A push names the old and the new commit of each ref. It is applied only if the mirror has the old commit, so
that pushes that arrive late, twice or out of order never move a ref back.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from mirror.model import Ref, RefKind
from mirror.search.index.refs.changes import update_after_refs
from mirror.store.changes import Change, RefTarget, ref_change
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.refs import TABLES, mark_refs_stale, write_refs

KEPT_HOURS = 24


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
    """A webhook's report on one repository: the moved refs, and whether its `row` may have changed."""

    uuid: str
    full_name: str
    updates: Sequence[RefUpdate] = ()
    row: bool = False


def is_new(
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

    Updates that came (`at`) before the refs were last listed are not applied: the listing is newer. If the
    repository is not mirrored but its workspace is, the hint is at the workspace.
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
        return []  # refs that were never listed in full must not look complete
    mark_refs_stale(connection, row_id)
    changes = [
        change for update in event.updates for change in _applied(connection, row_id, update, refs_synced_at)
    ]
    update_after_refs(connection)
    return changes


def _applied(
    connection: sqlite3.Connection, repository_id: int, update: RefUpdate, seen: str
) -> list[Change]:
    """Apply one update if the ref is at the old commit of the push."""
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
