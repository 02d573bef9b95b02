"""The main loop of a sync: its phases, the scope of a run, and rounds.

A round begins with the listings and ends when nothing is left to do; a run that was interrupted is resumed
within it, and no workspace is listed twice. If every run began with all listings, a mirror of many workspaces
with a small budget would spend it on them, and never list any refs.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import msgspec

from mirror.errors import Paused, UpstreamBusy
from mirror.report import Summary
from mirror.store.crawl_state import Round
from mirror.store.ledger import RequestLedger
from mirror.sync.engine import Step, run_steps
from mirror.sync.forced import forced_steps
from mirror.sync.hints import (
    drop_listed,
    hint_steps,
    hinted_workspaces,
    to_list_now,
    with_hints,
)
from mirror.sync.missing import absence_steps, close_absences, merge_duplicates, settle_restored, uuid_steps
from mirror.sync.pages import begin_listings, hole_steps
from mirror.sync.preflight import (
    check_caller,
    correct_moments,
    find_workspaces,
    forget_links,
    formerly_listed,
    tell_time,
)
from mirror.sync.refs import count_stale, mark_old, refs_steps
from mirror.sync.run import Run
from mirror.sync.run_record import carry_progress, record_progress, recorded
from mirror.sync.workspaces import listing_steps
from mirror.times import from_text

__all__ = ["Run", "find_workspaces", "sync_upstream"]

# How long the listings of an interrupted round are not repeated: an hour, or four times as long as they took,
# so that most of a small budget is left for branches and tags.
LISTINGS_GOOD_FOR = timedelta(hours=1)
LISTINGS_GOOD_TIMES = 4

LONGEST_ROUND = timedelta(days=1)
"""After this, a round whose listings were not finished starts over."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a sync that a run does; what it leaves out is left to another run.

    - `listings`: list workspaces, all of them or (`due`, in lower case) only these.
    - `leftovers`: ask again for what was missing before.
    - `refs`: list stale branches and tags. `new_refs`: only those of repositories that this run saw first.
    - `kind`: what `sync_runs` calls such a run; None for full or incremental, as the listings were.
    """

    listings: bool = True
    leftovers: bool = True
    refs: bool = True
    new_refs: bool = False
    due: Collection[str] | None = None
    kind: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every workspace is listed."""
        return self.listings and self.due is None

    def to_list(self, workspaces: Iterable[str], also: Collection[str]) -> list[str]:
        """Pick the workspaces in scope; `also` are hinted ones, in lower case like those in `due`."""
        if not self.listings:
            return []
        wanted = None if self.due is None else {*self.due, *also}
        return [name for name in workspaces if wanted is None or name.lower() in wanted]


EVERYTHING = Scope()
REFS = Scope(listings=False, leftovers=False, kind="refs")
RETRY = Scope(listings=False, kind="retry")
HINTS = Scope(due=(), refs=False, new_refs=True, kind="marked")


def sync_upstream(run: Run, scope: Scope = EVERYTHING) -> Summary:
    """Bring the mirror of one upstream up to date, or the part of it in `scope`; return how it went.

    Raises StoreError when the file can no longer be written, and nothing else: whatever goes wrong at an
    upstream is in the summary.
    """
    run.kind = scope.kind or run.kind
    if scope.is_whole:
        carry_progress(run)
    with recorded(run) as summary:
        # Hints come first: somebody waits for what a webhook or a write announced.
        workspaces = prepare(run, scope)
        follow_hints(run)
        hinted, since = hinted_workspaces(run), run.now_text()
        workspaces = list_workspaces(run, scope, workspaces, hinted)
        if scope.leftovers:
            retry_leftovers(run)
            resolve_absences(run, workspaces)
            drop_listed(run, hinted, workspaces, since=since)  # what is missing has been asked for too
            settle_restored(run)
        if run.with_refs:
            list_refs(run, scope)
        if scope.is_whole:
            end_round(run)
        if run.with_refs and scope.refs:
            ask_forced(run)  # last, with what the budget has left
    return summary


def prepare(run: Run, scope: Scope) -> list[str]:
    """Put the file in order, check the credential, and return the workspaces to mirror."""
    tell_time(run)
    correct_moments(run, thoroughly=scope.is_whole)
    RequestLedger(run.store).forget(run.now())
    if run.has_moved:
        with run.store.transaction():
            forget_links(run)
            run.save_address()
    merge_duplicates(run)
    if run.full:
        run.failures.retry_all()
    check_caller(run)
    workspaces = find_workspaces(run)
    run.failures.spell([*workspaces, *formerly_listed(run, workspaces)])
    if scope.is_whole:
        resume_round(run)
    else:
        run.round = run.now_text()
    return workspaces


def follow_hints(run: Run) -> None:
    """Request each repository that a webhook or a write reported as changed."""
    _run_steps(run, hint_steps(run))


def list_workspaces(run: Run, scope: Scope, workspaces: list[str], hinted: Collection[str]) -> list[str]:
    """List the repositories of each workspace in scope; return all workspaces that are mirrored."""
    chosen = scope.to_list(workspaces, to_list_now(run, hinted, workspaces))
    begin_listings(run, chosen, refs=count_stale(run) if run.with_refs and scope.refs else None)

    def list_each(names: list[str]) -> None:
        chosen = scope.to_list(names, to_list_now(run, hinted, names))
        _run_steps(run, (step for name in chosen for step in listing_steps(run, name, workspaces)))

    list_each(workspaces)
    if run.config.workspaces is None:
        # A workspace that is missing from the caller's list may still be there.
        lost = formerly_listed(run, workspaces)
        list_each(lost)
        workspaces = workspaces + lost
    run.failures.raise_if_unreachable()
    if scope.is_whole:
        listings_done(run)
    return workspaces


def retry_leftovers(run: Run) -> None:
    """Request again the pages that an earlier run had to skip; resolve unknown uuids and contradictions."""
    _run_steps(run, hole_steps(run))
    follow_hints(run)
    _run_steps(run, uuid_steps(run))


def resolve_absences(run: Run, workspaces: list[str]) -> None:
    """Request each repository that a full listing did not contain: it is gone, or it was missed."""
    _run_steps(run, absence_steps(run, workspaces))
    close_absences(run, workspaces)


def list_refs(run: Run, scope: Scope) -> None:
    """List branches and tags where they may have changed, or (`new_refs`) where they were never listed."""
    if scope.refs:
        mark_old(run)
        run.progress.begin_refs(count_stale(run))
        _run_steps(run, refs_steps(run))
    elif scope.new_refs:
        _run_steps(run, refs_steps(run, new_since=run.round))
    follow_hints(run)  # at pushes that were reported meanwhile


def ask_forced(run: Run) -> None:
    """Ask which main branches were force-pushed, if that is wanted."""
    if run.config.ask_forced:
        run.budget.stop_waiting()  # the run is complete without these answers
        with suppress(Paused, UpstreamBusy):
            _run_steps(run, forced_steps(run))


def _run_steps(run: Run, steps: Iterable[Step]) -> None:
    """Take all steps of a phase, and between them those of hints that come meanwhile."""
    run_steps(
        with_hints(run, steps),
        threads=run.config.concurrency,
        stop=run.stop,
        tick=partial(record_progress, run),
        together=run.together,
    )


def resume_round(run: Run) -> None:
    """Continue the round of a run that was interrupted, or begin one."""
    found = unfinished_round(run)
    if found is None:
        found = Round(began=run.now_text())
        _save(run, found)
    elif found.listed:
        run.note("resuming an interrupted run; its listings are not repeated")
    run.round = found.began


def listings_done(run: Run) -> None:
    """Note that every workspace has been listed."""
    _save(run, Round(began=run.round, listed=run.now_text()))


def end_round(run: Run) -> None:
    """End the round: the next run begins with the listings."""
    with run.cursors() as cursors:
        cursors.round.drop()


def unfinished_round(run: Run) -> Round | None:
    """Read the round that a whole sync would continue, if there is one."""
    with run.cursors() as cursors:
        found = cursors.round.read()
    if found is None:
        return None
    began, now = from_text(found.began), run.now()
    if run.full or now < began:  # a clock that was wrong wrote it
        return None
    if found.listed is None:
        return found if now - began < LONGEST_ROUND else None
    listed = from_text(found.listed)
    if now < listed:
        return None
    return found if now - listed < max(LISTINGS_GOOD_FOR, LISTINGS_GOOD_TIMES * (listed - began)) else None


def _save(run: Run, found: Round) -> None:
    with run.cursors() as cursors:
        cursors.round.save(found, at=run.now_text())
