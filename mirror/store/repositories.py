"""Write repositories, one page at a time. For unchanged rows, only `last_seen_at` is written."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgspec

from mirror.model import NAMED, Repository
from mirror.store.changes import MEASURED, SENT, Change, repository_changes
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.extras import save_repository_extras
from mirror.store.repair import give_uuid
from mirror.store.rows import fetch_row, fetch_value
from mirror.store.writes import recently_written

# Counts that only some answers have: a None does not erase a known count.
KEPT_IF_MISSING = ("followers_count", "forks_count")

_WRITTEN = (*SENT, "owner_id", "parent_id")
_SENT_BY = attrgetter(*SENT)
_UPDATED_AT = SENT.index("updated_at")
_KEPT = tuple(SENT.index(column) for column in KEPT_IF_MISSING)
_MEASURES = itemgetter(*(SENT.index(column) for column in MEASURED))
_MAIN_BRANCH = SENT.index("main_branch")
_IS_PRIVATE = SENT.index("is_private")
_FULL_NAME = SENT.index("full_name")
_INSERT = f"""INSERT INTO repositories ({", ".join(_WRITTEN)}, id, upstream_id, uuid, refs_stale,
    first_seen_at, last_seen_at) VALUES ({", ".join("?" * (len(_WRITTEN) + 6))})"""
_UPDATE = f"""UPDATE repositories SET {", ".join(f"{column} = ?" for column in _WRITTEN)},
    refs_stale = max(refs_stale, ?), last_seen_at = ?, deleted_at = NULL, gone_reason = NULL WHERE id = ?"""
_KEEP_MEASURES = f"""INSERT OR IGNORE INTO measures (repository_id, until, {", ".join(MEASURED)})
    VALUES (?, ?, {", ".join("?" * len(MEASURED))})"""
# The search knows what has an id up to `up_to`, also where the rows that had the last ids are gone.
_NEXT_ID = """SELECT max(coalesce(max(id), 0), (SELECT coalesce(max(up_to), 0) FROM search_state)) + 1
    FROM repositories"""
_TOUCH = "UPDATE repositories SET last_seen_at = ? WHERE id = ?"
_ADOPT = """UPDATE repositories INDEXED BY repositories_orphan
    SET parent_id = (SELECT p.id FROM repositories p
        WHERE p.upstream_id = repositories.upstream_id AND p.uuid = repositories.parent_uuid)
    WHERE parent_id IS NULL AND upstream_id = ? AND parent_uuid IN (SELECT value FROM json_each(?))"""


class Refused(NamedTuple):
    """A row that is not written, and why."""

    row: Repository
    why: str


class SavedRepositories(NamedTuple):
    """The result of a page: ids of new and changed rows, the number of rows, and the changes to record.

    `refused` are rows that were not written.
    """

    new: list[int]
    changed: list[int]
    seen: int
    changes: list[Change]
    refused: list[Refused]


class Look(NamedTuple):
    """How a page of repositories was read: when, and by which run (None for a write).

    - `with_refs`: mark the refs of new and updated repositories as stale, and restart their listings.
    - `first_listing`: record no change for new rows, which existed before the mirror.
    - `listed_since`: when the listing began, None for repositories requested directly. If the page
      contradicts the visibility that was read since, the repository counts as private, and a hint asks for it
      directly.
    """

    at: str
    run_id: int | None = None
    with_refs: bool = False
    first_listing: bool = False
    listed_since: str | None = None


def save_repositories(
    connection: sqlite3.Connection,
    upstream_id: int,
    rows: Iterable[Repository],
    owner_ids: dict[str, int],
    look: Look,
) -> SavedRepositories:
    """Insert, update or touch a page of repositories; `owner_ids` maps each owner's uuid to its row."""
    page = {row.uuid: row for row in rows}  # by uuid, so that a renamed repository stays one row
    adopt_repositories(connection, upstream_id, page.values())
    known = _known(connection, upstream_id, list(page))
    parents = _ids_by_uuid(
        connection, upstream_id, {row.parent_uuid for row in page.values() if row.parent_uuid}
    )
    written = recently_written(connection, look.at)
    next_id = fetch_value(connection, _NEXT_ID)
    compared = _ComparedPage(look)
    created, told = list[Change](), dict[int, Repository]()
    for uuid, row in page.items():
        values = (*_SENT_BY(row), owner_ids[row.owner.uuid], parents.get(row.parent_uuid or ""))
        old = known.get(uuid)
        if old is None:
            compared.insert(next_id, upstream_id, row, values)
            created.append(Change("created", next_id, new=row.full_name))
            told[next_id] = row
            next_id += 1
        # A page that was requested before a write through this mirror does not undo that write.
        elif old.id not in written or not _is_outdated(old, row, *written[old.id], look.listed_since):
            compared.update(old, row, values)
            told[old.id] = row
        elif old.updated_at is None and old.deleted_at is None:  # its age is a guess: only privacy counts
            compared.update(old, row, old.values)
    compared.write(connection, upstream_id)
    save_repository_extras(connection, told, owner_ids)
    if created:
        connection.execute(_ADOPT, (upstream_id, json.dumps(list(page))))
    changes = compared.changes if look.first_listing else compared.changes + created
    return SavedRepositories(compared.new, compared.changed, len(page), changes, [])


class _ComparedPage:
    """The effect of a page: ids of new and changed rows, changes to record, rows to write."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self.new, self.changed, self.changes = list[int](), list[int](), list[Change]()
        # The values of each statement's rows.
        self._inserts, self._updates, self._touches, self._former_measures = (
            list[tuple[Any, ...]]() for _ in range(4)
        )
        self._outdated_refs, self._hints, self._private = list[int](), list[Hint](), list[str]()

    def insert(self, row_id: int, upstream_id: int, row: Repository, values: tuple[Any, ...]) -> None:
        """Insert a row; `values` are those of `_WRITTEN`."""
        at, stale = self._look.at, int(self._look.with_refs)
        self.new.append(row_id)
        if row.is_private:
            self._private.append(row.uuid)
        self._inserts.append((*values, row_id, upstream_id, row.uuid, stale, at, at))

    def update(self, old: "_Known", row: Repository, values: tuple[Any, ...]) -> None:
        """Update a row, or only its `last_seen_at` if nothing else differs."""
        look = self._look
        is_older = look.listed_since is not None and look.listed_since <= old.seen_at
        if is_older and row.is_private != old.is_private:
            values = (*values[:_IS_PRIVATE], True, *values[_IS_PRIVATE + 1 :])
            self._hints.append(Hint(uuid=row.uuid, row=True, at=look.at))
        values = _with_kept(old.values, values, row)
        if old.values == values and old.deleted_at is None:
            self._touches.append((look.at, old.id))
            return
        is_stale = look.with_refs and (
            old.updated_at != row.updated_at
            or old.deleted_at is not None
            # Data Center tells no updates, and its refs are requested by name: they may be of a namesake.
            or (row.updated_at is None and old.full_name != row.full_name)
        )
        if is_stale:
            self._outdated_refs.append(old.id)
        self.changed.append(old.id)
        if values[_IS_PRIVATE]:
            self._private.append(row.uuid)
        if _MEASURES(old.values) != _MEASURES(values):
            self._former_measures.append((old.id, look.at, *_MEASURES(old.values)))
        self.changes.extend(repository_changes(old.id, old.named(), dict(zip(_WRITTEN, values, strict=True))))
        self._updates.append((*values, int(is_stale), look.at, old.id))

    def write(self, connection: sqlite3.Connection, upstream_id: int) -> None:
        """Write all of it."""
        connection.executemany(_INSERT, self._inserts)
        connection.executemany(_UPDATE, self._updates)
        connection.executemany(_TOUCH, self._touches)
        connection.executemany(_KEEP_MEASURES, self._former_measures)
        if self._private:
            self.changes += _hide_elsewhere(connection, upstream_id, self._private, at=self._look.at)
        if self._outdated_refs or self._hints:
            cursors = Cursors(connection, upstream_id)
            cursors.drop_refs(self._outdated_refs)
            for hint in self._hints:
                cursors.hints.add(hint)


def _hide_elsewhere(
    connection: sqlite3.Connection, upstream_id: int, uuids: list[str], *, at: str
) -> list[Change]:
    """Make private the rows that other upstreams of the same server have of private repositories.

    A hint has each of them asked. Returns the changes to record.
    """
    found = connection.execute(
        """SELECT r.id, r.upstream_id, r.uuid FROM upstreams p
               CROSS JOIN upstreams q ON q.url = p.url AND q.id <> p.id  -- SQLite would read all repositories
               CROSS JOIN repositories r ON r.upstream_id = q.id
           WHERE p.id = ? AND r.is_private = 0 AND r.uuid IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(uuids)),
    ).fetchall()
    for row_id, other, uuid in found:
        # As seen now, so that a listing that is under way there does not make it public again.
        connection.execute(
            "UPDATE repositories SET is_private = 1, last_seen_at = ? WHERE id = ?", (at, row_id)
        )
        Cursors(connection, other).hints.add(Hint(uuid=uuid, row=True, at=at))
    return [Change("made_private", row_id) for row_id, _, _ in found]


class _Known(NamedTuple):
    """A row of the file: its values in the order of `_WRITTEN`, and whether it is a tombstone."""

    id: int
    seen_at: str
    deleted_at: str | None
    gone_reason: str | None
    values: tuple[Any, ...]

    @property
    def is_private(self) -> bool:
        """Whether it is hidden from strangers."""
        return bool(self.values[_IS_PRIVATE])

    @property
    def updated_at(self) -> str | None:
        """When the repository was last updated, as far as the mirror knows."""
        moment: str | None = self.values[_UPDATED_AT]
        return moment

    @property
    def full_name(self) -> str:
        """The name by which the repository was last seen."""
        return str(self.values[_FULL_NAME])

    def named(self) -> dict[str, Any]:
        """Map the columns to their values."""
        return dict(zip(_WRITTEN, self.values, strict=True)) | {
            "deleted_at": self.deleted_at,
            "last_seen_at": self.seen_at,
            "gone_reason": self.gone_reason,
        }


def _is_outdated(old: _Known, row: Repository, action: str, at: str, listed_since: str | None) -> bool:
    """Return whether a row is older than a write through this mirror: deleted, or changed since."""
    if action == "delete":
        return old.deleted_at is not None
    if old.updated_at is not None and row.updated_at is not None:
        return row.updated_at < old.updated_at
    # Data Center tells no such time: only a listing that began after the write is newer.
    return listed_since is not None and listed_since <= at


def _with_kept(old: tuple[Any, ...], new: tuple[Any, ...], row: Repository) -> tuple[Any, ...]:
    """Keep values that this answer lacks: counts, and the main branch if only branches tell it."""
    if row.tells_main_branch and all(new[index] is not None for index in _KEPT):
        return new
    kept = _KEPT if row.tells_main_branch else (*_KEPT, _MAIN_BRANCH)
    return tuple(old[i] if i in kept and value is None else value for i, value in enumerate(new))


def _known(connection: sqlite3.Connection, upstream_id: int, uuids: list[str]) -> dict[str, _Known]:
    """Read the rows that a page names, by uuid."""
    found = connection.execute(
        f"""SELECT uuid, id, last_seen_at, deleted_at, gone_reason, {", ".join(_WRITTEN)} FROM repositories
            WHERE upstream_id = ? AND uuid IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(uuids)),
    )
    return {
        uuid: _Known(row_id, seen_at, deleted_at, gone_reason, tuple(values))
        for uuid, row_id, seen_at, deleted_at, gone_reason, *values in found
    }


def _ids_by_uuid(connection: sqlite3.Connection, upstream_id: int, uuids: set[str]) -> dict[str, int]:
    if not uuids:
        return {}
    found = connection.execute(
        """SELECT uuid, id FROM repositories
           WHERE upstream_id = ? AND uuid IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(sorted(uuids))),
    )
    return dict(found)


def mark_gone(
    connection: sqlite3.Connection, repository_id: int, *, reason: str, seen_at: str
) -> list[Change]:
    """Turn a repository into a tombstone: the row and its refs stay, with a reason and a moment."""
    connection.execute(
        """UPDATE repositories SET deleted_at = ?, gone_reason = ?, refs_stale = 0
           WHERE id = ? AND deleted_at IS NULL""",
        (seen_at, reason, repository_id),
    )
    connection.execute("DELETE FROM sync_failures WHERE repository_id = ?", (repository_id,))
    read = "SELECT full_name, last_seen_at FROM repositories WHERE id = ?"
    name, seen = fetch_row(connection, read, (repository_id,))
    return [Change("deleted", repository_id, old=name, new=reason, previous_look=seen)]


def is_named(identity: str) -> bool:
    """Return whether an identity is only a name."""
    return identity.startswith(NAMED)


def known_by_uuid(connection: sqlite3.Connection, upstream_id: int, names: Iterable[str]) -> set[str]:
    """Return the namespaces among `names`, in lower case, whose owner has a real identity."""
    found = connection.execute(
        """SELECT username, uuid FROM users WHERE upstream_id = ? AND is_owner
           AND username COLLATE NOCASE IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(sorted(names))),
    )
    return {name.lower() for name, uuid in found if not is_named(uuid)}


def split_identifiable(
    connection: sqlite3.Connection, upstream_id: int, rows: Iterable[Repository]
) -> tuple[list[Repository], list[Refused]]:
    """Split a page into rows that can be identified, without repeats, and rows that cannot.

    Of rows with the same identity and name, the last is kept. Of those with different names, the first is
    kept, and the others are refused. What is kept is private if any of them is.
    """
    page, refused = dict[str, Repository](), list[Refused]()
    for row in _with_uuids(connection, upstream_id, list(rows), refused):
        first = page.get(row.uuid)
        kept = row
        if first is not None and first.full_name.lower() != row.full_name.lower():
            kept = first
            refused.append(Refused(row, f"it has the uuid of {first.full_name}, which is on the same page"))
        if first is not None and (first.is_private or row.is_private):
            kept = msgspec.structs.replace(kept, is_private=True)
        page[row.uuid] = kept
    return list(page.values()), refused


def _with_uuids(
    connection: sqlite3.Connection, upstream_id: int, rows: list[Repository], refused: list[Refused]
) -> Iterator[Repository]:
    """Yield the rows, except those without uuid in a namespace that has uuids.

    Saved by its name, such a row would be a duplicate that nothing keeps current.
    """
    unsure = {_namespace(row) for row in rows if is_named(row.uuid) or is_named(row.owner.uuid)}
    sure = {_namespace(row) for row in rows if not is_named(row.owner.uuid)}
    if unsure:
        sure |= known_by_uuid(connection, upstream_id, unsure)
    for row in rows:
        if _namespace(row) not in sure or not (is_named(row.uuid) or is_named(row.owner.uuid)):
            yield row
        else:
            whose = "no uuid" if is_named(row.uuid) else "no uuid of its workspace"
            refused.append(Refused(row, f"it has {whose}, though others of {_namespace(row)} have one"))


def _namespace(row: Repository) -> str:
    return row.full_name.partition("/")[0].lower()


def adopt_repositories(connection: sqlite3.Connection, upstream_id: int, rows: Iterable[Repository]) -> None:
    """Give rows that are known only by name the uuid of the listed repository of that name."""
    names = {f"{NAMED}{row.full_name.lower()}": row.uuid for row in rows if not is_named(row.uuid)}
    found = connection.execute(
        """SELECT id, uuid FROM repositories
           WHERE upstream_id = ? AND deleted_at IS NULL AND uuid IN (SELECT value FROM json_each(?))""",
        (upstream_id, json.dumps(list(names))),
    ).fetchall()
    for row_id, name in found:
        give_uuid(connection, "repositories", upstream_id, row_id, names[name])


def make_private(connection: sqlite3.Connection, upstream_id: int, *, unseen_since: str) -> list[int]:
    """Make public repositories of an upstream private that were not seen since a moment; return their ids."""
    found = connection.execute(
        """SELECT id FROM repositories WHERE upstream_id = ? AND is_private = 0 AND deleted_at IS NULL
           AND last_seen_at < ? ORDER BY id""",
        (upstream_id, unseen_since),
    )
    hidden = [row_id for (row_id,) in found.fetchall()]
    connection.executemany("UPDATE repositories SET is_private = 1 WHERE id = ?", [(one,) for one in hidden])
    return hidden
