"""Marks: what somebody said has changed, kept until the upstream itself has been asked.

They lie in `cursors`, as everything does that says where the crawl goes on. A mark costs nothing until a run
of the same upstream takes it up, and a lost one costs freshness alone: the next listing finds the same.
"""

import sqlite3
from collections.abc import Iterator

import msgspec

from mirror.store.runs import save_cursor

MARKED, DUE = "marked:", "due:"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A mirrored repository to be asked for: its `row` too, or its refs alone; `at` is when that was said.

    It holds no name: whoever may read `cursors` must not learn what a webhook said of hidden repositories.
    """

    uuid: str
    row: bool
    at: str


def mark(connection: sqlite3.Connection, upstream_id: int, new: Mark) -> None:
    """Mark a repository; one that is marked already keeps the wish for its row."""
    old = _read(connection, upstream_id, MARKED + new.uuid)
    row = new.row or (old is not None and old.row)
    value = msgspec.json.encode(msgspec.structs.replace(new, row=row)).decode()
    save_cursor(connection, upstream_id, MARKED + new.uuid, value, at=new.at)


def marked(connection: sqlite3.Connection, upstream_id: int) -> Iterator[Mark]:
    """Yield the marked repositories, the longest marked ones first."""
    for stream, _ in _streams(connection, upstream_id, MARKED):
        found = _read(connection, upstream_id, stream)
        if found is None:
            _drop(connection, upstream_id, stream)  # of a form that this program does not know
        else:
            yield found


def any_marked(connection: sqlite3.Connection, upstream_id: int) -> bool:
    """Tell whether anything is marked, repository or workspace."""
    return any(_streams(connection, upstream_id, prefix) for prefix in (MARKED, DUE))


def unmark(connection: sqlite3.Connection, upstream_id: int, done: Mark) -> None:
    """Forget a mark, unless it was set again since."""
    if _read(connection, upstream_id, MARKED + done.uuid) == done:
        _drop(connection, upstream_id, MARKED + done.uuid)


def mark_workspace(connection: sqlite3.Connection, upstream_id: int, workspace: str, *, at: str) -> None:
    """Let a workspace be listed at the next opportunity."""
    save_cursor(connection, upstream_id, DUE + workspace.lower(), "", at=at)


def due_workspaces(connection: sqlite3.Connection, upstream_id: int) -> dict[str, str]:
    """Map the workspaces that are to be listed, in lower case, to when that was said."""
    found = _streams(connection, upstream_id, DUE)
    return {stream.removeprefix(DUE): at for stream, at in found}


def unmark_workspace(
    connection: sqlite3.Connection, upstream_id: int, workspace: str, *, said_at: str
) -> None:
    """Forget that a workspace is to be listed, unless that was said again since."""
    connection.execute(
        "DELETE FROM cursors WHERE upstream_id = ? AND stream = ? AND updated_at <= ?",
        (upstream_id, DUE + workspace, said_at),
    )


def _streams(connection: sqlite3.Connection, upstream_id: int, prefix: str) -> list[tuple[str, str]]:
    found = connection.execute(
        """SELECT stream, updated_at FROM cursors WHERE upstream_id = ? AND stream >= ? AND stream < ?
           ORDER BY updated_at, stream""",
        (upstream_id, prefix, prefix[:-1] + ";"),
    )
    return [(row[0], row[1]) for row in found]


def _read(connection: sqlite3.Connection, upstream_id: int, stream: str) -> Mark | None:
    row = connection.execute(
        "SELECT value FROM cursors WHERE upstream_id = ? AND stream = ?", (upstream_id, stream)
    ).fetchone()
    try:
        return msgspec.json.decode(row[0], type=Mark) if row else None
    except msgspec.MsgspecError:
        return None


def _drop(connection: sqlite3.Connection, upstream_id: int, stream: str) -> None:
    connection.execute("DELETE FROM cursors WHERE upstream_id = ? AND stream = ?", (upstream_id, stream))
