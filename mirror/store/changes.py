"""Events of repositories: the table `changes`, and `writes` for those made through this mirror.

This file also decides which part of a repository's history is public: changes recorded while it was private
stay hidden (`public_from`).
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from mirror.model import Repository
from mirror.times import from_text, to_text

SAID = tuple(
    field
    for field in Repository.__struct_fields__
    if field not in {"uuid", "owner", "project", "told", "tells_main_branch"}
)
"""Columns that come from the upstream, named as in `mirror.model.Repository`."""

_NOT_DESCRIBED = {
    "slug", "full_name", "is_private", "size", "parent_uuid", "parent_full_name", "followers_count",
    "forks_count", "project_name", "project_uuid", "avatar_url", "clone_https", "clone_ssh", "created_at",
    "updated_at",
}  # fmt: skip

MEASURED = ("size", "updated_at", "followers_count")
"""Columns that move with every push: the table `measures` has what they were, and no change is told.

The number of forks is not among them: it counts private ones, which are subtracted as of today.
"""

MEASURED_SINCE = "measures_since"
"""The key in `mirror_meta` of the moment since which `measures` is complete; missing where it always was."""

DESCRIBED = tuple(column for column in SAID if column not in _NOT_DESCRIBED)
"""Columns whose changes are told of.

The name of a parent is not among them: edits are visible to everybody, and a parent may be private.
"""


class Change(NamedTuple):
    """One line of the table `changes`; `repository_id` or `user_id` says what it is about.

    `previous_look` is when the same was looked at before, and had not changed; `forced` whether
    a push is told to have been forced; `old_date` when the former commit of a ref was made. None is unknown.
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
    """Compare two rows of `repositories`; both map column names to values.

    `old` has when the row was seen, as `last_seen_at`. `made_public` comes last: the changes before it
    compare with the private row, and stay hidden.
    """
    seen = old["last_seen_at"]
    if old["deleted_at"] is not None:
        yield Change(
            "restored", repository_id, old=old["gone_reason"], new=new["full_name"], previous_look=seen
        )
    if old["full_name"] != new["full_name"]:
        kind = "renamed" if old["owner_id"] == new["owner_id"] else "transferred"
        yield Change(kind, repository_id, old=old["full_name"], new=new["full_name"], previous_look=seen)
    differing = [column for column in DESCRIBED if old[column] != new[column]]
    moved = [column for column in differing if not _became_known(old, new, column)]
    if moved:
        yield Change(
            "updated",
            repository_id,
            old=json.dumps({column: old[column] for column in moved}, ensure_ascii=False),
            new=json.dumps({column: new[column] for column in moved}, ensure_ascii=False),
            previous_look=seen,
        )
    if bool(old["is_private"]) != bool(new["is_private"]):
        kind = "made_private" if new["is_private"] else "made_public"
        yield Change(kind, repository_id, previous_look=seen)


def _became_known(old: Mapping[str, Any], new: Mapping[str, Any], column: str) -> bool:
    """Return whether a flag is off that was unknown: a new column would else make every row a change."""
    return old[column] is None and new[column] is False


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
    """The commit of a ref, and when it was made, where that is known."""

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
    """Return the change of a ref from a commit to another one; None stands for no ref."""
    verb = "created" if before is None else "deleted" if after is None else "moved"
    old, date = before or (None, None)
    return Change(f"{kind}_{verb}", repository_id, None, name, old, after, previous_look, forced, date)


class Move(NamedTuple):
    """A change that moved a main branch, and nobody told whether by force."""

    id: int
    uuid: str
    full_name: str
    scm: str | None
    old: str
    new: str


def moves_to_ask_about(
    connection: sqlite3.Connection, upstream_id: int, *, after: int, since: str, most: int
) -> list[Move]:
    """List the moves of main branches behind a change, that were seen since a moment, in their order."""
    found = connection.execute(
        """SELECT c.id, r.uuid, r.full_name, r.scm, c.old, c.new
           FROM changes c CROSS JOIN repositories r ON r.id = c.repository_id
           WHERE c.id > :after AND c.id >= coalesce((SELECT min(id) FROM changes WHERE at >= :since), :last)
               AND c.kind = 'branch_moved' AND c.forced IS NULL AND c.ref = r.main_branch
               AND r.upstream_id = :upstream AND r.deleted_at IS NULL ORDER BY c.id LIMIT :most""",
        {"after": after, "since": since, "last": CLOSED, "upstream": upstream_id, "most": most},
    )
    return [Move(*row) for row in found]


def save_forced(connection: sqlite3.Connection, change_id: int, *, forced: bool | None) -> None:
    """Note whether a change was a forced push, unless somebody told it meanwhile."""
    connection.execute("UPDATE changes SET forced = coalesce(forced, ?) WHERE id = ?", (forced, change_id))


CLOSED = 2**63 - 1
"""The `public_from` that no change is above."""

_CLOSE = f"""UPDATE repositories SET refs_stale = max(refs_stale, :with_refs), public_from = iif(:with_refs
        OR EXISTS (SELECT 1 FROM branches WHERE repository_id = :id)
        OR EXISTS (SELECT 1 FROM tags WHERE repository_id = :id),
    {CLOSED}, (SELECT coalesce(max(id), 0) FROM changes)) WHERE id = :id"""

_OPEN = """UPDATE repositories SET public_from = (SELECT coalesce(max(id), 0) FROM changes) WHERE id = ?"""


def close(connection: sqlite3.Connection, published: Iterable[int], *, with_refs: bool) -> None:
    """Hide the history of repositories that were just made public; call it once their changes are saved.

    It stays closed until their refs have been listed again. Where no refs are in the file and none are
    mirrored (`with_refs`), only the changes until now are hidden.
    """
    values = [{"id": repository_id, "with_refs": int(with_refs)} for repository_id in published]
    connection.executemany(_CLOSE, values)


def reopen(connection: sqlite3.Connection, repository_id: int, *, listed_since: str) -> None:
    """Show what is recorded from now on, if a repository is closed and all its refs were read since.

    `listed_since` is when their listing began. If that was before the repository was made public, they are
    listed again.
    """
    closed = connection.execute(
        "SELECT 1 FROM repositories WHERE id = ? AND public_from = ?", (repository_id, CLOSED)
    ).fetchone()
    if closed is None:
        return
    published_at = connection.execute(
        "SELECT max(at) FROM changes WHERE repository_id = ? AND kind = 'made_public'", (repository_id,)
    ).fetchone()[0]
    if listed_since >= (published_at or ""):
        connection.execute(_OPEN, (repository_id,))
    else:
        connection.execute("UPDATE repositories SET refs_stale = 1 WHERE id = ?", (repository_id,))


OLDEST_PAGE = timedelta(minutes=10)
"""The age that a page may have when a sync saves it."""

Outcome = Literal["done", "unknown"]


class Written(NamedTuple):
    """One line of the table `writes`; `by` names a token or the command line, never its secret.

    `outcome` is unknown where the upstream may have done it, but its answer was lost. Refused writes are not
    recorded.
    """

    at: str
    by: str
    action: str
    full_name: str
    outcome: Outcome = "done"
    uuid: str = ""


def save_written(connection: sqlite3.Connection, upstream_id: int, written: Written) -> int:
    """Record a write and return the number of its line; `uuid` leads to the row of the repository."""
    cursor = connection.execute(
        """INSERT INTO writes (at, asked_by, action, upstream_id, full_name, outcome)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (written.at, written.by, written.action, upstream_id, written.full_name, written.outcome),
    )
    number = int(cursor.lastrowid or 0)
    link_written(connection, number, written.uuid)
    return number


def link_written(connection: sqlite3.Connection, number: int, uuid: str) -> None:
    """Link a record to the row of its repository, as soon as there is one."""
    connection.execute(
        """UPDATE writes SET repository_id = (SELECT r.id FROM repositories r
               WHERE r.upstream_id = writes.upstream_id AND r.uuid = ?) WHERE id = ?""",
        (uuid, number),
    )


def recently_written(connection: sqlite3.Connection, now: str) -> dict[int, str]:
    """Map the rows that were written within the age of a page under way to what was done to them last."""
    since = to_text(from_text(now) - OLDEST_PAGE)
    return dict(
        connection.execute(
            """SELECT repository_id, action FROM writes
               WHERE at > ? AND at <= ? AND outcome = 'done' AND repository_id IS NOT NULL ORDER BY id""",
            (since, now),
        ).fetchall()
    )
