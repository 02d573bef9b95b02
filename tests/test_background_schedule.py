"""When work is due: cron as cron users mean it, intervals, zones, and what was missed."""

import queue
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from prepared_files import opened
from sync_harness import Notes

from mirror.background.freshness import Watches
from mirror.background.jobs import LastRun, Work, is_missed, next_run, read_last, scheduled_work
from mirror.background.service import DEFAULTS, Background, acceptable, checked
from mirror.background.triggers import next_time, trigger_of
from mirror.background.worker import scope_of
from mirror.config import AlertConfig, Config, from_toml
from mirror.errors import ConfigError
from mirror.sandbox import Sandbox, World, parse_fault, running
from mirror.serve.workers import set_by_signals
from mirror.store import Store
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.files import open_reader
from mirror.store.lock import service_runs, sync_lock
from mirror.store.runs import finish_run, start_run
from mirror.times import to_text

SUNDAY = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def following(text: str, after: datetime = SUNDAY, zone: str = "UTC") -> str:
    """Return the next moment of a schedule, as people write it."""
    moment = next_time(text, zone=zone, after=after)
    assert moment is not None
    return moment.astimezone(UTC).strftime("%a %d %H:%M")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/15 * * * *", "Sun 22 12:15"),
        ("0 3 * * *", "Mon 23 03:00"),
        ("0 3 * * 0", "Sun 29 03:00"),
        ("0 3 * * 7", "Sun 29 03:00"),
        ("0 3 * * 1", "Mon 23 03:00"),
        ("0 3 * * 1-5", "Mon 23 03:00"),
        ("0 3 * * 5-7", "Fri 27 03:00"),
        ("0 3 * * fri-mon", "Mon 23 03:00"),
        ("0 3 * * */2", "Tue 24 03:00"),
        ("0 3 * * sat,WED", "Wed 25 03:00"),
        ("0 3 25 * 1", "Mon 23 03:00"),
        ("0,7-9/5 3,16-18/5 20-29/9 * *", "Sun 29 03:00"),
        ("5-9/5,50 14-15/9 * * *", "Sun 22 14:05"),
        ("0 3 25 * *", "Wed 25 03:00"),
        ("@hourly", "Sun 22 13:00"),
        ("@weekly", "Sun 29 00:00"),
        ("@annually", "Fri 01 00:00"),
        ("15m", "Sun 22 12:15"),
        ("2d", "Tue 24 12:00"),
    ],
)
def test_a_schedule_means_what_crontab_says(text: str, expected: str) -> None:
    """Sunday is 0 and 7; day or weekday is enough. APScheduler reads both differently."""
    assert following(text) == expected


def test_a_schedule_is_read_in_its_time_zone() -> None:
    """03:00 in Auckland is another moment than 03:00 in Amsterdam."""
    assert following("0 3 * * *", zone="Pacific/Auckland") == "Sun 22 14:00"
    assert following("0 3 * * *", zone="Europe/Amsterdam") == "Mon 23 02:00"


@pytest.mark.parametrize(
    "text",
    [
        "* * * *",
        "61 * * * *",
        "0 3 * * 8",
        "0 3 * * xyz",
        "1s",
        "soon",
        "0 3 32 * *",
        "0 3 30 2 *",
        "0 3 * * *-5",
    ],
)
def test_a_wrong_schedule_is_refused_with_its_text(text: str) -> None:
    """Also an interval without a pause, and a date that does not exist."""
    with pytest.raises(ConfigError, match=re.escape(f"upstream box: schedule: {text!r}: ")):
        checked(from_toml(f'[[upstream]]\nname = "box"\nschedule = "{text}"'))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ('[[upstream]]\nname = "box"\nverify_schedule = "1s"', "upstream box: verify_schedule: '1s'"),
        ('backup_schedule = "1s"\n[[upstream]]\nname = "box"', "backup_schedule: '1s'"),
        ('[history]\nkeep = "1d"\nschedule = "1s"', "[history] schedule: '1s'"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_setting(given: str, named: str) -> None:
    """There are five for each upstream, and five more."""
    with pytest.raises(ConfigError, match=re.escape(named)):
        checked(from_toml(given))


def test_jitter_only_delays() -> None:
    """Jobs begin up to that much later, never earlier."""
    for text in ("0 * * * *", "15m"):
        trigger = trigger_of(text, zone="UTC", jitter=30, last=SUNDAY)
        plain = next_time(text, zone="UTC", after=SUNDAY)
        assert plain is not None
        for _ in range(20):
            delay = trigger.get_next_fire_time(None, SUNDAY + timedelta(microseconds=1)) - plain
            assert timedelta(0) <= delay <= timedelta(seconds=30)


def test_an_empty_schedule_means_no_job() -> None:
    """Only kinds with a schedule become jobs; with refs = "none" there is no job for refs."""
    config = from_toml(
        '[[upstream]]\nname = "a"\nrefs_schedule = "@daily"\n'
        '[[upstream]]\nname = "b"\nrefs = "none"\nrefs_schedule = "@daily"\nverify_schedule = ""\n'
        'retry_schedule = "5m"'
    )
    assert [work.id for work in scheduled_work(config)] == [
        "a sync",
        "a refs",
        "a verify",
        "b sync",
        "b retry",
    ]


def test_refs_with_their_own_schedule_are_left_out_of_syncs() -> None:
    """Listings and retries run without them."""
    config = from_toml(
        '[[upstream]]\nname = "a"\nrefs_schedule = "@daily"\nretry_schedule = "5m"\n'
        'sweep_schedule = "@weekly"'
    )
    parts = {work.kind: scope_of(work) for work in scheduled_work(config)}
    assert [kind for kind, part in parts.items() if part.refs and kind != "verify"] == ["refs"]
    assert [kind for kind, part in parts.items() if part.listings and kind != "verify"] == ["sync", "sweep"]


def work_of(kind: str, schedule: str) -> Work:
    """Make a piece of work."""
    (upstream,) = from_toml('[[upstream]]\nname = "box"').upstreams
    return Work(upstream, kind, schedule)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "hours_ago", "ended", "missed"),
    [
        ("sync", None, False, True),
        ("verify", None, False, False),
        ("sweep", None, False, False),
        ("sync", 1, True, False),
        ("sync", 1, False, True),
        ("sync", 10, True, True),
        ("verify", 10, True, True),
        ("verify", 1, False, False),
    ],
)
def test_missed_jobs_follow_from_the_last_run(
    kind: str, hours_ago: int | None, ended: bool, missed: bool
) -> None:
    """Due at 03:00, checked at noon: a run before 03:00, or an unfinished one, means a missed job."""
    began = None if hours_ago is None else SUNDAY - timedelta(hours=hours_ago)
    work, last = work_of(kind, "0 3 * * *"), LastRun(began, ended)
    assert is_missed(work, last, zone="UTC", now=SUNDAY) is missed
    # A running service does not repeat a run that failed before its schedule says so.
    due = next_run(work, last, zone="UTC", now=SUNDAY)
    waits = hours_ago == 1 or (hours_ago is None and kind != "sync")
    assert due == (SUNDAY + timedelta(hours=15) if waits else SUNDAY)


def test_a_job_missed_during_sleep_runs_once() -> None:
    """A job that should have run every minute for nine hours runs once, however late."""
    done = queue.SimpleQueue[int]()
    scheduler = BackgroundScheduler(job_defaults=DEFAULTS, timezone="UTC")
    scheduler.start(paused=True)
    began = datetime.now(UTC) - timedelta(hours=9)
    job = scheduler.add_job(done.put, trigger_of("* * * * *", zone="UTC"), args=[1])
    job.modify(next_run_time=began)
    scheduler.resume()
    assert done.get(timeout=30) == 1
    scheduler.shutdown(wait=True)
    assert done.empty()


@pytest.mark.parametrize("schedule", ["* * * * *", "0 3 * * *", "10s", "15m"])
def test_a_clock_set_forward_by_years_makes_one_missed_job(schedule: str) -> None:
    """From 1970 to today: the scheduler asks for the time after the missed one, and gets a future one."""
    trigger = trigger_of(schedule, zone="Europe/Berlin", last=datetime(1970, 1, 1, tzinfo=UTC))
    moment = trigger.get_next_fire_time(datetime(1970, 1, 1, 3, tzinfo=UTC), SUNDAY)
    assert SUNDAY <= moment <= SUNDAY + timedelta(days=1)
    assert trigger.get_next_fire_time(moment, moment) > moment


class Told(Notes):
    """A listener that tests can wait for."""

    def heard(self, what: str) -> str:
        """Wait until something was said; return it."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = [note for note in self.notes if what in note]
            if found:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"never said {what!r}: {self.notes}")


def scheduled(path: Path, schedule: str) -> Config:
    """Configure one unreachable upstream with one schedule."""
    return from_toml(
        f'database = "{path}"\n[[upstream]]\nname = "box"\nkind = "sandbox"\nwatch = 0\n'
        f'url = "http://127.0.0.1:1/2.0"\nschedule = "{schedule}"\nverify_schedule = ""'
    )


def has_synced(path: Path, at: datetime) -> None:
    """Record a complete sync."""
    with opened(path) as store, store.transaction() as connection:
        upstream, moment = store.save_upstream("box", "sandbox", "http://127.0.0.1:1/2.0"), to_text(at)
        run = start_run(connection, upstream, "full", at=moment)
        finish_run(connection, run, kind="full", state="complete", at=moment, counts={}, error=None)


def test_a_failed_reload_keeps_the_old_configuration(tmp_path: Path) -> None:
    """A schedule that never fires, secrets that cannot be read, a bug of the program; then a good one."""
    path, told = tmp_path / "mirror.db", Told()
    has_synced(path, datetime.now(UTC))
    never, good = scheduled(path, "0 0 30 2 *"), scheduled(path, "0 3 1 2 *")
    secret = AlertConfig(url="env:NOBODY_HAS_SET_THIS")
    unreadable = msgspec.structs.replace(good.upstreams[0], credential=f"file:{tmp_path}")
    offered: list[Config | RuntimeError] = [
        good,
        RuntimeError("a fault"),
        msgspec.structs.replace(good, upstreams=(unreadable,)),
        msgspec.structs.replace(good, alerts=(secret,)),
        never,
    ]

    def reread() -> Config:
        found = offered.pop()
        if isinstance(found, RuntimeError):
            raise found
        return found

    background = Background(scheduled(path, "0 0 1 1 *"), report=told, reread=reread)
    with background.signals(ends=False):
        try:
            background.start()
            assert service_runs(path) is True
            for wrong in ("no day matches", "NOBODY_HAS_SET_THIS", "not a regular file"):
                signal.raise_signal(signal.SIGHUP)
                assert "the old one stays" in told.heard(wrong)
            for _ in range(2):
                signal.raise_signal(signal.SIGHUP)
            told.heard("read again")
            first, last = (note.split()[3] for note in told.notes if note.startswith("next:"))
            assert (first[-6:], last[-6:]) == ("-01-01", "-02-01")
        finally:
            background.end()
    assert service_runs(path) is False


def test_an_unreadable_credential_that_stays_refuses_no_reload(tmp_path: Path) -> None:
    """It mends another upstream, and the old configuration has that credential, too."""
    path = tmp_path / "mirror.db"
    good = scheduled(path, "0 3 1 2 *").upstreams[0]
    broken = msgspec.structs.replace(good, name="broken", credential=f"file:{tmp_path}")
    before = msgspec.structs.replace(scheduled(path, "0 0 1 1 *"), upstreams=(broken,))
    after = msgspec.structs.replace(before, upstreams=(broken, good))
    assert acceptable(after, before) == after
    with pytest.raises(ConfigError, match="not a regular file"):
        acceptable(after, msgspec.structs.replace(before, upstreams=(good,)))


def test_work_of_an_upstream_that_a_reload_removed_is_not_done(tmp_path: Path) -> None:
    """It waited for its turn while another job ran: no error, and no alert about what is gone."""
    path, told = tmp_path / "mirror.db", Told()
    has_synced(path, datetime.now(UTC))
    before = scheduled(path, "1h")
    other = msgspec.structs.replace(before.upstreams[0], name="other", schedule="")
    after = msgspec.structs.replace(before, upstreams=(other,))
    background = Background(before, report=told, reread=lambda: after)
    background.start()
    try:
        background.reload()
        for work in scheduled_work(before):
            assert background._worker.do(work) == []
        assert not any("box sync: " in note for note in told.notes)
        assert background._worker.alerts._troubled == set()
    finally:
        background.end()


@pytest.mark.parametrize("back", [timedelta(days=400), timedelta(hours=5), timedelta(minutes=1)], ids=str)
def test_a_clock_that_is_set_back_while_the_service_runs(tmp_path: Path, back: timedelta) -> None:
    """Planned times are computed anew, and the job is due, instead of waiting for the old time."""
    path, told = tmp_path / "mirror.db", Told()
    has_synced(path, datetime.now(UTC) + back)
    ahead = [back]
    background = Background(
        scheduled(path, "0 0 1 1 *"), report=told, clock=lambda: datetime.now(UTC) + ahead[0]
    )
    with background.signals(ends=False):
        try:
            background.start()
            told.heard("next:")
            ahead[0] = timedelta()
            signal.raise_signal(signal.SIGHUP)  # or it looks at the clock a moment later
            told.heard("set back")
            first, again = (note.split(maxsplit=3)[3] for note in told.notes if note.startswith("next:"))
            assert again <= f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}" < first
        finally:
            background.end()


@pytest.mark.parametrize("schedule", ["15m", "*/15 * * * *"])
def test_a_run_dated_in_the_future_blocks_no_job(tmp_path: Path, schedule: str) -> None:
    """After a wrong clock, a sync is due as if there had been no run."""
    path, now = tmp_path / "mirror.db", datetime.now(UTC)
    has_synced(path, now + timedelta(days=3650))
    config = scheduled(path, schedule)
    ((work, last),) = read_last(config, scheduled_work(config), now)
    assert is_missed(work, last, zone="UTC", now=now)
    has_synced(path, now - timedelta(minutes=1))
    ((_, last),) = read_last(config, scheduled_work(config), now)
    assert last == LastRun(now - timedelta(minutes=1), ended=True)


def test_work_that_spent_the_budget_waits_until_there_is_room(tmp_path: Path) -> None:
    """However often its schedule fires, it starts once; it continues when the status says, however rarely."""
    path, told, now = tmp_path / "mirror.db", Told(), [datetime.now(UTC)]
    with running(Sandbox(World(5))) as box:
        config = from_toml(
            f'database = "{path}"\n[[upstream]]\nname = "box"\nkind = "sandbox"\nurl = "{box.url}"\n'
            'requests_per_hour = 3\nschedule = "10s"\nverify_schedule = ""\nstale_after = "10m"'
        )
        background = Background(config, report=told, clock=lambda: now[0])
        (work,) = scheduled_work(config)
        background._scheduler.start(paused=True)
        yearly = trigger_of("0 0 1 1 *", zone="UTC")
        background._scheduler.add_job(background._do, yearly, args=[work], id=work.id)
        for _ in range(3):
            background._do(work)
        with closing(open_reader(path)) as connection:
            assert [state for (state,) in connection.execute("SELECT state FROM sync_runs")] == ["paused"]
            shown = Watches(config, lambda: now[0]).next_runs(connection, "box")["sync"]
        assert shown > to_text(now[0] + timedelta(hours=0.9))
        assert to_text(background._scheduler.get_job(work.id).next_run_time) == shown
        background._scheduler.shutdown()
        now[0] += timedelta(hours=2)
        background._do(work)
        with closing(open_reader(path)) as connection:
            assert len(connection.execute("SELECT 1 FROM sync_runs").fetchall()) == 2


def test_while_a_credential_is_refused_only_scheduled_work_asks(tmp_path: Path) -> None:
    """Each refusal may lock the account, and hints come as often as people push."""
    path, now = tmp_path / "mirror.db", [datetime.now(UTC)]
    secret = tmp_path / "secret"
    secret.write_text("sandbox", "utf-8")
    secret.chmod(0o600)
    with running(Sandbox(World(5))) as box:
        config = from_toml(
            f'database = "{path}"\n[[upstream]]\nname = "box"\nkind = "sandbox"\nurl = "{box.url}"\n'
            'schedule = "1h"\nverify_schedule = ""\nconcurrency = 1\n'
            f'credential = "file:{secret}"'
        )
        background = Background(config, report=Told(), clock=lambda: now[0])
        (work,) = scheduled_work(config)

        def asked_after(do: Callable[[], None]) -> int:
            before = box.sandbox.state()["total"]
            now[0] += timedelta(minutes=20)
            do()
            return int(box.sandbox.state()["total"] - before)

        assert asked_after(partial(background._do, work)) > 5
        with Store(path) as store, store.transaction() as connection:
            uuid, upstream = store.row("SELECT uuid, upstream_id FROM repositories")
            Cursors(connection, upstream).hints.add(Hint(uuid=uuid, row=True, at=to_text(now[0])))
        box.sandbox.add_fault(parse_fault("401,where=*,nth=every"))
        assert [asked_after(background._follow_hints) for _ in range(3)] == [1, 0, 0]
        assert [asked_after(partial(background._do, work)) for _ in range(2)] == [1, 1]
        box.sandbox.clear_faults()
        assert asked_after(background._follow_hints) == 0
        background._worker.adopt(config, background._worker.alerts)
        assert asked_after(background._follow_hints) > 0


def test_hints_wait_no_longer_than_another_process_syncs(tmp_path: Path) -> None:
    """Each look finds it syncing, and says nothing; the first one after it has ended asks."""
    path, told = tmp_path / "mirror.db", Told()
    with running(Sandbox(World(5))) as box:
        config = from_toml(
            f'database = "{path}"\n[[upstream]]\nname = "box"\nkind = "sandbox"\nurl = "{box.url}"\n'
            'schedule = "1h"\nverify_schedule = ""'
        )
        background = Background(config, report=told)
        background._do(*scheduled_work(config))
        with Store(path) as store, store.transaction() as connection:
            uuid, upstream = store.row("SELECT uuid, upstream_id FROM repositories")
            Cursors(connection, upstream).hints.add(Hint(uuid=uuid, row=True, at=to_text(datetime.now(UTC))))
        before, told.notes[:] = box.sandbox.state()["total"], []
        with sync_lock(path):
            for _ in range(3):
                background._follow_hints()
        assert (box.sandbox.state()["total"], told.notes) == (before, [])
        background._follow_hints()
        assert box.sandbox.state()["total"] > before


def test_a_signal_that_interrupts_another_one_stops_too(tmp_path: Path) -> None:
    """A handler never waits for a lock that the interrupted code may hold, such as an event's."""
    path = tmp_path / "mirror.db"
    opened(path).close()
    stop = threading.Event()
    background = Background(scheduled(path, "0 0 1 1 *"), report=Told(), stop=stop)
    with background.signals():
        handler: Any = signal.getsignal(signal.SIGTERM)
        background.start()
        set_by_server = set_by_signals(stop)
        with vars(stop)["_cond"]:  # as `set` and `wait` hold it for moments
            for handle in (partial(handler, signal.SIGTERM, None), set_by_server):
                handling = threading.Thread(target=handle, daemon=True)
                handling.start()
                handling.join(10)
                assert not handling.is_alive()
        assert stop.wait(10)
        assert background.end()


def test_a_server_is_stopped_by_its_signals() -> None:
    """Also by many of them at once."""
    stop = threading.Event()
    set_stop = set_by_signals(stop)
    for _ in range(3):
        set_stop()
    assert stop.wait(10)
