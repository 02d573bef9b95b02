"""Write extras: data of API 2.0 that no column holds (`mirror.api2_extras`)."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import msgspec

from mirror.addresses import API, WEB, Json, Told
from mirror.api2_extras import PUBLIC, difference, encoded, packed, pressed, public_part
from mirror.api2_objects import account_object, ref_object, repository_object, workspace_object
from mirror.api2_usual import RefComparison, RepositoryComparison, UsualRef, UsualRepository
from mirror.model import Owner, Ref, Repository
from mirror.store.rows import fetch_dicts, fetch_row

ExtraKind = Literal[
    "repository", "branch", "tag", "account", "workspace", "repository-1.0", "branch-1.0", "tag-1.0"
]

LARGEST = 8_000  # bytes that an extra may have, compressed

_SAVE = """INSERT INTO extras (kind, row_id, name, anonymous, value) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (kind, row_id, name) DO UPDATE SET anonymous = excluded.anonymous, value = excluded.value
    WHERE anonymous IS NOT excluded.anonymous OR value IS NOT excluded.value"""
_OWNER_FIELDS = ("id", "uuid", "username", "display_name", "nickname", "account_id", "kind", "avatar_url")


class Extra(NamedTuple):
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
    old = [(row_id, row.told) for row_id, row in rows.items() if row.told and row.told.api == "1.0"]
    connection.executemany(_SAVE, [_as_told("repository-1.0", row_id, told) for row_id, told in old])
    new = [(row_id, row, row.told) for row_id, row in rows.items() if row.told and row.told.api == "2.0"]
    without = rows.keys() - {row_id for row_id, *_ in new}
    if without:
        connection.execute(
            "DELETE FROM extras WHERE kind = 'repository' AND row_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(without)),),
        )
    if not new:
        return
    owners = _owners(connection, owner_ids.values())
    usual = dict[int, RepositoryComparison]()  # by owner
    extras, accounts = list[Extra](), dict[int, tuple[Told, Json]]()
    for row_id, row, told in new:
        owner = owners[owner_ids[row.owner.uuid]]
        if isinstance(told.value, UsualRepository):
            if owner.id not in usual:
                usual[owner.id] = RepositoryComparison(owner)
            plain, account = usual[owner.id].extra_of(told.value, row), told.value.account
        else:
            plain = encoded(difference(told.value, repository_object(row, owner, API, WEB)))
            account = told.value.get("owner")
        extras.append(_row_of_extra("repository", row_id, "", told, _kept("repository", plain)))
        if isinstance(account, dict) and account.get("uuid") == owner.uuid:
            accounts[owner.id] = (told, account)
    extras += [
        _extra("account", row_id, told, account, account_object(owners[row_id], API, WEB))
        for row_id, (told, account) in accounts.items()
    ]
    connection.executemany(_SAVE, extras)


def save_owner_extra(connection: sqlite3.Connection, user_id: int, owner: Owner) -> None:
    """Write the extra of a workspace or a member that was sent as an object of its own."""
    if owner.told is None:
        return
    row = _owners(connection, [user_id])[user_id]
    kind: ExtraKind = "workspace" if owner.kind == "workspace" else "account"
    shape = workspace_object if kind == "workspace" else account_object
    connection.execute(_SAVE, _extra(kind, user_id, owner.told, owner.told.value, shape(row, API, WEB)))


def save_ref_extras(
    connection: sqlite3.Connection, repository_id: int, refs: Iterable[Ref], repository: Any
) -> None:
    """Write the extras of branches and tags of `repository`, which has the fields of a model.Repository.

    Those read by git have none.
    """
    refs = list(refs)
    unread = [(ref.kind, repository_id, ref.name) for ref in refs if ref.told is None]
    held = "SELECT 1 FROM extras WHERE kind IN ('branch', 'tag') AND row_id = ? LIMIT 1"
    if unread and fetch_row(connection, held, (repository_id,)):  # refs read by git never have any
        drop_ref_extras(connection, unread)
    save_extras(connection, ref_extras(repository_id, repository, refs))


def save_extras(connection: sqlite3.Connection, extras: Iterable[Extra]) -> None:
    """Write extras."""
    connection.executemany(_SAVE, extras)


def ref_extras(repository_id: int, repository: Any, refs: Iterable[Ref]) -> list[Extra]:
    """Return the extras of refs, as `save_ref_extras` writes them."""
    usual, extras = RefComparison(repository), list[Extra]()
    last, kept = Json(), packed({})
    for ref in refs:
        told = ref.told
        if told is None:
            continue
        if told.api == "1.0":
            extras.append(
                _as_told("branch-1.0" if ref.kind == "branch" else "tag-1.0", repository_id, told, ref.name)
            )
            continue
        if isinstance(told.value, UsualRef):
            extra = usual.extra_of(told.value, ref)
        else:
            extra = difference(told.value, ref_object(repository, ref, API, WEB))
        if extra is not last:
            last, kept = extra, _kept("branch", encoded(extra))
        extras.append(_row_of_extra(ref.kind, repository_id, ref.name, told, kept))
    return extras


def drop_ref_extras(connection: sqlite3.Connection, refs: Sequence[tuple[str, int, str]]) -> None:
    """Drop the extras of refs, by kind, repository and name."""
    both = [(f"{kind}{api}", row_id, name) for kind, row_id, name in refs for api in ("", "-1.0")]
    connection.executemany("DELETE FROM extras WHERE kind = ? AND row_id = ? AND name = ?", both)


def _extra(kind: ExtraKind, row_id: int, told: Told, value: Json, ours: Json) -> Extra:
    """Compare an object as sent with the one that the columns give; return the row of the difference."""
    return _row_of_extra(kind, row_id, "", told, _kept(kind, encoded(difference(value, ours))))


def _kept(kind: ExtraKind, plain: bytes) -> bytes:
    """Return the text of an extra as it is stored; if it is too large, only known keys are kept."""
    kept = pressed(plain)
    if len(kept) <= LARGEST:
        return kept
    known = PUBLIC["ref" if kind in ("branch", "tag") else kind]
    return packed(public_part(msgspec.json.decode(plain), known))


def _as_told(kind: ExtraKind, row_id: int, told: Told, name: str = "") -> Extra:
    """Return the row with all data of an object of API 1.0."""
    return _row_of_extra(kind, row_id, name, told, packed(difference(told.value, {})))


def _row_of_extra(kind: ExtraKind, row_id: int, name: str, told: Told, kept: bytes) -> Extra:
    return Extra(kind, row_id, name, int(told.anonymous), kept if len(kept) <= LARGEST else packed({}))


def _owners(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, Any]:
    """Read the columns of owners as the server reads them."""
    found = fetch_dicts(
        connection,
        f"SELECT {', '.join(_OWNER_FIELDS)} FROM users WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(set(ids))),),
    )
    return {row["id"]: SimpleNamespace(**row) for row in found}
