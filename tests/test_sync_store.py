"""A full disk, a read-only file, Ctrl-C: the old state stays whole."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sync_harness import SyncHarness, assert_matches_sandbox, contents, crawling

from mirror.config import Duration
from mirror.errors import StoreError
from mirror.sandbox import Fault
from mirror.store import Store


def tables(crawl: SyncHarness) -> dict[str, Any]:
    """Read the mirror without the state of the crawl."""
    return {name: rows for name, rows in contents(crawl).items() if name != "streams"}


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """The run ends with the reason; each page is saved in full or not at all."""
    with crawling(tmp_path, 400, concurrency=4) as (sandbox, crawl):
        Store(crawl.path).close()
        pages = 220

        def limited(path: Path) -> Store:
            store = Store(path)
            store.connection.execute(f"PRAGMA max_page_count = {pages}")
            return store

        crawl.open_store = limited
        summary = crawl.sync()
        assert "disk is full" in (summary.error or "")
        assert summary.counts.repositories_new == crawl.one("SELECT count(*) FROM repositories")
        saved = sum(crawl.one(f"SELECT count(*) FROM {table}") for table in ("branches", "tags"))
        assert summary.counts.refs_new == saved
        with closing(sqlite3.connect(crawl.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert 0 < crawl.one("SELECT count(*) FROM repositories WHERE NOT refs_stale") < 400
        pages = 1_000_000
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Reported before any request."""
    with crawling(tmp_path) as (sandbox, crawl):
        crawl.path.mkdir()
        with pytest.raises(StoreError, match="a folder; give the path of a file"):
            crawl.sync()
        assert sandbox.state()["total"] == 0


@pytest.mark.parametrize("where", ["user", "listing", "refs"])
def test_stopping_is_quick_and_resumes_later(tmp_path: Path, where: str) -> None:
    """With a silent upstream, a run ends within seconds; the next one does the rest."""
    with crawling(tmp_path, 60, network=True, timeout=Duration(30)) as (sandbox, crawl):
        sandbox.add_fault(Fault("hang", where=where, nth=2 if where != "user" else 1, times=1000))
        stop = threading.Event()
        timer = threading.Timer(0.5, stop.set)
        timer.start()
        began = time.monotonic()
        summary = crawl.sync(stop=stop)
        assert (summary.state, summary.exit_code) == ("interrupted", 130)
        assert time.monotonic() - began < 15
        timer.join()
        sandbox.clear_faults()
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


def test_links_of_a_former_address_are_not_followed(tmp_path: Path) -> None:
    """After an interruption and a change of address, nothing is lost."""
    with crawling(tmp_path, 60, page_length=3) as (_, crawl):
        assert crawl.sync(max_requests=20).state == "paused"
    with crawling(tmp_path, 60, page_length=3, clock=crawl.clock) as (sandbox, moved):
        summary = moved.sync()
        assert (summary.state, summary.failures) == ("complete", [])
        assert_matches_sandbox(moved, sandbox, sandbox.workspaces())


def test_a_changed_list_of_workspaces_keeps_rows(tmp_path: Path) -> None:
    """A removed one keeps its rows; added again, it continues."""
    with crawling(tmp_path, synced=True, network=True, workspaces=("jespern", "ubernostrum")) as (
        sandbox,
        crawl,
    ):
        less = SyncHarness(
            crawl.config.url.removesuffix("/2.0"), crawl.path, crawl.clock, workspaces=("jespern",)
        )
        sandbox.do("push", "ubernostrum/django-profiles")
        before = tables(crawl)
        assert less.sync().counts.requests == 1
        assert tables(crawl) == before
        assert crawl.sync().counts.refs_changed >= 1
        assert_matches_sandbox(crawl, sandbox, ["jespern", "ubernostrum"])


def test_refs_that_moved_while_none_were_mirrored_are_read_again(tmp_path: Path) -> None:
    """`refs` from "api" to "none" and back: pushes in between are read."""
    with crawling(tmp_path, synced=True, workspaces=("jespern",)) as (sandbox, crawl):
        with_refs = crawl.config
        crawl.config = msgspec.structs.replace(with_refs, refs="none")
        sandbox.do("push", "jespern/django-piston")
        assert crawl.sync().state == "complete"
        crawl.config = with_refs
        assert crawl.sync().counts.refs_changed >= 1
        assert_matches_sandbox(crawl, sandbox, ["jespern"])
        assert crawl.sync().counts.requests == 1


def test_refs_are_mirrored_once_the_configuration_says_so(tmp_path: Path) -> None:
    """From `refs = "none"` to `"api"`: repositories listed before get their refs, changed or not."""
    with crawling(tmp_path, synced=True, workspaces=("jespern",), refs="none") as (sandbox, crawl):
        assert crawl.one("SELECT count(*) FROM branches") == 0
        crawl.config = msgspec.structs.replace(crawl.config, refs="api")
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, ["jespern"])
        assert crawl.sync().counts.requests == 1


@pytest.mark.parametrize("network", [False, True])
def test_a_copied_mirror_is_that_of_its_own_sandbox(tmp_path: Path, *, network: bool) -> None:
    """Tests begin with a copy of a first sync: it equals the sandbox, and the next run goes on from it."""
    workspaces = ("jespern", "ubernostrum")
    with crawling(tmp_path, synced=True, network=network, workspaces=workspaces) as (sandbox, crawl):
        assert_matches_sandbox(crawl, sandbox, workspaces)
        assert crawl.sync().state == "complete"
        assert sandbox.state()["by_kind"] == {"listing": 2}
