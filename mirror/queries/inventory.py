"""The inventory: one line of facts for each living repository, to plan a migration.

What is not known is None, never 0 and never "no": the size that no upstream told, refs that were not read,
dates that a sync by git does not see. Webhooks are not mirrored, so they are always unknown.
"""

import json
import sqlite3
from collections.abc import Iterator

import msgspec

from mirror.queries.refs import REFS_READ, refs_state
from mirror.queries.rows import fetch_as, flag
from mirror.queries.visibility import Caller, forks_count, visible

CHUNK = 2_000
"""How many rows `all_lines` reads at a time."""


class InventoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a migration must know of a repository; `size` is in bytes, `project` is its key.

    `last_push` and `last_author` are those of the newest commit among the heads of its branches.
    """

    owner: str
    project: str | None
    slug: str
    size: int | None
    visibility: str
    archived: bool | None
    default_branch: str | None
    last_push: str | None
    branches: int | None
    tags: int | None
    forks: int | None
    last_author: str | None
    webhooks: None = None


COLUMNS = InventoryLine.__struct_fields__


class InventoryPlace(msgspec.Struct, frozen=True):
    """Where a page begins: behind this repository, the last one of the page before."""

    full_name: str = ""
    id: int = 0


class InventoryPage(msgspec.Struct, frozen=True):
    """Lines by name, with the place of each; `more` is where the next page begins, None at the end."""

    lines: list[InventoryLine]
    places: list[InventoryPlace]
    more: InventoryPlace | None


class _Row(msgspec.Struct, frozen=True):
    id: int
    full_name: str
    owner: str | None
    project: str | None
    slug: str
    size: int | None
    is_private: int
    archived: int | None
    default_branch: str | None
    last_push: str | None
    branches: int | None
    tags: int | None
    forks: int | None
    last_author: str | None


def inventory_page(
    connection: sqlite3.Connection,
    caller: Caller,
    *,
    owner_ids: tuple[int, ...] = (),
    after: InventoryPlace | None = None,
    size: int = 100,
) -> InventoryPage:
    """Read a page of the inventory, by name, of what a caller may see; `owner_ids` restrict it to owners."""
    after = after or InventoryPlace()
    of_owners = "AND r.owner_id IN (SELECT value FROM json_each(:owners))" if owner_ids else ""
    rows = fetch_as(
        _Row,
        connection,
        f"""SELECT r.id, r.full_name, u.username, r.project_key, r.slug, r.size, r.is_private, r.archived,
                r.main_branch, b.target_date,
                iif({refs_state("r")} = '{REFS_READ}',
                    (SELECT count(*) FROM branches WHERE repository_id = r.id), NULL),
                iif({refs_state("r")} = '{REFS_READ}',
                    (SELECT count(*) FROM tags WHERE repository_id = r.id), NULL),
                {forks_count(caller, "r")}, coalesce(b.target_author, b.target_author_name)
            FROM repositories r JOIN users u ON u.id = r.owner_id
            LEFT JOIN branches b ON b.repository_id = r.id AND b.name =
                (SELECT name FROM branches WHERE repository_id = r.id AND target_date IS NOT NULL
                 ORDER BY target_date DESC, name LIMIT 1)
            WHERE r.deleted_at IS NULL AND {visible(caller, "r")} {of_owners}
                AND r.full_name COLLATE NOCASE >= :after  -- SQLite seeks this, but no pair of values
                AND (r.full_name COLLATE NOCASE, r.id) > (:after, :id)
            ORDER BY r.full_name COLLATE NOCASE, r.id LIMIT :size""",
        {
            **caller.values,
            "owners": json.dumps(owner_ids),
            "after": after.full_name,
            "id": after.id,
            "size": size + 1,
        },
    )
    places = [InventoryPlace(row.full_name, row.id) for row in rows[:size]]
    more = places[-1] if len(rows) > size else None
    return InventoryPage([_line(row) for row in rows[:size]], places, more)


def all_lines(
    connection: sqlite3.Connection, caller: Caller, owner_ids: tuple[int, ...] = ()
) -> Iterator[InventoryLine]:
    """Yield the whole inventory, a page at a time, so that a million lines need no more memory than one."""
    place: InventoryPlace | None = InventoryPlace()
    while place is not None:
        page = inventory_page(connection, caller, owner_ids=owner_ids, after=place, size=CHUNK)
        yield from page.lines
        place = page.more


def _line(row: _Row) -> InventoryLine:
    return InventoryLine(
        owner=row.owner or row.full_name.partition("/")[0],
        project=row.project,
        slug=row.slug,
        size=row.size,
        visibility="private" if row.is_private else "public",
        archived=flag(row.archived),
        default_branch=row.default_branch,
        last_push=row.last_push,
        branches=row.branches,
        tags=row.tags,
        forks=row.forks,
        last_author=row.last_author,
    )
