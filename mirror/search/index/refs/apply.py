"""Apply changed refs to the index, a batch at a time: lists and hashes, then nodes, leaves and spans.

Array shapes: D changed names, E entries (refs that leave or join lists), P pairs of an entry and a node.
"""

import json
import sqlite3
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from mirror.search.index.format import END
from mirror.search.index.refs.changes import RefChange
from mirror.search.index.refs.layout import (
    CHUNK,
    KINDS,
    SIZES,
    TABLES,
    Sizes,
    age_of,
    has_hashes,
    hash_number,
    order_of,
    paths_of,
    repository_of,
    text_of,
)
from mirror.search.index.refs.nodes import Entries, RefLeaves, RefNodes
from mirror.search.index.refs.spans import Spans


def apply_ref_changes(
    connection: sqlite3.Connection, changes: Sequence[RefChange], sizes: Sizes = SIZES
) -> None:
    """Apply changes to the index; call it in a transaction."""
    changed = [change for change in changes if change.was != change.now]
    if changed or not connection.execute("SELECT 1 FROM search_ref_paths").fetchone():
        _RefsUpdate(connection, changed, sizes).run()


_NAME_ID = "SELECT id FROM search_ref_names WHERE name = ?"
_INSERT_NAME = "INSERT INTO search_ref_names (name, text) VALUES (?, ?)"
_HELD = "SELECT repository_id, name FROM {} WHERE repository_id IN (SELECT value FROM json_each(?))"


@dataclass(slots=True)
class _ChangedName:
    """A name that changes: its number in the batch, its id, paths and nodes, and how many refs it gains."""

    number: int
    id: int
    is_new: bool
    common: set[bytes]
    rare: set[bytes]
    nodes: set[int] = field(default_factory=set)
    grows: int = 0


class _RefsUpdate:
    def __init__(self, connection: sqlite3.Connection, changes: Sequence[RefChange], sizes: Sizes) -> None:
        self._connection = connection
        self._changes = changes
        self._nodes = RefNodes(connection)
        self._leaves = RefLeaves(connection, self._nodes, sizes.common_cost)
        self._spans = Spans(connection, sizes)
        self._names = dict[str, _ChangedName]()

    def run(self) -> None:
        self._find_names()
        left, joined = self._entries()
        write_lists(self._connection, left, joined)
        if has_hashes(self._connection):
            write_hashes(self._connection, self._changes)
        self._nodes.apply(left, joined, self._repositories())
        for name in self._names.values():
            for path in name.rare:
                self._leaves.change(path, name.grows, name.id if name.is_new else None)
        self._drop_names()
        self._leaves.flush()
        self._spans.apply(left, joined, self._nodes)

    def _find_names(self) -> None:
        """Look up the ids and paths of the names that change; new ones are inserted."""
        for number, name in enumerate(sorted({change.name for change in self._changes})):
            text = text_of(name)
            row = self._connection.execute(_NAME_ID, (name,)).fetchone()
            row_id = int(
                row[0] if row else self._connection.execute(_INSERT_NAME, (name, text)).lastrowid or 0
            )
            paths = paths_of(text, self._nodes.numbers, self._spans.counted)
            self._names[name] = its = _ChangedName(number, row_id, row is None, *paths)
            if its.is_new:
                self._nodes.split(its.common)
        for its in self._names.values():
            its.nodes = {self._nodes.numbers[path] for path in its.common}

    def _entries(self) -> tuple[Entries, Entries]:
        """Return the refs that leave lists and those that join; refs that keep their place are in neither."""
        left, joined = list[tuple[int, int, int]](), list[tuple[int, int, int]]()
        for _, _, name, was, now in self._changes:
            its = self._names[name]
            its.grows += (now is not None) - (was is not None)
            if was is not None and now is not None and was[:2] == now[:2]:
                continue
            if was is not None:
                left.append((its.number, was.list, was.order))
            if now is not None:
                joined.append((its.number, now.list, now.order))
        nodes = [list(its.nodes) for its in self._names.values()]
        ids = [its.id for its in self._names.values()]
        return Entries.of(left, ids, nodes), Entries.of(joined, ids, nodes)

    def _repositories(self) -> Mapping[tuple[int, int], Sequence[int]]:
        """Return how many more repositories have a ref of a node, by number of the node and collection.

        The numbers are of repositories with branches, with tags, and with either.
        """
        # The nodes to count, by repository. A ref that only moves within its list changes no number.
        counted = defaultdict[int, set[int]](set)
        for change in self._changes:
            if change.was is None or change.now is None or change.was.list != change.now.list:
                counted[change.repository] |= self._names[change.name].nodes
        by_repository = defaultdict[int, list[RefChange]](list)
        for change in self._changes:
            if change.repository in counted:
                by_repository[change.repository].append(change)
        growth = defaultdict[tuple[int, int], list[int]](lambda: [0, 0, 0])
        held = self._held(by_repository)
        for repository, changes in by_repository.items():
            unchanged = held[repository].difference((change.kind, change.name) for change in changes)
            was = [(change, change.was.list) for change in changes if change.was is not None]
            now = [(change, change.now.list) for change in changes if change.now is not None]
            paths = {node: self._nodes.paths[node][0] for node in counted[repository]}
            sides = list[set[tuple[int, int, int]]]()
            for side, other in ((was, now), (now, was)):
                names = [*unchanged, *((change.kind, change.name) for change, _ in side)]
                collection = (side or other)[0][1] // len(KINDS)
                sides.append(_counted(paths, collection, names) if names else set())
            for sign, only in ((-1, sides[0] - sides[1]), (1, sides[1] - sides[0])):
                for node, collection, column in only:
                    growth[node, collection][column] += sign
        return growth

    def _held(self, repositories: Iterable[int]) -> Mapping[int, set[tuple[int, str]]]:
        """Return the kinds and names of all refs that some repositories have now."""
        held = defaultdict[int, set[tuple[int, str]]](set)
        ids = json.dumps(list(repositories))
        for kind, table in enumerate(TABLES):
            for repository, name in self._connection.execute(_HELD.format(table), (ids,)):
                held[repository].add((kind, name))
        return held

    def _drop_names(self) -> None:
        """Delete the names that no ref has any more. Leaves may list them still: readers expect that."""
        self._connection.executemany(
            """DELETE FROM search_ref_names WHERE id = :id
                AND NOT EXISTS (SELECT 1 FROM search_ref_lists WHERE name_id = :id)""",
            [{"id": name.id} for name in self._names.values()],
        )


def _counted(
    paths: Mapping[int, bytes], collection: int, names: Iterable[tuple[int, str]]
) -> set[tuple[int, int, int]]:
    """Return the numbers that count a repository with these names, as (node, collection, column).

    The column is 0 if a branch has a path of the node, 1 if a tag has it, and 2 if either has.
    """
    texts: tuple[list[bytes], list[bytes]] = ([], [])
    for kind, name in names:
        texts[kind].append(text_of(name))
    found = set[tuple[int, int, int]]()
    for kind in KINDS:
        text = END.join(texts[kind])
        having = [node for node, path in paths.items() if path in text] if text else []
        found.update((node, collection, kind) for node in having)
        found.update((node, collection, len(KINDS)) for node in having)
    return found


_STARTS = "SELECT start FROM search_ref_lists WHERE name_id = ? AND list = ? ORDER BY start"
_CHUNK = "SELECT repositories, ages FROM search_ref_lists WHERE name_id = ? AND list = ? AND start = ?"
_CHANGE_CHUNK = """UPDATE search_ref_lists SET repositories = ?, ages = ?
    WHERE name_id = ? AND list = ? AND start = ?"""
_DROP_CHUNK = "DELETE FROM search_ref_lists WHERE name_id = ? AND list = ? AND start = ?"
_INSERT_CHUNK = "INSERT INTO search_ref_lists VALUES (?, ?, ?, ?, ?)"


@dataclass(slots=True)
class _ListChange:
    """The orders that leave a list or a chunk, and those that join it."""

    left: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)


def write_lists(connection: sqlite3.Connection, left: Entries, joined: Entries) -> None:
    """Remove refs from lists, and add others. Of a long list, only the chunks that change are read."""
    changes = defaultdict[tuple[int, int], _ListChange](_ListChange)
    for name_id, which, order in left.rows:
        changes[name_id, which].left.append(order)
    for name_id, which, order in joined.rows:
        changes[name_id, which].joined.append(order)
    for key, change in sorted(changes.items(), key=itemgetter(0)):
        starts = [row[0] for row in connection.execute(_STARTS, key)]
        parts = defaultdict[int, _ListChange](_ListChange)
        for order in change.left:
            parts[_chunk_at(starts, order)].left.append(order)
        for order in change.joined:
            parts[_chunk_at(starts, order)].joined.append(order)
        for at, part in parts.items():
            _write_chunk(connection, key, starts[at] if starts else None, part)


def _chunk_at(starts: Sequence[int], order: int) -> int:
    return max(bisect_right(starts, order) - 1, 0)


def _write_chunk(
    connection: sqlite3.Connection, key: tuple[int, int], start: int | None, change: _ListChange
) -> None:
    """Change one chunk, and split it if it is too long."""
    row = (b"", b"") if start is None else connection.execute(_CHUNK, (*key, start)).fetchone()
    repositories, ages = map(bytearray, row)
    for order in change.left:
        at = _place(repositories, ages, order)
        if at < len(ages) and _order_at(repositories, ages, at // 4) == order:
            del repositories[at : at + 4], ages[at : at + 4]
    for order in change.joined:
        at = _place(repositories, ages, order)
        repositories[at:at] = repository_of(order).to_bytes(4, "little")
        ages[at:at] = age_of(order).to_bytes(4, "little")
    if ages and len(ages) <= 4 * CHUNK and _order_at(repositories, ages, 0) == start:
        connection.execute(_CHANGE_CHUNK, (repositories, ages, *key, start))
        return
    if start is not None:
        connection.execute(_DROP_CHUNK, (*key, start))
    parts = -(-len(ages) // (4 * CHUNK))
    step = 4 * -(-len(ages) // (4 * max(parts, 1)))
    for first in range(0, len(ages), max(step, 4)):
        some = slice(first, first + step)
        begin = _order_at(repositories, ages, first // 4)
        connection.execute(_INSERT_CHUNK, (*key, begin, repositories[some], ages[some]))


def _place(repositories: bytearray, ages: bytearray, order: int) -> int:
    """Return the offset in a chunk where an order is, or belongs: a multiple of four."""
    return 4 * bisect_left(range(len(ages) // 4), order, key=lambda at: _order_at(repositories, ages, at))


def _order_at(repositories: bytearray, ages: bytearray, at: int) -> int:
    part = slice(4 * at, 4 * at + 4)
    return order_of(int.from_bytes(ages[part], "little"), int.from_bytes(repositories[part], "little"))


_BUCKET = "SELECT digits, repositories FROM search_ref_hashes WHERE bucket = ?"
_WRITE_BUCKET = "INSERT OR REPLACE INTO search_ref_hashes VALUES (?, ?, ?)"
_DROP_BUCKET = "DELETE FROM search_ref_hashes WHERE bucket = ?"


def write_hashes(connection: sqlite3.Connection, changes: Iterable[RefChange]) -> None:
    """Change the buckets of hashes."""
    times = Counter[tuple[int, int]]()
    for change in changes:
        for entry, sign in ((change.was, -1), (change.now, 1)):
            number = None if entry is None else hash_number(entry.hash)
            if number is not None:
                times[number, change.repository] += sign
    by_bucket = defaultdict[int, list[tuple[int, int, int]]](list)
    for (number, repository), more in times.items():
        if more:
            by_bucket[number >> 16].append((number & 0xFFFF, repository, more))
    for bucket, refs in sorted(by_bucket.items()):
        _write_bucket(connection, bucket, refs)


def _write_bucket(connection: sqlite3.Connection, bucket: int, refs: Iterable[tuple[int, int, int]]) -> None:
    """Change a bucket. `refs` has the rest of a hash, a repository, and how many more refs have both."""
    row = connection.execute(_BUCKET, (bucket,)).fetchone() or (b"", b"")
    digits, repositories = map(bytearray, row)
    for number, repository, more in refs:
        packed = number.to_bytes(2, "little"), repository.to_bytes(4, "little")
        digits += packed[0] * more  # nothing, if fewer have them
        repositories += packed[1] * more
        for _ in range(-more):
            at = _ref_at(digits, repositories, *packed)
            del digits[2 * at : 2 * at + 2], repositories[4 * at : 4 * at + 4]
    if digits:
        connection.execute(_WRITE_BUCKET, (bucket, digits, repositories))
    else:
        connection.execute(_DROP_BUCKET, (bucket,))


def _ref_at(digits: bytearray, repositories: bytearray, its_digits: bytes, repository: bytes) -> int:
    """Return the place of a ref in a bucket; its end if the bucket lacks it."""
    at = digits.find(its_digits)
    while at >= 0:
        if not at % 2 and repositories[2 * at : 2 * at + 4] == repository:
            return at // 2
        at = digits.find(its_digits, at + 1)
    return len(digits) // 2
