"""The inventory: one line of facts for each living repository, to plan a migration.

Unknown values are None, never 0 or "no": sizes that the upstream did not report, refs that were not read,
dates that a sync by git does not see.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mirror.model import flag
from mirror.queries.visibility import Caller, forks_count, shows_refs, visible
from mirror.store.rows import fetch

CHUNK = 2_000
"""The number of rows that `all_lines` reads at a time."""


class InventoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about a repository for a migration; `size` is in bytes, `project` is its key.

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
    webhooks: None = None  # they are not mirrored


COLUMNS = InventoryLine.__struct_fields__


class InventoryPlace(msgspec.Struct, frozen=True):
    """The start of a page: after this repository, the last one of the previous page."""

    full_name: str = ""
    id: int = 0


class InventoryPage(msgspec.Struct, frozen=True):
    """Lines by name, with the place of each; `more` is the start of the next page, None at the end."""

    lines: list[InventoryLine]
    places: list[InventoryPlace]
    more: InventoryPlace | None


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
    are_read = f"r.refs_synced_at IS NOT NULL AND {shows_refs(caller)}"
    rows = fetch(
        connection,
        f"""SELECT r.full_name, r.id,
                coalesce(u.username, substr(r.full_name, 1, instr(r.full_name, '/') - 1)), r.project_key,
                r.slug, r.size, iif(r.is_private, 'private', 'public'), r.archived,
                r.main_branch, b.target_date,
                iif({are_read}, (SELECT count(*) FROM branches WHERE repository_id = r.id), NULL),
                iif({are_read}, (SELECT count(*) FROM tags WHERE repository_id = r.id), NULL),
                {forks_count(caller)}, coalesce(b.target_author, b.target_author_name), NULL
            FROM repositories r JOIN users u ON u.id = r.owner_id
            LEFT JOIN branches b ON {are_read} AND b.repository_id = r.id AND b.name =
                (SELECT name FROM branches WHERE repository_id = r.id AND target_date IS NOT NULL
                 ORDER BY target_date DESC, name LIMIT 1)
            WHERE r.deleted_at IS NULL AND {visible(caller, "r")} {of_owners}
                AND r.full_name COLLATE NOCASE >= :after  -- SQLite can seek this, but not the pair below
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
    places = [InventoryPlace(full_name, row_id) for full_name, row_id, *_ in rows[:size]]
    more = places[-1] if len(rows) > size else None
    return InventoryPage([_line(values) for _, _, *values in rows[:size]], places, more)


def all_lines(
    connection: sqlite3.Connection, caller: Caller, owner_ids: tuple[int, ...] = ()
) -> Iterator[InventoryLine]:
    """Yield the whole inventory."""
    # Page by page: so a million lines need little memory.
    place: InventoryPlace | None = InventoryPlace()
    while place is not None:
        page = inventory_page(connection, caller, owner_ids=owner_ids, after=place, size=CHUNK)
        yield from page.lines
        place = page.more


def _line(values: Sequence[Any]) -> InventoryLine:
    """Return the line with these values of COLUMNS."""
    line = dict(zip(COLUMNS, values, strict=True))
    return InventoryLine(**line | {"archived": flag(line["archived"])})
