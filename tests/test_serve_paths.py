"""Serving a file anywhere: paths with URL characters, and read-only mounts."""

import os
import re
import resource
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from asgi_client import client_of
from cli_runner import Folder
from live_server import WITHOUT_TLS
from older_files import DUMPS, restored

from mirror.store import Store

# The dump keeps the times of its syncs, which grow older without end.
CONFIGURATION = '[[upstream]]\nname = "cloud"\nworkspaces = ["ws"]\nstale_after = "36500d"\n'


def mirror_in(folder: Path, name: str = "mirror.db") -> Path:
    """Make a small mirror without private rows in a folder of its own."""
    folder.mkdir(parents=True)
    path = folder / name
    restored(path, DUMPS[-1].read_text("utf-8"))
    with Store(path) as store:  # what was private once is still hidden
        store.connection.execute("DELETE FROM changes")
        store.connection.execute("UPDATE repositories SET public_from = 0")
    return path


@pytest.mark.parametrize("name", ["C# work", "what?mode=memory", "50%41", "a%23b", "ü & ö", "x#?%", "'\"<b>"])
def test_a_path_with_url_characters_is_served(tmp_path: Path, name: str) -> None:
    """Pages, API and tables answer, and no stray file is made."""
    served = client_of(mirror_in(tmp_path / "top" / name))
    for path in ("/", "/2.0/repositories/ws", "/mirror/repositories.json?_shape=array"):
        assert served.get(path).status_code == 200, path
    assert [found.name for found in (tmp_path / "top").iterdir()] == [name]


@pytest.mark.parametrize("name", ["C#.db", "50%.db", "a?b.db", "a b.db", "ü.db", "a.b.db"])
def test_a_file_name_with_url_characters_is_served(tmp_path: Path, name: str) -> None:
    """The name of the file is the name of the database in its addresses."""
    served = client_of(mirror_in(tmp_path / "top", name))
    urls = served.datasette.urls
    database = name.removesuffix(".db")
    for path in ("/", urls.database(database), urls.table(database, "repositories", format="json")):
        assert served.get(path).status_code == 200, path


@pytest.mark.parametrize(
    "path", ["/", "/mirror", "/mirror/repositories.json", "/2.0/repositories/ws", "/ws/tool-1"]
)
def test_a_damaged_file_is_reported_as_such(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """One log line, and 503 for requests."""
    file = mirror_in(tmp_path / "top")
    whole = file.read_bytes()
    served = client_of(file)
    file.write_bytes(whole[:4096] + b"\xff\xfe" * ((len(whole) - 4096) // 2))
    assert served.get(path).status_code == 503
    assert "the file is damaged" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_restored_dump_is_served_as_any_other(tmp_path: Path) -> None:
    """Open to strangers while nothing in it is private, otherwise closed."""
    path = mirror_in(tmp_path / "top")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 0")
        connection.execute("PRAGMA user_version = 0")
    served = client_of(path)
    assert served.get("/mirror/repositories.json").status_code == 200
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE repositories SET is_private = 1 WHERE id = 1")
        connection.commit()
    assert served.get("/mirror/repositories.json").status_code == 403
    assert served.get("/2.0/repositories/ws/tool-1").status_code == 404


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="this needs root")
def test_a_read_only_mount_is_served_and_followed(tmp_path: Path) -> None:
    """Changes by another writer of the folder are served."""
    path = mirror_in(tmp_path / "shared")
    (path.parent / "mirror.toml").write_text(f'database = "mirror.db"\n{CONFIGURATION}')
    folder = Folder(path.parent)
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, str(path.parent), *folder.command("serve", "--port", "0")],
        env=folder.environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"http://\S+", process.stdout.readline())[0]
        with httpx.Client(verify=WITHOUT_TLS, base_url=address, trust_env=False) as client:
            assert client.get("/2.0/repositories/ws/tool-1").json()["description"] == ""
            for page in ("/", "/mirror/repositories.json", "/-/health"):
                assert client.get(page).status_code == 200
            with Store(path) as store:
                store.connection.execute("UPDATE repositories SET description = 'new'")
            assert client.get("/2.0/repositories/ws/tool-1").json()["description"] == "new"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert "Traceback" not in said


def test_a_mirror_on_a_full_disk_is_served_and_followed(tmp_path: Path) -> None:
    """There is no room for the file that WAL mode needs beside it; an earlier one is not used."""
    path = mirror_in(tmp_path / "top")
    served, before = client_of(path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        full = [served.get(each).status_code for each in ("/", "/2.0/repositories/ws", "/mirror.json")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full == [200, 200, 200]
    with Store(path) as store:
        store.connection.execute("UPDATE repositories SET description = 'written later'")
        assert "written later" in served.get("/2.0/repositories/ws").text
