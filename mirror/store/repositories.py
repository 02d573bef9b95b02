"""Write repositories, a page at a time; of unchanged rows only `last_seen_at` is written.

The page is compared with the rows in the file, then written with three prepared statements: for new rows, for
changed ones, and for the rest.

This file also decides which part of a repository's history is public: changes recorded while it was private
stay hidden (`public_from`).
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from mirror.model import Repository
from mirror.store.audit import recently_written
from mirror.store.cursors import Cursors
from mirror.store.identities import Refused, adopt_repositories

SAID = tuple(
    field for field in Repository.__struct_fields__ if field not in {"uuid", "owner", "tells_main_branch"}
)
"""Columns that come from the upstream, named as in `mirror.model.Repository`."""

_NOT_DESCRIBED = {
    "slug", "full_name", "is_private", "size", "parent_uuid", "parent_full_name", "followers_count",
    "forks_count", "project_name", "project_uuid", "avatar_url", "clone_https", "clone_ssh", "created_at",
    "updated_at",
}  # fmt: skip
DESCRIBED = tuple(column for column in SAID if column not in _NOT_DESCRIBED)
"""Columns whose changes are recorded; sizes, counts and update times move with every push.

The name of a parent is not among them: edits are visible to everybody, and a parent may be private.
"""


class Change(NamedTuple):
    """One line of the table `changes`; `repository_id` or `user_id` says what it is about."""

    kind: str
    repository_id: int | None = None
    user_id: int | None = None
    ref: str | None = None
    old: str | None = None
    new: str | None = None


def repository_changes(
    repository_id: int, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    """Compare two rows of `repositories`; both map column names to values.

    `made_public` comes last: the changes before it compare with the private row, and stay hidden.
    """
    if old["deleted_at"] is not None:
        yield Change("restored", repository_id, old=old["gone_reason"], new=new["full_name"])
    if old["full_name"] != new["full_name"]:
        kind = "renamed" if old["owner_id"] == new["owner_id"] else "transferred"
        yield Change(kind, repository_id, old=old["full_name"], new=new["full_name"])
    differing = [column for column in DESCRIBED if old[column] != new[column]]
    moved = [column for column in differing if not _became_known(old, new, column)]
    if moved:
        yield Change(
            "updated",
            repository_id,
            old=json.dumps({column: old[column] for column in moved}, ensure_ascii=False),
            new=json.dumps({column: new[column] for column in moved}, ensure_ascii=False),
        )
    if bool(old["is_private"]) != bool(new["is_private"]):
        yield Change("made_private" if new["is_private"] else "made_public", repository_id)


def _became_known(old: Mapping[str, Any], new: Mapping[str, Any], column: str) -> bool:
    """Tell whether a flag is off that was unknown: a new column would else make every row a change."""
    return old[column] is None and new[column] is False


def ref_changes(
    repository_id: int, kind: str, old: Mapping[str, str], new: Mapping[str, str], *, complete: bool
) -> Iterator[Change]:
    """Compare the refs of one kind, name to hash; only if `complete`, missing ones are deletions."""
    for name, target in new.items():
        if name not in old:
            yield Change(f"{kind}_created", repository_id, ref=name, new=target)
        elif old[name] != target:
            yield Change(f"{kind}_moved", repository_id, ref=name, old=old[name], new=target)
    if complete:
        for name in old.keys() - new.keys():
            yield Change(f"{kind}_deleted", repository_id, ref=name, old=old[name])


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


KEPT_WHEN_UNSAID = ("followers_count", "forks_count")
"""Counts that only some answers carry: None there does not erase what another answer had."""

_WRITTEN = (*SAID, "owner_id", "parent_id")
_SAID_BY = attrgetter(*SAID)
_UPDATED_AT = SAID.index("updated_at")
_KEPT = tuple(SAID.index(column) for column in KEPT_WHEN_UNSAID)
_MAIN_BRANCH = SAID.index("main_branch")
_INSERT = f"""INSERT INTO repositories ({", ".join(_WRITTEN)}, id, upstream_id, uuid, refs_stale,
    first_seen_at, last_seen_at) VALUES ({", ".join("?" * (len(_WRITTEN) + 6))})"""
_UPDATE = f"""UPDATE repositories SET {", ".join(f"{column} = ?" for column in _WRITTEN)},
    refs_stale = max(refs_stale, ?), last_seen_at = ?, deleted_at = NULL, gone_reason = NULL WHERE id = ?"""
_TOUCH = "UPDATE repositories SET last_seen_at = ? WHERE id = ?"
_ADOPT = """UPDATE repositories INDEXED BY repositories_orphan
    SET parent_id = (SELECT p.id FROM repositories p
        WHERE p.upstream_id = repositories.upstream_id AND p.uuid = repositories.parent_uuid)
    WHERE parent_id IS NULL AND upstream_id = ? AND parent_uuid IN (SELECT value FROM json_each(?))"""


class SavedRepositories(NamedTuple):
    """What a page did: ids of new and of changed rows, how many it named, and the changes to record.

    `refused` are rows that were not written.
    """

    new: list[int]
    changed: list[int]
    seen: int
    changes: list[Change]
    refused: list[Refused]


def save_repositories(
    connection: sqlite3.Connection,
    upstream_id: int,
    rows: Iterable[Repository],
    owner_ids: dict[str, int],
    *,
    seen_at: str,
    with_refs: bool,
    first_listing: bool,
) -> SavedRepositories:
    """Insert, update or touch a page of repositories; `owner_ids` maps each owner's uuid to its row.

    A repository is known by its uuid, so one that is renamed, or moved to another owner, stays one row.
    With `with_refs`, the refs of new and updated ones are stale, and are listed from their first page: a
    listing that had begun is of before the update. On a `first_listing` new rows record no change, because
    they existed before the mirror did. A page that was asked for before a repository was written through this
    mirror does not undo that write.
    """
    page = {row.uuid: row for row in rows}
    adopt_repositories(connection, upstream_id, page.values())
    known = _known(connection, upstream_id, list(page))
    parents = _ids(connection, upstream_id, {row.parent_uuid for row in page.values() if row.parent_uuid})
    written = recently_written(connection, seen_at)
    next_id = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM repositories").fetchone()[0]
    inserts, updates, touches = list[Sequence[Any]](), list[Sequence[Any]](), list[Sequence[Any]]()
    outdated_refs, created = list[int](), list[Change]()
    saved = SavedRepositories([], [], len(page), [], [])
    for uuid, row in page.items():
        new = (*_SAID_BY(row), owner_ids[row.owner.uuid], parents.get(row.parent_uuid or ""))
        old = known.get(uuid)
        if old is None:
            saved.new.append(next_id)
            created.append(Change("created", next_id, new=row.full_name))
            inserts.append((*new, next_id, upstream_id, uuid, int(with_refs), seen_at, seen_at))
            next_id += 1
            continue
        if old.id in written and _is_outdated(old, row, written[old.id]):
            continue
        new = _with_kept(old.values, new, row)
        if old.values == new and old.deleted_at is None:
            touches.append((seen_at, old.id))
            continue
        stale = with_refs and (old.updated_at != row.updated_at or old.deleted_at is not None)
        if stale:
            outdated_refs.append(old.id)
        saved.changed.append(old.id)
        saved.changes.extend(repository_changes(old.id, old.named(), dict(zip(_WRITTEN, new, strict=True))))
        updates.append((*new, int(stale), seen_at, old.id))
    connection.executemany(_INSERT, inserts)
    connection.executemany(_UPDATE, updates)
    connection.executemany(_TOUCH, touches)
    Cursors(connection, upstream_id).drop_refs(outdated_refs)
    if inserts:
        connection.execute(_ADOPT, (upstream_id, json.dumps(list(page))))
    if not first_listing:
        saved.changes.extend(created)
    return saved


class _Known(NamedTuple):
    """A mirrored row: its values in the order of `_WRITTEN`, and whether it is a tombstone."""

    id: int
    deleted_at: str | None
    gone_reason: str | None
    values: tuple[Any, ...]

    @property
    def updated_at(self) -> str | None:
        """When the repository was last updated, as far as the mirror knows."""
        moment: str | None = self.values[_UPDATED_AT]
        return moment

    def named(self) -> dict[str, Any]:
        """Map the columns to their values."""
        return dict(zip(_WRITTEN, self.values, strict=True)) | {
            "deleted_at": self.deleted_at,
            "gone_reason": self.gone_reason,
        }


def _is_outdated(old: _Known, row: Repository, action: str) -> bool:
    """Tell whether a row is older than what was just written: deleted for good, or changed since."""
    if action == "delete":
        return old.deleted_at is not None
    return old.updated_at is not None and row.updated_at is not None and row.updated_at < old.updated_at


def _with_kept(old: tuple[Any, ...], new: tuple[Any, ...], row: Repository) -> tuple[Any, ...]:
    """Keep what this answer did not carry: counts, and the main branch where branches tell it."""
    if row.tells_main_branch and all(new[index] is not None for index in _KEPT):
        return new
    kept = _KEPT if row.tells_main_branch else (*_KEPT, _MAIN_BRANCH)
    return tuple(old[i] if i in kept and value is None else value for i, value in enumerate(new))


def _known(connection: sqlite3.Connection, upstream_id: int, uuids: list[str]) -> dict[str, _Known]:
    """Read the rows that a page names, by uuid."""
    found = connection.execute(
        f"""SELECT uuid, id, deleted_at, gone_reason, {", ".join(_WRITTEN)} FROM repositories
            WHERE upstream_id = ? AND uuid IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(uuids)),
    )
    return {
        uuid: _Known(row_id, deleted_at, gone_reason, tuple(values))
        for uuid, row_id, deleted_at, gone_reason, *values in found
    }


def _ids(connection: sqlite3.Connection, upstream_id: int, uuids: set[str]) -> dict[str, int]:
    """Find the rows of some repositories by uuid."""
    if not uuids:
        return {}
    found = connection.execute(
        """SELECT uuid, id FROM repositories
           WHERE upstream_id = ? AND uuid IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(sorted(uuids))),
    )
    return dict(found.fetchall())


def mark_gone(
    connection: sqlite3.Connection, repository_id: int, *, reason: str, seen_at: str
) -> list[Change]:
    """Turn a repository into a tombstone: the row and its refs stay, with reason and moment."""
    connection.execute(
        """UPDATE repositories SET deleted_at = ?, gone_reason = ?, refs_stale = 0
           WHERE id = ? AND deleted_at IS NULL""",
        (seen_at, reason, repository_id),
    )
    connection.execute("DELETE FROM sync_failures WHERE repository_id = ?", (repository_id,))
    name = connection.execute("SELECT full_name FROM repositories WHERE id = ?", (repository_id,)).fetchone()
    return [Change("deleted", repository_id, old=name[0], new=reason)]
