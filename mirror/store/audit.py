"""The table `writes`: what was written upstream through this mirror, and on whose behalf."""

import sqlite3
from datetime import timedelta
from typing import Literal, NamedTuple

from mirror.times import from_text, to_text

OLDEST_PAGE = timedelta(minutes=10)
"""The age that a page may have when a sync saves it."""

Outcome = Literal["done", "unknown"]


class Written(NamedTuple):
    """One line of the table `writes`; `by` names a token or the command line, never its secret.

    `outcome` is unknown where the upstream may have done it, but its answer was lost. Refused writes are not
    recorded.
    """

    at: str
    by: str
    action: str
    full_name: str
    outcome: Outcome = "done"
    uuid: str = ""


def save_written(connection: sqlite3.Connection, upstream_id: int, written: Written) -> int:
    """Record a write and return the number of its line; `uuid` leads to the row of the repository."""
    cursor = connection.execute(
        """INSERT INTO writes (at, asked_by, action, upstream_id, full_name, outcome)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (written.at, written.by, written.action, upstream_id, written.full_name, written.outcome),
    )
    number = int(cursor.lastrowid or 0)
    link_written(connection, number, written.uuid)
    return number


def link_written(connection: sqlite3.Connection, number: int, uuid: str) -> None:
    """Link a record to the row of its repository, as soon as there is one."""
    connection.execute(
        """UPDATE writes SET repository_id = (SELECT r.id FROM repositories r
               WHERE r.upstream_id = writes.upstream_id AND r.uuid = ?) WHERE id = ?""",
        (uuid, number),
    )


def recently_written(connection: sqlite3.Connection, now: str) -> dict[int, str]:
    """Map the rows that were written within the age of a page under way to what was done to them last."""
    since = to_text(from_text(now) - OLDEST_PAGE)
    return dict(
        connection.execute(
            """SELECT repository_id, action FROM writes
               WHERE at > ? AND at <= ? AND outcome = 'done' AND repository_id IS NOT NULL ORDER BY id""",
            (since, now),
        ).fetchall()
    )
