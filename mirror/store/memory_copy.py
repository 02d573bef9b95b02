"""A mirror in memory that holds a few given rows: what reads a file reads it as well."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

Rows = Mapping[str, Iterable[Mapping[str, Any]]]
"""Rows by table, each as a mapping of columns to values."""


def memory_copy(connection: sqlite3.Connection, rows: Rows) -> sqlite3.Connection:
    """Return a database in memory with the tables of a file, and only these rows; the caller closes it."""
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
