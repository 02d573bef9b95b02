"""When the index is updated: partly with each page of a sync, completely at its end."""

import sqlite3

from mirror.search.index.backlog import backlog_size, new_rows, pending_changes, prepare_pending
from mirror.search.index.format import LEAF_SIZE

FLUSH_FROM = 5_000
"""During a sync, apply the backlog once it is this long. A shorter one costs a search 4 ms at most."""

REBUILD_FROM = 5_000
REBUILD_SHARE = 30
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
    from mirror.search.index.update import apply_changes  # noqa: PLC0415 - numpy is slow to import

    changed = pending_changes(connection)
    new = new_rows(connection, BATCH_SIZE)
    apply_changes(connection, [*changed, *new], leaf_size)
    connection.execute("DELETE FROM search_pending")
    up_to = new[-1].id if len(new) == BATCH_SIZE else _highest_id(connection)
    connection.execute("UPDATE search_state SET up_to = ?", (up_to,))


def _highest_id(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()
    return int(row[0])
