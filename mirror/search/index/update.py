"""The common paths while they change: read level by level, changed in memory, written back together."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.search.index.backlog import Move, Place
from mirror.search.index.build import Numbers, cut_out, divided, first_of_equals, kept_groups
from mirror.search.index.format import (
    COLLECTIONS,
    DEEPEST,
    END,
    JOINED,
    LEAF_SIZE,
    PUBLIC,
    SHORTEST_LISTED,
    appended,
    at_most,
    chunk_of,
    collection_of,
    listed,
    pack_best,
    pack_joined,
    pack_list,
    unpack_best,
    unpack_list,
)
from mirror.search.names import Popularity, popularity, searched_text


@dataclass(slots=True)
class Batch:
    """Entries: a repository that moves leaves as it was and joins as it is.

    `text` holds each entry's text with END behind it, beginning at `starts`, and room behind the last.
    `is_new` says of who joins that the text is another than it was, so that its lists have to learn of it.
    """

    text: NDArray[np.uint8]
    starts: Numbers
    ids: Numbers
    joins: NDArray[np.bool_]
    is_new: NDArray[np.bool_]
    collection: NDArray[np.uint8]
    followers: NDArray[np.int64]

    def suffixes(self) -> tuple[Numbers, Numbers]:
        """Return where every suffix begins, END alone left out, and whose it is."""
        text = self.text[:-DEEPEST]
        at = np.flatnonzero(text != END[0]).astype(np.uint32)
        return at, np.searchsorted(self.starts, at, side="right").astype(np.uint32) - np.uint32(1)


def batch_of(moves: Sequence[Move]) -> Batch:
    """Shape some moves."""
    leaving = [(move, move.was) for move in moves if move.was is not None]
    joining = [(move, move.now) for move in moves if move.now is not None]
    entries = [*leaving, *joining]
    text = b"".join([place.text + END for _, place in entries])
    lengths = np.array([len(place.text) + 1 for _, place in entries], dtype=np.int64)
    joins = np.arange(len(entries)) >= len(leaving)
    changed = [move.was is None or move.was.text != place.text for move, place in entries]
    return Batch(
        text=np.frombuffer(text + bytes(DEEPEST), dtype=np.uint8),
        starts=(np.cumsum(lengths) - lengths).astype(np.uint32),
        ids=np.array([move.id for move, _ in entries], dtype=np.uint32),
        joins=joins,
        is_new=joins & np.array(changed, dtype=bool),
        collection=np.array([place.collection for _, place in entries], dtype=np.uint8),
        followers=np.array([-move.popularity[0] for move, _ in entries], dtype=np.int64),
    )


_APPEND_RARE = """INSERT INTO search_rare VALUES (?, ?)
    ON CONFLICT DO UPDATE SET ids = CAST(ids || excluded.ids AS BLOB)"""
_LONGER = "SELECT path, ids FROM search_rare WHERE length(ids) > ? AND path IN"
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


_READ = """SELECT path, collection, repositories, best, bar FROM search_common
    WHERE collection = ? AND path IN"""
_WRITE = """INSERT INTO search_common VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
    SET repositories = excluded.repositories, best = excluded.best, bar = excluded.bar"""
_AT_ONCE = 200
_NOBODY = (1 << 63) - 1  # so many followers has nobody
_POPULARITIES = """SELECT followers_count, forks_count, created_at, id FROM repositories
    WHERE id IN (SELECT value FROM json_each(?))"""


class Tally(msgspec.Struct, gc=False):  # a hundred thousand of them are made, and none is in a cycle
    """One collection's share of a node: how many repositories, and all of them or the best, packed.

    A list of all is in any order. Any other is ranked as far as it goes, and whoever might be above its last
    has joined it since: all who have at least `bar` followers, which its last had when it was ranked.
    """

    path: bytes
    collection: int
    count: int = 0
    best: bytes = b""
    bar: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all are listed."""
        return len(self.best) == 4 * self.count

    @property
    def is_long(self) -> bool:
        """Whether so many have joined that those at the end may go."""
        return len(self.best) > 6 * listed(self.count)


class Nodes:
    """The common paths of a file, and what they know, while one batch changes it."""

    def __init__(self, connection: sqlite3.Connection, batch: Batch) -> None:
        self._connection = connection
        self._batch = batch
        self._changed = list[Tally]()
        self._leaving = {
            collection: np.sort(batch.ids[~batch.joins & (batch.collection == collection)])
            for collection in COLLECTIONS
        }

    def read(self, paths: Sequence[bytes], collection: int = PUBLIC) -> dict[bytes, Tally]:
        """Read what some paths know of a collection; each common path knows the public one, be it empty."""
        tallies = dict[bytes, Tally]()
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            for row in self._connection.execute(f"{_READ} ({marks})", (collection, *some)):
                tallies[row[0]] = Tally(*row)
        return tallies

    def create(self, path: bytes, ranked: dict[int, list[Popularity]]) -> None:
        """Make a path common; those whom each collection has in it are ranked."""
        for collection, members in ({PUBLIC: list[Popularity]()} | ranked).items():
            best = members[: listed(len(members))]
            ids, bar = pack_best([popular[-1] for popular in best]), -best[-1][0] if best else 0
            self._changed.append(Tally(path, collection, len(members), ids, bar))
        self.settle()

    def change(
        self, tallies: dict[bytes, Tally], paths: list[bytes], group: NDArray[np.uint64], of: Numbers
    ) -> None:
        """Let all entries leave or join their groups' nodes, whose public tallies have been read.

        `group` has the place in `paths` for each of the entries `of`, in rising order.
        """
        for collection in COLLECTIONS:
            mine = self._batch.collection[of] == collection
            if mine.any():
                here = group[mine]
                firsts = first_of_equals(here)
                some = [paths[place] for place in here[firsts].tolist()]
                known = tallies if collection == PUBLIC else self.read(some, collection)
                self._change(
                    [known.get(path) or Tally(path, collection) for path in some],
                    np.cumsum(firsts) - 1,
                    of[mine],
                    self._leaving[collection],
                )

    def _change(self, tallies: list[Tally], place: NDArray[np.int64], of: Numbers, leaving: Numbers) -> None:
        """Let entries of one collection leave or join the tallies at some places.

        Who leaves is in a list or not; who joins comes into a list of all, or with enough followers into a
        ranked one. Most nodes list nobody who has so few: there it is counted, and that is all.
        """
        joins = self._batch.joins[of]
        left = np.bincount(place[~joins], minlength=len(tallies))
        joined = np.bincount(place[joins], minlength=len(tallies))
        changed = left != joined
        for tally, number in zip(tallies, left.tolist(), strict=True):
            tally.count -= number
        for index, best in _without(leaving, tallies):
            tallies[index].best = best
            changed[index] = True
        complete = np.array([tally.is_complete for tally in tallies])
        lowest = np.array([tally.bar if tally.best else _NOBODY for tally in tallies])
        comes = joins & (complete[place] | (self._batch.followers[of] >= lowest[place]))
        for index, row_id in zip(place[comes].tolist(), self._batch.ids[of[comes]].tolist(), strict=True):
            tallies[index].best += pack_best([row_id]) if complete[index] else pack_joined([row_id])
            changed[index] = True
        for tally, number in zip(tallies, joined.tolist(), strict=True):
            tally.count += number
        self._changed += [tally for tally, yes in zip(tallies, changed.tolist(), strict=True) if yes]

    def settle(self) -> None:
        """Rank the lists that have become long, and write what changed."""
        long = [tally for tally in self._changed if tally.is_long]
        known = self._popularities(
            {row_id for tally in long for ids in unpack_best(tally.best) for row_id in ids}
        )
        for tally in long:
            _rank(tally, known)
        rows = [(tally.path, tally.collection, tally.count, tally.best, tally.bar) for tally in self._changed]
        self._connection.executemany(_WRITE, sorted(rows))
        self._changed.clear()

    def _popularities(self, ids: set[int]) -> dict[int, Popularity]:
        """Read how popular some rows are; those that are gone are as unpopular as can be."""
        known = {row_id: popularity(None, None, None, row_id) for row_id in ids}
        rows = self._connection.execute(_POPULARITIES, (json.dumps(list(ids)),))
        return known | {row[-1]: popularity(*row) for row in rows}


def _without(leaving: Numbers, tallies: Sequence[Tally]) -> Iterator[tuple[int, bytes]]:
    """Yield what is left of the lists that any of some ids are in, with the places of their tallies.

    Nothing is known any more of one that has lost all that were ranked.
    """
    ids = np.frombuffer(b"".join([tally.best for tally in tallies]), dtype="<u4")
    stays = ~_among(ids & np.uint32(JOINED - 1), leaving)
    ends = np.cumsum([len(tally.best) // 4 for tally in tallies])
    for index in np.unique(np.searchsorted(ends, np.flatnonzero(~stays), side="right")).tolist():
        tally, end = tallies[index], ends[index]
        here = slice(end - len(tally.best) // 4, end)
        kept = ids[here][stays[here]]
        is_known = kept.size == tally.count or (kept < JOINED).any()
        yield index, kept.tobytes() if is_known else b""


def _among(ids: Numbers, few: Numbers) -> NDArray[np.bool_]:
    """Say which ids are among a few; their lowest bits sort out most of the others at no cost."""
    sieve = np.zeros(1 << 20, dtype=bool)
    lowest = np.uint32(sieve.size - 1)
    sieve[few & lowest] = True
    found: NDArray[np.bool_] = sieve[ids & lowest]
    found[found] = np.isin(ids[found], few)
    return found


def _rank(tally: Tally, known: dict[int, Popularity]) -> None:
    """List the best in order; those below the last of a list that is not of all are not the next best."""
    ranked, joined = unpack_best(tally.best)
    ids = sorted([*ranked, *joined], key=known.__getitem__)
    if not tally.is_complete:
        ids = ids[: ids.index(ranked[-1]) + 1]
    ids = ids[: listed(tally.count)]
    tally.best, tally.bar = pack_best(ids), -known[ids[-1]][0]


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
