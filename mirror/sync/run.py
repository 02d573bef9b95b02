"""One run: what each of its steps needs, and what it notes of failures and of lost connections."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from mirror.config import UpstreamConfig
from mirror.errors import (
    MirrorError,
    Paused,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.report import Reporter, RunCounts
from mirror.store import Store
from mirror.store.cursors import Cursors
from mirror.store.repair import correct_future_moments, latest_ahead
from mirror.store.runs import Failure, Failures, restart_run
from mirror.sync.progress import RunProgress, usual_pace
from mirror.sync.workspace_states import WorkspaceStates
from mirror.times import Clock, to_text
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
        self._clock_lock = threading.Lock()
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
        self._read_failed()
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

    def spell_failures(self, workspaces: Iterable[str]) -> None:
        """Give the failures of workspaces the names by which they are listed now."""
        with self.store.transaction() as connection:
            Failures(connection, self.upstream_id).spell(workspaces)
        self._read_failed()

    def _read_failed(self) -> None:
        """Read what has failed: most of what is answered never did, which saves a query for each answer."""
        failed = self.store.rows(
            "SELECT kind, subject, repository_id FROM sync_failures WHERE upstream_id = ?",
            (self.upstream_id,),
        )
        self._failed = {(kind, subject) for kind, subject, _ in failed}
        self._failed_rows = {row_id for _, _, row_id in failed}

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
        with self._clock_lock:  # what was seen later must not seem older, even if the clock is set back
            self._latest = max(self._latest, self.clock())
            return self._latest

    def now_text(self) -> str:
        """Return the time as a text of the file."""
        return to_text(self.now())

    def begin_at(self, now: datetime) -> None:
        """Take another time than the clock's as now, until the clock has passed it."""
        with self._clock_lock:
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

    def retry_all(self) -> None:
        """Ask now for everything that has failed."""
        with self.store.transaction() as connection:
            Failures(connection, self.upstream_id).retry_all()

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
