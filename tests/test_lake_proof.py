"""A public lake depends only on public rows, and a reader never sees half an export."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fixtures_db import LATER, SECRETS, FixtureDb, hg_ref, repository
from lake_reader import files_of, held, latest
from test_publish_proof import CANARY, plant
from twin_mirrors import Twin, empty_mirror

from mirror.errors import StoreError
from mirror.lake.export import ExportOptions, export
from mirror.lake.place import Place
from mirror.store.export_marks import MIRROR_ID
from mirror.times import from_text

HERE = Path(__file__).parent
MOMENTS = 20


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty mirror with an id, so that twins have the same id."""
    path = empty_mirror(tmp_path_factory.mktemp("empty") / "empty.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO mirror_meta VALUES (?, 'mtwin')", (MIRROR_ID,))
    return path


def public_files(path: Path, lake: Path) -> dict[str, bytes]:
    """Export the public part at one moment; return all files, without the random name of the export."""
    options = ExportOptions(public=True)
    export(path, Place(str(lake)), options, clock=lambda: from_text(LATER))
    return {name: re.sub(rb'"export": "\w+"', b"", text) for name, text in files_of(lake).items()}


@pytest.mark.parametrize("public", range(6))
def test_twins_are_exported_as_the_same_bytes(empty: Path, tmp_path: Path, public: int) -> None:
    """Whether private rows exist, existed, or never did."""
    found = []
    for number, private in enumerate([None, 1 + public, 100 + public]):
        Twin(path := tmp_path / f"{number}.db", empty, public, private)
        found.append(public_files(path, tmp_path / f"lake-{number}"))
    assert found[0] == found[1] == found[2]
    assert any(name.startswith("repositories/") for name in found[0])


def test_other_public_rows_give_other_bytes(empty: Path, tmp_path: Path) -> None:
    """The test above can fail."""
    found = []
    for seed in range(3):
        Twin(path := tmp_path / f"{seed}.db", empty, seed, 1)
        found.append(public_files(path, tmp_path / f"lake-{seed}"))
    assert found[0] != found[1] != found[2] != found[0]


def test_canaries_of_every_table_stay_behind(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """Of private, dangling and gone rows, unknown keys, and refused columns of public rows."""
    mixed_db.store.close()
    assert plant(mixed_db.path) > 200
    found = public_files(mixed_db.path, tmp_path / "lake")
    assert len(held(tmp_path / "lake")["repositories"]) == 7
    rows = repr(held(tmp_path / "lake")).encode().lower()
    for text in (rows, *(contents.lower() for contents in found.values())):
        assert CANARY.lower().encode() not in text
        assert not [secret for secret in SECRETS if secret.lower() in text]
    assert b"django-piston" in rows


def test_what_becomes_private_leaves_a_public_lake(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """With its refs; changes of private rows write no file."""
    lake = tmp_path / "lake"
    mixed_db.store.close()
    before = public_files(mixed_db.path, lake)
    filled = FixtureDb(mixed_db.path)
    filled.repositories([repository("jespern/arriving", is_private=True, description="more")], at=LATER)
    filled.store.close()
    assert public_files(mixed_db.path, lake) == before
    filled = FixtureDb(mixed_db.path)
    filled.repositories([repository("jespern/django-piston", is_private=True)], at=LATER)
    filled.store.close()
    after = public_files(mixed_db.path, lake)
    rows = held(lake)
    assert "jespern/django-piston" not in {row["full_name"] for row in rows["repositories"]}
    assert "django-piston" not in repr(rows["refs"] + rows["followers"])
    assert len(rows["repositories"]) == 6
    same = {name for name in before.keys() & after.keys() if name.endswith(".parquet")}
    assert any(name.startswith("refs/") for name in same) or not rows["refs"]


def test_a_public_lake_may_become_empty(tmp_path: Path) -> None:
    """When the last public repository is made private."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("ann/tool")])
    export(filled.path, Place(str(tmp_path / "lake")), ExportOptions(public=True))
    filled.repositories([repository("ann/tool", is_private=True)], at=LATER)
    filled.store.close()
    export(filled.path, Place(str(tmp_path / "lake")), ExportOptions(public=True))
    rows = held(tmp_path / "lake")
    assert rows["repositories"] == rows["users"] == rows["listings"] == []


class FullPlace(Place):
    """A folder on a disk that becomes full when a staging file is written."""

    def __init__(self, address: str, full: str) -> None:
        super().__init__(address)
        self._full = full

    @contextmanager
    def staging(self, owner: str, local: Path) -> Iterator[Path]:
        """Let the file be one of a device on which nothing has room."""
        with super().staging(owner, local) as folder:
            (folder / self._full).parent.mkdir(exist_ok=True)
            (folder / self._full).symlink_to("/dev/full")
            yield folder


def interrupted(table: str, _: int) -> None:
    """Ctrl-C while a table is written."""
    if table == "refs":
        raise KeyboardInterrupt


@pytest.mark.parametrize("full", ["repositories/changes-00000002.parquet", "part", None])
def test_what_ends_an_export_early_changes_nothing(
    mixed_db: FixtureDb, tmp_path: Path, full: str | None
) -> None:
    """A full disk, for rows or for the manifest, and Ctrl-C: the old rows stay, the next export succeeds."""
    lake = tmp_path / "lake"
    export(mixed_db.path, Place(str(lake)), ExportOptions())
    before = held(lake)
    mixed_db.refs("jespern/django-piston", [hg_ref("tag", "v9", "9")], at=LATER)
    if full:
        with pytest.raises(StoreError, match="No space left on device") as error:
            export(mixed_db.path, FullPlace(str(lake), full), ExportOptions())
        assert "\n" not in str(error.value)
    else:
        with pytest.raises(KeyboardInterrupt):
            export(mixed_db.path, Place(str(lake)), ExportOptions(), progress=interrupted)
    mixed_db.store.close()
    assert held(lake) == before
    assert not list(lake.glob("_staging*"))
    assert export(mixed_db.path, Place(str(lake)), ExportOptions()).what == "changes"
    export(mixed_db.path, Place(str(tmp_path / "whole")), ExportOptions())
    assert held(lake) == held(tmp_path / "whole") != before


def test_a_reader_sees_a_whole_export_whenever_it_is_killed(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """SIGKILL before each visible step: the old rows or the new ones, then the new ones."""
    lake = tmp_path / "lake"
    mixed_db.store.close()
    export(mixed_db.path, Place(str(lake)), ExportOptions())
    old = held(lake)
    done = subprocess.run(
        [sys.executable, HERE / "lake_killed.py", mixed_db.path, lake, tmp_path, str(MOMENTS)],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["killed"] * MOMENTS, done.stdout + done.stderr
    new = held(tmp_path / "done" / "lake")
    assert new != old
    seen = []
    for number in range(MOMENTS):
        torn = tmp_path / str(number)
        seen.append(held(torn / "lake"))
        assert seen[-1] in (old, new)
        assert latest(torn / "lake")["seq"] == (1 if seen[-1] == old else 2)
        export(torn / "mirror.db", Place(str(torn / "lake")), ExportOptions())
        assert held(torn / "lake") == new
    assert old in seen
    assert new in seen
