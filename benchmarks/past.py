"""What the past costs: `python benchmarks/past.py [--repositories N] [--moves N] [--keep DB]`.

Makes a mirror in which every main branch moved some times, now and then by force, with a size each time; one
owner has a thousand repositories. Prints, as JSON: the bytes of what is recorded, and how long a repository,
an owner and the list of unexpected changes take, in milliseconds: functions called in this process, by the
processor's clock; pages over HTTP, one after another, by the wall clock and the processor's clock of the
server.
"""

import argparse
import http.client
import json
import multiprocessing
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from browser_fixtures import served_at
from pages import ask
from publish import make_repositories
from search import _percentile

from mirror.queries.past import details_of, past_exported, past_named, register_past
from mirror.queries.visibility import OPERATOR
from mirror.store import Store
from mirror.store.files import open_reader

MANY = 1_000
"""How many repositories the first owner has."""

_HASH_AT = "printf('%08x%032x', (r.id * 100 + {0}) * 2654435761 % 4294967296, r.id * 100 + {0})"
_AT = "strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1770000000 + {move} * 2500000 + r.id, 'unixepoch')"


def fill(path: Path, repositories: int, moves: int) -> None:
    """Make the mirror, by statements over all rows."""
    make_repositories(path, repositories)
    with Store(path) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE repositories SET owner_id = 1, full_name = 'owner1/' || slug WHERE id <= ?", (MANY,)
        )
        for table, name in (("branches", "main"), ("branches", "develop"), ("tags", "v1.0")):
            connection.execute(
                f"""INSERT INTO {table} (repository_id, name, target_hash, target_date)
                    SELECT r.id, ?, {_HASH_AT.format(moves)}, '2026-10-01T00:00:00.000000Z'
                    FROM repositories r ORDER BY r.id""",
                (name,),
            )
        for move in range(1, moves + 1):
            at, before = _AT.format(move=move), _AT.format(move=f"({move} - 0.1)")
            connection.execute(
                f"""INSERT INTO changes
                        (at, kind, repository_id, ref, old, new, previous_look, forced, old_date, is_main)
                    SELECT {at}, iif(r.id % 10000 = {move}, 'tag_moved', 'branch_moved'), r.id,
                        iif(r.id % 10000 = {move}, 'v1.0', 'main'),
                        {_HASH_AT.format(move - 1)}, {_HASH_AT.format(move)}, {before},
                        iif(r.id % 1000 = 0, 1, NULL), {before},
                        iif(r.id % 10000 = {move}, NULL, 1) FROM repositories r ORDER BY r.id"""
            )
            connection.execute(
                f"""INSERT INTO measures (repository_id, until, size, updated_at, followers_count)
                    SELECT r.id, {at}, r.size - {moves - move} * 1000, {before}, r.followers_count
                    FROM repositories r ORDER BY r.id"""
            )
        for kind, every in (("branch_deleted", 50), ("deleted", 500), ("made_public", 500), ("updated", 10)):
            connection.execute(
                f"""INSERT INTO changes (at, kind, repository_id, ref, old, new, previous_look)
                    SELECT '2026-10-20T00:00:00.000000Z', ?1, r.id, iif(?1 = 'branch_deleted', 'gone', NULL),
                        iif(?1 = 'updated', '{{"description": "before"}}', {_HASH_AT.format(99)}),
                        iif(?1 = 'updated', '{{"description": "after"}}', NULL),
                        '2026-10-19T00:00:00.000000Z'
                    FROM repositories r WHERE r.id % {every} = 7 ORDER BY r.id""",
                (kind,),
            )


def bytes_of(reader: sqlite3.Connection) -> dict[str, float]:
    """Return the bytes of what is recorded, for each change and each row of former sizes."""
    told = dict[str, float]()
    for table in ("changes", "measures"):
        total = reader.execute(
            """SELECT sum(d.pgsize) FROM sqlite_master m CROSS JOIN dbstat d
                WHERE m.tbl_name = ? AND d.name = m.name""",
            (table,),
        ).fetchone()[0]
        rows = reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        told |= {
            f"{table}_rows": rows,
            f"{table}_mb": round(total / 1e6),
            f"{table}_each": round(total / rows),
        }
    return told


def times_of(
    call: Callable[[Any], object], asked: Iterable[Any], clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """Return the median, the 99th percentile and the longest time of calls, in milliseconds.

    It is the best of three for each; in this process by the processor's clock: other work does not count.
    """
    times = list[float]()
    for one in asked:
        best = float("inf")
        for _ in range(3):
            begun = clock()
            call(one)
            best = min(best, clock() - begun)
        times.append(best)
    return {
        "calls": len(times),
        "p50_ms": _percentile(times, 50),
        "p99_ms": _percentile(times, 99),
        "slowest_ms": round(max(times) * 1000, 1),
    }


def report(path: Path, calls: int) -> dict[str, Any]:
    """Measure everything."""
    draw = random.Random(7)
    with open_reader(path) as reader:
        highest = reader.execute("SELECT max(id) FROM repositories").fetchone()[0]
        ids = [draw.randint(MANY + 1, highest) for _ in range(calls)]
        names = {
            n: reader.execute("SELECT full_name FROM repositories WHERE id = ?", (n,)).fetchone()[0]
            for n in ids
        }
        moments = [f"2026-{draw.randint(3, 9):02}-{draw.randint(1, 28):02}T10:00:00.000000Z" for _ in ids]
        asked = list(zip(names.values(), moments, strict=False))
        told: dict[str, Any] = {"bytes": bytes_of(reader)}

        def show(one: tuple[str, str]) -> None:
            past = past_named(reader, OPERATOR, *one)
            if details := details_of(reader, past):
                past_exported(details, past)

        told["show_at"] = times_of(show, asked)
        register_past(reader)
        for name in ("mirror_refs_at", "mirror_repository_at"):
            sql = f"SELECT {name}(?, ?)"
            told[name] = times_of(partial(reader.execute, sql), asked)
    with served_at(path) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        some = asked[: len(asked) // 4]
        pages = {
            "page_repository_at": [f"/-/r/{name}?at={at[:16]}" for name, at in some if not _is_hidden(name)],
            "page_owner_at": [f"/-/u/{name.partition('/')[0]}?at={at[:16]}" for name, at in some],
            f"page_owner_of_{MANY}_at": [f"/-/u/owner1?at={at[:16]}" for at in moments[:10]],
            "page_unexpected": ["/-/unexpected"] * 30,
            "feed_unexpected": ["/-/changes.atom?kind=unexpected"] * 30,
        }
        (server,) = multiprocessing.active_children()
        for name, paths in pages.items():
            for suffix, clock in (("", time.perf_counter), ("_cpu", _clock_of(server.pid or 0))):
                told[name + suffix] = times_of(lambda path: ask(connection, path), paths, clock)
    return told


def _clock_of(pid: int) -> Callable[[], float]:
    """Return the processor's clock of another process, as the C library computes its number (Linux)."""
    return partial(time.clock_gettime, ~pid << 3 | 2)


def _is_hidden(name: str) -> bool:
    number = int(name.rpartition("-")[2])
    return number % 12 == 5 or number % 500 == 7  # private, or was until October


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--moves", type=int, default=4)
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.keep or Path(folder) / "mirror.db"
        told = dict[str, Any]()
        if not path.exists():
            begun = time.perf_counter()
            fill(path, asked.repositories, asked.moves)
            told["fill_s"] = round(time.perf_counter() - begun, 1)
        told |= report(path, asked.calls)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
