"""The schema of a mirror's file: its version, how a file is brought up to date, and how new ones are made.

`mirror.store.files` recognises a file. The migrations are kept apart, since readers do not need them.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirror.model import RefKind

# `PRAGMA application_id`: "MIRR", so that another program's file is never mistaken for a mirror.
APPLICATION_ID = 0x4D495252

MIGRATIONS = "bitbucket-mirror"  # the name of the list of migrations in a file

# Their names, which begin with `search_`; a full-text index makes more tables beside its own.
_PARTS = """
    columns common crowds deleted dense description_added description_changed description_removed descriptions
    descriptions_texts languages odd_owners pending rare ref_blocks ref_branches_deleted ref_branches_inserted
    ref_branches_updated ref_common ref_counts ref_hashes ref_lists ref_moved ref_names ref_paths ref_pending
    ref_rare ref_repository_deleted ref_repository_updated ref_spans ref_state ref_tags_deleted
    ref_tags_inserted ref_tags_updated segments state unprepared updated
"""
SEARCH_PARTS = frozenset(f"search_{name}" for name in _PARTS.split())
"""The tables, triggers and indexes of the search indexes, which other programs may drop."""

VERSION = 42  # the number of migrations: `PRAGMA user_version` of an up-to-date file

# Keys of `mirror_meta`, and the value of the first in a published file.
KIND, PUBLISHED_AT, SNAPSHOT = "kind", "published_at", "snapshot"

REF_TABLES: "dict[RefKind, str]" = {"branch": "branches", "tag": "tags"}
PSEUDO_TAG = "tip"  # Mercurial's name for the newest commit: no tag that anybody made

HIDDEN = 2**63 - 1  # the `public_from` that hides all changes, and refs

NAMESAKES_ORDER = "r.upstream_id, r.last_seen_at DESC, r.id"
"""The order of living repositories `r` of one name. The upstream gave it to the one that was seen last.

The others have lost it since; the upstream has not said yet what became of them.
"""

# The stream in `cursors` that says that a file was restored from a copy, until its upstream was listed.
RESTORED = "restored"


def mark_as_snapshot(connection: sqlite3.Connection, moment: str) -> None:
    """Mark a file as a snapshot of a moment."""
    connection.executemany(
        "INSERT INTO mirror_meta (key, value) VALUES (?, ?)", [(KIND, SNAPSHOT), (PUBLISHED_AT, moment)]
    )
    # So that the file does not depend on when it was written: the same rows give the same bytes.
    connection.execute("UPDATE _sqlite_migrations SET applied_at = ?", (moment,))


def awaits_listing(connection: sqlite3.Connection) -> bool:
    """Return whether a copy was restored, and an upstream has not been listed in full since."""
    # CROSS: upstreams are few, and there is a cursor for each of thousands of workspaces.
    found = connection.execute(
        "SELECT 1 FROM upstreams CROSS JOIN cursors ON upstream_id = upstreams.id AND stream = ? LIMIT 1",
        (RESTORED,),
    )
    return found.fetchone() is not None


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Apply the missing migrations in one transaction: if the process is killed, the file is as before.

    A file that has tables and no mark was restored from a dump: what the dump left out beside them is made.
    So it is for one that has the mark but lacks parts of its search indexes, which may have fallen behind.
    """
    # Most files are up to date, and these imports take more time than a search.
    from sqlite_utils import Database  # noqa: PLC0415

    from mirror.store.migrations import migrations  # noqa: PLC0415

    database = Database(connection, execute_plugins=False)
    is_restored = connection.execute(
        "SELECT application_id <> ? AND EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_application_id",
        (APPLICATION_ID,),
    ).fetchone()[0]
    with database.atomic():
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrations.apply(database)
        # Missing if an earlier version was killed while it created the file.
        connection.execute(_INDEX_OF_MIGRATIONS)
        is_partial = not is_restored and lacks_search_parts(connection)
        has_new_tables = (is_restored or is_partial) and _add_missing(connection)
        if is_partial or has_new_tables:
            for table in ("search_state", "search_ref_state"):  # the next sync builds the indexes anew
                connection.execute(f"DELETE FROM {table}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def lacks_search_parts(connection: sqlite3.Connection) -> bool:
    """Return whether a file of this version lacks tables, triggers or indexes of its search indexes."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE name GLOB 'search_*'")
    return not SEARCH_PARTS.issubset(name for (name,) in found)  # users may have added others of such names


def _add_missing(connection: sqlite3.Connection) -> bool:
    """Make what a file lacks of indexes, views, triggers and search tables; return whether of the last."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        bring_up_to_date(new)
        made = new.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        ).fetchall()
    has_new_tables = False
    for kind, name, sql in made:
        if kind == "table" and name not in SEARCH_PARTS:
            continue
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone():
            connection.execute(sql)
            has_new_tables |= kind == "table"
    return has_new_tables


_INDEX_OF_MIGRATIONS = """CREATE UNIQUE INDEX IF NOT EXISTS idx__sqlite_migrations_migration_set_name
    ON _sqlite_migrations (migration_set, name)"""

CACHE_KIB = 40_000  # memory for the pages of a file, and for sorting an index before it is written


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
    """Return the bytes of an empty mirror without indexes, and the statements for its indexes."""
    # Cached: migrations take more time than the rows of a small file.
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        bring_up_to_date(connection)
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
        ).fetchall()
        for name, _ in found:
            connection.execute(f'DROP INDEX "{name}"')
        return connection.serialize(), tuple(sql for _, sql in found)


Rows = Mapping[str, Iterable[Mapping[str, Any]]]  # rows by table, each as a mapping of columns to values


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
