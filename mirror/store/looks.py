"""Looks that found nothing: a row of `sync_runs` for each hour of them, not for each."""

import sqlite3

_NEWS = (
    "repositories_new", "repositories_changed", "repositories_gone", "refs_new", "refs_changed", "refs_gone",
    "failures",
)  # fmt: skip
_ADDED = ("requests", "git_requests", "retries", "slept_seconds")


def merge_look(connection: sqlite3.Connection, upstream_id: int) -> None:
    """Add the last run to the one before, if both were looks of the same hour that found nothing."""
    nothing = " AND ".join(f"{column} = 0" for column in _NEWS)
    found = connection.execute(
        f"""SELECT id, finished_at, substr(started_at, 1, 13), {", ".join(_ADDED)},
                   iif(kind = 'watch' AND state IN ('complete', 'incomplete') AND {nothing}, state, NULL)
            FROM sync_runs WHERE upstream_id = ? ORDER BY id DESC LIMIT 2""",
        (upstream_id,),
    ).fetchall()
    if len(found) < 2 or found[0][-1] is None or found[0][-1] != found[1][-1] or found[0][2] != found[1][2]:
        return
    new, old = found
    connection.execute(
        f"""UPDATE sync_runs SET finished_at = ?, {", ".join(f"{name} = {name} + ?" for name in _ADDED)}
            WHERE id = ?""",
        (new[1], *new[3:-1], old[0]),
    )
    connection.execute("DELETE FROM sync_runs WHERE id = ?", (new[0],))
