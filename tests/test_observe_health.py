"""Health: 200, or 503 with reasons for people; a short absence of an upstream is none."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asgi_client import client_of
from fixtures_db import FixtureDb, repository
from prepared_files import opened
from sync_harness import crawling

from mirror.observe.health import LEAST_FREE, Health, read_health
from mirror.queries.visibility import ANONYMOUS
from mirror.store import Store
from mirror.store.crawl_state import WorkspaceState
from mirror.store.cursors import Cursors
from mirror.store.files import open_reader
from mirror.store.repair import Complaint, record_check
from mirror.store.runs import Failure, Failures, finish_run, start_run
from mirror.times import to_text

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class File:
    """A mirror with one upstream and its past runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as store:
            self.upstream = store.save_upstream("box", "sandbox", "http://x")

    def ran(
        self, ago: timedelta, state: str = "complete", kind: str = "incremental", requests: int = 1
    ) -> None:
        """Record a run."""
        with Store(self.path) as store, store.transaction() as connection:
            at = to_text(NOW - ago)
            run = start_run(connection, self.upstream, kind, at=at)
            finish_run(
                connection, run, kind=kind, state=state, at=at, counts={"requests": requests}, error=None
            )

    def health(self, **more: object) -> Health:
        """Read the health as of now, on a disk with room."""
        with closing(open_reader(self.path)) as connection:
            return read_health(connection, self.path, NOW, **{"free": 10**12, **more})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> File:
    """A mirror that has never been synced."""
    return File(tmp_path / "mirror.db")


def test_a_current_mirror_is_healthy(file: File) -> None:
    """Before its first sync, and after it."""
    assert file.health().status == "ok"
    file.ran(HOUR)
    assert file.health() == Health(status="ok", reasons=[], warnings=[])


@pytest.mark.parametrize(("state", "well"), [("complete", False), ("incomplete", False), ("failed", False)])
def test_an_old_last_sync_is_unhealthy(file: File, state: str, well: bool) -> None:
    """Whatever ran since; a run with failures counts, a verify does not."""
    file.ran(60 * HOUR, "incomplete" if state == "incomplete" else "complete")
    file.ran(2 * HOUR, "failed" if state == "failed" else "complete", kind="verify")
    found = file.health()
    assert (found.status == "ok") is well
    assert "2 days ago" in found.reasons[0]
    assert file.health(patience={"box": 70 * 3600.0}).status == "ok"


def test_syncs_that_list_nothing_are_unhealthy(file: File) -> None:
    """If every workspace answers 500, every run is incomplete, and the mirror gets old."""
    file.ran(HOUR, "incomplete")
    for hours, status in ((70, "unwell"), (3, "ok")):
        state = WorkspaceState(cursor=to_text(NOW - hours * HOUR))
        with Store(file.path) as store, store.transaction() as connection:
            Cursors(connection, file.upstream).workspace(str(hours)).save(state, at=to_text(NOW))
        assert file.health().status == status


def test_a_progressing_first_load_is_healthy(file: File) -> None:
    """It may take days of small budgets; one that sends no requests any more is unhealthy."""
    for hours in (50, 40, 30, 10, 2):
        file.ran(hours * HOUR, "paused", kind="full")
    assert file.health().status == "ok"


def test_a_stalled_first_load_is_unhealthy(file: File) -> None:
    """Two days without a complete sync and without a request."""
    file.ran(50 * HOUR, "paused", kind="full")
    for hours in (20, 10, 2):
        file.ran(hours * HOUR, "failed", kind="full", requests=0)
    assert "progress" in file.health().reasons[0]


def test_a_budget_spent_for_hours_is_unhealthy(file: File) -> None:
    """Repeatedly, after a time when it was enough; once is no reason."""
    file.ran(8 * HOUR)
    file.ran(HOUR, "paused")
    assert file.health().status == "ok"
    file.ran(7 * HOUR)
    for hours in (6, 4, 2):
        file.ran(hours * HOUR, "paused")
    assert "again and again for 6 h" in file.health().reasons[0]
    file.ran(HOUR)
    assert file.health().status == "ok"


def test_a_run_that_ends_by_max_requests_has_not_spent_the_budget(tmp_path: Path) -> None:
    """`--max-requests` from cron every hour, with work left each time."""
    with crawling(tmp_path, synced=True, workspaces=("jespern", "erik"), refs_every=1.0) as (_, crawl):
        for _ in range(5):
            assert crawl.sync(max_requests=1, later=3600).state == "paused"
        with closing(open_reader(crawl.path)) as connection:
            assert read_health(connection, crawl.path, crawl.clock.now(), free=10**12).reasons == []


def test_a_removed_upstream_is_ignored(file: File) -> None:
    """The sandbox of a first try stays in the file without any sync."""
    file.ran(400 * HOUR)
    assert file.health(patience={"cloud": 3600.0}).status == "ok"
    assert file.health(patience={"cloud": 3600.0, "box": 3600.0}).status == "unwell"
    assert file.health(patience={}).status == "unwell"


def test_a_nearly_full_disk_is_unhealthy(file: File) -> None:
    """With the free space in the message."""
    assert file.health(free=LEAST_FREE).status == "ok"
    assert "52 MB" in file.health(free=50 * 1024**2).reasons[0]


def test_findings_of_the_last_file_check_are_unhealthy(file: File) -> None:
    """Until a later check finds nothing, or repairs it; for all upstreams of the file."""
    with Store(file.path) as store:
        store.save_upstream("other", "sandbox", "http://y")
    fault = Complaint("search index: it is wrong")
    for found, reasons in (
        ([fault, fault], ["box: the last check of the file found: 2 faults; see: mirror verify"]),
        ([fault._replace(mended=True)], []),
    ):
        record_check(file.path, found, at=to_text(NOW))
        for name in ("box", "other"):
            told = file.health(patience={name: HOUR.total_seconds()}).reasons
            assert told == [reason.replace("box", name) for reason in reasons]


def test_failures_and_the_brake_are_warnings(file: File) -> None:
    """The mirror works as designed: it waits and says so."""
    file.ran(HOUR, "failed")
    file.ran(2 * HOUR)
    with Store(file.path) as store, store.transaction() as connection:
        for failure in (Failure("refs", "{u}", "500"), Failure("absence", "team", "90 of 100 are gone")):
            Failures(connection, file.upstream).save(failure, NOW)
    found = file.health()
    assert found.status == "ok"
    assert any("--confirm-absence" in warning for warning in found.warnings)
    assert any("1 failure of kind refs waits" in warning for warning in found.warnings)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A mirror with overwritten pages."""
    path = tmp_path / "mirror.db"
    File(path).ran(HOUR)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    return path


def test_a_damaged_file_is_reported_not_raised(damaged: Path) -> None:
    """With SQLite's message."""
    with closing(open_reader(damaged)) as connection:
        found = read_health(connection, damaged, NOW, free=10**12)
    assert found.status == "unwell"
    assert "the file" in found.reasons[0]


def test_strangers_are_told_what_is_public(tmp_path: Path) -> None:
    """The status, late syncs of upstreams with public rows, and no faults or upstreams besides."""
    file = File(tmp_path / "mirror.db")
    file.ran(timedelta(days=9))
    filled = FixtureDb(file.path)
    filled.repositories([repository("ann/open"), repository("ann/hidden", is_private=True)])
    inside = filled.store.save_upstream("inside", "sandbox", "http://y")
    with closing(filled.store) as store, store.transaction() as connection:
        connection.execute("UPDATE repositories SET upstream_id = ?", (file.upstream,))
        connection.execute("UPDATE users SET upstream_id = ?", (file.upstream,))
        Cursors(connection, inside).integrity.save("row of ann/hidden", at=to_text(NOW))
    late = "box: the last sync ended 9 days ago"
    assert file.health().reasons == [late, "inside: the last check of the file found: row of ann/hidden"]
    told = file.health(caller=ANONYMOUS)
    assert told.status == "unwell"
    assert told.reasons == [late, "a token of the whole mirror is told what is wrong"]


def test_the_route_answers_200_or_503(tmp_path: Path) -> None:
    """The status is for watchdogs, the reasons are for people; no token is needed."""
    file = File(tmp_path / "mirror.db")
    server = client_of(file.path)
    answer = server.get("/-/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert answer.headers["cache-control"] == "no-store"
    with Store(file.path) as store, store.transaction() as connection:
        Cursors(connection, file.upstream).integrity.save("3 faults", at=to_text(NOW))
    answer = server.get("/-/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unwell")
    assert "3 faults" in answer.json()["reasons"][0]
