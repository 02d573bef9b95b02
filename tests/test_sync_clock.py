"""A clock that was wrong, or jumps during a run: it misleads no later run."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sync_harness import Clock, SyncHarness, assert_matches_sandbox, crawling

from mirror.observe.health import read_health
from mirror.queries.status import read_status
from mirror.sandbox import Fault, Sandbox, World
from mirror.store.database import Store
from mirror.store.files import open_reader
from mirror.store.ledger import RequestLedger
from mirror.times import to_text

TWO: dict[str, Any] = {"workspaces": ("jespern", "ubernostrum")}
BAD, GONE, PUSHED = "jespern/django-piston", "jespern/arriving", "ubernostrum/django-profiles"
AHEAD = [timedelta(days=400), timedelta(hours=5), timedelta(minutes=20)]
MOMENTS = [
    ("repositories", "last_seen_at"), ("repositories", "first_seen_at"), ("repositories", "refs_synced_at"),
    ("repositories", "deleted_at"), ("users", "last_seen_at"), ("users", "first_seen_at"),
    ("members", "last_seen_at"), ("sync_failures", "last_at"), ("sync_failures", "first_at"),
    ("sync_runs", "started_at"), ("sync_runs", "finished_at"), ("cursors", "updated_at"), ("changes", "at"),
]  # fmt: skip


class OurClock(Clock):
    """The mirror's clock, which may be wrong; `true` is the upstream's."""

    error = timedelta()

    def now(self) -> datetime:
        """Tell the time as the mirror knows it."""
        return super().now() + self.error

    def true(self) -> datetime:
        """Tell the time."""
        return super().now()


class Dated(httpx.BaseTransport):
    """Adds the time of the upstream to its answers."""

    def __init__(self, inner: httpx.BaseTransport, clock: Callable[[], datetime]) -> None:
        self._inner, self._clock = inner, clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and add it."""
        answer = self._inner.handle_request(request)
        answer.headers["Date"] = format_datetime(self._clock(), usegmt=True)
        return answer


@contextmanager
def mirrored(tmp_path: Path, **settings: Any) -> Iterator[tuple[Sandbox, SyncHarness, OurClock]]:
    """Serve a world whose clock is right."""
    clock = OurClock()
    with crawling(tmp_path, World(0, now=clock.true), clock=clock, **TWO, **settings) as (sandbox, crawl):
        assert crawl.transport is not None
        crawl.transport = Dated(crawl.transport, clock.true)
        yield sandbox, crawl, clock


def moments_ahead(crawl: SyncHarness, now: datetime) -> list[str]:
    """Name the columns that hold a moment ahead of now."""
    return [
        f"{table}.{column}"
        for table, column in MOMENTS
        if crawl.one(f"SELECT count(*) FROM {table} WHERE {column} > ?", to_text(now))
    ]


@pytest.mark.parametrize("by", AHEAD, ids=str)
def test_a_clock_that_was_ahead_misleads_no_later_sync(tmp_path: Path, by: timedelta) -> None:
    """The next run notices what was deleted, left, failed and pushed since, and says why."""
    with mirrored(tmp_path) as (sandbox, crawl, clock):
        crawl.sync()
        sandbox.do("make_private", GONE)
        clock.error = by
        sandbox.do("push", BAD)
        uuid = crawl.one("SELECT uuid FROM repositories WHERE full_name = ?", BAD).strip("{}")
        sandbox.add_fault(Fault("500", where=f"*{uuid}*/refs", nth=None))
        assert crawl.sync(full=True).exit_code == 1
        sandbox.clear_faults()
        clock.error = timedelta()
        sandbox.do("delete", GONE)
        sandbox.do("push", PUSHED)
        assert crawl.sync().exit_code == 0
        assert any("the clock was ahead" in note for note in crawl.notes)
        assert moments_ahead(crawl, clock.now()) == []
        assert GONE in crawl.gone()
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
        assert crawl.sync().exit_code == 0
        assert crawl.notes == []


def test_a_clock_that_is_behind_changes_no_recorded_time(tmp_path: Path) -> None:
    """Where the upstream says that the times in the file are right, its time counts for the run."""
    with mirrored(tmp_path) as (sandbox, crawl, clock):
        crawl.sync()
        sandbox.do("push", PUSHED)
        crawl.sync()
        before = crawl.rows("SELECT * FROM changes")
        clock.error = timedelta(days=-400)
        sandbox.do("push", BAD)
        assert crawl.sync().exit_code == 0
        assert any("this machine's clock is behind" in note for note in crawl.notes)
        assert crawl.rows("SELECT * FROM changes")[: len(before)] == before
        assert crawl.one("SELECT min(started_at) FROM sync_runs") > to_text(clock.true() - timedelta(days=1))
        assert crawl.one("SELECT min(at) FROM changes") > to_text(clock.true() - timedelta(days=1))
        clock.error = timedelta()
        sandbox.do("push", PUSHED)
        assert crawl.sync().exit_code == 0
        assert crawl.notes == []
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


@pytest.mark.parametrize("names", [TWO["workspaces"], None], ids=["named", "all"])
def test_the_first_sync_of_an_upstream_by_a_clock_behind_changes_no_time_of_others(
    tmp_path: Path, names: tuple[str, ...] | None
) -> None:
    """Nothing of it was listed before: its configured workspace tells the time, or the list of all."""
    with mirrored(tmp_path) as (sandbox, crawl, clock):
        crawl.sync()
        sandbox.do("push", PUSHED)
        crawl.sync()
        before = crawl.rows("SELECT * FROM changes")
        clock.error = timedelta(days=-400)
        crawl.config = msgspec.structs.replace(crawl.config, name="another", workspaces=names)
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT * FROM changes")[: len(before)] == before


def test_a_member_who_left_is_removed_despite_the_clock(tmp_path: Path) -> None:
    """Seen by a clock that was ahead, and missing in the next listing."""
    with mirrored(tmp_path) as (sandbox, crawl, clock):
        sandbox.do("add_member", workspace="jespern", name="erik")
        clock.error = timedelta(days=400)
        crawl.sync()
        clock.error = timedelta()
        sandbox.do("remove_member", workspace="jespern", name="erik")
        crawl.sync()
        assert not crawl.rows(
            """SELECT 1 FROM members m JOIN users u ON u.id = m.user_id JOIN users w ON w.id = m.workspace_id
               WHERE w.username = 'jespern' AND u.username = 'erik'"""
        )


def test_status_and_health_report_the_clock(tmp_path: Path) -> None:
    """Until the next sync: no complete sync or spent budget of the future, and a reason."""
    with mirrored(tmp_path) as (_, crawl, clock):
        clock.error = timedelta(days=400)
        crawl.sync()
        clock.error = timedelta()
        for expected in (True, False):
            with closing(open_reader(crawl.path)) as connection:
                (status,) = read_status(connection, crawl.clock.moment)
                health = read_health(connection, crawl.path, crawl.clock.moment)
            assert (status.clock_ahead is not None) == expected
            assert (status.last_complete_sync is None) == expected
            assert any("clock was ahead" in reason for reason in health.reasons) == expected
            assert all(age >= 0 for age in status.listed_seconds.values())
            crawl.sync()


@pytest.mark.parametrize("hours", [2, 5, 24 * 400])
def test_requests_dated_in_the_future_do_not_count(tmp_path: Path, hours: int) -> None:
    """Neither now nor at that time; holds of that time do not count either."""
    with mirrored(tmp_path, our_limit=100) as (_, crawl, clock):
        bucket = "there"
        with Store(crawl.path) as store:
            ledger, ahead = RequestLedger(store), clock.moment + timedelta(hours=hours)
            for _ in range(3):
                ledger.reserve(bucket, None, ahead)
            ledger.hold(bucket, ahead + timedelta(minutes=30))
        crawl.sync()
        with Store(crawl.path) as store:
            assert RequestLedger(store).reserve(bucket, 1, ahead) is None


@pytest.mark.parametrize("column", ["swept_at", "cursor", "moved_at", "absent_since", "round"])
def test_every_stored_time_is_checked(tmp_path: Path, column: str) -> None:
    """A single future time hides nothing."""
    with mirrored(tmp_path) as (sandbox, crawl, _):
        crawl.sync()
        with crawl.writing() as connection:
            connection.execute(
                "UPDATE cursors SET value = json_set(value, ?, ?) WHERE stream LIKE 'workspace:%'",
                (f"$.{column}", "2028-01-01T00:00:00.000000Z"),
            )
        sandbox.do("delete", GONE)
        sandbox.do("edit", PUSHED, fields={"description": "new"})
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])


@pytest.mark.parametrize("by", [timedelta(days=-400), timedelta(hours=-5), timedelta(hours=5)], ids=str)
def test_a_clock_jump_during_a_run_does_no_harm(tmp_path: Path, by: timedelta) -> None:
    """Rows that the run has seen are not missing; the next run is correct too."""
    with mirrored(tmp_path, page_length=5) as (sandbox, crawl, clock):
        crawl.sync()
        sandbox.do("delete", GONE)
        sandbox.reset()
        sandbox.on_request(6, lambda: setattr(clock, "error", by))
        assert crawl.sync(full=True).exit_code == 0
        assert crawl.gone() == {GONE: "deleted"}
        sandbox.do("push", PUSHED)
        assert crawl.sync().exit_code == 0
        assert moments_ahead(crawl, max(clock.now(), clock.true())) == []
        assert_matches_sandbox(crawl, sandbox, TWO["workspaces"])
