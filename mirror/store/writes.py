"""The table `writes`: what was written to upstreams through this mirror, and by whom."""

import sqlite3
from datetime import timedelta
from typing import Literal, NamedTuple

from mirror.times import from_text, to_text

OLDEST_PAGE = timedelta(minutes=10)  # how long after its request a sync may save a page

Outcome = Literal["done", "unknown"]


class Written(NamedTuple):
    """A row of the table `writes`; `by` is the name of a token, or the command line.

    `outcome` is unknown until the answer is saved, and stays so if that is lost: the upstream may have done
    it. Refused writes are not recorded.
    """

    at: str
    by: str
    action: str
    full_name: str
    outcome: Outcome = "done"
    uuid: str = ""


def save_written(connection: sqlite3.Connection, upstream_id: int, written: Written) -> int:
    """Record a write and return its row id; `uuid` identifies the repository."""
    cursor = connection.execute(
        """INSERT INTO writes (at, asked_by, action, upstream_id, full_name, outcome)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (written.at, written.by, written.action, upstream_id, written.full_name, written.outcome),
    )
    number = int(cursor.lastrowid or 0)
    link_written(connection, number, written.uuid)
    return number


def drop_written(connection: sqlite3.Connection, number: int) -> None:
    """Drop the record of a write that was refused, or is recorded anew."""
    connection.execute("DELETE FROM writes WHERE id = ?", (number,))


def drop_unused(connection: sqlite3.Connection, name: str) -> None:
    """Drop the row of an upstream; raises IntegrityError if another row refers to it."""
    connection.execute("DELETE FROM upstreams WHERE name = ?", (name,))


def link_written(connection: sqlite3.Connection, number: int, uuid: str) -> None:
    """Link the record of a write to the row of its repository, if there is one."""
    connection.execute(
        """UPDATE writes SET repository_id = (SELECT r.id FROM repositories r
               WHERE r.upstream_id = writes.upstream_id AND r.uuid = ?) WHERE id = ?""",
        (uuid, number),
    )


def recently_written(connection: sqlite3.Connection, now: str) -> dict[int, tuple[str, str]]:
    """Map repositories that were written within OLDEST_PAGE to their last action and its time.

    A page may be older.
    """
    since = to_text(from_text(now) - OLDEST_PAGE)
    found = connection.execute(
        """SELECT repository_id, action, at FROM writes
           WHERE at > ? AND at <= ? AND outcome = 'done' AND repository_id IS NOT NULL ORDER BY id""",
        (since, now),
    )
    return {row_id: (action, at) for row_id, action, at in found}
