"""How an upstream has answered, by status: added up over all runs of all processes."""

import json
import sqlite3
from collections.abc import Mapping

from mirror.store.runs import save_cursor

STREAM = "answers"


def add_answers(
    connection: sqlite3.Connection, upstream_id: int, answers: Mapping[int, int], *, at: str
) -> None:
    """Add the answers of a run to those of all runs before."""
    if not answers:
        return
    row = connection.execute(
        "SELECT value FROM cursors WHERE upstream_id = ? AND stream = ?", (upstream_id, STREAM)
    ).fetchone()
    total = {int(status): int(count) for status, count in json.loads(row[0]).items()} if row else {}
    for status, count in answers.items():
        total[status] = total.get(status, 0) + count
    save_cursor(connection, upstream_id, STREAM, json.dumps(dict(sorted(total.items()))), at=at)
