"""The loops: from an upstream into the store, from wherever the last run stopped."""

from collections.abc import Iterable

from mirror.report import Summary
from mirror.store.ledger import RequestLedger
from mirror.sync import rounds
from mirror.sync.absence import absence_steps, settle
from mirror.sync.holes import hole_steps
from mirror.sync.part import EVERYTHING, Part
from mirror.sync.refs import count_stale, mark_old, refs_steps
from mirror.sync.run import Run
from mirror.sync.start import check_caller, find_workspaces, forget_links, formerly_listed
from mirror.sync.steps import Step, work_off
from mirror.sync.workspaces import listing_steps

__all__ = ["Run", "find_workspaces", "sync_upstream"]


def sync_upstream(run: Run, part: Part = EVERYTHING) -> Summary:
    """Bring the mirror of one upstream, or a part of it, up to date; the summary says how it went.

    Raises StoreError when the file can no longer be written, and nothing else: whatever an upstream can do
    wrong is told by the summary.
    """
    run.kind = part.kind or run.kind
    with run.recorded() as summary:
        RequestLedger(run.store).forget(run.now())
        if run.has_moved:
            forget_links(run)
        check_caller(run)
        workspaces = find_workspaces(run)
        rounds.go_on(run)
        run.report.phase("listing workspaces", None)
        _list(run, part.to_list(workspaces), workspaces)
        if run.config.workspaces is None:
            lost = formerly_listed(run, workspaces)
            _list(run, part.to_list(lost), lost)
            workspaces += lost
        run.must_have_heard()
        rounds.listings_done(run)
        if part.leftovers:
            _work_off(run, hole_steps(run))
            _work_off(run, absence_steps(run, workspaces))
            settle(run, workspaces)
        if part.refs and run.with_refs:
            mark_old(run)
            run.report.phase("branches and tags", count_stale(run))
            _work_off(run, refs_steps(run))
        rounds.end(run)
    return summary


def _list(run: Run, chosen: list[str], workspaces: list[str]) -> None:
    _work_off(run, (step for name in chosen for step in listing_steps(run, name, workspaces)))


def _work_off(run: Run, steps: Iterable[Step]) -> None:
    work_off(steps, threads=run.config.concurrency, stop=run.stop)
