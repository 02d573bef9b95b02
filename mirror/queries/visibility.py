"""The caller, and who may see what: all rules about private repositories, as SQL conditions.

Conditions take the alias of a table, or say which one they are about, and name the caller's own rows of
`users` as `:ids` (`Caller.values`). No other module decides what a caller may see. Extras (`api2_extras`) are
read here too, since a caller may see only a part of them.
"""

import json
import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from mirror.addresses import Json
from mirror.api2_extras import PUBLIC, changed, public_part, unpacked
from mirror.queries.file_state import file_state
from mirror.queries.rows import AccountRow, ProjectRow, Values
from mirror.store.rows import fetch, fetch_row, fetch_value
from mirror.store.schema import HIDDEN, awaits_listing

IS_OWN_ID = "IN (SELECT value FROM json_each(:ids))"
"""Follows a column of user ids: the id is one of the caller's own."""

_OWN_OWNERS = f"""SELECT value FROM json_each(:ids) UNION
    SELECT workspace_id FROM members WHERE user_id {IS_OWN_ID}"""
"""The caller's own ids, and those of the caller's workspaces."""

SHOWN_TO_ALL = """(r.is_private = 0 AND EXISTS (SELECT 1 FROM extras e
    WHERE e.kind = 'repository' AND e.row_id = r.id AND e.name = '' AND e.anonymous))"""
"""The condition that an anonymous crawl has read the repository `r` in its present state."""

_SCHEMES = {"branch": "ref", "tag": "ref", "branch-1.0": "ref-1.0", "tag-1.0": "ref-1.0"}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request, and what the caller may see.

    - `name` identifies the caller in messages.
    - `username` is the mirrored user that the caller speaks for, if any.
    - `user_ids` are the caller's rows of `users`: a person and the person's namespace can be two rows.
    - `sees_all`: nothing is hidden from the caller. Otherwise the caller sees public repositories, and the
      private ones of `user_ids` and of their workspaces.
    """

    name: str = "anonymous"
    token_id: int | None = None
    username: str | None = None
    user_ids: tuple[int, ...] = ()
    sees_all: bool = False
    may_write: bool = False
    last_used_at: str | None = None

    @property
    def known(self) -> bool:
        """Return whether a credential was accepted."""
        return self.token_id is not None or bool(self.user_ids)

    @property
    def or_hidden(self) -> str:
        """What an error about something that was not found adds: it may be there, hidden from the caller."""
        return "" if self.sees_all else ", or you may not see it"

    @property
    def values(self) -> dict[str, Any]:
        """The parameter of conditions on this caller: `:ids`, the caller's own rows of `users`."""
        return {"ids": json.dumps(self.user_ids)}


ANONYMOUS = Caller()
OPERATOR = Caller(name="operator", sees_all=True)
"""The caller of commands on the file itself."""


def visible(caller: Caller, alias: str) -> str:
    """Return the condition under which a caller may see a repository."""
    if caller.sees_all:
        return "1"
    if not caller.user_ids:
        return f"{alias}.is_private = 0"
    return f"({alias}.is_private = 0 OR {is_own(alias)})"


def is_own(alias: str) -> str:
    """Return the condition under which a repository is the caller's, or of a workspace they belong to."""
    return (
        f"({alias}.owner_id {IS_OWN_ID} OR {alias}.owner_id IN "
        f"(SELECT workspace_id FROM members WHERE user_id {IS_OWN_ID}))"
    )


def visible_changes(caller: Caller) -> str:
    """Return the condition under which a caller may see a change `c` of the repository `r`, if any.

    A change of an owner is shown to those who may see one of the owner's repositories.
    """
    if caller.sees_all:
        return "1"
    # What was recorded while a repository was private stays hidden from strangers when it becomes public.
    public = "(r.is_private = 0 AND c.id > r.public_from)"
    of_repository = f"({public} OR {is_own('r')})" if caller.user_ids else public
    return f"""CASE WHEN r.id IS NOT NULL THEN {of_repository}
        ELSE EXISTS (SELECT 1 FROM repositories o WHERE o.owner_id = c.user_id AND {visible(caller, "o")})
        END"""


def shows_refs(caller: Caller) -> str:
    """Return the condition under which a caller may see the refs of a repository `r` that they may see.

    Those of one that was made public are of the time before, until they have been read again.
    """
    if caller.sees_all:
        return "1"
    read_since = f"r.public_from < {HIDDEN}"
    return f"({read_since} OR {is_own('r')})" if caller.user_ids else read_since


_HIDDEN_REFS = f"""SELECT id FROM repositories r
    WHERE r.public_from > 0 AND NOT {shows_refs(ANONYMOUS)}"""  # the first is the condition of an index


def hides_refs(connection: sqlite3.Connection) -> bool:
    """Return whether strangers may not see the refs of a repository that is public."""
    return bool(fetch_value(connection, f"SELECT EXISTS ({_HIDDEN_REFS})"))


def hides_history(connection: sqlite3.Connection) -> bool:
    """Return whether strangers may not see all changes of a repository that is public."""
    return bool(fetch_value(connection, "SELECT EXISTS (SELECT 1 FROM repositories WHERE public_from > 0)"))


def visible_parent(caller: Caller, alias: str) -> str:
    """Return the condition under which `alias` is a parent that may be shown: it lives and is visible."""
    return f"{alias}.deleted_at IS NULL AND {visible(caller, alias)}"


def parent_is_shown(caller: Caller) -> str:
    """Return the condition under which a caller may know what `r` was forked from."""
    # A parent that is not mirrored may be private, unless an anonymous crawl was told of it.
    named = "(r.parent_uuid IS NOT NULL OR r.parent_full_name IS NOT NULL)"
    if caller.sees_all:
        return named
    return f"""(EXISTS (SELECT 1 FROM repositories p
        WHERE p.id = r.parent_id AND {visible_parent(caller, "p")}) OR ({named} AND {SHOWN_TO_ALL}))"""


def forks_count(caller: Caller) -> str:
    """Return how many forks a repository `r` has: the upstream's number, less those that are hidden."""
    if caller.sees_all:
        return "r.forks_count"
    own = f" AND NOT {is_own('h')}" if caller.user_ids else ""
    return f"""iif(r.forks_count > 0, max(0, r.forks_count - (SELECT count(*) FROM repositories h
        WHERE h.parent_id = r.id AND h.deleted_at IS NULL AND h.is_private = 1{own})),
        r.forks_count)"""


def visible_project(caller: Caller, alias: str) -> str:
    """Return the condition under which a caller may see a project: they may see a repository in it.

    Those who may see all of a workspace also see the project that is the workspace itself, as on Data Center,
    even without repositories.
    """
    held = f"""EXISTS (SELECT 1 FROM repositories r WHERE r.owner_id = {alias}.owner_id
        AND r.project_key = {alias}.key AND r.deleted_at IS NULL AND {visible(caller, "r")})"""
    itself = f"{alias}.uuid = (SELECT uuid FROM users WHERE id = {alias}.owner_id AND deleted_at IS NULL)"
    if caller.sees_all:
        return f"({held} OR {itself})"
    if not caller.user_ids:
        return held
    return f"({held} OR ({itself} AND {is_own(alias)}))"


def is_known(caller: Caller, alias: str) -> str:
    """Return the condition under which a caller may know of an account.

    It owns or follows something that the caller may see, is the caller's own, or is in one of the caller's
    workspaces.
    """
    if caller.sees_all:
        return "1"
    seen = visible(caller, "r")
    public = f"""(EXISTS (SELECT 1 FROM repositories r WHERE r.owner_id = {alias}.id AND {seen})
        OR EXISTS (SELECT 1 FROM followers f JOIN repositories r ON r.id = f.repository_id
            WHERE f.user_id = {alias}.id AND {seen}))"""
    if not caller.user_ids:
        return public
    return f"""({public} OR {alias}.id IN ({_OWN_OWNERS})
        OR {alias}.id IN (SELECT user_id FROM members WHERE workspace_id IN ({_OWN_OWNERS})))"""


# The following conditions are those of strangers, in a file that hides no repository from them, such as the
# ones whose SQL is open. Indexes answer them. The sign keeps SQLite from reading all such ids first.


def open_account(column: str) -> str:
    """Return the condition of `is_known`, for a column that holds the id of an account."""
    return f"""(+{column} IN (SELECT owner_id FROM repositories)
        OR +{column} IN (SELECT user_id FROM followers))"""


def open_refs() -> str:
    """Return the condition of `shows_refs`, for a ref `t`."""
    return f"+t.repository_id NOT IN ({_HIDDEN_REFS})"


def open_changes() -> str:
    """Return the condition of `visible_changes`, for a change `t`."""
    return f"""(t.user_id IS NULL OR {open_account("t.user_id")})
        AND NOT (+t.repository_id IN (SELECT id FROM repositories r WHERE r.public_from > 0)
            AND EXISTS (SELECT 1 FROM repositories r
                WHERE r.id = t.repository_id AND r.public_from >= t.id))"""


def is_confirmed(caller: Caller) -> str:
    """Return the condition under which a caller who names an account `u` is told that it exists.

    Bitbucket tells everybody that a namespace exists; Data Center only those who see something in it.
    """
    confirms_all = "EXISTS (SELECT 1 FROM upstreams WHERE id = u.upstream_id AND kind <> 'datacenter')"
    return f"((u.is_owner AND {confirms_all}) OR {is_known(caller, 'u')})"


def first_seen(caller: Caller) -> str:
    """Return when a repository `r` was first seen, to strangers not before it was made public."""
    if caller.sees_all:
        return "r.first_seen_at"
    own = f" OR {is_own('r')}" if caller.user_ids else ""
    return f"""iif(r.public_from = 0{own}, r.first_seen_at, max(r.first_seen_at,
        coalesce((SELECT max(c.at) FROM changes c WHERE c.repository_id = r.id
            AND c.kind = 'made_public'), r.last_seen_at)))"""


def account_seen(caller: Caller) -> str:
    """Return when an account `u` was last seen with what a caller may see, as SQL.

    Its own moment would tell when something private was read. NULL for an account known by name only.
    """
    if caller.sees_all:
        return "u.last_seen_at"
    seen = visible(caller, "r")
    # The one that was updated last, because most runs read only what was updated.
    public = f"""coalesce(
        (SELECT r.last_seen_at FROM repositories r WHERE r.owner_id = u.id AND r.deleted_at IS NULL AND {seen}
            ORDER BY r.updated_at DESC LIMIT 1),
        (SELECT r.last_seen_at FROM followers f JOIN repositories r ON r.id = f.repository_id
            WHERE f.user_id = u.id AND {seen} ORDER BY r.id LIMIT 1))"""
    own = f"CASE WHEN u.id IN ({_OWN_OWNERS}) THEN u.last_seen_at ELSE {public} END"
    return own if caller.user_ids else public


def account_columns(caller: Caller) -> str:
    """Return the columns of an AccountRow of `users u`."""
    return _columns_of(AccountRow, "u", account_seen(caller))


def project_columns(caller: Caller) -> str:
    """Return the columns of a ProjectRow of `projects p`; it was last seen with what the caller may see."""
    public = f"""(SELECT r.last_seen_at FROM repositories r WHERE r.owner_id = p.owner_id
        AND r.project_key = p.key AND r.deleted_at IS NULL AND {visible(caller, "r")}
        ORDER BY r.updated_at DESC LIMIT 1)"""
    return _columns_of(ProjectRow, "p", "p.last_seen_at" if caller.sees_all else public)


def _columns_of(row: type[AccountRow | ProjectRow], alias: str, seen: str) -> str:
    return ", ".join(
        f"{seen} AS {field}" if field == "last_seen_at" else f"{alias}.{field}"
        for field in row.__struct_fields__
    )


def known_upstreams(connection: sqlite3.Connection, caller: Caller) -> str:
    """Return the condition under which a caller may know of an upstream `up`: they see a repository of it.

    If nothing is hidden from the caller, that is every upstream, also one that was not read yet.
    """
    if not hides(connection, caller):
        return "1"
    return f"""EXISTS (SELECT 1 FROM users o JOIN repositories r ON r.owner_id = o.id
        WHERE o.upstream_id = up.id AND r.deleted_at IS NULL AND {visible(caller, "r")})"""


def is_unconfirmed(connection: sqlite3.Connection, caller: Caller) -> bool:
    """Return whether a caller gets no answers for now, because the file was restored from a copy.

    What was public in the copy may be private by now, until every upstream has been listed in full.
    """
    return not caller.sees_all and _awaits_listing(connection)


def _awaits_listing(connection: sqlite3.Connection) -> bool:
    """Return `mirror.store.schema.awaits_listing`, looked up once for each state of the file."""
    state = file_state(connection)
    if state.awaits_listing is None:
        state.awaits_listing = awaits_listing(connection)
    return state.awaits_listing


def hides(connection: sqlite3.Connection, caller: Caller) -> bool:
    """Return whether the file holds anything of a repository, living or gone, that a caller may not see."""
    if caller.sees_all:
        return False
    if not caller.user_ids:
        return holds_private(connection)
    return is_unconfirmed(connection, caller) or bool(
        fetch_value(
            connection,
            f"""SELECT EXISTS (SELECT 1 FROM repositories r WHERE r.is_private = 1 AND NOT {is_own("r")})
                OR EXISTS (SELECT 1 FROM changes c WHERE c.kind = 'made_public' AND NOT EXISTS
                    (SELECT 1 FROM repositories r WHERE r.id = c.repository_id AND {is_own("r")}))""",
            caller.values,
        )
    )


def holds_private(connection: sqlite3.Connection) -> bool:
    """Return whether the file holds anything that is not for everybody; tombstones count."""
    # Of a repository that was made public, the earlier changes are recorded.
    return _awaits_listing(connection) or bool(
        fetch_value(
            connection,
            """SELECT EXISTS (SELECT 1 FROM repositories WHERE is_private = 1)
                   OR EXISTS (SELECT 1 FROM changes WHERE kind = 'made_public')""",
        )
    )


def private_owners(connection: sqlite3.Connection, caller: Caller) -> tuple[int, ...]:
    """List the owners whose private repositories a caller may see, unless the caller sees everything."""
    if caller.sees_all or not caller.user_ids:
        return ()
    return tuple(row_id for (row_id,) in fetch(connection, _OWN_OWNERS, caller.values))


def administered_namespaces(connection: sqlite3.Connection, caller: Caller) -> dict[str, str] | None:
    """Map the namespaces, in lower case, that a caller owns or administers to their upstreams' names.

    None means all of all upstreams.
    """
    # Addresses have no upstream, so a name that somebody else has on another upstream is left out.
    if caller.sees_all:
        return None
    found = fetch(
        connection,
        f"""WITH mine AS (SELECT value AS id FROM json_each(:ids) UNION
               SELECT workspace_id FROM members WHERE permission = 'owner' AND user_id {IS_OWN_ID})
            SELECT u.username, p.name FROM users u JOIN upstreams p ON p.id = u.upstream_id
            WHERE u.id IN mine AND u.is_owner AND u.deleted_at IS NULL AND NOT EXISTS
               (SELECT 1 FROM users o WHERE o.username = u.username COLLATE NOCASE
                AND o.is_owner AND o.deleted_at IS NULL AND o.id NOT IN mine)""",
        caller.values,
    )
    return {name.lower(): upstream for name, upstream in found}


def may_see_members(connection: sqlite3.Connection, caller: Caller, workspace_id: int) -> bool:
    """Return whether a caller may see the members of a workspace: members may, and who sees everything."""
    sql = """SELECT 1 FROM json_each(:ids) AS own WHERE own.value = :workspace OR EXISTS
        (SELECT 1 FROM members WHERE workspace_id = :workspace AND user_id = own.value)"""
    values = {**caller.values, "workspace": workspace_id}
    return caller.sees_all or fetch_row(connection, sql, values) is not None


def extras_of(
    connection: sqlite3.Connection, caller: Caller, kind: str, ids: Iterable[int]
) -> dict[int, Json]:
    """Return the extras of some objects, by the ids of their rows."""
    if not holds_extras(connection):  # each search asks, of all that it found
        return {}
    found = _extras(
        connection,
        caller,
        """extras e WHERE e.kind = :kind AND e.name = ''
           AND e.row_id IN (SELECT value FROM json_each(:ids))""",
        {"kind": kind, "ids": json.dumps(sorted(set(ids)))},
    )
    return {row_id: extra for (row_id, _, _), extra in found.items()}


def extra_of(connection: sqlite3.Connection, caller: Caller, kind: str, row_id: int) -> Json | None:
    """Return the extra of one object; None if its columns hold all data."""
    return extras_of(connection, caller, kind, [row_id]).get(row_id)


def api1_extras_of(connection: sqlite3.Connection, caller: Caller, kind: str, row_id: int) -> dict[str, Json]:
    """Return the data of API 1.0 about the branches, the tags or the repository of a row, by name."""
    values = {"kind": f"{kind}-1.0", "id": row_id}
    found = _extras(connection, caller, "extras e WHERE e.kind = :kind AND e.row_id = :id", values)
    return {name: changed({}, extra, "", "") for (_, _, name), extra in found.items()}


def ref_extras_of(
    connection: sqlite3.Connection, caller: Caller, repository_id: int, names: Iterable[str]
) -> dict[tuple[str, str], Json]:
    """Return the extras of branches and tags of a repository, by kind and name."""
    found = extras_of_refs(connection, caller, ((repository_id, name) for name in names))
    return {key[1:]: extra for key, extra in found.items()}


def extras_of_refs(
    connection: sqlite3.Connection, caller: Caller, wanted: Iterable[tuple[int, str]]
) -> dict[tuple[int, str, str], Json]:
    """Return the extras of the branches and tags with some names in some repositories.

    :param wanted: the ids of repositories, each with a name
    :returns: by repository, kind and name
    """
    return _extras(
        connection,
        caller,
        """json_each(:wanted) w CROSS JOIN extras e ON e.kind IN ('branch', 'tag')
           AND e.row_id = w.value ->> 0 AND e.name = w.value ->> 1""",
        {"wanted": json.dumps(list(wanted))},
    )


def _extras(
    connection: sqlite3.Connection, caller: Caller, source: str, values: Values
) -> dict[tuple[int, str, str], Json]:
    """Read extras by the id of the row, the kind and the name, as far as the caller may see them."""
    if not holds_extras(connection):
        return {}
    sql = f"SELECT e.row_id, e.kind, e.name, e.anonymous, e.value FROM {source}"
    return {
        (row_id, kind, name): _shown(kind, value, everything=caller.sees_all or anonymous == 1)
        for row_id, kind, name, anonymous, value in fetch(connection, sql, values)
    }


def holds_extras(connection: sqlite3.Connection) -> bool:
    """Return whether the file holds any, looked up once for each state of the file."""
    state = file_state(connection)
    if state.has_extras is None:
        state.has_extras = bool(fetch_value(connection, "SELECT EXISTS (SELECT 1 FROM extras)"))
    return state.has_extras


@lru_cache(maxsize=4096)
def _shown(kind: str, value: bytes, *, everything: bool) -> Json:
    """Read an extra and cache it; do not change the result. An unreadable one is empty."""
    try:
        extra = unpacked(value)
    except ValueError as error:
        import logging  # noqa: PLC0415 - reading commands log nothing else

        logging.getLogger(__name__).warning("%s", error)
        return {}
    return extra if everything else public_part(extra, PUBLIC[_SCHEMES.get(kind, kind)])
