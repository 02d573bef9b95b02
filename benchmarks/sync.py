"""How long a first sync takes, compared with a bare loop that fetches the same URLs and discards them.

    python benchmarks/sync.py [--repositories 10000] [--concurrency 4] [--rounds 3]
    python benchmarks/sync.py --repositories 100000 --memory      (one sync, no loop: its peak)

The sandbox runs in a process of its own, and so does every sync and every loop; they take turns, so that
whatever else the machine does falls on both. Targets: ratio at most 1.3, peak under 150 MB.

The last lines tell what any sync has to spend, in times of the bare loop's CPU: such a loop that also decodes
the answers by msgspec, the same requests as a sync sends them, and bare inserts of the rows that the sync
wrote, into the same tables, in as many transactions. CPU is that of the work, without the start of Python.
"""

import argparse
import gc
import json
import queue
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from mirror.cli.main import collect_less_often
from mirror.config import Retry, UpstreamConfig
from mirror.credentials import Credential
from mirror.report import Reporter
from mirror.store import Store
from mirror.store.files import open_writer
from mirror.store.ledger import AHEAD, RequestLedger
from mirror.sync.crawl import Run, sync_upstream
from mirror.times import utc_now
from mirror.upstream.budget import Budget
from mirror.upstream.client import Http
from mirror.upstream.connect import connect

SERVE = """
import sys
from mirror.sandbox import Sandbox, World, serve
serve(Sandbox(World(int(sys.argv[1]))), port=0, announce=lambda origin: print(origin, flush=True))
"""


class Recorded(httpx.HTTPTransport):
    """Records every URL that is requested."""

    def __init__(self) -> None:
        super().__init__(verify=False)
        self.urls = list[str]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Record it and send the request."""
        self.urls.append(str(request.url))
        return super().handle_request(request)


def sync(origin: str, database: Path, threads: int, transport: Recorded | None = None) -> dict[str, Any]:
    """Sync once; return seconds, requests, rows."""
    config = UpstreamConfig(
        name="b", kind="sandbox", url=f"{origin}/2.0", concurrency=threads, credential="env:B"
    )
    began, work = time.perf_counter(), time.process_time()
    with Store(database) as store:
        upstream, budget = connect(
            config,
            ledger=RequestLedger(store, ahead=AHEAD),
            wait=lambda seconds, _: time.sleep(seconds),
            environ={"B": "sandbox"},
            transport=transport,
        )
        run = Run(
            config,
            upstream,
            budget,
            store,
            url=config.url,
            clock=utc_now,
            stop=threading.Event(),
            report=Reporter(),
        )
        summary = sync_upstream(run)
        budget.close()
        upstream.close()
    if summary.state != "complete":
        raise SystemExit(f"the sync is {summary.state}: {summary.error or summary.failures[:3]}")
    rows = summary.counts.repositories_new + summary.counts.refs_new
    seconds = time.perf_counter() - began
    work = time.process_time() - work
    return {"seconds": seconds, "requests": summary.counts.requests, "rows": rows, "work": work}


def loop(
    urls: list[str], threads: int, get: Callable[[str], object], close: Callable[[], None]
) -> dict[str, Any]:
    """Fetch every URL in several threads and discard the responses."""
    waiting = queue.SimpleQueue[str]()
    for url in urls:
        waiting.put(url)

    def work() -> None:
        while True:
            try:
                url = waiting.get_nowait()
            except queue.Empty:
                return
            get(url)

    began, spent = time.perf_counter(), time.process_time()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    close()
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    return {"seconds": seconds, "requests": len(urls), "work": spent}


def bare(urls: list[str], threads: int, *, decodes: bool) -> dict[str, Any]:
    """Fetch by a bare httpx client."""
    client = httpx.Client(limits=httpx.Limits(max_connections=threads))

    def get(url: str) -> None:
        answer = client.get(url, headers={"Authorization": "Bearer sandbox"})
        if decodes:
            msgspec.json.decode(answer.content)

    return loop(urls, threads, get, client.close)


def as_a_sync_asks(urls: list[str], threads: int, database: Path) -> dict[str, Any]:
    """Fetch as a sync does, budget included."""
    with Store(database) as store:
        budget = Budget(
            RequestLedger(store, ahead=AHEAD), bucket="b", default=None, wait=lambda *_: None, clock=utc_now
        )
        http = Http(
            url=urls[0],
            credential=Credential("bearer", "", "sandbox"),
            budget=budget,
            retry=Retry(),
            timeout=30,
            clock=utc_now,
        )
        done = loop(urls, threads, http.get, http.close)
        budget.close()
    return done


LISTED = ("upstreams", "users", "projects", "members", "repositories")
TOGETHER = 3
"""Repositories whose refs a sync commits at once."""


def inserts(source: Path, target: Path) -> dict[str, Any]:
    """Write the rows of one mirror into a new one by bare inserts, read beforehand."""
    tables = sqlite3.connect(source)
    target.unlink(missing_ok=True)  # of the round before
    with Store(target):
        pass

    def rows(table: str, condition: str = "") -> tuple[str, list[Any]]:
        found = tables.execute(f"SELECT * FROM {table} {condition}").fetchall()
        return f"INSERT INTO {table} VALUES ({', '.join('?' * len(found[0]))})" if found else "", found

    last = tables.execute("SELECT max(id) FROM repositories").fetchone()[0]
    batches = [[*map(rows, LISTED), rows("extras", "WHERE kind NOT IN ('branch', 'tag')")]]
    for first in range(1, last + 1, TOGETHER):
        ids = f"BETWEEN {first} AND {first + TOGETHER - 1}"
        refs = [rows(table, f"WHERE repository_id {ids}") for table in ("branches", "tags")]
        batches.append([*refs, rows("extras", f"WHERE kind IN ('branch', 'tag') AND row_id {ids}")])
    connection = open_writer(target)
    began, spent = time.perf_counter(), time.process_time()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA defer_foreign_keys = ON")  # forks may come before their parents
        for sql, found in batch:
            if found:
                connection.executemany(sql, found)
        connection.execute("COMMIT")
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    connection.close()
    return {"seconds": seconds, "requests": 0, "work": spent}


def child(what: str, *arguments: str) -> dict[str, Any]:
    """Run one of them in its own process."""
    ran = subprocess.run(
        [sys.executable, __file__, "--child", what, *arguments], check=True, capture_output=True, text=True
    )
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def be_child(what: str, origin: str, path: str, threads: str) -> None:
    """Do what the parent process requests, and print the result, the peak in MB and the seconds of CPU."""
    if what == "sync":
        gc.freeze()  # both as a command does
        collect_less_often()
        result = sync(origin, Path(path), int(threads))
    elif what == "record":
        recorded = Recorded()
        result = sync(origin, Path(path), int(threads), recorded)
        Path(path).with_suffix(".urls").write_text("\n".join(recorded.urls), "utf-8")
    elif what == "inserts":
        result = inserts(Path(path), Path(path).with_suffix(".inserts.db"))
    else:
        urls = Path(path).with_suffix(".urls").read_text("utf-8").split("\n")
        if what == "ask":
            result = as_a_sync_asks(urls, int(threads), Path(path).with_suffix(".asked.db"))
        else:
            result = bare(urls, int(threads), decodes=what == "decode")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(result | {"peak": used.ru_maxrss / 1024, "cpu": used.ru_utime + used.ru_stime}))


def compare(origin: str, folder: Path, threads: str, rounds: int) -> None:
    """Run syncs and loops in turns, and print their ratio."""
    first = str(folder / "first.db")
    child("record", origin, first, threads)
    ratios, cpu, work = list[float](), list[float](), list[float]()
    for number in range(rounds):
        synced = child("sync", origin, str(folder / f"{number}.db"), threads)
        looped = child("loop", origin, first, threads)
        ratios.append(synced["seconds"] / looped["seconds"])
        cpu.append(synced["cpu"] / looped["cpu"])
        work.append(synced["work"] / looped["work"])
        print(
            f"sync {synced['seconds']:6.1f} s, {synced['requests']:,} requests, "
            f"{synced['rows'] / synced['seconds']:8,.0f} rows/s, peak {synced['peak']:.0f} MB; "
            f"loop {looped['seconds']:6.1f} s, {looped['requests']:,} requests; "
            f"ratio {ratios[-1]:.2f}, of CPU {cpu[-1]:.2f} ({synced['cpu']:.1f} s), of work {work[-1]:.2f}"
        )
    medians = [statistics.median(each) for each in (ratios, cpu, work)]
    print("median ratio {:.2f}, of CPU {:.2f}, of work {:.2f}".format(*medians))
    print_floor(origin, first, threads, rounds)


def print_floor(origin: str, first: str, threads: str, rounds: int) -> None:
    """Print what any sync has to spend, in times of the bare loop's CPU, all in turn."""
    kinds = ("loop", "decode", "ask", "inserts")
    done = [{what: child(what, origin, first, threads)["work"] for what in kinds} for _ in range(rounds)]
    spent = {what: statistics.median(each[what] for each in done) for what in kinds}
    decoding, asking, writing = (spent[what] / spent["loop"] for what in kinds[1:])
    print(
        f"bare loop 1 ({spent['loop']:.2f} s of CPU), with decoding {decoding:.2f}, bare inserts "
        f"{writing:.2f}: {decoding + writing:.2f}; requests as a sync sends them {asking:.2f}, with that "
        f"decoding and these inserts {asking + decoding - 1 + writing:.2f}"
    )


def main() -> None:
    """Parse the arguments and measure."""
    if sys.argv[1:2] == ["--child"]:
        be_child(*sys.argv[2:6])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repositories", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="one sync, no loop")
    options = parser.parse_args()
    serving = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(options.repositories)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None  # noqa: S101 - it is a pipe
        origin = serving.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            if options.memory:
                done = child("sync", origin, f"{folder}/0.db", str(options.concurrency))
                print(
                    f"sync {done['seconds']:.1f} s, {done['requests']:,} requests, {done['rows']:,} rows, "
                    f"peak {done['peak']:.0f} MB"
                )
            else:
                compare(origin, Path(folder), str(options.concurrency), options.rounds)
    finally:
        serving.terminate()
        serving.wait()


if __name__ == "__main__":
    main()
