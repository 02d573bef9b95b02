"""Fingerprints of a site's pages: a page that would change has another fingerprint."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fixtures_db import FixtureDb, hg_ref, repository

from mirror.publish.selection import COPIED
from mirror.publish.snapshot import public_rows
from mirror.site.build import Sources
from mirror.site.folder import PagePaths
from mirror.site.pages import Pages

AT = "2026-11-03T00:00:00.000000Z"


def fill(path: Path) -> None:
    """Fill a mirror with refs, changes, forks of forks, and a name on two upstreams."""
    filled = FixtureDb(path)
    one = repository("aa/one", updated_at="2012-01-01T00:00:00.000000Z", project_key="P", project_name="Plan")
    two = repository("bb/two", parent_uuid=one.uuid, parent_full_name=one.full_name)
    three = repository("cc/three", parent_uuid=two.uuid, parent_full_name=two.full_name)
    filled.repositories([one, two, three], first=True)
    filled.repositories([repository("aa/one", description="edited", project_key="P")], at=AT)
    filled.refs("aa/one", [hg_ref("branch", "main", "1"), hg_ref("tag", "v1", "2")])
    filled.refs("aa/one", [hg_ref("branch", "main", "3"), hg_ref("tag", "v1", "2")])
    filled.upstream_id = filled.store.save_upstream("other", "cloud", "https://other.example/2.0")
    filled.repositories([repository("AA/One", uuid="{else}")], first=True)
    filled.store.close()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of public rows."""
    path = tmp_path_factory.mktemp("sources") / "mirror.db"
    fill(path)
    with public_rows(path, indexed=True) as file, closing(sqlite3.connect(file)) as connection:
        return connection.serialize()


def opened(data: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def rendered(connection: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """Map each page of a repository or an owner to its fingerprint and its text."""
    places = PagePaths(connection)
    pages, sources = (
        Pages(connection, places, title="T", base_path="/"),
        Sources(connection, places, ["T"]),
    )
    found = [*pages.repositories(sources.repositories()), *pages.owners(sources.owners())]
    return {source.path: (source.fingerprint, text) for source, text in found}


def edits(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Yield SQL for changes of a file of public rows: of each copied column, and of deleted rows."""
    for table, copied in COPIED.items():
        types = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({table})")}
        for column in copied.keys() - {"id", "repository_id"}:
            text = f"""CASE WHEN {column} GLOB '2???-*' THEN '2001' || substr({column}, 5)
                ELSE coalesce({column}, '') || 'x' END"""
            number = f"iif({column} = 1, 2, 1)"
            edit = number if types[column] == "INTEGER" else text
            yield table, column, f"UPDATE OR IGNORE {table} SET {column} = {edit}"
    for table in ("branches", "tags", "changes"):
        yield table, "gone", f"DELETE FROM {table}"
    for name in ("cc/three", "AA/One"):
        yield "repositories", "gone", f"DELETE FROM repositories WHERE full_name = '{name}'"


def test_a_page_that_changes_has_another_fingerprint(rows: bytes) -> None:
    """Whatever column of whatever row changed."""
    with closing(opened(rows)) as connection:
        before = rendered(connection)
        wanted = sorted(edits(connection))
    changed = set[str]()
    for table, column, edit in wanted:
        with closing(opened(rows)) as connection:
            connection.execute(edit)
            after = rendered(connection)
        for path in before.keys() & after.keys():
            if before[path][1] != after[path][1]:
                changed.add(f"{table}.{column}")
                assert before[path][0] != after[path][0], (table, column, path)
    assert {"repositories.description", "users.display_name", "tags.name", "repositories.gone"} <= changed
    assert len(changed) > 30


def test_pages_of_others_keep_their_fingerprints(rows: bytes) -> None:
    """If row ids shift, and after a sync without changes."""
    with closing(opened(rows)) as connection:
        before = rendered(connection)
    with closing(opened(rows)) as connection:
        for table, column in (
            ("repositories", "id"),
            ("branches", "repository_id"),
            ("tags", "repository_id"),
        ):
            connection.execute(f"UPDATE {table} SET {column} = {column} + 1000")
        connection.execute("UPDATE changes SET repository_id = repository_id + 1000, id = id + 500")
        connection.execute("UPDATE repositories SET parent_id = parent_id + 1000")
        connection.execute(
            "UPDATE repositories SET last_seen_at = ?, refs_synced_at = refs_synced_at || '0'", (AT,)
        )
        assert rendered(connection) == before
