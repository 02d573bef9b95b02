"""Write branches and tags of one repository: listings page by page, and single refs that a push moved.

A listing of one page replaces the refs at once. A longer one collects names in `seen_refs`, and its last page
deletes the refs that no page named. A push names the old and the new commit of each ref: it is applied only
if the mirror has the old one, so that pushes that arrive late, twice or out of order never move a ref back.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from mirror.model import Ref, RefKind
from mirror.search.index.refs.changes import update_after_refs
from mirror.store.changes import Change, RefTarget, ref_change, ref_changes
from mirror.store.cursors import Cursors
from mirror.store.extras import Extra, drop_ref_extras, ref_extras, save_extras, save_ref_extras
from mirror.store.rows import fetch_as, fetch_row
from mirror.store.schema import HIDDEN, PSEUDO_TAG, REF_TABLES

_COMMON = (
    "target_hash", "target_date", "target_author", "target_author_name", "target_author_uuid",
    "target_message", "target_parents",
)  # fmt: skip
COLUMNS: dict[RefKind, tuple[str, ...]] = {
    "branch": (*_COMMON, "heads"),
    "tag": (*_COMMON, "tagger", "message", "date"),
}
_SENT_BY = {kind: attrgetter(*columns) for kind, columns in COLUMNS.items()}

_SAVE = {
    kind: f"""INSERT INTO {REF_TABLES[kind]} (repository_id, name, {", ".join(columns)})
        VALUES ({", ".join("?" * (len(columns) + 2))})
        ON CONFLICT (repository_id, name) DO UPDATE SET
            {", ".join(f"{column} = excluded.{column}" for column in columns)}
        WHERE ({", ".join(f"{REF_TABLES[kind]}.{column}" for column in columns)})
            IS NOT ({", ".join(f"excluded.{column}" for column in columns)})"""
    for kind, columns in COLUMNS.items()
}


class SavedRefs(NamedTuple):
    """How many refs were new, moved and gone, and the changes to record.

    `is_hidden` says that the history of the repository is hidden (`mirror.store.changes.show_new_changes`).
    """

    new: int
    moved: int
    gone: int
    changes: list[Change]
    is_hidden: bool


class _Before(NamedTuple):
    """What the file holds of a repository before a page of its refs is written."""

    id: int
    previous_look: str | None
    is_hidden: bool
    has_refs: bool
    has_names: bool  # of pages that were listed so far
    main_branch: str | None
    uuid: str
    full_name: str
    name: str
    avatar_url: str | None

    @property
    def is_unread(self) -> bool:
        """Whether its refs were never listed, and none of them is in the file."""
        return self.previous_look is None and not (self.has_refs or self.has_names or self.is_hidden)


IS_BARE = f"""refs_synced_at IS NULL AND main_branch IS NULL AND public_from IS NOT {HIDDEN}
    AND NOT EXISTS (SELECT 1 FROM branches WHERE repository_id = r.id)
    AND NOT EXISTS (SELECT 1 FROM tags WHERE repository_id = r.id)
    AND NOT EXISTS (SELECT 1 FROM seen_refs WHERE repository_id = r.id)"""
"""Whether no ref of a repository ``r`` is expected: then `save_unread` writes an answer without any."""

_BEFORE = f"""SELECT id, refs_synced_at, public_from = {HIDDEN},
        EXISTS (SELECT 1 FROM branches WHERE repository_id = r.id)
            OR EXISTS (SELECT 1 FROM tags WHERE repository_id = r.id),
        EXISTS (SELECT 1 FROM seen_refs WHERE repository_id = r.id),
        main_branch, uuid, full_name, name, avatar_url
    FROM repositories r WHERE id IN (SELECT value FROM json_each(?))"""


def _before(connection: sqlite3.Connection, *repository_ids: int) -> list[_Before]:
    return fetch_as(_Before, connection, _BEFORE, (json.dumps(repository_ids),))


def save_unread(
    connection: sqlite3.Connection, pages: Mapping[int, Sequence[Ref]], *, seen_at: str
) -> dict[int, int]:
    """Write all refs of repositories that have none in the file yet; map those to the number of their refs.

    `pages` are the refs by repository. Others are left out: they are to be compared (`save_refs`). So are
    those without refs that have a main branch. A first sync writes nearly all of its refs here, of several
    repositories by one statement for each table.
    """
    new, extras = dict[int, int](), list[Extra]()
    rows: dict[RefKind, list[Sequence[Any]]] = {kind: [] for kind in REF_TABLES}
    for before in _before(connection, *pages):
        if not before.is_unread or not (pages[before.id] or before.main_branch is None):
            continue
        refs = {(ref.kind, ref.name): ref for ref in pages[before.id]}.values()
        new[before.id] = len(refs)
        extras += ref_extras(before.id, before, refs)
        for ref in refs:
            rows[ref.kind].append(_values(before.id, ref))
    if not new:  # as in most later syncs
        return new
    for kind, values in rows.items():
        connection.executemany(_SAVE[kind], values)
    save_extras(connection, extras)
    connection.executemany(_LISTED, [{"at": seen_at, "id": row_id} for row_id in new])
    update_after_refs(connection)
    return new


def save_refs(
    connection: sqlite3.Connection,
    repository_id: int,
    refs: Iterable[Ref],
    *,
    seen_at: str,
    first_page: bool = True,
    last_page: bool = True,
    keep_unnamed: bool = False,
) -> SavedRefs:
    """Write one page of a repository's refs; with `last_page`, delete the refs that no page named.

    `keep_unnamed` deletes none, because rows that were not understood may have named them.
    """
    page = list(refs)
    by_kind = {kind: {ref.name: ref for ref in page if ref.kind == kind} for kind in REF_TABLES}
    (before,) = _before(connection, repository_id)
    is_first_listing, is_only_page = before.previous_look is None, first_page and last_page
    if not is_only_page:  # a list of one page is compared in memory
        _note_names(connection, repository_id, page, fresh=first_page)
    save_ref_extras(connection, repository_id, page, before)
    changes, uncompared = list[Change](), 0
    if is_first_listing and is_only_page and not before.has_refs:  # nearly every repository of a first sync
        uncompared = sum(len(new) for new in by_kind.values())
    else:
        names_all = last_page and not keep_unnamed
        changes = _compared(connection, before, by_kind, is_only_page=is_only_page, names_all=names_all)
    for kind, new in by_kind.items():
        _write(connection, kind, repository_id, new.values())
    if changes:
        _drop_deleted(connection, repository_id, changes)
    if last_page:
        if before.has_names or not is_only_page:
            connection.execute("DELETE FROM seen_refs WHERE repository_id = ?", (repository_id,))
        connection.execute(_LISTED, {"at": seen_at, "id": repository_id})
    update_after_refs(connection)
    # The first listing records no changes: the repository's own `created` covers it.
    recorded = [] if is_first_listing else changes
    return SavedRefs(
        new=uncompared + _count(changes, "created"),
        moved=_count(changes, "moved"),
        gone=_count(changes, "deleted"),
        # Mercurial's pseudo tag moves with each push, so its moves mean nothing.
        changes=[one for one in recorded if one.ref != PSEUDO_TAG or not one.kind.startswith("tag_")],
        is_hidden=bool(before.is_hidden),
    )


def _compared(
    connection: sqlite3.Connection,
    before: _Before,
    by_kind: Mapping[RefKind, Mapping[str, Ref]],
    *,
    is_only_page: bool,
    names_all: bool,
) -> list[Change]:
    """Compare the refs of a page with the file; with `names_all`, unnamed refs are deletions."""
    look, changes = before.previous_look, list[Change]()
    for kind, new in by_kind.items():
        old = _targets(connection, kind, before.id, None if is_only_page else list(new))
        targets = {name: ref.target_hash for name, ref in new.items()}
        complete = is_only_page and names_all
        changes += ref_changes(before.id, kind, old, targets, complete=complete, previous_look=look)
        if names_all and not is_only_page:
            changes += _unnamed(connection, kind, before.id, look)
    return changes


def _count(changes: Iterable[Change], verb: str) -> int:
    return sum(change.kind in (f"branch_{verb}", f"tag_{verb}") for change in changes)


def _drop_deleted(connection: sqlite3.Connection, repository_id: int, changes: Iterable[Change]) -> None:
    for kind, table in REF_TABLES.items():
        gone = [(repository_id, str(change.ref)) for change in changes if change.kind == f"{kind}_deleted"]
        connection.executemany(f"DELETE FROM {table} WHERE repository_id = ? AND name = ?", gone)
        drop_ref_extras(connection, [(kind, *ref) for ref in gone])


_LISTED = """UPDATE repositories SET refs_known_since = coalesce(refs_known_since, refs_synced_at, :at),
    refs_synced_at = :at, refs_stale = 0 WHERE id = :id"""


def write_refs(connection: sqlite3.Connection, repository_id: int, refs: Iterable[Ref]) -> None:
    """Insert or replace single refs of a repository."""
    refs = list(refs)
    save_ref_extras(connection, repository_id, refs, *_before(connection, repository_id))
    for kind, kindred in groupby(refs, key=attrgetter("kind")):
        _write(connection, kind, repository_id, kindred)


def _write(connection: sqlite3.Connection, kind: RefKind, repository_id: int, refs: Iterable[Ref]) -> None:
    """Insert or replace refs of one kind, without their extras."""
    connection.executemany(_SAVE[kind], [_values(repository_id, ref) for ref in refs])


def has_unnamed(connection: sqlite3.Connection, repository_id: int) -> bool:
    """Return whether a repository has refs that no page of the current listing has named so far."""
    return any(_unnamed(connection, kind, repository_id) for kind in REF_TABLES)


def count_named(connection: sqlite3.Connection, repository_id: int) -> int:
    """Count the refs that the pages of the current listing have named so far."""
    sql = "SELECT count(*) FROM seen_refs WHERE repository_id = ?"
    return int(fetch_row(connection, sql, (repository_id,))[0])


def save_main_branch(connection: sqlite3.Connection, repository_id: int, name: str | None) -> list[Change]:
    """Write the main branch that a list of branches names; return the change, if refs were read before."""
    read = "SELECT main_branch, refs_synced_at FROM repositories WHERE id = ?"
    old, seen = fetch_row(connection, read, (repository_id,))
    if old == name:
        return []
    connection.execute("UPDATE repositories SET main_branch = ? WHERE id = ?", (name, repository_id))
    before, after = (json.dumps({"main_branch": value}) for value in (old, name))
    change = Change("updated", repository_id, old=before, new=after, previous_look=seen)
    return [] if seen is None else [change]


def mark_refs_stale(connection: sqlite3.Connection, repository_id: int) -> None:
    """Mark a repository's refs as stale, so that the next run lists them."""
    connection.execute("UPDATE repositories SET refs_stale = 1 WHERE id = ?", (repository_id,))


def read_refs_otherwise(connection: sqlite3.Connection, upstream_id: int, *, before: str, now: str) -> None:
    """Prepare for another way to read refs: ``api``, ``git`` or ``none``.

    While none were read, no update made refs stale, nor restarted a listing; git tells no dates and authors.
    What failed in one way may succeed in the other.
    """
    if before == "none" or (before, now) == ("git", "api"):
        connection.execute(
            "UPDATE repositories SET refs_stale = 1 WHERE upstream_id = ? AND deleted_at IS NULL",
            (upstream_id,),
        )
    Cursors(connection, upstream_id).drop_refs()
    connection.execute(
        """UPDATE sync_failures SET next_try_at = last_at
           WHERE upstream_id = ? AND kind IN ('refs', 'ref')""",
        (upstream_id,),
    )


def mark_old_refs_stale(
    connection: sqlite3.Connection, upstream_id: int, *, before: str, before_untold: str, now: str
) -> None:
    """Mark refs as stale that were listed before a moment, or have single refs whose next try is due.

    `before_untold` is the moment for repositories whose updates are not reported, as on Data Center.
    """
    connection.execute(
        """UPDATE repositories SET refs_stale = 1
           WHERE upstream_id = ? AND NOT refs_stale AND deleted_at IS NULL
               AND (refs_synced_at IS NULL OR refs_synced_at < iif(updated_at IS NULL, ?, ?))""",
        (upstream_id, before_untold, before),
    )
    connection.execute(
        """UPDATE repositories SET refs_stale = 1
           WHERE NOT refs_stale AND deleted_at IS NULL AND id IN (
               SELECT repository_id FROM sync_failures
               WHERE upstream_id = ? AND kind = 'ref' AND next_try_at <= ?)""",
        (upstream_id, now),
    )


def has_refs(connection: sqlite3.Connection, repository_id: int) -> bool:
    """Return whether the mirror holds any branch or tag of a repository."""
    return any(
        fetch_row(connection, f"SELECT 1 FROM {table} WHERE repository_id = ?", (repository_id,))
        for table in REF_TABLES.values()
    )


def _targets(
    connection: sqlite3.Connection, kind: RefKind, repository_id: int, names: list[str] | None
) -> dict[str, RefTarget]:
    """Map names to commits, for all refs of a kind or those with these names."""
    sql = f"SELECT name, target_hash, target_date FROM {REF_TABLES[kind]} WHERE repository_id = ?"
    values = list[Any]([repository_id])
    if names is not None:
        sql += " AND name IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(names))
    return {name: RefTarget(*target) for name, *target in connection.execute(sql, values)}


def _values(repository_id: int, ref: Ref) -> Sequence[Any]:
    """Return the values of a ref's row; lists are JSON."""
    sent = [_json(value) if value.__class__ is tuple else value for value in _SENT_BY[ref.kind](ref)]
    return (repository_id, ref.name, *sent)


def _json(values: tuple[str, ...]) -> str:
    if not values:
        return "[]"
    if "".join(values).isalnum():  # hashes always are; `json.dumps` would take a fifth of a first save
        return '["' + '", "'.join(values) + '"]'
    return json.dumps(values)


def _note_names(connection: sqlite3.Connection, repository_id: int, page: list[Ref], *, fresh: bool) -> None:
    """Collect the names on the pages of a long listing."""
    if fresh:
        connection.execute("DELETE FROM seen_refs WHERE repository_id = ?", (repository_id,))
    connection.executemany(
        "INSERT OR IGNORE INTO seen_refs VALUES (?, ?, ?)",
        [(repository_id, ref.kind, ref.name) for ref in page],
    )


def _unnamed(
    connection: sqlite3.Connection, kind: RefKind, repository_id: int, previous_look: str | None = None
) -> list[Change]:
    """List the refs that no page of the listing named, as deletions."""
    found = connection.execute(
        f"""SELECT name, target_hash, target_date FROM {REF_TABLES[kind]} AS r WHERE repository_id = ?
            AND NOT EXISTS
            (SELECT 1 FROM seen_refs s WHERE s.repository_id = r.repository_id AND s.kind = ?
             AND s.name = r.name)""",
        (repository_id, kind),
    )
    return [
        ref_change(repository_id, kind, name, RefTarget(*target), None, previous_look=previous_look)
        for name, *target in found
    ]


def move_ref(
    connection: sqlite3.Connection,
    repository_id: int,
    kind: RefKind,
    name: str,
    *,
    old: str | None,
    new: Ref | None,
    forced: bool | None,
    previous_look: str,
) -> list[Change]:
    """Move a ref if it is at the commit `old`, and return the change; None means that there is no ref.

    `forced` is whether the push is reported as a forced one, `previous_look` when the refs were last read.
    """
    before = _targets(connection, kind, repository_id, [name]).get(name)
    after = new.target_hash if new else None
    if (before and before.hash) != old or old == after:
        return []
    change = ref_change(
        repository_id,
        kind,
        name,
        before,
        after,
        previous_look=previous_look,
        forced=forced if after else None,
    )
    if new is None:
        _drop_deleted(connection, repository_id, [change])
    else:
        write_refs(connection, repository_id, [new])
    return [change]
