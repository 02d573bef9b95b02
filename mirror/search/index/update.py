"""Update the index: follow the suffixes of all texts that leave or join it, level by level.

Entries (see `writers.Batch`) take the place of documents in `build`. Array shapes: E entries, S suffixes,
G groups.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.backlog import IndexChange, IndexedText
from mirror.search.index.build import differs_from_previous, keep_groups, paths_at, split_groups
from mirror.search.index.format import (
    END,
    LEAF_SIZE,
    SHORTEST_LISTED,
)
from mirror.search.index.writers import Batch, LeafWriter, NodeWriter, batch_of
from mirror.search.names import Popularity, collection_of, popularity, searched_text


def apply_changes(
    connection: sqlite3.Connection, changes: Sequence[IndexChange], leaf_size: int = LEAF_SIZE
) -> None:
    """Apply changes to the index; call it in a transaction. `leaf_size` is for tests.

    For each common path of a text, a count changes; if the repository has as many followers as the last one
    listed, its id is appended to the node's list. For each rare path, the id is appended to the leaf's list.
    Nothing is removed from leaves, because readers of a leaf read the rows anyway.
    """
    if changes:
        _Update(connection, batch_of(changes), leaf_size).run()


_ROWS = """SELECT id, name, slug, is_private, deleted_at, followers_count, forks_count, created_at
    FROM repositories WHERE id IN (SELECT value FROM json_each(?))"""


class _Update:
    def __init__(self, connection: sqlite3.Connection, batch: Batch, leaf_size: int) -> None:
        self._connection = connection
        self._batch = batch
        self._leaf_size = leaf_size
        self._longest_leaf = 2 * leaf_size
        self._nodes = NodeWriter(connection, batch)
        self._leaves = LeafWriter(connection)

    def run(self) -> None:
        if not self._nodes.read([b""]):
            self._nodes.create(b"", {})
        everything = np.arange(self._batch.ids.size, dtype=np.uint32)
        root = np.zeros(everything.size, dtype=np.uint64)
        self._nodes.change(self._nodes.read([b""]), [b""], root, everything)
        self._follow()
        self._nodes.flush()
        while too_long := self._leaves.flush(self._longest_leaf):
            for path in too_long:
                self._split_leaf(path)

    def _follow(self) -> None:
        """Change the nodes that the suffixes pass, and append to the leaves where they end."""
        positions, entries = self._batch.suffixes()
        group = np.zeros(positions.size, dtype=np.uint64)
        ended = list[tuple[bytes, Numbers, Numbers]]()
        depth = 0
        while positions.size:
            positions, entries, starts = split_groups(self._batch.text, positions, entries, group, depth)
            depth += 1
            paths = paths_at(self._batch.text, positions[starts], depth)
            public = self._nodes.read([path for path in paths if not path.endswith(END)])
            common = np.array([path in public for path in paths])
            for path, begun, new in self._new_in_leaves(positions, entries, starts, paths, common):
                if path.endswith(END):
                    ended.append((path, begun, new))
                else:
                    self._leaves.add(path, self._batch.ids[new].tolist())
            positions, entries, group = keep_groups(positions, entries, starts, common)
            once = differs_from_previous(group) | differs_from_previous(entries)
            self._nodes.change(public, list(compress(paths, common.tolist())), group[once], entries[once])
        self._append_ended(ended)

    def _new_in_leaves(
        self,
        positions: Numbers,
        entries: Numbers,
        starts: NDArray[np.int64],
        paths: list[bytes],
        common: NDArray[np.bool_],
    ) -> Iterator[tuple[bytes, Numbers, Numbers]]:
        """Yield (path, positions, entries) for each rare group that has new entries, with only those."""
        positions, entries, group = keep_groups(positions, entries, starts, ~common)
        new = self._batch.is_new[entries] & (differs_from_previous(group) | differs_from_previous(entries))
        positions, entries, group = positions[new], entries[new], group[new]
        names = list(compress(paths, (~common).tolist()))
        firsts = np.flatnonzero(differs_from_previous(group))
        cuts = [*firsts.tolist(), positions.size]
        for index, begin, end in zip(group[firsts].tolist(), cuts[:-1], cuts[1:], strict=True):
            yield names[index], positions[begin:end], entries[begin:end]

    def _append_ended(self, ended: Iterable[tuple[bytes, Numbers, Numbers]]) -> None:
        """Append to the lists of suffixes that are common to their end: to crowds, or else to leaves."""
        in_crowd = np.zeros(self._batch.ids.size, dtype=bool)
        for _, positions, entries in ended:
            in_crowd[entries[positions == self._batch.starts[entries]]] = True
        for path, positions, entries in ended:
            whole = positions == self._batch.starts[entries]
            for row_id in self._batch.ids[entries[whole]].tolist():
                self._leaves.add_to_crowd(path[:-1], row_id)
            if len(path) > SHORTEST_LISTED:
                for row_id in self._batch.ids[entries[~in_crowd[entries]]].tolist():
                    self._leaves.add_ended(path, row_id)

    def _split_leaf(self, path: bytes) -> None:
        """Turn a leaf into a node, with leaves one byte below; or only drop the ids that no longer belong."""
        listed = [found for found in self._read_rows(self._leaves.read(path)) if path in found[1].text]
        if len(listed) <= self._leaf_size:
            self._leaves.replace(path, {popular[-1] for popular, _ in listed})
            return
        self._leaves.replace(path, set())
        ranked = defaultdict[int, list[Popularity]](list)
        for popular, indexed in sorted(listed):
            ranked[indexed.collection].append(popular)
        self._nodes.create(path, ranked)
        crowds = self._nodes.read(sorted({indexed.text for _, indexed in listed}))
        for popular, (text, _) in listed:
            if text == path:
                self._leaves.add_to_crowd(text, popular[-1])
            for child in _children(path, text, in_crowd=text in crowds):
                if child.endswith(END):
                    self._leaves.add_ended(child, popular[-1])
                else:
                    self._leaves.add(child, [popular[-1]])

    def _read_rows(self, ids: Iterable[int]) -> Iterator[tuple[Popularity, IndexedText]]:
        """Yield some repositories as they are now, which is what the index contains after this batch."""
        found = self._connection.execute(_ROWS, (json.dumps(list(ids)),))
        for row_id, name, slug, is_private, deleted_at, followers, forks, created_at in found:
            indexed = IndexedText(searched_text(name, slug), collection_of(is_private, deleted_at))
            yield popularity(followers, forks, created_at, row_id), indexed


def _children(path: bytes, text: bytes, *, in_crowd: bool) -> set[bytes]:
    """Return the paths one byte below `path` that a text has and that get a leaf."""
    children = set[bytes]()
    ended = text + END
    at = text.find(path)
    while at >= 0:
        child = ended[at : at + len(path) + 1]
        if not child.endswith(END) or (not in_crowd and len(child) > SHORTEST_LISTED):
            children.add(child)
        at = text.find(path, at + 1)
    return children
