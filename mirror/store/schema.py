"""Recognise a mirror's file, a published one, a restored one, and its version.

Kept apart from the migrations, which readers do not need.
"""

import sqlite3

APPLICATION_ID = 0x4D495252
"""`PRAGMA application_id`: "MIRR", so that another program's file is never mistaken for a mirror."""

MIGRATIONS = "bitbucket-mirror"
"""The name of the list of migrations in a file."""

VERSION = 38
"""The number of migrations: `PRAGMA user_version` of an up-to-date file."""

KIND, PUBLISHED_AT, SNAPSHOT = "kind", "published_at", "snapshot"
"""Keys of `mirror_meta`, and the value of the first in a published file."""

RESTORED = "restored"
"""The stream in `cursors` that says that a file was restored from a copy, until its upstream was listed."""

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


def awaits_listing(connection: sqlite3.Connection) -> bool:
    """Return whether a copy was restored, and an upstream has not been listed in full since."""
    # CROSS: upstreams are few, and there is a cursor for each of thousands of workspaces.
    found = connection.execute(
        "SELECT 1 FROM upstreams CROSS JOIN cursors ON upstream_id = upstreams.id AND stream = ? LIMIT 1",
        (RESTORED,),
    )
    return found.fetchone() is not None
