"""Opening the file: by several at once, through links."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from test_store_older import MIGRATIONS, older

from mirror.errors import StoreLocked
from mirror.store import Store
from mirror.store.files import service_mark, service_runs, sync_lock


def opened(path: Path) -> int:
    """Open a file in a process of its own."""
    with Store(path) as store:
        return int(store.row("SELECT count(*) FROM sqlite_master")[0])


@pytest.mark.parametrize("up_to", [None, MIGRATIONS[4]])
def test_processes_that_open_one_file_at_once_wait_for_each_other(tmp_path: Path, up_to: str | None) -> None:
    """A new file, and one that must be brought up to date first."""
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        for turn in range(8):
            path = tmp_path / f"{turn}.db"
            if up_to:
                older(path, up_to)
            assert len(set(pool.map(opened, [path] * 4))) == 1


def test_links_to_one_file_share_its_lock(tmp_path: Path) -> None:
    """Two names are still one file to write to."""
    path, link = tmp_path / "mirror.db", tmp_path / "link.db"
    Store(path).close()
    link.symlink_to(path)
    with sync_lock(path), pytest.raises(StoreLocked), sync_lock(link):
        pass


def test_a_service_is_known_by_its_mark(tmp_path: Path) -> None:
    """While one of any number of them holds it, by whichever name of the file."""
    path = tmp_path / "mirror.db"
    assert service_runs(path) is False
    (tmp_path / "link.db").symlink_to(path)
    with service_mark(path), service_mark(path):
        assert service_runs(tmp_path / "link.db") is True
    assert service_runs(path) is False
