"""Repositories of the past, as far as a caller may see them: by row, by name, by owner, as SQL functions.

A mirror in memory holds them as they were, so that all code that reads the file also shows the past.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from mirror.errors import NotFound, NotKnownThen
from mirror.model import NAMED
from mirror.queries.past_state import NOT_RECORDED, Line, Looks, Measures, Past, Rebuilt
from mirror.queries.refs import KINDS, select_refs
from mirror.queries.repositories import RepositoryDetails, repository_details
from mirror.queries.rows import AccountRow, RefRow
from mirror.queries.visibility import (
    ANONYMOUS,
    OPERATOR,
    Caller,
    account_seen,
    first_seen,
    forks_count,
    is_confirmed,
    is_own,
    visible,
)
from mirror.store.changes import MEASURED, MEASURED_SINCE
from mirror.store.compaction import compacted_before
from mirror.store.files import snapshot_moment
from mirror.store.rows import fetch, fetch_as, fetch_dicts, fetch_value
from mirror.store.schema import HIDDEN, REF_TABLES, memory_copy
from mirror.times import past_moment, utc_now


def past_of(connection: sqlite3.Connection, caller: Caller, row_id: int, at: str) -> Past:
    """Rebuild the repository of a row at a moment; raises NotFound where nothing is known of it then."""
    found = next(_pasts(connection, caller, [row_id], at, with_refs=True), None)
    if isinstance(found, Past):
        return found
    raise found or NotFound(f"the mirror holds no such repository{caller.or_hidden}")


def pasts_owned(connection: sqlite3.Connection, caller: Caller, owner: AccountRow, at: str) -> list[Past]:
    """Rebuild the repositories that an owner had at a moment, without refs; raises NotFound if none is known.

    Those count that the caller may see, then and today.
    """
    # What was transferred since is found by its former name, from `owner/` to `owner0`: in ASCII, 0 follows
    # the slash.
    found = fetch(
        connection,
        f"""SELECT id FROM repositories WHERE owner_id = :id UNION
            SELECT r.id FROM changes c JOIN repositories r ON r.id = c.repository_id
                WHERE c.kind IN ('renamed', 'transferred')  -- as the index has it
                AND c.kind = 'transferred' AND c.old >= :name || '/' COLLATE NOCASE
                AND c.old < :name || '0' COLLATE NOCASE AND {_is_seen(caller, "c.id")}""",
        {"id": owner.id, "name": owner.username, **caller.values},
    )
    all_found = list(_pasts(connection, caller, [row_id for (row_id,) in found], at, with_refs=False))
    pasts = [one for one in all_found if isinstance(one, Past)]
    if all_found and not pasts:
        raise NotFound(f"the mirror knows nothing of {owner.username} at {at[:19]}Z")
    names = {past.namespace for past in pasts if past.columns["owner_id"] == owner.id}
    names.add((owner.username or "").lower())
    return [
        past
        for past in pasts
        if past.columns["owner_id"] == owner.id
        or (past.columns["owner_id"] is None and past.namespace in names)
    ]


def _pasts(
    connection: sqlite3.Connection, caller: Caller, ids: list[int], at: str, *, with_refs: bool
) -> Iterator[Past | NotFound]:
    """Rebuild the repositories of some rows that a caller may see; yield an error where nothing is known."""
    must_have_history(connection)
    rows = fetch_dicts(
        connection,
        f"""SELECT r.*, {forks_count(caller)} AS forks_count,
                {first_seen(caller)} AS first_seen_at, {is_own("r")} AS is_own
            FROM json_each(:ids_wanted) w CROSS JOIN repositories r ON r.id = w.value
            WHERE {visible(caller, "r")}""",
        {"ids_wanted": json.dumps(ids), **caller.values},
    )
    shown_ids = [row["id"] for row in rows]
    lines = _lines_of(connection, shown_ids, with_refs=with_refs)
    moved = _measures_of(connection, shown_ids, at)
    compacted = compacted_before(connection) or ""
    for row in rows:
        hidden = _hidden(caller, row)
        del row["is_own"]
        since = _known_since(connection, row, hidden)
        unknown = f"the mirror knows nothing of {row['full_name']} at {at[:19]}Z"
        if since is None:
            yield NotFound(unknown)
            continue
        if at < since:
            yield NotKnownThen(f"{unknown}; it is known since {since[:19]}Z", since=since)
            continue
        shown = [line for line in lines[row["id"]] if line.id > hidden]
        rebuilt = Rebuilt(row, since, shown, moved.get(row["id"]), at)
        refs = list[RefRow]()
        if with_refs:
            refs = fetch_as(RefRow, connection, select_refs(*KINDS), {"repository": row["id"]})
        yield rebuilt.past(refs, to_the_day=at < compacted)


def _lines_of(
    connection: sqlite3.Connection, ids: list[int], *, with_refs: bool
) -> defaultdict[int, list[Line]]:
    """Read the changes of repositories, in order; without those of refs unless `with_refs`."""
    lines = defaultdict[int, list[Line]](list)
    of_row = "" if with_refs else "AND kind NOT GLOB 'branch_*' AND kind NOT GLOB 'tag_*'"
    for row_id, *line in fetch(
        connection,
        f"""SELECT repository_id, {", ".join(Line._fields)} FROM changes
            WHERE repository_id IN (SELECT value FROM json_each(:ids_wanted)) {of_row} ORDER BY id""",
        {"ids_wanted": json.dumps(ids)},
    ):
        lines[row_id].append(Line(*line))
    return lines


def _measures_of(connection: sqlite3.Connection, ids: list[int], at: str) -> dict[int, Measures]:
    """Read what moves with every push, as it was at a moment; nothing where that is not recorded."""
    since = fetch_value(connection, "SELECT value FROM mirror_meta WHERE key = ?", (MEASURED_SINCE,))
    if at < (since or ""):
        return {}
    found = fetch(
        connection,
        f"""SELECT w.value, (SELECT max(until) FROM measures b WHERE b.repository_id = w.value
                AND b.until <= :at), n.until, {", ".join(f"n.{name}" for name in MEASURED)}
            FROM json_each(:ids_wanted) w LEFT JOIN measures n ON n.repository_id = w.value AND n.until = (
                SELECT min(until) FROM measures a WHERE a.repository_id = w.value AND a.until > :at)""",
        {"ids_wanted": json.dumps(ids), "at": at},
    )
    return {
        row_id: Measures(Looks(before, after), dict(zip(MEASURED, values, strict=True)) if after else None)
        for row_id, before, after, *values in found
    }


def known_since(connection: sqlite3.Connection, caller: Caller, row_id: int) -> str | None:
    """Return since when the past of a repository may be shown to a caller; None where none of it may be."""
    rows = fetch_dicts(
        connection,
        f"""SELECT id, first_seen_at, public_from, {is_own("r")} AS is_own FROM repositories r
            WHERE id = :id AND {visible(caller, "r")}""",
        {"id": row_id, **caller.values},
    )
    return _known_since(connection, rows[0], _hidden(caller, rows[0])) if rows else None


def _hidden(caller: Caller, row: dict[str, Any]) -> int:
    """Return the last change of a repository that a caller does not see."""
    return 0 if caller.sees_all or row["is_own"] else int(row["public_from"])


def must_have_history(connection: sqlite3.Connection) -> None:
    """Raise NotFound for a published file."""
    # Former names are left out there, so that its past would be wrong.
    if snapshot_moment(connection) is not None:
        raise NotFound("a published file has no history; ask the mirror that it was made from")


def _known_since(connection: sqlite3.Connection, row: dict[str, Any], hidden: int) -> str | None:
    """Return the time from which on a repository's past may be shown; None if none of it may be.

    Of one that was private that is its last change that stays hidden (`public_from`), which is not before it
    was made public. Changes of others may be those of private repositories.
    """
    if not hidden:
        return str(row["first_seen_at"])
    if hidden >= HIDDEN:
        return None
    last: str | None = fetch_value(
        connection,
        "SELECT max(at) FROM changes WHERE repository_id = :id AND id <= :hidden",
        {"id": row["id"], "hidden": hidden},
    )
    return max(str(row["first_seen_at"]), last or "")


def past_named(connection: sqlite3.Connection, caller: Caller, full_name: str, at: str) -> Past:
    """Rebuild the repository that had a name at a moment, else the one that has it today.

    A repository that lived then comes before a tombstone. Raises NotFound where nothing is known.
    """
    ids = _ids_named(connection, caller, full_name)
    pasts, why = list[Past](), NotFound(f"the mirror holds no repository {full_name}{caller.or_hidden}")
    for found in _pasts(connection, caller, ids, at, with_refs=True):
        if isinstance(found, Past):
            pasts.append(found)
        else:
            why = found
    if not pasts:
        raise why
    wanted = full_name.lower()
    return min(
        pasts,
        key=lambda past: (
            past.full_name.lower() != wanted,
            bool(past.columns["deleted_at"]),
            past.full_name != full_name,
        ),
    )


def _ids_named(connection: sqlite3.Connection, caller: Caller, full_name: str) -> list[int]:
    """List the repositories that have a name or had it, those that live first."""
    found = fetch(
        connection,
        f"""WITH named AS (
                SELECT id, NULL AS change FROM repositories WHERE full_name = :name COLLATE NOCASE
                UNION ALL SELECT repository_id, id FROM changes WHERE old = :name COLLATE NOCASE
                    AND kind IN ('renamed', 'transferred'))
            SELECT DISTINCT r.id FROM named n JOIN repositories r ON r.id = n.id
            WHERE {visible(caller, "r")} AND (n.change IS NULL OR {_is_seen(caller, "n.change")})
            ORDER BY r.deleted_at IS NOT NULL, r.deleted_at DESC, r.id LIMIT 100""",
        {"name": full_name, **caller.values},
    )
    return [row_id for (row_id,) in found]


def _is_seen(caller: Caller, change: str) -> str:
    """Return the condition under which a caller sees a change, by its number, of the repository `r`."""
    return "1" if caller.sees_all else f"({change} > r.public_from OR {is_own('r')})"


_OF_PEOPLE = ("display_name", "first_name", "last_name", "nickname", "avatar_url")
"""Columns of accounts whose changes are not recorded."""


@contextmanager
def past_copy(
    connection: sqlite3.Connection, caller: Caller, pasts: Sequence[Past]
) -> Iterator[sqlite3.Connection]:
    """Give a mirror in memory that holds some repositories as they were, with their owners and refs."""
    owners, repositories = dict[int, dict[str, Any]](), list[dict[str, Any]]()
    for past in pasts:
        owner = _owner(connection, caller, past)
        owners[owner["id"]] = owner
        repositories.append({**past.columns, "owner_id": owner["id"]})
    copy = memory_copy(
        connection,
        {
            "upstreams": fetch_dicts(connection, "SELECT * FROM upstreams"),
            "users": owners.values(),
            # Those of today, who decide who may see what.
            "members": fetch_dicts(
                connection,
                "SELECT * FROM members WHERE workspace_id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(owners)),),
            ),
            "repositories": repositories,
            **{table: list(_refs(pasts, kind)) for kind, table in REF_TABLES.items()},
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


def _owner(connection: sqlite3.Connection, caller: Caller, past: Past) -> dict[str, Any]:
    """Return the account that owned a repository, by the name that it had."""
    # After a transfer only the name of the former owner is known: the account of that name today is taken.
    name, row = past.full_name.partition("/")[0], past.columns
    found = fetch_dicts(
        connection,
        f"""SELECT u.*, {account_seen(caller)} AS seen FROM users u
            WHERE u.id = :id OR (:id IS NULL AND u.upstream_id = :upstream
            AND u.username = :name COLLATE NOCASE AND {is_confirmed(caller)})
            ORDER BY NOT u.is_owner, u.id LIMIT 1""",
        {"id": row["owner_id"], "upstream": row["upstream_id"], "name": name, **caller.values},
    )
    owner = found[0] if found else _unknown_owner(row, name)
    if past.at < (owner.pop("seen") or "~"):  # later than any moment
        owner |= dict.fromkeys(_OF_PEOPLE)
    if past.at < (owner["deleted_at"] or ""):
        owner |= {"deleted_at": None, "gone_reason": None}
    return {**owner, "username": name, "last_seen_at": row["last_seen_at"]}


def _unknown_owner(row: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the row of an owner of whom only the name is known."""
    return {
        "id": -row["id"],  # no row of the file has it
        "upstream_id": row["upstream_id"],
        "uuid": f"{NAMED}{name.lower()}",
        "kind": "user",
        "is_owner": 1,
        "first_seen_at": row["first_seen_at"],
        "last_seen_at": row["last_seen_at"],
        "seen": row["last_seen_at"],
        "deleted_at": None,
        "gone_reason": None,
    }


def details_of(connection: sqlite3.Connection, past: Past) -> RepositoryDetails | None:
    """Return the result of `repository_details` at the moment, for a caller who may see everything."""
    with past_copy(connection, OPERATOR, [past]) as copy:
        return repository_details(copy, OPERATOR, past.full_name)


def past_exported(details: RepositoryDetails, past: Past) -> dict[str, Any]:
    """Return the data of `mirror show --json` at a moment: its usual keys, and the looks around it."""
    exported, looks = details.exported(), past.refs_by_name()
    for kind, table in REF_TABLES.items():
        for ref in exported[table] or ():
            ref.update(looks[kind, ref["name"]].exported())
    return {**exported, **past.bounds()}


_SHOWN = (
    "id", "full_name", "slug", "name", "scm", "is_private", "description", "website", "language",
    "main_branch", "fork_policy", "has_issues", "has_wiki", "archived", "project_key", *MEASURED,
    *NOT_RECORDED, "created_at", "deleted_at", "gone_reason",
)  # fmt: skip
"""The columns of `mirror_repository_at`: all except those that may name a hidden parent."""


def register_past(
    connection: sqlite3.Connection,
    *,
    sees_all: Callable[[], bool] = lambda: True,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Add two SQL functions to a connection.

    ``mirror_refs_at(repository, moment)`` returns a JSON array of branches and tags, for `json_each`; a third
    argument is the name of those wanted. ``mirror_repository_at(repository, moment)`` returns a JSON object.
    `repository` is a name or a number, `moment` as for `mirror show --at`, in UTC where it names no zone.
    Both return NULL where nothing is known, and for a moment that is in the future or none. Example::

        SELECT value ->> 'target_hash' FROM json_each(mirror_refs_at('ann/tool', '2026-11-03', 'master'))

    :param sees_all: whether those who run SQL on the connection may read the whole file by now
    :param reading: a context that is entered around each read
    """

    def found(repository: Any, moment: Any) -> Past | None:
        with reading():
            caller = OPERATOR if sees_all() else ANONYMOUS
            return _past_at(connection, caller, repository, str(moment or ""))

    def mirror_refs_at(repository: Any, moment: Any, name: str | None = None) -> str | None:
        past = found(repository, moment)
        if past is None or not past.ref_looks.before:
            return None
        return json.dumps(
            [
                {"kind": ref.row.kind, "name": ref.row.name, "target_hash": ref.row.target_hash}
                | ref.exported()
                for ref in past.refs
                if name is None or ref.row.name == name
            ]
        )

    def mirror_repository_at(repository: Any, moment: Any) -> str | None:
        past = found(repository, moment)
        if past is None:
            return None
        return json.dumps({name: past.columns[name] for name in _SHOWN} | past.bounds())

    connection.create_function("mirror_refs_at", 2, mirror_refs_at)
    connection.create_function("mirror_refs_at", 3, mirror_refs_at)
    connection.create_function("mirror_repository_at", 2, mirror_repository_at)


def _past_at(connection: sqlite3.Connection, caller: Caller, repository: Any, moment: str) -> Past | None:
    try:
        at = past_moment(moment, utc_now())
        if isinstance(repository, int):
            return past_of(connection, caller, repository, at)
        return past_named(connection, caller, str(repository), at)
    except (ValueError, NotFound):
        return None
