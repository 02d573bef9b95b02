"""Opening the file: by several at once, through links."""

import errno
import os
import re
import resource
import sqlite3
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from forked_command import fork_server
from older_files import MIGRATIONS, older

from mirror.errors import StoreError, StoreLocked
from mirror.store import Store
from mirror.store.faults import explained
from mirror.store.files import fold_journal, open_reader
from mirror.store.lock import is_syncing, service_mark, service_runs, sync_lock
from mirror.store.paths import file_identity, reading_address


def opened(path: Path) -> int:
    """Open a file in a process of its own."""
    with Store(path) as store:
        return int(store.row("SELECT count(*) FROM sqlite_master")[0])


@pytest.mark.parametrize("up_to", [None, MIGRATIONS[4]])
def test_processes_that_open_one_file_at_once_wait_for_each_other(tmp_path: Path, up_to: str | None) -> None:
    """For a new file, and for one that must be migrated first."""
    with ProcessPoolExecutor(4, mp_context=fork_server()) as pool:
        for turn in range(8):
            path = tmp_path / f"{turn}.db"
            if up_to:
                older(path, up_to)
            assert len(set(pool.map(opened, [path] * 4))) == 1


def test_a_reader_ends_no_lock_of_its_process(tmp_path: Path) -> None:
    """Otherwise the next process that closes the file deletes the journal; later writes are lost."""
    path = tmp_path / "mirror.db"
    with Store(path) as store, ProcessPoolExecutor(1, mp_context=fork_server()) as pool:
        open_reader(path).close()
        journal = file_identity(f"{path}-wal")
        pool.submit(opened, path).result()
        assert file_identity(f"{path}-wal") == journal is not None
        store.connection.execute("CREATE TABLE later (id)")
        with closing(open_reader(path)) as reader:
            assert reader.execute("SELECT count(*) FROM later").fetchone()[0] == 0


def test_a_journal_that_a_reader_left_goes_into_the_file(tmp_path: Path) -> None:
    """But not while somebody reads it."""
    path = tmp_path / "mirror.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE kept (id)")
        reader = sqlite3.connect(reading_address(path), uri=True)
        reader.execute("SELECT * FROM kept")
    fold_journal(path)
    assert path.with_name("mirror.db-wal").stat().st_size > 0
    reader.close()
    assert path.with_name("mirror.db-wal").stat().st_size > 0
    fold_journal(path)
    assert [file.name for file in tmp_path.iterdir()] == ["mirror.db"]
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as copy:
        assert copy.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_links_to_one_file_share_its_lock(tmp_path: Path) -> None:
    """Two names are one file."""
    path, link = tmp_path / "mirror.db", tmp_path / "link.db"
    Store(path).close()
    link.symlink_to(path)
    with sync_lock(path), pytest.raises(StoreLocked), sync_lock(link):
        pass


def test_a_running_service_is_recognised(tmp_path: Path) -> None:
    """While at least one holds the lock, by any name of the file."""
    path = tmp_path / "mirror.db"
    assert service_runs(path) is False
    (tmp_path / "link.db").symlink_to(path)
    with service_mark(path), service_mark(path):
        assert service_runs(tmp_path / "link.db") is True
    assert service_runs(path) is False


def test_checking_the_lock_blocks_no_run(tmp_path: Path) -> None:
    """A check shares the lock for a moment; two runs still exclude each other."""
    path = tmp_path / "mirror.db"
    assert is_syncing(path) is False
    with sync_lock(path):
        assert is_syncing(path) is True
        with pytest.raises(StoreLocked), sync_lock(path):
            pass
    assert is_syncing(path) is False
    looks = threading.Event()

    def look() -> None:
        while not looks.is_set():
            is_syncing(path)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(200):
        with sync_lock(path):
            pass
    looks.set()
    thread.join()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "another user's?"), (errno.ENOSPC, "free some space"), (errno.EROFS, "is read-only"),
        (errno.EDQUOT, "free some space"), (errno.EIO, "saved data is intact"), (errno.EMFILE, "ulimit -n"),
        (errno.ENOTDIR, "give another path"), (errno.EEXIST, "give another path"),
        (errno.EFBIG, "ulimit -f"),
    ],
)  # fmt: skip
def test_an_error_of_the_system_names_its_remedy(number: int, remedy: str) -> None:
    """Like SQLite's errors: another user's folder is often a volume of a container."""
    with pytest.raises(StoreError, match=re.escape(remedy)), explained(Path("m.db")):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("free", [0, 1])
def test_a_file_that_cannot_be_opened_for_want_of_descriptors_says_so(tmp_path: Path, free: int) -> None:
    """SQLite tells no reason, and has closed the file again; it is neither read-only nor another user's."""
    path = tmp_path / "mirror.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limit[1]))
    try:
        with (
            pytest.raises(StoreError, match="ulimit -n"),
            explained(tmp_path),
            closing(sqlite3.connect(path)) as connection,
        ):
            connection.execute("SELECT 1 FROM sqlite_master")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
