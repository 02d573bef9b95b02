"""The complete lists below the common paths, and of crowds: they only grow, readers drop what left.

Whoever reads a list looks at each row anyway, so a repository that has been renamed may stay in its old
lists until the index is built anew.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable

from mirror.trie import DEEPEST, END, LEAF_SIZE, chunk_of, pack, unpack

_APPEND_RARE = """INSERT INTO search_rare VALUES (?, ?)
    ON CONFLICT DO UPDATE SET ids = CAST(ids || excluded.ids AS BLOB) RETURNING length(ids)"""
_APPEND_CROWD = """INSERT INTO search_crowds VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET ids = CAST(ids || excluded.ids AS BLOB)"""


class Lists:
    """Ids on their way into the lists of a file."""

    def __init__(self, connection: sqlite3.Connection, width: int) -> None:
        self._connection = connection
        self._width = width
        self._rare = defaultdict[bytes, list[int]](list)
        self._crowds = defaultdict[tuple[bytes, bytes], list[int]](list)

    def add(self, path: bytes, row_id: int) -> None:
        """Append to a rare path; one that ends with END gets its chunk."""
        self._rare[path + chunk_of(row_id) if path.endswith(END) else path].append(row_id)

    def add_to_crowd(self, text: bytes, row_id: int) -> None:
        """Append to the list of those who share a text that is common."""
        self._crowds[text, chunk_of(row_id)].append(row_id)

    def read(self, path: bytes) -> set[int]:
        """Read a rare path's list."""
        row = self._connection.execute("SELECT ids FROM search_rare WHERE path = ?", (path,)).fetchone()
        return set(unpack(row[0], self._width)) if row else set()

    def replace(self, path: bytes, ids: set[int]) -> None:
        """Write a rare path's list anew; nothing is left of an empty one."""
        self._connection.execute("DELETE FROM search_rare WHERE path = ?", (path,))
        if ids:
            packed = pack(sorted(ids), self._width)
            self._connection.execute("INSERT INTO search_rare VALUES (?, ?)", (path, packed))

    def settle(self, is_full: Callable[[int], bool] | None = None) -> list[bytes]:
        """Write what was added; return the paths whose lists have grown too long."""
        is_full = is_full or (lambda length: length > 2 * LEAF_SIZE)
        full = list[bytes]()
        for path, ids in sorted(self._rare.items()):
            row = self._connection.execute(_APPEND_RARE, (path, pack(ids, self._width))).fetchone()
            if len(path) < DEEPEST and END not in path and is_full(row[0] // self._width):
                full.append(path)
        self._connection.executemany(
            _APPEND_CROWD,
            [(*crowd, pack(ids, self._width)) for crowd, ids in sorted(self._crowds.items())],
        )
        self._rare.clear()
        self._crowds.clear()
        return full
