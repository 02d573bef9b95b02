"""The history: `changes` with the events of repositories, and `writes` with those made through this mirror.

This file also decides which part of a repository's history is public: changes recorded while it was private
stay hidden (`public_from`). Old history is compacted to the first and last change of each day.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mirror.model import Repository
from mirror.store.rows import fetch, fetch_as, fetch_row, fetch_value
from mirror.times import from_text, to_text

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


def last_change(connection: sqlite3.Connection) -> int:
    """Return the number of the last change; 0 where there is none."""
    return int(fetch_value(connection, "SELECT coalesce(max(id), 0) FROM changes"))


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
           WHERE c.id > :after AND c.id >= coalesce((SELECT min(id) FROM changes WHERE at >= :since), :last)
               AND c.is_main = 1 AND c.forced IS NULL
               AND r.upstream_id = :upstream AND r.deleted_at IS NULL ORDER BY c.id LIMIT :most""",
        {"after": after, "since": since, "last": CLOSED, "upstream": upstream_id, "most": most},
    )


def save_forced(connection: sqlite3.Connection, change_id: int, *, forced: bool | None) -> None:
    """Record whether a change was a forced push, unless that is already known."""
    connection.execute("UPDATE changes SET forced = coalesce(forced, ?) WHERE id = ?", (forced, change_id))


CLOSED = 2**63 - 1  # the `public_from` that hides all changes

_CLOSE = f"""UPDATE repositories SET refs_stale = max(refs_stale, :with_refs), public_from = iif(:with_refs
        OR EXISTS (SELECT 1 FROM branches WHERE repository_id = :id)
        OR EXISTS (SELECT 1 FROM tags WHERE repository_id = :id),
    {CLOSED}, (SELECT coalesce(max(id), 0) FROM changes)) WHERE id = :id"""

_OPEN = """UPDATE repositories SET public_from = (SELECT coalesce(max(id), 0) FROM changes) WHERE id = ?"""


def close(connection: sqlite3.Connection, published: Iterable[int | None], *, with_refs: bool) -> None:
    """Hide the history of repositories that were just made public; call it after saving their changes.

    It stays hidden until their refs have been listed again (`reopen`). If the file has no refs of them and
    none are mirrored (`with_refs`), only the changes until now are hidden.
    """
    values = [{"id": repository_id, "with_refs": int(with_refs)} for repository_id in published]
    connection.executemany(_CLOSE, values)


def reopen(connection: sqlite3.Connection, repository_id: int, *, listed_since: str) -> None:
    """Show changes from now on, if the history of a repository is hidden and all its refs were read.

    `listed_since` is when the listing of refs began. If that was before the repository was made public, the
    refs are listed again.
    """
    closed = fetch_row(
        connection,
        f"""SELECT (SELECT max(at) FROM changes WHERE repository_id = r.id AND kind = 'made_public')
            FROM repositories r WHERE id = ? AND public_from = {CLOSED}""",
        (repository_id,),
    )
    if closed is None:
        return
    (published_at,) = closed
    if listed_since >= (published_at or ""):
        connection.execute(_OPEN, (repository_id,))
    else:
        connection.execute("UPDATE repositories SET refs_stale = 1 WHERE id = ?", (repository_id,))


OLDEST_PAGE = timedelta(minutes=10)  # how long after its request a sync may save a page

Outcome = Literal["done", "unknown"]


class Written(NamedTuple):
    """A row of the table `writes`; `by` is the name of a token, or the command line.

    `outcome` is unknown if the answer was lost, so the upstream may have done it. Refused writes are not
    recorded.
    """

    at: str
    by: str
    action: str
    full_name: str
    outcome: Outcome = "done"
    uuid: str = ""


def save_written(connection: sqlite3.Connection, upstream_id: int, written: Written) -> int:
    """Record a write and return its row id; `uuid` identifies the repository."""
    cursor = connection.execute(
        """INSERT INTO writes (at, asked_by, action, upstream_id, full_name, outcome)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (written.at, written.by, written.action, upstream_id, written.full_name, written.outcome),
    )
    number = int(cursor.lastrowid or 0)
    link_written(connection, number, written.uuid)
    return number


def link_written(connection: sqlite3.Connection, number: int, uuid: str) -> None:
    """Link the record of a write to the row of its repository, if there is one."""
    connection.execute(
        """UPDATE writes SET repository_id = (SELECT r.id FROM repositories r
               WHERE r.upstream_id = writes.upstream_id AND r.uuid = ?) WHERE id = ?""",
        (uuid, number),
    )


def recently_written(connection: sqlite3.Connection, now: str) -> dict[int, str]:
    """Map repositories that were written within OLDEST_PAGE to their last action: a page may be older."""
    since = to_text(from_text(now) - OLDEST_PAGE)
    found = connection.execute(
        """SELECT repository_id, action FROM writes
           WHERE at > ? AND at <= ? AND outcome = 'done' AND repository_id IS NOT NULL ORDER BY id""",
        (since, now),
    )
    return dict(found)


if TYPE_CHECKING:
    from mirror.store.database import Store

# Keys of `mirror_meta`: before which moment the past is exact to the day, and up to where that is done.
COMPACTED, DONE = "history_compacted_before", "history_compacted_until"

BATCH = 2_000  # the number of changes that one transaction drops

# The kinds of changes in the index `changes_rare`: all that may be few among millions.
RARE = (
    "branch_deleted", "deleted", "made_private", "made_public", "owner_renamed", "renamed", "restored",
    "tag_created", "tag_deleted", "tag_moved", "transferred",
)  # fmt: skip

RARE_KINDS = ", ".join(f"'{kind}'" for kind in RARE)  # the same, as in the condition of the index


def compacted_before(connection: sqlite3.Connection) -> str | None:
    """Return the moment before which history was compacted; None if all of it is kept."""
    return _noted(connection, COMPACTED)


def compact(
    store: "Store", before: str, *, on_batch: Callable[[], object] = lambda: None, batch: int = BATCH
) -> int:
    """Compact all days before a moment to their first and last changes, in UTC; return the number dropped.

    For each branch, tag and edited field, the first and the last change of a day are kept. Renames,
    transfers, deletions and changes of visibility are all kept. Of `measures`, the first row of a day is
    kept, which has the values of the day before. Compacting a day again drops nothing, so that a killed
    compaction can resume.

    `on_batch` is called before each transaction, and may raise to stop there. `batch` is the number of
    changes that one transaction drops.
    """
    until = f"{before[:10]}T00:00:00.000000Z"
    with store.transaction() as connection:  # first: from now on the past counts as exact to the day
        _note(connection, COMPACTED, max(until, _noted(connection, COMPACTED) or ""))
    dropped = 0
    while (day := _next_day(store, until)) is not None:
        with store.reading() as connection:
            superfluous = list(_superfluous(connection, day, _day_after(day)))
        for start in range(0, len(superfluous), batch):
            on_batch()
            ids = json.dumps(superfluous[start : start + batch])
            with store.transaction() as connection:
                connection.execute("DELETE FROM changes WHERE id IN (SELECT value FROM json_each(?))", (ids,))
        dropped += len(superfluous)
        on_batch()
        with store.transaction() as connection:
            _note(connection, DONE, _day_after(day))
    return dropped + _compact_measures(store, until, on_batch=on_batch, batch=batch)


def _compact_measures(store: "Store", until: str, *, on_batch: Callable[[], object], batch: int) -> int:
    """Keep the first measures of each repository and day before a moment; return the number dropped."""
    place, dropped = (0, ""), 0
    while True:
        with store.reading() as connection:
            found = fetch(
                connection,
                """SELECT repository_id, until FROM measures WHERE (repository_id, until) > (?, ?)
                    AND until < ? ORDER BY repository_id, until LIMIT ?""",
                (*place, until, batch),
            )
        if not found:
            return dropped
        days = [(repository_id, until[:10]) for repository_id, until in (place, *found)]
        later = [row for row, (day, next_day) in zip(found, pairwise(days), strict=True) if day == next_day]
        if later:
            on_batch()
            with store.transaction() as connection:
                connection.executemany("DELETE FROM measures WHERE (repository_id, until) = (?, ?)", later)
        dropped += len(later)
        place = found[-1]


def _next_day(store: "Store", until: str) -> str | None:
    """Return the start of the first day that has changes and is not compacted yet."""
    with store.reading() as connection:
        done = _noted(connection, DONE) or ""
        first = fetch_value(connection, "SELECT min(at) FROM changes WHERE at >= ? AND at < ?", (done, until))
    return None if first is None else f"{first[:10]}T00:00:00.000000Z"


def _day_after(day: str) -> str:
    return to_text(from_text(day) + timedelta(days=1))


def _superfluous(connection: sqlite3.Connection, start: str, end: str) -> Iterator[int]:
    """Yield the changes of a day that are neither the first nor the last of any subject."""
    # All forced pushes of main branches are kept, since each needs attention.
    found = fetch(
        connection,
        """SELECT id, repository_id, kind, ref, old FROM changes WHERE at >= ? AND at < ?
            AND kind IN ('updated', 'branch_created', 'branch_moved', 'tag_created')
            AND NOT (forced IS 1 AND is_main IS 1) ORDER BY id""",
        (start, end),
    )
    first, last = dict[tuple[object, ...], int](), dict[tuple[object, ...], int]()
    for row_id, *about in found:
        for subject in _subjects(*about):
            first.setdefault(subject, row_id)
            last[subject] = row_id
    kept = {*first.values(), *last.values()}
    return (row_id for row_id, *_ in found if row_id not in kept)


def _subjects(
    repository_id: int, kind: str, ref: str | None, old: str | None
) -> Iterable[tuple[object, ...]]:
    """Return the subjects of a change: a branch, a tag, or each field of an edit."""
    if kind == "updated":
        return [(repository_id, "field", name) for name in json.loads(old or "{}")]
    return [(repository_id, kind.partition("_")[0], ref)]


def _noted(connection: sqlite3.Connection, key: str) -> str | None:
    found: str | None = fetch_value(connection, "SELECT value FROM mirror_meta WHERE key = ?", (key,))
    return found


def _note(connection: sqlite3.Connection, key: str, moment: str) -> None:
    connection.execute(
        """INSERT INTO mirror_meta (key, value) VALUES (?, ?)
           ON CONFLICT (key) DO UPDATE SET value = excluded.value""",
        (key, moment),
    )
