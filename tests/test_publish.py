"""`mirror publish`: the content of the file, its atomic replacement, and that nothing writes to it."""

import json
import re
import resource
import signal
import sqlite3
import subprocess
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import pytest
from asgi_client import AsgiClient
from cli_runner import Folder, started
from datasette.app import Datasette
from fixtures_db import FixtureDb, fill_mixed, repository
from whole_files import all_rows, killed_at

from mirror.cli.main import main
from mirror.errors import ConfigError, StoreError
from mirror.publish.snapshot import PrivateFound, PublishOptions, publish, sha256_of
from mirror.queries.search import find_refs
from mirror.queries.visibility import ANONYMOUS
from mirror.search import search
from mirror.search.index.check import check_index
from mirror.search.index.refs.verify import check_refs_index
from mirror.store import Store
from mirror.store.cursors import Cursors
from mirror.store.files import open_reader, snapshot_moment

AGAIN = PublishOptions(force=True)


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Read rows of a file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def names_in(folder: Path) -> list[str]:
    """List what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_published_file_holds_every_public_row(mixed_path: Path, tmp_path: Path) -> None:
    """Rows have new numbers, private parents and histories are left out, forks are those in the file."""
    target = tmp_path / "public.db"
    done = publish(mixed_path, target, PublishOptions())
    assert target.stat().st_mode & 0o777 == 0o444
    assert (done.bytes, done.sha256) == (target.stat().st_size, sha256_of(target))
    assert rows(target, "PRAGMA journal_mode") == [("delete",)]
    assert rows(target, "SELECT id, full_name, is_private, forks_count FROM repositories ORDER BY id") == [
        (1, "jespern/django-piston", 0, 1),
        (2, "mcatalbas/codeigniter", 0, None),
        (3, "dchambers/django-piston", 0, None),
        (4, "ubernostrum/django-registration", 0, None),
        (5, "Mimika_Oh/web.site", 0, None),
        (6, "mcatalbas/copy", 0, None),
        (7, "jespern/shown", 0, None),
    ]
    told = "SELECT id, parent_id, parent_full_name FROM repositories WHERE parent_full_name IS NOT NULL"
    assert rows(target, told) == [(3, 1, "jespern/django-piston")]
    assert rows(target, "SELECT count(*) FROM changes WHERE repository_id = 7") == [(0,)]
    assert rows(target, "SELECT refs_synced_at, refs_stale FROM repositories WHERE id = 7") == [(None, 1)]
    assert rows(target, "SELECT count(*) FROM branches WHERE repository_id = 7") == [(0,)]
    names = "SELECT group_concat(username, ' ') FROM (SELECT * FROM users ORDER BY id)"
    assert rows(target, names) == [("jespern mcatalbas dchambers ubernostrum Mimika_Oh",)]
    assert rows(target, "SELECT count(*) FROM followers") == [(2,)]


def test_a_published_file_is_searched_like_the_mirror_by_strangers(mixed_path: Path, tmp_path: Path) -> None:
    """Its name index has only its own rows."""
    target = tmp_path / "public.db"
    publish(mixed_path, target, PublishOptions())
    with closing(open_reader(target)) as connection:
        assert check_index(connection) == check_refs_index(connection) == []
        assert search(connection, "django", fuzzy=False).count == 3
        with closing(open_reader(mixed_path)) as mirror:
            assert [find_refs(one, ANONYMOUS, "").count for one in (connection, mirror)] == [5, 5]
        assert search(connection, "arriving", fuzzy=False).count == 0


def test_publishing_a_published_file_changes_nothing(mixed_path: Path, tmp_path: Path) -> None:
    """The same public rows give the same bytes, from any file."""
    first = publish(mixed_path, tmp_path / "first.db", PublishOptions())
    assert publish(tmp_path / "first.db", tmp_path / "second.db", PublishOptions()).sha256 == first.sha256


def test_a_publish_during_a_sync_is_one_snapshot(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """Two rows that are always written together are equal in it."""
    pair = [repository(f"pair/{side}", description="0") for side in ("left", "right")]
    mixed_db.repositories(pair)
    mixed_db.store.close()
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        with Store(mixed_db.path) as store:
            while not stop.is_set():
                written += 1
                with store.transaction() as connection:
                    for side in ("left", "right"):
                        connection.execute(
                            "UPDATE repositories SET description = ? WHERE slug = ?", (str(written), side)
                        )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            before = written
            while written == before:
                pass
            publish(mixed_db.path, tmp_path / "public.db", AGAIN)
            found = rows(
                tmp_path / "public.db", "SELECT description FROM repositories WHERE slug IN ('left', 'right')"
            )
            assert found[0] == found[1]
            assert int(str(found[0][0])) >= before
    finally:
        stop.set()
        writer.join()


def test_a_killed_publish_leaves_the_old_file_or_the_new(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """Killed at many of its calls; leftovers do not hinder the next one."""
    target = tmp_path / "public" / "public.db"
    target.parent.mkdir()
    other_path = tmp_path / "other.db"
    fill_mixed(other_path).store.close()
    mixed_db.repositories([repository("later/row")])
    mixed_db.store.close()
    sources = {publish(path, target, AGAIN).sha256: path for path in (mixed_db.path, other_path)}
    killed = 0
    for moment in range(0, 10_000, 5):
        (new,) = sources.keys() - {sha256_of(target)}
        source = sources[new]
        if not killed_at(moment, partial(publish, source, target, AGAIN), where="mirror/publish/"):
            break
        assert sha256_of(target) in sources, moment
        killed += 1
    assert killed >= 20
    assert sha256_of(target) == new
    assert names_in(target.parent) == ["public.db"]


def test_a_full_disk_is_one_line(folder: Folder) -> None:
    """Exit code 4; the old file stays, and no large leftovers."""
    (folder.path / "data").mkdir()
    fill_mixed(folder.path / "data/mirror.db").store.close()
    publish(folder.path / "data/mirror.db", folder.path / "public.db", PublishOptions())
    before, most = sha256_of(folder.path / "public.db"), 60 * 1024
    ran = subprocess.run(
        folder.command("publish", "public.db", "--force"),
        cwd=folder.path,
        env=folder.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (4, "")
    assert len(ran.stderr.splitlines()) == 1
    assert sha256_of(folder.path / "public.db") == before
    assert names_in(folder.path) == ["data", "public.db"]


def test_the_check_finds_a_private_name_in_a_public_text(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """Then nothing is published; a name that only begins like one is no match."""
    said = "moved to https://bitbucket.org/jespern/{}/src"
    mixed_db.repositories([repository("pair/left", description=said.format("arriving-late"))])
    assert publish(mixed_db.path, tmp_path / "public.db", PublishOptions(check=True)).checked
    mixed_db.repositories([repository("pair/left", description=said.format("arriving"))])
    before = sha256_of(tmp_path / "public.db")
    with pytest.raises(PrivateFound, match=r"jespern/arriving in changes; jespern/arriving in repositories$"):
        publish(mixed_db.path, tmp_path / "public.db", PublishOptions(check=True, force=True))
    assert sha256_of(tmp_path / "public.db") == before


def test_a_restored_copy_is_not_published(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """Its public rows may be private by now."""
    Cursors(mixed_db.store.connection, mixed_db.upstream_id).await_listing(at="2026-11-20")
    with pytest.raises(StoreError, match="restored copy"):
        publish(mixed_db.path, tmp_path / "public.db", PublishOptions())
    assert not list(tmp_path.glob("public.db*"))


def test_what_is_private_goes_also_when_nothing_else_is_public(public_db: FixtureDb, tmp_path: Path) -> None:
    """The file that is replaced is the last one that had it."""
    target = tmp_path / "public.db"
    publish(public_db.path, target, PublishOptions())
    with public_db.store.transaction() as connection:
        connection.execute("UPDATE repositories SET is_private = 1")
    assert publish(public_db.path, target, AGAIN).rows["repositories"] == 0
    assert b"piston" not in target.read_bytes()
    with closing(open_reader(target)) as connection:
        assert snapshot_moment(connection) is not None


def test_an_unusable_target_is_refused(public_db: FixtureDb, tmp_path: Path) -> None:
    """An existing file, the mirror, a folder, another program's file; a mirror without public rows."""
    (tmp_path / "notes.txt").write_text("mine")
    publish(public_db.path, tmp_path / "public.db", PublishOptions())
    for name, options in (
        ("public.db", PublishOptions()),
        ("mirror.db", AGAIN),
        (".", AGAIN),
        ("notes.txt", AGAIN),
    ):
        with pytest.raises(ConfigError):
            publish(public_db.path, tmp_path / name, options)
    Store(tmp_path / "none.db").close()
    with pytest.raises(StoreError, match="has nothing public"):
        publish(tmp_path / "none.db", tmp_path / "other.db", PublishOptions())
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "other.db").exists()


def test_a_mirror_in_utf_16_is_refused_with_a_remedy(public_path: Path, tmp_path: Path) -> None:
    """As somebody makes one from a dump: SQLite copies no rows between encodings. Its dump is published."""
    dump = subprocess.run(["sqlite3", public_path, ".dump"], check=True, capture_output=True).stdout
    odd, usual = tmp_path / "utf16.db", tmp_path / "utf8.db"
    subprocess.run(["sqlite3", odd], input=b"PRAGMA encoding = 'UTF-16le';" + dump, check=True)
    with pytest.raises(StoreError, match=r"UTF-16.*\.dump"):
        publish(odd, tmp_path / "public.db", PublishOptions())
    subprocess.run(f"sqlite3 '{odd}' .dump | sqlite3 '{usual}'", shell=True, check=True)  # noqa: S602
    assert publish(usual, tmp_path / "public.db", PublishOptions()).rows["repositories"]


def test_the_command_publishes_and_reports(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, files beside it, JSON; SOURCE_DATE_EPOCH; faults in one line."""
    monkeypatch.chdir(folder.path)
    (folder.path / "data").mkdir()
    fill_mixed(folder.path / "data/mirror.db").store.close()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    main(["publish", "public.db", "--check", "--inspect", "inspect.json", "--json", "--no-authors"])
    told = json.loads(capsys.readouterr().out)
    assert told["published_at"] == "2023-11-14T22:13:20.000000Z"
    assert told["rows"]["repositories"] == 7
    counted = json.loads(Path("inspect.json").read_text())["public"]
    assert (counted["hash"], counted["tables"]["tags"]["count"]) == (told["sha256"], told["rows"]["tags"])
    main(["publish", "public.db", "--force"])
    assert "7 public repositories as of 2023-11-14T22:13Z" in capsys.readouterr().out
    for words in (["public.db"], ["other.db", "--inspect", "data/mirror.db"], ["a.db", "--inspect", "a.db"]):
        assert ended("publish", *words) == 2
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert ended("publish", "other.db") == 2


def test_counts_replace_only_counts(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not another file, and none of the mirror's: without its `-wal`, it would lose its last commits."""
    monkeypatch.chdir(folder.path)
    (folder.path / "data").mkdir()
    fill_mixed(folder.path / "data/mirror.db").store.close()
    places = {"text": b"mine", "list.json": b"[1]", "other.json": b'{"a": 1}', "bytes": b"\xff" * 100}
    for name, held in places.items():
        Path(name).write_bytes(held)
        assert ended("publish", "a.db", "--inspect", name) == 2
        assert Path(name).read_bytes() == held
        assert "holds no counts" in capsys.readouterr().err
    for end in ("-wal", "-shm", "-journal", ".lock"):
        assert ended("publish", "a.db", "--inspect", f"data/mirror.db{end}") == 2, end
    for _ in range(2):
        main(["publish", "public.db", "--force", "--inspect", "inspect.json"])


def ended(*words: str) -> object:
    """Run a command that fails; return its exit code."""
    with pytest.raises(SystemExit) as end:
        main([*words])
    return end.value.code


def test_a_compressed_copy_with_checksums(mixed_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They match the files; a missing compressor is reported."""
    monkeypatch.chdir(mixed_path.parent)
    Path("mirror.toml").write_text('database = "mirror.db"\n')
    monkeypatch.setenv("PATH", "/nowhere", prepend=None)
    assert ended("publish", "public.db", "--zst") == 2
    assert not Path("public.db").exists()
    monkeypatch.undo()
    monkeypatch.chdir(mixed_path.parent)
    if subprocess.run(["which", "zstd"], capture_output=True, check=False).returncode:
        pytest.skip("needs zstd")
    main(["publish", "public.db", "--zst"])
    subprocess.run(
        ["sha256sum", "--check", "--quiet", "public.db.sha256", "public.db.zst.sha256"], check=True
    )
    unpacked = subprocess.run(["zstd", "-dcq", "public.db.zst"], capture_output=True, check=True).stdout
    assert unpacked == Path("public.db").read_bytes()


def test_a_replaced_file_leaves_nothing_that_was_made_of_it(mixed_path: Path, tmp_path: Path) -> None:
    """Neither what was compressed, which may hold what is private by now, nor checksums of other bytes."""
    target = tmp_path / "public.db"
    for name in ("public.db.zst", "public.db.sha256", "public.db.zst.sha256", "public.db.txt"):
        (tmp_path / name).write_text("of the day before")
    publish(mixed_path, target, PublishOptions())
    assert "public.db.zst" in names_in(tmp_path)
    publish(mixed_path, target, AGAIN)
    assert [name for name in names_in(tmp_path) if "mirror" not in name] == ["public.db", "public.db.txt"]


@pytest.mark.parametrize("words", [["sync"], ["token", "create", "a"], ["verify"], ["run"], ["schedule"]])
def test_nothing_writes_to_a_published_file(
    mixed_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what it is, and its bytes stay."""
    monkeypatch.chdir(mixed_path.parent)
    target = mixed_path.with_name("public.db")
    done = publish(mixed_path, target, PublishOptions())
    Path("mirror.toml").write_text('database = "public.db"\n')
    assert ended(*words) == 4
    assert "public.db: a published snapshot of 2026-11-0" in capsys.readouterr().err.splitlines()[-1]
    assert sha256_of(target) == done.sha256
    with closing(open_reader(target)) as connection:
        assert snapshot_moment(connection) == done.published_at
    assert all_rows(target)["api_tokens"] == []


def test_a_published_file_is_served_with_its_date(mixed_path: Path) -> None:
    """On pages, tables and APIs, for strangers, with open SQL; a mirror shows no such date."""
    target = mixed_path.with_name("public.db")
    done = publish(mixed_path, target, PublishOptions())
    served = AsgiClient(Datasette([], immutables=[str(target)]))
    plain = AsgiClient(Datasette([str(mixed_path)]))
    for path in ("/1.0/repositories/jespern/django-piston", "/2.0/repositories/jespern/django-piston"):
        answer = served.get(path)
        assert (answer.status_code, answer.headers["X-Mirror-Snapshot"]) == (200, done.published_at)
        assert "X-Mirror-Snapshot" not in plain.get(path).headers
    for path in ("/", "/public/repositories"):
        answer = served.get(path)
        assert answer.status_code == 200
        assert "published snapshot" in answer.text.lower()
    assert "published snapshot" not in plain.get("/").text.lower()
    found = served.get("/public.json?sql=select+count(*)+as+n+from+repositories&_shape=array")
    assert found.json() == [{"n": 7}]
    assert sha256_of(target) == done.sha256


def test_serving_a_published_file_warns_of_no_mode(folder: Folder) -> None:
    """It is public; a private file with that mode is reported."""
    fill_mixed(folder.path / "mirror.db").store.close()
    publish(folder.path / "mirror.db", folder.path / "public.db", PublishOptions())
    (folder.path / "mirror.toml").write_text('database = "public.db"\n')
    with started(folder, "serve", "--port", "0") as running:
        address = re.findall(r"http://\S+", running.stdout.readline())[0]
        answer = httpx.get(f"{address}/2.0/repositories/jespern/django-piston")
        assert (answer.status_code, "X-Mirror-Snapshot" in answer.headers) == (200, True)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=30)
    assert "open to other users" not in said
