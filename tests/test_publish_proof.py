"""A published file depends only on public rows: nothing else changes a byte of it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from examples import examples
from fixtures_db import SECRETS, FixtureDb
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twin_mirrors import Twin, empty_mirror

from mirror.publish.selection import REFUSED, tables_of, undecided
from mirror.publish.snapshot import PublishOptions, publish

CANARY = "CANARY"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror without rows."""
    return empty_mirror(tmp_path_factory.mktemp("empty") / "empty.db")


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    public=st.integers(0, 10**9),
    private=st.lists(st.integers(0, 10**9), min_size=2, max_size=2),
    whole=st.booleans(),
)
@example(
    public=10, private=[10, 11], whole=True
)  # a private repository brings a project that is public later
def test_files_that_differ_in_private_rows_publish_the_same_bytes(
    empty: Path, public: int, private: list[int], whole: bool
) -> None:
    """One SHA-256, whether private rows exist, existed, or never did."""
    with TemporaryDirectory() as name:
        hashes = set()
        for number, seed in enumerate([None, *private]):
            path = Path(name) / f"{number}.db"
            Twin(path, empty, public, seed)
            done = publish(path, path.with_suffix(".public"), PublishOptions(authors=whole, check=True))
            hashes.add(done.sha256)
        assert len(hashes) == 1


def test_files_that_differ_in_public_rows_publish_other_bytes(empty: Path, tmp_path: Path) -> None:
    """The test above can fail."""
    hashes = set()
    for seed in range(3):
        Twin(path := tmp_path / f"{seed}.db", empty, seed, 1)
        hashes.add(publish(path, path.with_suffix(".public"), PublishOptions()).sha256)
    assert len(hashes) == 3


def test_every_column_is_copied_or_refused(empty: Path) -> None:
    """A new column of the schema fails here until it is on one of the lists."""
    with closing(sqlite3.connect(empty)) as connection:
        there = tables_of(connection)
    assert undecided(there) == []
    assert undecided({**there, "new": {"id"}}) == ["new"]
    assert undecided({**there, "users": there["users"] | {"mail"}}) == ["users.mail"]


def types_of(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """Map each table of a file to its columns and their types."""
    return {
        table: {row[1]: row[2] for row in connection.execute(f'PRAGMA table_info("{table}")')}
        for table in tables_of(connection)
    }


def plant(path: Path) -> int:
    """Put canaries into every text of private rows in every table; return their number."""
    planted = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        secret = connection.execute("SELECT max(id) FROM repositories WHERE is_private = 1").fetchone()[0]
        shy = connection.execute("SELECT id FROM users WHERE username = 'brodie'").fetchone()[0]
        linked = {"repository_id": secret, "parent_id": secret, "upstream_id": 1, "run_id": 1}
        linked |= dict.fromkeys(("owner_id", "user_id", "workspace_id"), shy)
        for table, kinds in types_of(connection).items():
            for turn, ids in enumerate(({}, linked)):
                values = {
                    name: f"{CANARY}-{table}-{name}-{turn}"
                    if kind in ("TEXT", "BLOB")
                    else ids.get(name, 1_000_000 + turn)
                    for name, kind in kinds.items()
                }
                if table == "repositories":  # living and private; gone and public
                    values |= {"is_private": 1 - turn} | ({"deleted_at": None} if not turn else {})
                if table == "search_state" or table.startswith("search_descriptions"):  # by triggers
                    continue
                marks = ", ".join("?" * len(values))
                connection.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(values.values()))
                planted += sum(kind in ("TEXT", "BLOB") for kind in kinds.values())
        for table in ("users", "repositories"):  # and into what is refused of public rows
            refused = ", ".join(
                f"{name} = '{CANARY}'" for name in REFUSED[table] - {"deleted_at", "public_from"}
            )
            connection.execute(f"UPDATE {table} SET {refused} WHERE {refused.split(' =')[0]} IS NULL")
        connection.execute(f"UPDATE sync_runs SET error = '{CANARY}'")
        connection.execute(
            f"""UPDATE repositories SET parent_id = {secret}, parent_uuid = '{CANARY}',
                parent_full_name = '{CANARY}' WHERE full_name = 'mcatalbas/copy'"""
        )
        connection.execute(f"UPDATE branches SET target_message = '{CANARY}' WHERE repository_id = {secret}")
        connection.execute(
            f"UPDATE changes SET old = '{CANARY}', new = '{CANARY}' WHERE kind IN ('renamed', 'transferred')"
        )
    return planted


def test_planted_private_texts_are_not_published(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """Of private, dangling and gone rows, and of refused columns."""
    mixed_db.store.save_upstream("inside", "datacenter", "https://inside.example")
    mixed_db.store.close()
    planted = plant(mixed_db.path)
    assert planted > 200
    source = mixed_db.path.read_bytes()
    assert source.count(CANARY.encode()) >= planted
    target = tmp_path / "public.db"
    done = publish(mixed_db.path, target, PublishOptions())
    found = target.read_bytes()
    assert CANARY.lower().encode() not in found.lower()
    assert not [secret for secret in (*SECRETS, b"inside.example") if secret.lower() in found.lower()]
    assert done.rows["repositories"] == 7
    assert b"django-piston" in found


def test_no_authors_removes_every_author(public_path: Path, tmp_path: Path) -> None:
    """From author lines, and from messages, which may have a sign-off."""
    with closing(sqlite3.connect(public_path, isolation_level=None)) as connection:
        for table in ("branches", "tags"):
            names = {"target_author", "target_author_name", "target_author_uuid", "target_message"}
            for name in names | ({"tagger", "message"} if table == "tags" else set()):
                connection.execute(f"UPDATE {table} SET {name} = '{CANARY} <{CANARY}@example.com>'")
    for authors in (True, False):
        target = tmp_path / f"{authors}.db"
        publish(public_path, target, PublishOptions(authors=authors))
        assert (CANARY.encode() in target.read_bytes()) is authors
