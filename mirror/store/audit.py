"""The record of what was written upstream through this mirror, and on whose behalf."""

import sqlite3
from typing import Literal, NamedTuple

Outcome = Literal["done", "unknown"]


class Written(NamedTuple):
    """One line of the table `writes`; `by` names a token or the command line, never its secret.

    `outcome` is unknown where the upstream may have done it, but its answer was lost. What it refused is no
    write and is not recorded.
    """

    at: str
    by: str
    action: str
    full_name: str
    outcome: Outcome = "done"
    uuid: str = ""


def save_written(connection: sqlite3.Connection, upstream_id: int, written: Written) -> None:
    """Record a write; `uuid` leads to the row of the repository, if it is mirrored."""
    connection.execute(
        """INSERT INTO writes (at, asked_by, action, upstream_id, repository_id, full_name, outcome)
           VALUES (?, ?, ?, ?, (SELECT id FROM repositories WHERE upstream_id = ? AND uuid = ?), ?, ?)""",
        (
            written.at,
            written.by,
            written.action,
            upstream_id,
            upstream_id,
            written.uuid,
            written.full_name,
            written.outcome,
        ),
    )
