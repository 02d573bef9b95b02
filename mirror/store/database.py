"""The only writer of the file: one connection, one transaction at a time."""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from mirror.errors import StoreError
from mirror.model import Owner, Repository
from mirror.search.index.backlog import finish_step, rebuild_index, update_after_page
from mirror.search.index.format import has_lost_state
from mirror.search.index.refs.changes import (
    flush_refs_step,
    rebuild_refs_index,
    search_commits,
    update_after_refs,
)
from mirror.search.segments import has_damaged_segment
from mirror.store.changes import Change, hide_history, of_namesakes
from mirror.store.faults import explained
from mirror.store.files import PRIVATE, open_writer
from mirror.store.owners import save_owner, save_project, save_projects_of
from mirror.store.paths import file_identity
from mirror.store.refs import read_refs_otherwise
from mirror.store.repair import rebuild_descriptions
from mirror.store.repositories import Look, SavedRepositories, save_repositories, split_identifiable
from mirror.store.rows import Row, Values, fetch, fetch_as, fetch_row, fetch_value

Item = TypeVar("Item")


class Store:
    """A mirror file opened for writing. Threads may share it: transactions take turns.

    Everything written in one `transaction()` is saved together or not at all. `mode` is the mode of a new
    file. Raises StoreError.
    """

    def __init__(self, path: Path, mode: int = PRIVATE) -> None:
        self.path = path
        self.connection = open_writer(path, mode)
        self._file = file_identity(path)
        self._lock = threading.RLock()
        self._is_together = False
        self._later = list[Any]()
        self._write_later: Callable[[list[Any]], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock, explained(self.path):
            self.connection.close()

    @property
    def is_in_place(self) -> bool:
        """Whether the file was neither moved nor removed nor replaced since it was opened."""
        return file_identity(self.path) == self._file

    def _must_be_in_place(self) -> None:
        # SQLite would go on to write into the file that was there.
        if not self.is_in_place:
            raise StoreError(
                f"{self.path}: was moved, removed or replaced meanwhile, so what was read may be lost;"
                " run it again"
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Group writes; an inner transaction is part of the outer one."""
        with self._lock:
            self._catch_up()
            is_inner = self.connection.in_transaction
            if is_inner and not self._is_together:
                yield self.connection
                return
            with explained(self.path):
                if not is_inner:  # also in `together`, where a full disk may have ended the outer one
                    self._must_be_in_place()
                    # IMMEDIATE: one that reads before it writes could not wait for another process.
                    with self._between("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"):
                        yield self.connection
                    return
                self._is_together = False
                try:
                    with self._between("SAVEPOINT one", "RELEASE one", "ROLLBACK TO one", "RELEASE one"):
                        yield self.connection
                finally:
                    self._is_together = True

    @contextmanager
    def together(self, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Commit several transactions at once, at the end or at an error; each as a whole or not at all.

        Nothing is in the file before that. This takes a quarter of the time of single commits. `lost` is
        called if nothing came into the file.
        """
        is_saved = False
        with self._lock, explained(self.path):
            try:
                self._must_be_in_place()
                self.connection.execute("BEGIN IMMEDIATE")
                self._is_together = True
                try:
                    yield
                finally:
                    self._catch_up()
            finally:
                self._is_together = False
                self._later.clear()
                try:
                    if self.connection.in_transaction:  # a full disk ends it
                        self._commit()
                        is_saved = True
                finally:
                    if not is_saved:
                        lost()

    def write_later(self, item: Item, write: Callable[[list[Item]], None]) -> None:
        """Call `write` with this item and those that follow at once.

        It is called before anything else is read or written, at the latest at the end of `together`; outside
        of that, at once.
        """
        with self._lock:
            if self._write_later != write:
                self._catch_up()
            self._later.append(item)
            self._write_later = write
            if not self._is_together:
                self._catch_up()

    def _catch_up(self) -> None:
        if self._later:
            items, self._later = self._later, []
            assert self._write_later is not None  # noqa: S101 - it came with the items
            self._write_later(items)

    @contextmanager
    def _between(self, begin: str, end: str, *undo: str) -> Iterator[None]:
        """Run the block between two statements; undo it after an error, also one of the second."""
        try:
            self.connection.execute(begin)  # Ctrl-C may come right after it
            yield
            self.connection.execute(end)
        except BaseException:
            self._undo(*undo)
            raise

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except BaseException:
            self._undo("ROLLBACK")
            raise

    def _undo(self, *statements: str) -> None:
        for statement in statements:
            # Ctrl-C may come before the savepoint is there, or after it was released.
            with suppress(sqlite3.OperationalError):
                if self.connection.in_transaction:
                    self.connection.execute(statement)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for reading, while no other thread uses it."""
        with self._lock, explained(self.path):
            self._catch_up()
            yield self.connection

    def value(self, sql: str, values: Values = ()) -> Any:
        """Read the first column of the first row; None without rows."""
        with self.reading() as connection:
            return fetch_value(connection, sql, values)

    @overload
    def row(self, sql: str, values: Values = ...) -> Any: ...
    @overload
    def row(self, sql: str, values: Values, kind: type[Row]) -> Row | None: ...
    def row(self, sql: str, values: Values = (), kind: Any = None) -> Any:
        """Read the first row, as a `kind` whose fields match the columns; None without rows."""
        with self.reading() as connection:
            row = fetch_row(connection, sql, values)
        return kind(*row) if kind and row else row

    @overload
    def rows(self, sql: str, values: Values = ...) -> list[Any]: ...
    @overload
    def rows(self, sql: str, values: Values, kind: type[Row]) -> list[Row]: ...
    def rows(self, sql: str, values: Values = (), kind: Any = None) -> list[Any]:
        """Read all rows, each as a `kind` whose fields match the columns."""
        with self.reading() as connection:
            return fetch_as(kind, connection, sql, values) if kind else fetch(connection, sql, values)

    def save_upstream(self, name: str, kind: str, url: str, *, refs: str = "api") -> int:
        """Insert or update an upstream and return its id; `refs` is how refs are read: api, git or none."""
        with self.transaction() as connection:
            known = self.row("SELECT id, refs FROM upstreams WHERE name = ?", (name,))
            if known and known[1] != refs:
                read_refs_otherwise(connection, known[0], before=known[1], now=refs)
            connection.execute(
                """INSERT INTO upstreams (name, kind, url, refs) VALUES (?, ?, ?, ?)
                   ON CONFLICT (name) DO UPDATE
                   SET kind = excluded.kind, url = excluded.url, refs = excluded.refs""",
                (name, kind, url, refs),
            )
            return int(self.value("SELECT id FROM upstreams WHERE name = ?", (name,)))

    def save_page(
        self,
        upstream_id: int,
        rows: Sequence[Repository],
        look: Look,
    ) -> SavedRepositories:
        """Write a page of repositories with their owners, and record what changed.

        Rows that cannot be identified (`mirror.store.repositories`) are returned as `refused`.
        """
        run_id, seen_at = look.run_id, look.at
        with self.transaction():
            rows, refused = split_identifiable(self.connection, upstream_id, rows)
            owner_ids = dict[str, int]()
            for owner in {row.owner.uuid: row.owner for row in rows}.values():
                owner_ids[owner.uuid] = self.save_owner(upstream_id, owner, run_id=run_id, seen_at=seen_at)
            save_projects_of(self.connection, upstream_id, rows, owner_ids, seen_at=seen_at)
            saved = save_repositories(self.connection, upstream_id, rows, owner_ids, look)
            self.save_changes(saved.changes, run_id=run_id, at=seen_at)
            published = [one.repository_id for one in saved.changes if one.kind == "made_public"]
            if run_id is not None:  # a write knows what it has renamed
                published += of_namesakes(self.connection, saved.changes)
            hide_history(self.connection, published, with_refs=look.with_refs)
            if not look.first_listing:
                update_after_page(self.connection)
                if saved.changed:  # new repositories have no refs yet
                    update_after_refs(self.connection)
        return saved._replace(refused=refused)

    def finish_search_index(self) -> None:
        """Finish the indexes at the end of a sync: without it, searches are exact, but slower."""
        for step in (finish_step, flush_refs_step):
            more = True
            while more:
                with self.transaction():
                    more = step(self.connection)

    def search_commits(self, *, wanted: bool) -> None:
        """Turn the search for refs by commit on or off; a change may rebuild their index."""
        with self.transaction():
            search_commits(self.connection, wanted=wanted)

    def mend_search_index(self) -> bool:
        """Rebuild the indexes if searches refuse them as damaged; return whether they did.

        This reads no rows, so that each sync can do it: `mirror.store.repair.check_file` compares them all.
        """
        with self.transaction() as connection:
            is_damaged = has_lost_state(connection) or has_damaged_segment(connection)
            if is_damaged:
                self.rebuild_search_index()
        return is_damaged

    def rebuild_search_index(self) -> None:
        """Rebuild the indexes of names, refs and descriptions from the rows, whatever their state."""
        with self.transaction():
            rebuild_index(self.connection)
            rebuild_refs_index(self.connection)
            rebuild_descriptions(self.connection)

    def save_owner(self, upstream_id: int, owner: Owner, *, run_id: int | None, seen_at: str) -> int:
        """Write the owner of a namespace and return the id of the row."""
        with self.transaction():
            user_id, changes = save_owner(self.connection, upstream_id, owner, seen_at=seen_at, is_owner=True)
            if owner.project is not None:
                save_project(self.connection, upstream_id, owner, user_id, owner.project, seen_at=seen_at)
            self.save_changes(changes, run_id=run_id, at=seen_at)
        return user_id

    def save_changes(self, changes: Iterable[Change], *, run_id: int | None, at: str) -> None:
        """Record changes that were seen at a moment."""
        rows = [(at, run_id, *change) for change in changes]
        if not rows:
            return
        with self.transaction():
            self.connection.executemany(
                """INSERT INTO changes
                       (at, run_id, kind, repository_id, user_id, ref, old, new, previous_look, forced,
                        old_date, is_main)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, iif(?3 = 'branch_moved'
                       AND ?6 = (SELECT main_branch FROM repositories WHERE id = ?4), 1, NULL))""",
                rows,
            )
