"""A server of copies writes nothing, and no request fails when a newer copy replaces the file."""

import asyncio
import hashlib
import shutil
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from asgi_client import bearer, client_of
from cli_runner import Folder, started
from fixtures_db import FixtureDb, fill_public, repository
from live_server import WITHOUT_TLS, serving
from webhook_client import webhook_mirror

from mirror.cli.main import main
from mirror.config import from_toml
from mirror.errors import ConfigError
from mirror.observe.health import read_health
from mirror.serve.guarded_database import mirrors
from mirror.store import tokens
from mirror.store.backup import back_up
from mirror.store.files import open_reader
from mirror.store.lock import is_served
from mirror.store.runs import start_run
from mirror.times import from_text

MOMENT = "2026-11-20T12:00:00.000000Z"
ASKED = (
    "/2.0/repositories/jespern/django-piston", "/1.0/users/jespern", "/-/search?q=django",
    "/-/r/jespern/django-piston", "/", "/mirror/repositories.json", "/-/changes.atom", "/2.0/repositories",
    "/mirror.json?sql=select+count(*)+from+repositories",
)  # fmt: skip


def copies(folder: Path, count: int) -> list[Path]:
    """Copies of a growing mirror, each with one more repository."""
    made = list[Path]()
    (folder / "source").mkdir()
    filled = fill_public(folder / "source/mirror.db")
    with filled.store.transaction() as connection:
        start_run(connection, filled.upstream_id, "full", at=MOMENT)
    for number in range(count):
        filled.repositories([repository(f"more/row-{number}")])
        filled.refs(f"more/row-{number}", ())
        made.append(back_up(filled.path, folder / f"copy-{number}.db"))
    filled.store.close()
    return made


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_no_request_fails_while_the_file_is_replaced(tmp_path: Path, journal: str) -> None:
    """Requests arrive without a pause, and the first one after a change reads the new copy."""
    made, path = copies(tmp_path, 9), tmp_path / "mirror.db"
    for copy in made if journal == "wal" else ():  # as a replicator restores them
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    made[0].rename(path)
    statuses, answers, done = Counter[tuple[str, int]](), Counter[int](), threading.Event()

    def ask(origin: str, first: int) -> None:
        with httpx.Client(verify=WITHOUT_TLS, base_url=origin) as client:
            while not done.is_set():
                for address in (*ASKED[first:], *ASKED[:first]):
                    answer = client.get(address)
                    statuses[address, answer.status_code] += 1
                    answers[first] += 1

    with serving(path, read_only=True) as origin:
        readers = {first: threading.Thread(target=ask, args=(origin, first)) for first in range(0, 9, 3)}
        for reader in readers.values():
            reader.start()
        with httpx.Client(verify=WITHOUT_TLS, base_url=origin) as client:
            for number, copy in enumerate(made[1:], 1):
                copy.rename(path)
                before = answers.copy()
                # No request of a reader meets two changes, however slow it is: five in one are refused.
                while any(answers[each] < before[each] + 3 and readers[each].is_alive() for each in readers):
                    assert client.get(f"/2.0/repositories/more/row-{number}").status_code == 200
        done.set()
        for reader in readers.values():
            reader.join()
    assert {status for _, status in statuses} == {200}
    assert {address for address, _ in statuses} == {*ASKED}


def test_a_file_replaced_during_a_read_is_read_again(tmp_path: Path) -> None:
    """The answer is that of the file at the time of the response."""
    first, second = copies(tmp_path, 2)
    path = first.rename(tmp_path / "mirror.db")
    (database,) = mirrors(client_of(path, read_only=True).datasette)
    counted = list[int]()

    def count(connection: sqlite3.Connection) -> int:
        counted.append(connection.execute("SELECT count(*) FROM repositories").fetchone()[0])
        if second.exists():
            second.rename(path)
        return counted[-1]

    assert asyncio.run(database.read(count)) == 7
    assert counted == [6, 7]


def test_a_read_only_server_writes_nothing(tmp_path: Path) -> None:
    """Not even the use of a token: the file stays the same, byte by byte."""
    filled = fill_public(tmp_path / "source.db")
    token = tokens.create(filled.store, "whole")
    path = back_up(filled.path, tmp_path / "mirror.db")
    filled.store.close()
    before = hashlib.sha256(path.read_bytes()).digest()
    reader = client_of(path, read_only=True)
    for address in ASKED:
        assert reader.get(address, headers=bearer(token)).status_code == 200
    assert hashlib.sha256(path.read_bytes()).digest() == before
    writer = client_of(path)
    assert writer.get(ASKED[0], headers=bearer(token)).status_code == 200
    while hashlib.sha256(path.read_bytes()).digest() == before:  # a server of the mirror itself writes
        time.sleep(0.01)


def test_a_file_that_cannot_be_written_is_served(tmp_path: Path) -> None:
    """A published or mounted copy, mode 444."""
    path = copies(tmp_path, 1)[0].rename(tmp_path / "mirror.db")
    path.chmod(0o444)
    reader = client_of(path, read_only=True)
    assert {reader.get(address).status_code for address in ASKED} == {200}
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("mirror.db")] == ["mirror.db"]


def test_counts_are_those_of_the_new_file(tmp_path: Path) -> None:
    """Cached row ids belong to other rows in another file."""
    path, other = tmp_path / "mirror.db", FixtureDb(tmp_path / "other.db")
    shutil.move(copies(tmp_path, 1)[0], path)
    other.repositories([repository(f"else/row-{number}") for number in range(9)])
    other.store.close()
    reader = client_of(path, read_only=True)
    assert "jespern/django-piston" in reader.get("/").text
    other.path.replace(path)
    text = reader.get("/").text
    assert "else/row-8" in text
    assert "django-piston" not in text


def test_webhooks_are_refused(tmp_path: Path) -> None:
    """With or without a configured secret; the answer says where to send them."""
    hook = webhook_mirror(tmp_path)
    reader = client_of(hook.crawl.path, read_only=True)
    answer = reader("POST", "/-/webhook/here", json={})
    assert answer.status_code == 404
    assert "send webhooks to the mirror that syncs" in answer.text


def test_health_tells_the_age_of_the_copy(tmp_path: Path) -> None:
    """By its content, since moving a file changes its times."""
    path = copies(tmp_path, 1)[0]
    with closing(open_reader(path)) as connection:
        now = from_text("2026-11-20T12:05:00Z")
        found = read_health(connection, path, now, free=2**40, is_copy=True).copy
    assert found is not None
    assert (found["as_of"], found["age_seconds"]) == (MOMENT, 300)
    assert client_of(path, read_only=True).get("/-/health").json()["copy"]["as_of"] == MOMENT
    assert "copy" not in client_of(path).get("/-/health").json()


def test_contradicting_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only server passes no writes on, and no service syncs into its file."""
    with pytest.raises(ConfigError, match=r"line 3: writes: .* passes no writes on"):
        from_toml("[serve]\nread_only = true\nwrites = true\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirror.toml").write_text("[serve]\nread_only = true\n")
    with pytest.raises(SystemExit) as end:
        main(["run"])
    assert end.value.code == 2
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_server_locks_its_mirror_but_not_a_copy(folder: Folder, *, read_only: bool) -> None:
    """Before any request: a copy may be replaced while it is served."""
    path = folder.path / "data/mirror.db"
    path.parent.mkdir()
    fill_public(path).store.close()
    folder.configure("http://127.0.0.1:9/2.0", serve=f"read_only = {str(read_only).lower()}")
    with started(folder, "serve", "--port", "0") as server:
        assert "answers on" in server.stdout.readline()
        assert is_served(path) is not read_only
    assert is_served(path) is False
