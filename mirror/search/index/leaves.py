"""Write the leaves of the index, and its crowds: lists of ids by path."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.build import (
    cut,
    insert_rows,
)
from mirror.search.index.format import (
    DEEPEST,
    END,
    chunk_of,
    max_ids,
    pack_appended,
    pack_list,
    unpack_list,
)

_APPEND = "ON CONFLICT DO UPDATE SET ids = CAST(ids || excluded.ids AS BLOB)"
_LONG = " RETURNING path, iif(length(ids) > ?, ids, NULL)"  # an id takes a byte at least


class LeafWriter:
    """Collects ids to be appended to leaves and crowds; `flush` writes them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._packed = list[tuple[bytes, bytes]]()
        self._rare = defaultdict[bytes, list[int]](list)
        self._crowds = defaultdict[tuple[bytes, bytes], list[int]](list)

    def append(self, paths: Iterable[bytes], begins: NDArray[np.int64], ids: Numbers) -> None:
        """Append ids to leaves, each leaf once in a batch. Those of a path begin at the index in `begins`."""
        packed = np.zeros((ids.size, 5), dtype=np.uint8)  # as `pack_appended` does
        packed[:, 1:] = ids.astype("<u4").view(np.uint8).reshape(-1, 4)
        self._packed += zip(paths, cut(packed.tobytes(), 5 * np.append(begins, ids.size)), strict=True)

    def add(self, path: bytes, ids: Sequence[int]) -> None:
        """Append ids to the leaf of a rare path that does not end with END."""
        self._rare[path] += ids

    def add_ended(self, path: bytes, row_id: int) -> None:
        """Append an id to its chunk of the leaf of a path that ends with END."""
        self._rare[path + chunk_of(row_id)].append(row_id)

    def add_to_crowd(self, text: bytes, row_id: int) -> None:
        """Append an id to the list of a text that is common as a whole."""
        self._crowds[text, chunk_of(row_id)].append(row_id)

    def read(self, path: bytes) -> set[int]:
        """Return the ids of a leaf."""
        row = self._connection.execute("SELECT ids FROM search_rare WHERE path = ?", (path,)).fetchone()
        return set(unpack_list(row[0])) if row else set()

    def replace(self, path: bytes, ids: set[int]) -> None:
        """Replace the ids of a leaf; without ids, delete it."""
        self._connection.execute("DELETE FROM search_rare WHERE path = ?", (path,))
        if ids:
            self._connection.execute("INSERT INTO search_rare VALUES (?, ?)", (path, pack_list(ids)))

    def flush(self, longest: int) -> list[bytes]:
        """Write what was added; return the paths of leaves that now have more than `longest` ids."""
        rows = [*self._packed, *((path, pack_appended(ids)) for path, ids in self._rare.items())]
        crowds = [(*crowd, pack_appended(ids)) for crowd, ids in self._crowds.items()]
        for collected in (self._packed, self._rare, self._crowds):
            collected.clear()
        written = insert_rows(self._connection, "search_rare", rows, _APPEND + _LONG, longest)
        insert_rows(self._connection, "search_crowds", crowds, _APPEND)
        return [
            path
            for path, ids in written
            if ids and len(path) < DEEPEST and END not in path
            if max_ids(ids) > longest and len(set(unpack_list(ids))) > longest
        ]
