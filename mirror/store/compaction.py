"""Compact old history: of each day, only the first and the last change of each subject are kept."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from mirror.store.rows import fetch, fetch_value
from mirror.times import from_text, to_text

if TYPE_CHECKING:
    from mirror.store.database import Store

# Keys of `mirror_meta`: before which moment the past is exact to the day, and up to where that is done.
COMPACTED, DONE = "history_compacted_before", "history_compacted_until"
DROPPED = "history_dropped"  # the key of how many changes were dropped, by kind

BATCH = 2_000  # the number of changes that one transaction drops


def compacted_before(connection: sqlite3.Connection) -> str | None:
    """Return the moment before which history was compacted; None if all of it is kept."""
    return _read_meta(connection, COMPACTED)


def dropped_changes(connection: sqlite3.Connection) -> dict[str, int]:
    """Return how many changes compactions dropped, by kind: with those that are left, a count never falls."""
    dropped: dict[str, int] = json.loads(_read_meta(connection, DROPPED) or "{}")
    return dropped


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
        _save_meta(connection, COMPACTED, max(until, _read_meta(connection, COMPACTED) or ""))
    dropped = 0
    while (day := _next_day(store, until)) is not None:
        with store.reading() as connection:
            superfluous = list(_superfluous(connection, day, _day_after(day)))
        for start in range(0, len(superfluous), batch):
            on_batch()
            with store.transaction() as connection:
                _drop(connection, json.dumps(superfluous[start : start + batch]))
        dropped += len(superfluous)
        on_batch()
        with store.transaction() as connection:
            _save_meta(connection, DONE, _day_after(day))
    return dropped + _compact_measures(store, until, on_batch=on_batch, batch=batch)


def _drop(connection: sqlite3.Connection, ids: str) -> None:
    """Delete changes, and add their number to that of all that were dropped."""
    gone = "FROM changes WHERE id IN (SELECT value FROM json_each(?))"
    dropped = Counter(dropped_changes(connection))
    dropped.update(dict(fetch(connection, f"SELECT kind, count(*) {gone} GROUP BY kind", (ids,))))
    connection.execute(f"DELETE {gone}", (ids,))
    _save_meta(connection, DROPPED, json.dumps(dropped))


def _compact_measures(store: "Store", until: str, *, on_batch: Callable[[], object], batch: int) -> int:
    """Keep the first measures of each repository and day before a moment; return the number dropped."""
    last, dropped = (0, ""), 0
    while True:
        with store.reading() as connection:
            found = fetch(
                connection,
                """SELECT repository_id, until FROM measures WHERE (repository_id, until) > (?, ?)
                    AND until < ? ORDER BY repository_id, until LIMIT ?""",
                (*last, until, batch),
            )
        if not found:
            return dropped
        days = [(repository_id, moment[:10]) for repository_id, moment in (last, *found)]
        later = [row for row, (day, next_day) in zip(found, pairwise(days), strict=True) if day == next_day]
        if later:
            on_batch()
            with store.transaction() as connection:
                connection.executemany("DELETE FROM measures WHERE (repository_id, until) = (?, ?)", later)
        dropped += len(later)
        last = found[-1]


def _next_day(store: "Store", until: str) -> str | None:
    """Return the start of the first day that has changes and is not compacted yet."""
    with store.reading() as connection:
        done = _read_meta(connection, DONE) or ""
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


def _read_meta(connection: sqlite3.Connection, key: str) -> str | None:
    found: str | None = fetch_value(connection, "SELECT value FROM mirror_meta WHERE key = ?", (key,))
    return found


def _save_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        """INSERT INTO mirror_meta (key, value) VALUES (?, ?)
           ON CONFLICT (key) DO UPDATE SET value = excluded.value""",
        (key, value),
    )
