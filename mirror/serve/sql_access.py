"""Access rules for visitors' SQL: an allow-list of functions and virtual tables, and withheld columns.

SQLite calls an authorizer for each column while it prepares a statement, also inside views, but not for those
that USING and NATURAL compare. Prepared statements stay with their connection, so each `Reach` has its own
connections.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from enum import Enum
from typing import Protocol

from mirror.queries.visibility import (
    ANONYMOUS,
    hides_history,
    hides_refs,
    holds_private,
    open_account,
    open_changes,
    open_refs,
    visible_project,
)
from mirror.serve.sql_limits import RESERVED, BoundedConnection
from mirror.store.schema import REF_TABLES, SEARCH_PARTS

ALL = frozenset[str]()  # means all columns of a table

# Withheld from everybody: the tokens, the writes made with them, what is to be exported, and SQLite's
# statistics, which may hold samples of all indexed values.
SECRET: Mapping[str, frozenset[str]] = dict.fromkeys(
    (
        "api_tokens", "writes", "webhook_deliveries", "extras", "exports", "export_marks", "export_epoch",
        "sqlite_stat1", "sqlite_stat3", "sqlite_stat4",
    ),
    ALL,
)  # fmt: skip

# Withheld from strangers, as in the APIs: what is not public, or may name something that is not.
WITHHELD_FROM_STRANGERS: Mapping[str, frozenset[str]] = {
    **SECRET,
    "members": ALL,
    "sync_failures": ALL,
    "cursors": ALL,
    # Names of refs that a private namesake of a repository had.
    "seen_refs": ALL,
    **{name: ALL for name in SEARCH_PARTS if name.startswith("search_ref_")},
    "repositories": frozenset({"parent_uuid", "parent_full_name"}),
    "sync_runs": frozenset({"error"}),
}

# Tables of which strangers may read some rows: the condition on a row `t`, and the columns without a guard,
# whose indexes SQL needs. A row of `users` may be a mere member, one of `projects` a project without living
# repositories. A change may be the renaming of an owner without public repositories, or of refs that a
# private namesake had.
SHARED: Mapping[str, tuple[str, str]] = {
    "users": (open_account("t.id"), "id"),
    "projects": (visible_project(ANONYMOUS, "t"), "id owner_id"),
    "changes": (open_changes(), "id at kind repository_id user_id forced is_main"),
}

# The same, in a file that hides refs of public repositories: they may be of a private namesake.
SHARED_REFS = {**SHARED, **dict.fromkeys(REF_TABLES.values(), (open_refs(), "repository_id"))}

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
# SQLite's functions that are harmless and, within the limits of `mirror.serve.sql_limits`, fast.
FUNCTIONS = frozenset(_FUNCTIONS.split())

# The allowed virtual tables. Others reveal too much: `sqlite_stmt` shows other visitors' statements.
TABLE_FUNCTIONS = frozenset(_TABLE_FUNCTIONS.split())

_PRAGMAS = frozenset(_ALLOWED_PRAGMAS.split())
_SCHEMAS = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})
_HARMLESS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_TRANSACTION})
Authorizer = Callable[[int, str | None, str | None, str | None, str | None], int]


class SqlVisitor(Protocol):
    """The sender of the request that runs SQL."""

    def sees_all(self, database: str) -> bool:
        """Return whether the visitor may see everything in a mirror."""
        ...

    def lacks(self, connection: sqlite3.Connection, database: str) -> bool:
        """Return whether the mirror on a connection holds a row that is hidden from the visitor."""
        ...


class Nobody:
    """The visitor outside of any request, who may read what strangers may."""

    def sees_all(self, database: str) -> bool:
        """Return False."""
        del database
        return False

    def lacks(self, connection: sqlite3.Connection, database: str) -> bool:
        """Return whether the mirror holds a private row."""
        del database
        return holds_private(connection)


# The visitor. Each request sets it once its sender is known.
current_visitor: ContextVar[SqlVisitor] = ContextVar("visitor", default=Nobody())  # noqa: B039 - it has no state


class Reach(Enum):
    """How much a statement may read, from most to least."""

    EVERYTHING = "everything but secrets"
    PUBLIC = "what the APIs show to strangers, where they see the refs of all public repositories"
    SOME_REFS = "what the APIs show to strangers"
    SCHEMA = "the names of tables and columns"


_WITHHELD: Mapping[Reach, Mapping[str, frozenset[str]]] = {
    Reach.EVERYTHING: SECRET,
    Reach.PUBLIC: WITHHELD_FROM_STRANGERS,
    Reach.SOME_REFS: WITHHELD_FROM_STRANGERS,
    Reach.SCHEMA: {},
}
_SHARED = {Reach.PUBLIC: SHARED, Reach.SOME_REFS: SHARED_REFS}

STRANGERS = tuple(_SHARED)
"""The reaches of strangers. Each file is open to the second one; the first one is quicker."""


def restrict(connection: BoundedConnection, reach: Reach, own_functions: Iterable[str]) -> None:
    """Set the limits and the reach of a connection that is otherwise ready.

    :param own_functions: the functions that this program and the operator's plugins have registered.
    """
    for name in TABLE_FUNCTIONS:  # their first use runs statements that are refused later
        connection.execute(f"SELECT 1 FROM {name}('[]')").fetchall()
    modules = _names(connection, "module")
    connection.bound()
    shared = _SHARED.get(reach, {})
    connection.is_public = bool(shared)
    if shared:
        _show_public_values(connection, shared)
    # A shared table is the view, unless the statement names the schema.
    names = ({"main"} if shared else set[str]()) | _WITHHELD[reach].keys() | (modules - TABLE_FUNCTIONS)
    connection.guarded = frozenset({""} if reach is Reach.SCHEMA else names)  # "" is in every statement
    functions = FUNCTIONS if reach is Reach.SCHEMA else FUNCTIONS | set(own_functions)
    connection.set_authorizer(_authorizer(connection, reach, functions, modules))


def open_virtual_tables(connection: BoundedConnection) -> None:
    """Let SQLite open the virtual tables of the file, if its schema has changed since they were opened.

    It runs statements then that are refused to visitors.
    """
    with suppress(sqlite3.Error), connection.trusted():  # a file of an older version has no such table
        connection.execute("SELECT 1 FROM search_descriptions LIMIT 0").fetchall()


def _show_public_values(connection: BoundedConnection, shared: Mapping[str, tuple[str, str]]) -> None:
    """Hide shared tables, and the views of the file, behind temporary views of the same names."""
    # Statements look up names among temporary views first. The file's own views do not, so they are created
    # again as temporary ones.
    with connection.trusted():
        views = connection.execute("SELECT sql FROM main.sqlite_master WHERE type = 'view'").fetchall()
        for table, (shown, unguarded) in shared.items():
            columns = connection.execute(f"PRAGMA main.table_info({table})").fetchall()
            if not columns:  # a mirror of another version, which is closed anyway
                continue
            # SQLite evaluates conditions in any order, so each value is guarded by its own CASE, in addition
            # to the condition on the row. CAST keeps the affinity of the column.
            values = [
                f"t.{name}"
                if name in unguarded.split()
                else f"CAST(CASE WHEN {shown} THEN t.{name} END AS {kind}) AS {name}"
                for _, name, kind, *_ in columns
            ]
            connection.execute(
                f"CREATE TEMP VIEW {RESERVED}{table} AS SELECT {', '.join(values)} FROM main.{table} t"
                f" WHERE {shown}"
            )
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT * FROM {RESERVED}{table}")
        for (sql,) in views:
            connection.execute(sql.replace("CREATE VIEW", "CREATE TEMP VIEW", 1))


def sees_history(connection: sqlite3.Connection) -> bool:
    """Return whether nothing of the past of public repositories is hidden on a connection."""
    is_public = isinstance(connection, BoundedConnection) and connection.is_public
    return not (is_public and hides_history(connection))


def suits(connection: BoundedConnection, reach: Reach) -> bool:
    """Return whether a reach of strangers hides what it must in the snapshot of a connection."""
    if reach is not Reach.PUBLIC:
        return True
    with connection.trusted():
        return not hides_refs(connection)


def functions_of(connection: sqlite3.Connection) -> set[str]:
    """Return the functions that a connection has."""
    return _names(connection, "function")


def _names(connection: sqlite3.Connection, kind: str) -> set[str]:
    return {row[0].lower() for row in connection.execute(f"SELECT name FROM pragma_{kind}_list")}


def _authorizer(
    connection: BoundedConnection, reach: Reach, functions: frozenset[str], modules: set[str]
) -> Authorizer:
    withheld, shared = _WITHHELD[reach], _SHARED.get(reach, {})

    def may_read(table: str, column: str, schema: str | None, view: str | None) -> int:
        if table in TABLE_FUNCTIONS or table in _SCHEMAS:
            return sqlite3.SQLITE_OK
        if reach is Reach.SCHEMA or table in modules or table.startswith("pragma_"):
            return sqlite3.SQLITE_DENY
        if table in shared:
            # The temporary views read them, and visitors read those views. Counting rows reads no column.
            is_shown = not column or schema == "temp" or str(view).startswith(RESERVED)
            return sqlite3.SQLITE_OK if is_shown else sqlite3.SQLITE_DENY
        columns = withheld.get(table)
        if columns is not None and (columns is ALL or column in columns):
            # Withheld columns read as NULL. They cannot fail, because Datasette's page of a row counts rows
            # in all tables that refer to it, even withheld ones.
            return sqlite3.SQLITE_IGNORE
        return sqlite3.SQLITE_OK

    def authorize(
        action: int, first: str | None, second: str | None, schema: str | None, view: str | None
    ) -> int:
        if action in _HARMLESS or connection.is_trusted:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            return may_read(str(first).lower(), str(second).lower(), schema, view)
        if action == sqlite3.SQLITE_FUNCTION:
            name = str(second).lower()
            allowed = name in functions and connection.may_call(name)
        else:
            allowed = action == sqlite3.SQLITE_PRAGMA and str(first).lower() in _PRAGMAS
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return authorize
