"""The parent of a repository, and its forks as a tree."""

import sqlite3
from collections.abc import Iterable

import msgspec

from mirror.queries.repositories import living_repositories, repositories_by_ids
from mirror.queries.rows import RepositoryRow
from mirror.queries.visibility import Caller, visible
from mirror.store.rows import fetch

HIGHEST, DEEPEST, MOST_FORKS = 10, 4, 200
"""The most ancestors, generations of forks, and forks that are read."""


class Fork(msgspec.Struct, frozen=True):
    """A fork with its own forks below it."""

    row: RepositoryRow
    forks: "list[Fork]"


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The ancestors, oldest first, and the forks. `more_forks`: not all were read."""

    ancestors: list[RepositoryRow]
    forks: list[Fork]
    forks_listed: int
    more_forks: bool


def forks_of(connection: sqlite3.Connection, caller: Caller, repository_id: int) -> list[RepositoryRow]:
    """List the living forks of a repository."""
    return living_repositories(connection, caller, "r.parent_id = :parent", {"parent": repository_id})


def family_of(connection: sqlite3.Connection, caller: Caller, repository_id: int) -> Family:
    """Read the ancestors and the forks of a repository; a hidden one ends its line."""
    # `most` counts the repository itself, and one more than are shown, to tell that there are more.
    values = {"id": repository_id, "most": MOST_FORKS + 2, **caller.values}
    upwards = fetch(
        connection,
        f"""WITH RECURSIVE line (id, parent_id, height) AS (
                SELECT id, parent_id, 0 FROM repositories WHERE id = :id
                UNION ALL SELECT r.id, r.parent_id, height + 1
                FROM line JOIN repositories r ON r.id = line.parent_id
                WHERE height < {HIGHEST} AND {visible(caller, "r")})
            SELECT id FROM line WHERE height > 0 ORDER BY height""",
        values,
    )
    # UNION, not UNION ALL: parents may form a circle.
    downwards = fetch(
        connection,
        f"""WITH RECURSIVE tree (id, depth) AS (
                SELECT :id, 0
                UNION SELECT r.id, depth + 1 FROM tree JOIN repositories r ON r.parent_id = tree.id
                WHERE depth < {DEEPEST} AND {visible(caller, "r")} LIMIT :most)
            SELECT r.id, r.parent_id FROM tree JOIN repositories r ON r.id = tree.id WHERE tree.depth > 0
            ORDER BY r.updated_at DESC, r.id""",
        values,
    )
    seen = {repository_id}
    ancestors = _first_of_each((row_id for (row_id,) in upwards), seen)
    forks = _first_of_each((row_id for row_id, _ in downwards), seen)[:MOST_FORKS]
    rows = {row.id: row for row in repositories_by_ids(connection, caller, [*ancestors, *forks])}
    return Family(
        ancestors=[rows[row_id] for row_id in reversed(ancestors)],
        forks=_tree([rows[row_id] for row_id in forks], dict(downwards), repository_id),
        forks_listed=len(forks),
        more_forks=len(downwards) > MOST_FORKS,
    )


def _first_of_each(ids: Iterable[int], seen: set[int]) -> list[int]:
    """Leave out what a circle of parents would show again."""
    kept = list[int]()
    for row_id in ids:
        if row_id not in seen:
            seen.add(row_id)
            kept.append(row_id)
    return kept


def _tree(rows: list[RepositoryRow], parents: dict[int, int], root: int) -> list[Fork]:
    """Arrange forks under their parents."""
    below = dict[int, list[Fork]]()
    for row in rows:
        fork = Fork(row, below.setdefault(row.id, []))
        below.setdefault(parents[row.id], []).append(fork)
    return below.get(root, [])
