"""Is the index true? Everything it holds is worked out again from the rows, and compared."""

import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mirror.search.index.backlog import Move, Place, noted, pending
from mirror.search.index.format import END, SHORTEST_LISTED, collection_of, unpack_best, unpack_list
from mirror.search.names import searched_text


class Places(NamedTuple):
    """The common paths that a text has, the rare ones below them, and whether it is in a crowd.

    A text is in a crowd when it is common as a whole: then one list holds all who share it, and the ends
    of its suffixes are not listed once more.
    """

    common: set[bytes]
    rare: set[bytes]
    crowded: bool


def walk(text: bytes, common: Container[bytes]) -> Places:
    """Follow every suffix of a text from the root down to the first path that is not common.

    Rare paths that end with END are yet without their chunk.
    """
    passed, reached = {b""}, set[bytes]()
    crowded = False
    length = len(text)
    for start in range(length):
        end = start + 1
        while end <= length and (path := text[start:end]) in common:
            passed.add(path)
            end += 1
        if end <= length:
            reached.add(path)
        elif start == 0:
            crowded = True
        elif not crowded and length - start >= SHORTEST_LISTED:
            reached.add(text[start:] + END)
    return Places(passed, reached, crowded)


MOST = 100
"""So many discrepancies are told at most; one is enough to build the index anew."""

_BY_POPULARITY = """SELECT id, name, slug, is_private, deleted_at FROM repositories
    WHERE id <= (SELECT up_to FROM search_state)
    ORDER BY coalesce(followers_count, 0) DESC, coalesce(forks_count, 0) DESC,
        coalesce(created_at, '') DESC, id"""

_NOTES = """SELECT id, was_text, text, collection, by_followers, by_forks, by_creation
    FROM search_pending WHERE text IS NOT NULL"""


def check(connection: sqlite3.Connection) -> list[str]:
    """Compare the whole index with the rows, and say in words where it is wrong; empty when it is right.

    It takes about a tenth of a millisecond a repository, and memory for the common paths, some 500 bytes
    each. Raises sqlite3.Error.
    """
    if connection.in_transaction:
        return _Check(connection).run()
    connection.execute("BEGIN")
    try:
        return _Check(connection).run()
    finally:
        connection.execute("ROLLBACK")


@dataclass(slots=True)
class _Expected:
    """What a node says, and how far the rows have borne it out; both lists are without what is pending.

    `ranked` is in order, `others` are in none: those that joined since, or all of a list of all.
    """

    count: int
    ranked: list[int]
    others: set[int]
    seen: int = 0
    found: int = 0
    wrong: bool = False

    def meet(self, row_id: int) -> None:
        """Compare the next best with what is listed."""
        if row_id in self.others:
            self.others.remove(row_id)
        elif self.found < len(self.ranked):
            self.wrong |= self.ranked[self.found] != row_id
            self.found += 1


@dataclass(slots=True)
class _Check:
    connection: sqlite3.Connection
    nodes: dict[bytes, dict[int, _Expected]] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        changed = pending(self.connection)
        self._judge_notes(changed)
        moves = {move.id: move.was for move in changed}
        self._read_nodes(set(moves))
        up_to = self.connection.execute("SELECT up_to FROM search_state").fetchone()[0]
        lists = array("Q", bytes(8 * (up_to + 1)))  # of each id, the sum of the hashes of its paths
        for row_id, place in self._settled(moves):
            places = walk(place.text, self.nodes)
            self._count(row_id, place.collection, places, is_pending=row_id in moves)
            for path in _list_keys(place.text, places):
                lists[row_id] = lists[row_id] + hash(path) & 0xFFFFFFFFFFFFFFFF
        self._judge_nodes()
        self._judge_lists(lists, moves)
        return self.found[:MOST]

    def _judge_notes(self, changed: list[Move]) -> None:
        """Compare what a page's transaction noted of pending rows with what they are."""
        notes = {row[0]: row[1:] for row in self.connection.execute(_NOTES)}
        for move in changed:
            if move.id in notes and notes[move.id] != noted(move):
                self.found.append(f"pending repository {move.id} is noted as it is not")

    def _read_nodes(self, moving: set[int]) -> None:
        rows = self.connection.execute("SELECT path, collection, repositories, best FROM search_common")
        for path, collection, count, packed in rows:
            ranked, joined = unpack_best(packed)
            if len(ranked) + len(joined) == count:
                ranked, joined = [], [*ranked, *joined]
            kept = [row_id for row_id in ranked if row_id not in moving]
            self.nodes.setdefault(path, {})[collection] = _Expected(count, kept, set(joined) - moving)
        for path in self.nodes:
            if path and path[:-1] not in self.nodes:
                self.found.append(f"common path {path!r} hangs in the air")

    def _settled(self, moves: dict[int, Place | None]) -> Iterator[tuple[int, Place]]:
        """Yield what the index should hold: first what is pending, as it was; then the most popular first."""
        yield from ((row_id, was) for row_id, was in moves.items() if was is not None)
        for row_id, name, slug, is_private, deleted_at in self.connection.execute(_BY_POPULARITY):
            if row_id not in moves:
                yield row_id, Place(searched_text(name, slug), collection_of(is_private, deleted_at))

    def _count(self, row_id: int, collection: int, places: Places, *, is_pending: bool) -> None:
        for path in places.common:
            node = self.nodes.get(path, {}).get(collection)
            if node is None:
                self.found.append(f"{path!r} knows nothing of collection {collection}, where {row_id} is")
                continue
            node.seen += 1
            if not is_pending:
                node.meet(row_id)

    def _judge_nodes(self) -> None:
        for path, node in self.nodes.items():
            for collection, expected in node.items():
                where = f"{path!r} in collection {collection}"
                if expected.count != expected.seen:
                    self.found.append(f"{where} counts {expected.count}, there are {expected.seen}")
                if expected.wrong or expected.others or expected.found != len(expected.ranked):
                    self.found.append(f"{where} lists others than the best")

    def _judge_lists(self, expected: "array[int]", moves: dict[int, Place | None]) -> None:
        """Find ids whose lists do not add up; those that are in more lists than they should be are right."""
        for path, row_id in self._listed():
            if row_id < len(expected):  # others have been deleted, and whoever reads the list drops them
                expected[row_id] = expected[row_id] - hash(path) & 0xFFFFFFFFFFFFFFFF
        doubtful = {row_id for row_id, rest in enumerate(expected) if rest}
        held = defaultdict[int, set[bytes]](set)
        for path, row_id in self._listed() if doubtful else ():
            if row_id in doubtful:
                held[row_id].add(path)
        for row_id, place in self._settled(moves) if doubtful else ():
            if row_id in doubtful:
                missing = set(_list_keys(place.text, walk(place.text, self.nodes))) - held[row_id]
                self.found.extend(f"{path!r} does not list {row_id}" for path in sorted(missing))

    def _listed(self) -> Iterator[tuple[bytes, int]]:
        """Yield every (path, id) of the lists, once each, with neither chunks nor repetitions."""
        for path, packed in self.connection.execute("SELECT path, ids FROM search_rare"):
            before, end, _ = path.partition(END)
            yield from ((before + end, row_id) for row_id in set(unpack_list(packed)))
        for text, packed in self.connection.execute("SELECT text, ids FROM search_crowds"):
            yield from ((END + text, row_id) for row_id in set(unpack_list(packed)))


def _list_keys(text: bytes, places: Places) -> set[bytes]:
    """Return the lists that a text belongs into; a crowd's is told from others by an END before it."""
    return places.rare | {END + text} if places.crowded else places.rare
