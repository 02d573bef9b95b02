"""Watch runs: due workspaces are read from the file, and a run without changes leaves few rows."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from sync_harness import SyncHarness, assert_matches_sandbox, crawling

from mirror.background.freshness import UpstreamWatch, Watches
from mirror.background.jobs import Work
from mirror.background.worker import do
from mirror.config import Config
from mirror.operations import Control
from mirror.sandbox import Fault, Sandbox
from mirror.store.files import open_reader
from mirror.times import from_text


@pytest.fixture
def mirrored(tmp_path: Path) -> Iterator[tuple[Sandbox, SyncHarness]]:
    """A sandbox and its mirror, synced once; nothing was updated lately."""
    with crawling(tmp_path, 60, synced=True, network=True) as (sandbox, crawl):
        yield sandbox, crawl


def due(watch: UpstreamWatch, crawl: SyncHarness, limit: int | None, later: float = 0) -> list[str]:
    """Return the due workspaces."""
    crawl.clock.wait(later)
    with closing(open_reader(crawl.path)) as connection:
        return watch.due(connection, crawl.clock.now(), limit)


def test_a_workspace_with_a_push_is_due_before_the_quiet_ones(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """All the others become due later."""
    sandbox, crawl = mirrored
    sandbox.do("push", "ubernostrum/django-profiles")
    crawl.sync(later=60)
    watch = UpstreamWatch(crawl.config)
    first = next(names for names in (due(watch, crawl, 20, later=60) for _ in range(500)) if names)
    assert first == ["ubernostrum"]


def test_a_failing_workspace_takes_no_listings_from_others(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """Its urgency grows, but it waits for its next try."""
    sandbox, crawl = mirrored
    sandbox.add_fault(Fault("500", where="/2.0/repositories/jespern", nth=None))
    assert [failure.subject for failure in crawl.sync().failures] == ["jespern"]
    watch = UpstreamWatch(crawl.config)
    named = [set(due(watch, crawl, 1000, later=60)) for _ in range(10)]
    assert "ubernostrum" in set().union(*named)
    assert "jespern" not in set().union(*named)
    assert any("jespern" in due(watch, crawl, 1000, later=60) for _ in range(10))


def test_a_watch_run_stays_within_its_share(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """A day of watch runs each minute, with listings of one request each."""
    _, crawl = mirrored
    watch = UpstreamWatch(msgspec.structs.replace(crawl.config, watch=0.5))
    asked = sum(len(due(watch, crawl, 100, later=60)) for _ in range(300))
    assert asked <= 0.5 * 100 * 5 + 1


def test_a_share_of_zero_watches_nothing(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """`watch = 0` leaves everything to the schedules."""
    _, crawl = mirrored
    watch = UpstreamWatch(msgspec.structs.replace(crawl.config, watch=0.0))
    assert due(watch, crawl, 100, later=86_400) == []


@pytest.mark.parametrize(
    ("limit", "period", "watched"), [(10, 900, True), (10_000, 900, False), (10, 86_400, False)]
)
def test_syncs_are_postponed_when_the_budget_is_short(
    mirrored: tuple[Sandbox, SyncHarness], limit: int, period: float, watched: bool
) -> None:
    """At most for a day after the last one."""
    _, crawl = mirrored
    watch, now = UpstreamWatch(crawl.config), crawl.clock.now()
    with closing(open_reader(crawl.path)) as connection:
        for ago, expected in ((timedelta(hours=1), watched), (timedelta(days=2), False)):
            assert watch.replaces(connection, now - ago, now, period=period, limit=limit) is expected
        new = UpstreamWatch(msgspec.structs.replace(crawl.config, workspaces=("brand-new",)))
        assert not new.replaces(connection, now, now, period=900, limit=10)


@pytest.mark.parametrize(
    ("limit", "hours", "schedule", "expected"),
    [
        (10, 2, "*/15 * * * *", 24),
        (10, 25, "*/15 * * * *", 25),
        (10_000, 2, "*/15 * * * *", 2),
        (10, 2, "20 18 * * *", 6),
    ],
)
def test_the_next_sync_is_the_one_that_watch_runs_do_not_replace(
    mirrored: tuple[Sandbox, SyncHarness], limit: int, hours: float, schedule: str, expected: float
) -> None:
    """A day after the last one at the latest, in hours since that; "now" while nothing begins is wrong."""
    _, crawl = mirrored
    began = crawl.clock.now()
    upstream = msgspec.structs.replace(
        crawl.config, credential=None, requests_per_hour=limit, schedule=schedule, sweep_schedule="5m"
    )
    config = Config(database=str(crawl.path), upstreams=(upstream,), timezone="UTC")
    crawl.clock.wait(hours * 3600)
    with closing(open_reader(crawl.path)) as connection:
        shown = Watches(config, crawl.clock.now).next_runs(connection, upstream.name)
    sync, sweep = from_text(shown["sync"]), from_text(shown["sweep"])
    assert timedelta(0) <= sync - began - timedelta(hours=expected) <= timedelta(minutes=16)
    assert sweep - crawl.clock.now() <= timedelta(minutes=5)  # they replace no sweep


def test_a_watch_run_lists_due_workspaces_only(
    mirrored: tuple[Sandbox, SyncHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its changes are reported; runs without changes share one row an hour, and their requests count."""
    sandbox, crawl = mirrored
    monkeypatch.setenv("SECRET", "sandbox")
    config = Config(database=str(crawl.path), upstreams=(crawl.config,))
    work = Work(crawl.config, "watch", "")

    def look(*names: str) -> int:
        crawl.clock.wait(60)
        (summary,) = do(work, config, Control(clock=crawl.clock.now), due=names)
        assert (summary.state, summary.kind) == ("complete", "watch")
        return summary.counts.requests

    sandbox.do("rename", "ubernostrum/django-profiles", name="renamed")
    assert look("jespern") == 1
    assert look("ubernostrum") == 2  # the workspace, and the refs of what was updated
    assert sum(look("jespern") for _ in range(5)) == 5
    rows = crawl.rows("SELECT requests FROM sync_runs WHERE kind = 'watch' ORDER BY id")
    assert rows == [(1,), (2,), (5,)]
    assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


def test_a_watch_run_is_never_counted_as_a_sync(
    mirrored: tuple[Sandbox, SyncHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it makes a full listing, the last sync keeps its time."""
    sandbox, crawl = mirrored
    monkeypatch.setenv("SECRET", "sandbox")
    config = Config(database=str(crawl.path), upstreams=(crawl.config,))
    sandbox.do("delete", "jespern/arriving")
    sandbox.reset()
    work, control = Work(crawl.config, "watch", ""), Control(clock=crawl.clock.now)
    (summary,) = do(work, config, control, due=["jespern"])
    assert sandbox.state()["by_kind"]["listing"] == 2  # the newest updates, then all
    assert (summary.state, summary.kind) == ("complete", "watch")
    assert crawl.one("SELECT kind FROM sync_runs ORDER BY id DESC LIMIT 1") == "watch"


def test_a_file_that_is_not_there_is_not_watched(
    tmp_path: Path, mirrored: tuple[Sandbox, SyncHarness]
) -> None:
    """Before the first sync, nothing is due."""
    _, crawl = mirrored
    config = Config(database=str(tmp_path / "none.db"), upstreams=(crawl.config,))
    assert Watches(config, crawl.clock.now).due(crawl.config) == []
