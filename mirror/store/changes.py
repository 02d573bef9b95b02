"""The history: the table `changes` with the events of repositories, owners and refs.

This file also decides which part of a repository's history is public: changes recorded while it was private
stay hidden (`public_from`). `mirror.store.compaction` thins out what is old.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mirror.model import Repository
from mirror.store.rows import fetch_as, fetch_row, fetch_value
from mirror.store.schema import HIDDEN

# Columns that come from the upstream, named as in `mirror.model.Repository`.
SENT = tuple(
    field
    for field in Repository.__struct_fields__
    if field not in {"uuid", "owner", "project", "told", "tells_main_branch"}
)

_NOT_DESCRIBED = {
    "slug", "full_name", "is_private", "size", "parent_uuid", "parent_full_name", "followers_count",
    "forks_count", "project_name", "project_uuid", "avatar_url", "clone_https", "clone_ssh", "created_at",
    "updated_at",
}  # fmt: skip

# Columns that move with every push. Their old values go to the table `measures`, not to `changes`. The
# number of forks is not among them: it includes private ones, and only today's can be subtracted.
MEASURED = ("size", "updated_at", "followers_count")

# The key in `mirror_meta` of the moment since which `measures` is complete; absent if it always was.
MEASURED_SINCE = "measures_since"

# Columns whose changes are recorded. Not the name of the parent: everybody sees edits, and a parent may be
# private.
DESCRIBED = tuple(column for column in SENT if column not in _NOT_DESCRIBED)


# The kinds of changes in the index `changes_rare`: all that may be few among millions.
RARE = (
    "branch_deleted", "deleted", "made_private", "made_public", "owner_renamed", "renamed", "restored",
    "tag_created", "tag_deleted", "tag_moved", "transferred",
)  # fmt: skip

RARE_KINDS = ", ".join(f"'{kind}'" for kind in RARE)  # the same, as in the condition of the index


class Change(NamedTuple):
    """A row of the table `changes`, about a repository or an owner (`user_id`). None means unknown.

    - `previous_look`: when the mirror last read the same thing, before it changed.
    - `forced`: whether the push was a forced one, as reported.
    - `old_date`: the date of the ref's former commit.
    """

    kind: str
    repository_id: int | None = None
    user_id: int | None = None
    ref: str | None = None
    old: str | None = None
    new: str | None = None
    previous_look: str | None = None
    forced: bool | None = None
    old_date: str | None = None


def repository_changes(
    repository_id: int, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    """Compare two rows of `repositories`; both map column names to values. `old` also has `last_seen_at`."""
    seen = old["last_seen_at"]
    if old["deleted_at"] is not None:
        why, name = old["gone_reason"], new["full_name"]
        yield Change("restored", repository_id, old=why, new=name, previous_look=seen)
    if old["full_name"] != new["full_name"]:
        kind = "renamed" if old["owner_id"] == new["owner_id"] else "transferred"
        yield Change(kind, repository_id, old=old["full_name"], new=new["full_name"], previous_look=seen)
    # An unknown flag that became false is no change: a new version may have begun to read it, of every row.
    moved = [
        column
        for column in DESCRIBED
        if old[column] != new[column] and not (old[column] is None and new[column] is False)
    ]
    if moved:
        yield Change(
            "updated",
            repository_id,
            old=json.dumps({column: old[column] for column in moved}, ensure_ascii=False, default=_as_text),
            new=json.dumps({column: new[column] for column in moved}, ensure_ascii=False),
            previous_look=seen,
        )
    # Last: the changes before `made_public` compare with the private row, and stay hidden.
    if bool(old["is_private"]) != bool(new["is_private"]):
        kind = "made_private" if new["is_private"] else "made_public"
        yield Change(kind, repository_id, previous_look=seen)


def _as_text(value: bytes) -> str:
    """Return a BLOB, which only another program writes into a row, as a text."""
    return value.decode("utf-8", "replace")


def ref_changes(
    repository_id: int,
    kind: str,
    old: "Mapping[str, RefTarget]",
    new: Mapping[str, str],
    *,
    complete: bool,
    previous_look: str | None,
) -> Iterator[Change]:
    """Compare the refs of one kind with their hashes; only if `complete`, missing ones are deletions."""
    for name, target in new.items():
        before = old.get(name)
        if before is None or before.hash != target:
            yield ref_change(repository_id, kind, name, before, target, previous_look=previous_look)
    if complete:
        for name in old.keys() - new.keys():
            yield ref_change(repository_id, kind, name, old[name], None, previous_look=previous_look)


class RefTarget(NamedTuple):
    """The commit of a ref, and its date if that is known."""

    hash: str
    date: str | None


def ref_change(
    repository_id: int,
    kind: str,
    name: str,
    before: RefTarget | None,
    after: str | None,
    *,
    previous_look: str | None,
    forced: bool | None = None,
) -> Change:
    """Return the change of a ref from one commit to another; None means that there is no ref."""
    verb = "created" if before is None else "deleted" if after is None else "moved"
    old, date = before or (None, None)
    return Change(f"{kind}_{verb}", repository_id, None, name, old, after, previous_look, forced, date)


LAST_CHANGE = "(SELECT coalesce(max(id), 0) FROM changes)"
"""The number of the change that was recorded last, as SQL."""


def last_change(connection: sqlite3.Connection) -> int:
    """Return the number of the change that was recorded last."""
    return int(fetch_value(connection, f"SELECT {LAST_CHANGE}"))


def is_pushed_since(connection: sqlite3.Connection, repository_id: int, change_id: int) -> bool:
    """Return whether a push to a repository, reported by a webhook, was recorded after a change."""
    sql = """SELECT EXISTS (SELECT 1 FROM changes
        WHERE repository_id = ? AND id > ? AND run_id IS NULL AND ref IS NOT NULL)"""
    return bool(fetch_value(connection, sql, (repository_id, change_id)))


class Move(NamedTuple):
    """A change that moved a main branch, without a report on whether it was forced."""

    id: int
    uuid: str
    full_name: str
    scm: str | None
    old: str
    new: str


def moves_to_ask_about(
    connection: sqlite3.Connection, upstream_id: int, *, after: int, since: str, most: int
) -> list[Move]:
    """List moves of main branches after a change (by id) and since a moment, in order."""
    return fetch_as(
        Move,
        connection,
        """SELECT c.id, r.uuid, r.full_name, r.scm, c.old, c.new
           FROM changes c CROSS JOIN repositories r ON r.id = c.repository_id
           WHERE c.id > :after AND c.id >= (SELECT min(id) FROM changes WHERE at >= :since)
               AND c.is_main = 1 AND c.forced IS NULL
               AND r.upstream_id = :upstream AND r.deleted_at IS NULL ORDER BY c.id LIMIT :most""",
        {"after": after, "since": since, "upstream": upstream_id, "most": most},
    )


def save_forced(connection: sqlite3.Connection, change_id: int, *, forced: bool | None) -> None:
    """Record whether a change was a forced push, unless that is already known."""
    connection.execute("UPDATE changes SET forced = coalesce(forced, ?) WHERE id = ?", (forced, change_id))


_HIDE = f"""UPDATE repositories SET refs_stale = max(refs_stale, :with_refs), public_from = iif(:with_refs
        OR EXISTS (SELECT 1 FROM branches WHERE repository_id = :id)
        OR EXISTS (SELECT 1 FROM tags WHERE repository_id = :id),
    {HIDDEN}, {LAST_CHANGE}) WHERE id = :id"""


def hide_history(connection: sqlite3.Connection, published: Iterable[int | None], *, with_refs: bool) -> None:
    """Hide the history of repositories that were just made public, and the like, after saving their changes.

    It stays hidden until their refs have been listed again (`show_new_changes`). If the file has no refs of
    them and none are mirrored (`with_refs`), only the changes until now are hidden.
    """
    values = [{"id": repository_id, "with_refs": int(with_refs)} for repository_id in published]
    connection.executemany(_HIDE, values)


_MAY_HAVE_REFS_OF_A_NAMESAKE = """SELECT 1 FROM repositories r JOIN upstreams u ON u.id = r.upstream_id
    WHERE r.id = :id AND NOT r.is_private AND (u.kind = 'datacenter' OR u.refs = 'git')
        AND (r.refs_synced_at > :look OR EXISTS (  -- a listing of them may have been interrupted
            SELECT 1 FROM changes WHERE repository_id = r.id AND ref IS NOT NULL AND at > :look))
        AND (r.deleted_at IS NULL OR EXISTS (SELECT 1 FROM repositories n
            WHERE n.upstream_id = r.upstream_id AND n.full_name = r.full_name COLLATE NOCASE
                AND n.id <> r.id AND n.deleted_at IS NULL))"""


def of_namesakes(connection: sqlite3.Connection, changes: Iterable[Change]) -> list[int | None]:
    """Return the public repositories that lost their name and may have the refs of its new holder.

    Data Center and git are asked for refs by the name. Those that were requested after the listing before may
    be of a private repository: they and their changes must stay hidden (`hide_history`).
    """
    return [
        one.repository_id
        for one in changes
        if one.kind in ("renamed", "transferred", "deleted")
        and fetch_row(
            connection,
            _MAY_HAVE_REFS_OF_A_NAMESAKE,
            {"id": one.repository_id, "look": one.previous_look},
        )
    ]


def show_new_changes(connection: sqlite3.Connection, repository_id: int, *, listed_since: str) -> None:
    """Show changes from now on, if the history of a repository is hidden and all its refs were read.

    `listed_since` is when the listing of refs began. If that was before the repository was made public, the
    refs are listed again.
    """
    hidden = fetch_row(
        connection,
        f"""SELECT (SELECT max(at) FROM changes WHERE repository_id = r.id AND kind = 'made_public')
            FROM repositories r WHERE id = ? AND public_from = {HIDDEN}""",
        (repository_id,),
    )
    if hidden is None:
        return
    (published_at,) = hidden
    is_current = listed_since >= (published_at or "")
    update = f"public_from = {LAST_CHANGE}" if is_current else "refs_stale = 1"
    connection.execute(f"UPDATE repositories SET {update} WHERE id = ?", (repository_id,))
