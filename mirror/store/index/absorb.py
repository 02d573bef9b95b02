"""Growing the index by some changes: what small syncs do, in the transaction of the rows themselves.

A change costs a look at each suffix of its text: some fifty counts and some twenty lists. Changes that are
absorbed together share the counts of short paths.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from mirror.names import popularity, searched_text
from mirror.store.index.lists import Lists
from mirror.store.index.moves import Move, Place
from mirror.store.index.nodes import Nodes
from mirror.store.index.walk import Places, walk
from mirror.trie import END, LEAF_SIZE, SHORTEST_LISTED, collection_of

_ROW = """SELECT id, name, slug, is_private, deleted_at, followers_count, forks_count, created_at
    FROM repositories WHERE id = ?"""


class Absorption:
    """One batch of changes on its way into the trie; `leaf_size` is smaller in tests alone."""

    def __init__(self, connection: sqlite3.Connection, leaf_size: int = LEAF_SIZE) -> None:
        self._connection = connection
        self._leaf_size = leaf_size
        self._nodes = Nodes(connection)
        self._lists = Lists(connection)

    def run(self, moves: Sequence[Move]) -> None:
        """Take all of `moves` in; none of them may be known to the index already as it is now."""
        if b"" not in self._nodes:
            self._nodes.create(b"")
        places = [place for move in moves for place in (move.was, move.now) if place is not None]
        self._nodes.read_ahead(place.text for place in places)
        ways = [(move, *self._ways(move)) for move in moves]
        self._read_others(ways)
        for move, old, new in ways:
            self._join(move, new, self._leave(move, old))
        self._nodes.learn(move.popularity for move in moves)
        self._nodes.settle()
        full = self._settle_lists()
        while full:
            for path in full:
                self._promote(path)
            self._nodes.settle()
            full = self._settle_lists()

    def _ways(self, move: Move) -> tuple[Places | None, Places | None]:
        """Walk the text that was and the one that is, once where they are the same."""
        old = None if move.was is None else walk(move.was.text, self._nodes.common)
        if move.was is not None and move.now is not None and move.was.text == move.now.text:
            return old, old
        return old, None if move.now is None else walk(move.now.text, self._nodes.common)

    def _read_others(self, ways: Iterable[tuple[Move, Places | None, Places | None]]) -> None:
        """Read the tallies of collections that few repositories are in, where one of them changes."""
        wanted = defaultdict[int, set[bytes]](set)
        for move, old, new in ways:
            for place, places in ((move.was, old), (move.now, new)):
                if place is not None and places is not None:
                    wanted[place.collection] |= places.common
        for collection, paths in wanted.items():
            self._nodes.read_others(paths, collection)

    def _leave(self, move: Move, places: Places | None) -> Collection[bytes]:
        """Take a repository out of the nodes that change, and return them."""
        if move.was is None or places is None:
            return ()
        paths: Collection[bytes] = places.common
        if move.was == move.now:
            paths = self._nodes.concerned(paths, move.was.collection, move.popularity)
        self._nodes.leave(paths, move.was.collection, move.id)
        return paths

    def _join(self, move: Move, places: Places | None, left: Collection[bytes]) -> None:
        """Put a repository into the nodes and, where its text is new, into the lists."""
        if move.now is None or places is None:
            return
        paths = left if move.was == move.now else places.common
        self._nodes.join(paths, move.now.collection, move.popularity)
        if move.was is not None and move.was.text == move.now.text:
            return  # it is in these lists already
        for path in places.rare:
            self._lists.add(path, move.id)
        if places.crowded:
            self._lists.add_to_crowd(move.now.text, move.id)

    def _settle_lists(self) -> list[bytes]:
        return self._lists.settle(2 * self._leaf_size)

    def _promote(self, path: bytes) -> None:
        """Make a rare path common, and divide its list by the byte that follows."""
        listed = {row_id: place for row_id, place in self._places(self._lists.read(path)) if path in place[0]}
        if len(listed) <= self._leaf_size:
            self._lists.replace(path, set(listed))
            return
        self._lists.replace(path, set())
        self._nodes.create(path)
        for row_id, (text, collection) in listed.items():
            self._nodes.join([path], collection, self._nodes.popularity_of(row_id))
            if text == path:
                self._lists.add_to_crowd(text, row_id)
            for child in _children(path, text, crowded=text in self._nodes):
                self._lists.add(child, row_id)

    def _places(self, ids: Iterable[int]) -> Iterable[tuple[int, Place]]:
        """Read what some repositories are called now; the batch has been taken in, so the index agrees."""
        for row_id in ids:
            row = self._connection.execute(_ROW, (row_id,)).fetchone()
            if row is not None:
                self._nodes.learn([popularity(row[5], row[6], row[7], row_id)])
                yield row_id, Place(searched_text(row[1], row[2]), collection_of(row[3], row[4]))


def _children(path: bytes, text: bytes, *, crowded: bool) -> set[bytes]:
    """Return the paths one byte below `path` that a text has, as `walk` would list them."""
    children = set[bytes]()
    ended = text + END
    at = text.find(path)
    while at >= 0:
        child = ended[at : at + len(path) + 1]
        if not child.endswith(END) or (not crowded and len(child) > SHORTEST_LISTED):
            children.add(child)
        at = text.find(path, at + 1)
    return children
