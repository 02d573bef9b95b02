"""The naive search that all others must equal, and a mirror file to change and to search."""

import random
import re
import sqlite3
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from prepared_files import copy_made

from mirror.queries.search import kept_reads
from mirror.search import search
from mirror.search.find import QueryEngine
from mirror.search.query import parse_query
from mirror.search.scan import KeptReads
from mirror.store import Store

MOMENTS = (None, "2020-01-01T00:00:00.000000Z", "2021-06-30T12:00:00.500000Z", "odd")
OWNERS = ("ann", "Bob", "annie", "É", "x-1")

_ROWS = """SELECT r.id, r.name, r.slug, r.is_private, r.deleted_at, r.followers_count, r.forks_count,
    r.created_at, r.owner_id, r.scm, r.language, r.parent_full_name, r.archived, u.username
    FROM repositories r JOIN users u ON u.id = r.owner_id"""


@lru_cache(100_000)
def normal(text: str) -> str:
    """Return the normal form. It is written again here on purpose."""
    return re.sub(r"\s+", "-", unicodedata.normalize("NFKC", text).casefold())


class _Row(NamedTuple):
    """A repository; the first fields are the order of the results among those that match alike."""

    followers: int
    forks: int
    age: list[int]
    id: int
    names: tuple[str, str]
    is_private: bool
    gone: bool
    owner_id: int
    owner: str
    scm: str
    language: str | None
    is_fork: bool
    archived: bool


class Oracle:
    """Every row of a mirror as it is now, in order, to be compared with queries one by one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._rows = sorted(map(_row, connection.execute(_ROWS).fetchall()))
        self._flagged = {
            normal(name) for (name,) in connection.execute("SELECT username FROM users WHERE is_owner")
        }

    def find(
        self,
        query: str,
        *,
        limit: int = 20,
        offset: int = 0,
        visible_private: bool = True,
        private: bool | None = None,
        gone: bool = False,
        scm: str | None = None,
        language: str | None = None,
        forks: bool | None = None,
        archived: bool | None = None,
        owner: str | None = None,
        private_of: tuple[int, ...] = (),
    ) -> tuple[int, list[int]]:
        """Return the count and the ids of a page."""
        before, slash, after = query.partition("/")
        part, owners = (normal(after), normal(before)) if slash else (normal(query), "")
        told = [
            row for row in self._rows if visible_private or not row.is_private or row.owner_id in private_of
        ]
        # Somebody's whole name, which the caller may know of, is not the beginning of others.
        whole = owners in {row.owner for row in told} or (visible_private and owners in self._flagged)
        found: tuple[list[int], list[int], list[int]] = [], [], []
        for row in told:
            if (
                any(part in name for name in row.names)
                and (gone or not row.gone)
                and (private is None or private == row.is_private)
                and (row.owner == owners if whole else row.owner.startswith(owners))
                and (scm is None or scm == row.scm)
                and (language is None or language.lower() == row.language)
                and (archived is None or archived == row.archived)
                and (forks is None or forks == row.is_fork)
                and (owner is None or normal(owner) == row.owner)
            ):
                begins = any(name.startswith(part) for name in row.names)
                found[0 if not part or part in row.names else 1 if begins else 2].append(row.id)
        ids = [row_id for match in found for row_id in match]
        return len(ids), ids[offset : offset + limit]


def _row(columns: tuple[Any, ...]) -> _Row:
    row_id, name, slug, is_private, deleted, followers, forks, created, *about, username = tuple(columns)
    owner_id, scm, language, parent, archived = about
    return _Row(
        followers=-(followers or 0),
        forks=-(forks or 0),
        age=[*(-ord(letter) for letter in created or ""), 1],
        id=row_id,
        names=(normal(name), normal(slug)),
        is_private=bool(is_private),
        gone=deleted is not None,
        owner_id=owner_id,
        owner=normal(username),
        scm=(scm or "").lower(),
        language=None if language is None else language.lower(),
        is_fork=parent is not None,
        archived=bool(archived),
    )


def naive(connection: sqlite3.Connection, query: str, **said: Any) -> tuple[int, list[int]]:
    """Return the count and the ids of a page, by comparing every row."""
    return Oracle(connection).find(query, **said)


def found_in_each_way(
    connection: sqlite3.Connection, query: str, *, limit: int = 20, offset: int = 0, **said: Any
) -> tuple[int, list[int]]:
    """Return the count and the ids of a page from the search; rows that are read, and arrays, must agree.

    Searches in the same state of the file share what they read.
    """
    kept = kept_reads(connection)
    found = search(connection, query, limit=limit, offset=offset, fuzzy=False, kept=kept, **said)
    asked = {"visible_private": True, "private_of": (), **said}
    engine = QueryEngine(connection, parse_query(query, **asked), few=0, kept=_read_apart(kept))
    page = engine.answer(offset, offset + limit)
    assert (page.total, [hit[-1] for hit in page.hits]) == (found.count, found.ids)
    return found.count, found.ids


_APART = [(KeptReads(), KeptReads())]


def _read_apart(kept: KeptReads) -> KeptReads:
    """Return what the second search of each question has read in the same state of the file."""
    if _APART[0][0] is not kept:
        _APART[0] = kept, KeptReads()
    return _APART[0][1]


def _with_owners(path: Path) -> None:
    with Store(path) as store, store.transaction() as connection:
        upstream = store.save_upstream("cloud", "cloud", "https://bitbucket.example")
        connection.executemany(
            """INSERT INTO users (upstream_id, uuid, username, kind, first_seen_at, last_seen_at)
               VALUES (?, ?, ?, 'user', '', '')""",
            [(upstream, name, name) for name in OWNERS],
        )


class Playground:
    """A mirror of one upstream and a few owners. Each method writes in its own transaction."""

    def __init__(self, path: Path, make: Callable[[Path], None] = _with_owners) -> None:
        """`make` is what makes the file with the owners, once in a process."""
        copy_made(path, make)
        self.store = Store(path)
        self.connection = self.store.connection

    def add(self, name: str, slug: str | None = None, **said: Any) -> int:
        """Insert a repository and return its id."""
        row_id = self.store.row("SELECT coalesce(max(id), 0) + 1 FROM repositories")[0]
        values = {
            "id": row_id, "upstream_id": 1, "uuid": str(row_id), "owner_id": 1, "name": name,
            "slug": name if slug is None else slug, "full_name": f"ann/{name}", "is_private": 0, "scm": "git",
            "first_seen_at": "", "last_seen_at": "", **said,
        }  # fmt: skip
        with self.store.transaction() as connection:
            connection.execute(
                f"INSERT INTO repositories ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                list(values.values()),
            )
        return int(row_id)

    def change(self, row_id: int, **said: Any) -> None:
        """Update a repository, or nothing where there is none."""
        with self.store.transaction() as connection:
            connection.execute(
                f"UPDATE repositories SET {', '.join(f'{column} = ?' for column in said)} WHERE id = ?",
                [*said.values(), row_id],
            )

    def remove(self, row_id: int) -> None:
        """Delete a row, which the mirror itself never does."""
        with self.store.transaction() as connection:
            connection.execute("DELETE FROM repositories WHERE id = ?", (row_id,))

    def fill(self, count: int, seed: int = 1) -> None:
        """Insert rows whose names share much."""
        draw = random.Random(seed)
        words = ("django", "flask", "tool", "Data Kit", "api", "É", "x")
        for _ in range(count):
            self.add(
                "-".join(draw.choices(words, k=draw.randint(1, 3))),
                owner_id=draw.randint(1, len(OWNERS)),
                is_private=draw.random() < 0.3,
                followers_count=draw.choice((None, 0, 0, 1, 5)),
                forks_count=draw.choice((None, 0, 2)),
                created_at=draw.choice(MOMENTS),
                scm=draw.choice(("git", "hg")),
                language=draw.choice((None, "", "python", "Python", "go")),
                archived=draw.choice((None, 0, 0, 1)),
                parent_full_name=draw.choice((None, None, "x/y")),
                deleted_at=draw.choice((None, None, None, "2026-01-01T00:00:00.000000Z")),
            )
