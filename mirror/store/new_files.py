"""New databases that are filled in one go.

Files have no journal, and no indexes until they are full. A copy in memory holds a few given rows.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from mirror.store.files import bring_up_to_date

CACHE_KIB = 40_000
"""Memory for the pages of a file, and for sorting an index before it is written."""


def open_unjournalled(path: Path) -> sqlite3.Connection:
    """Open a file that is deleted if anything fails, so that it needs no journal."""
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection


def create_unindexed(path: Path) -> list[str]:
    """Create a mirror without rows and indexes in an empty file; return the statements for its indexes."""
    contents, indexes = _unindexed()
    path.write_bytes(contents)
    return list(indexes)


@cache
def _unindexed() -> tuple[bytes, tuple[str, ...]]:
    """Create that file once per process: migrations take more time than the rows of a small file."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        bring_up_to_date(connection, Path(":memory:"))
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
        ).fetchall()
        for name, _ in found:
            connection.execute(f'DROP INDEX "{name}"')
        return connection.serialize(), tuple(sql for _, sql in found)


Rows = Mapping[str, Iterable[Mapping[str, Any]]]
"""Rows by table, each as a mapping of columns to values."""


def memory_copy(connection: sqlite3.Connection, rows: Rows) -> sqlite3.Connection:
    """Return a database in memory with the tables of a file and only these rows; the caller closes it."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    for name, columns in _tables(connection).items():
        listed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
        memory.execute(f'CREATE TABLE "{name}" ({listed})')
    memory.execute("BEGIN")
    for name, found in rows.items():
        for row in found:
            names, places = ", ".join(row), ", ".join("?" * len(row))
            memory.execute(f"INSERT INTO {name} ({names}) VALUES ({places})", tuple(row.values()))
    for table, column in (("repositories", "id"), ("branches", "repository_id"), ("tags", "repository_id")):
        memory.execute(f"CREATE INDEX {table}_{column} ON {table} ({column})")
    memory.execute("COMMIT")
    return memory


def _tables(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """Map each table of a file to its columns and their types, without constraints."""
    cursor = connection.cursor()
    cursor.row_factory = None
    found = dict[str, dict[str, str]]()
    for table, column, kind in cursor.execute(
        """SELECT m.name, c.name, c.type FROM main.sqlite_master m, pragma_table_info(m.name, 'main') c
           WHERE m.type = 'table' AND m.name NOT GLOB 'sqlite_*'"""
    ):
        found.setdefault(table, {})[column] = kind
    return found


def rebuild_descriptions(connection: sqlite3.Connection) -> None:
    """Rebuild the full-text index of descriptions from the rows, in a transaction of the caller.

    The index stores no text. Triggers update it with each change, so it has no backlog.
    """
    connection.execute("INSERT INTO search_descriptions (search_descriptions) VALUES ('delete-all')")
    connection.execute(
        "INSERT INTO search_descriptions (rowid, description) SELECT id, description FROM repositories"
    )
