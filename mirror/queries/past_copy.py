"""Past repositories as a mirror in memory, so that all code that reads the file also shows the past."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mirror.model import NAMED
from mirror.queries.past_state import Past
from mirror.queries.refs import TABLES
from mirror.queries.repositories import RepositoryDetails, repository_details
from mirror.queries.rows import fetch_dicts
from mirror.queries.visibility import OPERATOR
from mirror.store.new_files import memory_copy

_OF_PEOPLE = ("display_name", "first_name", "last_name", "nickname", "avatar_url")
"""Columns of accounts whose changes are not recorded."""


@contextmanager
def past_copy(connection: sqlite3.Connection, pasts: Sequence[Past]) -> Iterator[sqlite3.Connection]:
    """Give a mirror in memory that holds some repositories as they were, with their owners and refs."""
    owners, repositories = dict[int, dict[str, Any]](), list[dict[str, Any]]()
    for past in pasts:
        owner = _owner(connection, past)
        owners[owner["id"]] = owner
        repositories.append({**past.columns, "owner_id": owner["id"]})
    copy = memory_copy(
        connection,
        {
            "upstreams": fetch_dicts(connection, "SELECT * FROM upstreams"),
            "users": owners.values(),
            "members": [row for owner in owners for row in _members(connection, owner)],
            "repositories": repositories,
            **{table: list(_refs(pasts, kind)) for kind, table in TABLES.items()},
        },
    )
    try:
        yield copy
    finally:
        copy.close()


def _refs(pasts: Sequence[Past], kind: str) -> Iterator[dict[str, Any]]:
    for past in pasts:
        for ref in past.refs:
            if ref.row.kind == kind:
                yield {"repository_id": past.columns["id"], **ref.row.columns()}


def _members(connection: sqlite3.Connection, owner_id: int) -> list[dict[str, Any]]:
    """Read who is a member today, which decides who may see what."""
    return fetch_dicts(connection, "SELECT * FROM members WHERE workspace_id = :id", {"id": owner_id})


def _owner(connection: sqlite3.Connection, past: Past) -> dict[str, Any]:
    """Return the account that owned a repository, by the name that it had.

    After a transfer only the name of the former owner is known: one of that name today is taken for it.
    """
    name, row = past.full_name.partition("/")[0], past.columns
    found = fetch_dicts(
        connection,
        """SELECT * FROM users WHERE id = :id OR (:id IS NULL AND upstream_id = :upstream
            AND username = :name COLLATE NOCASE) ORDER BY NOT is_owner, id LIMIT 1""",
        {"id": row["owner_id"], "upstream": row["upstream_id"], "name": name},
    )
    owner = found[0] if found else _unknown_owner(row, name)
    if past.at < owner["last_seen_at"]:
        owner |= dict.fromkeys(_OF_PEOPLE)
    if past.at < (owner["deleted_at"] or ""):
        owner |= {"deleted_at": None, "gone_reason": None}
    return {**owner, "username": name, "last_seen_at": row["last_seen_at"]}


def _unknown_owner(row: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the row of an owner of whom only the name is known; the file has no row of its number."""
    return {
        "id": -row["id"],
        "upstream_id": row["upstream_id"],
        "uuid": f"{NAMED}{name.lower()}",
        "kind": "user",
        "is_owner": 1,
        "first_seen_at": row["first_seen_at"],
        "last_seen_at": row["last_seen_at"],
        "deleted_at": None,
        "gone_reason": None,
    }


def details_of(connection: sqlite3.Connection, past: Past) -> RepositoryDetails | None:
    """Return the result of `repository_details` at the moment, for a caller who may see everything."""
    with past_copy(connection, [past]) as copy:
        return repository_details(copy, OPERATOR, past.full_name)


def past_exported(details: RepositoryDetails, past: Past) -> dict[str, Any]:
    """Return the data of `mirror show --json` at a moment: its usual keys, and the looks around it."""
    told, looks = details.exported(), past.refs_by_name()
    for kind, table in TABLES.items():
        for ref in told[table] or ():
            ref.update(looks[kind, ref["name"]].exported())
    return {**told, **past.bounds()}
