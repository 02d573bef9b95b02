"""Estimate what a sync would ask, and split a crawl into mirrors of equal load.

Known sizes are taken from the file; for a workspace that was never listed, a plan asks for its size in one
request. A split never divides a workspace. The load of one is the hours that a first load of it takes within
the usual budgets of one credential.
"""

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from mirror.config import Config, UpstreamConfig
from mirror.errors import ConfigError, Paused, UpstreamError
from mirror.settings import toml_text
from mirror.store.crawl_state import WorkspaceState
from mirror.store.cursors import Cursors
from mirror.sync.crawl import find_workspaces
from mirror.sync.pages import next_listing
from mirror.sync.preflight import formerly_listed
from mirror.sync.progress import GIT_REQUESTS, PAGE, usual_pace
from mirror.sync.refs import count_stale, mark_old
from mirror.sync.run import Run
from mirror.times import age_text
from mirror.upstream.budget import AUTHENTICATED_LIMIT, GIT_LIMIT, RequestKind


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
    requests = {"credential": 0 if run.upstream.anonymous else 1, "workspaces and members": 0, "listings": 0}
    notes, unlisted = list[str](), 0
    for workspace in _workspaces(run, notes):
        state = run.states.read(workspace)
        if run.has_moved:
            state = msgspec.structs.replace(state, listing=None, swept_at=None)
        listing = next_listing(run, state)
        known = run.states.alive(state)
        if listing.purpose == "incremental":
            requests["listings"] += 1
            continue
        size, told = _size(run, workspace, state, known)
        notes += [told] if told and told not in notes else []
        unlisted += max(0, size - known)
        requests["workspaces and members"] += 2 if run.lists_members else 1
        requests["listings"] += max(1, -(-size // PAGE)) - min(listing.pages, -(-size // PAGE))
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
        page = run.upstream.fetch_repositories(workspace, "created", None)
    except Paused as error:
        return known, _left_out(error)
    except UpstreamError as error:
        return known, f"{workspace}: {error}"
    return (page.size if page.size is not None else len(page.rows)), None


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


class KnownWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace, how many living repositories the mirror knows of it, and the hours that it takes."""

    name: str
    repositories: int
    hours: float


class Share(msgspec.Struct, kw_only=True):
    """The workspaces of one mirror."""

    workspaces: list[str]
    repositories: int = 0
    hours: float = 0.0


def hours_of(repositories: int, *, refs: str, members: bool) -> float:
    """Return how long the first load of a workspace takes, by requests: itself, its members, pages, refs."""
    api = 1 + members + max(1, -(-repositories // PAGE)) + (repositories if refs == "api" else 0)
    by_git = GIT_REQUESTS * repositories if refs == "git" else 0
    return api / AUTHENTICATED_LIMIT + by_git / GIT_LIMIT


def known_workspaces(connection: sqlite3.Connection | None, upstream: UpstreamConfig) -> list[KnownWorkspace]:
    """Return the workspaces that an upstream's configuration names, else all that its mirror knows."""
    sizes = dict[str, tuple[str, int]]()
    found = connection and connection.execute("SELECT id FROM upstreams WHERE name = ?", (upstream.name,))
    row = found.fetchone() if found else None
    if connection is not None and row is not None:
        sizes = {name: (name, 0) for name in Cursors(connection, row[0]).workspace_names() if name[:1] != "{"}
        owned = connection.execute(
            """SELECT o.username, count(*) FROM repositories r JOIN users o ON o.id = r.owner_id
                WHERE r.upstream_id = ? AND r.deleted_at IS NULL AND o.username IS NOT NULL
                GROUP BY r.owner_id""",
            (row[0],),
        )
        sizes |= {name.lower(): (name, count) for name, count in owned}
    if upstream.workspaces is not None:
        sizes = {name.lower(): (name, sizes.get(name.lower(), ("", 0))[1]) for name in upstream.workspaces}
    return [
        KnownWorkspace(
            name=name,
            repositories=count,
            hours=hours_of(count, refs=upstream.refs, members=upstream.members),
        )
        for name, count in sizes.values()
    ]


def split(workspaces: Sequence[KnownWorkspace], mirrors: int) -> list[Share]:
    """Share out workspaces among mirrors of about equal load.

    Raises ConfigError for no mirror, and where there are fewer workspaces than mirrors.
    """
    if mirrors < 1:
        raise ConfigError(f"--mirrors {mirrors}: give at least 1")
    if len(workspaces) < mirrors:
        known = "1 workspace is" if len(workspaces) == 1 else f"{len(workspaces):,} workspaces are"
        remedy = "name all in `workspaces`, or run `mirror sync` first"
        raise ConfigError(f"--mirrors {mirrors}: only {known} known; {remedy}")
    # The largest first, always to the least load: at most a third worse than the best split.
    shares = [Share(workspaces=[]) for _ in range(mirrors)]
    loads = [(0.0, number) for number in range(mirrors)]
    for one in sorted(workspaces, key=lambda one: (-one.hours, one.name)):
        _, number = heapq.heappop(loads)
        share = shares[number]
        share.workspaces.append(one.name)
        share.repositories += one.repositories
        share.hours += one.hours
        heapq.heappush(loads, (share.hours, number))
    return shares


def configuration_of(
    config: Config, upstream: UpstreamConfig, share: Share, *, number: int, names_file: str | None
) -> str:
    """Return the configuration of one mirror: as the given one, but for its workspaces and its credential.

    `names_file` is where the workspaces are listed; None writes them into the configuration.
    """
    size = f"{len(share.workspaces):,} workspaces, {share.repositories:,} repositories"
    lines = [
        f"# Mirror {number}: {size}, {age_text(share.hours * 3600)} of requests for a first load",
        f'database = "mirror-{number}.db"',
        *_said(config, ("file_mode", "timezone", "export_schedule", "export_to", "export_public")),
        "",
        "[[upstream]]",
        f"name = {toml_text(upstream.name)}",
        f'credential = "env:BITBUCKET_TOKEN_{number}"',
        f"workspaces_from = {toml_text(names_file)}"
        if names_file
        else f"workspaces = {toml_text(share.workspaces)}",
        *_said(upstream, [name for name in upstream.__struct_fields__ if name not in _OWN]),
    ]
    return "\n".join(lines) + "\n"


_OWN = frozenset({"name", "credential", "webhook_secret", "workspaces", "workspaces_from"})
"""Settings that differ between the mirrors."""


def _said(struct: msgspec.Struct, names: Iterable[str]) -> Iterator[str]:
    """Yield the settings that are not as they are by default."""
    usual = {field.name: field.default for field in msgspec.structs.fields(struct)}
    for name in names:
        value = getattr(struct, name)
        if value != usual[name]:
            yield f"{name} = {toml_text(value)}"
