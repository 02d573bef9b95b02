"""The progress of a sync: the same numbers in the log, on pages, in `mirror status` and in metrics."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from asgi_client import client_of
from fixtures_db import FixtureDb, repository
from sync_harness import Clock, Notes, crawling
from upstream_fakes import FakeClock, MemoryLedger

from mirror.background.service import OneThread
from mirror.observe.logs import Logged
from mirror.observe.metrics import FileMetrics
from mirror.queries.crawl import SyncProgress, progress_text, read_progress
from mirror.queries.status import read_status
from mirror.report import Reporter
from mirror.store.crawl_state import Progress
from mirror.store.cursors import Cursors
from mirror.store.files import open_reader
from mirror.store.lock import is_syncing, sync_lock
from mirror.store.runs import start_run
from mirror.sync.crawl import sync_upstream
from mirror.times import from_text, to_text, utc_now
from mirror.upstream.budget import Budget

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Watching(Notes):
    """A listener that records every progress."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = list[Progress]()

    def progress(self, progress: Progress) -> None:
        """Keep it."""
        self.seen.append(progress)


def stored(path: Path, *, syncing: bool = False) -> SyncProgress | None:
    """Read the progress from the file."""
    connection = open_reader(path)
    try:
        return read_progress(connection, 1, syncing=syncing)
    finally:
        connection.close()


def test_a_paused_sync_goes_on_counting_where_it_stopped(tmp_path: Path) -> None:
    """Runs that pause for the budget share one count, in the file until the sync is done."""
    counted = list[tuple[str, int, int | None]]()
    with crawling(tmp_path, 60, requests_per_hour=None, our_limit=40) as (_, crawl):
        for _ in range(9):
            summary = crawl.sync(may_wait=False, later=3601)
            found = stored(crawl.path)
            if summary.state != "paused":
                break
            assert found is not None
            assert found.state == "paused"
            assert found.waits_until == to_text(summary.resumes_at or NOON)
            counted.append((found.what, found.done, found.total))
    assert summary.state == "complete"
    assert found is None
    refs = [(done, total) for what, done, total in counted if what == "refs"]
    assert len(refs) >= 1
    assert [done for done, _ in refs] == sorted(done for done, _ in refs)
    assert len({total for _, total in refs}) == 1


def test_the_estimated_end_respects_the_budget(tmp_path: Path) -> None:
    """An estimate after a tenth of the refs is right within a tenth, hours of the budget included."""
    clock, report = Clock(), Watching()
    with crawling(tmp_path, 150, clock=clock, our_limit=30) as (_, crawl):
        with crawl.run(report=report, stopwatch=lambda: clock.now().timestamp()) as run:
            sync_upstream(run)
        began, ended = from_text(report.seen[0].at), clock.now()
    refs = [each for each in report.seen if each.what == "refs"]
    early = next(each for each in refs if each.total and each.done >= each.total / 10 and each.done_at)
    error = abs((from_text(early.done_at or "") - ended).total_seconds())
    assert error <= (ended - began).total_seconds() / 10
    assert [each.done for each in refs] == sorted(each.done for each in refs)
    last = refs[-1]
    assert last.done == last.total


def budget_after(sent: list[float], limit: int | None) -> Budget:
    """Return a budget with requests that were sent so many seconds before noon."""
    ledger, clock = MemoryLedger(), FakeClock(NOON)
    budget = Budget(ledger, bucket="box", wait=clock.wait, clock=clock.clock, limit=limit, default=None)
    ledger.asked["box"] = [NOON - timedelta(seconds=seconds) for seconds in sent]
    return budget


def test_the_estimate_includes_the_wait_for_the_next_hour() -> None:
    """Requests leave the hour one by one, and later hours follow the same rhythm."""
    spent = budget_after([600.0] * 10, 10)
    assert spent.seconds_for(0, 1.0) == 0
    assert spent.seconds_for(1, 1.0) == 3001
    assert spent.seconds_for(10, 1.0) == 3001
    assert spent.seconds_for(11, 1.0) == 3001 + 3600
    half = budget_after([3000.0, 60.0], 4)
    assert half.seconds_for(2, 1.0) == 2
    assert half.seconds_for(3, 1.0) == 601
    assert half.seconds_for(4, 1.0) == 3541
    assert half.seconds_for(6, 1.0) == 2 + 3600
    assert budget_after([1.0], None).seconds_for(100, 0.5) == 50


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, FixtureDb]]:
    """A mirror whose first sync is at 234 of 2,000 refs."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("team/app")], first=True)
    now = utc_now()
    with filled.store.transaction() as connection:
        run = start_run(connection, filled.upstream_id, "full", at=to_text(now))
        progress = Progress(
            run_id=run, what="refs", done=234, total=2000, at=to_text(now), is_whole=True,
            done_at=to_text(now + timedelta(days=2)),
        )  # fmt: skip
        Cursors(connection, filled.upstream_id).progress.save(progress, at=progress.at)
    yield tmp_path / "mirror.db", filled
    filled.store.close()


def test_every_view_shows_the_same_numbers(watched: tuple[Path, FixtureDb]) -> None:
    """Pages, status and metrics, while a process holds the lock."""
    path, _ = watched
    served, connection = client_of(path), open_reader(path)
    with sync_lock(path):
        (status,) = read_status(connection, utc_now(), syncing=is_syncing(path))
        assert status.progress is not None
        said = progress_text(status.progress, utc_now())
        assert said.startswith("refs 234 of 2,000, 11 %, done about 20")
        for page in ("/", "/-/mirror-status"):
            text = served.get(page).text
            assert said in text
            assert "syncing now" in text
            assert 'data-fresh="5"' in text
            assert (
                "whose branches and tags are to be read" not in text
            )  # a count of this moment, beside progress of some seconds ago
            assert "not been read yet" not in text
        assert '<noscript><meta http-equiv="refresh" content="5">' in served.get("/-/mirror-status").text
        assert "http-equiv" not in served.get("/-/mirror-status?still=1").text
        metrics = served.get("/-/metrics").text
    assert 'sync_progress_done{phase="refs",upstream="cloud"} 234.0' in metrics
    assert 'sync_progress_total{phase="refs",upstream="cloud"} 2000.0' in metrics
    assert 'sync_running{upstream="cloud"} 1.0' in metrics
    connection.close()


def test_a_killed_run_is_not_called_syncing(watched: tuple[Path, FixtureDb]) -> None:
    """Nobody holds the lock: the run is interrupted, with its last progress."""
    path, filled = watched
    served = client_of(path)
    text = served.get("/-/mirror-status").text
    assert "syncing now" not in text
    assert "refs 234 of 2,000, 11 %, interrupted" in text
    assert ">running<" not in text
    assert 'content="60"' in text
    connection = open_reader(path)
    assert b'sync_running{upstream="cloud"} 0.0' in FileMetrics().text(connection, syncing=False)
    connection.close()
    with filled.store.transaction() as writing:
        other = filled.store.save_upstream("other", "cloud", "https://api.example.com/2.0")
        start_run(writing, other, "full", at=to_text(utc_now()))
    with sync_lock(path):
        assert served.get("/").text.count("syncing now") == 1


@pytest.mark.parametrize("state", ["failed", "interrupted", "paused", "running"])
def test_only_a_run_that_goes_on_has_an_expected_end(watched: tuple[Path, FixtureDb], state: str) -> None:
    """In texts, JSON and metrics alike; that of a paused run is not shown once it has passed."""
    path, filled = watched
    filled.store.connection.execute("UPDATE sync_runs SET state = ?", (state,))
    syncing = state == "running"
    progress = stored(path, syncing=syncing)
    assert progress is not None
    has_end, now = state in ("paused", "running"), utc_now()
    assert (progress.done_at is not None) == has_end
    assert ("done about" in progress_text(progress, now)) == has_end
    assert ("done about" in progress_text(progress, now + timedelta(days=3))) == syncing
    with closing(open_reader(path)) as connection:
        metrics = FileMetrics().text(connection, syncing=syncing)
    assert (b'sync_end_timestamp_seconds{upstream="cloud"}' in metrics) == has_end


def test_strangers_see_no_progress_of_private_rows(watched: tuple[Path, FixtureDb]) -> None:
    """The numbers count private repositories too."""
    path, filled = watched
    filled.repositories([repository("team/secret", is_private=True)])
    with sync_lock(path):
        for page in ("/", "/-/mirror-status", "/-/metrics"):
            assert "234" not in client_of(path).get(page).text


def test_a_log_gets_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """For any number of steps and phases, also during a wait, but not at the start."""
    moment = [0.0]
    logged = Logged(Reporter(), stopwatch=lambda: moment[0])
    base = Progress(run_id=1, what="refs", done=0, total=2000, at=to_text(NOON))
    with caplog.at_level(logging.INFO, logger="mirror"):
        logged.phase("branches and tags", 2000)
        for second in range(0, 185, 5):
            moment[0] = second
            if second % 40 == 0:
                logged.phase("listing workspaces", 0)
            done_at, waits = to_text(NOON + timedelta(minutes=9)), to_text(NOON + timedelta(minutes=4))
            logged.progress(
                msgspec.structs.replace(
                    base, done=second, done_at=done_at, waits_until=waits if second > 100 else None
                )
            )
        moment[0] += 3600
        logged.progress(msgspec.structs.replace(base, run_id=2))
    said = [record.getMessage().partition(" %,")[0] for record in caplog.records]
    assert said == ["refs 60 of 2,000, 3", "refs 120 of 2,000, 6", "refs 180 of 2,000, 9"]
    assert caplog.records[0].__dict__["done"] == 60
    assert "nothing is asked until" in caplog.records[-1].getMessage()


def test_a_job_due_during_its_own_run_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """APScheduler's "maximum number of running instances" would appear every few seconds."""
    began, goes_on, calls = threading.Semaphore(0), threading.Event(), list[int]()

    def work() -> None:
        calls.append(1)
        began.release()
        goes_on.wait(30)

    scheduler = BackgroundScheduler(executors={"default": OneThread(1)}, timezone="UTC")
    scheduler.start()
    job = scheduler.add_job(work, "interval", seconds=3600)
    for _ in range(3):
        job.modify(next_run_time=utc_now())
        began.acquire(timeout=5) if not calls else scheduler._process_jobs()
    goes_on.set()
    scheduler.shutdown()
    assert calls == [1]
    assert not [record for record in caplog.records if "maximum number" in record.getMessage()]
