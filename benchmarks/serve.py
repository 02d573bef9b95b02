"""How fast a mirror answers both APIs while a sync writes; API 1.0 beside Datasette's JSON of the same rows.

    python benchmarks/serve.py --repositories 100000 --seconds 5
    python benchmarks/serve.py --repositories 100000 --workers 2

Fills a mirror, serves it by `mirror serve`, lets another process save pages into it, and loads it with `wrk`
if that is installed, otherwise with an asyncio client. Both sides of a pair are measured in turns in the same
run; medians over the turns are printed. `--workers` compares that many processes with one instead.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fixtures_db import FixtureDb, fill_many, repository

Load = Callable[[str, list[str], int, float], "Measured"]
SAMPLE = 400
PAGE_EVERY = 0.1


class Measured(NamedTuple):
    """Requests per second, latencies in milliseconds, milliseconds of the server's CPU for each answer."""

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


class Server(NamedTuple):
    """A running server."""

    address: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU that it and its workers have used; 0 where the system does not tell."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            stats = [
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in (self.pid, *children)
            ]
        except OSError:
            return 0.0
        return sum(int(one) for stat in stats for one in stat.split()[11:13]) / os.sysconf("SC_CLK_TCK")

    def loaded(self, load: Load, paths: list[str], clients: int, seconds: float) -> Measured:
        """Load it for some seconds."""
        before = self.cpu_seconds()
        found = load(self.address, paths, clients, seconds)
        return found._replace(cpu=1000 * (self.cpu_seconds() - before) / max(1.0, found.rate * seconds))


class Pair(NamedTuple):
    """The same rows requested in two ways."""

    name: str
    ours: list[str]
    datasettes: list[str]


def pairs(count: int) -> list[Pair]:
    """Return the requests: the same sample of rows for both sides."""
    rng = random.Random(7)
    numbers = [rng.randrange(count) for _ in range(SAMPLE)]
    owners = max(1, count // 20)
    names = [(f"owner{n % owners}", f"project-{n}") for n in numbers]
    table = "/mirror/repositories.json?_shape=objects&_nofacet=1&_nosuggest=1&_nocount=1"
    return [
        Pair(
            "single repository",
            [f"/1.0/repositories/{owner}/{slug}" for owner, slug in names],
            [f"{table}&id={n + 1}" for n in numbers],
        ),
        Pair(
            "tags",
            [f"/1.0/repositories/{owner}/{slug}/tags" for owner, slug in names],
            [
                f"/mirror/tags.json?_shape=objects&_nofacet=1&_nosuggest=1&_nocount=1&repository_id={n + 1}"
                for n in numbers
            ],
        ),
        Pair(
            "search",
            [f"/1.0/repositories/?name={slug}&limit=20" for _, slug in names],
            [f"{table}&_size=20&name__contains={slug}" for _, slug in names],
        ),
    ]


def listings(address: str, count: int) -> dict[str, list[str]]:
    """Return the requests to API 2.0: single repositories, first pages and deep pages."""
    single = [path.replace("/1.0/", "/2.0/") for path in pairs(count)[0].ours]
    first = "/2.0/repositories?pagelen=100"
    deep = list[str]()
    for share in (0.3, 0.6, 0.9, 0.99):
        with urlopen(f"{address}{first}&page={int(count * share / 100)}") as answer:  # noqa: S310 - our own
            deep.append(json.load(answer)["next"].removeprefix(address))
    owners = max(1, count // 20)
    return {
        "single repository": single,
        "first 100": [first],
        "a deep 100": deep,
        "100, names alone": [f"{first}&fields=next,values.full_name"],
        "an owner's 20": [f"/2.0/repositories/owner{n % owners}?pagelen=100" for n in range(SAMPLE)],
        "search": [
            f"{first.replace('100', '20')}&q=full_name=%22owner{n}/project-{n}%22" for n in range(owners)
        ],
    }


def _write(path: str) -> None:
    """Save a page of 100 repositories again and again, as a sync does but much faster."""
    filled = FixtureDb(Path(path))
    page = 0
    while True:
        rows = [repository(f"writer/page-{page}-{number}") for number in range(100)]
        filled.repositories(rows)
        page += 1
        time.sleep(PAGE_EVERY)


@contextmanager
def running(path: Path, *, workers: int = 1) -> Iterator[Server]:
    """Serve the file as `mirror serve` does."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(f"database = {json.dumps(str(path.resolve()))}\n")
        config.flush()
        command = [sys.executable, "-m", "mirror", "--config", config.name, "serve", "--port", "0"]
        command += ["--workers", str(workers)] if workers > 1 else []
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = re.findall(r"http://\S+", server.stdout.readline())[0]  # type: ignore[union-attr]
            yield Server(address, server.pid)
        finally:
            server.terminate()
            server.wait()


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Write into the file, in a process of its own."""
    writer = multiprocessing.get_context("spawn").Process(target=_write, args=(str(path),))
    writer.start()
    try:
        yield
    finally:
        writer.terminate()
        writer.join()


def by_wrk(program: str, address: str, paths: list[str], clients: int, seconds: float) -> Measured:
    """Load with wrk, which cycles through the paths."""
    listed = ",".join(json.dumps(path) for path in paths)
    script = (
        f"local paths = {{{listed}}}\nlocal n = 0\n"
        "request = function()\n n = n % #paths + 1\n return wrk.format('GET', paths[n])\nend\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        said = subprocess.run(
            [
                program,
                "-t1",
                f"-c{clients}",
                f"-d{max(1, round(seconds))}s",
                "--latency",
                "--timeout",
                "30s",
                "-s",
                lua.name,
                address,
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    if "Non-2xx" in said:
        raise SystemExit(f"{paths[0]} and its like were not answered:\n{said}")
    return Measured(
        float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]),
        *(_milliseconds(re.findall(rf"{share}%\s+([\d.]+\w+)", said)[0]) for share in (50, 99)),
    )


def _milliseconds(text: str) -> float:
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]


def by_asyncio(address: str, paths: list[str], clients: int, seconds: float) -> Measured:
    """Load with plain sockets and kept-alive connections, one request at a time on each."""
    latencies = list[float]()
    host, port = urlsplit(address).hostname, urlsplit(address).port

    async def client(number: int, until: float) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        turn = number * 37
        while time.perf_counter() < until:
            path = paths[turn % len(paths)]
            turn += 1
            start = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            await _read_answer(reader, path)
            latencies.append(time.perf_counter() - start)
        writer.close()
        await writer.wait_closed()

    async def load() -> float:
        start = time.perf_counter()
        await asyncio.gather(*(client(number, start + seconds) for number in range(clients)))
        return time.perf_counter() - start

    took = asyncio.run(load())
    cuts = statistics.quantiles(latencies, n=100)
    return Measured(len(latencies) / took, cuts[49] * 1000, cuts[98] * 1000)


async def _read_answer(reader: asyncio.StreamReader, path: str) -> None:
    """Read one response, of known length or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{path}: {head.decode('latin-1').splitlines()[0]}")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if found:
        await reader.readexactly(int(found[1]))
        return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quiet-file", action="store_true", help="measure without a sync that writes")
    parser.add_argument("--workers", type=int, help="compare as many processes with one")
    parser.add_argument("--database", type=Path, help="a file to fill once and use again")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.database or Path(folder) / "mirror.db"
        if not path.exists():
            fill_many(path, asked.repositories).store.close()
        if path.stem != "mirror":
            parser.error("the file must be called mirror.db: Datasette's addresses begin with its name")
        wrk = shutil.which("wrk")
        load: Load = by_asyncio if wrk is None else lambda *a: by_wrk(wrk, *a)
        print(
            f"{asked.repositories:,} repositories, {asked.clients} clients by {'wrk' if wrk else 'asyncio'}, "
            f"{asked.turns} turns of {asked.seconds:g} s, "
            f"{'at rest' if asked.quiet_file else 'while a sync writes'}"
        )
        with nullcontext() if asked.quiet_file else written(path), running(path) as server:
            if asked.workers:
                with running(path, workers=asked.workers) as other:
                    report_workers(server, other, load, asked)
                return
            report(server, pairs(asked.repositories), load, asked)
            report_listings(server, listings(server.address, asked.repositories), load, asked)


def report_workers(one: Server, several: Server, load: Load, asked: argparse.Namespace) -> None:
    """Measure one process and several in turns; print how many times the answers these give."""
    single, _, search = pairs(asked.repositories)
    paths = {
        "search page": [f"/-/search.json?q={path.partition('name=')[2]}" for path in search.ours],
        "API 1.0, search": search.ours,
        "API 1.0, single": single.ours,
        "API 2.0, single": [path.replace("/1.0/", "/2.0/") for path in single.ours],
        "API 2.0, first 100": ["/2.0/repositories?pagelen=100"],
    }
    print(f"{'':20}{'1 process':>12}{f'{asked.workers} processes':>14}{'times':>8}{'CPU':>10}{'CPU':>8}")
    for name, asked_for in paths.items():
        for server in (one, several):  # warm up
            server.loaded(load, asked_for, asked.clients, 1)
        alone, together = in_turns(
            [[server.loaded(load, asked_for, asked.clients, asked.seconds) for server in (one, several)]
             for _ in range(asked.turns)]
        )  # fmt: skip
        print(
            f"{name:20}{alone.rate:10.0f}/s{together.rate:12.0f}/s{together.rate / alone.rate:8.2f}"
            f"{alone.cpu:8.2f}ms{together.cpu:6.2f}ms",
            flush=True,
        )


def in_turns(turns: list[list[Measured]]) -> list[Measured]:
    """Return the medians of each side over all turns."""
    return [
        Measured(*(statistics.median(values) for values in zip(*side, strict=True)))
        for side in zip(*turns, strict=True)
    ]


def report_listings(
    server: Server, asked_for: dict[str, list[str]], load: Load, asked: argparse.Namespace
) -> None:
    """Measure all in turns, also with one client, and print the cost in single repositories."""
    for clients in (1, asked.clients):
        turns = [
            [server.loaded(load, paths, clients, asked.seconds) for paths in asked_for.values()]
            for _ in range(asked.turns)
        ]
        print(
            f"\n{f'API 2.0, {clients} clients':20}{'rate':>10}{'p50':>9}{'p99':>9}{'costs':>8}"
            f"{'CPU':>10}{'costs':>8}"
        )
        middle = dict(zip(asked_for, in_turns(turns), strict=True))
        one = next(iter(middle.values()))
        for name, found in middle.items():
            print(
                f"{name:20}{found.rate:8.0f}/s{found.p50:7.1f}ms{found.p99:7.1f}ms{found.p50 / one.p50:8.1f}"
                f"{found.cpu:8.2f}ms{found.cpu / max(0.001, one.cpu):8.1f}"
            )


def report(server: Server, asked_for: list[Pair], load: Load, asked: argparse.Namespace) -> None:
    """Measure each pair in turns and print its line."""
    print(
        f"{'':20}{'API 1.0':>10}{'p50':>9}{'p99':>9}{'Datasette':>12}{'p50':>9}{'p99':>9}{'times':>8}"
        f"{'CPU':>10}{'CPU':>8}{'times':>8}"
    )
    for pair in asked_for:
        for paths in (pair.ours, pair.datasettes):  # warm up
            server.loaded(load, paths, asked.clients, 1)
        ours, theirs = in_turns(
            [[server.loaded(load, paths, asked.clients, asked.seconds)
              for paths in (pair.ours, pair.datasettes)]
             for _ in range(asked.turns)]
        )  # fmt: skip
        times = ours.rate / max(theirs.rate, 0.1)
        print(
            f"{pair.name:20}{ours.rate:8.0f}/s{ours.p50:7.1f}ms{ours.p99:7.1f}ms"
            f"{theirs.rate:10.0f}/s{theirs.p50:7.1f}ms{theirs.p99:7.1f}ms{times:8.1f}"
            f"{ours.cpu:8.2f}ms{theirs.cpu:6.2f}ms{theirs.cpu / max(0.001, ours.cpu):8.1f}"
        )


if __name__ == "__main__":
    main()
