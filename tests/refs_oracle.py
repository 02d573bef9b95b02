"""The naive search for refs that all others must equal, and a mirror with refs to change and to search."""

import random
import re
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

from prepared_files import copy_made
from search_oracle import Playground, normal

from mirror.store import Store

HIDDEN = 2**63 - 1
TABLES = {"branch": "branches", "tag": "tags"}

_ROWS = """SELECT t.repository_id, '{0}', t.name, t.target_hash, t.target_date, r.is_private, r.public_from,
    r.deleted_at, r.owner_id, u.username FROM {1} t JOIN repositories r ON r.id = t.repository_id
    JOIN users u ON u.id = r.owner_id"""
_LATEST = 2**32 - 1


def _age(date: str | None) -> int:
    try:
        seconds = int(datetime.fromisoformat(date or "").timestamp())
    except ValueError:
        seconds = 0
    return _LATEST - min(max(seconds, 0), _LATEST)


def naive(
    connection: sqlite3.Connection,
    query: str,
    *,
    limit: int = 20,
    offset: int = 0,
    visible_private: bool = True,
    private_of: tuple[int, ...] = (),
    kind: str | None = None,
    owner: str | None = None,
    exact: bool = False,
    gone: bool = False,
) -> tuple[int, int, list[tuple[int, str, str]]]:
    """Return the counts of refs and repositories, and the refs of a page, by comparing every row."""
    part, commit = normal(query), query.strip().lower()
    is_hash = re.fullmatch("[0-9a-f]{7,64}", commit) is not None
    found = list[tuple[Any, ...]]()
    for which, table in TABLES.items():
        for row in connection.execute(_ROWS.format(which, table)).fetchall() if kind in (None, which) else ():
            row_id, _, name, target, date, is_private, public_from, deleted, owner_id, username = tuple(row)
            hidden = is_private or public_from == HIDDEN
            if (deleted is not None and not gone) or (
                hidden and not visible_private and owner_id not in private_of
            ):
                continue
            if owner is not None and normal(username) != normal(owner):
                continue
            name_now = normal(name)
            if name_now == part and (part or exact):
                match = 0
            elif not exact and part in name_now:
                match = 1 if part and name_now.startswith(part) else 2
            elif is_hash and (target.lower() == commit if exact else target.lower().startswith(commit)):
                match = 3
            else:
                continue
            found.append((match, _age(date), row_id, which, name))
    found.sort()
    page = [(row_id, which, name) for _, _, row_id, which, name in found[offset : offset + limit]]
    return len(found), len({row[2] for row in found}), page


def _make_empty(path: Path) -> None:
    Playground(path).store.close()


class RefPlayground(Playground):
    """A mirror whose repositories have refs."""

    def __init__(self, path: Path) -> None:
        copy_made(path, _make_empty)
        self.store = Store(path)
        self.connection = self.store.connection

    def put(self, repository: int, kind: str, name: str, target: str, date: str | None) -> None:
        """Insert or move a ref; nothing where there is no such repository."""
        with self.store.transaction() as connection:
            if connection.execute("SELECT 1 FROM repositories WHERE id = ?", (repository,)).fetchone():
                connection.execute(
                    f"""INSERT INTO {TABLES[kind]} (repository_id, name, target_hash, target_date)
                        VALUES (?, ?, ?, ?) ON CONFLICT (repository_id, name) DO UPDATE
                        SET target_hash = excluded.target_hash, target_date = excluded.target_date""",
                    (repository, name, target, date),
                )

    def drop(self, repository: int, kind: str, number: int) -> None:
        """Delete a ref, by its place among those of the repository."""
        with self.store.transaction() as connection:
            connection.execute(
                f"""DELETE FROM {TABLES[kind]} WHERE repository_id = :id AND name IN (SELECT name
                    FROM {TABLES[kind]} WHERE repository_id = :id ORDER BY name LIMIT 1 OFFSET :number)""",
                {"id": repository, "number": number},
            )

    def remove(self, row_id: int) -> None:
        """Delete a repository with its refs, as the merge of second rows does."""
        with self.store.transaction() as connection:
            for table in TABLES.values():
                connection.execute(f"DELETE FROM {table} WHERE repository_id = ?", (row_id,))
            connection.execute("DELETE FROM repositories WHERE id = ?", (row_id,))

    def fill_refs(self, repositories: int, names: int, seed: int = 1) -> None:
        """Insert repositories with refs whose names share much."""
        draw = random.Random(seed)
        words = ("release", "hotfix", "feature", "v1", "Fix", "é")
        choices = ["master", *("/".join(draw.choices(words, k=draw.randint(1, 3))) for _ in range(names))]
        for _ in range(repositories):
            row_id = self.add(
                "tool", owner_id=draw.randint(1, 5), is_private=draw.random() < 0.2, full_name="ann/tool"
            )
            for name in {"master", *draw.choices(choices, k=draw.randint(0, 6))}:
                self.put(
                    row_id,
                    draw.choice(("branch", "tag")),
                    name,
                    f"{draw.randrange(9):08x}{row_id:032x}",
                    f"20{draw.randint(10, 25)}-01-01T00:00:00.000000Z",
                )
