"""Mirror files as older versions of the program left them: made by migrations, or restored from dumps."""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from sqlite_utils import Database

from mirror.search.index.backlog import rebuild_index
from mirror.store import schema
from mirror.store.migrations import migrations

MIGRATIONS = [migration.name for migration in migrations.pending(Database(memory=True))]
"""The names of all migrations, oldest first."""

DUMPS = sorted((Path(__file__).parent / "older").glob("*.sql"))
"""A dump of a file of each schema there was."""


def older(path: Path, up_to: str) -> None:
    """Make a file as the version left it whose last migration was `up_to`, with rows newer than its index."""
    at = MIGRATIONS.index(up_to) + 1
    path.write_bytes(_migrated(at))
    connection = sqlite3.connect(path)
    connection.executescript(
        """INSERT INTO upstreams (id, name, kind, url) VALUES (1, 'cloud', 'cloud', 'https://bitbucket.example');
        INSERT INTO users (id, upstream_id, uuid, username, kind, first_seen_at, last_seen_at)
            VALUES (1, 1, 'u', 'alice', 'team', '', '')"""
    )
    connection.executemany(
        """INSERT INTO repositories (id, upstream_id, uuid, owner_id, slug, name, full_name, is_private,
            first_seen_at, last_seen_at) VALUES (?, 1, ?, 1, ?, ?, '', 0, '', '')""",
        [(number, str(number), f"tool-{number}", f"Tool {number}") for number in range(1, 9)],
    )
    if at >= MIGRATIONS.index("m033_columns_of_the_search_index") + 1:
        if at <= MIGRATIONS.index("m041_segments"):
            connection.execute("CREATE TEMP TABLE search_segments (data)")  # which a rebuild empties
        rebuild_index(connection)
    elif at >= MIGRATIONS.index("m004_search_index") + 1:
        connection.execute("UPDATE search_state SET up_to = 8")  # what the index had is dropped anyway
    connection.execute("UPDATE repositories SET name = 'Other', slug = 'other' WHERE id = 2")
    connection.execute("DELETE FROM repositories WHERE id = 3")
    connection.execute(
        """INSERT INTO repositories (id, upstream_id, uuid, owner_id, slug, name, full_name, is_private,
            first_seen_at, last_seen_at) VALUES (9, 1, '9', 1, 'tool-9', 'Tool 9', '', 0, '', '')"""
    )
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {at}")
    connection.commit()
    connection.close()


@cache
def _migrated(at: int) -> bytes:
    """Return a file without rows after the first `at` migrations, made from the one before."""
    with closing(sqlite3.connect(":memory:")) as connection:
        if at > 1:
            connection.deserialize(_migrated(at - 1))
        stop = {"stop_before": MIGRATIONS[at]} if at < len(MIGRATIONS) else {}
        migrations.apply(Database(connection, execute_plugins=False), **stop)
        return connection.serialize()


def restored(path: Path, sql: str) -> None:
    """Make a file from a dump."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
