"""What a sync would ask, said before anything is spent.

Sizes that the mirror knows are taken from it; a workspace it has never listed is asked for its size, one
request each. Everything else is arithmetic over the file.
"""

from datetime import datetime, timedelta

import msgspec

from mirror.errors import UpstreamError
from mirror.sync import find_workspaces, places
from mirror.sync.refs import count_stale, mark_old
from mirror.sync.run import Run

PAGE = 100
SECONDS_PER_REQUEST = 0.4
"""A guess for an upstream that no run has timed yet."""


class Plan(msgspec.Struct, kw_only=True):
    """Requests by kind, what the budget leaves of them in this hour, and when they would be done."""

    upstream: str
    requests: dict[str, int]
    total: int
    limit: int | None
    left: int | None
    seconds: float
    done_at: datetime
    notes: list[str]


def plan_upstream(run: Run) -> Plan:
    """Work out what a sync would ask; raises what asking for workspaces and sizes raises."""
    asked_before = run.budget.requests
    requests = {"credential": 0 if run.upstream.anonymous else 1, "workspaces and members": 0, "listings": 0}
    notes, unlisted = list[str](), 0
    for workspace in find_workspaces(run):
        place = run.place(workspace)
        listing = places.begin(
            place,
            run.now(),
            full=run.full,
            sweep_every=run.config.sweep_every,
            can_be_incremental=run.upstream.orders_by_update,
        )
        known = run.alive(run.owner_id(place))
        if listing.purpose == "incremental":
            requests["listings"] += 1
            continue
        size, told = _size(run, workspace, place, known)
        notes += [told] if told else []
        unlisted += max(0, size - known)
        requests["workspaces and members"] += 1 if run.upstream.anonymous else 2
        requests["listings"] += max(1, -(-size // PAGE)) - min(listing.pages, -(-size // PAGE))
    if run.with_refs:
        mark_old(run)
        requests["branches and tags"] = count_stale(run) + unlisted
    if run.budget.requests > asked_before:
        notes.append(f"{run.budget.requests - asked_before} requests were asked to find this out")
    return _timed(run, requests, notes)


def _size(run: Run, workspace: str, place: places.Place, known: int) -> tuple[int, str | None]:
    """Return how many repositories a workspace has, asking only where the mirror cannot know."""
    if place.cursor is not None:
        return known, None
    if place.listing is not None and place.listing.last_size is not None:
        return place.listing.last_size, None
    try:
        page = run.upstream.fetch_repositories(workspace, "created", None)
    except UpstreamError as error:
        return known, f"{workspace}: {error}"
    return (page.size if page.size is not None else len(page.rows)), None


def _timed(run: Run, requests: dict[str, int], notes: list[str]) -> Plan:
    """Say how long it would take: at the pace of former runs, and no faster than the budget lets it."""
    total, limit = sum(requests.values()), run.budget.limit()
    left = None if limit is None else max(0, limit - run.budget.used())
    seconds = total * _pace(run)
    if limit is not None and left is not None and total > left:
        seconds = max(seconds, (total - left) / limit * 3600)
    return Plan(
        upstream=run.config.name, requests=requests, total=total, limit=limit, left=left, seconds=seconds,
        done_at=run.now() + timedelta(seconds=seconds), notes=notes,
    )  # fmt: skip


def _pace(run: Run) -> float:
    """Return the seconds a request has taken, waits aside, in the last run that asked a fair number."""
    row = run.store.row(
        """SELECT (julianday(finished_at) - julianday(started_at)) * 86400 - slept_seconds,
                  requests + git_requests
           FROM sync_runs WHERE upstream_id = ? AND requests + git_requests >= 20
           AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1""",
        (run.upstream_id,),
    )
    return max(0.0, row[0]) / row[1] if row else SECONDS_PER_REQUEST / run.config.concurrency
