"""Files of older versions: migrated at the first write, with nothing lost."""

import fcntl
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from older_files import MIGRATIONS, older
from search_oracle import naive

from mirror.errors import StoreError, StoreLocked
from mirror.search import search
from mirror.search.index.check import check_index
from mirror.store import Store, schema
from mirror.store.faults import explained
from mirror.store.files import open_reader
from mirror.store.lock import SYNC, beside, sync_lock
from mirror.store.schema import HIDDEN


@pytest.mark.parametrize("up_to", MIGRATIONS[:-1])
def test_an_older_file_is_migrated_and_searched_correctly(tmp_path: Path, up_to: str) -> None:
    """Readers say who must migrate it; the writer does, and searches find pending rows."""
    path = tmp_path / "mirror.db"
    older(path, up_to)
    with pytest.raises(StoreError, match="made by an older version; `mirror sync` brings it up to date"):
        open_reader(path)
    with Store(path) as store:
        for finished in (False, True):
            if finished:
                store.finish_search_index()
            for query in ("", "t", "tool", "tool-2", "other", "3"):
                found = search(store.connection, query, fuzzy=False)
                ids = found.ids
                assert (found.count, ids) == naive(store.connection, query)
        assert check_index(store.connection) == []
        assert store.row("PRAGMA user_version")[0] == schema.VERSION
    open_reader(path).close()


def test_history_from_before_publication_is_hidden(tmp_path: Path) -> None:
    """As a whole, until its refs have been read; history of always public ones stays."""
    path = tmp_path / "mirror.db"
    older(path, "m011_pending_in_full")
    connection = sqlite3.connect(path)
    connection.executescript(
        """UPDATE repositories SET refs_stale = 0;
        INSERT INTO branches (repository_id, name, target_hash) VALUES (1, 'main', 'f'), (4, 'main', 'f');
        INSERT INTO changes (at, kind, repository_id) VALUES
            ('', 'made_public', 1), ('', 'made_public', 2), ('', 'branch_deleted', 1), ('', 'created', 4)"""
    )
    connection.close()
    with Store(path) as store:
        found = store.rows("SELECT id, public_from, refs_stale FROM repositories WHERE id IN (1, 2, 4)")
    assert found == [(1, HIDDEN, 1), (2, 4, 0), (4, 0, 0)]


def test_the_version_counts_the_migrations() -> None:
    """Readers know the version without importing the migrations."""
    assert len(MIGRATIONS) == schema.VERSION


def test_a_file_is_not_migrated_under_a_sync_of_another_process(tmp_path: Path) -> None:
    """An older program would write into tables that it does not know; a sync migrates before it writes."""
    path = tmp_path / "mirror.db"
    older(path, MIGRATIONS[-2])
    with beside(path, SYNC).open("w") as lock:
        lock.write("process 1")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreLocked, match="process 1 is syncing into it"):
            Store(path)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION - 1,)
    with sync_lock(path):
        with pytest.raises(StoreLocked), sync_lock(path):
            pass
        with Store(path) as store:
            version = store.row("PRAGMA user_version")
    assert version == (schema.VERSION,)


BEFORE_SEGMENTS = "m040_slugs"  # the next migration renames a table, for which SQLite reads all views


@pytest.mark.parametrize(
    ("sql", "up_to"),
    [
        ("CREATE VIEW mine AS SELECT * FROM nosuch", BEFORE_SEGMENTS),
        ("CREATE VIEW mine AS SELECT nosuch FROM repositories", BEFORE_SEGMENTS),
        (
            "CREATE TRIGGER mine AFTER UPDATE ON users BEGIN INSERT INTO nosuch VALUES (1); END",
            MIGRATIONS[-1],
        ),
    ],
)
def test_what_somebody_added_is_not_called_damage(tmp_path: Path, sql: str, up_to: str) -> None:
    """A view that no longer works ends a migration, a trigger each write; dropping it is enough."""
    path = tmp_path / "mirror.db"
    older(path, up_to)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        with pytest.raises(StoreError, match="drop it by SQL if you added it"):
            changed(path)
        connection.execute(f"DROP {sql.split()[1]} mine")
    changed(path)


def changed(path: Path) -> None:
    """Migrate a file, and change a row of it."""
    with Store(path) as store, explained(path), store.transaction() as connection:
        connection.execute("UPDATE users SET username = 'bob'")
