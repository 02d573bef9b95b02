"""Update the index: follow the suffixes of all texts that leave or join it, level by level.

A batch of changes consists of *entries*, which take the place of documents in `build`: an entry is a text
that leaves the index or joins it. Each node and each leaf is read once and written once. Array shapes: E
entries, S suffixes, G groups.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import eq

import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.backlog import IndexedText, PreparedRows
from mirror.search.index.build import (
    cut,
    differs_from_previous,
    insert_rows,
    keep_groups,
    paths_at,
    split_groups,
)
from mirror.search.index.columns import add_dense, dense_paths
from mirror.search.index.format import (
    CHUNK_BITS,
    DEEPEST,
    END,
    LEAF_SIZE,
    LONG_LIST_FROM,
    SHORTEST_LISTED,
    UNRANKED,
    chunk_of,
    list_limit,
    max_ids,
    pack_appended,
    pack_best,
    pack_list,
    unpack_best,
    unpack_list,
)
from mirror.search.names import COLLECTIONS, PUBLIC, Popularity, collection_of, popularity, searched_text
from mirror.search.query import plain_cursor

_PATHS_AT_ONCE = 500  # in one SQL statement


@dataclass(slots=True)
class Batch:
    """The entries of changed rows: an old text leaves the index, a new text joins it.

    A repository that keeps its text and collection is one entry that leaves and joins.

    text: the entries' texts, each followed by END, then DEEPEST zeros.
    starts: where in `text` each entry begins [E].
    row: the number of each entry's row among those that changed [E].
    ids, collection, followers: of each entry's repository [E].
    leaves, joins: whether the entry leaves, and whether it joins [E].
    is_new: whether it joins with another text than the old one, so that leaves must learn its id [E].
    """

    text: NDArray[np.uint8]
    starts: Numbers
    row: NDArray[np.int64]
    ids: Numbers
    leaves: NDArray[np.bool_]
    joins: NDArray[np.bool_]
    is_new: NDArray[np.bool_]
    collection: NDArray[np.uint8]
    followers: NDArray[np.int64]

    def suffixes(self) -> tuple[Numbers, Numbers]:
        """Return the position of every suffix except a single END, and its entry, both in order."""
        text = self.text[:-DEEPEST]
        positions = np.flatnonzero(text != END[0]).astype(np.uint32)
        entries = np.searchsorted(self.starts, positions, side="right").astype(np.uint32) - np.uint32(1)
        return positions, entries


def batch_of(changed: PreparedRows) -> Batch:
    """Return the entries of changed rows, in their order: of each, what leaves before what joins."""
    same_text = np.array(list(map(eq, changed.was_texts, changed.texts)), dtype=bool)
    same = same_text & list(map(eq, changed.was_collections, changed.collections))
    was_there = np.array(list(map(bool, changed.was_texts)), dtype=bool)
    joining = ~same & list(map(bool, changed.texts))
    texts = [*compress(changed.was_texts, was_there.tolist()), *compress(changed.texts, joining.tolist())]
    row = np.concatenate([np.flatnonzero(was_there), np.flatnonzero(joining)])
    order = np.argsort(row, kind="stable")
    row, leaves = row[order], order < np.count_nonzero(was_there)
    texts = list(map(texts.__getitem__, order.tolist()))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1
    collections = [
        *compress(changed.was_collections, was_there.tolist()),
        *compress(changed.collections, joining.tolist()),
    ]
    return Batch(
        text=np.frombuffer(END.join([*texts, bytes(DEEPEST)]), dtype=np.uint8),
        starts=(np.cumsum(lengths) - lengths).astype(np.uint32),
        row=row,
        ids=np.array(changed.ids, dtype=np.uint32)[row],
        leaves=leaves,
        joins=~leaves | same[row],
        is_new=~leaves & ~same_text[row],
        collection=np.array(collections, dtype=np.uint8)[order],
        followers=np.array(changed.followers, dtype=np.int64)[row],
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


_READ = "SELECT path, collection, repositories, best, bar FROM search_common WHERE path IN"

_REPLACE = """ON CONFLICT DO UPDATE
    SET repositories = excluded.repositories, best = excluded.best, bar = excluded.bar"""

_POPULARITIES = """SELECT followers_count, forks_count, created_at, id FROM repositories
    WHERE id IN (SELECT value FROM json_each(?))"""

_UNREACHABLE = (1 << 63) - 1  # greater than any follower count
_WIDTH = len(COLLECTIONS)

NodeRow = tuple[bytes, int, int, bytes, int]
"""A row of `search_common`: path, collection, number of repositories, `best` and `bar`.

`best` holds the packed ids of all repositories, in any order, or of the best. A partial list starts with ids
in rank order; ids added since (UNRANKED set) are candidates with at least `bar` followers, which is how many
the last ranked one had when it was ranked.
"""


class NodeWriter:
    """Changes the nodes of the index for one batch; `flush` writes them."""

    def __init__(self, connection: sqlite3.Connection, batch: Batch) -> None:
        self._connection = connection
        self._batch = batch
        self._changed = list[NodeRow]()
        self._too_long = list[NodeRow]()  # their lists are to be ranked and cut
        # The lists of a collection have only ids that the index knows there, so no list has another's.
        self._leaving = np.zeros(int(batch.ids.max(initial=0)) + 2, dtype=bool)
        self._leaving[batch.ids[batch.leaves]] = True

    def read(self, paths: Sequence[bytes]) -> list[NodeRow]:
        """Return the rows of those of some paths that are nodes, in order. Every node has one for PUBLIC."""
        rows = list[NodeRow]()
        cursor = plain_cursor(self._connection)
        for first in range(0, len(paths), _PATHS_AT_ONCE):
            some = paths[first : first + _PATHS_AT_ONCE]
            rows += cursor.execute(f"{_READ} ({', '.join('?' * len(some))})", some)
        return rows

    def create(self, path: bytes, ranked: dict[int, list[Popularity]]) -> None:
        """Create a node, given the popularity of its repositories by collection, in rank order."""
        for collection, members in ({PUBLIC: list[Popularity]()} | ranked).items():
            best = members[: list_limit(len(members))]
            ids, bar = pack_best([popular[-1] for popular in best]), -best[-1][0] if best else 0
            self._changed.append((path, collection, len(members), ids, bar))
        self.flush()

    def change(
        self, rows: list[NodeRow], paths: list[bytes], group: NDArray[np.uint64], entries: Numbers
    ) -> None:
        """Let entries leave or join the nodes of their groups.

        A joining id is appended to a complete list, or to a ranked one if it has enough followers. Most nodes
        list no repository with so few followers: they only count it.

        :param rows: all rows of the nodes; those of collections that a node does not have yet are added
        :param paths: the path of each group [G]
        :param group: the group of each entry, ascending
        :param entries: the entries, each once a group
        """
        if not entries.size:
            return
        index = _row_of_each(rows, paths, group, self._batch.collection[entries])
        names, collections, counts, lists, bars = zip(*rows, strict=True)
        best = list(lists)
        joins = self._batch.joins[entries]
        left = np.bincount(index[self._batch.leaves[entries]], minlength=len(rows))
        joined = np.bincount(index[joins], minlength=len(rows))
        count = np.array(counts, dtype=np.int64) - left
        sizes = np.fromiter(map(len, best), dtype=np.int64, count=len(rows)) // 4
        changed = left != joined
        for place, packed in _lists_without(self._leaving, best, sizes, count):
            best[place] = packed
            sizes[place] = len(packed) // 4
            changed[place] = True
        bar = np.where(sizes > 0, np.array(bars, dtype=np.int64), _UNREACHABLE)
        complete = sizes == count
        listed = joins & (complete[index] | (self._batch.followers[entries] >= bar[index]))
        listed = np.flatnonzero(listed)
        listed = listed[np.argsort(index[listed], kind="stable")]
        places = index[listed]
        ids = self._batch.ids[entries[listed]] | np.where(complete[places], 0, UNRANKED).astype(np.uint32)
        begins = np.flatnonzero(differs_from_previous(places)) if places.size else places
        parts = cut(ids.astype("<u4").tobytes(), 4 * np.append(begins, places.size))
        for place, packed in zip(places[begins].tolist(), parts, strict=True):
            best[place] += packed
        changed[places] = True
        sizes += np.bincount(places, minlength=len(rows))
        count += joined
        limits = np.where(count < LONG_LIST_FROM, list_limit(0), list_limit(LONG_LIST_FROM))
        too_long = 2 * sizes > 3 * limits
        new = list(zip(names, collections, count.tolist(), best, bars, strict=True))
        self._changed += compress(new, (changed & ~too_long).tolist())
        self._too_long += compress(new, (changed & too_long).tolist())

    def flush(self) -> None:
        """Rank and cut the lists that are too long, and write all changed rows."""
        known = self._popularities(
            {row_id for row in self._too_long for ids in unpack_best(row[3]) for row_id in ids}
        )
        for path, collection, count, packed, _ in self._too_long:
            self._changed.append((path, collection, count, *_ranked(packed, count, known)))
        insert_rows(self._connection, "search_common", self._changed, _REPLACE)
        self._changed.clear()
        self._too_long.clear()

    def _popularities(self, ids: set[int]) -> dict[int, Popularity]:
        """Read the popularity of some repositories; deleted ones are the least popular."""
        known = {row_id: popularity(None, None, None, row_id) for row_id in ids}
        rows = self._connection.execute(_POPULARITIES, (json.dumps(list(ids)),))
        return known | {row[-1]: popularity(*row) for row in rows}


def _row_of_each(
    rows: list[NodeRow], paths: list[bytes], group: NDArray[np.uint64], collection: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the index of the row that each entry belongs to; add the rows that are missing."""
    number = dict(zip(paths, range(0, len(paths) * _WIDTH, _WIDTH), strict=True))
    keys = np.fromiter((number[row[0]] + row[1] for row in rows), dtype=np.int64, count=len(rows))
    row_of = np.full(len(paths) * _WIDTH, -1, dtype=np.int64)
    row_of[keys] = np.arange(len(rows))
    wanted = group.astype(np.int64) * _WIDTH + collection
    is_missing = np.zeros(row_of.size, dtype=bool)
    is_missing[wanted] = row_of[wanted] < 0
    missing = np.flatnonzero(is_missing)  # in the order of np.unique, in a tenth of its time
    row_of[missing] = np.arange(len(rows), len(rows) + missing.size)
    rows += [(paths[key // _WIDTH], key % _WIDTH, 0, b"", 0) for key in missing.tolist()]
    index: NDArray[np.int64] = row_of[wanted]
    return index


def _lists_without(
    leaving: NDArray[np.bool_], lists: Sequence[bytes], sizes: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[int, bytes]]:
    """Yield (index of the row, new packed list) for each list that contains any leaving id.

    `leaving` says of each id whether it leaves, and no higher one than the last does.

    A partial list that has lost all its ranked ids becomes empty: nothing is known of the best any more.
    """
    ids = np.frombuffer(b"".join(lists), dtype="<u4")
    leaves = leaving.take(ids & np.uint32(UNRANKED - 1), mode="clip")
    index = np.repeat(np.arange(sizes.size), sizes)
    lost = np.bincount(index[leaves], minlength=sizes.size)
    kept, sizes = ids[~leaves], sizes - lost
    packed, ends = kept.tobytes(), np.cumsum(sizes)
    # Ranked ids come first, so that the first one tells whether any is left.
    first = kept[np.minimum(ends - sizes, kept.size - 1)] if kept.size else np.zeros(sizes.size, ids.dtype)
    is_known = (sizes == counts) | ((sizes > 0) & (first < UNRANKED))
    for row in np.flatnonzero(lost).tolist():
        yield row, packed[4 * (ends[row] - sizes[row]) : 4 * ends[row]] if is_known[row] else b""


def _ranked(packed: bytes, count: int, known: dict[int, Popularity]) -> tuple[bytes, int]:
    """Sort a node's list and cut it to its limit; return it, packed, and its bar."""
    ranked, unranked = unpack_best(packed)
    ids = sorted([*ranked, *unranked], key=known.__getitem__)
    if len(ids) < count:  # below its last ranked id, a partial list may have gaps
        ids = ids[: ids.index(ranked[-1]) + 1]
    ids = ids[: list_limit(count)]
    return pack_best(ids), -known[ids[-1]][0]


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

        :param ends: by length of the paths: the paths of groups, and what is `_new` in them
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
            for child in _children(path, text, in_crowd=text in crowds):
                if child.endswith(END):
                    self._leaves.add_ended(child, popular[-1])
                else:
                    self._leaves.add(child, [popular[-1]])

    def _read_rows(self, ids: Iterable[int]) -> list[tuple[Popularity, IndexedText]]:
        """Return some repositories as they are now, which is what the index contains after this batch."""
        ids = list(ids)
        missing = [row_id for row_id in ids if row_id not in self._known]
        found = self._connection.execute(_ROWS, (json.dumps(missing),)) if missing else ()
        for row_id, name, slug, is_private, deleted_at, followers, forks, created_at in found:
            indexed = IndexedText(searched_text(name, slug), collection_of(is_private, deleted_at))
            self._known[row_id] = popularity(followers, forks, created_at, row_id), indexed
        return [self._known[row_id] for row_id in ids if row_id in self._known]


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
