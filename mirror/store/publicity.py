"""From which change on the record of a repository is everybody's: nothing of a time when it was private.

`repositories.public_from` is the number of the last change that stays hidden. A repository that was made
public is closed at first: its refs are still those of the private time, and whatever they are compared with
next would tell of them. A listing of refs that began after that opens it, whichever run or process reads it.
"""

import sqlite3
from collections.abc import Iterable

CLOSED = 2**63 - 1
"""The `public_from` that no change is above."""

_CLOSE = f"""UPDATE repositories SET refs_stale = max(refs_stale, :with_refs), public_from = iif(:with_refs
        OR EXISTS (SELECT 1 FROM branches WHERE repository_id = :id)
        OR EXISTS (SELECT 1 FROM tags WHERE repository_id = :id),
    {CLOSED}, (SELECT coalesce(max(id), 0) FROM changes)) WHERE id = :id"""
_OPEN = """UPDATE repositories SET public_from = (SELECT coalesce(max(id), 0) FROM changes) WHERE id = ?"""


def close(connection: sqlite3.Connection, published: Iterable[int], *, with_refs: bool) -> None:
    """Hide the record of repositories that were just made public; call it once their changes are saved.

    Without refs, in the file and `with_refs` to come, there is nothing to wait for.
    """
    values = [{"id": repository_id, "with_refs": int(with_refs)} for repository_id in published]
    connection.executemany(_CLOSE, values)


def reopen(connection: sqlite3.Connection, repository_id: int, *, listed_since: str) -> None:
    """Show what is recorded from now on, if a repository is closed and all its refs were read since.

    `listed_since` is when their listing began. One that began before lets them be read once more.
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
