"""When the index learns what is pending: some of it with the rows, the bulk at the end of a sync."""

import sqlite3

from mirror.store.index.absorb import Absorption
from mirror.store.index.moves import backlog, later, note, pending
from mirror.trie import LEAF_SIZE

ABSORBED_AT = 5_000
"""So many rows may be pending during a sync: looking through them costs a search less than a millisecond."""

BUILT_AT = 5_000
BUILT_SHARE = 30
"""More than BUILT_AT, and than one in BUILT_SHARE of what is known, is built anew rather than absorbed."""

BATCH = 10_000


def keep_up(connection: sqlite3.Connection) -> None:
    """Note what a page changed, and absorb it with what was pending if that is much.

    It belongs in the transaction of the page. A bulk (a first load) is left to `settle`.
    """
    waiting = backlog(connection)
    if waiting and not _is_bulk(connection, waiting):
        if waiting < ABSORBED_AT:
            note(connection)
        else:
            absorb(connection)


def settle(connection: sqlite3.Connection) -> bool:
    """Do one step of all that is waiting, and say whether there was one; each belongs in a transaction."""
    waiting = backlog(connection)
    if not waiting:
        return False
    if _is_bulk(connection, waiting):
        rebuild(connection)
    else:
        absorb(connection)
    return True


def _is_bulk(connection: sqlite3.Connection, waiting: int) -> bool:
    known = connection.execute("SELECT up_to FROM search_state").fetchone()[0]
    return waiting > max(BUILT_AT, int(known) // BUILT_SHARE)


def rebuild(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Build the index anew from the rows, in one transaction of the caller's."""
    from mirror.store.index.build import build  # noqa: PLC0415 - numpy is slow to import, and seldom needed

    build(connection, leaf_size)


def absorb(connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
    """Take in all that changed, and the first of what is new."""
    changed = pending(connection)
    new = later(connection, BATCH)
    highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
    Absorption(connection, leaf_size).run([*changed, *new])
    connection.execute("DELETE FROM search_pending")
    up_to = new[-1].id if len(new) == BATCH else highest
    connection.execute("UPDATE search_state SET up_to = ?", (up_to,))
