"""What changed, the latest first, as far as a visitor may see it; filtered, paged by the change's number."""

import json
import sqlite3

import msgspec

from mirror.queries.caller import Caller
from mirror.queries.repositories import refs_state
from mirror.queries.rows import Row, ids_of, rows
from mirror.queries.visible import visible, visible_changes

KINDS = {
    "repositories": (
        "created", "updated", "renamed", "transferred", "made_private", "made_public", "deleted", "restored",
        "owner_renamed",
    ),
    "branches": ("branch_created", "branch_moved", "branch_deleted"),
    "tags": ("tag_created", "tag_moved", "tag_deleted"),
}  # fmt: skip
"""All kinds of changes by what they are about; the name of a group stands for all of it."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes are asked for; what is None or empty does not matter. `before` is a change's number."""

    kinds: tuple[str, ...] = ()
    owner: str = ""
    upstream: str = ""
    ref: str = ""
    repository_id: int | None = None
    owner_id: int | None = None
    since: str = ""
    until: str = ""
    before: int | None = None
    limit: int = 50


def changes(connection: sqlite3.Connection, caller: Caller, wanted: Wanted) -> list[Row]:
    """Read a page of changes, and one more where there are more.

    Strangers see nothing of the time when a repository was private, though it is public now; of owners
    only those who own something that they may see.
    """
    conditions = [_may_see(caller), *_conditions(wanted)]
    values = {
        "ids": ids_of(caller),
        "kinds": json.dumps(wanted.kinds),
        "most": wanted.limit + 1,
        **{name: getattr(wanted, name) for name in wanted.__struct_fields__ if name != "kinds"},
    }
    return rows(
        connection,
        f"""SELECT c.id, c.at, c.kind, c.ref, c.old, c.new, c.repository_id, u.id AS owner_id,
                r.full_name AS repository, u.username AS owner, up.name AS upstream, r.is_private,
                iif(c.kind = 'created', {refs_state("r")}, NULL) AS refs
            FROM changes c LEFT JOIN repositories r ON r.id = c.repository_id
            LEFT JOIN users u ON u.id = coalesce(c.user_id, r.owner_id)
            LEFT JOIN upstreams up ON up.id = coalesce(r.upstream_id, u.upstream_id)
            WHERE {" AND ".join(conditions)} ORDER BY c.id DESC LIMIT :most""",
        values,
    )


def _conditions(wanted: Wanted) -> list[str]:
    """Say in SQL what is asked for; `+` keeps SQLite on the order of the numbers where that is shorter."""
    said = list[str]()
    if wanted.kinds:
        said.append("c.kind IN (SELECT value FROM json_each(:kinds))")
    if wanted.repository_id is not None:
        said.append("c.repository_id = :repository_id")
    if wanted.owner_id is not None:
        said.append(
            "(c.user_id = :owner_id OR c.repository_id IN"
            " (SELECT id FROM repositories WHERE owner_id = :owner_id))"
        )
    if wanted.owner:
        said.append("u.username = :owner COLLATE NOCASE")
    if wanted.upstream:
        said.append("up.name = :upstream")
    if wanted.ref:
        said.append("instr(lower(c.ref), lower(:ref)) > 0")
    if wanted.since:
        said.append("+c.at >= :since")
    if wanted.until:
        said.append("+c.at < :until")
    if wanted.before is not None:
        said.append("c.id < :before")
    return said


def _may_see(caller: Caller) -> str:
    """Return the condition under which a change may be seen."""
    if caller.sees_all:
        return "1"
    return f"""CASE WHEN r.id IS NOT NULL THEN {visible_changes(caller)}
        ELSE EXISTS (SELECT 1 FROM repositories o WHERE o.owner_id = c.user_id AND {visible(caller, "o")})
        END"""
