"""The repositories that were pushed to or edited last, as far as a visitor may see them."""

import json
import sqlite3

from mirror.serve.callers import Caller
from mirror.serve.lookups import forks_count, visible
from mirror.serve.pages.reads.rows import Row, ids_of, rows

MOST = 8


def ids(connection: sqlite3.Connection, caller: Caller) -> list[int]:
    """Find them: a scan, since an index in this order would cost every first load a third of its speed."""
    found = rows(
        connection,
        f"""SELECT r.id FROM repositories r
            WHERE r.deleted_at IS NULL AND r.updated_at IS NOT NULL AND {visible(caller, "r")}
            ORDER BY r.updated_at DESC, r.id DESC LIMIT {MOST}""",
        {"ids": ids_of(caller)},
    )
    return [row["id"] for row in found]


def repositories(connection: sqlite3.Connection, caller: Caller, wanted: list[int]) -> list[Row]:
    """Read their rows, without those that are gone or closed to the visitor since they were found."""
    return rows(
        connection,
        f"""SELECT r.id, r.full_name, r.name, r.slug, r.scm, r.language, r.is_private, r.description,
                r.followers_count, {forks_count(caller, "r")} AS forks_count, r.updated_at, r.deleted_at
            FROM json_each(:wanted) AS wanted JOIN repositories r ON r.id = wanted.value
            WHERE r.deleted_at IS NULL AND {visible(caller, "r")} ORDER BY wanted.key""",
        {"wanted": json.dumps(wanted), "ids": ids_of(caller)},
    )
