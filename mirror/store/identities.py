"""One repository is one row, and one namespace one owner, whatever an answer leaves out.

Where an upstream gives uuids, a row without one is refused: saved by its name, it would be a second row of
the same repository that nothing keeps current. Such rows from earlier versions are merged into the one that
has the uuid.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from mirror.model import NAMED, Owner, Repository, canonical_uuid
from mirror.store.cursors import Cursors

_ODD = """(uuid < '{' OR uuid >= '|' OR length(uuid) > 66 OR uuid GLOB '*[A-Z ]*')"""
"""Finds, by the index alone, every uuid that is not in its canonical form, and some that are."""


class Refused(NamedTuple):
    """A row that is not written, and why."""

    row: Repository
    why: str


def is_named(identity: str) -> bool:
    """Tell whether an identity is nothing but a name."""
    return identity.startswith(NAMED)


def known_by_uuid(connection: sqlite3.Connection, upstream_id: int, names: Iterable[str]) -> set[str]:
    """Return those of some namespaces, in lower case, whose owner is known by an identity of its own."""
    found = connection.execute(
        """SELECT username, uuid FROM users WHERE upstream_id = ? AND is_owner
           AND username COLLATE NOCASE IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(sorted(names))),
    )
    return {name.lower() for name, uuid in found if not is_named(uuid)}


def told_apart(
    connection: sqlite3.Connection, upstream_id: int, rows: Iterable[Repository]
) -> tuple[list[Repository], list[Refused]]:
    """Split a page into rows that can be told from all others, each of them once, and those that cannot.

    Two rows of one identity and one name are one row, private if either says so. Two of one identity and
    two names are two repositories: the first is kept, and private if the second is.
    """
    page, refused = dict[str, Repository](), list[Refused]()
    for row in _with_uuids(connection, upstream_id, list(rows), refused):
        first = page.get(row.uuid)
        kept = row
        if first is not None and first.full_name.lower() != row.full_name.lower():
            kept = first
            refused.append(Refused(row, f"it has the uuid of {first.full_name}, which is on the same page"))
        if first is not None and (first.is_private or row.is_private):
            kept = msgspec.structs.replace(kept, is_private=True)
        page[row.uuid] = kept
    return list(page.values()), refused


def _with_uuids(
    connection: sqlite3.Connection, upstream_id: int, rows: list[Repository], refused: list[Refused]
) -> Iterator[Repository]:
    """Yield the rows but for those without uuid in a namespace that is known by one."""
    unsure = {_namespace(row) for row in rows if is_named(row.uuid) or is_named(row.owner.uuid)}
    sure = {_namespace(row) for row in rows if not is_named(row.owner.uuid)}
    if unsure:
        sure |= known_by_uuid(connection, upstream_id, unsure)
    for row in rows:
        if _namespace(row) not in sure or not (is_named(row.uuid) or is_named(row.owner.uuid)):
            yield row
        else:
            whose = "no uuid" if is_named(row.uuid) else "no uuid of its workspace"
            refused.append(Refused(row, f"it tells {whose}, though others of {_namespace(row)} have one"))


def _namespace(row: Repository) -> str:
    return row.full_name.partition("/")[0].lower()


def adopt_repositories(connection: sqlite3.Connection, upstream_id: int, rows: Iterable[Repository]) -> None:
    """Give living rows that are known by name alone the uuid of the row of the same name."""
    names = {f"{NAMED}{row.full_name.lower()}": row.uuid for row in rows if not is_named(row.uuid)}
    found = connection.execute(
        """SELECT id, uuid FROM repositories
           WHERE upstream_id = ? AND deleted_at IS NULL AND uuid IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(list(names))),
    ).fetchall()
    for row_id, name in found:
        _give_uuid(connection, "repositories", upstream_id, row_id, names[name])


def adopt_owner(connection: sqlite3.Connection, upstream_id: int, owner: Owner) -> None:
    """Give an owner that is known by name alone the uuid of the owner of this name."""
    if owner.username is None or is_named(owner.uuid):
        return
    found = connection.execute(
        "SELECT id FROM users WHERE upstream_id = ? AND uuid = ?",
        (upstream_id, f"{NAMED}{owner.username.lower()}"),
    ).fetchone()
    if found:
        _give_uuid(connection, "users", upstream_id, found[0], owner.uuid)


def merge_second_rows(connection: sqlite3.Connection, upstream_id: int) -> list[str]:
    """Merge second rows of one owner or repository, of an upstream that has uuids; return the full names.

    A second row has the same name as a living one, and no uuid or one in another form.
    """
    for row_id, uuid, name in _odd(connection, "users", "username", upstream_id, "is_owner"):
        first = canonical_uuid(uuid) or _uuid_of(connection, "users", "username", upstream_id, name)
        if first not in (None, uuid):
            _give_uuid(connection, "users", upstream_id, row_id, first)
    merged = list[str]()
    for row_id, uuid, name in _odd(
        connection, "repositories", "full_name", upstream_id, "deleted_at IS NULL"
    ):
        first = canonical_uuid(uuid) or _uuid_of(connection, "repositories", "full_name", upstream_id, name)
        if first not in (None, uuid) and _give_uuid(connection, "repositories", upstream_id, row_id, first):
            merged.append(name)
    return merged


def without_uuid(connection: sqlite3.Connection, upstream_id: int) -> list[tuple[int, str]]:
    """List id and full name of living rows without uuid whose owners have one."""
    found = connection.execute(
        f"""SELECT r.id, r.uuid, r.full_name FROM
                (SELECT id, uuid, full_name, owner_id FROM repositories
                 WHERE upstream_id = ? AND deleted_at IS NULL AND {_ODD}) r
            JOIN users o ON o.id = r.owner_id WHERE o.uuid GLOB '{{*' ORDER BY r.id""",
        (upstream_id,),
    )
    return [(row[0], row[2]) for row in found if canonical_uuid(row[1]) is None]


def _odd(
    connection: sqlite3.Connection, table: str, name: str, upstream_id: int, condition: str
) -> list[tuple[int, str, str]]:
    """List id, identity and name of the rows of a table whose identity may be in another form or none."""
    return connection.execute(
        f"SELECT id, uuid, {name} FROM {table} WHERE upstream_id = ? AND {_ODD} AND {condition}",
        (upstream_id,),
    ).fetchall()


def _uuid_of(
    connection: sqlite3.Connection, table: str, column: str, upstream_id: int, name: str | None
) -> str | None:
    """Return the uuid of a living row of a name, if there is one that has a uuid."""
    found = connection.execute(
        f"""SELECT uuid FROM {table} WHERE upstream_id = ? AND {column} = ? COLLATE NOCASE
            AND deleted_at IS NULL ORDER BY last_seen_at DESC""",
        (upstream_id, name),
    )
    return next((row[0] for row in found if canonical_uuid(row[0]) == row[0]), None)


def _give_uuid(
    connection: sqlite3.Connection, table: str, upstream_id: int, row_id: int, uuid: str | None
) -> bool:
    """Give a row its uuid; if another row has it already, merge the row into that one and return True."""
    first = connection.execute(
        f"SELECT id FROM {table} WHERE upstream_id = ? AND uuid = ?", (upstream_id, uuid)
    ).fetchone()
    if first is None:
        connection.execute(f"UPDATE {table} SET uuid = ? WHERE id = ?", (uuid, row_id))
        return False
    if table == "repositories":
        _keep_hidden(connection, upstream_id, row_id, first[0])
    _point_elsewhere(connection, table, row_id, first[0])
    connection.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))
    return True


_OF_ONE_ROW = ("branches", "tags", "followers", "seen_refs", "sync_failures")
"""Tables whose rows of a second row are dropped; they are read again for the first."""


def _keep_hidden(connection: sqlite3.Connection, upstream_id: int, twin: int, first: int) -> None:
    """Drop what was read of a second row; none of its hidden changes becomes public."""
    for table in _OF_ONE_ROW:
        connection.execute(f"DELETE FROM {table} WHERE repository_id = ?", (twin,))
    connection.execute("DELETE FROM changes WHERE repository_id = ? AND kind = 'created'", (twin,))
    Cursors(connection, upstream_id).drop_refs([twin])
    connection.execute(
        """UPDATE repositories SET public_from = max(public_from, (
               SELECT iif(t.is_private, (SELECT coalesce(max(id), 0) FROM changes), t.public_from)
               FROM repositories t WHERE t.id = :twin)) WHERE id = :first""",
        {"twin": twin, "first": first},
    )


def _point_elsewhere(connection: sqlite3.Connection, table: str, twin: int, first: int) -> None:
    """Let all references to a second row refer to the first one."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for other in tables:
        keys = connection.execute(f'PRAGMA foreign_key_list("{other}")').fetchall()
        for column in [key[3] for key in keys if key[2] == table]:
            connection.execute(
                f'UPDATE OR IGNORE "{other}" SET "{column}" = ? WHERE "{column}" = ?', (first, twin)
            )
            connection.execute(f'DELETE FROM "{other}" WHERE "{column}" = ?', (twin,))
