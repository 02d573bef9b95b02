"""The complete lists below the common paths, and of crowds: they only grow, readers drop what left.

Whoever reads a list looks at each row anyway, so a repository that has been renamed may stay in its old
lists until the index is built anew.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence

from mirror.trie import DEEPEST, END, appended, at_most, chunk_of, pack_list, unpack_list

_APPEND_RARE = """INSERT INTO search_rare VALUES (?, ?)
    ON CONFLICT DO UPDATE SET ids = CAST(ids || excluded.ids AS BLOB)"""
_LONGER = "SELECT path, ids FROM search_rare WHERE length(ids) > ? AND path IN"
_AT_ONCE = 200
_APPEND_CROWD = """INSERT INTO search_crowds VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET ids = CAST(ids || excluded.ids AS BLOB)"""


class Lists:
    """Ids on their way into the lists of a file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rare = defaultdict[bytes, list[int]](list)
        self._crowds = defaultdict[tuple[bytes, bytes], list[int]](list)

    def add(self, path: bytes, ids: Sequence[int]) -> None:
        """Append to a rare path that does not end with END."""
        self._rare[path] += ids

    def add_ended(self, path: bytes, row_id: int) -> None:
        """Append to a path that ends with END, in the chunk of its own."""
        self._rare[path + chunk_of(row_id)].append(row_id)

    def add_to_crowd(self, text: bytes, row_id: int) -> None:
        """Append to the list of those who share a text that is common."""
        self._crowds[text, chunk_of(row_id)].append(row_id)

    def read(self, path: bytes) -> set[int]:
        """Read a rare path's list."""
        row = self._connection.execute("SELECT ids FROM search_rare WHERE path = ?", (path,)).fetchone()
        return set(unpack_list(row[0])) if row else set()

    def replace(self, path: bytes, ids: set[int]) -> None:
        """Write a rare path's list anew; nothing is left of an empty one."""
        self._connection.execute("DELETE FROM search_rare WHERE path = ?", (path,))
        if ids:
            self._connection.execute("INSERT INTO search_rare VALUES (?, ?)", (path, pack_list(ids)))

    def settle(self, longest: int) -> list[bytes]:
        """Write what was added; return the paths whose lists are now longer than `longest`."""
        rows = sorted((path, appended(ids)) for path, ids in self._rare.items())
        self._connection.executemany(_APPEND_RARE, rows)
        self._connection.executemany(
            _APPEND_CROWD,
            [(*crowd, appended(ids)) for crowd, ids in sorted(self._crowds.items())],
        )
        self._rare.clear()
        self._crowds.clear()
        return self._longer([path for path, _ in rows if len(path) < DEEPEST and END not in path], longest)

    def _longer(self, paths: Sequence[bytes], longest: int) -> list[bytes]:
        longer = list[bytes]()
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            for path, ids in self._connection.execute(f"{_LONGER} ({marks})", (longest, *some)):
                if at_most(ids) > longest and len(set(unpack_list(ids))) > longest:
                    longer.append(path)
        return longer
