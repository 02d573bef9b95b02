"""Estimate what a sync would request: how many requests, against which budget, and until when.

Known sizes are taken from the file; for a workspace that was never listed, a plan asks for its size in one
request.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from mirror.errors import Paused, UpstreamError
from mirror.model import Repository
from mirror.store.crawl_state import WorkspaceState
from mirror.sync.crawl import find_workspaces, unfinished_round
from mirror.sync.pages import next_listing
from mirror.sync.preflight import formerly_listed, is_caller_known
from mirror.sync.progress import GIT_REQUESTS, PAGE, usual_pace
from mirror.sync.refs import count_stale, mark_old
from mirror.sync.run import Run
from mirror.upstream.budget import RequestKind
from mirror.upstream.protocol import Page


class BudgetShare(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that count against one budget, its limit per hour and what is left; None for no limit."""

    total: int
    limit: int | None
    left: int | None


class Plan(msgspec.Struct, kw_only=True):
    """Requests by what they are for and by the budget they count against, and when they would be done."""

    upstream: str
    requests: dict[str, int]
    api: BudgetShare
    git: BudgetShare
    seconds: float
    done_at: datetime
    notes: list[str]


def plan_upstream(run: Run) -> Plan:
    """Estimate what a sync would ask; raises what asking for workspaces and sizes raises.

    While the budget is spent, whatever would have to be requested is left out, with a note.
    """
    asked_before = run.budget.requests
    requests = {"credential": 0 if is_caller_known(run) else 1, "workspaces and members": 0, "listings": 0}
    notes, unlisted, resumed = list[str](), 0, unfinished_round(run)
    for workspace in _workspaces(run, notes):
        state = run.states.read(workspace)
        if run.has_moved:
            state = msgspec.structs.replace(state, listing=None, swept_at=None)
        if resumed is not None and state.listing is None and state.round == resumed.began:
            continue
        listing = next_listing(run, state)
        known = run.states.alive(state)
        if listing.purpose == "incremental":
            requests["listings"] += 1
            continue
        size, told = _size(run, workspace, state, known)
        notes += [told] if told and told not in notes else []
        unlisted += max(0, size - known)
        begins = listing is not state.listing
        requests["workspaces and members"] += begins + (
            run.lists_members and (begins or state.members is not None)
        )
        requests["listings"] += max(1, -(-size // PAGE)) - min(listing.pages, -(-size // PAGE))
    run.failures.raise_if_unreachable()
    # What was never listed is not in the file, but its refs will be read too.
    by_git = _refs(run, requests, unlisted) if run.with_refs else 0
    if by_git and unlisted:
        notes.append("what was never listed is taken for git; the API is asked for refs of Mercurial")
    if run.budget.requests > asked_before:
        sent = run.budget.requests - asked_before
        notes.append(f"{sent:,} {'request was' if sent == 1 else 'requests were'} sent to find this out")
    return _timed(run, requests, by_git, notes)


def _workspaces(run: Run, notes: list[str]) -> Iterable[str]:
    """Name the workspaces that a sync would list; those of earlier runs, if they cannot be requested now."""
    try:
        return find_workspaces(run)
    except Paused as error:
        notes.append(_left_out(error))
        return formerly_listed(run, ())


def _refs(run: Run, requests: dict[str, int], unlisted: int) -> int:
    """Count the requests for branches and tags; return those by git (for all but Mercurial)."""
    mark_old(run)
    stale = count_stale(run) + unlisted
    if run.config.refs != "git":
        requests["branches and tags"] = stale
        return 0
    mercurial = run.store.value(
        """SELECT count(*) FROM repositories
           WHERE upstream_id = ? AND refs_stale AND deleted_at IS NULL AND scm = 'hg'""",
        (run.upstream_id,),
    )
    requests["branches and tags"] = min(mercurial, stale)
    requests["branches and tags by git"] = GIT_REQUESTS * (stale - requests["branches and tags"])
    return requests["branches and tags by git"]


def _left_out(error: Paused) -> str:
    return f"{error}; what is not known without asking is left out"


def _size(run: Run, workspace: str, state: WorkspaceState, known: int) -> tuple[int, str | None]:
    """Return how many repositories a workspace has, and a note; ask only where the mirror cannot know."""
    if state.cursor is not None:
        return known, None
    if state.listing is not None and state.listing.last_size is not None:
        return state.listing.last_size, None
    try:
        page = _first_page(run, workspace)
    except Paused as error:
        return known, _left_out(error)
    except UpstreamError as error:
        return known, f"{workspace}: {error}"
    return (page.size if page.size is not None else len(page.rows)), None


def _first_page(run: Run, workspace: str) -> Page[Repository]:
    try:
        page = run.upstream.fetch_repositories(workspace, "created", None)
    except UpstreamError as error:
        run.failures.isolate(error)
        raise
    run.failures.upstream_answered()
    return page


def _timed(run: Run, requests: dict[str, int], by_git: int, notes: list[str]) -> Plan:
    """Add how long it would take: at the pace of earlier runs, and no faster than the budgets allow."""
    total = sum(requests.values())
    api, git = _share(run, "api", total - by_git), _share(run, "git", by_git)
    pace = usual_pace(run.store, run.upstream_id, concurrency=run.config.concurrency)
    seconds = max(
        total * pace,
        run.budget.seconds_for(api.total, pace),
        run.budget.seconds_for(git.total, pace, "git"),
    )
    return Plan(
        upstream=run.config.name, requests=requests, api=api, git=git, seconds=seconds,
        done_at=run.now() + timedelta(seconds=seconds), notes=notes,
    )  # fmt: skip


def _share(run: Run, kind: RequestKind, total: int) -> BudgetShare:
    limit = run.budget.limit(kind)
    left = None if limit is None else max(0, limit - run.budget.used(kind))
    return BudgetShare(total=total, limit=limit, left=left)
