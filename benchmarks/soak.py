"""Soak test: everything at once for a long time, to show that the mirror stays stable and ends up right.

    python benchmarks/soak.py [--minutes 20] [--repositories 1000] [--seed 1] [--pause 0.05]
        [--folder DIR]

A real `mirror run` syncs a sandbox where people edit, responses fail and the server goes down. Meanwhile
webhooks arrive (some lost, late, repeated or forged), readers read, `mirror sync` runs beside it as by
cron, and both are killed. For the first two fifths of the time the service is killed, stopped and started
again. Then one process stays, and its memory and descriptors are compared: the second quarter of its life,
after a quarter of warm-up, with the last. In the end all trouble stops, and the mirror is compared with the
sandbox, row by row and field by field. Exits with 1 if anything is wrong.
"""

import argparse
import contextlib
import json
import random
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from sandbox_comparison import differences
from soak_hooks import Courier
from soak_readers import Readers
from soak_service import Sample, Service
from soak_world import Hostile

from mirror.store import Store, tokens

READERS = 4
EDIT_PAUSE = 0.3
TROUBLED_SHARE = 0.4
LONGEST_SETTLING = 180.0
SHORTEST_JUDGED = 240.0
"""How long, in seconds, the last process must have lived for its growth to be judged."""
MOST_GROWTH = 0.10
MOST_SECONDS_TO_END = 3.0


class Soak:
    """One soak test: its parts, and the threads that use them."""

    def __init__(self, folder: Path, repositories: int, seed: int, pause: float) -> None:
        ports = free_ports(2)
        self.random = random.Random(seed)
        self.service = Service(folder, f"http://127.0.0.1:{ports[0]}/2.0", ports[1])
        self.courier = Courier(self.service, seed)
        self.hostile = Hostile(repositories, ports[0], seed, self.courier.take)
        self.by_cron = Counter[int]()
        self.pause = pause
        self.path = folder / "data/mirror.db"

    def run(self, seconds: float) -> tuple[Readers, list[str], float]:
        """Run the test; return the readers, the differences in the end, and the seconds it took to settle."""
        self.hostile.open()
        if self.service.run("sync") != 0:
            raise SystemExit("the first sync did not come to its end")
        token = self._token()
        readers = Readers(self.service, token, self.hostile.still, 1, self.pause)
        self.service.start()
        with working(*(lambda stop, n=n: readers.work(n, stop) for n in range(READERS)), self._watch):
            with working(self.courier.work), working(self._edit, self._fail, self._cron):
                began = time.monotonic()
                self._trouble(began + seconds * TROUBLED_SHARE)
                while time.monotonic() < began + seconds:
                    time.sleep(1)
            self.hostile.relent()
            settled = time.monotonic()
            found = self._settle()
            settled = time.monotonic() - settled
        if self.service.run("verify", "--sample", "0") != 0:
            self.service.problems.append("mirror verify: the file or its search index is not whole")
        self.service.stop()
        self.hostile.close()
        return readers, found, settled

    def _token(self) -> str:
        with Store(self.path) as store:
            return tokens.create(store, "soak", "read")

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(2):
            self.service.sample()

    def _edit(self, stop: threading.Event) -> None:
        while not stop.wait(self.random.expovariate(1 / EDIT_PAUSE)):
            self.hostile.edit()

    def _fail(self, stop: threading.Event) -> None:
        """Make responses fail, sometimes clear the faults, sometimes go down for some seconds."""
        pick = random.Random(2)
        while not stop.wait(pick.uniform(0.5, 3)):
            self.hostile.fault()
            if pick.random() < 0.05:
                self.hostile.relent()
            if pick.random() < 0.03:
                self.hostile.restart(pick.uniform(1, 8))

    def _cron(self, stop: threading.Event) -> None:
        """Sync beside the service; every third time the process is killed."""
        pick = random.Random(3)
        while not stop.wait(pick.uniform(8, 20)):
            kill_after = pick.uniform(0.3, 4) if pick.random() < 0.33 else None
            code = self.service.run("sync", "--no-wait", kill_after=kill_after)
            self.by_cron[code] += 1
            if code not in {0, 1, 3, 4, -9}:
                self.service.problems.append(f"mirror sync ended with {code}")

    def _trouble(self, until: float) -> None:
        """Kill, stop and reload the service until a time."""
        pick = random.Random(4)
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, pick.uniform(5, 40)))
            pick.choice([self.service.kill, self.service.kill, self.service.restart, self.service.reload])()

    def _settle(self) -> list[str]:
        """Wait until the mirror is right, for some minutes at most; return the differences that remain."""
        until = time.monotonic() + LONGEST_SETTLING
        while True:
            self._hasten()
            found = self._differences()
            if not found or time.monotonic() > until:
                return found
            time.sleep(3)

    def _hasten(self) -> None:
        """Skip the hours until failures are tried again, and confirm absence as an operator would."""
        with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            connection.execute("UPDATE sync_failures SET next_try_at = '2000-01-01T00:00:00.000000Z'")
            braked = connection.execute("SELECT 1 FROM sync_failures WHERE kind = 'absence'").fetchall()
        if braked:
            self.by_cron[self.service.run("sync", "--no-wait", "--confirm-absence")] += 1

    def _differences(self) -> list[str]:
        origin = self.hostile.url.removesuffix("/2.0")
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.execute("BEGIN")

            def rows(sql: str) -> list[Any]:
                return connection.execute(sql).fetchall()

            sandbox = self.hostile.sandbox
            return list(differences(rows, sandbox, sandbox.workspaces(), origin=origin))


@contextmanager
def working(*works: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run some work in threads while the block runs; raise what one of them raises."""
    stop, raised = threading.Event(), list[BaseException]()

    def safely(work: Callable[[threading.Event], None]) -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            raised.append(error)

    threads = [threading.Thread(target=safely, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if raised:
        raise raised[0]


def free_ports(number: int) -> list[int]:
    """Return ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def growth(life: Sequence[Sample], what: Callable[[Sample], float]) -> tuple[float, float, float]:
    """Return what a process held early and late, and the relative growth."""
    quarter = max(1, len(life) // 4)
    early, late = median(map(what, life[quarter : 2 * quarter])), median(map(what, life[-quarter:]))
    return early, late, late / early - 1


def tracebacks(log: Path) -> list[str]:
    """Return the errors that the service logged, without those of upstreams."""
    found = list[str]()
    for line in log.read_text("utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(f"log: {line[:200]}")
            continue
        if "exception" in entry:
            found.append(f"log: {entry['message'][:200]}: {entry['exception'].splitlines()[-1]}")
    return found


def quantiles(seconds: Sequence[float]) -> str:
    """Return the percentiles of response times in milliseconds, as text."""
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 for share in (0.5, 0.95, 0.99)]
    return f"{len(ordered):>7,} {at[0]:>8.1f} {at[1]:>8.1f} {at[2]:>8.1f} {ordered[-1] * 1000:>8.0f}"


def report(soak: Soak, readers: Readers, found: list[str], settled: float) -> list[str]:
    """Print the figures; return what is wrong."""
    service, courier, hostile = soak.service, soak.courier, soak.hostile
    problems = [*service.problems, *readers.problems, *courier.problems, *found]
    problems += tracebacks(service.folder / "mirror.log")
    problems += [f"sandbox: {error}" for error in hostile.sandbox.state()["errors"]]
    state = hostile.sandbox.state()
    print(f"edits {hostile.edits:,}, restarts of the sandbox {hostile.restarts:,}")
    print(f"faults {hostile.faults:,}, which struck {hostile.struck:,} requests")
    print(f"requests of the mirror {state['total']:,}, answered {state['by_status']}")
    print(f"lives of the service {len(service.lives):,}; syncs beside it, by exit code {dict(soak.by_cron)}")
    print(f"webhooks {dict(sorted(courier.outcomes.items()))}")
    print(f"reads without an answer because the service was down: {readers.restarts:,}")
    print(f"{'':<12} {'reads':>7} {'p50 ms':>8} {'p95':>8} {'p99':>8} {'longest':>8}")
    for kind, seconds in sorted({**readers.latencies, "webhook": courier.latencies}.items()):
        if seconds:
            print(f"{kind:<12} {quantiles(seconds)}")
    problems += judged(service)
    print(f"settled after {settled:.0f} s; {len(found):,} differences")
    return problems


def judged(service: Service) -> list[str]:
    """Print what the last process held and how fast processes ended; return what exceeds a limit."""
    life, problems = service.lives[-1], list[str]()
    seconds = life[-1].at - life[0].at if life else 0.0
    slowest = max(service.ends, default=0.0)
    print(f"SIGTERM to the end: {slowest:.1f} s at most, {len(service.ends)} times")
    if seconds < SHORTEST_JUDGED:
        print(f"the last process lived {seconds:.0f} s: too short a time to judge growth and endings by")
        return []
    early, late, more = growth(life, lambda sample: sample.resident)
    print(
        f"a life of {seconds:.0f} s; with the file mapped {early:.0f} MB early, {late:.0f} late: {more:+.1%}"
    )
    for name, what in (
        ("memory in MB", lambda sample: sample.memory),
        ("descriptors", lambda sample: sample.descriptors),
        ("threads", lambda sample: sample.threads),
    ):
        early, late, more = growth(life, what)
        print(f"{name}: {early:.0f} early, {late:.0f} late: {more:+.1%}")
        problems += [f"{name} grew by {more:.1%}"] if more > MOST_GROWTH else []
    return problems + (["it did not end within 3 seconds"] if slowest > MOST_SECONDS_TO_END else [])


def main() -> None:
    """Run the test and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--repositories", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between the requests of a reader")
    parser.add_argument("--folder", type=Path, help="an empty one, kept; default: a temporary one")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        soak = Soak(folder, options.repositories, options.seed, options.pause)
        problems = report(soak, *soak.run(options.minutes * 60))
    for problem in problems[:50]:
        print(f"NOT AS IT SHOULD BE: {' '.join(problem.split())[:300]}")
    print(f"{len(problems):,} problems" if problems else "it held")
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
