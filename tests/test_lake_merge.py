"""The merge of overlapping mirrors: every rule against an oracle in Python, with DuckDB."""

import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pyarrow.parquet as pq
import pytest
from cli_runner import Folder
from fixtures_db import LATER, SEEN, FixtureDb, hg_ref, repository
from lake_mirrors import Rows, expected, merged_rows, random_lake

from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.lake.export import ExportOptions, export
from mirror.lake.merge import OUTPUT, Merged, merge, read_merged
from mirror.lake.place import Place
from mirror.store.lock import held

LATEST = "2026-11-03T12:00:00.000000Z"


def tables_of(out: Path) -> dict[str, Rows]:
    """All rows of a merged lake."""
    return {name: pq.read_table(out / name).to_pylist() for name in OUTPUT}


def merged(folder: Path) -> tuple[Merged, dict[str, Rows]]:
    """Merge the lake of a folder."""
    done = merge(str(folder / "lake"), folder / "out", "duckdb")
    return done, tables_of(folder / "out")


def add(folder: Path, name: str) -> FixtureDb:
    """Open a mirror of the one upstream."""
    return FixtureDb(folder / f"{name}.db")


def put(folder: Path, *mirrors: FixtureDb) -> dict[str, Rows]:
    """Export mirrors, and merge them."""
    for one in mirrors:
        export(one.path, Place(str(folder / "lake")), ExportOptions())
    return merged(folder)[1]


@pytest.mark.parametrize("seed", range(4))
def test_random_mirrors_are_merged_as_the_oracle_says(seed: int, tmp_path: Path) -> None:
    """Row by row, in every table."""
    mirrors = random_lake(tmp_path, seed, count=2 + seed % 3)
    done, tables = merged(tmp_path)
    found, wanted = merged_rows(tables), expected(mirrors)
    for table, rows in found.items():
        assert rows == wanted[table], table
    assert done.rows["repositories"] == len(found["repositories"]) > 0
    assert done.rows["refs"] == len(found["refs"])
    assert [one.mirror for one in done.mirrors] == [one.name for one in mirrors]
    assert read_merged(tmp_path / "out") == done


def test_deleted_refs_do_not_come_back(tmp_path: Path) -> None:
    """All refs are those of the mirror that read them last, even if it read none."""
    one, two = add(tmp_path, "one"), add(tmp_path, "two")
    for mirror, at in ((one, SEEN), (two, LATER)):
        mirror.repositories([repository("ann/tool")], at=at)
    one.refs("ann/tool", [hg_ref("branch", "main", "1")], at=SEEN)
    two.refs("ann/tool", [hg_ref("branch", "main", "1"), hg_ref("branch", "deleted", "2")], at=LATER)
    assert {row["name"] for row in put(tmp_path, one, two)["refs"]} == {"main", "deleted"}
    one.refs("ann/tool", [hg_ref("branch", "main", "1")], at=LATEST)
    assert {row["name"] for row in put(tmp_path, one, two)["refs"]} == {"main"}


def test_a_later_listing_counts_though_the_row_is_as_it_was(tmp_path: Path) -> None:
    """The mirror that listed the owner later wins once it exports anything."""
    one, two = add(tmp_path, "one"), add(tmp_path, "two")
    one.repositories([repository("ann/tool", description="old")], at=SEEN)
    two.repositories([repository("ann/tool", description="new")], at=LATER)
    assert [row["description"] for row in put(tmp_path, one, two)["repositories"]] == ["new"]
    one.repositories([repository("ann/tool", description="old"), repository("ann/other")], at=LATEST)
    rows = {row["slug"]: row["description"] for row in put(tmp_path, one, two)["repositories"]}
    assert rows == {"tool": "old", "other": ""}


def test_one_lost_access_deletes_nothing(tmp_path: Path) -> None:
    """A repository is gone only if all mirrors say so, and private if any says so."""
    one, two = add(tmp_path, "one"), add(tmp_path, "two")
    one.repositories([repository("ann/tool", is_private=True)], at=SEEN)
    two.repositories([repository("ann/tool")], at=LATER)
    two.gone("ann/tool", at=LATEST)
    (row,) = put(tmp_path, one, two)["repositories"]
    assert (row["gone"], row["deleted_at"], row["is_private"], len(row["gone_by"])) == (False, None, True, 1)
    one.gone("ann/tool", at=LATEST)
    (row,) = put(tmp_path, one, two)["repositories"]
    assert (row["gone"], row["gone_reason"], len(row["gone_by"])) == (True, "absent", 2)


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        (["2026-11-01T10"], ["2026-11-01T12"], 1),
        (["2026-11-01T10"], ["2026-11-02T10"], 1),
        (["2026-11-01T10"], ["2026-11-02T11"], 2),
        (["2026-11-01T10"], ["2026-11-03T12"], 2),
        (["2026-11-01T10", "2026-11-01T14"], ["2026-11-01T11"], 2),
        (["2026-11-01T10", "2026-11-01T14"], ["2026-11-01T11", "2026-11-01T15"], 2),
        (["2026-11-01T10", "2026-11-01T14"], [], 2),
    ],
)
def test_a_change_is_there_once(first: list[str], second: list[str], count: int, tmp_path: Path) -> None:
    """If two mirrors saw it at different times; a change that one mirror saw twice happened twice."""
    mirrors = []
    for name, hours in (("one", first), ("two", second)):
        mirror = add(tmp_path, name)
        mirror.repositories([repository("ann/tool")], first=True)
        with mirror.store.transaction() as connection:
            for hour in hours:
                values = (f"{hour}:00:00.000000Z", "branch_moved", "main", "1", "2")
                connection.execute(
                    "INSERT INTO changes (at, kind, repository_id, ref, old, new) VALUES (?, ?, 1, ?, ?, ?)",
                    values,
                )
        mirrors.append(mirror)
    assert len(put(tmp_path, *mirrors)["changes"]) == count


def test_a_merge_is_one_of_the_latest_exports(tmp_path: Path) -> None:
    """Of additions and compacted files; the folder is replaced, with equal checksums."""
    mirrors = random_lake(tmp_path, 1)
    first, _ = merged(tmp_path)
    for one in mirrors:
        filled = FixtureDb(one.path)
        filled.repositories([repository("ann/new")], at=LATER)
        filled.store.close()
        export(one.path, Place(str(tmp_path / "lake")), ExportOptions())
    second, _ = merged(tmp_path)
    assert second.checksums != first.checksums
    for one in mirrors:
        export(one.path, Place(str(tmp_path / "lake")), ExportOptions(compact=True))
    third, _ = merged(tmp_path)
    assert (third.checksums, third.rows) == (second.checksums, second.rows)
    assert not list(tmp_path.glob("out.*"))


def test_a_folder_is_not_taken_for_a_column_or_a_pattern(tmp_path: Path) -> None:
    """Whatever the folders above a lake are called."""
    folder = tmp_path / "name=other" / "a[b]*?'c"
    folder.mkdir(parents=True)
    mirrors = random_lake(folder, 1, count=2)
    found, wanted = merged_rows(merged(folder)[1]), expected(mirrors)
    for table, rows in found.items():
        assert rows == wanted[table], table
    assert {row["name"] for row in tables_of(folder / "out")["repositories"]} <= {"m0", "m1"}


@contextmanager
def alarm_after(seconds: float) -> Iterator[None]:
    """Raise KeyboardInterrupt after some time, as soon as a line of the product runs.

    Python drops what is raised while it frees an object.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        if frame is not None and "/mirror/lake/" in frame.f_code.co_filename:
            signal.default_int_handler(number, frame)
        signal.setitimer(signal.ITIMER_REAL, 0.001)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """Limit the size of files of this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_ends_a_merge_early_leaves_the_one_before(tmp_path: Path) -> None:
    """Ctrl-C, a full disk, another merge; after a kill between two renames, the old one is restored."""
    random_lake(tmp_path, 1, count=1)
    lake, out = str(tmp_path / "lake"), tmp_path / "out"
    done = merge(lake, out, "duckdb")
    for seconds in (0.001, 0.03, 0.06):
        with alarm_after(seconds), pytest.raises(KeyboardInterrupt):
            merge(lake, out, "duckdb")
        assert read_merged(out) == done
    with small_disk(500), pytest.raises(StoreError, match="too large") as error:
        merge(lake, out, "duckdb")
    assert "\n" not in str(error.value)
    with (
        held(tmp_path / "out.lock", "merging"),
        pytest.raises(StoreLocked, match="another process is merging"),
    ):
        merge(lake, out, "duckdb")
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]
    out.rename(tmp_path / "out.old")
    with small_disk(500), pytest.raises(StoreError):
        merge(lake, out, "duckdb")
    assert read_merged(out) == done
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


def test_what_cannot_be_merged_is_said(tmp_path: Path) -> None:
    """The previous merged lake stays."""
    random_lake(tmp_path, 2, count=1)
    lake, out = str(tmp_path / "lake"), tmp_path / "out"
    done = merge(lake, out, "duckdb")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("mine")
    for place, target, why in (
        (str(tmp_path / "other"), tmp_path / "new", "holds no export"),
        (lake, tmp_path / "other", "is not a merged lake"),
        (lake, tmp_path / "lake/out", "outside of"),
        ("s3://lake/x", out, "a merge reads a folder"),
    ):
        with pytest.raises(ConfigError, match=why):
            merge(place, target, "duckdb")
    with pytest.raises(ConfigError, match="--memory much: "):
        merge(lake, out, "duckdb", memory="much")
    with pytest.raises(ConfigError, match="--master for --engine spark"):
        merge(lake, out, "duckdb", master="local")
    (manifest,) = (tmp_path / "lake/_manifests").iterdir()
    shutil.copytree(manifest, manifest.with_name("mirror=copy"))
    with pytest.raises(StoreError, match=r"mirror=copy/latest\.json: a copy of .*; remove its folder"):
        merge(lake, out, "duckdb")
    shutil.rmtree(manifest.with_name("mirror=copy"))
    (path,) = (tmp_path / "lake/repositories").rglob("*.parquet")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match=r"files of m0 are gone; `mirror export parquet`"):
        merge(lake, out, "duckdb")
    assert read_merged(out) == done
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize("public", [False, True])
def test_lost_files_of_a_lake_are_written_again(mixed_db: FixtureDb, tmp_path: Path, public: bool) -> None:
    """By the next export, though nothing changed in the mirror; then by none."""
    mixed_db.store.close()
    place, options = Place(str(tmp_path / "lake")), ExportOptions(public=public)
    export(mixed_db.path, place, options)
    _, before = merged(tmp_path)
    next((tmp_path / "lake/refs").rglob("*.parquet")).unlink()
    assert [export(mixed_db.path, place, options).what for _ in range(2)] == ["full", "nothing"]
    _, after = merged(tmp_path)
    assert all(sorted(map(repr, after[name])) == sorted(map(repr, rows)) for name, rows in before.items())


def test_a_lake_without_refs_has_the_checksum_zero(tmp_path: Path) -> None:
    """Where refs are not mirrored."""
    one = add(tmp_path, "one")
    one.repositories([repository("ann/tool")])
    export(one.path, Place(str(tmp_path / "lake")), ExportOptions())
    assert merged(tmp_path)[0].checksums["refs"] == "0"


def test_a_merged_lake_takes_the_place_of_no_file_of_the_mirror(tmp_path: Path) -> None:
    """A folder in the place of its lock would make it unusable."""
    random_lake(tmp_path, 2, count=1)
    folder = Folder(tmp_path)
    folder.configure("http://127.0.0.1:1/2.0")
    done = folder.run("lake", "merge", "lake", "data/mirror.db.lock")
    assert done.code == 2
    assert "a file of it; give another name" in done.err
