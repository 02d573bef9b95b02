"""Update the index: follow the suffixes of all texts that leave or join it, level by level.

The changes are the entries of a batch (`batch`). Each node and each leaf is read once and written once.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.backlog import IndexedText, PreparedRows
from mirror.search.index.batch import Batch, batch_of
from mirror.search.index.build import (
    differs_from_previous,
    keep_groups,
    paths_at,
    split_groups,
)
from mirror.search.index.columns import add_dense, dense_paths
from mirror.search.index.format import (
    CHUNK_BITS,
    END,
    LEAF_SIZE,
    SHORTEST_LISTED,
    children_of,
)
from mirror.search.index.leaves import LeafWriter
from mirror.search.index.nodes import NodeWriter
from mirror.search.names import Popularity, collection_of, popularity, searched_text


def apply_changes(connection: sqlite3.Connection, changed: PreparedRows, leaf_size: int = LEAF_SIZE) -> None:
    """Apply changed rows to the index, but for columns; call it in a transaction. `leaf_size` is for tests.

    For each common path of a text, a count changes; if the repository has as many followers as the last one
    listed, its id is appended to the node's list. For each rare path, the id is appended to the leaf's list.
    Nothing is removed from leaves, because readers of a leaf read the rows anyway. Dense paths get the bits
    of the texts that have them now and had them not.
    """
    _Update(connection, batch_of(changed), leaf_size).run()


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
        self._dense = dense_paths(connection)
        self._known = dict[int, tuple[Popularity, IndexedText]]()  # rows that were read, by id

    def run(self) -> None:
        if not self._nodes.read([b""]):
            self._nodes.create(b"", {})
        everything = np.arange(self._batch.ids.size, dtype=np.uint32)
        self._nodes.change(
            self._nodes.read([b""]), [b""], np.zeros(everything.size, dtype=np.uint64), everything
        )
        self._follow()
        self._nodes.flush()
        while too_long := self._leaves.flush(self._longest_leaf):
            for path in too_long:
                self._split_leaf(path)

    def _follow(self) -> None:
        """Change the nodes that the suffixes pass, and append to the leaves where they end."""
        positions, entries = self._batch.suffixes()
        group = np.zeros(positions.size, dtype=np.uint64)
        ends = list[tuple[list[bytes], Numbers, Numbers, NDArray[np.uint64]]]()
        depth = 0
        while positions.size:
            positions, entries, starts = split_groups(self._batch.text, positions, entries, group, depth)
            depth += 1
            bounds = [*starts.tolist(), positions.size]
            paths = paths_at(self._batch.text, positions[starts], depth)
            ended = self._batch.text[positions[starts] + np.uint32(depth - 1)] == END[0]
            rows = self._nodes.read(list(compress(paths, (~ended).tolist())))
            nodes = {row[0] for row in rows}
            common = np.fromiter(map(nodes.__contains__, paths), dtype=bool, count=len(paths))
            for index in [index for index, path in enumerate(paths) if path in self._dense]:
                here = entries[slice(*bounds[index : index + 2])]
                here = here[self._is_new(here, np.zeros(here.size, dtype=np.uint64))]
                if here.size:
                    add_dense(self._connection, paths[index], self._batch.ids[here])
            rare = ~common & ~ended
            _, new, leaf = keep_groups(positions, entries, starts, rare)
            is_new = self._is_new(new, leaf)
            self._append(list(compress(paths, rare.tolist())), new[is_new], leaf[is_new])
            at, its, end = keep_groups(positions, entries, starts, ended)
            # A crowd lists whole texts alone: an old text with the same end may not be listed there.
            is_new = self._batch.is_new[its] & (differs_from_previous(end) | differs_from_previous(its))
            ends.append((list(compress(paths, ended.tolist())), at[is_new], its[is_new], end[is_new]))
            positions, entries, group = keep_groups(positions, entries, starts, common)
            once = differs_from_previous(group) | differs_from_previous(entries)
            self._nodes.change(rows, list(compress(paths, common.tolist())), group[once], entries[once])
        self._append_ended(ends)

    def _is_new(self, entries: Numbers, group: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which entries are new to the paths of their groups: no old text of their rows had these."""
        row = self._batch.row[entries]
        new: NDArray[np.bool_] = differs_from_previous(group) | differs_from_previous(row)
        new &= self._batch.is_new[entries]
        return new

    def _append(self, paths: Sequence[bytes], entries: Numbers, group: NDArray[np.uint64]) -> None:
        """Append entries to the leaves of their groups' paths."""
        begins = np.flatnonzero(differs_from_previous(group))
        leaves = map(paths.__getitem__, group[begins].tolist())
        self._leaves.append(leaves, begins, self._batch.ids[entries])

    def _append_ended(self, ends: Sequence[tuple[list[bytes], Numbers, Numbers, NDArray[np.uint64]]]) -> None:
        """Append to the lists of suffixes that are common to their end: to crowds, or else to leaves.

        :param ends: by length of the paths: the paths of groups, and what is new to them, as `_is_new` says
        """
        in_crowd = np.zeros(self._batch.ids.size, dtype=bool)
        for _, positions, entries, _ in ends:
            in_crowd[entries[positions == self._batch.starts[entries]]] = True
        for length, (paths, positions, entries, group) in enumerate(ends, 1):
            ids = self._batch.ids[entries]
            whole = positions == self._batch.starts[entries]
            for index, row_id in zip(group[whole].tolist(), ids[whole].tolist(), strict=True):
                self._leaves.add_to_crowd(paths[index][:-1], row_id)
            listed = ~in_crowd[entries] & (length > SHORTEST_LISTED)
            key = group[listed] << np.uint64(16) | ids[listed] >> np.uint32(CHUNK_BITS)
            order = np.argsort(key, kind="stable")
            begins = np.flatnonzero(differs_from_previous(key[order]))
            chunks = [divmod(number, 1 << 16) for number in key[order[begins]].tolist()]
            leaves = [paths[index] + chunk.to_bytes(2, "big") for index, chunk in chunks]
            self._leaves.append(leaves, begins, ids[listed][order])

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
        crowds = {row[0] for row in self._nodes.read(sorted({indexed.text for _, indexed in listed}))}
        for popular, (text, _) in listed:
            if text == path:
                self._leaves.add_to_crowd(text, popular[-1])
            for child in children_of(path, text):
                if not child.endswith(END):
                    self._leaves.add(child, [popular[-1]])
                elif len(child) > SHORTEST_LISTED and text not in crowds:
                    self._leaves.add_ended(child, popular[-1])

    def _read_rows(self, ids: Iterable[int]) -> list[tuple[Popularity, IndexedText]]:
        """Return some repositories as they are now, which is what the index contains after this batch."""
        ids = list(ids)
        missing = [row_id for row_id in ids if row_id not in self._known]
        found = self._connection.execute(_ROWS, (json.dumps(missing),)) if missing else ()
        for row_id, name, slug, is_private, deleted_at, followers, forks, created_at in found:
            indexed = IndexedText(searched_text(name, slug), collection_of(is_private, deleted_at))
            self._known[row_id] = popularity(followers, forks, created_at, row_id), indexed
        return [self._known[row_id] for row_id in ids if row_id in self._known]
