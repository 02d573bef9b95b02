"""One run: what each of its steps needs, what it notes of failures, and its record in the file."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from mirror.config import UpstreamConfig
from mirror.errors import (
    BudgetSpent,
    Interrupted,
    MirrorError,
    Paused,
    StoreError,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.report import Reporter, RunCounts, Summary
from mirror.store import Store
from mirror.store.changes import last_change
from mirror.store.crawl_state import Progress
from mirror.store.cursors import Cursors
from mirror.store.repair import correct_future_moments, latest_ahead
from mirror.store.runs import Failure, Failures, finish_run, restart_run, save_counts, start_run
from mirror.sync.progress import RunProgress, usual_pace
from mirror.sync.workspace_states import WorkspaceStates
from mirror.times import Clock, time_text, to_text
from mirror.upstream.budget import Budget
from mirror.upstream.protocol import Upstream


class _Upstream(NamedTuple):
    id: int
    url: str


class Run:
    """A run of one upstream.

    :param config: the settings of the upstream.
    :param upstream: what is asked; `budget` counts its requests.
    :param store: the file; it must be locked for this run.
    :param url: the address of the upstream; if it differs from the file's, all links are forgotten.
    :param clock: tells the time; `stopwatch` measures seconds.
    :param stop: ends the run as soon as it is set (state interrupted).
    :param full: list every workspace in full, and trust no earlier check.
    :param confirm_absence: believe that what is gone is gone, however much it is.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        upstream: Upstream,
        budget: Budget,
        store: Store,
        *,
        url: str,
        clock: Clock,
        stop: threading.Event,
        report: Reporter,
        full: bool = False,
        confirm_absence: bool = False,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.upstream = upstream
        self.budget = budget
        self.store = store
        self.clock = clock
        self.stop = stop
        self.report = report
        self.full = full
        self.confirm_absence = confirm_absence
        self._turn = threading.Lock()
        self._latest = clock()
        self._url = url
        known = store.row("SELECT id, url FROM upstreams WHERE name = ?", (config.name,), _Upstream)
        self.has_moved = known is not None and known.url != url
        self.upstream_id = known.id if known is not None and known.url != url else self.save_address()
        self.states = WorkspaceStates(store, self.upstream_id, config, self.now)
        self.counts = RunCounts()
        self.failures: list[Failure] = []
        self.notes: list[str] = []
        self.forced: list[int] = []
        self.kind = "incremental"
        self.id = 0
        self.round = ""
        # Most of what is answered never failed: this saves a query for each answer.
        failed = store.rows(
            "SELECT kind, subject, repository_id FROM sync_failures WHERE upstream_id = ?",
            (self.upstream_id,),
        )
        self._failed = {(kind, subject) for kind, subject, _ in failed}
        self._failed_rows = {row_id for _, _, row_id in failed}
        self._heard = False
        self._lost_connections = 0
        self._lost: MirrorError | None = None
        self.stopwatch = stopwatch
        self.ticked = stopwatch()
        self.progress = RunProgress(
            budget,
            self.counts,
            report,
            clock=self.now,
            usual_pace=usual_pace(store, self.upstream_id, concurrency=config.concurrency),
            by_git=config.refs == "git",
            stopwatch=stopwatch,
        )

    def save_address(self) -> int:
        """Write the address of the upstream and return the id of its row."""
        # A new address belongs in the transaction that forgets the links to the old one: afterwards nothing
        # shows that the upstream has moved.
        return self.store.save_upstream(self.config.name, self.config.kind, self._url, refs=self.config.refs)

    @property
    def with_refs(self) -> bool:
        """Whether branches and tags are mirrored at all."""
        return self.config.refs != "none"

    @property
    def lists_members(self) -> bool:
        """Whether the members of workspaces are read."""
        return self.config.members and not self.upstream.anonymous

    def now(self) -> datetime:
        """Return the time, which never goes back within a run."""
        with self._turn:  # what was seen later must not seem older, even if the clock is set back
            self._latest = max(self._latest, self.clock())
            return self._latest

    def now_text(self) -> str:
        """Return the time as a text of the file."""
        return to_text(self.now())

    def begin_at(self, now: datetime) -> None:
        """Take another time than the clock's as now, until the clock has passed it."""
        with self._turn:
            self._latest = now
        with self.store.transaction() as connection:
            restart_run(connection, self.id, at=to_text(now))

    def latest_ahead(self, now: datetime) -> str | None:
        """Return the latest time in the file that is ahead of a moment; None if none is."""
        with self.store.reading() as connection:
            return latest_ahead(connection, self.upstream_id, now)

    def correct_moments(self, *, thoroughly: bool) -> None:
        """Correct moments ahead of now, which a wrong clock wrote; `thoroughly` searches all rows."""
        now = self.now()
        with self.store.transaction() as connection:
            latest = latest_ahead(connection, self.upstream_id, now)
            if latest is not None:
                self.note(f"the clock was ahead once: times up to {latest} are ignored")
            if latest is not None or thoroughly:  # reading all rows takes a while
                correct_future_moments(connection, self.upstream_id, now)

    def note(self, text: str) -> None:
        """Report something to the user, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.report.note(text)

    def fail(self, failure: Failure) -> None:
        """Record a failure; the run continues and ends as incomplete."""
        with self.store.transaction() as connection:
            self.failures.append(Failures(connection, self.upstream_id).save(failure, self.now()))
        self._failed.add((failure.kind, failure.subject))
        self._failed_rows.add(failure.repository_id)

    def isolate(self, error: MirrorError) -> int | None:
        """Return the status of an error that concerns a single object; raise any other.

        A 429 after all retries pauses the run; the third lost connection, or answer to come back later than
        this run may wait, in a row ends it.
        """
        if isinstance(error, UpstreamBusy) and error.status == 429:
            raise Paused(str(error)) from error
        if not isinstance(error, UpstreamRefused | UpstreamBusy | UpstreamShapeError):
            raise error
        status: int | None = getattr(error, "status", None)
        if not isinstance(error, UpstreamBusy) or not (status is None or self.must_come_back(error)):
            self.hear()
            return status
        # One of them may concern one repository; three in a row: the upstream is out of reach.
        self._lost, self._lost_connections = error, self._lost_connections + 1
        if self._lost_connections >= 3:
            raise error
        return status

    def must_come_back(self, error: MirrorError) -> bool:
        """Return whether the upstream wants to be asked again later than this run may wait."""
        return isinstance(error, UpstreamBusy) and (error.retry_after or 0) > self.budget.longest_wait

    def must_have_heard(self) -> None:
        """Raise the last connection error if nothing was answered at all: the upstream is out of reach."""
        if self._lost is not None and not self._heard:
            raise self._lost

    @contextmanager
    def together(self) -> Iterator[None]:
        """Commit what several steps save at once; what does not come into the file is not counted."""
        before = msgspec.structs.asdict(self.counts)
        with self.store.together(lost=lambda: self._count_as(before)):  # a full disk undoes all of them
            yield

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Group writes and what they count: an error undoes both."""
        before = msgspec.structs.asdict(self.counts)
        try:
            with self.store.transaction() as connection:
                yield connection
        except BaseException:
            self._count_as(before)
            raise

    def _count_as(self, before: Mapping[str, Any]) -> None:
        for name, count in before.items():
            setattr(self.counts, name, count)

    def hear(self) -> None:
        """Note that the upstream has answered: it is not out of reach."""
        self._heard, self._lost_connections = True, 0

    def waits(self, kind: str, subject: str) -> bool:
        """Return whether something that failed waits for its next try."""
        with self.store.reading() as connection:
            return Failures(connection, self.upstream_id).waits(kind, subject, self.now_text())

    def accepts(self, full_name: str) -> bool:
        """Return whether the operator accepts that a repository is refused."""
        return full_name.lower() in {name.lower() for name in self.config.accept_missing}

    def is_due(self, kind: str, subject: str) -> bool:
        """Return whether something has failed and its next try is due."""
        return (kind, subject) in self._failed and not self.waits(kind, subject)

    def ever_failed(self, kind: str) -> set[str]:
        """Return the subjects of one kind that have failed, in this run or before it."""
        return {subject for failed, subject in self._failed if failed == kind}

    def ever_failed_refs(self, repository_id: int) -> bool:
        """Return whether refs of a repository have failed, in this run or before it."""
        return repository_id in self._failed_rows

    def answered(self, kind: str, subject: str) -> None:
        """Forget a failure, because what failed has been answered."""
        self.hear()
        if (kind, subject) in self._failed:
            with self.store.transaction() as connection:
                Failures(connection, self.upstream_id).drop(kind, subject)
            # A workspace that was renamed meanwhile fails by its old name and answers by its new one.
            self.failures[:] = [
                each for each in self.failures if (each.kind, each.subject) != (kind, subject)
            ]

    def answered_refs(self, repository_id: int, *, understood: bool) -> None:
        """Drop the failure of a repository's refs, and if all were `understood`, those of single refs."""
        self.hear()
        if not self.ever_failed_refs(repository_id):
            return
        with self.store.transaction() as connection:
            Failures(connection, self.upstream_id).drop_refs(repository_id, single=understood)

    @contextmanager
    def cursors(self) -> Iterator[Cursors]:
        """Give the upstream's cursors; what is written together belongs into a transaction of the store."""
        with self.store.reading() as connection:
            yield Cursors(connection, self.upstream_id)


TICK_SECONDS = 2.0


@contextmanager
def recorded(run: Run) -> Iterator[Summary]:
    """Record the run in `sync_runs` and fill its summary, however it ends.

    A MirrorError or Ctrl-C ends the run and is reported in the summary; any other error is raised.
    """
    began = run.stopwatch()
    with run.store.transaction() as connection, run.cursors() as cursors:
        run.id = start_run(connection, run.upstream_id, run.kind, at=run.now_text())
        told = cursors.told.read()
        told = last_change(connection) if told is None else told
    run.progress.run_id = run.id
    summary = Summary(
        upstream=run.config.name, kind=run.kind, state="failed", counts=run.counts, seconds=0,
        failures=run.failures, notes=run.notes, run_id=run.id, forced=run.forced,
        changes=(told, told),
    )  # fmt: skip
    try:
        yield summary
        summary.state = "complete"
    except Paused as error:
        summary.state, summary.error, summary.exit_code = "paused", str(error), error.exit_code
        summary.resumes_at = error.resumes_at if isinstance(error, BudgetSpent) else None
    except (KeyboardInterrupt, Interrupted):
        summary.state, summary.exit_code = "interrupted", Interrupted.exit_code
        summary.error = "stopped; the next run resumes from here"
    except MirrorError as error:
        summary.state, summary.error, summary.exit_code = "failed", str(error), error.exit_code
        if isinstance(error, UpstreamBusy) and run.must_come_back(error):
            summary.resumes_at = run.now() + timedelta(seconds=error.retry_after or 0)
            summary.state, summary.exit_code = "paused", Paused.exit_code
            summary.error = f"{error}; goes on at {time_text(summary.resumes_at)}"
    finally:
        summary.kind, summary.seconds = run.kind, run.stopwatch() - began
        _add_missing(run, summary)
        if summary.state == "complete" and summary.missing:
            summary.state, summary.exit_code = "incomplete", 1
        if summary.state == "paused" and (summary.failures or summary.waiting):
            summary.exit_code = 1
        _finish(run, summary)


def _add_missing(run: Run, summary: Summary) -> None:
    """Add what the mirror is known to miss, whether this run has requested it or not."""
    with run.store.transaction() as connection:
        failures = Failures(connection, run.upstream_id)
        failures.accept(run.config.accept_missing)
        known = failures.read()
    failed_now = {(failure.kind, failure.subject) for failure in run.failures}
    summary.accepted = [failure for failure in known if failure.accepted]
    accepted = {(failure.kind, failure.subject) for failure in summary.accepted}
    run.failures[:] = [each for each in run.failures if (each.kind, each.subject) not in accepted]
    summary.waiting = [
        each for each in known if not each.accepted and (each.kind, each.subject) not in failed_now
    ]
    summary.refs_waiting = _count_unread(run) if run.with_refs else 0


def _count_unread(run: Run) -> int:
    """Count the repositories whose branches and tags are to be read, failed ones aside."""
    count = run.store.value(
        """SELECT count(*) FROM repositories AS r
           WHERE upstream_id = ? AND refs_stale AND deleted_at IS NULL AND NOT EXISTS (
               SELECT 1 FROM sync_failures AS f WHERE f.repository_id = r.id AND f.kind = 'refs')""",
        (run.upstream_id,),
    )
    return int(count)


def _finish(run: Run, summary: Summary) -> None:
    """Record how the run ended, and how far it came if the next one resumes it."""
    run.progress.estimate()
    progress = run.progress.read()
    if progress is not None and summary.resumes_at is not None:
        until = to_text(summary.resumes_at)
        progress = msgspec.structs.replace(progress, waits_until=until, why=summary.error)
    with run.store.transaction() as connection:
        finish_run(
            connection, run.id, kind=run.kind, state=summary.state, at=run.now_text(),
            counts=_counted(run), error=summary.error,
        )  # fmt: skip
        _save_progress(run, None if summary.state in ("complete", "incomplete") else progress)
        if run.kind != "verify":  # the next sync tells what it repaired
            summary.changes = (summary.changes[0], last_change(connection))
            with run.cursors() as cursors:
                cursors.told.save(summary.changes[1], at=run.now_text())


def carry_progress(run: Run) -> None:
    """Count on from where the last whole sync stopped, if it stopped early."""
    with run.cursors() as cursors:
        kept = cursors.progress.read()
    run.progress.is_whole = True
    run.progress.refs_done = kept.refs_done if kept is not None and kept.is_whole else 0


def _save_progress(run: Run, progress: Progress | None) -> None:
    """Write how far the run is, or (None) that it is done."""
    with run.cursors() as cursors:
        kept = cursors.progress.read()
        # The next whole sync resumes the last one, whatever short runs come between.
        if kept is not None and kept.is_whole and not run.progress.is_whole:
            return
        if progress is not None:
            cursors.progress.save(progress, at=progress.at)
        elif kept is not None:
            cursors.progress.drop()


def record_progress(run: Run) -> None:
    """Record what was done so far, every two seconds, for those who watch a run from elsewhere."""
    if run.stopwatch() - run.ticked < TICK_SECONDS:
        return
    # If the file cannot be written, the next page will fail; a run that only waits continues.
    with suppress(StoreError):
        run.budget.settle()
        run.progress.tell()
        with run.store.transaction() as connection:
            save_counts(connection, run.id, kind=run.kind, counts=_counted(run))
            if (progress := run.progress.read()) is not None:
                _save_progress(run, progress)
    run.ticked = run.stopwatch()


def _counted(run: Run) -> dict[str, Any]:
    run.counts.requests = run.budget.requests
    run.counts.git_requests = run.budget.git_requests
    run.counts.retries = run.budget.retries
    run.counts.slept_seconds = run.budget.slept_seconds
    run.counts.failures = len(run.failures)
    return msgspec.structs.asdict(run.counts)
