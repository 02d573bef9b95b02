"""Recognise a mirror's file, a published one, and its version.

Kept apart from the migrations, which readers do not need.
"""

import sqlite3

APPLICATION_ID = 0x4D495252
"""`PRAGMA application_id`: "MIRR", so that another program's file is never mistaken for a mirror."""

MIGRATIONS = "bitbucket-mirror"
"""The name of the list of migrations in a file."""

VERSION = 36
"""The number of migrations: `PRAGMA user_version` of an up-to-date file."""

KIND, PUBLISHED_AT, SNAPSHOT = "kind", "published_at", "snapshot"
"""Keys of `mirror_meta`, and the value of the first in a published file."""

_MOMENT = """SELECT (SELECT value FROM mirror_meta WHERE key = 'published_at')
    FROM mirror_meta WHERE key = 'kind' AND value = 'snapshot'"""


def snapshot_moment(connection: sqlite3.Connection) -> str | None:
    """Return the moment of a published file; None for a file that is not a snapshot."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'mirror_meta'").fetchone():
        return None  # a mirror of an older version
    found = connection.execute(_MOMENT).fetchone()
    return None if found is None else found[0] or ""


def mark_as_snapshot(connection: sqlite3.Connection, moment: str) -> None:
    """Mark a file as a snapshot of a moment, also in its list of migrations."""
    connection.executemany(
        "INSERT INTO mirror_meta (key, value) VALUES (?, ?)", [(KIND, SNAPSHOT), (PUBLISHED_AT, moment)]
    )
    connection.execute("UPDATE _sqlite_migrations SET applied_at = ?", (moment,))
