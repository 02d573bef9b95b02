"""Growing the index by some changes: what small syncs do, in the transaction of the rows themselves.

All suffixes of all texts that leave or join are followed side by side, byte by byte, for as long as their
path is common. So changes that are absorbed together read and write each node once, and count with numpy.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mirror.names import Popularity, popularity, searched_text
from mirror.store.index.batch import Batch, batch_of
from mirror.store.index.lists import Lists
from mirror.store.index.moves import Move, Place
from mirror.store.index.nodes import Nodes
from mirror.store.index.suffixes import Numbers, cut_out, divided, first_of_equals, kept_groups
from mirror.trie import END, LEAF_SIZE, SHORTEST_LISTED, collection_of

_ROWS = """SELECT id, name, slug, is_private, deleted_at, followers_count, forks_count, created_at
    FROM repositories WHERE id IN (SELECT value FROM json_each(?))"""


def grow(connection: sqlite3.Connection, moves: Sequence[Move], leaf_size: int = LEAF_SIZE) -> None:
    """Take `moves` in; none of them may be known to the index already as it is now.

    `leaf_size` is smaller in tests alone.
    """
    if moves:
        _Growth(connection, batch_of(moves), leaf_size).run()


class _Growth:
    def __init__(self, connection: sqlite3.Connection, batch: Batch, leaf_size: int) -> None:
        self._connection = connection
        self._batch = batch
        self._longest = 2 * leaf_size
        self._leaf_size = leaf_size
        self._nodes = Nodes(connection, batch)
        self._lists = Lists(connection)

    def run(self) -> None:
        """Follow all suffixes, then divide the lists that have grown too long, and theirs."""
        if not self._nodes.read([b""]):
            self._nodes.create(b"", {})
        everyone = np.arange(self._batch.ids.size, dtype=np.uint32)
        together = np.zeros(everyone.size, dtype=np.uint64)
        self._nodes.change(self._nodes.read([b""]), [b""], together, everyone)
        self._follow()
        self._nodes.settle()
        while full := self._lists.settle(self._longest):
            for path in full:
                self._promote(path)

    def _follow(self) -> None:
        """Change the nodes that the suffixes pass, and the lists below."""
        at, of = self._batch.suffixes()
        group = np.zeros(at.size, dtype=np.uint64)
        ended = list[tuple[bytes, Numbers, Numbers]]()
        depth = 0
        while at.size:
            at, of, starts = divided(self._batch.text, at, of, group, depth)
            depth += 1
            paths = cut_out(self._batch.text, at[starts], depth)
            tallies = self._nodes.read([path for path in paths if not path.endswith(END)])
            common = np.array([path in tallies for path in paths])
            for path, begun, whose in self._new_below(at, of, starts, paths, common):
                if path.endswith(END):
                    ended.append((path, begun, whose))
                else:
                    self._lists.add(path, self._batch.ids[whose].tolist())
            at, of, group = kept_groups(at, of, starts, common)
            once = first_of_equals(group) | first_of_equals(of)
            self._nodes.change(tallies, list(compress(paths, common.tolist())), group[once], of[once])
        self._list_ended(ended)

    def _new_below(
        self,
        at: Numbers,
        of: Numbers,
        starts: NDArray[np.int64],
        paths: list[bytes],
        common: NDArray[np.bool_],
    ) -> Iterator[tuple[bytes, Numbers, Numbers]]:
        """Yield the paths that are not common, with the suffixes of the texts that are new there."""
        at, of, group = kept_groups(at, of, starts, ~common)
        new = self._batch.is_new[of] & (first_of_equals(group) | first_of_equals(of))
        at, of, group = at[new], of[new], group[new]
        names = list(compress(paths, (~common).tolist()))
        firsts = np.flatnonzero(first_of_equals(group))
        cuts = [*firsts.tolist(), at.size]
        for place, begin, end in zip(group[firsts].tolist(), cuts[:-1], cuts[1:], strict=True):
            yield names[place], at[begin:end], of[begin:end]

    def _list_ended(self, ended: Iterable[tuple[bytes, Numbers, Numbers]]) -> None:
        """List the suffixes that are common to their end; of texts that are so as a whole, these alone."""
        crowded = np.zeros(self._batch.ids.size, dtype=bool)
        for _, at, of in ended:
            crowded[of[at == self._batch.starts[of]]] = True
        for path, at, of in ended:
            whole = at == self._batch.starts[of]
            for row_id in self._batch.ids[of[whole]].tolist():
                self._lists.add_to_crowd(path[:-1], row_id)
            if len(path) > SHORTEST_LISTED:
                for row_id in self._batch.ids[of[~crowded[of]]].tolist():
                    self._lists.add_ended(path, row_id)

    def _promote(self, path: bytes) -> None:
        """Make a rare path common, and divide its list by the byte that follows."""
        listed = [found for found in self._rows(self._lists.read(path)) if path in found[1].text]
        if len(listed) <= self._leaf_size:
            self._lists.replace(path, {popular[-1] for popular, _ in listed})
            return
        self._lists.replace(path, set())
        ranked = defaultdict[int, list[Popularity]](list)
        for popular, place in sorted(listed):
            ranked[place.collection].append(popular)
        self._nodes.create(path, ranked)
        crowds = self._nodes.read(sorted({place.text for _, place in listed}))
        for popular, (text, _) in listed:
            if text == path:
                self._lists.add_to_crowd(text, popular[-1])
            for child in _children(path, text, crowded=text in crowds):
                if child.endswith(END):
                    self._lists.add_ended(child, popular[-1])
                else:
                    self._lists.add(child, [popular[-1]])

    def _rows(self, ids: Iterable[int]) -> Iterator[tuple[Popularity, Place]]:
        """Read what some repositories are now; the batch has been taken in, so the index agrees."""
        found = self._connection.execute(_ROWS, (json.dumps(list(ids)),))
        for row_id, name, slug, is_private, deleted_at, followers, forks, created_at in found:
            place = Place(searched_text(name, slug), collection_of(is_private, deleted_at))
            yield popularity(followers, forks, created_at, row_id), place


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
