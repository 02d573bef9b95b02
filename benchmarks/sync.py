"""How long a first sync takes, compared with a bare loop that fetches the same URLs and discards them.

    python benchmarks/sync.py [--repositories 10000] [--concurrency 4] [--rounds 3]
    python benchmarks/sync.py --repositories 100000 --memory      (one sync, no loop: its peak)

The sandbox runs in a process of its own, and so does every sync and every loop; they take turns, so that
whatever else the machine does falls on both. Targets: ratio at most 1.5, peak under 150 MB.
"""

import argparse
import json
import queue
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from mirror.config import UpstreamConfig
from mirror.report import Reporter
from mirror.store import Store
from mirror.store.ledger import AHEAD, RequestLedger
from mirror.sync.crawl import Run, sync_upstream
from mirror.times import utc_now
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
    began = time.perf_counter()
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
    return {"seconds": seconds, "requests": summary.counts.requests, "rows": rows}


def loop(urls: list[str], threads: int) -> dict[str, Any]:
    """Fetch every URL and discard the responses."""
    waiting = queue.SimpleQueue[str]()
    for url in urls:
        waiting.put(url)

    def work() -> None:
        while True:
            try:
                url = waiting.get_nowait()
            except queue.Empty:
                return
            client.get(url, headers={"Authorization": "Bearer sandbox"})

    began = time.perf_counter()
    with httpx.Client(limits=httpx.Limits(max_connections=threads)) as client:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return {"seconds": time.perf_counter() - began, "requests": len(urls)}


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
        result = sync(origin, Path(path), int(threads))
    elif what == "record":
        recorded = Recorded()
        result = sync(origin, Path(path), int(threads), recorded)
        Path(path).with_suffix(".urls").write_text("\n".join(recorded.urls), "utf-8")
    else:
        result = loop(Path(path).read_text("utf-8").split("\n"), int(threads))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(result | {"peak": used.ru_maxrss / 1024, "cpu": used.ru_utime + used.ru_stime}))


def compare(origin: str, folder: Path, threads: str, rounds: int) -> None:
    """Run syncs and loops in turns, and print their ratio."""
    child("record", origin, str(folder / "first.db"), threads)
    ratios, cpu = list[float](), list[float]()
    for number in range(rounds):
        synced = child("sync", origin, str(folder / f"{number}.db"), threads)
        looped = child("loop", origin, str(folder / "first.urls"), threads)
        ratios.append(synced["seconds"] / looped["seconds"])
        cpu.append(synced["cpu"] / looped["cpu"])
        print(
            f"sync {synced['seconds']:6.1f} s, {synced['requests']:,} requests, "
            f"{synced['rows'] / synced['seconds']:8,.0f} rows/s, peak {synced['peak']:.0f} MB; "
            f"loop {looped['seconds']:6.1f} s, {looped['requests']:,} requests; "
            f"ratio {ratios[-1]:.2f}, of CPU {cpu[-1]:.2f} ({synced['cpu']:.1f} s)"
        )
    print(f"median ratio {statistics.median(ratios):.2f}, of CPU {statistics.median(cpu):.2f}")


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
