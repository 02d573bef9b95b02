"""Marks of rows that changed since the last export to a lake. Triggers write them after the first export.

A mark names a repository, a user (with its members) or a project by its identity, and the epoch of the
change. A separate kind of mark says that repositories of an owner were seen; alone, it does not cause an
export. A mirror that is never exported has neither tables nor triggers.
"""

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from mirror.store.changes import last_change
from mirror.store.rows import fetch, fetch_one, fetch_value
from mirror.times import from_text, to_text

MIRROR_ID = "mirror_id"  # the key of `mirror_meta` that holds this mirror's unique identity

# The age at which an export that was not repeated loses its marks; the next one there is full.
FORGOTTEN_AFTER = timedelta(days=90)

EVERYTHING = "all"  # the kind of mark that causes a full export: a row changed its identity or was deleted

_TABLES = (
    """CREATE TABLE IF NOT EXISTS export_marks (
        kind TEXT NOT NULL,
        upstream_id INTEGER NOT NULL,
        uuid TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        PRIMARY KEY (kind, upstream_id, uuid)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS exports (
        id TEXT PRIMARY KEY,
        place TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        last_change INTEGER NOT NULL,
        at TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS export_epoch (number INTEGER NOT NULL)",
)

# Columns whose changes write no mark: every listing updates `last_seen_at`.
_UNMARKED = {
    "repositories": {"id", "last_seen_at", "refs_stale"},
    "users": {"id", "last_seen_at"},
    "projects": {"id", "last_seen_at"},
    "members": {"workspace_id", "user_id", "last_seen_at"},
    "branches": {"repository_id", "name"},
    "tags": {"repository_id", "name"},
}

_OWN = {"repositories": "repository", "users": "user", "projects": "project"}
_SEEN = "listing"
# Columns that determine which repositories of an owner are living, and when they were last seen.
_SEEN_BY = ("last_seen_at", "deleted_at", "owner_id")

_OF_OTHERS = {
    "branches": ("repository", "repositories", "repository_id"),
    "tags": ("repository", "repositories", "repository_id"),
    "followers": ("repository", "repositories", "repository_id"),
    "members": ("user", "users", "workspace_id"),
}

_EPOCH = "SELECT number FROM export_epoch"
_AGAIN = "ON CONFLICT DO UPDATE SET epoch = excluded.epoch WHERE epoch <> excluded.epoch"


class Position(NamedTuple):
    """The end of an export: it includes all epochs up to this one, and `changes` up to this id."""

    epoch: int
    last_change: int


class Begun(NamedTuple):
    """An export in progress: its id, the mirror's id, its end, and the end of the previous one.

    `since` is None if everything has to be exported.
    """

    id: str
    mirror: str
    until: Position
    since: Position | None


def begin_export(
    connection: sqlite3.Connection, *, before: str | None, place: str, at: str, full: bool
) -> Begun | None:
    """Begin an export, in a transaction; return None if nothing changed since the export `before`.

    `before` is the id of the export at the place. An id that this file does not know counts as none, as after
    a restore.
    """
    were_there = _make_triggers(connection)
    since = None
    if were_there and not full:
        known = "SELECT epoch, last_change FROM exports WHERE id = ?"
        since = fetch_one(Position, connection, known, (before,))
    if since is not None and _is_marked(connection, since, [EVERYTHING]):
        since = None
    until = Position(fetch_value(connection, _EPOCH), last_change(connection))
    unmoved = since is not None and until.last_change == since.last_change
    if unmoved and since is not None and not _is_marked(connection, since, _OWN.values()):
        return None
    begun = Begun(secrets.token_hex(8), mirror_id(connection), until, since)
    # A new epoch: what changes during an export belongs to the next one, and a file may have several places.
    connection.execute("UPDATE export_epoch SET number = number + 1")
    connection.execute("INSERT INTO exports VALUES (?, ?, ?, ?, ?)", (begun.id, place, *until, at))
    return begun


def finish_export(connection: sqlite3.Connection, begun: Begun, *, held: str, place: str, at: str) -> None:
    """Record the export at a place, and drop the marks that no place needs any more.

    `held` is the id of the export at the place; an earlier one if this export found nothing new.
    """
    old = to_text(from_text(at) - FORGOTTEN_AFTER)
    connection.execute(
        "INSERT OR REPLACE INTO exports VALUES (?, ?, ?, ?, ?)", (held, place, *begun.until, at)
    )
    connection.execute("DELETE FROM exports WHERE id <> ? AND (place = ? OR at < ?)", (held, place, old))
    connection.execute("DELETE FROM export_marks WHERE epoch <= (SELECT min(epoch) FROM exports)")


# By part of an export: the kind of its marks, and the table of the rows that they name.
MARKED = {
    "repositories": ("repository", "repositories"),
    "users": ("user", "users"),
    "projects": ("project", "projects"),
    "listings": (_SEEN, "users"),
}

# Lists the marked rows of a table in a temporary table.
CHOOSE = """INSERT INTO temp.chosen_{part} SELECT t.id FROM export_marks m
    JOIN {table} t ON t.upstream_id = m.upstream_id AND t.uuid = m.uuid WHERE m.kind = ? AND m.epoch > ?
    ORDER BY t.id"""


def last_export(connection: sqlite3.Connection, place: str) -> str | None:
    """Return the time of the last export to a place; None if there was none."""
    if not fetch(connection, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'exports'"):
        return None
    found: str | None = fetch_value(connection, "SELECT max(at) FROM exports WHERE place = ?", (place,))
    return found


def mirror_id(connection: sqlite3.Connection) -> str:
    """Return this mirror's unique id, which is created once and kept in the file."""
    # It starts with a letter, so that readers of a folder `mirror=ID` do not take it for a number.
    connection.execute(
        "INSERT OR IGNORE INTO mirror_meta VALUES (?, ?)", (MIRROR_ID, f"m{secrets.token_hex(8)[1:]}")
    )
    return str(fetch_value(connection, "SELECT value FROM mirror_meta WHERE key = ?", (MIRROR_ID,)))


def _is_marked(connection: sqlite3.Connection, since: Position, kinds: Iterable[str]) -> bool:
    sql = "SELECT 1 FROM export_marks WHERE kind = ? AND epoch > ? LIMIT 1"
    return any(fetch(connection, sql, (kind, since.epoch)) for kind in kinds)


def _make_triggers(connection: sqlite3.Connection) -> bool:
    """Create missing or outdated tables and triggers; return whether all were up to date."""
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO export_epoch SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM export_epoch)")
    found = dict(fetch(connection, "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    were_there = True
    for name, sql in _triggers(connection):
        if found.get(name) != sql:
            were_there = False
            connection.execute(f"DROP TRIGGER IF EXISTS {name}")
            connection.execute(sql)
    return were_there


def _triggers(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the name and the statement of each trigger."""
    everything = f"INSERT INTO export_marks VALUES ('{EVERYTHING}', 0, '', ({_EPOCH})) {_AGAIN}"
    for table, kind in _OWN.items():
        mark = f"INSERT INTO export_marks VALUES ('{kind}', NEW.upstream_id, NEW.uuid, ({_EPOCH})) {_AGAIN}"
        yield _trigger(f"export_{table}_inserted", f"INSERT ON {table}", mark)
        yield _trigger(f"export_{table}_updated", _marked_update(connection, table), mark)
        yield _trigger(f"export_{table}_identity", f"UPDATE OF uuid ON {table}", everything)
        yield _trigger(f"export_{table}_deleted", f"DELETE ON {table}", everything)
    yield _trigger(
        "export_upstreams_updated", "UPDATE OF url ON upstreams WHEN OLD.url IS NOT NEW.url", everything
    )
    for table, (kind, parents, column) in _OF_OTHERS.items():
        mark = f"""INSERT INTO export_marks SELECT '{kind}', upstream_id, uuid, ({_EPOCH})
            FROM {parents} WHERE id = {{}}.{column} {_AGAIN}"""
        yield _trigger(f"export_{table}_inserted", f"INSERT ON {table}", mark.format("NEW"))
        yield _trigger(f"export_{table}_deleted", f"DELETE ON {table}", mark.format("OLD"))
        if table in _UNMARKED:
            yield _trigger(f"export_{table}_updated", _marked_update(connection, table), mark.format("NEW"))
    seen = f"""INSERT INTO export_marks SELECT '{_SEEN}', upstream_id, uuid, ({_EPOCH})
        FROM users WHERE id IN ({{}}) {_AGAIN}"""
    yield _trigger("export_listings_inserted", "INSERT ON repositories", seen.format("NEW.owner_id"))
    yield _trigger(
        "export_listings_updated",
        _update_of("repositories", _SEEN_BY),
        seen.format("OLD.owner_id, NEW.owner_id"),
    )


def _trigger(name: str, event: str, statement: str) -> tuple[str, str]:
    return name, f"CREATE TRIGGER {name} AFTER {event} BEGIN {statement}; END"


def _marked_update(connection: sqlite3.Connection, table: str) -> str:
    """Return the trigger event for a change of any column that is exported."""
    columns = fetch(connection, "SELECT name FROM pragma_table_info(?)", (table,))
    return _update_of(table, [name for (name,) in columns if name not in _UNMARKED[table] | {"uuid"}])


def _update_of(table: str, columns: Sequence[str]) -> str:
    """Return the trigger event for a new value in one of these columns."""
    # Values are compared, since owners are written with each page that names them, mostly unchanged.
    differs = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in columns)
    return f"UPDATE OF {', '.join(columns)} ON {table} WHEN {differs}"
