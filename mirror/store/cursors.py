"""The table `cursors`: the position of each stream of an upstream, and hints at changes.

`stream` is the key of a row; only this file knows the keys. Every value except `integrity` is JSON of a type
in `mirror.store.crawl_state`.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

import msgspec

from mirror.store.crawl_state import Hint, LastCheck, Progress, RefsListing, Round, WorkspaceState
from mirror.store.rows import fetch, fetch_row, fetch_value
from mirror.store.schema import RESTORED

T = TypeVar("T")

WORKSPACE, REFS = "workspace:", "refs:"
REPOSITORY_HINT, WORKSPACE_HINT = "marked:", "due:"

_THIS = "FROM cursors WHERE upstream_id = ? AND stream = ?"


class Cursor(Generic[T]):
    """One row of `cursors`, with a value of type `kind`."""

    def __init__(self, connection: sqlite3.Connection, upstream_id: int, stream: str, kind: type[T]) -> None:
        self._connection, self._row, self._kind = connection, (upstream_id, stream), kind

    def read(self) -> T | None:
        """Return the value; None if it is missing or cannot be read."""
        value = fetch_value(self._connection, f"SELECT value {_THIS}", self._row)
        return None if value is None else _decoded(value, self._kind)

    def exists(self) -> bool:
        """Return whether there is a value, readable or not."""
        return fetch_row(self._connection, f"SELECT 1 {_THIS}", self._row) is not None

    def save(self, value: T, *, at: str) -> None:
        """Write the value, in the transaction that writes the rows that it is about."""
        self._connection.execute(
            """INSERT INTO cursors VALUES (?, ?, ?, ?)
               ON CONFLICT DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at""",
            (*self._row, value if isinstance(value, str) else msgspec.json.encode(value).decode(), at),
        )

    def drop(self) -> None:
        """Delete the value."""
        self._connection.execute(f"DELETE {_THIS}", self._row)


class _NamedCursor(Generic[T]):
    """An attribute of `Cursors`: the cursor of a stream with a fixed name."""

    def __init__(self, stream: str, kind: type[T]) -> None:
        self._stream, self._kind = stream, kind

    def __get__(self, cursors: "Cursors", owner: object = None) -> Cursor[T]:
        return cursors.named(self._stream, self._kind)


class Cursors:
    """The cursors of one upstream, by name.

    Each attribute is a `Cursor`; nothing is read before its `read`. With the connection of a `Store`, reads
    belong in `Store.reading`, and writes in `Store.transaction`.
    """

    round = _NamedCursor("round", Round)  # the round of a run that was interrupted
    caller = _NamedCursor("caller", LastCheck)  # when the upstream last confirmed whose the credential is
    workspace_list = _NamedCursor("workspaces", LastCheck)  # the workspaces that the caller can see
    # How often the upstream has answered with each status, in all runs.
    answers = _NamedCursor("answers", dict[int, int])
    progress = _NamedCursor("progress", Progress)  # the progress of a run that is under way or stopped early
    integrity = _NamedCursor("integrity", str)  # the result of the last check of the file; "" without faults
    # Since when a full listing is awaited, after a copy was restored; missing if none is awaited.
    restored = _NamedCursor(RESTORED, str)
    # The last change for which the upstream was asked whether the push was forced.
    moves = _NamedCursor("moves", int)
    # The last change that a sync has reported at its end; one that is killed reports nothing.
    reported_change = _NamedCursor("told", int)

    def __init__(self, connection: sqlite3.Connection, upstream_id: int) -> None:
        self._connection, self._upstream_id = connection, upstream_id

    def workspace(self, name: str) -> Cursor[WorkspaceState]:
        """The state of the crawl of a workspace; the case of names does not matter."""
        return self.named(WORKSPACE + name.lower(), WorkspaceState)

    def begun_refs(self) -> set[int]:
        """The repositories whose refs take several pages, not all of which were read."""
        return {int(row_id) for row_id, _, _ in _rows(self._connection, self._upstream_id, REFS)}

    def refs(self, repository_id: int) -> Cursor[RefsListing]:
        """The position of a listing of refs that takes several pages."""
        return self.named(f"{REFS}{repository_id}", RefsListing)

    def verify(self, *, repair: bool) -> Cursor[int]:
        """The last repository that `mirror verify` has compared; with `repair`, that it has mended."""
        return self.named("repair" if repair else "verify", int)

    @property
    def hints(self) -> "Hints":
        """Hints from webhooks and writes about possible changes."""
        return Hints(self._connection, self._upstream_id)

    def workspace_names(self) -> list[str]:
        """List the workspaces that have a state, in lower case and in order."""
        return [name for name, _, _ in _rows(self._connection, self._upstream_id, WORKSPACE)]

    def workspaces(self) -> Iterator[tuple[str, WorkspaceState]]:
        """Yield the name, in lower case, and the state of each workspace that has one."""
        for name, value, _ in _rows(self._connection, self._upstream_id, WORKSPACE):
            yield name, _decoded(value, WorkspaceState) or WorkspaceState()

    def first_listings(self) -> Iterator[str]:
        """Yield the identities of the workspaces whose first listing has not come to its end."""
        # SQLite reads thousands of states in milliseconds; to decode them takes twenty times as long.
        found = fetch(
            self._connection,
            """SELECT value FROM cursors WHERE upstream_id = ? AND stream >= ? AND stream < ?
               AND instr(value, '"cursor":null')""",
            (self._upstream_id, WORKSPACE, _end(WORKSPACE)),
        )
        for (value,) in found:
            state = _decoded(value, WorkspaceState) or WorkspaceState()
            if state.owner_uuid and state.cursor is None and state.swept_at is None and not state.gone:
                yield state.owner_uuid

    def drop_refs(self, repository_ids: Iterable[int] | None = None) -> None:
        """Restart listings of refs from the first page: of these repositories, or (None) of all."""
        if repository_ids is None:
            repository_ids = self.begun_refs()
        self._connection.executemany(
            f"DELETE {_THIS}",
            [(self._upstream_id, f"{REFS}{repository_id}") for repository_id in repository_ids],
        )

    def drop_old_refs(self, *, before: str) -> None:
        """Restart listings of refs that were not continued since a moment."""
        rows = _rows(self._connection, self._upstream_id, REFS)
        self.drop_refs([int(row_id) for row_id, _, saved_at in rows if saved_at < before])

    def await_listing(self, *, at: str) -> None:
        """Make every workspace due for a full listing, with a newly confirmed credential.

        Until then strangers see nothing, since what is public in the file may be private by now.
        """
        for name, state in list(self.workspaces()):  # all, before the first is written
            unlisted = msgspec.structs.replace(
                state, listing=None, swept_at=None, absent_since=None, round=None
            )
            self.workspace(name).save(unlisted, at=at)
        self.round.drop()
        self.caller.drop()
        self.restored.save(at, at=at)

    def correct_moments(self, now: str) -> None:
        """Correct moments ahead of now, which a wrong clock wrote.

        Listings of refs start over. Workspace states are corrected when they are read
        (`mirror.sync.listing_state.as_of`).
        """
        ahead = [
            int(repository_id)
            for repository_id, value, updated_at in _rows(self._connection, self._upstream_id, REFS)
            if max(updated_at, getattr(_decoded(value, RefsListing), "since", "")) > now
        ]
        self.drop_refs(ahead)
        self._connection.execute(
            "UPDATE cursors SET updated_at = ? WHERE upstream_id = ? AND updated_at > ?",
            (now, self._upstream_id, now),
        )

    def named(self, stream: str, kind: type[T]) -> Cursor[T]:
        """Return the cursor of a stream, whose value has the type `kind`."""
        return Cursor(self._connection, self._upstream_id, stream, kind)


class Hints:
    """Hints at possible changes, kept until the upstream has confirmed them.

    A hint costs a request only when a run takes it up. If one is lost, the next listing finds the change.
    """

    def __init__(self, connection: sqlite3.Connection, upstream_id: int) -> None:
        self._connection, self._upstream_id = connection, upstream_id

    def add(self, hint: Hint) -> None:
        """Add a hint at a repository; if an earlier hint includes the row, this one does too."""
        cursor = self._of(hint.uuid)
        old = cursor.read()
        row = hint.row or (old is not None and old.row)
        cursor.save(msgspec.structs.replace(hint, row=row), at=hint.at)

    def take(self) -> list[Hint]:
        """List the hints at repositories, oldest first; drop those that cannot be read."""
        hints = list[Hint]()
        for uuid, value, _ in _rows(self._connection, self._upstream_id, REPOSITORY_HINT, by_age=True):
            hint = _decoded(value, Hint)
            if hint is None:  # otherwise it would stay for ever
                self._of(uuid).drop()
            else:
                hints.append(hint)
        return hints

    def any(self) -> bool:
        """Return whether there is a hint, at a repository or a workspace."""
        return any(
            _rows(self._connection, self._upstream_id, prefix) for prefix in (REPOSITORY_HINT, WORKSPACE_HINT)
        )

    def done(self, hint: Hint) -> None:
        """Drop a hint at a repository, unless a newer one replaced it."""
        cursor = self._of(hint.uuid)
        if cursor.read() == hint:  # another one may have come while the upstream was asked
            cursor.drop()

    def add_workspace(self, name: str, *, at: str) -> None:
        """Add a hint at a workspace, to be listed by the next run."""
        Cursor(self._connection, self._upstream_id, WORKSPACE_HINT + name.lower(), str).save("", at=at)

    def workspaces(self) -> dict[str, str]:
        """Map the workspaces to list, in lower case, to the times of their hints."""
        rows = _rows(self._connection, self._upstream_id, WORKSPACE_HINT, by_age=True)
        return {name: at for name, _, at in rows}

    def workspace_done(self, name: str, *, hinted_at: str) -> None:
        """Drop a hint at a workspace, unless a newer one replaced it."""
        self._connection.execute(
            "DELETE FROM cursors WHERE upstream_id = ? AND stream = ? AND updated_at <= ?",
            (self._upstream_id, WORKSPACE_HINT + name, hinted_at),
        )

    def any_to_ask(self, now: str) -> bool:
        """Return whether there is a hint at a repository, or at a workspace whose next try is due."""
        found = fetch_row(
            self._connection,
            """SELECT 1 FROM cursors WHERE upstream_id = :id AND stream >= :row AND stream < :row_end
               UNION ALL
               SELECT 1 FROM cursors
               WHERE upstream_id = :id AND stream >= :workspace AND stream < :workspace_end
               AND NOT EXISTS (
                   SELECT 1 FROM sync_failures WHERE upstream_id = :id AND kind = 'workspace'
                   AND lower(subject) = substr(stream, length(:workspace) + 1)
                   AND next_try_at > :now AND last_at <= :now)
               LIMIT 1""",
            {
                "id": self._upstream_id,
                "row": REPOSITORY_HINT,
                "row_end": _end(REPOSITORY_HINT),
                "workspace": WORKSPACE_HINT,
                "workspace_end": _end(WORKSPACE_HINT),
                "now": now,
            },
        )
        return found is not None

    def _of(self, uuid: str) -> Cursor[Hint]:
        return Cursor(self._connection, self._upstream_id, REPOSITORY_HINT + uuid, Hint)


def _rows(
    connection: sqlite3.Connection, upstream_id: int, prefix: str, *, by_age: bool = False
) -> list[tuple[str, str, str]]:
    """List the streams with a prefix: the rest of the key, the value, and the moment."""
    sql = f"""SELECT substr(stream, ?), value, updated_at FROM cursors
        WHERE upstream_id = ? AND stream >= ? AND stream < ?
        ORDER BY {"updated_at, " if by_age else ""}stream"""
    return fetch(connection, sql, (len(prefix) + 1, upstream_id, prefix, _end(prefix)))


def _end(prefix: str) -> str:
    """Return the upper bound of all streams with a prefix that ends with a colon."""
    return prefix[:-1] + ";"  # the semicolon follows the colon in ASCII


def _decoded(value: Any, kind: type[T]) -> T | None:
    if kind is str:
        return cast("T", value)
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # as if it were missing: that only costs requests
        return None
