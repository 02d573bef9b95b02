"""Files that cannot be used: one line that says what to do and exit code 4, from every command."""

import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from cli_runner import Folder
from fixtures_db import SEEN
from fresh_python import fresh_python
from older_files import DUMPS, restored

from mirror.errors import StoreError
from mirror.queries.changes import changes_since
from mirror.queries.repositories import repository_details
from mirror.queries.status import read_status
from mirror.queries.visibility import OPERATOR
from mirror.search import search
from mirror.search.find import one_snapshot
from mirror.store import Store, schema
from mirror.store.changes import DESCRIBED, repository_changes
from mirror.store.faults import damage_explained
from mirror.store.files import open_reader
from mirror.store.repair import faults_of
from mirror.store.schema import VERSION
from mirror.times import utc_now

READING = (["search", "tool"], ["show", "ws/tool-1"], ["changes"], ["status"], ["token", "list"])
PAGE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with a small mirror, whose upstream is away."""
    found = Folder(tmp_path)
    found.configure("http://127.0.0.1:9/2.0", "retry = { attempts = 1 }")
    (tmp_path / "data").mkdir()
    restored(tmp_path / "data/mirror.db", DUMPS[-1].read_text("utf-8"))
    Store(tmp_path / "data/mirror.db").close()
    return found


def read_all(path: Path) -> None:
    """Read as each of the reading commands does."""
    with closing(open_reader(path)) as connection, damage_explained(path):
        search(connection, "tool")
        repository_details(connection, OPERATOR, "ws/tool-1")
        list(changes_since(connection, OPERATOR, "2026"))
        read_status(connection, utc_now())


def test_a_lack_of_memory_is_not_called_damage(tmp_path: Path) -> None:
    """Whatever a check of the file would say then."""
    (tmp_path / "mirror.db").write_bytes(b"not a database")
    with pytest.raises(MemoryError), damage_explained(tmp_path / "mirror.db"):
        raise MemoryError


def test_damage_to_any_page_is_reported(folder: Folder) -> None:
    """Each page in turn is cut off, zeroed, or overwritten: only StoreError is raised."""
    path = folder.path / "data/mirror.db"
    whole = path.read_bytes()
    told = 0
    for page in range(len(whole) // PAGE):
        before, after = whole[: page * PAGE], whole[(page + 1) * PAGE :]
        for damaged in (
            before + whole[page * PAGE :][:99],
            before + bytes(PAGE) + after,
            before + b"\xff\xfe" * (PAGE // 2) + after,
        ):
            path.write_bytes(damaged)
            try:
                read_all(path)
            except StoreError:
                told += 1
    assert told > len(whole) // PAGE


@pytest.mark.parametrize(
    "command", ["status", "sync", "verify", "publish out.db", "site out", "plan-split --mirrors 2"]
)
def test_every_command_says_that_a_file_is_damaged(folder: Folder, command: str) -> None:
    """Pages of all tables are overwritten."""
    path = folder.path / "data/mirror.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:PAGE] + b"\xff\xfe" * ((len(whole) - PAGE) // 2))
    ran = folder.run(*command.split())
    assert ran.code == 4
    assert "mirror.db: the file is damaged: restore a copy, or move it away" in ran.err


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("pipe", "not a regular file"),
        ("folder", "a folder"),
        ("text", "not an SQLite database"),
        ("other", "a database, but not a mirror"),
        ("circle of links", "no mirror there yet|cannot be opened"),
    ],
)
def test_a_file_that_is_not_a_mirror_is_reported(tmp_path: Path, kind: str, says: str) -> None:
    """A pipe does not block, and another program's database stays unchanged."""
    path = tmp_path / "mirror.db"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle of links":
        path.symlink_to("mirror.db")
    elif kind == "other":
        restored(path, "CREATE TABLE upstreams (id)")
    else:
        path.write_text("no database\n" * 500)
    for opens in (open_reader, Store):
        with pytest.raises(StoreError, match=says):
            opens(path)


@pytest.mark.parametrize("has_header", [False, True])
def test_an_empty_file_is_not_yet_a_mirror(folder: Folder, has_header: bool) -> None:
    """Readers and the server say what makes it one; a full disk may leave a header alone."""
    (folder.path / "data/mirror.db").write_bytes(b"")
    if has_header:
        restored(folder.path / "data/mirror.db", "PRAGMA journal_mode = WAL")
    for command in (["status"], ["serve", "--port", "0"]):
        ran = folder.run(*command)
        assert ran.code == 4
        assert "no mirror there yet; `mirror sync` makes one" in ran.err


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 program is not here")
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_dump_is_restored_and_read(folder: Folder, is_damaged: bool) -> None:
    """`.dump` omits the numbers that mark a mirror; it saves the readable part of a damaged file."""
    path, new = folder.path / "data/mirror.db", folder.path / "new.db"
    if is_damaged:
        with closing(sqlite3.connect(path)) as connection:
            root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'tags'").fetchone()[0]
        whole = path.read_bytes()
        path.write_bytes(whole[: (root - 1) * PAGE] + b"\xff" * PAGE + whole[root * PAGE :])
    command = f"sqlite3 {path} .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 {new}"
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=30)
    shutil.move(new, path)
    read_all(path)
    with Store(path) as store:
        assert store.row("PRAGMA user_version")[0] == VERSION
        assert store.row("SELECT count(*) FROM repositories")[0] == 6
    assert folder.run("search", "tool").out.startswith("3 found")


def _can_dump() -> bool:
    """Tell whether this Python's `iterdump` knows virtual tables: that of 3.11.2 makes their tables twice."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(word)")
        return any("writable_schema" in line for line in connection.iterdump())


dumping = pytest.mark.skipif(not _can_dump(), reason="this Python cannot dump virtual tables")


@dumping
def test_a_dump_of_python_is_restored_and_read(folder: Folder) -> None:
    """`iterdump` writes no rows of virtual tables, so the mirror's have none of their own."""
    path, new = folder.path / "data/mirror.db", folder.path / "new.db"
    with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(new)) as restored:
        restored.executescript("\n".join(old.iterdump()))
        restored.commit()
    shutil.move(new, path)
    read_all(path)
    assert folder.run("search", "tool").out.startswith("3 found")
    assert folder.run("verify", "--sample", "0").code == 0


@dumping
def test_what_a_dump_of_tables_left_out_is_made_again(folder: Folder) -> None:
    """Without its triggers, later changes would be missing in searches."""
    path, new = folder.path / "data/mirror.db", folder.path / "new.db"
    beside = "SELECT type, name FROM sqlite_master WHERE type <> 'table' ORDER BY name"
    with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(new)) as restored:
        whole = old.execute(beside).fetchall()
        left_out = ("CREATE INDEX", "CREATE UNIQUE INDEX", "CREATE TRIGGER", "CREATE VIEW")
        restored.executescript("\n".join(each for each in old.iterdump() if not each.startswith(left_out)))
    shutil.move(new, path)
    assert folder.run("search", "tool").out.startswith("3 found")
    with Store(path) as store:
        assert store.rows(beside) == whole


def test_a_mirror_without_triggers_gets_them_and_new_indexes(folder: Folder) -> None:
    """Its marks are right, so it may have been written to: its search indexes are not believed."""
    path = folder.path / "data/mirror.db"
    named = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute(named).fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE repositories SET name = 'quiet', slug = 'quiet' WHERE slug = 'tool-1'")
        connection.commit()
    with Store(path) as store:
        assert store.rows(named) == triggers
        assert triggers
        assert "has lost rows" in folder.run("search", "quiet").err
        assert store.mend_search_index()
    assert folder.run("search", "quiet").out.startswith("1 found")


PARTS = "SELECT name FROM sqlite_master WHERE name GLOB 'search_*' ORDER BY name"


_OF_FTS5 = [f"descriptions_{name}" for name in ("config", "data", "idx")]


@pytest.mark.parametrize(
    ("table", "command"),
    [
        ("search_common", "search tool"),
        ("search_ref_names", "refs main"),
        ("search_descriptions", "search tool --in description"),
    ],
)
@pytest.mark.parametrize("is_dump", [False, True])
def test_a_lost_table_of_an_index_is_made_by_a_repair(
    folder: Folder, table: str, command: str, *, is_dump: bool
) -> None:
    """No copy has to be restored, since all of it follows from the rows; a dump lost the mark, too.

    A table that somebody has added does not stand for the lost one.
    """
    path = folder.path / "data/mirror.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE search_of_mine (text)")
        parts = connection.execute(PARTS).fetchall()
        connection.execute(f"DROP TABLE {table}")
        if is_dump:
            connection.execute("PRAGMA application_id = 0")
    before = folder.run(*command.split())
    assert (before.code, before.err.count("\n")) == (4, 1)
    assert f"`mirror verify --repair` builds it anew (no such table: {table})" in before.err
    assert f"{table}\n" in folder.run("verify", "--sample", "0").out
    assert folder.run("verify", "--sample", "0", "--repair").code == 0
    assert folder.run(*command.split()).code == 0
    assert "are whole" in folder.run("verify", "--sample", "0").out
    with Store(path) as store:
        assert store.rows(PARTS) == parts
        others = {name for (name,) in parts} - schema.SEARCH_PARTS
        assert others == {f"search_{name}" for name in (*_OF_FTS5, "of_mine")}


@pytest.mark.parametrize("table", ["branches", "repositories"])
def test_an_index_with_refs_that_are_not_there_is_one_line(folder: Folder, table: str) -> None:
    """Somebody deleted rows, and the triggers that would tell the index."""
    path = folder.path / "data/mirror.db"
    with Store(path) as store:
        store.finish_search_index()
    with closing(sqlite3.connect(path)) as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
        for (name,) in connection.execute(names, (table,)).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(f"DELETE FROM {table}")
        connection.commit()
    ran = folder.run("refs", "main")
    assert (ran.code, ran.err.count("\n")) == (4, 1)
    assert "mirror verify --repair" in ran.err


def test_values_of_wrong_types_are_told_and_replaced(folder: Folder) -> None:
    """Other programs may write a BLOB into a column of texts, and a text into one of numbers."""
    path = folder.path / "data/mirror.db"
    for column, value in (("description", b"\0\xff"), ("size", "many"), ("last_seen_at", "\0" * 27)):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE repositories SET {column} = ?", (value,))
            connection.commit()
        ran = folder.run("show", "ws/tool-1")
        assert (ran.code, ran.err.count("\n")) == (4, 1)
        assert f"repositories.{column} has a value of another type" in ran.err
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE repositories SET {column} = ?", (SEEN if "_at" in column else None,))
            connection.commit()
    old = dict.fromkeys(DESCRIBED) | {"description": b"\0\xff"}
    same = {"last_seen_at": None, "deleted_at": None, "full_name": "o/r", "is_private": 0}
    new = dict.fromkeys(DESCRIBED) | {"description": "text"}
    (change,) = repository_changes(1, old | same, new | same)
    assert change.old == '{"description": "\\u0000\ufffd"}'


def test_a_full_text_index_that_cannot_be_opened_is_damage(folder: Folder) -> None:
    """SQLite's own words would be "vtable constructor failed"."""
    path = folder.path / "data/mirror.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM search_descriptions_config")
        connection.execute("DELETE FROM search_descriptions_data")
        connection.commit()
    ran = folder.run("search", "tool", "--in", "description")
    assert ran.code == 4
    assert "the file is damaged: restore a copy" in ran.err


def test_an_index_with_values_of_wrong_types_is_one_line(folder: Folder) -> None:
    """SQLite finds no fault in a page that is in the place of another one."""
    path = folder.path / "data/mirror.db"
    with Store(path) as store:
        store.finish_search_index()
        store.connection.execute("UPDATE OR REPLACE search_ref_rare SET path = 'text'")
    ran = folder.run("refs", "main")
    assert (ran.code, ran.err.count("\n")) == (4, 1)
    assert "`mirror verify --repair` builds it anew" in ran.err


def test_a_migration_that_fails_says_what_to_do(tmp_path: Path) -> None:
    """The file stays unchanged, for the version that made it."""
    path = tmp_path / "mirror.db"
    restored(path, DUMPS[0].read_text("utf-8") + "CREATE TABLE writes (id);")
    with pytest.raises(StoreError, match=r"cannot be brought up to date from schema 3 .* keep it"):
        Store(path)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="this needs root")
def test_a_read_only_mount_is_read(folder: Folder) -> None:
    """Without the files that WAL mode needs; with an unread journal, it is refused."""
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
    within = ("unshare", "-m", "sh", "-c", script, str(folder.path))
    with fresh_python(folder, within=within) as run:
        for command in READING:
            ran = run(*command)
            assert (ran.code, ran.err) == (0, "")
        for command in (["sync"], ["token", "create", "a"], ["schedule"], ["run", "--port", "0"]):
            written = run(*command)
            assert written.code == 4
            assert "read-only" in written.err.lower().splitlines()[-1]
        (folder.path / "data/mirror.db-wal").write_bytes(b"a journal")
        refused = run("status")
    assert refused.code == 4
    assert "copy both into a folder that can be written" in refused.err


def test_an_error_of_the_disk_in_a_snapshot_stays_itself(folder: Folder) -> None:
    """SQLite ends the transaction by such an error, so that none can be committed."""
    with closing(open_reader(folder.path / "data/mirror.db")) as connection:

        def fail() -> None:
            with one_snapshot(connection):
                connection.execute("ROLLBACK")
                raise sqlite3.OperationalError("disk I/O error")

        with pytest.raises(sqlite3.OperationalError, match="disk I/O"):
            fail()
        with one_snapshot(connection):
            assert connection.in_transaction
        assert not connection.in_transaction


def test_a_mirror_on_a_full_disk_is_read(folder: Folder) -> None:
    """SQLite needs a file beside one in WAL mode, for which there is no room; nobody writes then."""
    limited = ("bash", "-c", 'trap "" XFSZ; ulimit -f 0; exec "$@"', "-")
    with fresh_python(folder, within=limited) as run:
        for command in (*READING, ["token", "create", "a"]):
            ran, writes = run(*command), command not in READING
            assert (ran.code, "the disk is full" in ran.err) == (4 if writes else 0, writes)


def test_a_long_check_handles_signals_meanwhile(tmp_path: Path) -> None:
    """Python handles none while SQLite reads a large file in one call."""
    sqlite3.enable_callback_tracebacks(False)
    path, handled = tmp_path / "large.db", [0]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER)")
        connection.execute("CREATE INDEX i ON t (a)")
        connection.execute(
            "INSERT INTO t WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n LIMIT 300000)"
            " SELECT v FROM n"
        )
        connection.commit()

    def interrupt(*_: object) -> None:
        handled[0] += 1
        if handled[0] == 6:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGPROF, interrupt)
    try:
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)  # CPU time, so that other programs do not matter
        with pytest.raises(KeyboardInterrupt):
            faults_of(path)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
