"""Copies of a mirror: one state of it during writes, atomic, and private."""

import fcntl
import os
import resource
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cli_runner import Folder
from fixtures_db import PUBLIC, SEEN, FixtureDb, fill_many, fill_public, hg_ref, repository
from older_files import DUMPS, restored
from whole_files import all_rows, killed_at

from mirror.cli.main import main
from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.publish.snapshot import PublishOptions, publish
from mirror.store.backup import back_up, back_up_dated, dated_copies

NOW = datetime(2026, 11, 29, 6, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> FixtureDb:
    """A mirror of several megabytes, open for writing."""
    return fill_many(tmp_path_factory.mktemp("many") / "mirror.db", 2000, tags=1)


def test_a_copy_made_during_a_sync_is_one_snapshot(many: FixtureDb, tmp_path: Path) -> None:
    """Commits during the copying are not in the copy, not even in part."""
    before, steps = all_rows(many.path), list[int]()

    def write(done: int, _: int) -> None:
        steps.append(done)
        many.repositories([repository(f"late/row-{len(steps)}")])

    back_up(many.path, tmp_path / "copy.db", progress=write)
    assert len(steps) > 1
    assert all_rows(tmp_path / "copy.db") == before != all_rows(many.path)


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_equals_the_file_after_any_history(public_db: FixtureDb, seed: int) -> None:
    """Pages, refs, tombstones and failures in any order; each copy replaces the one before."""
    random, names = Random(seed), [one.full_name for one in PUBLIC]
    copy = public_db.path.with_name("copy.db")
    for turn in range(6):
        for _ in range(random.randrange(4)):
            name = random.choice(names)
            action = random.randrange(4)
            if action == 0:
                names.append(f"owner{random.randrange(5)}/made-{seed}-{turn}-{random.random()}")
                public_db.repositories([repository(names[-1], is_private=random.random() < 0.5)])
            elif action == 1:
                refs = [hg_ref("branch", f"b{n}", str(n)) for n in range(random.randrange(4))]
                public_db.refs(name, refs)
            elif action == 2:
                public_db.gone(name)
            else:
                public_db.failure(name)
        back_up(public_db.path, copy)
        assert all_rows(copy) == all_rows(public_db.path)


def test_a_copy_is_one_file_for_its_owner(public_db: FixtureDb) -> None:
    """Without a journal beside it, so one file is all there is to move."""
    copy = back_up(public_db.path, public_db.path.with_name("copy.db"))
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.read_bytes()[18:20] == b"\1\1"  # no WAL
    assert not list(copy.parent.glob("copy.db?*"))


def test_a_copy_follows_a_link(public_path: Path) -> None:
    """The target is replaced, and the link stays."""
    link = public_path.with_name("link.db")
    link.symlink_to("copy.db")
    back_up(public_path, link)
    assert link.is_symlink()
    assert all_rows(public_path.with_name("copy.db")) == all_rows(public_path)


@pytest.mark.parametrize(
    "place", ["itself", "link", "hard link", "journal", "text", "foreign", "live", "pipe"]
)
def test_only_earlier_copies_are_overwritten(public_db: FixtureDb, tmp_path: Path, place: str) -> None:
    """Neither the mirror under any name, nor other files, nor a mirror in use."""
    path = tmp_path / "there"
    if place == "itself":
        path = public_db.path
    elif place == "link":
        path.symlink_to(public_db.path)
    elif place == "hard link":
        path.hardlink_to(public_db.path)
    elif place == "journal":
        path = tmp_path / "mirror.db-wal"
    elif place == "text":
        path.write_text("what somebody wrote")
    elif place == "foreign":
        subprocess.run(["sqlite3", path, "CREATE TABLE a (b)"], check=True)
    elif place == "live":
        fill_public(path).store.close()
    else:
        os.mkfifo(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(ConfigError, match=r"is the mirror itself|is not a copy|not a regular file"):
        back_up(public_db.path, path)
    assert before == (path.read_bytes() if path.is_file() else b"")


def test_a_damaged_mirror_replaces_no_good_copy(many: FixtureDb, tmp_path: Path) -> None:
    """With a page of nonsense in the middle, the earlier copy stays."""
    good = back_up(many.path, tmp_path / "copy.db")
    broken, whole = tmp_path / "mirror.db", good.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    broken.write_bytes(whole[:middle] + b"\xff\xfe" * 2048 + whole[middle + 4096 :])
    with pytest.raises(StoreError, match=r"damaged|faults"):
        back_up(broken, good)
    assert good.read_bytes() == whole
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy.db", "mirror.db"]


def test_a_mirror_with_rows_that_point_nowhere_replaces_no_good_copy(public_path: Path) -> None:
    """SQLite reads such a file without an error."""
    good = back_up(public_path, public_path.with_name("copy.db"))
    whole = good.read_bytes()
    with closing(sqlite3.connect(public_path)) as connection, connection:
        connection.execute("UPDATE branches SET repository_id = repository_id + 999")
    with pytest.raises(StoreError, match=r"has faults, and was not copied: .*see: mirror verify"):
        back_up(public_path, good)
    assert good.read_bytes() == whole


def test_a_damaged_copy_is_replaced(public_path: Path) -> None:
    """Also a truncated or empty one."""
    copy = back_up(public_path, public_path.with_name("copy.db"))
    for left in (5000, 0):
        os.truncate(copy, left)
        back_up(public_path, copy)
        assert all_rows(copy) == all_rows(public_path)


def test_a_file_of_an_older_version_is_copied_as_it_is(tmp_path: Path) -> None:
    """It is not migrated by the copying."""
    restored(tmp_path / "mirror.db", DUMPS[0].read_text("utf-8"))
    back_up(tmp_path / "mirror.db", tmp_path / "copy.db")
    assert all_rows(tmp_path / "copy.db") == all_rows(tmp_path / "mirror.db")


def test_dated_copies_of_a_folder(public_path: Path) -> None:
    """The newest stay, other files too; a name has the time and the mirror."""
    folder = public_path.with_name("copies")
    made = [back_up_dated(public_path, folder, NOW + timedelta(hours=hour), keep=3).name for hour in range(5)]
    assert made[0] == "mirror-20261129T063000Z.db"
    (folder / "mirror-notes.db").write_text("mine")
    (folder / "other-20261129T063000Z.db").write_text("another mirror's")
    back_up_dated(public_path, folder, NOW + timedelta(hours=5), keep=None)
    assert [one.name for one in dated_copies(public_path, folder)][:3] == made[2:]
    back_up_dated(public_path, folder, NOW - timedelta(days=1), keep=1)  # the clock was set back
    assert len(dated_copies(public_path, folder)) == 1
    assert len(list(folder.iterdir())) == 3
    assert folder.stat().st_mode & 0o777 == 0o700


def test_two_copies_of_one_second_are_one_copy(public_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second replaces the first, also if the folder is relative, and is not removed as an older one."""
    monkeypatch.chdir(public_path.parent)
    for _ in range(2):
        made = back_up_dated(public_path, Path("copies"), NOW, keep=1)
    assert dated_copies(public_path, made.parent) == [made]


def test_a_copy_does_not_replace_a_published_file(public_path: Path) -> None:
    """It would put private rows where visitors look for public ones."""
    published = public_path.with_name("public.db")
    publish(public_path, published, PublishOptions())
    before = published.read_bytes()
    with pytest.raises(ConfigError, match="a published file"):
        back_up(public_path, published)
    assert published.read_bytes() == before


def test_a_second_process_waits_for_another_time(public_path: Path) -> None:
    """Two copies into one file would mix; the second is refused in one line."""
    with public_path.with_name("copy.db.part").open("w") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(StoreLocked, match="another process is writing it"):
            back_up(public_path, public_path.with_name("copy.db"))
    back_up(public_path, public_path.with_name("copy.db"))


def test_a_killed_copy_leaves_the_old_one_or_the_new(public_db: FixtureDb) -> None:
    """At every call; leftovers do not hinder the next one."""
    copy, old = public_db.path.with_name("copy.db"), None
    moment = killed = 0
    while True:
        old = old or all_rows(back_up(public_db.path, copy))
        public_db.repositories([repository(f"later/row-{moment}")], at=SEEN)
        new = all_rows(public_db.path)
        if not killed_at(moment, lambda: back_up(public_db.path, copy), where="mirror/store"):
            break
        found = all_rows(copy)
        assert found in (old, new), moment
        old, moment, killed = found, moment + 1, killed + 1
    assert killed > 20
    assert all_rows(copy) == new
    assert not list(copy.parent.glob("copy.db?*"))


def test_a_full_disk_is_one_line(folder: Folder) -> None:
    """Exit code 4; the earlier copy stays, and no large leftovers."""
    (folder.path / "data").mkdir()
    fill_public(folder.path / "data/mirror.db").store.close()
    copy, most = back_up(folder.path / "data/mirror.db", folder.path / "copy.db"), 60 * 1024
    before = copy.read_bytes()
    ran = subprocess.run(
        folder.command("backup", "copy.db"),
        cwd=folder.path,
        env=folder.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (4, "")
    assert len(ran.stderr.splitlines()) == 1
    assert "copy.db: " in ran.stderr
    assert copy.read_bytes() == before
    assert not list(folder.path.glob("copy.db?*"))


def test_the_command_backs_up_and_reports(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file, a folder by its slash, and what is wrong in one line."""
    monkeypatch.chdir(folder.path)
    (folder.path / "data").mkdir()
    fill_public(folder.path / "data/mirror.db").store.close()
    main(["backup", "copy.db"])
    assert "copy.db: a checked copy" in capsys.readouterr().out
    main(["backup", "copies/", "--keep", "1"])
    assert len(list((folder.path / "copies").iterdir())) == 1
    for words, code in (["copy.db", "--keep", "1"], 2), (["no/such/copy.db"], 4):
        with pytest.raises(SystemExit) as end:
            main(["backup", *words])
        assert end.value.code == code
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_journal_of_an_earlier_file_is_applied_to_a_copy(public_db: FixtureDb, tmp_path: Path) -> None:
    """Somebody had written to an earlier copy, and then removed it without what SQLite keeps beside it."""
    copy, journal = tmp_path / "copy.db", tmp_path / "copy.db-wal"
    back_up(public_db.path, copy)
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE repositories SET description = 'of an earlier time'")
        connection.commit()
        left = journal.read_bytes()
    copy.unlink()
    journal.write_bytes(left)
    back_up(public_db.path, copy)
    assert all_rows(copy) == all_rows(public_db.path)
