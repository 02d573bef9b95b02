"""The record of a run: its row in `sync_runs`, its progress for those who watch, its summary at the end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import msgspec

from mirror.errors import BudgetSpent, Interrupted, MirrorError, Paused, StoreError, UpstreamBusy
from mirror.report import Summary
from mirror.store.changes import last_change
from mirror.store.crawl_state import Progress
from mirror.store.runs import LEFT_OUT, Failures, finish_run, save_counts, start_run
from mirror.sync.run import Run
from mirror.times import time_text, to_text

TICK_SECONDS = 2.0  # between two records of the progress


@contextmanager
def recorded(run: Run) -> Iterator[Summary]:
    """Record the run in `sync_runs` and fill its summary, however it ends.

    A MirrorError or Ctrl-C ends the run and is reported in the summary; any other error is raised.
    """
    began = run.stopwatch()
    with run.store.transaction() as connection, run.cursors() as cursors:
        run.id = start_run(connection, run.upstream_id, run.kind, at=run.now_text())
        reported = cursors.reported_change.read()
        reported = last_change(connection) if reported is None else reported
    run.progress.run_id = run.id
    summary = Summary(
        upstream=run.config.name, kind=run.kind, state="failed", counts=run.counts, seconds=0,
        failures=run.failures.found, notes=run.notes, run_id=run.id, forced=run.forced,
        changes=(reported, reported),
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
        if isinstance(error, UpstreamBusy) and run.failures.must_come_back(error):
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
    failed_now = {(failure.kind, failure.subject) for failure in run.failures.found}
    summary.accepted = [failure for failure in known if failure.accepted]
    accepted = {(failure.kind, failure.subject) for failure in summary.accepted}
    run.failures.found[:] = [each for each in run.failures.found if (each.kind, each.subject) not in accepted]
    summary.waiting = [
        each for each in known if not each.accepted and (each.kind, each.subject) not in failed_now
    ]
    summary.refs_waiting = _count_unread(run) if run.with_refs else 0


def _count_unread(run: Run) -> int:
    """Count the repositories whose branches and tags are to be read, failed ones aside."""
    count = run.store.value(
        f"""SELECT count(*) FROM repositories AS r
            WHERE upstream_id = :upstream AND refs_stale AND deleted_at IS NULL AND NOT {LEFT_OUT}
            AND NOT EXISTS (
                SELECT 1 FROM sync_failures AS f WHERE f.repository_id = r.id AND f.kind = 'refs')""",
        {"upstream": run.upstream_id, "left_out": json.dumps(run.states.left_out())},
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
                cursors.reported_change.save(summary.changes[1], at=run.now_text())


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
    """Record what was done so far, every TICK_SECONDS, for those who watch a run from elsewhere."""
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
    run.counts.failures = len(run.failures.found)
    return msgspec.structs.asdict(run.counts)
