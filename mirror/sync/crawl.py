"""The loops: from an upstream into the store, from wherever the last run stopped."""

from collections.abc import Iterable

from mirror.report import Summary
from mirror.store.ledger import RequestLedger
from mirror.sync import scope as rounds
from mirror.sync.engine import Step, work_off
from mirror.sync.hints import between, drop_listed, hint_steps, hinted_workspaces, to_list_now
from mirror.sync.missing import absence_steps, hole_steps, settle
from mirror.sync.preflight import check_caller, find_workspaces, forget_links, formerly_listed
from mirror.sync.refs import count_stale, mark_old, refs_steps
from mirror.sync.run import Run
from mirror.sync.scope import EVERYTHING, Part
from mirror.sync.twins import identity_steps, merge
from mirror.sync.workspaces import listing_steps

__all__ = ["Run", "find_workspaces", "sync_upstream"]


def sync_upstream(run: Run, part: Part = EVERYTHING) -> Summary:
    """Bring the mirror of one upstream, or a part of it, up to date; the summary says how it went.

    Raises StoreError when the file can no longer be written, and nothing else: whatever an upstream can do
    wrong is told by the summary.
    """
    run.kind = part.kind or run.kind
    with run.recorded() as summary:
        run.mend_moments(thoroughly=part.is_whole)
        RequestLedger(run.store).forget(run.now())
        if run.has_moved:
            with run.store.transaction():
                forget_links(run)
                run.save_address()
        merge(run)
        check_caller(run)
        workspaces = find_workspaces(run)
        if part.is_whole:
            rounds.resume_round(run)
        else:
            run.round = run.now_text()
        _work_off(run, hint_steps(run))
        due, since = hinted_workspaces(run), run.now_text()
        run.report.phase("listing workspaces", None)
        _list(run, part.to_list(workspaces, to_list_now(run, due, workspaces)), workspaces)
        if run.config.workspaces is None:
            lost = formerly_listed(run, workspaces)
            _list(run, part.to_list(lost, to_list_now(run, due, lost)), lost)
            workspaces += lost
        drop_listed(run, due, workspaces, since=since)
        run.must_have_heard()
        if part.is_whole:
            rounds.listings_done(run)
        if part.leftovers:
            _work_off(run, hole_steps(run))
            _work_off(run, identity_steps(run))
            _work_off(run, absence_steps(run, workspaces))
            settle(run, workspaces)
        if part.refs and run.with_refs:
            mark_old(run)
            run.report.phase("branches and tags", count_stale(run))
            _work_off(run, refs_steps(run))
        elif part.new_refs and run.with_refs:
            _work_off(run, refs_steps(run, new_since=run.round))
        if part.is_whole:
            rounds.end_round(run)
    return summary


def _list(run: Run, chosen: list[str], workspaces: list[str]) -> None:
    _work_off(run, (step for name in chosen for step in listing_steps(run, name, workspaces)))


def _work_off(run: Run, steps: Iterable[Step]) -> None:
    work_off(between(run, steps), threads=run.config.concurrency, stop=run.stop, tick=run.tick)
