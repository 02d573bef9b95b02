"""One mirror out of a merged lake: all rows, whole visibility, or a slice of owners."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fixtures_db import LATER, SECRETS, FixtureDb, fill_mixed, hg_ref, repository
from lake_mirrors import expected, random_lake
from test_lake_merge import small_disk

from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.lake.build import Built, build
from mirror.lake.columns import OnProgress
from mirror.lake.export import ExportOptions, export
from mirror.lake.merge import merge
from mirror.lake.place import Place
from mirror.publish.snapshot import PublishOptions, publish
from mirror.queries.search import find_repositories
from mirror.queries.visibility import ANONYMOUS
from mirror.store.files import open_reader
from mirror.store.lock import held
from mirror.store.repositories import Look
from mirror.store.schema import HIDDEN


def built(folder: Path, *mirrors: Path, owners: str | None = None, force: bool = False) -> Built:
    """Export mirrors, merge their lake, and build a mirror of it."""
    for one in mirrors:
        export(one, Place(str(folder / "lake")), ExportOptions())
    merge(str(folder / "lake"), folder / "merged", "duckdb")
    return build(folder / "union.db", folder / "merged", folder / "mirror.db", owners=owners, force=force)


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Read a file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_union_holds_what_the_merge_says(seed: int, tmp_path: Path) -> None:
    """Every repository once, with refs, followers and changes, and the data of its owner."""
    mirrors = random_lake(tmp_path, seed)
    done = built(tmp_path)
    wanted, union = expected(mirrors), tmp_path / "union.db"
    columns = "uuid, description, is_private, deleted_at, first_seen_at, public_from"
    found = rows(union, f"SELECT {columns} FROM repositories")
    assert {row[:2] for row in found} == {row[:2] for row in wanted["repositories"]}
    by_uuid = {row[0]: row for row in found}
    last_until = "SELECT coalesce(max(c.id), 0) FROM changes c, repositories r WHERE r.id = repository_id"
    for uuid, _, private, gone, deleted_at, first_seen_at, hidden, until, _ in wanted["repositories"]:
        assert by_uuid[uuid][2:5] == (private, deleted_at if gone else None, first_seen_at)
        ((last,),) = rows(union, f"{last_until} AND uuid = '{uuid}' AND at <= '{until or ''}'")
        assert by_uuid[uuid][5] == (HIDDEN if hidden else last)
    refs = [
        (uuid, kind, name, target)
        for kind, table in (("branch", "branches"), ("tag", "tags"))
        for uuid, name, target in rows(
            union,
            f"SELECT r.uuid, t.name, target_hash FROM {table} t JOIN repositories r ON r.id = repository_id",
        )
    ]
    assert sorted(refs) == sorted(wanted["refs"])
    assert {row[0] for row in rows(union, "SELECT target_parents FROM tags")} <= {'["1"]'}
    assert done.rows["followers"] == len(wanted["followers"])
    assert done.rows["changes"] == len(wanted["changes"])
    assert done.rows["users"] == len(wanted["users"])
    assert done.rows["members"] == len(wanted["members"])
    assert done.rows["projects"] == len(wanted["projects"])


def test_the_union_answers_as_one_and_hides_what_each_hides(tmp_path: Path) -> None:
    """Searches find rows of both; it publishes what its mirrors publish."""
    mixed, other = fill_mixed(tmp_path / "mixed.db"), FixtureDb(tmp_path / "other.db")
    other.repositories([repository("ann/django-tool")], at=LATER)
    other.refs("ann/django-tool", [hg_ref("branch", "main", "1")], at=LATER)
    for one in (mixed, other):
        one.store.close()
    before = publish(mixed.path, tmp_path / "before.db", PublishOptions())
    built(tmp_path, mixed.path, other.path)
    union = tmp_path / "union.db"
    with closing(open_reader(union)) as connection:
        found = find_repositories(connection, ANONYMOUS, "django")
        names = {row.full_name for row in found.repositories}
    assert names == {"jespern/django-piston", "dchambers/django-piston", "ubernostrum/django-registration",
                     "ann/django-tool"}  # fmt: skip
    done = publish(union, tmp_path / "public.db", PublishOptions(check=True))
    for table, count in before.rows.items():
        more = {"repositories": 1, "users": 1, "branches": 1, "changes": 1}.get(table, 0)
        assert done.rows[table] == count + more or table == "sync_runs", table
    contents = (tmp_path / "public.db").read_bytes()
    assert not [secret for secret in SECRETS if secret in contents]


@pytest.mark.parametrize("is_old", [False, True])
def test_the_union_hides_what_was_recorded_before_public_refs_were_read(is_old: bool, tmp_path: Path) -> None:
    """Edits that one listing saw together with the publicity, and refs of before that the first look missed.

    Of a lake that an older version wrote, it hides all until the last look.
    """
    filled = FixtureDb(tmp_path / "one.db")
    filled.repositories([repository("ann/tool", is_private=True, description="secret plan")])
    filled.refs("ann/tool", [hg_ref("branch", "main", "1"), hg_ref("branch", "secret-branch", "2")])
    filled.repositories([repository("ann/tool", description="a tool")], at=LATER)
    for at, target in (("2026-11-03T12", "3"), ("2026-11-04T12", "4")):
        filled.refs("ann/tool", [hg_ref("branch", "main", target)], at=f"{at}:00:00.000000Z")
    filled.store.close()
    export(filled.path, Place(str(tmp_path / "lake")), ExportOptions())
    if is_old:
        (path,) = (tmp_path / "lake/repositories").rglob("*.parquet")
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns("hidden_until"), path)
    built(tmp_path)
    publish(tmp_path / "union.db", tmp_path / "public.db", PublishOptions())
    told = rows(tmp_path / "public.db", "SELECT kind, substr(old, 1, 1) FROM changes")
    assert told == ([] if is_old else [("branch_moved", "3")])
    assert b"secret" not in (tmp_path / "public.db").read_bytes()


@pytest.mark.parametrize("read_first", [True, False])
def test_two_upstreams_of_one_server_count_as_two_mirrors(read_first: bool, tmp_path: Path) -> None:
    """A repository that was transferred from one to the other, and is private there, is there once."""
    filled = FixtureDb(tmp_path / "one.db")
    first, store = filled.upstream_id, filled.store
    second = store.save_upstream("second", "cloud", store.value("SELECT url FROM upstreams"))
    if not read_first:
        first, second = second, first
    store.save_page(first, [repository("ann/tool"), repository("ann/other")], Look(LATER))
    filled.refs("ann/tool", [hg_ref("branch", "main", "1")])
    export(filled.path, Place(str(tmp_path / "lake")), ExportOptions())
    moved = repository("bob/secret", uuid="{ann/tool}", is_private=True, description="secret plan")
    store.save_page(second, [moved], Look(LATER))
    filled.refs("bob/secret", [hg_ref("branch", "secret-branch", "2")], at=LATER)
    export(filled.path, Place(str(tmp_path / "lake")), ExportOptions())
    filled.gone("ann/tool")
    store.close()
    export(filled.path, Place(str(tmp_path / "lake")), ExportOptions(compact=True))
    built(tmp_path)
    found = rows(tmp_path / "union.db", "SELECT uuid, is_private, deleted_at FROM repositories ORDER BY uuid")
    assert found == [("{ann/other}", 0, None), ("{ann/tool}", 1, None)]
    assert rows(tmp_path / "union.db", "SELECT name FROM branches") == [("secret-branch",)]
    publish(tmp_path / "union.db", tmp_path / "public.db", PublishOptions())
    assert rows(tmp_path / "public.db", "SELECT full_name FROM repositories") == [("ann/other",)]


def test_refs_are_hidden_that_were_read_before_another_mirror_saw_it_public(tmp_path: Path) -> None:
    """The mirror that read them missed that the repository was private for a while."""
    missed, saw = FixtureDb(tmp_path / "missed.db"), FixtureDb(tmp_path / "saw.db")
    missed.repositories([repository("ann/tool")])
    missed.refs("ann/tool", [hg_ref("branch", "secret-branch", "1")], at=LATER)
    saw.repositories([repository("ann/tool", is_private=True)])
    saw.repositories([repository("ann/tool")], at="2026-11-03T12:00:00.000000Z")
    for one in (missed, saw):
        one.store.close()
    built(tmp_path, missed.path, saw.path)
    assert rows(tmp_path / "union.db", "SELECT public_from FROM repositories") == [(HIDDEN,)]
    missed = FixtureDb(tmp_path / "missed.db")
    missed.refs("ann/tool", [hg_ref("branch", "main", "2")], at="2026-11-04T12:00:00.000000Z")
    missed.store.close()
    built(tmp_path, missed.path, force=True)
    ((public_from,),) = rows(tmp_path / "union.db", "SELECT public_from FROM repositories")
    assert public_from < HIDDEN


def test_a_slice_holds_nothing_of_other_owners(tmp_path: Path) -> None:
    """Neither their repositories nor their names."""
    filled = FixtureDb(tmp_path / "one.db")
    filled.repositories([repository("Team-A/tool"), repository("outsider/secret"), repository("team-b/lib")])
    filled.members(repository("outsider/x").owner, [repository("lonely/x").owner])
    filled.store.close()
    done = built(tmp_path, filled.path, owners="team-*")
    assert done.rows["repositories"] == done.rows["users"] == 2
    contents = (tmp_path / "union.db").read_bytes()
    assert b"Team-A" in contents
    assert not [text for text in (b"outsider", b"secret", b"lonely") if text in contents]
    with pytest.raises(ConfigError, match="no repository has such an owner"):
        built(tmp_path, owners="none*", force=True)
    assert (tmp_path / "union.db").read_bytes() == contents


def interrupted(table: str, _: int) -> None:
    """Ctrl-C while a table is filled."""
    if table == "refs":
        raise KeyboardInterrupt


def test_what_ends_a_build_early_leaves_the_file_before(tmp_path: Path) -> None:
    """Ctrl-C, a full disk, another build of the file, files that the merge did not write."""
    random_lake(tmp_path, 3, count=1)
    built(tmp_path)
    before = (tmp_path / "union.db").read_bytes()

    def again(progress: OnProgress = lambda *_: None) -> None:
        build(
            tmp_path / "union.db", tmp_path / "merged", tmp_path / "mirror.db", force=True, progress=progress
        )

    with pytest.raises(KeyboardInterrupt):
        again(interrupted)
    with small_disk(300_000), pytest.raises(StoreError) as error:
        again()
    assert "\n" not in str(error.value)
    with held(tmp_path / "union.db.part", "building"), pytest.raises(StoreLocked):
        again()
    (refs,) = (tmp_path / "merged/refs").iterdir()
    for contents, why in ((b"torn", "not a file of a merged lake"), (None, "does not hold the refs")):
        refs.write_bytes(contents) if contents else refs.unlink()
        with pytest.raises(StoreError, match=why):
            again()
    assert (tmp_path / "union.db").read_bytes() == before
    assert {path.name for path in tmp_path.glob("union.db*")} == {"union.db"}


def test_a_file_is_replaced_only_if_asked(tmp_path: Path) -> None:
    """And never the mirror itself; a folder that is not a merged lake is refused."""
    random_lake(tmp_path, 3, count=1)
    built(tmp_path)
    with pytest.raises(ConfigError, match="--force replaces it"):
        built(tmp_path)
    built(tmp_path, force=True)
    with pytest.raises(ConfigError, match="is the mirror itself"):
        build(tmp_path / "mirror.db", tmp_path / "merged", tmp_path / "mirror.db")
    with pytest.raises(ConfigError, match="not a merged lake"):
        build(tmp_path / "new.db", tmp_path / "lake", tmp_path / "mirror.db")
    assert {path.name for path in tmp_path.glob("union.db*")} == {"union.db"}
