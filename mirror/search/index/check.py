"""Check the index: derive everything it should contain from the rows, in the simplest way, and compare."""

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from mirror.search.index.backlog import IndexedText, prepared_rows, unprepared_rows, written_segments
from mirror.search.index.format import END, SHORTEST_LISTED, state_of_index, unpack_best, unpack_list
from mirror.search.names import collection_of, searched_text
from mirror.search.segments import PendingRow

MOST = 100
"""The highest number of faults that are reported; one is enough to rebuild the index."""

_BY_POPULARITY = """SELECT id, name, slug, is_private, deleted_at FROM repositories
    WHERE id <= (SELECT up_to FROM search_state)
    ORDER BY coalesce(followers_count, 0) DESC, coalesce(forks_count, 0) DESC,
        coalesce(created_at, '') DESC, id"""

_TURNS = "SELECT id, turn FROM search_pending WHERE turn IS NOT NULL"

_REMEMBERED = 1_000
"""The paths of the last so many texts are kept, because many repositories share their names."""

_HASH_BITS = 0xFFFFFFFFFFFFFFFF


class TextPaths(NamedTuple):
    """Where a searched text belongs: its common paths, its rare paths, and whether it is a crowd's.

    A text is a *crowd's* if it is common as a whole. Then one list holds all repositories that share it, and
    the ends of its suffixes have no lists.
    """

    common: set[bytes]
    rare: set[bytes]
    in_crowd: bool


def paths_of(text: bytes, common: Container[bytes]) -> TextPaths:
    """Follow every suffix of a text from the root down to the first path that is not common.

    A rare path that ends with END is returned without its chunk number.
    """
    passed, reached = {b""}, set[bytes]()
    in_crowd = False
    length = len(text)
    for start in range(length):
        end = start + 1
        while end <= length and (path := text[start:end]) in common:
            passed.add(path)
            end += 1
        if end <= length:
            reached.add(path)
        elif start == 0:
            in_crowd = True
        elif not in_crowd and length - start >= SHORTEST_LISTED:
            reached.add(text[start:] + END)
    return TextPaths(passed, reached, in_crowd)


def check_index(connection: sqlite3.Connection) -> list[str]:
    """Compare the whole index with the rows; return a line for each fault, none if it is right.

    It takes about 0.1 ms a repository, and about 500 bytes of memory for each common path. Raises
    sqlite3.Error.
    """
    if connection.in_transaction:
        return _Check(connection).run()
    connection.execute("BEGIN")
    try:
        return _Check(connection).run()
    finally:
        connection.execute("ROLLBACK")


@dataclass(slots=True)
class _NodeCheck:
    """The content of a node, and how much of it the rows have confirmed so far, without pending ids.

    `ranked` ids are in order; `unranked` ones in none: ids added since, or all ids of a complete list.
    """

    count: int
    ranked: list[int]
    unranked: set[int]
    seen: int = 0
    confirmed: int = 0
    is_wrong: bool = False

    is_confirmed: bool = False

    def confirm(self, row_id: int) -> None:
        """Compare the next best repository with the next id of the list."""
        if row_id in self.unranked:
            self.unranked.remove(row_id)
        elif self.confirmed < len(self.ranked):
            self.is_wrong |= self.ranked[self.confirmed] != row_id
            self.confirmed += 1
        self.is_confirmed = self.confirmed == len(self.ranked) and not self.unranked


@dataclass(slots=True)
class _Check:
    connection: sqlite3.Connection
    nodes: dict[bytes, dict[int, _NodeCheck]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        from mirror.search.index.columns import column_faults, dense_faults  # noqa: PLC0415

        pending = self._pending_entries()
        self._read_nodes(set(pending))
        up_to = state_of_index(self.connection, "SELECT up_to FROM search_state")[0]
        # For each id, the sum of the hashes of its lists: 8 bytes instead of the lists themselves.
        hashes = array("Q", bytes(8 * (up_to + 1)))
        paths_of_text = lru_cache(_REMEMBERED)(lambda text: paths_of(text, self.nodes))
        for row_id, entry in self._expected_entries(pending):
            paths = paths_of_text(entry.text)
            self._count(row_id, entry.collection, paths, is_pending=row_id in pending)
            for key in _list_keys(entry.text, paths):
                hashes[row_id] = hashes[row_id] + hash(key) & _HASH_BITS
        self._check_nodes()
        self._check_lists(hashes, pending)
        self.faults.extend(column_faults(self.connection, up_to))
        self.faults.extend(dense_faults(self.connection, self._expected_entries(pending), up_to))
        return self.faults[:MOST]

    def _pending_entries(self) -> dict[int, IndexedText | None]:
        """Return pending rows as the index has them; compare what segments say with the rows as they are."""
        first, last = dict[int, PendingRow](), dict[int, PendingRow]()
        turns = dict[int, range]()
        for segment in written_segments(self.connection):
            for row in segment.rows:
                self._follow(row, last.get(row.id))
                first.setdefault(row.id, row)
                last[row.id] = row
                turns[row.id] = range(segment.first_turn, segment.last_turn + 1)
        turn_of, now = dict(self.connection.execute(_TURNS)), dict[int, PendingRow]()
        for row in prepared_rows(self.connection):
            now[row.id] = row
            if row.id not in last or row[3:] != last[row.id][3:] or turn_of[row.id] not in turns[row.id]:
                self.faults.append(f"no segment has the pending repository {row.id} as it is")
        for row in chain(*unprepared_rows(self.connection)):
            self._follow(row, last.get(row.id))
            first.setdefault(row.id, row)
            now[row.id] = row
        self.faults.extend(f"a segment has {row_id}, which is not pending" for row_id in last.keys() - now)
        return {
            row.id: IndexedText(row.was_text, row.was_collection) if row.was_text else None
            for row in first.values()
        }

    def _follow(self, row: PendingRow, before: PendingRow | None) -> None:
        """Compare what a change says of the row before with what the one before it says."""
        if before is not None and (before.text, before.collection) != (row.was_text, row.was_collection):
            self.faults.append(f"segments disagree about the pending repository {row.id}")

    def _read_nodes(self, pending: set[int]) -> None:
        rows = self.connection.execute("SELECT path, collection, repositories, best FROM search_common")
        for path, collection, count, packed in rows:
            ranked, unranked = unpack_best(packed)
            if len(ranked) + len(unranked) == count:
                ranked, unranked = [], [*ranked, *unranked]
            kept = [row_id for row_id in ranked if row_id not in pending]
            self.nodes.setdefault(path, {})[collection] = _NodeCheck(count, kept, set(unranked) - pending)
        for path in self.nodes:
            if path and path[:-1] not in self.nodes:
                self.faults.append(f"common path {path!r} has no parent")

    def _expected_entries(self, pending: dict[int, IndexedText | None]) -> Iterator[tuple[int, IndexedText]]:
        """Yield what the index should contain: pending rows as they were, then the others by popularity."""
        yield from ((row_id, old) for row_id, old in pending.items() if old is not None)
        for row_id, name, slug, is_private, deleted_at in self.connection.execute(_BY_POPULARITY):
            if row_id not in pending:
                yield row_id, IndexedText(searched_text(name, slug), collection_of(is_private, deleted_at))

    def _count(self, row_id: int, collection: int, paths: TextPaths, *, is_pending: bool) -> None:
        for path in paths.common:
            node = self.nodes.get(path, {}).get(collection)
            if node is None:
                self.faults.append(f"{path!r} does not count collection {collection}, which has {row_id}")
                continue
            node.seen += 1
            if not is_pending and not node.is_confirmed:
                node.confirm(row_id)

    def _check_nodes(self) -> None:
        for path, by_collection in self.nodes.items():
            for collection, node in by_collection.items():
                where = f"{path!r} in collection {collection}"
                if node.count != node.seen:
                    self.faults.append(f"{where} counts {node.count} repositories, there are {node.seen}")
                if node.is_wrong or node.unranked or node.confirmed != len(node.ranked):
                    self.faults.append(f"{where} does not list the best repositories")

    def _check_lists(self, hashes: "array[int]", pending: dict[int, IndexedText | None]) -> None:
        """Report the lists that an id is missing from. An id in too many lists does no harm."""
        for key, row_id in self._listed():
            if row_id < len(hashes):  # readers ignore the ids of deleted rows
                hashes[row_id] = hashes[row_id] - hash(key) & _HASH_BITS
        suspects = {row_id for row_id, rest in enumerate(hashes) if rest}
        held = defaultdict[int, set[bytes]](set)
        for key, row_id in self._listed() if suspects else ():
            if row_id in suspects:
                held[row_id].add(key)
        for row_id, entry in self._expected_entries(pending) if suspects else ():
            if row_id in suspects:
                missing = set(_list_keys(entry.text, paths_of(entry.text, self.nodes))) - held[row_id]
                self.faults.extend(f"{key!r} does not list {row_id}" for key in sorted(missing))

    def _listed(self) -> Iterator[tuple[bytes, int]]:
        """Yield every (list key, id) of leaves and crowds, once each; chunks count as one list."""
        for path, packed in self.connection.execute("SELECT path, ids FROM search_rare"):
            before, end, _ = path.partition(END)
            yield from ((before + end, row_id) for row_id in set(unpack_list(packed)))
        for text, packed in self.connection.execute("SELECT text, ids FROM search_crowds"):
            yield from ((END + text, row_id) for row_id in set(unpack_list(packed)))


def _list_keys(text: bytes, paths: TextPaths) -> set[bytes]:
    """Return the keys of the lists that a text belongs to; that of a crowd begins with END."""
    return paths.rare | {END + text} if paths.in_crowd else paths.rare
