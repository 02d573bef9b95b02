"""`mirror verify`, and a damaged search index: what is found, and what mends it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from cli_runner import Folder, small_sandbox

from mirror.observe.health import file_health
from mirror.sandbox import RunningSandbox
from mirror.times import utc_now


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    """A sandbox that no test of this file edits."""
    with small_sandbox() as served:
        yield served


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A folder whose mirror has seen a repository be renamed; tests copy it."""
    folder = Folder(tmp_path_factory.mktemp("renamed"))
    with small_sandbox() as served:
        folder.configure(served.url)
        folder.run("sync")
        served.sandbox.do("rename", "ubernostrum/django-profiles", name="django-faces")
        folder.run("sync")
        yield folder


def test_verify_finds_and_repairs_differences(folder: Folder, box: RunningSandbox) -> None:
    """A row that was changed by hand is wrong until it is repaired."""
    folder.configure(box.url)
    folder.run("sync")
    assert folder.run("verify", "--sample", "all").out.strip().endswith("no difference")
    connection = sqlite3.connect(folder.path / "data/mirror.db")
    connection.execute("UPDATE repositories SET description = 'no' WHERE full_name = 'jespern/django-piston'")
    connection.execute("DELETE FROM tags WHERE name = '0.2.2'")
    connection.commit()
    connection.close()
    found = folder.run("verify", "--sample", "all")
    assert found.code == 1
    assert 'jespern/django-piston: wrong: description: mirror "no"' in found.out
    assert "tag 0.2.2: mirror none" in found.out
    assert folder.run("verify", "--sample", "all", "--repair").code == 0
    assert folder.run("verify", "--sample", "all").out.strip().endswith("no difference")


def test_a_check_by_hand_is_the_last_one_for_the_health(folder: Folder, box: RunningSandbox) -> None:
    """Otherwise what was repaired would make the mirror unwell until the next scheduled check."""
    folder.configure(box.url)
    folder.run("sync")
    path = folder.path / "data/mirror.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO search_descriptions (rowid, description) VALUES (99, 'ghost')")
        connection.commit()
    for options, code in (([], 1), (["--repair"], 0)):
        assert folder.run("verify", "--sample", "0", *options).code == code
        told = " ".join(file_health(path, utc_now(), patience={"box": 3600.0}).reasons)
        assert ("box: the last check of the file found: 1 fault; see: mirror verify" in told) is (code == 1)


def test_verify_checks_and_rebuilds_the_search_index(folder: Folder, box: RunningSandbox) -> None:
    """After any manual change, and without an upstream."""
    folder.configure(box.url)
    folder.run("sync")
    assert "are whole" in folder.run("verify", "--sample", "0").out
    connection = sqlite3.connect(folder.path / "data/mirror.db")
    connection.execute("UPDATE search_common SET repositories = repositories + 1 WHERE path = x''")
    connection.execute("DELETE FROM search_rare WHERE path = (SELECT min(path) FROM search_rare)")
    connection.commit()
    connection.close()
    found = folder.run("verify", "--sample", "0")
    assert found.code == 1
    assert "search index: b'' in collection 0 counts" in found.out
    assert "does not list" in found.out
    mended = folder.run("verify", "--sample", "0", "--repair")
    assert mended.code == 0
    assert "(mended)" in mended.out
    assert "are whole" in folder.run("verify", "--sample", "0").out


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM search_state",
        "DELETE FROM search_ref_state",
        "DELETE FROM search_common",
        "DELETE FROM search_rare",
        "DELETE FROM search_columns",
        "DELETE FROM search_pending",
        "DELETE FROM search_segments",
        "DELETE FROM search_ref_names",
        "DELETE FROM search_ref_lists",
        "DELETE FROM search_ref_paths",
        "DELETE FROM search_ref_common",
        "DELETE FROM search_ref_rare",
        "UPDATE search_segments SET data = CAST(replace(data, x'6661636573', x'7061636573') AS BLOB)",
    ],
)
def test_a_sync_rebuilds_a_damaged_search_index(folder: Folder, renamed: Folder, damage: str) -> None:
    """One line says so, and the next one has nothing to mend. Until then, no search finds too little."""
    shutil.copytree(renamed.path, folder.path, dirs_exist_ok=True)
    with closing(sqlite3.connect(folder.path / "data/mirror.db")) as connection, connection:
        assert connection.execute(damage).rowcount > 0
    asks = ("refs", "master") if "search_ref" in damage else ("search", "faces")
    refused = folder.run(*asks)
    assert (refused.code, "`mirror sync` or `mirror verify --repair`" in refused.err) == (4, True)
    said = "the search index was damaged, and is rebuilt from the rows"
    syncs = [folder.run("sync") for _ in range(2)]
    assert [(done.code, done.err.count(said)) for done in syncs] == [(0, 1), (0, 0)]
    assert "ubernostrum/django-faces" in folder.run("search", "faces").out
    assert "are whole" in folder.run("verify", "--sample", "0").out
