"""Exports into a lake: all rows, then what changed; each manifest names one whole export."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from fixtures_db import LATER, FixtureDb, hg_ref, owner, repository
from lake_reader import files_of, held, latest, rows_of
from prepared_files import copy_empty

from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.lake import NEEDS_PYARROW
from mirror.lake.columns import TABLES, bucket_of, instance_of
from mirror.lake.export import Exported, ExportOptions, export
from mirror.lake.place import Place
from mirror.model import Project
from mirror.publish.selection import MADE, tables_of
from mirror.store.cursors import Cursors
from mirror.store.lock import export_lock
from mirror.store.owners import save_owner, save_project
from mirror.store.refs import write_refs
from mirror.store.repair import give_uuid
from mirror.times import from_text

LEFT_OUT = {
    "repositories": {
        "id", "upstream_id", "owner_id", "parent_id", "refs_stale", "public_from", "refs_synced_at",
        "refs_known_since",
    },
    "users": {"id", "upstream_id"},
    "branches": {"repository_id"},
    "tags": {"repository_id"},
    "members": {"workspace_id", "user_id"},
    "followers": {"repository_id", "user_id"},
    "projects": {"id", "upstream_id", "owner_id"},
    "changes": {
        "id", "run_id", "repository_id", "user_id", "previous_look", "forced", "old_date", "is_main",
    },
    "sync_runs": {"id", "upstream_id"},
    "upstreams": {"id", "name"},
}  # fmt: skip
"""By table of a mirror: numbers of rows, for which the lake has identities, and what it has otherwise."""

KEPT_IN_THE_MIRROR = frozenset(
    {
        "api_tokens", "cursors", "extras", "measures", "mirror_meta", "request_ledger", "request_limits",
        "seen_refs", "sync_failures", "webhook_deliveries", "writes",
    }
)  # fmt: skip
"""Tables of a mirror of which the lake has nothing.

`extras` holds keys that nobody has looked at, `measures` is for the past alone.
"""


def exported(path: Path, lake: Path, **options: bool) -> Exported:
    """Export a mirror."""
    return export(path, Place(str(lake)), ExportOptions(**options))


def sql(path: Path, statement: str) -> list[Any]:
    """Run a statement on a mirror file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(statement)]


def test_every_row_is_exported_with_its_types(mixed_path: Path, tmp_path: Path) -> None:
    """As SQL has it: times in UTC, flags, lists, identities in place of row ids."""
    done = exported(mixed_path, tmp_path / "lake")
    assert (done.what, done.seq, done.rows["repositories"], done.rows["refs"]) == ("full", 1, 11, 9)
    rows = rows_of(tmp_path / "lake")
    there = {row["uuid"]: row for row in rows["repositories"]}
    for row in sql(
        mixed_path, "SELECT r.*, o.uuid AS owner_uuid FROM repositories r JOIN users o ON o.id = owner_id"
    ):
        found = there.pop(row["uuid"])
        assert found["instance"] == "https://api.example.com/2.0"
        for name in ("slug", "full_name", "description", "size", "forks_count", "parent_uuid", "owner_uuid"):
            assert found[name] == row[name]
        for name in ("is_private", "has_wiki"):
            assert found[name] is (None if row[name] is None else bool(row[name]))
        assert found["created_at"] == from_text(row["created_at"])
        assert found["deleted_at"] == (row["deleted_at"] and from_text(row["deleted_at"]))
    assert there == {}
    (default,) = [row for row in rows["refs"] if row["name"] == "default" and row["heads"]]
    assert default["heads"] == ["a" * 40]
    assert default["target_parents"] == ["0" * 40]
    assert default["target_date"] == datetime(2010, 7, 20, 12, tzinfo=UTC)
    for file in latest(tmp_path / "lake")["tables"]["refs"]:
        assert (
            f"bucket={bucket_of('{jespern/django-piston}'):02x}" in file["path"] or "bucket=" in file["path"]
        )
    assert len(rows["changes"]) == len(sql(mixed_path, "SELECT 1 FROM changes"))
    assert [row["permission"] for row in rows["members"]] == ["owner"]


def test_nothing_changed_writes_no_file(mixed_path: Path, tmp_path: Path) -> None:
    """Not after a listing that found no change, nor after a run."""
    lake = tmp_path / "lake"
    exported(mixed_path, lake)
    before = files_of(lake)
    assert exported(mixed_path, lake).what == "nothing"
    filled = FixtureDb(mixed_path)
    filled.repositories([repository("mcatalbas/codeigniter", name="CodeIgniter", language="php",
                                    followers_count=12)], at=LATER)  # fmt: skip
    filled.store.close()
    sql(mixed_path, "INSERT INTO sync_runs (upstream_id, kind, started_at, state) VALUES (1, 'full', '', '')")
    done = exported(mixed_path, lake)
    assert (done.what, done.files) == ("nothing", 0)
    assert files_of(lake) == before


def test_only_what_changed_is_added(mixed_path: Path, tmp_path: Path) -> None:
    """A changed repository with all its refs and followers; a deleted ref is absent."""
    lake = tmp_path / "lake"
    exported(mixed_path, lake)
    filled = FixtureDb(mixed_path)
    filled.refs("jespern/django-piston", [hg_ref("branch", "default", "9", heads=("9" * 40,))], at=LATER)
    filled.store.close()
    done = exported(mixed_path, lake)
    assert (done.what, done.rows["repositories"], done.rows["refs"]) == ("changes", 1, 1)
    refs = [row["name"] for row in held(lake)["refs"] if "django-piston" in row["repository_uuid"]]
    assert refs == ["default"]
    assert latest(lake)["additions"] == 1


WRITES = (
    "UPDATE repositories SET description = 'other' WHERE id = 1",
    "UPDATE repositories SET public_from = 9223372036854775807 WHERE id = 1",
    "UPDATE repositories SET refs_synced_at = '2026-11-09T00:00:00.000000Z' WHERE id = 1",
    "UPDATE branches SET target_hash = 'f' WHERE repository_id = 1",
    "INSERT INTO branches (repository_id, name, target_hash) VALUES (1, 'new', 'f')",
    "DELETE FROM branches WHERE repository_id = 1 AND name = 'new'",
    "UPDATE tags SET message = 'other' WHERE repository_id = 1",
    "INSERT INTO tags (repository_id, name, target_hash) VALUES (1, 'new', 'f')",
    "DELETE FROM tags WHERE repository_id = 1",
    "INSERT INTO followers SELECT 2, id FROM users WHERE username = 'brodie'",
    "DELETE FROM followers WHERE repository_id = 1",
    "UPDATE users SET display_name = 'other' WHERE id = 1",
    "UPDATE members SET permission = 'other'",
    "INSERT INTO members SELECT id, id, 'owner', last_seen_at FROM users WHERE username = 'brodie'",
    "DELETE FROM members",
    """INSERT INTO projects (upstream_id, owner_id, uuid, key, first_seen_at, last_seen_at)
        SELECT 1, id, '{p}', 'P', first_seen_at, last_seen_at FROM users LIMIT 1""",
    "UPDATE projects SET name = 'other'",
    "INSERT INTO changes (at, kind, repository_id) VALUES ('2026-11-09T00:00:00.000000Z', 'updated', 1)",
    "UPDATE users SET uuid = '{other}' WHERE username = 'brodie'",
    "DELETE FROM projects",
)
SILENT = (
    "UPDATE users SET last_seen_at = 'x', username = username",
    "UPDATE repositories SET refs_stale = 1",
)


def test_each_way_to_write_is_exported(mixed_path: Path, tmp_path: Path) -> None:
    """Any statement on any table; a write without a change is not exported."""
    exported(mixed_path, tmp_path / "lake")
    for statement in WRITES:
        sql(mixed_path, statement)
        whole = "uuid = " in statement or statement == "DELETE FROM projects"
        assert exported(mixed_path, tmp_path / "lake").what == ("full" if whole else "changes"), statement
    exported(mixed_path, tmp_path / "whole")
    assert held(tmp_path / "lake") == held(tmp_path / "whole")
    for statement in SILENT:
        sql(mixed_path, statement)
        assert exported(mixed_path, tmp_path / "lake").what == "nothing", statement


class History:
    """A mirror whose rows change at random, as by syncs."""

    def __init__(self, path: Path, seed: int) -> None:
        self.db, self.random = FixtureDb(path), random.Random(seed)
        self.now = datetime(2026, 11, 3, tzinfo=UTC)
        self.names = ["ann/one", "ann/two", "bob/three", "bob/four", "eve/five"]

    def step(self) -> None:
        """Do one random change."""
        self.now += timedelta(hours=1)
        at, dice = self.now.strftime("%Y-%m-%dT%H:%M:%S.000000Z"), self.random
        full_name = dice.choice(self.names)
        there = self.db.store.row("SELECT id FROM repositories WHERE full_name = ?", (full_name,))
        what = dice.choice(["page", "refs", "gone", "follow", "members", "project", "owner", "uuid", "ref"])
        by = owner(full_name.partition("/")[0])
        if what == "page" or there is None:
            said = {"description": dice.choice("ab"), "is_private": dice.random() < 0.3}
            self.db.repositories([repository(full_name, by, size=dice.randint(1, 3), **said)], at=at)
        elif what == "refs":
            names = dice.sample(["main", "dev", "v1"], dice.randint(0, 3))
            refs = [hg_ref(dice.choice(["branch", "tag"]), name, dice.choice("abc")) for name in names]
            self.db.refs(full_name, refs, at=at)
        elif what == "ref":  # as a webhook or a repair writes one, without a listing
            ref = hg_ref(dice.choice(["branch", "tag"]), "one", dice.choice("abc"))
            with self.db.store.transaction() as connection:
                write_refs(connection, there[0], [ref])
        elif what == "gone":
            self.db.gone(full_name, at=at)
        elif what == "follow":
            found = self.db.store.row("SELECT 1 FROM followers WHERE repository_id = ?", (there[0],))
            if found:
                with self.db.store.transaction() as connection:
                    connection.execute("DELETE FROM followers WHERE repository_id = ?", (there[0],))
            else:
                self.db.follower(full_name, by.username or "")
        elif what == "members":
            self.db.members(by, [owner(dice.choice(["cid", "dan"]))])
        else:
            self.rest(what, by, at)

    def rest(self, what: str, by: Any, at: str) -> None:
        """Change an owner or a project, or give a row another identity."""
        with self.db.store.transaction() as connection:
            if what == "owner":
                renamed = owner(by.username, display_name=self.random.choice("xy"))
                save_owner(connection, 1, renamed, seen_at=at, is_owner=True)
            elif what == "project":
                project = repository("a/b", by, project_key="P", project_name=self.random.choice("pq"))
                user = connection.execute("SELECT id FROM users WHERE uuid = ?", (by.uuid,)).fetchone()

                said = Project(uuid=f"{{p-{by.username}}}", key="P", name=project.project_name)
                save_project(connection, 1, by, user[0], said, seen_at=at)
            elif self.random.random() < 0.2:
                row = connection.execute("SELECT id FROM repositories ORDER BY random() LIMIT 1").fetchone()
                give_uuid(connection, "repositories", 1, row[0], f"{{given-{row[0]}}}")


@pytest.mark.parametrize("seed", range(4))
def test_a_history_of_additions_equals_a_full_export(seed: int, tmp_path: Path) -> None:
    """In every row of every table; also for a second, rarer place, and after compaction."""
    path = tmp_path / "mirror.db"
    history = History(path, seed)
    dice = random.Random(seed)
    history.step()
    exported(path, tmp_path / "often")
    exported(path, tmp_path / "seldom")
    for _ in range(10):
        for _ in range(dice.randint(0, 3)):
            history.step()
        exported(path, tmp_path / "often", compact=dice.random() < 0.2)
        if dice.random() < 0.3:
            exported(path, tmp_path / "seldom")
    exported(path, tmp_path / "seldom")
    exported(path, tmp_path / "whole", full=True)
    expected = held(tmp_path / "whole")
    for name in ("often", "seldom"):
        found = held(tmp_path / name)
        for table, rows in expected.items():
            if table == "listings":  # an owner that lost its last repository has none, or is not there
                found[table] = [row for row in found[table] if row["repositories"]]
            if table not in ("runs", "instances"):
                assert found[table] == rows, (name, table)
    assert len(expected["repositories"]) >= 3


def test_a_compacted_export_holds_the_same_in_few_files(mixed_path: Path, tmp_path: Path) -> None:
    """Nothing is left to compact then."""
    lake, filled = tmp_path / "lake", FixtureDb(mixed_path)
    exported(mixed_path, lake)
    for digit in "789":
        filled.refs("jespern/django-piston", [hg_ref("tag", "v1", digit)], at=LATER)
        exported(mixed_path, lake)
    filled.store.close()
    before = held(lake)
    done = exported(mixed_path, lake, compact=True)
    assert (done.what, done.compacted, latest(lake)["additions"]) == ("nothing", True, 0)
    assert held(lake) == before
    assert all(file["base"] for files in latest(lake)["tables"].values() for file in files)
    assert not exported(mixed_path, lake, compact=True).compacted


def made_older(lake: Path) -> int:
    """Take columns from the repositories of an export that were added later; return how many there are."""
    (path,) = (lake / "repositories").rglob("*.parquet")
    older = pq.read_table(path, partitioning=None).drop_columns(["upstream", "hidden_until"])
    pq.write_table(older, path)
    (manifest,) = (lake / "_manifests").rglob("latest.json")
    told = json.loads(manifest.read_text())
    told["tables"]["repositories"][0]["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(told))
    return len(older)


def test_files_of_an_older_version_are_compacted(mixed_path: Path, tmp_path: Path) -> None:
    """They lack the columns that were added since."""
    lake, filled = tmp_path / "lake", FixtureDb(mixed_path)
    exported(mixed_path, lake)
    older = made_older(lake)
    filled.refs("jespern/django-piston", [hg_ref("tag", "v1", "7")], at=LATER)
    filled.store.close()
    assert exported(mixed_path, lake).what == "changes"
    assert exported(mixed_path, lake, compact=True).compacted
    assert len(held(lake)["repositories"]) == older


def test_files_of_an_older_version_are_read_as_the_readme_says(
    mixed_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its statements for DuckDB."""
    lake = tmp_path / "lake"
    exported(mixed_path, lake)
    older = made_older(lake)
    text = (lake / "README.md").read_text().partition("With DuckDB")[2]
    monkeypatch.chdir(lake)
    with duckdb.connect() as engine:
        engine.execute(dedent("\n".join(line for line in text.splitlines() if line.startswith("    "))))
        assert engine.execute("SELECT count(*) FROM repositories").fetchone() == (older,)


def test_many_additions_are_compacted_by_themselves(
    mixed_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no reader must open thousands of files."""
    from mirror.lake import export as module

    monkeypatch.setattr(module, "MOST_ADDITIONS", 2)
    lake, filled = tmp_path / "lake", FixtureDb(mixed_path)
    counts = []
    for digit in "12345":
        filled.refs("jespern/django-piston", [hg_ref("tag", "v1", digit)], at=LATER)
        exported(mixed_path, lake)
        counts.append(latest(lake)["additions"])
    filled.store.close()
    assert counts == [0, 1, 2, 0, 1]


def test_files_that_no_manifest_of_the_last_three_names_are_removed(mixed_path: Path, tmp_path: Path) -> None:
    """Also those of a killed export; files of other mirrors stay."""
    lake = tmp_path / "lake"
    for _ in range(5):
        exported(mixed_path, lake, full=True)
    name = latest(lake)["mirror"]
    left = lake / f"refs/mirror={name}/bucket=00/changes-00000009.parquet"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"torn")
    theirs = lake / "refs/mirror=mother/bucket=00/base-00000001.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    exported(mixed_path, lake, full=True)
    manifests = sorted(path.name for path in (lake / f"_manifests/mirror={name}").iterdir())
    assert manifests == ["00000004.json", "00000005.json", "00000006.json", "latest.json"]
    there = {str(path.relative_to(lake)) for path in lake.rglob("*.parquet")} - {
        str(theirs.relative_to(lake))
    }
    named = {
        file["path"]
        for manifest in manifests
        for files in json.loads((lake / f"_manifests/mirror={name}" / manifest).read_text())[
            "tables"
        ].values()
        for file in files
    }
    assert there == named
    assert theirs.read_bytes() == b"theirs"
    assert not list(lake.glob("_staging*"))


def test_what_the_file_does_not_know_is_exported_in_full(mixed_path: Path, tmp_path: Path) -> None:
    """After a lost lake, a restored copy, a new address of an upstream."""
    lake = tmp_path / "lake"
    exported(mixed_path, lake)
    copy = tmp_path / "copy.db"
    shutil.copy(mixed_path, copy)
    filled = FixtureDb(mixed_path)
    filled.refs("jespern/django-piston", [hg_ref("tag", "v1", "7")], at=LATER)
    filled.store.close()
    assert exported(mixed_path, lake).what == "changes"
    assert exported(copy, lake).what == "full"
    assert exported(mixed_path, lake).what == "full"
    assert exported(mixed_path, lake).what == "nothing"
    sql(mixed_path, "UPDATE upstreams SET url = 'https://other.example/2.0/'")
    assert exported(mixed_path, lake).what == "full"
    assert {row["instance"] for row in held(lake)["refs"]} == {"https://other.example/2.0"}
    shutil.rmtree(lake)
    assert exported(mixed_path, lake).what == "full"


def test_public_and_whole_exports_do_not_mix(mixed_path: Path, tmp_path: Path) -> None:
    """A forgotten --public adds no private rows to a public lake, also of a mirror that is new there."""
    exported(mixed_path, tmp_path / "public", public=True)
    before = files_of(tmp_path / "public")
    new = tmp_path / "new.db"
    copy_empty(new)
    for path, whose in ((mixed_path, "this mirror"), (new, "another mirror")):
        with pytest.raises(ConfigError, match=f"public part of {whose}; export with --public"):
            exported(path, tmp_path / "public")
    assert files_of(tmp_path / "public") == before
    exported(mixed_path, tmp_path / "lake")
    for path, whose in ((mixed_path, "this mirror"), (new, "another mirror")):
        with pytest.raises(ConfigError, match=f"all of {whose}; give the public part another folder"):
            exported(path, tmp_path / "lake", public=True)


def test_two_first_exports_at_once_do_not_mix(mixed_path: Path, tmp_path: Path) -> None:
    """The one that ends later is refused, and puts no private row into a lake that is public by now."""
    lake, other = tmp_path / "lake", tmp_path / "other.db"
    copy_empty(other)

    def overtaken(table: str, rows: int) -> None:
        if (table, rows) == ("repositories", 0):
            exported(other, lake, public=True)

    with pytest.raises(ConfigError, match="public part of another mirror; export with --public"):
        export(mixed_path, Place(str(lake)), ExportOptions(), progress=overtaken)
    assert not list(lake.rglob("repositories/**/*.parquet"))


def test_what_cannot_be_used_is_said(mixed_path: Path, tmp_path: Path) -> None:
    """A file that is not a mirror, an unusable place, an export in progress."""
    with pytest.raises(StoreError, match="no mirror there yet"):
        exported(tmp_path / "none.db", tmp_path / "lake")
    assert not (tmp_path / "none.db").exists()
    for address, why in (
        ("", "needs a folder"),
        ("ftp://x/y", "cannot hold a lake"),
        ("s3://key:secret@bucket/x", "AWS_ACCESS_KEY_ID"),
        ("s3:///x", "has no bucket"),
        ("s3:/bucket/x", "needs a folder, or s3"),
    ):
        with pytest.raises(ConfigError, match=why) as error:
            Place(address)
        assert "secret" not in str(error.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; a lake needs a folder"):
        exported(mixed_path, tmp_path / "file")
    with pytest.raises(ConfigError, match="a file of it; give another name"):
        exported(mixed_path, mixed_path.with_name(f"{mixed_path.name}.lock"))
    with export_lock(mixed_path), pytest.raises(StoreLocked, match="is exporting it"):
        exported(mixed_path, tmp_path / "lake")
    exported(mixed_path, tmp_path / "lake")
    name = latest(tmp_path / "lake")["mirror"]
    shutil.copy(mixed_path, tmp_path / "copy.db")
    with (
        Place(str(tmp_path / "lake")).staging(f"mirror={name}", tmp_path / "unused"),
        pytest.raises(StoreLocked, match="exporting"),
    ):
        exported(tmp_path / "copy.db", tmp_path / "lake")
    (tmp_path / f"lake/_manifests/mirror={name}/latest.json").write_text("{}")
    with pytest.raises(StoreError, match=r"not a manifest.*remove it, and export again"):
        exported(mixed_path, tmp_path / "lake")


def test_an_unconfirmed_copy_is_not_exported(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """A mirror of the lake would show strangers what was public in the copy."""
    with mixed_db.store.transaction() as connection:
        Cursors(connection, mixed_db.upstream_id).await_listing(at=LATER)
    mixed_db.store.close()
    with pytest.raises(StoreError, match="a restored copy"):
        exported(mixed_db.path, tmp_path / "lake")
    assert not list((tmp_path / "lake").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("README.md", "mine", "has other files"),
        ("_SCHEMA.json", "[]", "does not belong to a lake"),
        ("_SCHEMA.json", '{"layout": 7}', "is of layout 7, and this program knows 1"),
    ],
)
def test_a_folder_of_other_files_stays_as_it_is(
    mixed_path: Path, tmp_path: Path, name: str, text: str, why: str
) -> None:
    """Other files and a lake of another version; files of a killed export do not count."""
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / name).write_text(text)
    with pytest.raises((ConfigError, StoreError), match=why):
        exported(mixed_path, lake)
    assert files_of(lake) == {name: text.encode()}
    (lake / name).unlink()
    (lake / "refs/mirror=m1").mkdir(parents=True)
    (lake / "_staging-mirror=m1.lock").write_text("")
    assert exported(mixed_path, lake).what == "full"


def test_every_column_of_a_mirror_is_in_the_lake_or_left_out(mixed_path: Path) -> None:
    """A new column of the schema fails here until it is on one of the lists."""
    with closing(sqlite3.connect(mixed_path)) as connection:
        there = tables_of(connection)
    names = {table.name: {column.name for column in table.columns} for table in TABLES}
    names |= {"branches": names["refs"], "tags": names["refs"]}
    names |= {"sync_runs": names["runs"], "upstreams": names["instances"]}
    for table, columns in there.items():
        if table not in KEPT_IN_THE_MIRROR | MADE:
            assert columns - names[table] == LEFT_OUT[table], table
    assert set(KEPT_IN_THE_MIRROR) <= set(there)


def test_the_lake_tells_what_it_is(mixed_path: Path, tmp_path: Path) -> None:
    """README and schema are at its root; the schema has every column of every file."""
    exported(mixed_path, tmp_path / "lake")
    schema = json.loads((tmp_path / "lake/_SCHEMA.json").read_text())["tables"]
    for table, rows in rows_of(tmp_path / "lake").items():
        names = [column["name"] for column in schema[table]["columns"]]
        assert all(list(row) == names for row in rows)
        assert all(column["about"] for column in schema[table]["columns"])
    assert "latest.json" in (tmp_path / "lake/README.md").read_text()


@pytest.mark.parametrize(
    ("url", "instance"),
    [
        ("https://API.bitbucket.org:443/2.0/", "https://api.bitbucket.org/2.0"),
        ("http://ann:secret@host:7990/rest", "http://host:7990/rest"),
    ],
)
def test_one_server_is_one_instance(url: str, instance: str) -> None:
    """However its address is written, and without a login."""
    assert instance_of(url) == instance


def test_without_pyarrow_the_command_says_how_to_install_it(mixed_path: Path, tmp_path: Path) -> None:
    """One line, with the exit code of wrong usage."""
    (tmp_path / "mirror.toml").write_text(f'database = "{mixed_path}"\n')
    hidden = "import sys; sys.modules['pyarrow'] = None; from mirror.cli.main import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "export", "parquet", "lake"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"mirror: {NEEDS_PYARROW}\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError("Detail: [errno 28] No space left on device"),
            "free some space",
        ),
        (OSError("AWS Error ACCESS_DENIED"), "cannot be read or written: AWS Error ACCESS_DENIED"),
    ],
    ids=["full", "other"],
)
def test_an_error_of_a_lake_names_its_remedy(tmp_path: Path, error: OSError, said: str) -> None:
    """As one of the mirror does, if there is one."""
    with pytest.raises(StoreError, match=rf"^{tmp_path}: .*{said}"), Place(str(tmp_path)).explained():
        raise error
