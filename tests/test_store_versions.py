"""Files of every former schema, as programs of that time left them (`tests/older/*.sql`)."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fixtures_db import LATER, FixtureDb, repository
from older_files import DUMPS, restored
from prepared_files import copy_empty
from sqlite_utils import Database

from mirror.errors import StoreError
from mirror.queries.repositories import repository_details
from mirror.queries.visibility import OPERATOR
from mirror.search import search
from mirror.search.refs.find import search_refs
from mirror.store import Store
from mirror.store.files import open_reader
from mirror.store.migrations import migrations
from mirror.store.repair import check_file


def objects(path: Path) -> list[Any]:
    """Read the tables, indexes, triggers and views of a file, as their statements."""
    with closing(open_reader(path)) as connection:
        found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
        return [tuple(row) for row in found]


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_a_file_of_every_version_migrates_to_the_schema_of_a_new_one(tmp_path: Path, dump: Path) -> None:
    """Its schema equals that of a new file, and all its rows are there."""
    path, new = tmp_path / "mirror.db", tmp_path / "new.db"
    restored(path, dump.read_text("utf-8"))
    Store(path).close()
    copy_empty(new)
    assert objects(path) == objects(new)
    assert check_file(path, repair=False) == []
    with closing(open_reader(path)) as connection:
        assert search(connection, "tool").count == 3
        assert search(connection, "übung").count == search(connection, "other").count == 1
        found = repository_details(connection, OPERATOR, "ws/tool-1")
    assert found is not None
    assert [ref.name for ref in (*(found.branches or ()), *(found.tags or ()))] == ["main", "v1"]
    with Store(path) as store:
        store.finish_search_index()
    assert check_file(path, repair=False) == []


@pytest.mark.parametrize("table", ["search_state", "search_ref_state"])
def test_an_index_with_rows_that_are_never_written_is_a_fault_and_mended(tmp_path: Path, table: str) -> None:
    """Searches and the check say so in a line, and the repair makes the index anew."""
    path = tmp_path / "mirror.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"DELETE FROM {table}")
        with pytest.raises(StoreError, match="--repair"):
            (search if table == "search_state" else search_refs)(connection, "django")
    assert [complaint.mended for complaint in check_file(path, repair=False)] == [False]
    assert [complaint.mended for complaint in check_file(path, repair=True)] == [True]
    assert check_file(path, repair=False) == []


def test_a_half_migrated_file_is_completed(tmp_path: Path) -> None:
    """Such a file can only have migrations before the eleventh."""
    path = tmp_path / "mirror.db"
    restored(path, (DUMPS[0].parent / "06.sql").read_text("utf-8"))
    with closing(sqlite3.connect(path)) as connection:
        migrations.apply(Database(connection, execute_plugins=False), stop_before="m011_pending_in_full")
    Store(path).close()
    assert check_file(path, repair=False) == []


def test_rows_that_wait_for_the_index_are_no_fault(tmp_path: Path) -> None:
    """Few rows stay so until a sync ends, as an API writes them for instance."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("ann/new")], at=LATER)
    filled.store.close()
    with closing(open_reader(filled.path)) as connection:
        sql = "SELECT max(id) > (SELECT up_to FROM search_state) FROM repositories"
        assert connection.execute(sql).fetchone()[0]
    assert check_file(filled.path, repair=False) == []
