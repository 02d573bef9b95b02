"""One run: what each of its steps needs, and its record in the file."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from mirror.model import Repository
from mirror.report import Reporter, RunCounts, Summary
from mirror.store import Store
from mirror.store.crawl_state import Progress, WorkspaceState
from mirror.store.cursors import Cursors
from mirror.store.failures import Failure, Failures
from mirror.store.repair import count_as_never, latest_ahead
from mirror.store.repositories import SavedRepositories
from mirror.store.runs import finish_run, save_counts, start_run
from mirror.sync.listing_state import as_of
from mirror.sync.progress import FAIR_NUMBER, RunProgress
from mirror.times import Clock, from_text, to_text
from mirror.upstream.budget import Budget
from mirror.upstream.protocol import BadRow, Upstream

TICK_SECONDS = 2.0
SECONDS_PER_REQUEST = 0.4
"""A guess for an upstream that no run has timed yet."""


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
        self.counts = RunCounts()
        self.failures: list[Failure] = []
        self.notes: list[str] = []
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
        self._stopwatch = stopwatch
        self._ticked = stopwatch()
        self.progress = RunProgress(
            budget,
            self.counts,
            report,
            clock=self.now,
            usual_pace=self.usual_pace(),
            by_git=config.refs == "git",
            stopwatch=stopwatch,
        )

    def save_address(self) -> int:
        """Write the address of the upstream and return the id of its row.

        A new address belongs into the transaction that forgets the links to the old one: once it is written,
        nothing shows any more that the upstream has moved.
        """
        return self.store.save_upstream(self.config.name, self.config.kind, self._url, refs=self.config.refs)

    @property
    def with_refs(self) -> bool:
        """Whether branches and tags are mirrored at all."""
        return self.config.refs != "none"

    def now(self) -> datetime:
        """Return the time, which never goes back within a run: what was seen later is never older."""
        with self._turn:
            self._latest = max(self._latest, self.clock())
            return self._latest

    def now_text(self) -> str:
        """Return the time as a text of the file."""
        return to_text(self.now())

    def mend_moments(self, *, thoroughly: bool) -> None:
        """Correct moments ahead of now, which a wrong clock wrote; they count as never.

        Without a sign of such a clock, all rows are searched only if `thoroughly`.
        """
        now = self.now()
        with self.store.transaction() as connection:
            latest = latest_ahead(connection, self.upstream_id, now)
            if latest is not None:
                self.note(f"the clock was ahead once: times up to {latest} are ignored")
            if latest is not None or thoroughly:
                count_as_never(connection, self.upstream_id, now)

    @contextmanager
    def recorded(self) -> Iterator[Summary]:
        """Record the run in `sync_runs` and fill its summary, however it ends.

        A MirrorError or Ctrl-C ends the run and is reported in the summary; any other error is raised.
        """
        began = self._stopwatch()
        with self.store.transaction() as connection:
            self.id = start_run(connection, self.upstream_id, self.kind, at=self.now_text())
        self.progress.run_id = self.id
        summary = Summary(
            upstream=self.config.name, kind=self.kind, state="failed", counts=self.counts, seconds=0,
            failures=self.failures, notes=self.notes, run_id=self.id,
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
        finally:
            summary.kind, summary.seconds = self.kind, self._stopwatch() - began
            self._add_missing(summary)
            if summary.state == "complete" and summary.missing:
                summary.state, summary.exit_code = "incomplete", 1
            if summary.state == "paused" and (summary.failures or summary.waiting):
                summary.exit_code = 1
            self._finish(summary)

    def _add_missing(self, summary: Summary) -> None:
        """Add what the mirror is known to miss, whether this run has asked for it or not."""
        with self.store.transaction() as connection:
            failures = Failures(connection, self.upstream_id)
            failures.accept(self.config.accept_missing)
            known = failures.read()
        failed_now = {(failure.kind, failure.subject) for failure in self.failures}
        summary.accepted = [failure for failure in known if failure.accepted]
        accepted = {(failure.kind, failure.subject) for failure in summary.accepted}
        self.failures[:] = [each for each in self.failures if (each.kind, each.subject) not in accepted]
        summary.waiting = [
            each for each in known if not each.accepted and (each.kind, each.subject) not in failed_now
        ]
        summary.refs_waiting = self._count_unread() if self.with_refs else 0

    def _count_unread(self) -> int:
        """Count the repositories whose branches and tags are to be read, failed ones aside."""
        count = self.store.value(
            """SELECT count(*) FROM repositories AS r
               WHERE upstream_id = ? AND refs_stale AND deleted_at IS NULL AND NOT EXISTS (
                   SELECT 1 FROM sync_failures AS f WHERE f.repository_id = r.id AND f.kind = 'refs')""",
            (self.upstream_id,),
        )
        return int(count)

    def _finish(self, summary: Summary) -> None:
        """Record how the run ended, and how far it came if the next one goes on from there."""
        self.progress.estimate()
        progress = self.progress.read()
        if progress is not None and summary.resumes_at is not None:
            until = to_text(summary.resumes_at)
            progress = msgspec.structs.replace(progress, waits_until=until, why=summary.error)
        with self.store.transaction() as connection:
            finish_run(
                connection, self.id, kind=self.kind, state=summary.state, at=self.now_text(),
                counts=self._counted(), error=summary.error,
            )  # fmt: skip
            self._save_progress(None if summary.state in ("complete", "incomplete") else progress)

    def carry_progress(self) -> None:
        """Count on from where the last whole sync stopped, if it stopped early."""
        with self.cursors() as cursors:
            kept = cursors.progress.read()
        self.progress.is_whole = True
        self.progress.refs_done = kept.refs_done if kept is not None and kept.is_whole else 0

    def _save_progress(self, progress: Progress | None) -> None:
        """Write how far the run is, or (None) that it is done; that of a whole sync outlives other runs."""
        with self.cursors() as cursors:
            kept = cursors.progress.read()
            if kept is not None and kept.is_whole and not self.progress.is_whole:
                return
            if progress is not None:
                cursors.progress.save(progress, at=progress.at)
            elif kept is not None:
                cursors.progress.drop()

    def tick(self) -> None:
        """Record what was done so far, every two seconds, for those who watch a run from elsewhere."""
        if self._stopwatch() - self._ticked < TICK_SECONDS:
            return
        # If the file cannot be written, the next page will fail; a run that only waits goes on.
        with suppress(StoreError):
            self.progress.tell()
            with self.store.transaction() as connection:
                save_counts(connection, self.id, kind=self.kind, counts=self._counted())
                if (progress := self.progress.read()) is not None:
                    self._save_progress(progress)
        self._ticked = self._stopwatch()

    def _counted(self) -> dict[str, Any]:
        self.counts.requests = self.budget.requests
        self.counts.git_requests = self.budget.git_requests
        self.counts.retries = self.budget.retries
        self.counts.slept_seconds = self.budget.slept_seconds
        self.counts.failures = len(self.failures)
        return msgspec.structs.asdict(self.counts)

    def usual_pace(self) -> float:
        """Return the seconds a request has taken, waits aside, in the last run that asked a fair number."""
        row = self.store.row(
            """SELECT (julianday(finished_at) - julianday(started_at)) * 86400 - slept_seconds,
                      requests + git_requests
               FROM sync_runs WHERE upstream_id = ? AND requests + git_requests >= ?
               AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1""",
            (self.upstream_id, FAIR_NUMBER),
        )
        return max(0.0, row[0]) / row[1] if row else SECONDS_PER_REQUEST / self.config.concurrency

    def note(self, text: str) -> None:
        """Report something to the user, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.report.note(text)

    def fail(self, failure: Failure) -> None:
        """Record a failure; the run goes on and ends as incomplete."""
        with self.store.transaction() as connection:
            self.failures.append(Failures(connection, self.upstream_id).save(failure, self.now()))
        self._failed.add((failure.kind, failure.subject))
        self._failed_rows.add(failure.repository_id)

    def isolate(self, error: MirrorError) -> int | None:
        """Return the status of an error that concerns one thing alone; raise any other.

        A 429 after all retries pauses the run. Three lost connections in a row mean that the upstream is out
        of reach, which ends the run.
        """
        if isinstance(error, UpstreamBusy) and error.status == 429:
            raise Paused(str(error)) from error
        if not isinstance(error, UpstreamRefused | UpstreamBusy | UpstreamShapeError):
            raise error
        if not isinstance(error, UpstreamBusy) or error.status is not None:
            self.hear()
            return getattr(error, "status", None)
        self._lost, self._lost_connections = error, self._lost_connections + 1
        if self._lost_connections >= 3:
            raise error
        return None

    def must_have_heard(self) -> None:
        """Raise the last connection error if nothing was answered at all: the upstream is out of reach."""
        if self._lost is not None and not self._heard:
            raise self._lost

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

    def fail_rows(self, workspace: str, bad: Sequence[BadRow], *, swept_at: str | None) -> None:
        """Record rows of a listing that were not understood; the next full listing reads them again."""
        last = from_text(swept_at) if swept_at else self.now()
        due = to_text(last + timedelta(seconds=self.config.sweep_every))
        for row in bad:
            self.fail(Failure("row", f"{workspace}: {row.what}", row.error, next_try_at=due))

    def answered_rows(self, workspace: str, rows: Sequence[Repository]) -> None:
        """Forget that rows were not understood, because they are now."""
        failed = {subject for kind, subject in self._failed if kind == "row"}
        for row in rows if failed else ():
            for subject in (f"{workspace}: {row.full_name}", f"{workspace}: {row.uuid}"):
                if subject in failed:
                    self.answered("row", subject)

    def answered_refs(self, repository_id: int, *, understood: bool) -> None:
        """Drop the failure of a repository's refs, and if all were `understood`, those of single refs."""
        self.hear()
        if repository_id not in self._failed_rows:
            return
        with self.store.transaction() as connection:
            Failures(connection, self.upstream_id).drop_refs(repository_id, single=understood)

    def save_page(
        self,
        workspace: str,
        rows: Sequence[Repository],
        *,
        first_listing: bool,
        since: str,
        swept_at: str | None = None,
    ) -> SavedRepositories:
        """Write a page of a workspace's listing as this run saw it; what cannot be written is a failure.

        `since` is when the listing began. For `swept_at` see `fail_rows`.
        """
        # A repository may have come from a workspace that was listed earlier in this round.
        saved = self._save(rows, first_listing=first_listing, listed_since=min(since, self.round))
        bad = [BadRow(what=row.full_name, error=why) for row, why in saved.refused]
        refused = [row for row, _ in saved.refused]
        self.answered_rows(workspace, [row for row in rows if row not in refused])
        self.fail_rows(workspace, bad, swept_at=swept_at)
        return saved

    def save_row(self, row: Repository) -> SavedRepositories:
        """Write a repository that was asked for by itself; raises UpstreamShapeError where it cannot be."""
        with self.store.transaction():
            saved = self._save([row], first_listing=False, listed_since=None)
            for refused, why in saved.refused:
                raise UpstreamShapeError(f"{refused.full_name}: {why}")
        return saved

    def _save(
        self, rows: Sequence[Repository], *, first_listing: bool, listed_since: str | None
    ) -> SavedRepositories:
        """Write repositories with their owners, and record what changed."""
        return self.store.save_page(
            self.upstream_id,
            rows,
            run_id=self.id,
            seen_at=self.now_text(),
            with_refs=self.with_refs,
            first_listing=first_listing,
            listed_since=listed_since,
        )

    @contextmanager
    def cursors(self) -> Iterator[Cursors]:
        """Give the upstream's cursors; what is written together belongs into a transaction of the store."""
        with self.store.reading() as connection:
            yield Cursors(connection, self.upstream_id)

    def state(self, workspace: str) -> WorkspaceState:
        """Read where the crawl of a workspace stands."""
        with self.cursors() as cursors:
            state = cursors.workspace(workspace).read() or WorkspaceState()
        return as_of(state, self.now(), self.config.overlap)

    def states(self) -> Iterator[tuple[str, WorkspaceState]]:
        """Yield the state of each configured workspace, or of all that were ever listed."""
        names = self.config.workspaces
        if names is None:
            with self.cursors() as cursors:
                names = tuple(cursors.workspace_names())
        for name in names:
            yield name, self.state(name)

    def has_state(self, workspace: str) -> bool:
        """Return whether a workspace has a state: it was listed, and no other name has taken it over."""
        with self.cursors() as cursors:
            return cursors.workspace(workspace).exists()

    def save_state(self, workspace: str, state: WorkspaceState) -> None:
        """Write where the crawl of a workspace stands; belongs into the transaction of its page."""
        now = self.now_text()
        with self.cursors() as cursors:
            cursors.workspace(workspace).save(msgspec.structs.replace(state, moved_at=now), at=now)

    def forget_workspace(self, workspace: str) -> None:
        """Forget where the crawl of a workspace stood; its rows stay."""
        with self.cursors() as cursors:
            cursors.workspace(workspace).drop()

    def owner_id(self, state: WorkspaceState) -> int | None:
        """Return the id of the workspace's row in `users`."""
        owner_id: int | None = self.store.value(
            "SELECT id FROM users WHERE upstream_id = ? AND uuid = ?", (self.upstream_id, state.owner_uuid)
        )
        return owner_id

    def has_left(self, answer: Repository) -> bool:
        """Return whether a repository has gone to an owner whose workspace is not listed here.

        By identity, since names change hands; a workspace that was never listed has nothing but its name.
        """
        owner = answer.owner
        stays = self.store.row(
            """SELECT 1 FROM repositories r JOIN users u ON u.id = r.owner_id
               WHERE r.upstream_id = ? AND r.uuid = ? AND u.uuid = ?""",
            (self.upstream_id, answer.uuid, owner.uuid),
        )
        return stays is None and not any(
            state.owner_uuid == owner.uuid
            or (state.owner_uuid is None and name.lower() == (owner.username or "").lower())
            for name, state in self.states()
            if not state.gone
        )

    def alive(self, owner_id: int | None) -> int:
        """Count the repositories that the mirror holds of an owner, tombstones aside."""
        return int(
            self.store.value(
                "SELECT count(*) FROM repositories WHERE owner_id = ? AND deleted_at IS NULL", (owner_id,)
            )
        )
