"""When the index learns what is pending: some of it with the rows, the bulk at the end of a sync."""

import sqlite3

from mirror.search.index.backlog import backlog, later, note, pending
from mirror.search.index.format import LEAF_SIZE

ABSORBED_AT = 5_000
"""So many rows may be pending during a sync: looking through them costs a search 4 ms at most."""

BUILT_AT = 5_000
BUILT_SHARE = 30
"""More than BUILT_AT, and than one in BUILT_SHARE of what is known, is built anew rather than absorbed."""

BATCH = 10_000


def keep_up(connection: sqlite3.Connection) -> None:
    """Note what a page changed, or let the index learn all that is pending if that is much.

    It belongs in the transaction of the page. While a mirror grows by a multiple, the index waits until there
    is as much again as it knows, so that all its buildings together cost no more than two of the last.
    """
    waiting = backlog(connection)
    if not waiting:
        return
    known = _highest(connection) - waiting
    if waiting < ABSORBED_AT:
        note(connection)
    elif not known // 10 < waiting < known:
        settle(connection)


def settle(connection: sqlite3.Connection) -> bool:
    """Do one step of all that is waiting, and say whether there was one; each belongs in a transaction."""
    waiting = backlog(connection)
    if not waiting:
        return False
    known = _highest(connection) - waiting
    if waiting > max(BUILT_AT, known // BUILT_SHARE):
        rebuild(connection)
    else:
        absorb(connection)
    return True


def _highest(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()
    return int(row[0])


def rebuild(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Build the index anew from the rows, in one transaction of the caller's."""
    from mirror.search.index.build import build  # noqa: PLC0415 - numpy is slow to import

    build(connection, leaf_size)


def absorb(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Take in all that changed, and the first of what is new."""
    from mirror.search.index.update import grow  # noqa: PLC0415 - numpy is slow to import

    changed = pending(connection)
    new = later(connection, BATCH)
    grow(connection, [*changed, *new], leaf_size)
    connection.execute("DELETE FROM search_pending")
    up_to = new[-1].id if len(new) == BATCH else _highest(connection)
    connection.execute("UPDATE search_state SET up_to = ?", (up_to,))
