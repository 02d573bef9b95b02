"""Branches and tags, and whether they were read at all."""

import re
import sqlite3
from typing import TYPE_CHECKING

import msgspec

from mirror.queries.rows import NOT_OF, RefRow
from mirror.store.rows import fetch_as, fetch_one, fetch_row, fetch_value
from mirror.store.schema import PSEUDO_TAG, REF_TABLES

if TYPE_CHECKING:
    from mirror.model import RefKind

KINDS: "tuple[RefKind, ...]" = ("branch", "tag")
REFS_READ, REFS_NOT_MIRRORED = "read", "not mirrored"

_MADE_AT: "dict[RefKind, str]" = {"branch": "target_date", "tag": "coalesce(date, target_date)"}

ORDERS = {
    "newest": "name <> :first, {made_at} DESC, name",
    "oldest": "{made_at} IS NULL, {made_at}, name",
    "name": "name",
    "last": "name DESC",
}
"""The orders of a page of refs; `newest` puts the main branch first."""


class RefsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the refs of a repository whose name holds `part`, in one of ORDERS.

    `first` is the name of the main branch.
    """

    kind: "RefKind"
    first: str | None = None
    part: str = ""
    order: str = "newest"
    page: int = 1
    size: int = 50


class RefsPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of refs: the number of all refs and of matches, and the date of the oldest."""

    wanted: RefsWanted
    total: int
    count: int
    oldest: str | None
    rows: list[RefRow]


def refs_state(shown: str = "1") -> str:
    """Return, as SQL, whether the refs of the repository `r` were read.

    One of "read" (once, in full; `refs_synced_at` says when last), "not read yet", "never read" (it is gone),
    "not mirrored" (the upstream is configured with ``refs = "none"``). Refs that are not `shown` (a
    condition) count as not read.
    """
    return f"""CASE WHEN r.refs_synced_at IS NOT NULL AND {shown} THEN '{REFS_READ}'
        WHEN (SELECT refs FROM upstreams WHERE id = r.upstream_id) = 'none' THEN '{REFS_NOT_MIRRORED}'
        WHEN r.deleted_at IS NOT NULL THEN 'never read' ELSE 'not read yet' END"""


def select_refs(*kinds: "RefKind") -> str:
    """Return the statement that reads the branches, the tags or both of `:repository` as `RefRow`."""
    return " UNION ALL ".join(
        f"SELECT {_columns(kind)} FROM {REF_TABLES[kind]} WHERE repository_id = :repository" for kind in kinds
    )


def _columns(kind: "RefKind") -> str:
    """List the fields of `RefRow` for one kind of refs; fields of the other kind are NULL."""
    fixed = {"kind": f"'{kind}'", **dict.fromkeys(NOT_OF[kind], "NULL")}
    return ", ".join(
        f"{fixed[field]} AS {field}" if field in fixed else field for field in RefRow.__struct_fields__
    )


def refs_by_name(connection: sqlite3.Connection, kind: "RefKind", repository_id: int) -> list[RefRow]:
    """Read the branches or tags of a repository, by name."""
    sql = f"{select_refs(kind)} ORDER BY name"
    return fetch_as(RefRow, connection, sql, {"repository": repository_id})


def newest_refs(
    connection: sqlite3.Connection, kind: "RefKind", repository_id: int, first: str | None
) -> list[RefRow]:
    """Read the branches or tags of a repository: the main branch `first`, then the newest."""
    sql = f"{select_refs(kind)} ORDER BY {ORDERS['newest'].format(made_at=_MADE_AT[kind])}"
    return fetch_as(RefRow, connection, sql, {"repository": repository_id, "first": first or ""})


def ref_named(
    connection: sqlite3.Connection, kind: "RefKind", repository_id: int, name: str
) -> RefRow | None:
    """Find a branch or a tag by its whole name."""
    sql = f"{select_refs(kind)} AND name = :name"
    return fetch_one(RefRow, connection, sql, {"repository": repository_id, "name": name})


class Ambiguous(msgspec.Struct, frozen=True):
    """A short hash that matches several commits."""


_HASH = re.compile(r"[0-9a-f]{4,64}", re.IGNORECASE)
_WHOLE = 40  # digits of a whole hash, or more


def ref_of_commit(
    connection: sqlite3.Connection, repository_id: int, revision: str
) -> RefRow | Ambiguous | None:
    """Find a ref by a revision: its commit's hash, its name, or at least four digits of a hash.

    As git reads it: a name that could be the beginning of a hash is the name.
    """
    each = (ref_named(connection, kind, repository_id, revision) for kind in KINDS)
    named = next((row for row in each if row is not None), None)
    if not _HASH.fullmatch(revision) or (named is not None and len(revision) < _WHOLE):
        return named
    sql = f"""SELECT * FROM ({select_refs(*KINDS)})
        WHERE substr(target_hash, 1, length(:start)) = :start ORDER BY kind, name"""
    found = fetch_as(RefRow, connection, sql, {"repository": repository_id, "start": revision.lower()})
    if len({row.target_hash for row in found}) > 1:
        return Ambiguous()
    return found[0] if found else named


def newest_tag(connection: sqlite3.Connection, repository_id: int) -> RefRow | None:
    """Find the newest tag."""
    sql = f"""{select_refs("tag")} AND name <> :pseudo_tag
        ORDER BY {_MADE_AT["tag"]} DESC, name DESC LIMIT 1"""
    return fetch_one(RefRow, connection, sql, {"repository": repository_id, "pseudo_tag": PSEUDO_TAG})


def refs_page(connection: sqlite3.Connection, repository_id: int, wanted: RefsWanted) -> RefsPage:
    """Read a page of branches or tags."""
    made_at = _MADE_AT[wanted.kind]
    values = {
        "repository": repository_id,
        "part": wanted.part,
        "first": wanted.first or "",
        "size": wanted.size,
        "start": (wanted.page - 1) * wanted.size,
    }
    matching = "(:part = '' OR instr(lower(name), lower(:part)) > 0)"
    of_repository = f"FROM {REF_TABLES[wanted.kind]} WHERE repository_id = :repository"
    total, oldest = fetch_row(connection, f"SELECT count(*), min({made_at}) {of_repository}", values)
    order = ORDERS[wanted.order].format(made_at=made_at)
    return RefsPage(
        wanted=wanted,
        total=total,
        count=fetch_value(connection, f"SELECT count(*) {of_repository} AND {matching}", values),
        oldest=oldest,
        rows=fetch_as(
            RefRow,
            connection,
            f"{select_refs(wanted.kind)} AND {matching} ORDER BY {order} LIMIT :size OFFSET :start",
            values,
        ),
    )
