"""Watch runs: between two whole syncs, list the workspaces where a change is likely.

The file has the times when each workspace was listed and its repositories were updated. Nothing else is
saved, so a restart loses nothing. `docs/freshness.md` explains the method.
"""

import math
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from mirror.background.jobs import LastRun, Work, last_done, next_run, scheduled_work
from mirror.background.triggers import next_time
from mirror.config import Config, UpstreamConfig
from mirror.store.crawl_state import WorkspaceState
from mirror.store.cursors import Cursors
from mirror.store.files import read_if_possible
from mirror.store.ledger import reported_limits
from mirror.store.rows import fetch, fetch_value
from mirror.sync.listing_state import as_of
from mirror.times import Clock, from_text, to_text
from mirror.upstream.connect import accounts_by_upstream

GRACE = 900.0  # seconds added to each age, so that a recent change does not count as a burst


class WatchedWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace: when it was last listed, the ages of its repositories then, and the cost of a listing.

    `listed` is in seconds since 1970. An age is how many seconds earlier a repository was last changed. The
    cost is in requests.
    """

    name: str
    listed: float
    ages: Sequence[float]
    cost: float = 1.0


def pressure(ages: Iterable[float], since: float) -> float:
    """Return how useful a listing is now, `since` seconds after the last one."""
    # If a repository was changed a seconds before a listing, and nothing is known of its rate, ln(1 + s/a)
    # changes are expected in the s seconds after it. Listings are distributed best if s times the expected
    # number of waiting changes, minus its integral, is equal for all workspaces. This is that number.
    return sum(since - known * math.log1p(since / known) for known in (max(0.0, age) + GRACE for age in ages))


def due(watched: Sequence[WatchedWorkspace], now: float, *, shortest: float, room: float) -> list[str]:
    """Return the names of the workspaces to list now, most pressing first.

    `room` is the number of requests that they may cost together. Workspaces that were listed less than
    `shortest` seconds ago are left out.
    """
    if room < min((one.cost for one in watched), default=room):
        return []
    ripe = [one for one in watched if now - one.listed >= shortest]
    pressing = sorted(ripe, key=lambda one: (-pressure(one.ages, now - one.listed) / one.cost, one.name))
    chosen = list[str]()
    for one in pressing:
        if one.cost > room:
            break
        room -= one.cost
        chosen.append(one.name)
    return chosen


PAGE = 100  # repositories of a page of a listing
UNLIMITED = 950  # the assumed requests per hour of an upstream without a limit

WHOLE_EVERY = 86_400.0  # the most seconds between whole syncs, regardless of the number of workspaces

UNTOLD = 30 * 86_400.0  # the assumed age of a last change that the upstream does not report, in seconds


_OF_WORKSPACE = """FROM repositories WHERE deleted_at IS NULL AND owner_id =
    (SELECT o.id FROM users o JOIN upstreams u ON u.id = o.upstream_id WHERE u.name = ? AND o.uuid = ?)"""


class UpstreamWatch:
    """The watch runs of one upstream: what they have spent, and which workspaces are due."""

    def __init__(self, upstream: UpstreamConfig) -> None:
        self.upstream = upstream
        self._known = dict[str, tuple[str, WatchedWorkspace]]()
        self._room, self._filled = 0.0, 0.0

    def due(self, connection: sqlite3.Connection, now: datetime, limit: int | None) -> list[str]:
        """Return the workspaces to list now, within this upstream's share of `limit` requests an hour."""
        per_hour, moment = self.upstream.watch * (limit or UNLIMITED), now.timestamp()
        if per_hour <= 0:
            return []
        failing = self._failing(connection, to_text(now))
        watched = [one for one in self._watched(connection, now) if one.name not in failing]
        # Unused requests are kept for at most an hour, like in the upstream's own count.
        earned = (moment - self._filled) * per_hour / 3600 if self._filled else 1.0
        self._room, self._filled = min(self._room + max(0.0, earned), per_hour), moment
        chosen = due(watched, moment, shortest=self.upstream.watch_shortest, room=self._room)
        costs = {one.name: one.cost for one in watched}
        self._room -= sum(costs[name] for name in chosen)
        return chosen

    def replaces(
        self,
        connection: sqlite3.Connection,
        last: datetime | None,
        now: datetime,
        *,
        period: float,
        limit: int | None,
    ) -> bool:
        """Return whether watch runs are better than a whole sync that is due every `period` seconds.

        They are if the budget does not allow listing all workspaces that often, and each has been listed
        once. A day after the last whole sync, which began at `last`, the next one is due in any case.
        """
        if self.upstream.watch <= 0 or last is None or (now - last).total_seconds() >= WHOLE_EVERY:
            return False
        listed = dict(self._listed(connection, now))
        if any(name.lower() not in listed for name in self.upstream.workspaces or ()):
            return False
        cost = sum(self._cost(connection, state) for state in listed.values())
        return cost * 3600 / period > (limit or UNLIMITED) / 2

    def _failing(self, connection: sqlite3.Connection, now: str) -> set[str]:
        """Return the workspaces that failed and wait for their next try; watch runs skip them."""
        found = fetch(
            connection,
            """SELECT lower(f.subject) FROM sync_failures f JOIN upstreams u ON u.id = f.upstream_id
               WHERE u.name = ? AND f.kind = 'workspace' AND f.next_try_at > ? AND f.last_at <= ?""",
            (self.upstream.name, now, now),
        )
        return {name for (name,) in found}

    def _listed(self, connection: sqlite3.Connection, now: datetime) -> Iterator[tuple[str, WorkspaceState]]:
        """Yield the workspaces that have been listed in full; whole syncs list the others."""
        upstream_id = fetch_value(
            connection, "SELECT id FROM upstreams WHERE name = ?", (self.upstream.name,)
        )
        for name, saved in Cursors(connection, upstream_id).workspaces() if upstream_id else ():
            state = as_of(saved, now, self.upstream.overlap)  # one from the future counts as not listed
            if state.cursor is not None and state.moved_at is not None:
                yield name, state

    def _watched(self, connection: sqlite3.Connection, now: datetime) -> list[WatchedWorkspace]:
        """Return these workspaces with what says how pressing they are."""
        found = list[WatchedWorkspace]()
        for name, state in self._listed(connection, now):
            # Kept until the next listing: measuring reads all repositories of the workspace.
            moved_at, watched = self._known.get(name, (None, None))
            if watched is None or moved_at != state.moved_at:
                watched = self._measure(connection, name, state)
                self._known[name] = (str(state.moved_at), watched)
            found.append(watched)
        return found

    def _cost(self, connection: sqlite3.Connection, state: WorkspaceState) -> float:
        """Return how many requests a listing takes."""
        if self.upstream.kind in ("cloud", "sandbox"):  # incremental
            return 1.0
        count: int = fetch_value(
            connection, f"SELECT count(*) {_OF_WORKSPACE}", self._values_of_workspace(state)
        )
        return max(1.0, count / PAGE)

    def _values_of_workspace(self, state: WorkspaceState) -> tuple[str, str | None]:
        return self.upstream.name, state.owner_uuid

    def _measure(self, connection: sqlite3.Connection, name: str, state: WorkspaceState) -> WatchedWorkspace:
        updates = fetch(connection, f"SELECT updated_at {_OF_WORKSPACE}", self._values_of_workspace(state))
        listed = from_text(state.moved_at or "").timestamp()
        ages = array("d", (listed - from_text(at).timestamp() if at else UNTOLD for (at,) in updates))
        cost = self._cost(connection, state)
        return WatchedWorkspace(name=name, listed=listed, ages=ages or array("d", [UNTOLD]), cost=cost)


class Watches:
    """The watch runs of all upstreams of a configuration."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config, self._clock, self._path = config, clock, Path(config.database)
        self._watches = {upstream.name: UpstreamWatch(upstream) for upstream in config.upstreams}

    def due(self, upstream: UpstreamConfig) -> list[str]:
        """Return the workspaces of an upstream to list now; none if the file cannot be read."""
        watch, now = self._watches.get(upstream.name), self._clock()
        if watch is None:
            return []
        due_in = watch.due
        return read_if_possible(self._path, lambda file: due_in(file, now, self._limit(file, upstream))) or []

    def replaces(self, work: Work) -> bool:
        """Return whether watch runs are better than a whole sync that is due."""

        def replaces(connection: sqlite3.Connection) -> bool:
            return self._replaces(connection, work, last_done(connection, work, self._clock()))

        return bool(read_if_possible(self._path, replaces))

    def next_runs(self, connection: sqlite3.Connection, upstream: str) -> dict[str, str]:
        """Map each kind of scheduled work of an upstream to when a service will begin it."""
        found, now = dict[str, str](), self._clock()
        for work in scheduled_work(self._config):
            if work.upstream.name != upstream:
                continue
            last, until = last_done(connection, work, now), None
            if last.began and work.kind == "sync" and self._replaces(connection, work, last):
                until = last.began + timedelta(seconds=WHOLE_EVERY)
            due = next_run(work, last, zone=self._config.timezone, now=now, not_before=until)
            if due is not None:
                found[work.kind] = to_text(due)
        return found

    def _replaces(self, connection: sqlite3.Connection, work: Work, last: LastRun) -> bool:
        now, zone = self._clock(), self._config.timezone
        first = next_time(work.schedule, zone=zone, after=now)
        second = first and next_time(work.schedule, zone=zone, after=first)
        if not last.ended or first is None or second is None:
            return False
        return self._watches[work.upstream.name].replaces(
            connection,
            last.began,
            now,
            period=(second - first).total_seconds(),
            limit=self._limit(connection, work.upstream),
        )

    def _limit(self, connection: sqlite3.Connection, upstream: UpstreamConfig) -> int | None:
        accounts = accounts_by_upstream(self._config, reported_limits(connection))
        return accounts.get(upstream.name, ("", None))[1]
