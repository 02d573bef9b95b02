"""Write extras: data of API 2.0 that no column holds (`mirror.api2_objects`)."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from mirror.addresses import API, WEB, Json, Told
from mirror.api2_objects import (
    PUBLIC,
    account_object,
    difference,
    packed,
    public_part,
    ref_object,
    repository_object,
    workspace_object,
)
from mirror.model import Owner, Ref, Repository

ExtraKind = Literal[
    "repository", "branch", "tag", "account", "workspace", "repository-1.0", "branch-1.0", "tag-1.0"
]

LARGEST = 8_000
"""Bytes that an extra may have, compressed."""

_SAVE = """INSERT INTO extras (kind, row_id, name, anonymous, value) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (kind, row_id, name) DO UPDATE SET anonymous = excluded.anonymous, value = excluded.value
    WHERE anonymous IS NOT excluded.anonymous OR value IS NOT excluded.value"""
_OWNER_FIELDS = ("id", "uuid", "username", "display_name", "nickname", "account_id", "kind", "avatar_url")


class _Extra(NamedTuple):
    """A row of `extras`, in the order of its columns."""

    kind: ExtraKind
    row_id: int
    name: str
    anonymous: int
    value: bytes


def save_repository_extras(
    connection: sqlite3.Connection, rows: Mapping[int, Repository], owner_ids: Mapping[str, int]
) -> None:
    """Write the extras of a page of repositories, by row id, and of their owners."""
    old = [_as_told("repository-1.0", row_id, row.told) for row_id, row in rows.items()
           if row.told is not None and row.told.api == "1.0"]  # fmt: skip
    connection.executemany(_SAVE, old)
    told = {row_id: row for row_id, row in rows.items() if row.told is not None and row.told.api == "2.0"}
    _drop(connection, "repository", [row_id for row_id in rows if row_id not in told])
    if not told:
        return
    owners = _owners(connection, owner_ids.values())
    extras = list[_Extra]()
    accounts = dict[int, _Extra]()
    for row_id, row in told.items():
        owner, object_told = owners[owner_ids[row.owner.uuid]], _value(row.told)
        ours = repository_object(row, owner, API, WEB)
        extras.append(_extra("repository", row_id, row.told, object_told, ours))
        account = object_told.get("owner")
        if isinstance(account, dict) and account.get("uuid") == owner.uuid:
            accounts[owner.id] = _extra(
                "account", owner.id, row.told, account, account_object(owner, API, WEB)
            )
    connection.executemany(_SAVE, [*extras, *accounts.values()])


def save_owner_extra(connection: sqlite3.Connection, user_id: int, owner: Owner) -> None:
    """Write the extra of a workspace or a member that was sent as an object of its own."""
    if owner.told is None:
        return
    row = _owners(connection, [user_id])[user_id]
    kind: ExtraKind = "workspace" if owner.kind == "workspace" else "account"
    shape = workspace_object if kind == "workspace" else account_object
    connection.execute(_SAVE, _extra(kind, user_id, owner.told, _value(owner.told), shape(row, API, WEB)))


def save_ref_extras(connection: sqlite3.Connection, repository_id: int, refs: Iterable[Ref]) -> None:
    """Write the extras of branches and tags; those read by git have none."""
    refs = list(refs)
    unread = [(ref.kind, repository_id, ref.name) for ref in refs if ref.told is None]
    if (
        unread
        and connection.execute(
            "SELECT 1 FROM extras WHERE kind IN ('branch', 'tag') AND row_id = ? LIMIT 1", (repository_id,)
        ).fetchone()
    ):
        drop_ref_extras(connection, unread)
    old = [ref for ref in refs if ref.told is not None and ref.told.api == "1.0"]
    connection.executemany(
        _SAVE,
        [
            _as_told("branch-1.0" if ref.kind == "branch" else "tag-1.0", repository_id, ref.told, ref.name)
            for ref in old
        ],
    )
    told = [ref for ref in refs if ref.told is not None and ref.told.api == "2.0"]
    if told:
        connection.executemany(_SAVE, _ref_extras(connection, repository_id, told))


def _ref_extras(connection: sqlite3.Connection, repository_id: int, told: list[Ref]) -> list[_Extra]:
    """Return the differences between refs as API 2.0 sent them and as their columns give them."""
    names = ("uuid", "full_name", "name", "avatar_url")
    found = connection.execute(
        f"SELECT {', '.join(names)} FROM repositories WHERE id = ?", (repository_id,)
    ).fetchone()
    repository = SimpleNamespace(**dict(zip(names, found, strict=True)))
    return [
        _extra(
            ref.kind,
            repository_id,
            ref.told,
            _value(ref.told),
            ref_object(repository, ref, API, WEB),
            ref.name,
        )
        for ref in told
    ]


def drop_ref_extras(connection: sqlite3.Connection, refs: Sequence[tuple[str, int, str]]) -> None:
    """Drop the extras of refs, by kind, repository and name."""
    both = [(f"{kind}{api}", row_id, name) for kind, row_id, name in refs for api in ("", "-1.0")]
    connection.executemany("DELETE FROM extras WHERE kind = ? AND row_id = ? AND name = ?", both)


def _drop(connection: sqlite3.Connection, kind: ExtraKind, ids: Sequence[int]) -> None:
    if ids:
        connection.execute(
            "DELETE FROM extras WHERE kind = ? AND row_id IN (SELECT value FROM json_each(?))",
            (kind, json.dumps(ids)),
        )


def _value(told: Told | None) -> Json:
    return {} if told is None else told.value


def _extra(
    kind: ExtraKind, row_id: int, told: Told | None, value: Json, ours: Json, name: str = ""
) -> _Extra:
    """Compare an object as sent with the one that the columns give; return the row of the difference.

    If it is too large, only known keys are kept.
    """
    anonymous = told is not None and told.anonymous
    extra = difference(value, ours)
    kept = packed(extra)
    if len(kept) > LARGEST:
        kept = packed(public_part(extra, PUBLIC["ref" if kind in ("branch", "tag") else kind]))
    return _Extra(kind, row_id, name, int(anonymous), kept if len(kept) <= LARGEST else packed({}))


def _as_told(kind: ExtraKind, row_id: int, told: Told | None, name: str = "") -> _Extra:
    """Return the row with all data of an object of API 1.0."""
    anonymous = told is not None and told.anonymous
    kept = packed(difference(_value(told), {}))
    return _Extra(kind, row_id, name, int(anonymous), kept if len(kept) <= LARGEST else packed({}))


def _owners(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, Any]:
    """Read the columns of owners as the server reads them."""
    found = connection.execute(
        f"SELECT {', '.join(_OWNER_FIELDS)} FROM users WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(set(ids))),),
    )
    return {row[0]: SimpleNamespace(**dict(zip(_OWNER_FIELDS, row, strict=True))) for row in found}
