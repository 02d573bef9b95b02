"""Update the index of refs: lists and hashes of what changed, then nodes and leaves on the paths of names."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mirror.search.index.check import paths_of
from mirror.search.index.format import END
from mirror.search.index.refs.backlog import RefEntry, RefKey, RepositoryChange
from mirror.search.index.refs.format import COMMON_COST, KINDS, text_of
from mirror.search.index.refs.leaves import RefLeaves
from mirror.search.index.refs.lists import ListChange, write_hashes, write_lists
from mirror.search.index.refs.nodes import RefNodeChange, RefNodes, name_change


def apply_ref_changes(
    connection: sqlite3.Connection, changes: Sequence[RepositoryChange], common_cost: int = COMMON_COST
) -> None:
    """Apply changes to the index; call it in a transaction. `common_cost` is for tests."""
    changed = [change for change in changes if change.was != change.now]
    if changed or not connection.execute("SELECT 1 FROM search_ref_common WHERE path = x''").fetchone():
        _RefsUpdate(connection, changed, common_cost).run()


_ID = "SELECT id FROM search_ref_names WHERE name = ?"
_INSERT = "INSERT INTO search_ref_names (name, text) VALUES (?, ?)"


@dataclass(slots=True)
class _ChangedName:
    """A name that changes: its id, its paths, and by how many refs it grows."""

    id: int
    is_new: bool
    common: set[bytes]
    rare: set[bytes]
    grows: int = 0


class _RefsUpdate:
    def __init__(
        self, connection: sqlite3.Connection, changes: Sequence[RepositoryChange], common_cost: int
    ) -> None:
        self._connection = connection
        self._changes = changes
        self._nodes = RefNodes(connection)
        self._leaves = RefLeaves(connection, self._nodes, common_cost)
        self._names = dict[str, _ChangedName]()
        self._lists = defaultdict[tuple[int, int], ListChange](ListChange)
        self._of_nodes = defaultdict[tuple[bytes, int], RefNodeChange](RefNodeChange)

    def run(self) -> None:
        self._find_names({key.name for change in self._changes for key in _differing(change)})
        removed, added = list[tuple[int, int]](), list[tuple[int, int]]()
        for change in self._changes:
            for key in _differing(change):
                self._move(key, change.was.get(key), change.now.get(key))
                removed += _hash_of(change.id, change.was.get(key))
                added += _hash_of(change.id, change.now.get(key))
            self._count_repository(change)
        write_lists(self._connection, self._lists)
        write_hashes(self._connection, removed, added)
        self._change_nodes()
        self._nodes.apply(self._of_nodes)
        for name in self._names.values():
            for path in name.rare:
                self._leaves.change(path, name.grows, name.id if name.is_new else None)
        self._drop_names()
        self._leaves.flush()

    def _find_names(self, names: set[str]) -> None:
        """Look up the ids and paths of names; new ones are inserted."""
        for name in sorted(names):
            text = text_of(name)
            row = self._connection.execute(_ID, (name,)).fetchone()
            row_id = int(row[0] if row else self._connection.execute(_INSERT, (name, text)).lastrowid or 0)
            paths = paths_of(text, self._nodes.paths)
            rare = {path for path in paths.rare if not path.endswith(END)}
            self._names[name] = _ChangedName(row_id, row is None, paths.common, rare)

    def _move(self, key: RefKey, was: RefEntry | None, now: RefEntry | None) -> None:
        """Take a ref out of a list, or put it into another or another place."""
        name = self._names[key.name]
        if was is not None:
            self._lists[name.id, was.list].removed.add(was.order)
        if now is not None:
            self._lists[name.id, now.list].added.add(now.order)
        name.grows += (now is not None) - (was is not None)

    def _change_nodes(self) -> None:
        """Pass the changes of each list on to the nodes on the paths of its name."""
        names = {name.id: name for name in self._names.values()}
        for (name_id, which), change in self._lists.items():
            collection, kind = divmod(which, len(KINDS))
            told = name_change(name_id, change)
            if told.grows or told.gone or told.fresh:
                for path in names[name_id].common:
                    self._of_nodes[path, collection].lists[kind].append(told)

    def _count_repository(self, change: RepositoryChange) -> None:
        """Count a repository in the nodes of which it has a ref now, and no longer where it had one."""
        if change.was_collection == change.collection:
            names = {key.name for key in change.was.keys() ^ change.now.keys()}
        else:
            names = {key.name for key in (*change.was, *change.now)}
        if not names:
            return
        was, now = _texts(change.was), _texts(change.now)
        for path in set[bytes]().union(*(self._names[name].common for name in names)):
            if change.was_collection is not None:
                self._of_nodes[path, change.was_collection].count(path, was, -1)
            if change.collection is not None:
                self._of_nodes[path, change.collection].count(path, now, 1)

    def _drop_names(self) -> None:
        """Forget the names that no ref has any more. RefLeaves go on listing them, and readers look."""
        self._connection.executemany(
            """DELETE FROM search_ref_names WHERE id = :id
                AND NOT EXISTS (SELECT 1 FROM search_ref_lists WHERE name_id = :id)""",
            [{"id": name.id} for name in self._names.values()],
        )


def _differing(change: RepositoryChange) -> Iterable[RefKey]:
    """Yield the refs that the index has otherwise than it should."""
    for key in change.was.keys() | change.now.keys():
        if change.was.get(key) != change.now.get(key):
            yield key


def _texts(refs: Iterable[RefKey]) -> tuple[bytes, bytes]:
    """Return the searched texts of the branches and of the tags, END between them."""
    texts: tuple[list[bytes], list[bytes]] = ([], [])
    for key in refs:
        texts[key.kind].append(text_of(key.name))
    return END.join(texts[0]), END.join(texts[1])


def _hash_of(repository: int, entry: RefEntry | None) -> list[tuple[int, int]]:
    return [] if entry is None or entry.hash is None else [(entry.hash, repository)]
