"""The comparison of `freshness.py` with the product itself: a sandbox, real syncs over HTTP, a manual clock.

    python benchmarks/freshness_sandbox.py [--repositories N] [--per-hour N] [--hours N] [--sessions]

Pushes are made in the sandbox at their times; the table `changes` of the mirror says when it had them. It is
slow, because each watch run is a run of its own.
"""

import argparse
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from freshness import TICK, WARM_DAYS, History, sandbox_sizes

from mirror.background.freshness import UpstreamWatch
from mirror.config import Config, Duration, UpstreamConfig
from mirror.operations import Control, SyncOptions, sync_all
from mirror.sandbox import Sandbox, World, running
from mirror.sandbox.model import TOKEN
from mirror.store.files import open_reader
from mirror.sync.crawl import Scope
from mirror.times import from_text

START = datetime(2026, 11, 23, tzinfo=UTC)
PAST_SECONDS = 60 * 86_400.0

Chooser = Callable[[datetime], list[str]]


class Clock:
    """A clock that is set by hand; no two readings are equal."""

    def __init__(self) -> None:
        self.moment = START - timedelta(seconds=PAST_SECONDS)

    def now(self) -> datetime:
        """Return the time."""
        self.moment += timedelta(microseconds=1)
        return self.moment


class Trial:
    """A sandbox, its mirror, and the pushes still to come."""

    def __init__(self, folder: Path, history: History, repositories: int) -> None:
        self.clock, self.history = Clock(), history
        self.world = World(repositories, now=self.clock.now)
        self.sandbox = Sandbox(self.world)
        orders = [self.world.order(workspace, "created_on", TOKEN) for workspace in self.world.workspaces]
        self.names = [[self._full_name(number) for number in order] for order in orders if len(order)]
        self.database = folder / "mirror.db"
        late = WARM_DAYS * 86_400
        owners = [owner for owner, size in enumerate(history.sizes) for _ in range(size)]
        before = [(at, repository, owners[repository]) for repository, at in enumerate(history.before)]
        pushes = [(*push, owner) for owner, some in enumerate(history.pushes) for push in some]
        every = sorted((at - late, repository, owner) for at, repository, owner in [*before, *pushes])
        for at, repository, owner in every:  # what the mirror can know at its start
            if -PAST_SECONDS < at < 0:
                self.clock.moment = max(self.clock.moment, START + timedelta(seconds=at))
                self.sandbox.do("push", self.names[owner][repository - history.first[owner]])
        self.clock.moment = START
        self.coming = [push for push in every if push[0] >= 0]
        self.pushed = list[tuple[datetime, str]]()

    def _full_name(self, number: int) -> str:
        row = self.world.get(number)
        assert row is not None  # noqa: S101 - every number of an order is a repository's
        return row.full_name

    def run(self, config: Config, hours: float, choose: Chooser) -> tuple[int, list[float]]:
        """Advance the time, watch what `choose` selects; return the requests and the waits in minutes."""
        sync_all(config, SyncOptions(), Control(clock=self.clock.now))
        first, until = self._requests(), hours * 3600
        ticks = 0.0
        while ticks < until:
            ticks += TICK
            self._push(ticks)
            self.clock.moment = START + timedelta(hours=1, seconds=ticks)
            names = choose(self.clock.moment)
            if names:
                options = SyncOptions(scope=Scope(due=names, leftovers=False, kind="watch"))
                sync_all(config, options, Control(clock=self.clock.now))
        return self._requests() - first, self._waits()

    def _push(self, until: float) -> None:
        while self.coming and self.coming[0][0] <= until:
            at, repository, owner = self.coming.pop(0)
            self.clock.moment = max(self.clock.moment, START + timedelta(hours=1, seconds=at))
            name = self.names[owner][repository - self.history.first[owner]]
            self.pushed.append((self.clock.now(), name))
            self.sandbox.do("push", name)

    def _requests(self) -> int:
        with closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute("SELECT sum(requests) FROM sync_runs").fetchone()[0])

    def _waits(self) -> list[float]:
        """Match pushes with the times at which the mirror saw refs move; the others wait to the end."""
        with closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute(
                """SELECT r.full_name, c.at FROM changes c JOIN repositories r ON r.id = c.repository_id
                   WHERE c.kind LIKE 'branch_%' ORDER BY c.id"""
            ).fetchall()
        seen = dict[str, list[datetime]]()
        for name, at in rows:
            seen.setdefault(name, []).append(from_text(at))
        waits = list[float]()
        for at, name in self.pushed:
            found = next((moment for moment in seen.get(name, ()) if moment >= at), self.clock.moment)
            waits.append((found - at).total_seconds() / 60)
        return sorted(waits)


def trial(
    repositories: int, per_hour: float, hours: float, *, pushes_a_day: float, sessions: bool, adaptive: bool
) -> tuple[int, list[float]]:
    """Run one strategy; return its requests, and the minutes that pushes waited."""
    history = History(sandbox_sizes(repositories), hours / 24, sessions=sessions, pushes_a_day=pushes_a_day)
    with tempfile.TemporaryDirectory() as folder:
        made = Trial(Path(folder), history, repositories)
        with running(made.sandbox) as served:
            secret = Path(folder, "token")
            secret.write_text("sandbox")
            upstream = UpstreamConfig(
                name="box",
                kind="sandbox",
                url=served.url,
                credential=f"file:{secret}",
                watch=1.0,
                watch_shortest=Duration(120),
                concurrency=1,
            )
            config = Config(database=str(made.database), upstreams=(upstream,))
            names = [workspace.slug.lower() for workspace in made.world.workspaces]
            watch, turns = UpstreamWatch(upstream), [0.0, 0.0]

            def by_rate(now: datetime) -> list[str]:
                with closing(open_reader(made.database)) as connection:
                    return watch.due(connection, now, round(per_hour))

            def in_turn(_: datetime) -> list[str]:
                turns[0] += per_hour * TICK / 3600
                count, turns[0] = int(turns[0]), turns[0] % 1
                start, turns[1] = int(turns[1]), turns[1] + count
                return [names[turn % len(names)] for turn in range(start, start + count)]

            return made.run(config, hours, by_rate if adaptive else in_turn)


def main() -> None:
    """Print both strategies, with the same number of requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repositories", type=int, default=1_000)
    parser.add_argument("--per-hour", type=float, default=40.0)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--pushes-a-day", type=float, default=1.0, help="of a repository, on average")
    parser.add_argument("--sessions", action="store_true")
    options = parser.parse_args()

    def tried(per_hour: float, *, adaptive: bool) -> tuple[int, list[float]]:
        return trial(
            options.repositories, per_hour, options.hours,
            pushes_a_day=options.pushes_a_day, sessions=options.sessions, adaptive=adaptive,
        )  # fmt: skip

    adaptive = tried(options.per_hour, adaptive=True)
    fixed = tried(options.per_hour, adaptive=False)
    fixed = tried(options.per_hour + (adaptive[0] - fixed[0]) / options.hours, adaptive=False)
    for name, (requests, waits) in (("fixed", fixed), ("adaptive", adaptive)):
        mean, p95 = sum(waits) / len(waits), waits[int(0.95 * len(waits))]
        print(
            f"{name}: {requests:,} requests, {len(waits):,} pushes waited {mean:.1f} min, p95 {p95:.1f} min"
        )


if __name__ == "__main__":
    main()
