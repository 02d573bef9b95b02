"""Syncing by the clock: one job for each upstream, one sync at a time, until the process is told to stop.

Jobs share one thread, so that two upstreams never compete for the file. A sync that another process is
doing already is skipped. A budget that is spent ends the job with its place kept; the next one goes on.
"""

import signal
import threading
from datetime import datetime
from types import FrameType

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from mirror.config import Config, UpstreamConfig
from mirror.errors import ConfigError, MirrorError
from mirror.report import Reporter, Summary
from mirror.screen import summary_line
from mirror.session import Wishes, sync_all

DEFAULTS = {"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600}
"""A missed sync is made up for once, within the hour; APScheduler's own default drops it after a second."""

PATIENCE_SECONDS = 2.0


class Background:
    """The scheduled syncs of a configuration; raises ConfigError for a schedule that cannot be read."""

    def __init__(self, config: Config, *, report: Reporter, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self._config = config
        self._report = report
        self._busy = threading.Lock()
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)}, job_defaults=DEFAULTS
        )
        for upstream in config.upstreams:
            self._scheduler.add_job(
                self._sync,
                trigger_of(upstream),
                args=[upstream.name],
                id=upstream.name,
                next_run_time=datetime.now().astimezone(),  # whatever was missed is done at the start
            )

    def run(self) -> None:
        """Sync by schedule until SIGINT or SIGTERM."""
        before = {number: signal.signal(number, self._told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.start()
            self.stop.wait()
        finally:
            self.end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Begin, with a sync of every upstream at once."""
        self._scheduler.start()

    def end(self) -> None:
        """Stop: no new sync begins, one that is under way keeps its place and is given a moment."""
        self.stop.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if self._busy.acquire(timeout=PATIENCE_SECONDS):
            self._busy.release()

    def _told(self, _: int, __: FrameType | None) -> None:
        self.stop.set()

    def _sync(self, name: str) -> None:
        """Sync one upstream and say in one line how it went; nothing it raises ends the service."""
        with self._busy:
            if self.stop.is_set():
                return
            try:
                wishes = Wishes(names=(name,), may_wait=False)
                for summary in sync_all(self._config, wishes, report=self._report, stop=self.stop):
                    self._tell(summary)
            except MirrorError as error:
                self._report.note(f"{name}: {error}")

    def _tell(self, summary: Summary) -> None:
        self._report.note(summary_line(summary))


def trigger_of(upstream: UpstreamConfig) -> CronTrigger:
    """Read an upstream's schedule, five fields as in cron; raises ConfigError."""
    try:
        return CronTrigger.from_crontab(upstream.schedule)
    except ValueError as error:
        raise ConfigError(
            f'{upstream.name}: schedule {upstream.schedule!r}: {error}; write it as in cron, "*/15 * * * *"'
        ) from None
