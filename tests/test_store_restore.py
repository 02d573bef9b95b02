"""Restoring a copy: the old file is kept, and everything unknown since the copy is marked."""

import errno
import fcntl
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from cli_runner import Folder
from fixtures_db import SEEN, FixtureDb, fill_public, repository
from older_files import DUMPS, restored
from whole_files import Rows, all_rows, killed_at

from mirror.cli.main import main
from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.store import Store, tokens
from mirror.store.backup import Restored, Trust, back_up, restore_copy
from mirror.store.cursors import Cursors
from mirror.store.ledger import RequestLedger
from mirror.store.lock import server_mark, service_mark, sync_lock
from mirror.store.runs import start_run
from mirror.store.schema import VERSION, awaits_listing

NOW = datetime(2026, 11, 29, 6, 30, tzinfo=UTC)
DOUBT = Trust()
MARKED = {"api_tokens", "cursors", "request_ledger", "request_limits", "sqlite_sequence"}
"""Tables in which a restored file differs from its copy."""


def put_back(
    copy: Path, mirror: Path, trust: Trust = DOUBT, limits: Mapping[str, int | None] | None = None
) -> Restored:
    """Restore at a fixed moment."""
    return restore_copy(copy, mirror, NOW, mode=0o600, trust=trust, limits=limits or {})


def unmarked(rows: Rows) -> Rows:
    """Leave out the marks of a restored file."""
    return {table: found for table, found in rows.items() if table not in MARKED}


@pytest.fixture
def copied(public_db: FixtureDb) -> FixtureDb:
    """A mirror with a run, a token and requests, its copy, and one later repository."""
    store, upstream = public_db.store, public_db.upstream_id
    with store.transaction() as connection:
        start_run(connection, upstream, "full", at=SEEN)
    tokens.create(store, "laptop")
    tokens.create(store, "lost")
    RequestLedger(store).reserve("me@cloud", 1000, NOW - timedelta(minutes=50))
    back_up(public_db.path, copy_of(public_db))
    public_db.repositories([repository("later/row")])
    tokens.revoke(store, "lost")
    return public_db


def copy_of(db: FixtureDb) -> Path:
    return db.path.with_name("copy.db")


def used(path: Path, bucket: str, now: datetime = NOW) -> int:
    """Count the requests of the last hour."""
    with Store(path) as store:
        return RequestLedger(store).used(bucket, now)


def living_tokens(path: Path) -> list[str]:
    with Store(path) as store:
        return [one.name for one in tokens.listed(store.connection) if one.revoked_at is None]


def test_a_restore_replaces_the_file_and_keeps_the_old_one(copied: FixtureDb) -> None:
    """Row by row, both with commits that are only in the journal."""
    mirror, before = copied.path, all_rows(copied.path)
    copied.store.close()
    done = put_back(copy_of(copied), mirror)
    assert done.kept == mirror.with_name("mirror.db.before-20261129T063000Z")
    assert all_rows(done.kept) == before
    assert unmarked(all_rows(mirror)) == unmarked(all_rows(copy_of(copied))) != unmarked(before)
    assert (done.repositories, done.as_of) == (5, SEEN)
    assert mirror.stat().st_mode & 0o777 == 0o600
    assert not list(mirror.parent.glob("*restoring*"))
    again = put_back(copy_of(copied), mirror)
    assert again.kept == mirror.with_name("mirror.db.before-20261129T063000Z-2")


def test_tokens_are_revoked(copied: FixtureDb) -> None:
    """All of them, or with --keep-tokens only those revoked since in the replaced file."""
    copied.store.close()
    assert put_back(copy_of(copied), copied.path).revoked == 1  # the other one is known to be revoked
    assert living_tokens(copied.path) == []


def test_keep_tokens_keeps_tokens(copied: FixtureDb) -> None:
    """A token revoked since the copy stays revoked."""
    copied.store.close()
    assert put_back(copy_of(copied), copied.path, Trust(tokens=True)).revoked == 0
    assert living_tokens(copied.path) == ["laptop"]


def test_an_old_login_is_not_valid_for_a_new_token(copied: FixtureDb) -> None:
    """A token made after the copy and one made after the restore have the same name."""
    forgotten = tokens.find(copied.store.connection, tokens.create(copied.store, "ci"))
    copied.store.close()
    for trust in (DOUBT, Trust(tokens=True)):
        put_back(copy_of(copied), copied.path, trust)
        with Store(copied.path) as store:
            new = tokens.find(store.connection, tokens.create(store, "ci"))
            assert forgotten is not None
            assert new is not None
            assert new.id > forgotten.id
            assert tokens.find_by_id(store.connection, forgotten.id) is None


def test_requests_of_the_replaced_file_are_counted(copied: FixtureDb) -> None:
    """It continued from the copy, so it knows each request, and holds of 429s."""
    ledger = RequestLedger(copied.store)
    for minute in range(3):
        ledger.reserve("me@cloud", 1000, NOW - timedelta(minutes=minute))
    ledger.hold("me@cloud", NOW + timedelta(minutes=5))
    copied.store.close()
    assert put_back(copy_of(copied), copied.path).budget_is_known
    assert used(copied.path, "me@cloud") == 4
    with Store(copied.path) as store:
        no_room = RequestLedger(store).reserve("me@cloud", 1000, NOW)
    assert no_room is not None
    assert no_room.held


@pytest.mark.parametrize("before", ["nothing", "another mirror", "no mirror", "damaged", "an older version"])
def test_an_unknown_budget_counts_as_spent(copied: FixtureDb, before: str) -> None:
    """For an hour, for each account with a limit in the copy or the configuration."""
    copied.store.close()
    copied.path.unlink()
    if before == "another mirror":
        fill_public(copied.path).store.close()
    elif before == "no mirror":
        copied.path.write_text("nonsense")
    elif before == "damaged":
        copied.path.write_bytes(copy_of(copied).read_bytes()[:4096] + b"\xff" * 40_000)
    elif before == "an older version":
        restored(copied.path, DUMPS[0].read_text("utf-8"))
    kept = copied.path.read_bytes()[100:4096] if before != "nothing" else None
    done = put_back(copy_of(copied), copied.path, limits={"new@cloud": 950, "free@box": None})
    assert not done.budget_is_known
    assert (done.kept.read_bytes()[100:4096] if done.kept else None) == kept
    assert used(copied.path, "me@cloud") > 100_000
    assert used(copied.path, "new@cloud") == 950
    assert used(copied.path, "free@box") == 0
    assert used(copied.path, "me@cloud", NOW + timedelta(hours=1, seconds=1)) == 0


def test_strangers_wait_for_a_full_listing_of_each_upstream(copied: FixtureDb) -> None:
    """Every workspace must be swept again; with --keep-public, nobody waits."""
    copied.store.close()
    assert put_back(copy_of(copied), copied.path).unconfirmed == ("cloud",)
    with Store(copied.path) as store:
        assert awaits_listing(store.connection)
        assert all(state.swept_at is None for _, state in Cursors(store.connection, 1).workspaces())
    assert put_back(copy_of(copied), copied.path, Trust(public=True)).unconfirmed == ()
    with Store(copied.path) as store:
        assert not awaits_listing(store.connection)


def test_a_trusted_copy_of_a_file_that_awaits_a_listing_awaits_none(copied: FixtureDb) -> None:
    """Of an upstream that no longer exists, all later copies are of such a file."""
    copied.store.close()
    put_back(copy_of(copied), copied.path)
    later = back_up(copied.path, copied.path.with_name("later.db"))
    put_back(later, copied.path, Trust(public=True))
    with Store(copied.path) as store:
        assert not awaits_listing(store.connection)


def test_a_newer_copy_is_refused(copied: FixtureDb) -> None:
    """Without any change; the message has both versions."""
    copied.store.close()
    before = all_rows(copied.path)
    with closing(sqlite3.connect(copy_of(copied))) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StoreError, match=f"schema {VERSION + 1}, this program knows {VERSION}"):
        put_back(copy_of(copied), copied.path)
    assert all_rows(copied.path) == before


@pytest.mark.parametrize("dump", DUMPS[::4], ids=lambda path: str(path.stem))
def test_an_older_copy_is_brought_up_to_date(tmp_path: Path, dump: Path) -> None:
    """The copy itself does not change."""
    restored(tmp_path / "copy.db", dump.read_text("utf-8"))
    before = (tmp_path / "copy.db").read_bytes()
    put_back(tmp_path / "copy.db", tmp_path / "new" / "mirror.db")
    with Store(tmp_path / "new" / "mirror.db") as store:
        assert store.value("PRAGMA user_version") == VERSION
    assert (tmp_path / "copy.db").read_bytes() == before


@pytest.mark.parametrize("what", ["missing", "folder", "itself", "link"])
def test_a_file_that_is_not_a_copy_is_refused(public_path: Path, what: str) -> None:
    """As a usage error, in one sentence."""
    copy = public_path.with_name("there")
    if what == "folder":
        copy.mkdir()
    elif what == "link":
        copy.symlink_to(public_path)
    with pytest.raises(ConfigError, match="give"):
        put_back(public_path if what == "itself" else copy, public_path)


@pytest.mark.parametrize("damage", ["foreign", "text", "cut", "page", "empty"])
def test_a_copy_with_faults_is_refused(copied: FixtureDb, damage: str) -> None:
    """The mirror stays, byte by byte; the message names the copy and says what to give."""
    copied.store.close()
    copy = copy_of(copied)
    whole, before = copy.read_bytes(), copied.path.read_bytes()
    if damage == "foreign":
        copy.unlink()
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("CREATE TABLE a (b)")
    else:
        middle = len(whole) // 2 // 4096 * 4096
        copy.write_bytes(
            {
                "text": b"what somebody wrote",
                "cut": whole[:middle],
                "page": whole[:middle] + b"\xff\xfe" * 2048 + whole[middle + 4096 :],
                "empty": b"",
            }[damage]
        )
    with pytest.raises(StoreError, match=rf"^{copy}: .*; give a copy that `mirror backup` made$"):
        put_back(copy, copied.path)
    assert copied.path.read_bytes() == before
    assert not [one for one in copied.path.parent.iterdir() if "before" in one.name or "restor" in one.name]


def test_a_restore_is_refused_while_a_process_has_the_file_open(copied: FixtureDb) -> None:
    """A service, a sync, any other reader: one sentence, and nothing is done."""
    before = all_rows(copied.path)
    with pytest.raises(StoreLocked, match="has it open"):
        put_back(copy_of(copied), copied.path)
    copied.store.close()
    with closing(sqlite3.connect(f"file:{copied.path}?mode=ro", uri=True)) as reading:
        reading.execute("SELECT count(*) FROM users").fetchone()
        with pytest.raises(StoreLocked, match="has it open"):
            put_back(copy_of(copied), copied.path)
    with service_mark(copied.path), pytest.raises(StoreLocked, match="a service runs on it"):
        put_back(copy_of(copied), copied.path)
    with server_mark(copied.path), pytest.raises(StoreLocked, match="a service runs on it"):
        put_back(copy_of(copied), copied.path)
    with sync_lock(copied.path), pytest.raises(StoreLocked, match="is syncing"):
        put_back(copy_of(copied), copied.path)
    with copied.path.with_name("mirror.db.restoring").open("w") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(StoreLocked, match="another process is writing it"):
            put_back(copy_of(copied), copied.path)
    assert all_rows(copied.path) == before
    put_back(copy_of(copied), copied.path)


def test_a_damaged_file_that_somebody_has_open_is_not_replaced(copied: FixtureDb) -> None:
    """SQLite cannot say who has it open, but its lock can."""
    copied.store.close()
    with closing(sqlite3.connect(copied.path)) as reading:
        reading.execute("PRAGMA journal_mode = WAL")
        reading.execute("SELECT count(*) FROM users").fetchone()
        child = subprocess.Popen(
            ["sqlite3", copied.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("SELECT 'is open' FROM users LIMIT 1;\n")
        child.stdin.flush()
        assert child.stdout.readline() == "is open\n"
    with copied.path.open("r+b") as file:
        file.write(b"\xff" * 100)
    with pytest.raises(StoreLocked, match="has it open"):
        put_back(copy_of(copied), copied.path)
    child.communicate(".quit\n")
    put_back(copy_of(copied), copied.path)


@pytest.mark.parametrize("before", ["damaged", "gone"])
def test_an_old_journal_is_not_applied_to_the_new_file(copied: FixtureDb, before: str) -> None:
    """A whole journal of a file that is damaged or was removed by hand."""
    journal = copied.path.with_name("mirror.db-wal")
    whole = journal.read_bytes()
    copied.store.close()
    journal.write_bytes(whole)
    if before == "gone":
        copied.path.unlink()
    else:
        copied.path.write_bytes(b"\xff" * 40_000)
    put_back(copy_of(copied), copied.path)
    assert unmarked(all_rows(copied.path)) == unmarked(all_rows(copy_of(copied)))


def test_a_killed_restore_leaves_the_old_file_or_the_new_one(copied: FixtureDb) -> None:
    """At every call; leftovers do not hinder the next one."""
    copied.store.close()
    mirror, copy = copied.path, copy_of(copied)
    old, new = unmarked(all_rows(mirror)), unmarked(all_rows(copy))
    whole = mirror.read_bytes()
    moment = killed = 0
    while killed_at(moment, lambda: put_back(copy, mirror), where="mirror/store/"):
        found = unmarked(all_rows(mirror))
        assert found in (old, new), moment
        for kept in mirror.parent.glob("*.before-*"):
            assert unmarked(all_rows(kept)) == old
            kept.unlink()
        if found == new:
            mirror.write_bytes(whole)
        moment, killed = moment + 4, killed + 1
    assert killed > 20
    assert unmarked(all_rows(mirror)) == new
    assert not list(mirror.parent.glob("*restoring*"))


def test_a_full_disk_is_one_line(folder: Folder) -> None:
    """Exit code 4; the mirror stays, and no large leftovers."""
    (folder.path / "data").mkdir()
    path, most = folder.path / "data/mirror.db", 60 * 1024
    fill_public(path).store.close()
    back_up(path, folder.path / "copy.db")
    before = path.read_bytes()
    ran = subprocess.run(
        folder.command("restore", "copy.db"),
        cwd=folder.path,
        env=folder.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (4, "")
    assert len(ran.stderr.splitlines()) == 1
    assert path.read_bytes() == before
    assert not [one.name for one in path.parent.iterdir() if "restor" in one.name]


@pytest.mark.parametrize(
    ("failing", "number", "says"),
    [
        ("replace", errno.ENOSPC, "the disk is full"),
        ("fsync", errno.EIO, "the disk could not be read or written"),
        ("lockf", errno.ENOLCK, "the file system has no locks"),
    ],
)
def test_a_file_that_cannot_be_replaced_keeps_one_name(
    copied: FixtureDb, failing: str, number: int, says: str
) -> None:
    """A program that opened it by another name would write a journal that no other program reads."""
    copied.store.close()

    def fail(_: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ == failing:
            raise OSError(number, os.strerror(number))

    sys.setprofile(fail)
    try:
        with pytest.raises(StoreError, match=says):
            put_back(copy_of(copied), copied.path)
    finally:
        sys.setprofile(None)
    assert copied.path.stat().st_nlink == 1
    assert not list(copied.path.parent.glob("*before*"))


def test_the_command_restores_and_reports(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints what is kept, revoked and waiting; with a running service it does nothing."""
    (folder.path / "data").mkdir()
    monkeypatch.chdir(folder.path)
    filled = fill_public(folder.path / "data/mirror.db")
    tokens.create(filled.store, "laptop")
    filled.store.close()
    folder.configure("http://127.0.0.1:9/2.0", "requests_per_hour = 77")
    back_up(folder.path / "data/mirror.db", folder.path / "copy.db")
    main(["restore", "copy.db"])
    said = capsys.readouterr().out
    for part in ("5 repositories", "kept: ", "revoked tokens: 1", "counts as spent", "strangers see"):
        assert part in said
    assert "not configured, so never listed: cloud" in said
    with closing(sqlite3.connect("data/mirror.db")) as connection:
        assert connection.execute("SELECT requests FROM request_ledger").fetchall() == [(77,), (57_000,)]
    main(["restore", "copy.db", "--keep-public", "--keep-tokens"])
    said = capsys.readouterr().out
    assert "strangers" not in said
    assert "revoked" not in said
    with service_mark(folder.path / "data/mirror.db"), pytest.raises(SystemExit) as end:
        main(["restore", "copy.db"])
    assert end.value.code == 4
    assert capsys.readouterr().err.endswith("a service runs on it; stop it first\n")


def test_a_restore_by_root_keeps_the_owner(copied: FixtureDb) -> None:
    """So a service of another user can use the file, and those that lock it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    copied.store.close()
    os.chown(copied.path, 12345, 12345)
    put_back(copy_of(copied), copied.path)
    with service_mark(copied.path):
        made = [copied.path.with_name(f"{copied.path.name}{end}") for end in ("", ".lock", ".service")]
        assert [path.stat().st_uid for path in made] == [12345] * 3


def test_a_link_in_the_place_of_a_lock_is_not_followed(copied: FixtureDb, tmp_path: Path) -> None:
    """Another user may have put it there for root, who would empty the file."""
    other = tmp_path / "other"
    other.write_text("mine")
    copied.path.with_name(f"{copied.path.name}.lock").symlink_to(other)
    with pytest.raises(StoreError), sync_lock(copied.path):
        pass
    assert other.read_text() == "mine"
