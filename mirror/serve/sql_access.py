"""What the SQL of visitors may reach: an allow-list of functions and virtual tables, and withheld columns.

SQLite asks for leave while it prepares a statement, column by column, through views as well; what is
withheld reads as NULL. It is no error, because Datasette's page of a row counts the rows of every table that
refers to it, withheld ones too. A prepared statement is kept with its connection, so each reach has
connections of its own.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from enum import Enum

from mirror.serve.sql_limits import BoundedConnection

ALL = frozenset[str]()
"""Stands for all columns of a table."""

SECRET: Mapping[str, frozenset[str]] = dict.fromkeys(("api_tokens", "writes", "webhook_deliveries"), ALL)
"""Withheld from everybody: who holds tokens, who wrote what."""

UNTOLD: Mapping[str, frozenset[str]] = {
    **SECRET,
    "members": ALL,
    "sync_failures": ALL,
    "cursors": ALL,
    "repositories": frozenset({"parent_uuid", "parent_full_name"}),
    "sync_runs": frozenset({"error"}),
}
"""Withheld from strangers, as the APIs do: what is not public, or may name what is not."""

PEOPLE = frozenset(
    {"uuid", "username", "display_name", "first_name", "last_name", "nickname", "account_id", "avatar_url"}
)
"""Columns of `users` that name members; nothing tells members from owners column by column."""


class Reach(Enum):
    """What a statement may reach: each withholds more than the one before."""

    EVERYTHING = "everything but secrets"
    PUBLIC = "what the APIs tell strangers"
    PUBLIC_WITHOUT_PEOPLE = "the same, without the names of people"
    SCHEMA = "the names of tables and columns"


_WITHHELD: Mapping[Reach, Mapping[str, frozenset[str]]] = {
    Reach.EVERYTHING: SECRET,
    Reach.PUBLIC: UNTOLD,
    Reach.PUBLIC_WITHOUT_PEOPLE: {**UNTOLD, "users": PEOPLE},
    Reach.SCHEMA: {},
}

_FUNCTIONS = """
    -> ->> abs acos acosh asin asinh atan atan2 atanh avg bm25 ceil ceiling char coalesce concat
    concat_ws cos cosh count cume_dist current_date current_time current_timestamp date datetime
    degrees dense_rank exp first_value floor format glob group_concat hex highlight ifnull iif instr
    json json_array json_array_length json_extract json_group_array json_group_object json_insert
    json_object json_quote json_remove json_replace json_set json_type json_valid julianday lag
    last_value lead length like likelihood likely ln log log10 log2 lower ltrim match max min mod
    nth_value ntile nullif octet_length percent_rank pi pow power printf quote radians random
    randomblob rank replace round row_number rtrim sign sin sinh snippet soundex sqlite_version sqrt
    strftime string_agg substr substring sum tan tanh time timediff total trim trunc typeof unhex
    unicode unixepoch unlikely upper zeroblob
"""
_TABLE_FUNCTIONS = """
    json_each json_tree pragma_foreign_key_list pragma_index_info pragma_index_list pragma_index_xinfo
    pragma_table_info pragma_table_xinfo
"""
_ALLOWED_PRAGMAS = """
    application_id data_version database_list foreign_key_list index_info index_list index_xinfo
    recursive_triggers schema_version table_info table_xinfo user_version
"""

FUNCTIONS = frozenset(_FUNCTIONS.split())
"""SQLite's functions that are harmless and, within `mirror.serve.sql_limits`, quick."""

TABLE_FUNCTIONS = frozenset(_TABLE_FUNCTIONS.split())
"""Virtual tables that every connection has; `sqlite_stmt`, for one, shows what others ask."""

_PRAGMAS = frozenset(_ALLOWED_PRAGMAS.split())
_SCHEMAS = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})
_HARMLESS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_TRANSACTION})

Authorizer = Callable[[int, str | None, str | None, str | None, str | None], int]


def restrict(connection: BoundedConnection, reach: Reach, own_functions: Iterable[str]) -> None:
    """Bound a connection that is prepared, and let it reach no more than it may.

    `own_functions` are those that this program and the operator's plugins gave it.
    """
    for name in TABLE_FUNCTIONS:  # SQLite sets them up at their first use, by what is refused later
        connection.execute(f"SELECT 1 FROM {name}('[]')").fetchall()
    modules = _names(connection, "module")
    connection.bound()
    functions = FUNCTIONS if reach is Reach.SCHEMA else FUNCTIONS | set(own_functions)
    connection.set_authorizer(_authorizer(connection, reach, functions, modules))


def functions_of(connection: sqlite3.Connection) -> set[str]:
    """Return the functions that a connection knows."""
    return _names(connection, "function")


def _names(connection: sqlite3.Connection, kind: str) -> set[str]:
    return {row[0].lower() for row in connection.execute(f"SELECT name FROM pragma_{kind}_list")}


def _authorizer(
    connection: BoundedConnection, reach: Reach, functions: frozenset[str], modules: set[str]
) -> Authorizer:
    withheld = _WITHHELD[reach]

    def may_read(table: str, column: str) -> int:
        if table in TABLE_FUNCTIONS or table in _SCHEMAS:
            return sqlite3.SQLITE_OK
        if table in modules or table.startswith("pragma_"):
            return sqlite3.SQLITE_DENY
        if reach is Reach.SCHEMA:
            return sqlite3.SQLITE_DENY
        columns = withheld.get(table)
        if columns is not None and (columns is ALL or column in columns):
            return sqlite3.SQLITE_IGNORE
        return sqlite3.SQLITE_OK

    def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in _HARMLESS or connection.is_trusted:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            return may_read(str(first).lower(), str(second).lower())
        if action == sqlite3.SQLITE_FUNCTION:
            name = str(second).lower()
            allowed = name in functions and connection.may_call(name)
        else:
            allowed = action == sqlite3.SQLITE_PRAGMA and str(first).lower() in _PRAGMAS
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return authorize
