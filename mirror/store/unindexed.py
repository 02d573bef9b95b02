"""New files that are filled in one go: without journal, and without indexes until they are full."""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from mirror.store.files import bring_up_to_date

CACHE_KIB = 40_000
"""Memory for the pages of each file, and for sorting an index before it goes to the disk."""


def open_unjournalled(path: Path) -> sqlite3.Connection:
    """Open a file that is thrown away if anything fails, so that it needs no journal."""
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection


def create_unindexed(path: Path) -> list[str]:
    """Make a mirror without rows and without indexes in an empty file; return what makes the indexes."""
    contents, indexes = _unindexed()
    path.write_bytes(contents)
    return list(indexes)


@cache
def _unindexed() -> tuple[bytes, tuple[str, ...]]:
    """Make that file once in a process: the migrations take longer than a small file's rows."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        bring_up_to_date(connection, Path(":memory:"))
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
        ).fetchall()
        for name, _ in found:
            connection.execute(f'DROP INDEX "{name}"')
        return connection.serialize(), tuple(sql for _, sql in found)
