"""The worker of the service: does one scheduled job after another, and reports how each of them went."""

import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.background.chores import Chore
from mirror.background.jobs import Work
from mirror.config import Config
from mirror.errors import Interrupted, MirrorError, StoreLocked
from mirror.observe.alerts import Alerts
from mirror.observe.health import file_health
from mirror.observe.logs import log_run
from mirror.operations import SyncOptions, sync_all, verify_all
from mirror.report import Reporter, Summary
from mirror.store import Store
from mirror.store.cursors import Cursors
from mirror.store.integrity import check_file
from mirror.sync.crawl import EVERYTHING, HINTS, REFS, RETRY, Scope
from mirror.times import Clock, to_text


def do(
    work: Work,
    config: Config,
    *,
    report: Reporter,
    stop: threading.Event,
    clock: Clock,
    due: Collection[str] = (),
) -> list[Summary]:
    """Do work and return the summaries of its runs; raises what `sync_all` and `verify_all` raise.

    `due` are the workspaces that a watch run lists.
    """
    scope = scope_of(work, due)
    options = SyncOptions(names=(work.upstream.name,), may_wait=False, full=work.kind == "sweep", scope=scope)
    if work.kind == "verify":
        return _verify(work, config, options, report=report, stop=stop, clock=clock)
    return sync_all(config, options, report=report, stop=stop, clock=clock)


def scope_of(work: Work, due: Collection[str] = ()) -> Scope:
    """Return the scope of a kind of work; refs with a schedule of their own are left out."""
    own = bool(work.upstream.refs_schedule.strip())
    if work.kind == "refs":
        return REFS
    if work.kind == "marked":
        return HINTS
    if work.kind == "watch":
        return Scope(due=due, leftovers=False, refs=not own, kind="watch")
    scope = RETRY if work.kind == "retry" else EVERYTHING
    return Scope(listings=scope.listings, refs=not own, kind=scope.kind)


def _verify(
    work: Work, config: Config, options: SyncOptions, *, report: Reporter, stop: threading.Event, clock: Clock
) -> list[Summary]:
    """Check the file and compare a sample of rows; report faults, which `mirror verify` can repair."""
    complaints = check_file(Path(config.database), repair=False)
    for complaint in complaints:
        report.note(f"{work.id}: {complaint.text}")
    found = f"{len(complaints):,} faults; see: mirror verify" if complaints else ""
    _save_integrity(work, config, found, clock)
    summaries, findings = verify_all(
        config,
        options,
        sample=work.upstream.verify_sample,
        repair=False,
        report=report,
        stop=stop,
        clock=clock,
    )
    wrong = sum(finding.is_fault for finding in findings)
    if wrong:
        report.note(f"{work.id}: {wrong:,} differences; see: mirror verify --sample all --repair")
    return summaries


def _save_integrity(work: Work, config: Config, found: str, clock: Clock) -> None:
    """Save the result of the check, for `/-/health`; "" means that the file is sound."""
    with Store(Path(config.database)) as store, store.transaction() as connection:
        row = store.row("SELECT id FROM upstreams WHERE name = ?", (work.upstream.name,))
        if row is not None:
            Cursors(connection, row[0]).integrity.save(found, at=to_text(clock()))


log = logging.getLogger("mirror.background")


class Worker:
    """Does one job at a time by the present configuration. An error of a job does not end the service.

    :param report: gets the progress of runs, and failures.
    :param stop: once it is set, nothing new begins.
    """

    def __init__(self, config: Config, *, report: Reporter, stop: threading.Event, clock: Clock) -> None:
        self.alerts = Alerts(config, clock=clock)
        self._config, self._report, self._stop, self._clock = config, report, stop, clock
        self._busy = threading.Lock()

    def adopt(self, config: Config, alerts: Alerts) -> Alerts:
        """Use another configuration from now on; return the previous alerts, which the caller closes."""
        before, self._config, self.alerts = self.alerts, config, alerts
        return before

    def end(self, seconds: float) -> bool:
        """Wait some seconds for running work; return whether it ended in time."""
        until = time.monotonic() + seconds
        idle = self._busy.acquire(timeout=seconds)
        if idle:
            self._busy.release()
        self.alerts.close(max(0.0, until - time.monotonic()))
        return idle

    def do(self, work: Work, due: Collection[str] = ()) -> list[Summary]:
        """Do scheduled work and log a line on it; `due` are the workspaces that a watch run lists."""
        done = list[Summary]()
        with self._busy:
            if self._stop.is_set():
                return done
            with self._surviving(work.id, work.upstream.name):
                try:
                    done = do(
                        work, self._config, report=self._report, stop=self._stop, clock=self._clock, due=due
                    )
                    for summary in done:
                        log_run(summary)
                        self.alerts.tell(summary)
                except StoreLocked as error:
                    self._report.note(f"{work.id}: skipped, {error}")
            if work.schedule:
                self.tell_health()
        return done

    def keep(self, chore: Chore) -> None:
        """Do a chore and log a line on it."""
        with self._busy:
            if self._stop.is_set():
                return
            with self._surviving(chore.id, chore.id):
                try:
                    self._report.note(f"{chore.id}: {chore.do(self._stop, self._clock)}")
                    self.alerts.well(chore.id)
                except Interrupted as error:
                    self._report.note(f"{chore.id}: {error}")

    @contextmanager
    def _surviving(self, name: str, about: str) -> Iterator[None]:
        """Report an error of the work `name`, with an alert about an upstream or a chore, and go on."""
        try:
            yield
        except MirrorError as error:
            self._report.note(f"{name}: {error}")
            self.alerts.trouble(about, f"{name}: {error}")
        except Exception:
            log.exception("%s: a fault of this program", name)
            self.alerts.trouble(about, f"{name}: a fault of this program; its log says which")

    def tell_health(self) -> None:
        """Send an alert when `/-/health` becomes unwell, and when it is well again."""
        patience = {upstream.name: upstream.stale_after for upstream in self._config.upstreams}
        reasons = file_health(Path(self._config.database), self._clock(), patience=patience).reasons
        if reasons:
            self.alerts.trouble("", f"the mirror is unwell: {'; '.join(reasons)}")
        else:
            self.alerts.well()
