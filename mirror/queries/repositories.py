"""Repositories, as far as a caller may see them: single ones, lists, and pages of ids.

One statement reads them all; only its source, condition and order differ.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec

from mirror.queries.file_state import kept_repositories
from mirror.queries.refs import KINDS, REFS_READ, newest_refs, refs_state
from mirror.queries.rows import (
    ANY_UPSTREAM,
    IS_NAME,
    IS_UUID,
    AccountRow,
    RefRow,
    RepositoryRow,
    Values,
    upstreams_of,
)
from mirror.queries.visibility import (
    IS_OWN_ID,
    SHOWN_TO_ALL,
    Caller,
    first_seen,
    forks_count,
    is_own,
    shows_refs,
    visible,
    visible_parent,
)
from mirror.queries.web_links import RefKey, RefLinks, RepositoryLinks, WebLinks
from mirror.store.rows import fetch, fetch_as, fetch_row
from mirror.store.schema import NAMESAKES_ORDER

RECENT = 8
"""The length of the list of the repositories that were updated last."""

OWNED_ORDERS = {
    "updated": "r.updated_at DESC",
    "name": "r.slug COLLATE NOCASE",
    "followers": "coalesce(r.followers_count, 0) DESC",
    "size": "coalesce(r.size, 0) DESC",
}
"""The orders of an owner's repositories."""

_PAGE = 100
_OWNER = "(SELECT username FROM users WHERE id = r.owner_id)"
_DECODER = msgspec.json.Decoder(list[RepositoryRow])
BY_NAME = "ORDER BY r.full_name COLLATE NOCASE, r.id"
FIRST = f"""ORDER BY {_OWNER} COLLATE BINARY IS NOT :name, r.slug COLLATE BINARY <> :slug,
    {NAMESAKES_ORDER} LIMIT 1"""
"""Of those with an owner and a slug in any case: the one that is written so, if there is one."""


@cache
def _columns(*, sees_all: bool, has_rows: bool) -> tuple[str, str]:
    """Return the columns of `RepositoryRow`, and the join that they need, for one sort of callers."""
    caller = Caller(sees_all=sees_all, user_ids=(0,) if has_rows else ())
    special = {
        "first_seen_at": first_seen(caller),
        "forks_count": forks_count(caller),
        # Looked up only for tombstones: it would cost a tenth of each page of repositories.
        "owner_username": f"iif(r.deleted_at IS NULL AND r.full_name NOT LIKE '%/%/%', NULL, {_OWNER})",
        "is_fork": "r.parent_full_name IS NOT NULL",
        "parent_name": "p.name",
        "refs": refs_state(shows_refs(caller)),
    }
    # Most repositories are no forks: for those nothing is looked up.
    shown = (
        f"coalesce(r.parent_full_name, r.parent_uuid) IS NOT NULL AND (p.id IS NOT NULL OR {SHOWN_TO_ALL})"
    )
    if not sees_all:  # a parent that is hidden, gone or not mirrored is not shown
        special |= {
            "parent_id": "p.id",
            "parent_uuid": f"iif({shown}, r.parent_uuid, NULL)",
            "parent_full_name": f"iif({shown}, r.parent_full_name, NULL)",
        }
    columns = ", ".join(special.get(field, f"r.{field}") for field in RepositoryRow.__struct_fields__)
    return columns, f"LEFT JOIN repositories p ON p.id = r.parent_id AND {visible_parent(caller, 'p')}"


def read_repositories(
    connection: sqlite3.Connection,
    caller: Caller,
    condition: str,
    values: Values,
    source: str = "repositories r",
) -> list[RepositoryRow]:
    """Read repositories `r` from a source; the condition may end in an order and a limit."""
    columns, join = _columns(sees_all=caller.sees_all, has_rows=bool(caller.user_ids))
    rest, values = f"FROM {source} {join} {condition}", {**values, **caller.values}
    try:  # a text of each row takes half the time that all its values do
        rows = fetch(connection, f"SELECT json_array({columns}) {rest}", values)
        return _DECODER.decode(f"[{','.join([text for (text,) in rows])}]")
    except (msgspec.DecodeError, sqlite3.OperationalError) as error:  # somebody wrote what JSON cannot hold
        if isinstance(error, sqlite3.OperationalError) and "BLOB" not in str(error):
            raise
        return fetch_as(RepositoryRow, connection, f"SELECT {columns} {rest}", values)


def living_repositories(
    connection: sqlite3.Connection, caller: Caller, condition: str, values: Values, order: str = BY_NAME
) -> list[RepositoryRow]:
    """Read the living repositories `r` that a caller may see, under a condition."""
    condition = f"WHERE {condition} AND r.deleted_at IS NULL AND {visible(caller, 'r')} {order}"
    return read_repositories(connection, caller, condition, values)


def repository_named(
    connection: sqlite3.Connection, caller: Caller, full_name: str, *, gone: bool = False
) -> RepositoryRow | None:
    """Find a repository by ``owner/slug``, in any case; None if the caller may not see it.

    With `gone`, tombstones are found if no living repository has the name, the latest first.
    """
    found = read_repositories(
        connection,
        caller,
        f"""WHERE r.full_name = :name COLLATE NOCASE AND {visible(caller, "r")}
            {"" if gone else "AND r.deleted_at IS NULL"}
            ORDER BY r.deleted_at IS NOT NULL, r.deleted_at DESC,
                r.full_name COLLATE BINARY <> :name, {NAMESAKES_ORDER} LIMIT 1""",
        {"name": full_name},
    )
    return found[0] if found else None


def repository_seen_last(
    connection: sqlite3.Connection, caller: Caller, uuid: str, *, upstream: str
) -> RepositoryRow | None:
    """Find a repository, living or gone, by its uuid on an upstream; without one, where it was seen last."""
    found = read_repositories(
        connection,
        caller,
        f"""WHERE r.{ANY_UPSTREAM} AND r.uuid = :uuid AND {visible(caller, "r")}
            AND :upstream IN ('', (SELECT name FROM upstreams WHERE id = r.upstream_id))
            ORDER BY max(r.last_seen_at, coalesce(r.deleted_at, '')) DESC LIMIT 1""",
        {"uuid": uuid, "upstream": upstream},
    )
    return found[0] if found else None


def repository_by_id(connection: sqlite3.Connection, caller: Caller, row_id: int) -> RepositoryRow | None:
    """Find a repository, living or gone, by the id of its row."""
    condition = f"WHERE r.id = :id AND {visible(caller, 'r')}"
    return next(iter(read_repositories(connection, caller, condition, {"id": row_id})), None)


def repository_in_workspace(
    connection: sqlite3.Connection, caller: Caller, workspace: str, name: str
) -> RepositoryRow | None:
    """Find a living repository by workspace and slug, or by uuid in any workspace; None if it is hidden.

    `workspace` is a slug or a uuid.
    """
    # As at the upstream, a uuid suffices: a transferred one is still found under its old workspace.
    if name.startswith("{"):
        is_it = f"r.{ANY_UPSTREAM} AND r.uuid IN (:slug, lower(:slug))"
    else:
        is_owner = IS_UUID if workspace.startswith("{") else IS_NAME
        owners = f"FROM users u WHERE {is_owner} AND u.deleted_at IS NULL AND u.is_owner"
        is_it = f"""r.full_name = (SELECT u.username || '/' || :slug {owners} LIMIT 1) COLLATE NOCASE
            AND +r.owner_id IN (SELECT u.id {owners})"""
    values = {"slug": name, "name": workspace}
    return next(iter(living_repositories(connection, caller, is_it, values, FIRST)), None)


def repository_owned(
    connection: sqlite3.Connection, caller: Caller, owner: AccountRow, slug: str
) -> RepositoryRow | None:
    """Find a repository of an owner by its slug, in any case; None if it is hidden or gone."""
    is_named = "r.full_name = :name COLLATE NOCASE AND r.owner_id = :owner"
    values = {"name": f"{owner.username}/{slug}", "slug": slug, "owner": owner.id}
    return next(iter(living_repositories(connection, caller, is_named, values, FIRST)), None)


def repositories_by_ids(
    connection: sqlite3.Connection, caller: Caller, ids: Sequence[int]
) -> list[RepositoryRow]:
    """Read repositories by id, in the order of the ids, which must have been checked to be visible.

    Those of a page are kept while the file stays as it is: the next keystroke finds most of them again.
    """
    is_kept = len(ids) <= _PAGE and (caller.sees_all or not caller.user_ids)
    known = kept_repositories(connection, sees_all=caller.sees_all) if is_kept else {}
    missing = [one for one in ids if one not in known]
    if missing:
        rows = read_repositories(
            connection,
            caller,
            "WHERE r.id = wanted.value",
            {"wanted": json.dumps(missing)},
            "json_each(:wanted) AS wanted CROSS JOIN repositories r",
        )
        known.update((row.id, row) for row in rows)
    return [known[one] for one in ids if one in known]


def parents_of(
    connection: sqlite3.Connection, caller: Caller, rows: Iterable[RepositoryRow]
) -> dict[int, RepositoryRow]:
    """Read the parents of some repositories that live and that the caller may see, by their ids."""
    ids = {row.parent_id for row in rows if row.parent_id is not None}
    found = repositories_by_ids(connection, caller, sorted(ids))
    return {row.id: row for row in found if row.deleted_at is None}


def repositories_of(
    connection: sqlite3.Connection, caller: Caller, owners: Iterable[AccountRow]
) -> list[RepositoryRow]:
    """List the living repositories of an owner, who may have several rows, by name."""
    return living_repositories(
        connection,
        caller,
        "r.owner_id IN (SELECT value FROM json_each(:owners))",
        {"owners": json.dumps([owner.id for owner in owners])},
        "ORDER BY r.slug COLLATE NOCASE, r.id",
    )


def repositories_for(connection: sqlite3.Connection, caller: Caller) -> list[RepositoryRow]:
    """List what the caller owns, and what the workspaces own that the caller belongs to."""
    return living_repositories(connection, caller, is_own("r"), {})


def followed_by(connection: sqlite3.Connection, caller: Caller) -> list[RepositoryRow]:
    """List what the caller follows, which includes their own repositories."""
    is_followed = f"r.id IN (SELECT repository_id FROM followers WHERE user_id {IS_OWN_ID})"
    return living_repositories(connection, caller, f"(r.owner_id {IS_OWN_ID} OR {is_followed})", {})


def namesakes(
    connection: sqlite3.Connection, caller: Caller, repository: RepositoryRow
) -> list[RepositoryRow]:
    """List other repositories of the same full name: of another upstream, or deleted ones."""
    return read_repositories(
        connection,
        caller,
        f"""WHERE r.full_name = :name COLLATE NOCASE AND r.id <> :id AND {visible(caller, "r")}
            ORDER BY r.id LIMIT 20""",
        {"name": repository.full_name, "id": repository.id},
    )


def recent_ids(connection: sqlite3.Connection, caller: Caller) -> list[int]:
    """Find the repositories that were updated last."""
    # By a scan: an index would make each first load a third slower.
    sql = f"""SELECT r.id FROM repositories r
        WHERE r.deleted_at IS NULL AND r.updated_at IS NOT NULL AND {visible(caller, "r")}
        ORDER BY r.updated_at DESC, r.id DESC LIMIT {RECENT}"""
    return [row_id for (row_id,) in fetch(connection, sql, caller.values)]


def still_visible(connection: sqlite3.Connection, caller: Caller, ids: list[int]) -> list[RepositoryRow]:
    """Read repositories by id, except those that were deleted or hidden since the ids were found."""
    return read_repositories(
        connection,
        caller,
        f"WHERE r.deleted_at IS NULL AND {visible(caller, 'r')} ORDER BY wanted.key",
        {"wanted": json.dumps(ids)},
        "json_each(:wanted) AS wanted JOIN repositories r ON r.id = wanted.value",
    )


class OwnedPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of an owner's living repositories, and the totals of all of them; `size` is in bytes."""

    count: int
    private: int
    size: int | None
    updated_at: str | None
    rows: list[RepositoryRow]


def owned_page(
    connection: sqlite3.Connection, caller: Caller, owner_id: int, *, order: str, page: int, length: int
) -> OwnedPage:
    """Read a page of an owner's repositories, in one of OWNED_ORDERS."""
    count, private, size, updated_at = fetch_row(
        connection,  # an upstream may send a size so large that a sum of integers would fail
        f"""SELECT count(*), coalesce(sum(r.is_private <> 0), 0), CAST(sum(r.size * 1.0) AS INTEGER),
            max(r.updated_at)
            FROM repositories r WHERE r.owner_id = :id AND r.deleted_at IS NULL AND {visible(caller, "r")}""",
        {"id": owner_id, **caller.values},
    )
    found = living_repositories(
        connection,
        caller,
        "r.owner_id = :id",
        {"id": owner_id, "length": length, "start": (page - 1) * length},
        f"ORDER BY {OWNED_ORDERS[order]}, r.id LIMIT :length OFFSET :start",
    )
    return OwnedPage(count=count, private=private, size=size, updated_at=updated_at, rows=found)


def updates_by_month(
    connection: sqlite3.Connection, caller: Caller, owner_id: int, since: str
) -> dict[str, int]:
    """Count the last updates of an owner's repositories, by month since a time."""
    sql = f"""SELECT substr(r.updated_at, 1, 7), count(*) FROM repositories r
        WHERE r.owner_id = :id AND r.deleted_at IS NULL AND r.updated_at >= :since
        AND {visible(caller, "r")} GROUP BY 1"""
    return dict(fetch(connection, sql, {"id": owner_id, "since": since, **caller.values}))


def languages(connection: sqlite3.Connection, caller: Caller, limit: int) -> list[str]:
    """List the languages of the repositories that a caller may see, the most common first."""
    sql = f"""SELECT lower(r.language) FROM repositories r
        WHERE r.deleted_at IS NULL AND r.language <> '' AND {visible(caller, "r")}
        GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT :limit"""
    return [language for (language,) in fetch(connection, sql, {"limit": limit, **caller.values})]


class RepositoryDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A repository with its upstream's name and its refs; both kinds are None until refs were read.

    `last_page` is its page at the upstream, also of a repository that is gone.
    """

    row: RepositoryRow
    upstream: str
    branches: list[RefRow] | None
    tags: list[RefRow] | None
    links: RepositoryLinks
    last_page: str | None
    ref_links: dict[RefKey, RefLinks]

    def exported(self) -> dict[str, Any]:
        """Return the data of `mirror show --json`: rows as mappings of column names to values."""
        return {
            "repository": self.row.columns(),
            "owner": self.row.owner,
            "upstream": self.upstream,
            **self.links.exported(),
            "refs": self.row.refs,
            "branches": self._exported_refs(self.branches),
            "tags": self._exported_refs(self.tags),
        }

    def _exported_refs(self, rows: list[RefRow] | None) -> list[dict[str, Any]] | None:
        if rows is None:
            return None
        links = self.ref_links
        return [row.columns() | msgspec.structs.asdict(links[row.kind, row.name]) for row in rows]


def repository_details(
    connection: sqlite3.Connection, caller: Caller, full_name: str
) -> RepositoryDetails | None:
    """Find a repository by ``owner/slug``, a living one before a tombstone, with all its refs."""
    row = repository_named(connection, caller, full_name, gone=True)
    if row is None:
        return None
    is_read, web = row.refs == REFS_READ, WebLinks(connection, caller)
    first = {"branch": row.main_branch}
    branches, tags = (
        newest_refs(connection, kind, row.id, first.get(kind)) if is_read else None for kind in KINDS
    )
    return RepositoryDetails(
        row=row,
        upstream=upstreams_of(connection)[row.upstream_id].name,
        branches=branches,
        tags=tags,
        links=web.repositories([row])[row.id],
        last_page=web.last_page(row),
        ref_links=web.refs(row, [*(branches or ()), *(tags or ())]),
    )
