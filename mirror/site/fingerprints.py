"""Fingerprints of the source of each page: while one stays the same, the page is not rendered again.

A fingerprint covers all that its page shows, or more: the program that makes pages, and every column that a
page may read except NOT_SHOWN, in the order of the rows. It leaves out row ids, because they shift when a
repository is added or removed.
"""

import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import mirror
from mirror.queries.forks import DEEPEST, HIGHEST
from mirror.site.folder import PagePaths
from mirror.store.files import fetch

PER_PAGE = 100
"""How many repositories a page of an owner has."""

NOT_SHOWN = ("id", "repository_id", "owner_id", "parent_id", "user_id", "last_seen_at", "refs_synced_at")
"""Columns that fingerprints ignore: row ids, and moments that change with every sync and no page shows."""

_PROGRAM = (".css", ".html", ".js", ".py", ".svg")
_SIZE = 12


class PageSource(NamedTuple):
    """A page of a repository or an owner: its file, its row, and the fingerprint of its source."""

    path: str
    row_id: int
    fingerprint: str
    page: int = 1


def fingerprint(*values: Any) -> str:
    """Return the fingerprint of some texts, numbers, bytes, and lists of them."""
    return _digest(values).hex()


def _digest(value: Any) -> bytes:
    return blake2b(msgspec.msgpack.encode(value), digest_size=_SIZE).digest()


@cache
def program() -> str:
    """Return the fingerprint of the program: all its files, and the versions of what renders pages."""
    folder = Path(mirror.__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in _PROGRAM)
    texts = [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]
    return fingerprint(sys.version, sqlite3.sqlite_version, version("jinja2"), version("markupsafe"), texts)


class Sources:
    """The pages of all repositories and owners in a file of public rows, with their fingerprints.

    `options` are the texts besides rows that all pages show.
    """

    def __init__(self, connection: sqlite3.Connection, places: PagePaths, options: Sequence[str]) -> None:
        self._connection = connection
        upstreams = fetch(connection, "SELECT * FROM upstreams ORDER BY id")
        self.common = fingerprint(program(), list(options), upstreams)
        self._owners = {
            row_id: (
                username,
                [places.owner(username, row_id, page) for page in range(1, -(-count // PER_PAGE) + 1)],
            )
            for row_id, username, count in fetch(
                connection,
                """SELECT u.id, u.username, count(*) FROM users u JOIN repositories r ON r.owner_id = u.id
                   WHERE u.is_owner GROUP BY u.id ORDER BY u.id""",
            )
        }
        self._rows = fetch(
            connection, "SELECT id, owner_id, parent_id, full_name FROM repositories ORDER BY id"
        )
        self._paths = {row[0]: places.repository(row[3], row[0]) for row in self._rows}
        self._listed = {
            row_id: _digest((self._paths[row_id], rest))
            for row_id, *rest in self._read("repositories", "id, refs_synced_at IS NULL", "id")
        }

    def repositories(self) -> list[PageSource]:
        """Return the page of each repository, in the order of their rows."""
        shown = dict(self._listed)
        for table in ("branches", "tags"):
            _chain(shown, self._read(table, f"repository_id, '{table}'", "repository_id, name"))
        _chain(shown, self._read("changes", "repository_id", "id"))
        family, namesakes = self._families(), self._namesakes()
        return [
            PageSource(
                self._paths[row_id],
                row_id,
                fingerprint(
                    self.common, shown[row_id], self._owners[owner_id][0], self._owners[owner_id][1][0],
                    family.get(row_id), namesakes.get(full_name.lower()),
                ),
            )
            for row_id, owner_id, _, full_name in self._rows
        ]  # fmt: skip

    def owners(self) -> list[PageSource]:
        """Return the pages of each owner, in the order of their rows."""
        shown = dict[int, bytes]()
        _chain(shown, self._read("users", "id", "id"))
        owner_of = {row[0]: row[1] for row in self._rows}
        _chain(shown, ((owner_of[row_id], digest) for row_id, digest in self._listed.items()))
        changes = self._read("changes", "repository_id", "id")
        _chain(shown, ((owner_of[row_id], self._listed[row_id], *rest) for row_id, *rest in changes))
        return [
            PageSource(path, row_id, fingerprint(self.common, shown[row_id], path, len(paths)), page)
            for row_id, (_, paths) in self._owners.items()
            for page, path in enumerate(paths, 1)
        ]

    def _read(self, table: str, first: str, order: str) -> Iterable[tuple[Any, ...]]:
        """Read the shown columns of a table; the expression `first` precedes them."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        names = [row[1] for row in cursor.execute(f"PRAGMA table_info({table})") if row[1] not in NOT_SHOWN]
        return cursor.execute(f"SELECT {', '.join([first, *names])} FROM {table} ORDER BY {order}")

    def _families(self) -> dict[int, bytes]:
        """Return digests of the parents and forks of each repository that has any."""
        parents = {row_id: parent for row_id, _, parent, _ in self._rows if parent is not None}
        children = defaultdict[int, list[int]](list)
        for row_id, parent in parents.items():
            children[parent].append(row_id)
        below = dict[int, bytes]()
        for _ in range(DEEPEST):
            below = {
                row_id: _digest([(self._listed[child], below.get(child)) for child in some])
                for row_id, some in children.items()
            }
        return {
            row_id: _digest((below.get(row_id), [self._listed[one] for one in _line(row_id, parents)]))
            for row_id in {*parents, *children}
        }

    def _namesakes(self) -> dict[str, bytes]:
        """Return digests of repositories that share a name, by the name in lower case."""
        names = [(full_name.lower(), row_id) for row_id, _, _, full_name in self._rows]
        counts = Counter(name for name, _ in names)
        shown = dict[str, bytes]()
        _chain(shown, ((name, self._listed[row_id]) for name, row_id in names if counts[name] > 1))
        return shown


def _chain(shown: dict[Any, bytes], rows: Iterable[Sequence[Any]]) -> None:
    """Add each row, in order, to the digest that its first value names."""
    for key, *rest in rows:
        shown[key] = _digest((shown.get(key), rest))


def _line(row_id: int, parents: dict[int, int]) -> list[int]:
    """Return the ancestors of a repository, as far up as a page shows them."""
    line = list[int]()
    while row_id in parents and len(line) < HIGHEST:
        row_id = parents[row_id]
        line.append(row_id)
    return line
