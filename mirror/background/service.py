"""The service: one job for each kind of work of each upstream, until it is stopped.

Jobs share one thread, so that they never compete for the file. A job is skipped while another process syncs.
When the budget is spent, a job saves its cursor and ends, and resumes when requests are allowed again.
"""

import logging
import queue
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from apscheduler.executors.base import MaxInstancesReachedError
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job as ScheduledJob
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from mirror.background.freshness import Watches
from mirror.background.jobs import ENDED, Work, is_missed, read_last, scheduled_work, with_hints
from mirror.background.rereading import check_same_mirror, tell_refusal, tell_renewal
from mirror.background.triggers import Every, must_come, trigger_of, zone_of
from mirror.background.worker import Worker, chores_of, is_overdue
from mirror.config import Config
from mirror.credentials import read_credential
from mirror.errors import ConfigError
from mirror.lake import address_of
from mirror.observe.alerts import Alerts
from mirror.operations import Control
from mirror.report import Reporter
from mirror.store.lock import is_syncing, service_mark
from mirror.times import Clock, utc_now

# Missed work is done once, however late: a laptop that slept at 03:00 sweeps when it wakes. By default,
# APScheduler drops a job that is one second late.
DEFAULTS = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}

END_SECONDS = 1.5  # how long a job may go on after the service was told to stop
STOP_CHECK_SECONDS = 0.5
# Seconds between checks of hints and the clock: the scheduler's own timer stops while a machine sleeps.
PULSE_SECONDS = 3
RETRY_AFTER = timedelta(minutes=5)  # the pause after unscheduled work that failed
SET_BACK = timedelta(seconds=10)  # how far the clock must be set back before schedules are planned again
WATCH_SECONDS = 60  # between two looks for workspaces to list
PULSE, WATCH = "pulse", "watch"

Reread = Callable[[], Config]
Adopt = Callable[[Config], None]

log = logging.getLogger("mirror.background")


class OneThread(ThreadPoolExecutor):  # type: ignore[misc]  # APScheduler carries no types
    """Does one job after the other. A job that is due again while it waits or runs is not queued twice."""

    def submit_job(self, job: ScheduledJob, run_times: list[datetime]) -> None:
        """Queue a job, unless it is queued already."""
        # APScheduler would log a warning each time, and hints are checked every few seconds.
        with suppress(MaxInstancesReachedError):
            super().submit_job(job, run_times)


class Job(NamedTuple):
    """A kind of work with its trigger; `at` is when to first begin it, None to follow the trigger."""

    work: Work
    trigger: BaseTrigger
    at: datetime | None


class Background:
    """The scheduled work of a configuration; raises ConfigError for a schedule that cannot be read.

    - `report`: gets the progress of runs.
    - `stop`: ends the service when it is set.
    - `reread`: reads the configuration again on SIGHUP; None ignores SIGHUP.
    - `adopt`: called with a new configuration before it takes effect; raises ConfigError to refuse it.
    """

    def __init__(
        self,
        config: Config,
        *,
        report: Reporter,
        stop: threading.Event | None = None,
        reread: Reread | None = None,
        adopt: Adopt = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        self.stop = stop or threading.Event()
        self._report = report
        self._reread = reread
        self._adopt = adopt
        self._clock = clock
        self._mark = ExitStack()
        self._retry_at: dict[str, datetime] = {}
        self._asked = queue.SimpleQueue[str]()  # the only queue that a signal handler may safely use
        self._scheduler = BackgroundScheduler(
            executors={"default": OneThread(1)}, job_defaults=DEFAULTS, timezone="UTC"
        )
        self._seen = clock()
        self._config = checked(config)
        self._worker = Worker(config, Control(report=report, stop=self.stop, clock=clock))
        self._watching = Watches(config, clock)

    def run(self) -> bool:
        """Work until SIGINT or SIGTERM; SIGHUP reads the configuration again. Returns as `end` does."""
        with self.signals():
            try:
                self.start()
                while not self.stop.wait(STOP_CHECK_SECONDS):
                    pass  # a signal just before a wait does not end the wait
            finally:
                idle = self.end()
        return idle

    @contextmanager
    def signals(self, *, ends: bool = True) -> Iterator[None]:
        """Handle signals inside the block; without `ends`, only SIGHUP."""
        handlers = {signal.SIGHUP: self._ask_to_reread}
        if ends:
            handlers |= {signal.SIGINT: self._ask_to_stop, signal.SIGTERM: self._ask_to_stop}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one may wait since before the start
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Start the schedules; missed work begins at once."""
        self._mark.enter_context(service_mark(Path(self._config.database), self._config.mode))
        self._scheduler.start(paused=True)
        self._schedule(self._config, self._jobs(self._config))
        self._scheduler.resume()
        threading.Thread(target=self._handle_signals, daemon=True, name="reread").start()

    def end(self) -> bool:
        """Stop: no job begins, and a running one gets `END_SECONDS` to save its cursor.

        Returns whether it ended in time. Otherwise it ends with the process, and its open transaction is
        rolled back.
        """
        self.stop.set()
        self._asked.put("end")
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        self._mark.close()
        return self._worker.end(END_SECONDS)

    def _ask_to_stop(self, _: int, __: FrameType | None) -> None:
        # Not `stop.set()`: interrupted by a second signal, or in a wait, it would wait for its own lock.
        self._asked.put("stop")

    def _ask_to_reread(self, _: int, __: FrameType | None) -> None:
        self._asked.put("reread")

    def _handle_signals(self) -> None:
        """Handle queued signals in a thread, and watch the clock."""
        while True:
            try:
                asked = self._asked.get(timeout=PULSE_SECONDS)
            except queue.Empty:
                asked = ""
            if asked == "end":
                return
            if asked == "stop":
                self.stop.set()
                continue
            try:
                if asked == "reread":
                    self.reload()
                self._watch_clock()
            except Exception:
                log.exception("a fault of this program; the old configuration stays")

    def _watch_clock(self) -> None:
        """Plan again if the clock was set back."""
        # Otherwise jobs would wait until it has caught up.
        before, self._seen = self._seen, self._clock()
        if self._seen < before - SET_BACK:
            self._retry_at.clear()
            self._scheduler.remove_all_jobs()
            self._schedule(self._config, self._jobs(self._config))
            self._report.note("the clock was set back: schedules are planned again")

    def reload(self) -> None:
        """Read the configuration again; report a faulty one, and keep the old one."""
        if self._reread is None:
            return
        try:
            config = acceptable(self._reread(), self._config)
            jobs = self._jobs(config)
            alerts = Alerts(config, clock=self._clock)
            self._adopt(config)
        except ConfigError as error:
            tell_refusal(self._report, error)
            return
        old, self._config = self._config, config
        self._retry_at.clear()  # the budget or the credential may have changed
        self._worker.adopt(config, alerts)
        self._scheduler.remove_all_jobs()
        self._schedule(config, jobs)
        tell_renewal(self._report, config, old)

    def _jobs(self, config: Config) -> list[Job]:
        """Return a job for each piece of scheduled work; raises ConfigError."""
        now = self._clock()
        return [
            Job(
                work,
                trigger_of(work.schedule, zone=config.timezone, jitter=work.upstream.jitter, last=last.began),
                now if is_missed(work, last, zone=config.timezone, now=now) else None,
            )
            for work, last in read_last(config, scheduled_work(config), now)
        ]

    def _schedule(self, config: Config, jobs: list[Job]) -> None:
        """Add jobs to the scheduler; missed work is due at once."""
        self._scheduler.add_job(self._follow_hints, Every(seconds=PULSE_SECONDS, timezone=UTC), id=PULSE)
        self._watching = Watches(config, self._clock)
        if any(upstream.watch > 0 for upstream in config.upstreams):
            self._scheduler.add_job(self._watch, Every(seconds=WATCH_SECONDS, timezone=UTC), id=WATCH)
        now = self._clock()
        for chore in chores_of(config):
            job = self._scheduler.add_job(
                self._worker.keep,
                trigger_of(chore.schedule, zone=config.timezone, last=chore.last_done(now)),
                args=[chore],
                id=chore.id,
                name=chore.id,
            )
            if is_overdue(chore, zone=config.timezone, now=now):
                job.modify(next_run_time=now)
        for work, trigger, at in jobs:
            job = self._scheduler.add_job(self._do, trigger, args=[work], id=work.id, name=work.id)
            if at is not None:
                job.modify(next_run_time=at)
        added = [job for job in self._scheduler.get_jobs() if job.id not in (PULSE, WATCH)]
        due = sorted((job.next_run_time, job.id) for job in added)
        told = ", ".join(
            f"{name} {moment.astimezone(zone_of(config.timezone)):%Y-%m-%d %H:%M %Z}" for moment, name in due
        )
        self._report.note(f"next: {told}" if told else "no schedule is set, so no jobs will run")

    def _follow_hints(self) -> None:
        """Request what hints name, unless that failed recently."""
        for work in with_hints(self._config, self._clock()):
            if not self._must_wait(work):
                self._do_or_wait(work)

    def _watch(self) -> None:
        """List the workspaces of each upstream in which a change is likely."""
        for upstream in self._config.upstreams:
            work = Work(upstream, "watch", "")
            chosen = [] if self._must_wait(work) else self._watching.due(upstream)
            if chosen:
                self._do_or_wait(work, chosen)

    def _must_wait(self, work: Work) -> bool:
        """Return whether work failed recently or spent the budget, and must wait.

        While an upstream refuses the credential, only scheduled work asks it: refusals may lock an account.
        """
        now = self._clock()
        is_refused = not work.schedule and work.upstream.name in self._worker.refused
        return is_refused or self._retry_at.get(work.id, now) > now

    def _do_or_wait(self, work: Work, due: Collection[str] = ()) -> None:
        """Do unscheduled work, unless another process syncs; if it fails, wait for `RETRY_AFTER`."""
        if is_syncing(Path(self._config.database)):
            return
        self._retry_at[work.id] = self._clock() + RETRY_AFTER
        for summary in self._worker.do(work, due):
            if summary.state in ENDED:
                self._retry_at.pop(work.id, None)
            elif summary.resumes_at is not None:
                self._retry_at[work.id] = summary.resumes_at

    def _do(self, work: Work) -> None:
        """Do scheduled work, unless its budget is still spent or watch runs are better."""
        if self._must_wait(work) or (work.kind == "sync" and self._watching.replaces(work)):
            self._worker.tell_health()
            return
        for summary in self._worker.do(work):
            if summary.resumes_at is not None:
                self._resume(work, summary.resumes_at)

    def _resume(self, work: Work, at: datetime) -> None:
        """Go on with scheduled work at a time, however much later its schedule fires."""
        self._retry_at[work.id] = at
        job = self._scheduler.get_job(work.id)
        if job is not None and (job.next_run_time is None or job.next_run_time > at):
            job.modify(next_run_time=at)


def acceptable(config: Config, before: Config) -> Config:
    """Return a configuration that may replace another one while a service runs; else raise ConfigError.

    It must have the same file, no new credential that cannot be read, and must not replace upstreams by the
    built-in sandbox.
    """
    check_same_mirror(config, before)
    # An old one is as unreadable without the reload, which may mend another upstream.
    old = {upstream.credential for upstream in before.upstreams}
    for upstream in config.upstreams:
        if upstream.credential not in old:
            read_credential(upstream.credential)
    return checked(config)


def checked(config: Config) -> Config:
    """Return a configuration whose schedules can be read and fire; else raise ConfigError."""
    named = [(work.setting, work.schedule) for work in scheduled_work(config)]
    named += [(chore.setting, chore.schedule) for chore in chores_of(config)]
    for setting, schedule in named:
        try:
            must_come(schedule, zone=config.timezone, after=utc_now())
        except ConfigError as error:
            raise ConfigError(f"{setting}: {error}") from None
    zone_of(config.timezone)
    if config.export_schedule.strip():
        address_of(config.export_to)
    return config
