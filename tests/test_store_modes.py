"""Modes of files: new ones are private, open ones are reported, and a killed creation is whole."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, closing
from functools import partial
from pathlib import Path

import pytest
from cli_runner import Folder
from whole_files import killed_at

from mirror.config import from_toml, read_config
from mirror.config_checks import open_files
from mirror.errors import ConfigError
from mirror.store import Store
from mirror.store.lock import sync_lock


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """Let new files be readable by all, as on most systems."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660])
def test_new_files_get_their_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    """The file, what SQLite keeps beside it, and the lock."""
    path = tmp_path / "mirror.db"
    with sync_lock(path, mode), Store(path, mode) as store:
        store.save_upstream("cloud", "cloud", "https://api.example.com")
        modes = {one.name: mode_of(one) for one in tmp_path.iterdir()}
    assert set(modes) == {"mirror.db", "mirror.db-wal", "mirror.db-shm", "mirror.db.lock"}
    assert set(modes.values()) == {mode}


def test_a_file_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """Somebody chose it."""
    path = tmp_path / "mirror.db"
    Store(path).close()
    path.chmod(0o644)
    Store(path).close()
    assert mode_of(path) == 0o644


@pytest.mark.usefixtures("usual_umask")
def test_commands_create_private_files_and_report_open_ones(tmp_path: Path) -> None:
    """`init`, `token create`, `sync`; a file or a secret that others may read is named with the remedy."""
    folder = Folder(tmp_path)
    assert folder.run("init").code == 0
    assert mode_of(tmp_path / "mirror.toml") == 0o600
    (tmp_path / "secret").write_text("token-of-some-length")
    (tmp_path / "mirror.toml").write_text(
        '[[upstream]]\nname = "one"\nkind = "legacy"\nurl = "http://127.0.0.1:9"\nworkspaces = ["a"]\n'
        'credential = "file:secret"\nretry = { attempts = 1 }\n'
    )
    assert folder.run("token", "create", "a").code == 0
    assert mode_of(tmp_path / "data" / "mirror.db") == 0o600
    (tmp_path / "data" / "mirror.db").chmod(0o644)
    told = folder.run("sync", "--no-wait").err
    assert "mirror.db is open to other users (mode 0644): chmod 0600" in told
    assert told.count("secret holds a secret and is open to other users (mode 0644)") == 1
    assert "token-of-some-length" not in told


def test_modes_allowed_by_the_setting_are_not_reported(tmp_path: Path) -> None:
    """A group is allowed by the setting; other users are still reported."""
    config = from_toml(f'database = "{tmp_path}/mirror.db"\nfile_mode = "0640"')
    (tmp_path / "mirror.db").touch(mode=0o640)
    assert not list(open_files(config))
    (tmp_path / "mirror.db").chmod(0o660)
    assert "mode 0660" in next(open_files(config))


def test_modes_of_folders_and_devices_are_not_changed(tmp_path: Path) -> None:
    """If one is named by mistake, chmod of /tmp or /dev/null would harm the machine."""
    (tmp_path / "open").mkdir(mode=0o777)
    text = f"""database = "{tmp_path}/open"
[[upstream]]
name = "a"
credential = "file:/dev/null"
"""
    assert list(open_files(from_toml(text))) == []


@pytest.mark.parametrize("mode", ["0400", "0700", "rw-------", "660x", "", "0061"])
def test_an_invalid_mode_is_refused(mode: str) -> None:
    """When the configuration is read."""
    with pytest.raises(ConfigError, match="file_mode"):
        from_toml(f'file_mode = "{mode}"')


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """Wherever the program starts; absolute ones and other kinds are unchanged."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mirror.toml").write_text(
        'database = "data/m.db"\n[[upstream]]\nname = "a"\ncredential = "file:secret"\n'
        'webhook_secret = "file:/run/hook"\n[[upstream]]\nname = "b"\ncredential = "env:X"\n'
        '[[alert]]\nurl = "file:chat"\n[[alert]]\nping = "https://hc.example/x"\n'
    )
    config = read_config(tmp_path / "conf" / "mirror.toml")
    conf = tmp_path / "conf"
    assert config.database == str(conf / "data" / "m.db")
    assert [one.credential for one in config.upstreams] == [f"file:{conf / 'secret'}", "env:X"]
    assert config.upstreams[0].webhook_secret == "file:/run/hook"
    assert [config.alerts[0].url, config.alerts[1].ping] == [f"file:{conf / 'chat'}", "https://hc.example/x"]
    with chdir(conf):
        assert read_config(None).database == "data/m.db"


def _create(path: Path) -> None:
    Store(path).close()


def test_a_killed_creation_leaves_no_partial_file(tmp_path: Path) -> None:
    """At any statement: the next start makes the same file, with every table and index."""
    with Store(tmp_path / "whole.db") as store:
        whole = set(store.connection.execute("SELECT type, name FROM sqlite_master"))
    for after in (6, 12, 15, 18, 50, 150):
        path = tmp_path / f"{after}.db"
        assert killed_at(after, partial(_create, path), named="execute")
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (0,)
            assert not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        with Store(path) as store:
            assert set(store.connection.execute("SELECT type, name FROM sqlite_master")) == whole


def test_a_missing_index_is_created(tmp_path: Path) -> None:
    """For a file of an earlier version that was killed at the wrong moment."""
    path = tmp_path / "mirror.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX idx__sqlite_migrations_migration_set_name")
        connection.execute("PRAGMA user_version = 0")
        connection.commit()
    with Store(path) as store:
        assert store.row("SELECT 1 FROM sqlite_master WHERE name LIKE 'idx__sqlite_migrations%'")
