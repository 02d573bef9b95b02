"""Read rows of a mirror as plain tuples, structs or mappings."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

Values: TypeAlias = Sequence[Any] | Mapping[str, Any]
Row = TypeVar("Row")


def fetch(connection: sqlite3.Connection, sql: str, values: Values = ()) -> list[Any]:
    """Read plain tuples, regardless of the connection's row factory."""
    return _plain(connection, sql, values).fetchall()


def fetch_row(connection: sqlite3.Connection, sql: str, values: Values = ()) -> Any:
    """Read the first row as a plain tuple; None without rows."""
    return _plain(connection, sql, values).fetchone()


def fetch_value(connection: sqlite3.Connection, sql: str, values: Values = ()) -> Any:
    """Read the first column of the first row; None without rows."""
    row = _plain(connection, sql, values).fetchone()
    return row[0] if row else None


def fetch_as(row_type: type[Row], connection: sqlite3.Connection, sql: str, values: Values = ()) -> list[Row]:
    """Read rows as a struct whose fields are in the order of the selected columns."""
    return [row_type(*row) for row in _plain(connection, sql, values)]


def fetch_one(
    row_type: type[Row], connection: sqlite3.Connection, sql: str, values: Values = ()
) -> Row | None:
    """Read the first row as a struct, as `fetch_as` does; None without rows."""
    row = fetch_row(connection, sql, values)
    return row_type(*row) if row else None


def fetch_dicts(connection: sqlite3.Connection, sql: str, values: Values = ()) -> list[dict[str, Any]]:
    """Read rows as mappings of column names to values, for reports."""
    cursor = _plain(connection, sql, values)
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor]


def _plain(connection: sqlite3.Connection, sql: str, values: Values) -> sqlite3.Cursor:
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor.execute(sql, values)
