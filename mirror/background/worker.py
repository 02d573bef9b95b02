"""The worker of the service: does one scheduled job after another, and reports how each of them went.

Jobs send requests; chores work on the file itself: backup, publish, site, export, compaction.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mirror.background.jobs import Work
from mirror.background.triggers import next_time
from mirror.config import Config
from mirror.errors import CredentialsRefused, Interrupted, MirrorError, StoreLocked
from mirror.lake import address_of
from mirror.observe.alerts import Alerts
from mirror.observe.health import file_health
from mirror.observe.logs import log_run
from mirror.operations import Control, SyncOptions, sync_all, verify_all
from mirror.publish.snapshot import PublishOptions, publish
from mirror.readable import size_text
from mirror.report import Summary
from mirror.store import Store
from mirror.store.backup import back_up_dated, dated_copies
from mirror.store.compaction import compact, compacted_before
from mirror.store.export_marks import last_export
from mirror.store.files import read_if_possible
from mirror.store.repair import check_file, record_check
from mirror.sync.crawl import EVERYTHING, HINTS, REFS, RETRY, Scope
from mirror.times import Clock, from_text, to_text

Stop = threading.Event


class Chore(NamedTuple):
    """One kind of scheduled work on the file itself, which sends no requests.

    - `done_at`: returns when it was done, as far as known. It reads that from the files that the chore
      made: a restored mirror has no record of its copies.
    - `do`: does it and returns a line on the result; raises MirrorError, and Interrupted if it has to stop.
    """

    id: str
    schedule: str
    done_at: Callable[[], Sequence[datetime]]
    do: Callable[[Stop, Clock], str]

    @property
    def setting(self) -> str:
        """Name the setting that schedules it."""
        return "[history] schedule" if self.id == "history" else f"{self.id}_schedule"

    def last_done(self, now: datetime) -> datetime | None:
        """Return when it was last done, None for never."""
        # What is dated in the future comes from a wrong clock, and must not let the chore wait until then.
        return max((moment for moment in self.done_at() if moment <= now), default=None)


def chores_of(config: Config) -> Iterator[Chore]:
    """Yield the chores that a configuration schedules."""
    mirror, folder = Path(config.database), Path(config.backup_folder)
    history = config.history
    for chore in (
        Chore(
            "backup",
            config.backup_schedule,
            lambda: _written(*dated_copies(mirror, folder)),
            lambda stop, clock: _back_up(config, stop, clock),
        ),
        Chore(
            "publish",
            config.publish_schedule,
            lambda: _written(Path(config.serve.public_snapshot)),
            lambda stop, _: _publish(config, stop),
        ),
        Chore(
            "site",
            config.site_schedule,
            lambda: _last_site(Path(config.site_folder)),
            lambda stop, _: _make_site(config, stop),
        ),
        Chore(
            "export",
            config.export_schedule,
            lambda: _last_export(mirror, config.export_to),
            lambda stop, clock: _export(config, stop, clock),
        ),
        Chore(
            "history",
            history.schedule if history.keep else "",
            lambda: _last_compaction(mirror, history.keep),
            lambda stop, clock: _compact(config, stop, clock),
        ),
    ):
        if chore.schedule.strip():
            yield chore._replace(schedule=chore.schedule.strip())


def is_overdue(chore: Chore, *, zone: str, now: datetime) -> bool:
    """Return whether a chore became due while no service ran; False if it was never done."""
    last = chore.last_done(now)
    due = next_time(chore.schedule, zone=zone, after=last) if last is not None else None
    return due is not None and due <= now


def _back_up(config: Config, stop: Stop, clock: Clock) -> str:
    copy = back_up_dated(
        Path(config.database),
        Path(config.backup_folder),
        clock(),
        keep=config.backup_keep,
        progress=_until(stop),
    )
    return f"{copy}: a checked copy, {size_text(copy.stat().st_size)}"


def _publish(config: Config, stop: Stop) -> str:
    done = publish(
        Path(config.database),
        Path(config.serve.public_snapshot),
        PublishOptions(force=True),
        progress=_until(stop),
    )
    return f"{done.file}: the public part as of {done.published_at}, {size_text(done.bytes)}"


def _last_site(folder: Path) -> Sequence[datetime]:
    from mirror.site.folder import MANIFEST  # noqa: PLC0415 - only making a site needs its package

    return _written(folder / MANIFEST)


def _make_site(config: Config, stop: Stop) -> str:
    # Only making a site needs its templates.
    from mirror.site.build import SiteOptions, make_site  # noqa: PLC0415

    done = make_site(
        Path(config.database),
        Path(config.site_folder),
        SiteOptions(title=config.site_title, base_url=config.site_url),
        progress=_until(stop),
    )
    return (
        f"{done.folder}: a site of {done.files:,} files, {done.written:,} written, {done.removed:,} removed"
    )


def _export(config: Config, stop: Stop, clock: Clock) -> str:
    from mirror.lake.export import ExportOptions, export  # noqa: PLC0415 - only an export needs pyarrow
    from mirror.lake.place import Place  # noqa: PLC0415

    done = export(
        Path(config.database),
        Place(config.export_to),
        ExportOptions(public=config.export_public),
        clock=clock,
        progress=_until(stop),
    )
    return done.text


def _compact(config: Config, stop: Stop, clock: Clock) -> str:
    before = to_text(clock() - timedelta(seconds=config.history.keep))
    with Store(Path(config.database)) as store:
        dropped = compact(store, before, on_batch=_until(stop))
    return f"history before {before[:10]} is true to the day: {dropped:,} changes dropped"


def _last_compaction(mirror: Path, keep: float) -> Sequence[datetime]:
    """Return about when history was last compacted: its limit then, plus how long history is kept."""
    found = read_if_possible(mirror, compacted_before)
    return [from_text(found) + timedelta(seconds=keep)] if found else []


def _last_export(mirror: Path, given: str) -> Sequence[datetime]:
    found = read_if_possible(mirror, lambda connection: last_export(connection, address_of(given).text))
    return [from_text(found)] if found else []


def _until(stop: Stop) -> Callable[..., None]:
    """Return the check that stops long work when the service stops, for any kind of report on progress."""

    def check(*_: object) -> None:
        if stop.is_set():
            raise Interrupted("stopped; the previous file stays")

    return check


def _written(*paths: Path) -> Sequence[datetime]:
    """Return when files were written, without those that are missing or cannot be reached."""
    found = list[datetime]()
    for path in paths:
        # A faulty place is the error of one chore when it is done, and stops no other work before.
        with suppress(OSError, ValueError, OverflowError):  # the last two: no year has such a time
            found.append(datetime.fromtimestamp(path.stat().st_mtime, UTC))
    return found


def do(work: Work, config: Config, control: Control, due: Collection[str] = ()) -> list[Summary]:
    """Do work and return the summaries of its runs; raises what `sync_all` and `verify_all` raise.

    `due` are the workspaces that a watch run lists.
    """
    scope = scope_of(work, due)
    options = SyncOptions(names=(work.upstream.name,), may_wait=False, full=work.kind == "sweep", scope=scope)
    if work.kind == "verify":
        return _verify(work, config, options, control)
    return sync_all(config, options, control)


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


def _verify(work: Work, config: Config, options: SyncOptions, control: Control) -> list[Summary]:
    """Check the file and compare a sample of rows; report faults, which `mirror verify` can repair."""
    complaints = check_file(Path(config.database), repair=False)
    for complaint in complaints:
        control.report.fault(f"{work.id}: {complaint.text}")
    record_check(Path(config.database), complaints, at=to_text(control.clock()))
    sample = work.upstream.verify_sample
    summaries, findings = verify_all(config, options, control, sample=sample, repair=False)
    wrong = sum(finding.is_fault for finding in findings)
    if wrong:
        control.report.fault(f"{work.id}: {wrong:,} differences; see: mirror verify --sample all --repair")
    return summaries


log = logging.getLogger("mirror.background")


class Worker:
    """Does one job at a time by the present configuration. An error of a job does not end the service.

    `refused` are the upstreams that refused their credential in the last run.
    """

    def __init__(self, config: Config, control: Control) -> None:
        self.alerts = Alerts(config, clock=control.clock)
        self._config, self._control, self._report = config, control, control.report
        self._busy = threading.Lock()
        self.refused = set[str]()

    def adopt(self, config: Config, alerts: Alerts) -> None:
        """Use another configuration from now on."""
        alerts.continue_from(self.alerts)
        self.refused.clear()  # there may be another credential
        self._config, self.alerts = config, alerts

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
            # A reload may have removed its upstream while the work waited for its turn.
            if self._control.stop.is_set() or work.upstream.name not in {
                one.name for one in self._config.upstreams
            }:
                return done
            with self._surviving(work.id, work.upstream.name):
                done = do(work, self._config, self._control, due)
                for summary in done:
                    if summary.exit_code == CredentialsRefused.exit_code:
                        self.refused.add(summary.upstream)
                    else:
                        self.refused.discard(summary.upstream)
                    log_run(summary)
                    self.alerts.send_for(summary)
            if work.schedule:  # not after each hint, which may come every few seconds
                self.tell_health()
        return done

    def keep(self, chore: Chore) -> None:
        """Do a chore and log a line on it."""
        with self._busy:
            if self._control.stop.is_set():
                return
            with self._surviving(chore.id, chore.id):
                try:
                    self._report.note(f"{chore.id}: {chore.do(self._control.stop, self._control.clock)}")
                    self.alerts.send_recovery(chore.id)
                except Interrupted as error:
                    self._report.note(f"{chore.id}: {error}")

    @contextmanager
    def _surviving(self, name: str, about: str) -> Iterator[None]:
        """Report an error of the work `name`, with an alert about an upstream or a chore, and go on."""
        try:
            yield
        except StoreLocked as error:  # another process does the same, which is no trouble
            self._report.note(f"{name}: skipped, {error}")
        except MirrorError as error:
            self._report.fault(f"{name}: {error}")
            self.alerts.send_failure(about, f"{name}: {error}")
        except Exception:
            log.exception("%s: a fault of this program", name)
            self.alerts.send_failure(about, f"{name}: a fault of this program; its log says which")

    def tell_health(self) -> None:
        """Send an alert when `/-/health` becomes unwell, and when it is well again."""
        patience = {upstream.name: upstream.stale_after for upstream in self._config.upstreams}
        reasons = file_health(Path(self._config.database), self._control.clock(), patience=patience).reasons
        if reasons:
            self.alerts.send_failure("", f"the mirror is unwell: {'; '.join(reasons)}")
        else:
            self.alerts.send_recovery()
