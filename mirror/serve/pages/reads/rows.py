"""Rows as mappings, whatever a connection makes of them."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from mirror.serve.callers import Caller

Row = dict[str, Any]


def rows(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any] | None = None) -> list[Row]:
    """Read rows as mappings of column names to values."""
    cursor = connection.cursor()
    cursor.row_factory = None
    cursor.execute(sql, values or {})
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor]


def first(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any] | None = None) -> Row | None:
    """Read one row, or None."""
    return next(iter(rows(connection, sql, values)), None)


def one(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any] | None = None) -> Any:
    """Read one value, or None."""
    row = first(connection, sql, values)
    return next(iter(row.values())) if row else None


def ids_of(caller: Caller) -> str:
    """Return the caller's own rows of `users` as `lookups.visible` wants them under `:ids`."""
    return json.dumps(caller.user_ids)
