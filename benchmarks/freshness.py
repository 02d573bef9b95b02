"""How fresh a mirror is: adaptive watching compared with fixed intervals, with the same number of requests.

    python benchmarks/freshness.py [--repositories N ...] [--per-hour N] [--days N]

The workspaces are the sandbox's, or many small ones. Pushes are distributed over repositories by Zipf's
law, single ones or in sessions of work. The rules are the product's own (`mirror.background.freshness`),
with what a mirror can know: when each repository was last updated, as of the last watch run. A wait is the
time from a push to the run that finds it; a push that is never found counts as found at the end. There are
two kinds of fixed intervals, with the same number of requests, refs included: all workspaces in turn, by
the same listings; and all repositories one by one, as tools without such listings do. `best` is the limit
for single pushes if their true rates were known.
"""

import argparse
import math
import random
from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from mirror.background.freshness import WatchedWorkspace, due
from mirror.sandbox import World
from mirror.sandbox.model import TOKEN

TICK = 60.0
SHORTEST = 120.0
WARM_DAYS = 1
PUSHES_A_DAY = 0.05  # of a repository, on average
SESSION_PUSHES, SESSION_PAUSE = 6, 600.0


class Outcome(NamedTuple):
    """The requests an hour of one strategy, and how long changes waited for it, in minutes."""

    listings: float
    refs: float
    mean: float
    p95: float
    row_age: float


class History:
    """The pushes of some days to the repositories of some workspaces, in order."""

    def __init__(
        self,
        sizes: list[int],
        days: float,
        *,
        sessions: bool,
        pushes_a_day: float = PUSHES_A_DAY,
        seed: int = 1,
    ) -> None:
        self.sizes, self.seconds = sizes, (days + WARM_DAYS) * 86_400
        self.random = random.Random(seed)
        owners = [owner for owner, size in enumerate(sizes) for _ in range(size)]
        weights = [1 / rank for rank in range(1, len(owners) + 1)]
        self.random.shuffle(weights)
        self.weights = weights
        count = int(len(owners) * pushes_a_day * (days + WARM_DAYS))
        self.pushes = [list[tuple[float, int]]() for _ in sizes]
        for at, repository in sorted(self._drawn(count, sessions=sessions)):
            self.pushes[owners[repository]].append((at, repository))
        total = sum(weights)
        # The history has a past: a last push, by the rate of the repository.
        rates = [weight / total * count / self.seconds for weight in weights]
        self.before = [-self.random.expovariate(rate) for rate in rates]
        self.first = [0, *accumulate(sizes)]

    def _drawn(self, count: int, *, sessions: bool) -> Iterator[tuple[float, int]]:
        cumulated, of_all = list(accumulate(self.weights)), range(len(self.weights))
        draws = count // SESSION_PUSHES if sessions else count
        for repository in self.random.choices(of_all, cum_weights=cumulated, k=draws):
            at = self.random.uniform(0, self.seconds)
            yield at, repository
            while sessions and self.random.random() < 1 - 1 / SESSION_PUSHES:
                at += self.random.expovariate(1 / SESSION_PAUSE)
                if at >= self.seconds:
                    break
                yield at, repository


class Looking:
    """The state of watching a history: what was found when."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.updated = list(history.before)
        self.found = [0] * len(history.sizes)
        self.waits = list[float]()
        self.stale_seconds = 0.0
        self.listings = self.refs = 0

    def look(self, workspace: int, now: float) -> None:
        """List a workspace, and read the refs of each repository that was pushed to since."""
        pushes, place = self.history.pushes[workspace], self.found[workspace]
        stale_since = dict[int, float]()
        while place < len(pushes) and pushes[place][0] <= now:
            at, repository = pushes[place]
            stale_since.setdefault(repository, at)
            if at >= WARM_DAYS * 86_400:
                self.waits.append(now - at)
            self.updated[repository] = at
            place += 1
        self.found[workspace] = place
        if now >= WARM_DAYS * 86_400:
            self.listings += 1
            self.refs += len(stale_since)
            self.stale_seconds += sum(now - at for at in stale_since.values())

    def watched(self, workspace: int, now: float) -> WatchedWorkspace:
        """Return what the mirror knows of a workspace that it lists now."""
        first, last = self.history.first[workspace], self.history.first[workspace + 1]
        ages = array("d", (now - at for at in self.updated[first:last]))
        return WatchedWorkspace(name=str(workspace), listed=now, ages=ages)

    def outcome(self) -> Outcome:
        """Count what was never found as found at the end, and return the result."""
        hours = (self.history.seconds / 86_400 - WARM_DAYS) * 24
        listings, refs = self.listings / hours, self.refs / hours
        for workspace in range(len(self.history.sizes)):
            self.look(workspace, self.history.seconds)
        waits = sorted(self.waits)
        rows = self.stale_seconds / (hours * 3600 * sum(self.history.sizes))
        p95 = waits[int(0.95 * len(waits))]
        return Outcome(listings, refs, sum(waits) / len(waits) / 60, p95 / 60, rows * 100)


def adaptive(history: History, per_hour: float) -> Outcome:
    """Watch where changes are likely."""
    looking, now, room = Looking(history), 0.0, 0.0
    known = [
        looking.watched(workspace, -history.random.uniform(0, 3600))
        for workspace in range(len(history.sizes))
    ]
    while now < history.seconds:
        now, room = now + TICK, min(room + per_hour * TICK / 3600, per_hour)
        for name in due(known, now, shortest=SHORTEST, room=room):
            room -= 1
            workspace = int(name)
            looking.look(workspace, now)
            known[workspace] = looking.watched(workspace, now)
    return looking.outcome()


def fixed(history: History, per_hour: float) -> Outcome:
    """List all workspaces in turn."""
    looking, count = Looking(history), len(history.sizes)
    apart = max(count / per_hour * 3600, TICK)
    now, turn = 0.0, 0
    while now < history.seconds:
        looking.look(turn % count, now)
        turn += 1
        now += apart / count
    return looking.outcome()


def one_by_one(history: History, per_hour: float) -> tuple[float, float]:
    """Read the refs of all repositories in turn; return mean and 95th percentile of waits, in minutes."""
    cycle = sum(history.sizes) / per_hour * 3600
    waits = sorted(
        (repository / sum(history.sizes) * cycle - at) % cycle
        for pushes in history.pushes
        for at, repository in pushes
        if at >= WARM_DAYS * 86_400
    )
    return sum(waits) / len(waits) / 60, waits[int(0.95 * len(waits))] / 60


def sandbox_sizes(repositories: int) -> list[int]:
    """Return the number of repositories of each workspace of the sandbox."""
    world = World(repositories)
    sizes = [len(world.order(workspace, "created_on", TOKEN)) for workspace in world.workspaces]
    return [size for size in sizes if size]


def many_sizes(repositories: int) -> list[int]:
    """Distribute the repositories over a tenth as many owners, by Zipf's law."""
    weights = [1 / rank for rank in range(1, repositories // 10 + 1)]
    total = sum(weights)
    return [max(1, round(weight / total * repositories)) for weight in weights]


def best_possible(history: History) -> float:
    """Return how much fresher watching by known true rates is than listing in turn."""
    rates = [sum(history.weights[history.first[w] : history.first[w + 1]]) for w in range(len(history.sizes))]
    return len(rates) * sum(rates) / sum(math.sqrt(rate) for rate in rates) ** 2


def compared(sizes: list[int], *, per_hour: float, days: float, sessions: bool) -> str:
    """Compare both on one history, and print a line of the table."""
    history = History(sizes, days, sessions=sessions)
    ours = adaptive(history, min(per_hour, len(sizes) * 3600 / SHORTEST))
    theirs = fixed(history, ours.listings)
    # Earlier runs find pushes one by one and read refs more often, so the others may too.
    theirs = fixed(history, ours.listings + ours.refs - theirs.refs)
    naive = one_by_one(history, ours.listings + ours.refs)
    cells = (
        f"{sum(sizes):,}",
        f"{len(sizes):,}",
        "sessions" if sessions else "single",
        f"{ours.listings + ours.refs:.0f}",
        f"{naive[0]:.0f}, {naive[1]:.0f}",
        f"{theirs.mean:.1f}, {theirs.p95:.1f}",
        f"{ours.mean:.1f}, {ours.p95:.1f}",
        f"{naive[0] / ours.mean:.0f}, {naive[1] / ours.p95:.0f}",
        f"{theirs.mean / ours.mean:.1f}, {theirs.p95 / ours.p95:.1f}",
        "" if sessions else f"{best_possible(history):.1f}",
        f"{theirs.row_age:.3f} %, {ours.row_age:.3f} %",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repositories", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--per-hour", type=float, default=285.0, help="listings; the default of `watch`")
    parser.add_argument("--days", type=float, default=3.0)
    options = parser.parse_args()
    heads = (
        "repositories", "workspaces", "pushes", "requests an hour", "one by one", "in turn", "adaptive",
        "fresher than one by one", "fresher than in turn", "best", "rows out of date: in turn, adaptive",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print("| --- " * len(heads) + "|")
    for count in options.repositories:
        for sizes in (sandbox_sizes(count), many_sizes(count)):
            for sessions in (False, True):
                line = compared(sizes, per_hour=options.per_hour, days=options.days, sessions=sessions)
                print(line, flush=True)


if __name__ == "__main__":
    main()
