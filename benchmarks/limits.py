"""What the parts cost that nothing here can be faster than: Python, httpx, uvicorn, SQLite.

    python benchmarks/limits.py [--database FILE] [--seconds 3]

Prints the start of a bare Python and of one that imports httpx, a bare httpx request and a bare uvicorn's
answers at 8 connections on this machine, and one look-up of a repository by its name in a file.
"""

import argparse
import multiprocessing
import resource
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fixtures_db import fill_many
from serve import by_asyncio

BODY = b'{"values": []}'


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer each request with a few bytes."""
    del receive
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})


def _serve(ready: Connection) -> None:
    config = uvicorn.Config(bare, log_level="error", lifespan="off")
    # Of the sockets that uvicorn makes itself, asyncio does not know that they are TCP's, and leaves Nagle's
    # algorithm on: each answer then waits 40 ms for the client.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    ready.send(listening.getsockname()[1])
    uvicorn.Server(config).run([listening])


def starts(code: str, times: int = 7) -> float:
    """Return the seconds of CPU of the quickest of some Pythons."""
    took = list[float]()
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(took)


def each(work: Callable[[], object], seconds: float) -> float:
    """Return the seconds that one call takes, of as many as fit."""
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        calls += 1
    return (time.perf_counter() - began) / calls


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--database", type=Path, help="a file to look up in; default: 10,000 repositories")
    parser.add_argument("--seconds", type=float, default=3)
    asked = parser.parse_args()
    print(f"a bare Python          {starts('pass') * 1e3:9.1f} ms of CPU")
    print(f"one that imports httpx {starts('import httpx') * 1e3:9.1f} ms of CPU")
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,))
    process.start()
    try:
        address = f"http://127.0.0.1:{here.recv()}"
        with httpx.Client() as client:
            print(f"a bare httpx request   {each(lambda: client.get(address), asked.seconds) * 1e3:9.2f} ms")
        found = by_asyncio(address, ["/"], 8, asked.seconds)
        print(f"a bare uvicorn         {found.rate:9,.0f} answers a second at 8 connections")
    finally:
        process.terminate()
        process.join()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.database or Path(folder) / "mirror.db"
        if not path.exists():
            fill_many(path, 10_000, tags=0).store.close()
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            sql = "SELECT * FROM repositories WHERE full_name = ? COLLATE NOCASE"
            took = each(lambda: connection.execute(sql, ("owner7/project-7",)).fetchone(), asked.seconds)
            print(f"one look-up by SQLite  {took * 1e6:9.1f} µs")


if __name__ == "__main__":
    main()
