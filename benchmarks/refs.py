"""What the search for refs costs: `python benchmarks/refs.py [--repositories N] [--refs N] [--keep DB]`.

Prints, as JSON: how long the index takes to build, its bytes a ref (names, orders and hashes told apart), the
times of queries as people type them, of pages anywhere in the results and of hashes, what it costs to let
changed refs wait and to apply them, and what a check costs. All times but `fill_s` are of the processor,
and the load of the machine is told. Some counts are compared with plain SQL. The
names are generated: nine in ten refs have a usual one, and some thousands of prefixes, tickets and words make
up the others.
"""

import argparse
import json
import os
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from publish import make_repositories
from search import _percentile
from search_corpus import make_queries

from mirror.queries.search import find_refs
from mirror.queries.visibility import ANONYMOUS, OPERATOR
from mirror.search.index.refs.changes import FLUSH_FROM, flush_refs_step
from mirror.search.index.refs.verify import check_refs_index
from mirror.store import Store
from mirror.store.files import open_reader

_WORDS = (
    "login", "search", "export", "payment", "cache", "docs", "typo", "upgrade", "docker", "tests", "api",
    "menu", "crash", "memory", "theme", "import", "backup", "queue", "mail", "report", "index", "locale",
)  # fmt: skip
_PREFIXES = ("feature/", "bugfix/", "hotfix/", "release/", "support/", "", "wip-", "task/", "users/ann/")
_USUAL = (("master", 0.8), ("develop", 0.45), ("main", 0.15), ("staging", 0.1), ("gh-pages", 0.03))
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789/-."
_INSERT = """INSERT OR IGNORE INTO {} (repository_id, name, target_hash, target_date, target_author,
    target_author_name, target_message, target_parents) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""


def make_ref_names(count: int, seed: int = 3) -> list[str]:
    """Generate different names of branches and tags, the most usual first."""
    draw = random.Random(seed)
    names = dict.fromkeys(
        f"{v}{major}.{minor}.{patch}"
        for v in ("v", "")
        for major in range(4)
        for minor in range(20)
        for patch in range(10)
    )
    names |= dict.fromkeys(f"release/{major}.{minor}" for major in range(10) for minor in range(20))
    while len(names) < count:
        ticket = draw.choice(("", f"{draw.choice(('PROJ', 'WEB', 'OPS', 'APP'))}-{draw.randrange(9000)}-"))
        words = "-".join(draw.choices(_WORDS, k=draw.choice((1, 2, 2, 3))))
        names[f"{draw.choice(_PREFIXES)}{ticket}{words}"] = None
    return list(names)


def frequent_pairs(names: list[str], number: int) -> list[str]:
    """Return the pairs of letters that most names have."""
    found = Counter(pair for name in names for pair in {*map("".join, pairwise(name.lower()))})
    return [pair for pair, _ in found.most_common(number)]


def make_rows(
    repositories: int, refs: int, names: list[str], seed: int = 4
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield 0 for a branch or 1 for a tag, and its row; by repository."""
    draw = random.Random(seed)
    usual = sum(share for _, share in _USUAL)
    more = max(refs / repositories - usual, 0)
    for repository in range(1, repositories + 1):
        last = draw.randrange(1_200_000_000, 1_790_000_000)
        some = [(0, name) for name, share in _USUAL if draw.random() < share]
        for _ in range(int(draw.expovariate(1 / more) + 0.5)):
            # Few names have most refs: the logarithm of the rank is drawn.
            name = names[int(len(names) ** draw.random()) - 1]
            some.append((int(name[0] in "v0123456789" or draw.random() < 0.1), name))
        for kind, name in some:
            moment = time.gmtime(last - int(draw.expovariate(1e-7)))
            date = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", moment)
            target, parent = f"{draw.getrandbits(160):040x}", f"{draw.getrandbits(160):040x}"
            who = f"Some Author <author{repository % 1000}@example.com>"
            yield (
                kind,
                (repository, name, target, date, who, "Some Author", "Mend what broke\n", f'["{parent}"]'),
            )


def fill(path: Path, repositories: int, refs: int, names: list[str]) -> float:
    """Make a mirror without index; return the seconds that the refs took."""
    make_repositories(path, repositories)
    with Store(path) as store, store.transaction() as connection:
        begun = time.perf_counter()
        batches: tuple[list[Any], list[Any]] = ([], [])
        for kind, row in make_rows(repositories, refs, names):
            batches[kind].append(row)
            if len(batches[kind]) == 10_000:
                connection.executemany(_INSERT.format(("branches", "tags")[kind]), batches[kind])
                batches[kind].clear()
        for table, batch in zip(("branches", "tags"), batches, strict=True):
            connection.executemany(_INSERT.format(table), batch)
        return time.perf_counter() - begun


def index_bytes(reader: sqlite3.Connection, refs: int) -> dict[str, float]:
    """Return the bytes of the index for each ref, by what they are for."""
    sizes = {
        row[0]: row[1]
        for row in reader.execute(
            """SELECT s.tbl_name, sum(d.pgsize) FROM sqlite_master s JOIN dbstat d ON d.name = s.name
               WHERE s.tbl_name LIKE 'search_ref_%' GROUP BY 1"""
        ).fetchall()
    }
    best = reader.execute(
        "SELECT sum(length(best_branches) + length(best_tags)) FROM search_ref_common"
    ).fetchone()[0]
    half = sizes["search_ref_lists"] / 2
    spans = sum(sizes[f"search_ref_{table}"] for table in ("spans", "blocks", "counts"))
    names = half + sizes["search_ref_names"] + sizes["search_ref_rare"] + sizes["search_ref_common"] - best
    return {
        "names": round(names / refs, 2),
        "orders": round((half + best + spans) / refs, 2),
        "hashes": round(sizes["search_ref_hashes"] / refs, 2),
        **{f"{table[11:]}_mb": round(size / 1e6, 1) for table, size in sizes.items() if size > 1e5},
    }


def times_of(reader: sqlite3.Connection, queries: list[str], **asked: Any) -> dict[str, Any]:
    """Return the median, the 99th percentile and the slowest time of some queries, in milliseconds.

    It is the best of three calls, by the processor's clock: other work on the machine does not count.
    """
    times = list[float]()
    slowest = (0.0, "")
    for query in queries:
        best = float("inf")
        for _ in range(3):
            begun = time.thread_time()
            find_refs(reader, OPERATOR, query, **asked)
            best = min(best, time.thread_time() - begun)
        times.append(best)
        slowest = max(slowest, (best, query))
    return {
        "queries": len(queries),
        "p50_ms": _percentile(times, 50),
        "p99_ms": _percentile(times, 99),
        "slowest": f"{slowest[0] * 1000:.1f} ms: {slowest[1]!r}",
    }


def differences(reader: sqlite3.Connection, queries: list[str]) -> int:
    """Count the queries whose counts differ from what plain SQL counts, for strangers."""
    wrong = 0
    for query in queries:
        found = find_refs(reader, ANONYMOUS, query, limit=0)
        refs = " UNION ALL ".join(
            f"""SELECT t.repository_id FROM {table} t JOIN repositories r ON r.id = t.repository_id
                WHERE r.is_private = 0 AND r.deleted_at IS NULL AND instr(lower(t.name), :part)"""
            for table in ("branches", "tags")
        )
        sql = f"SELECT count(*), count(DISTINCT repository_id) FROM ({refs})"
        wrong += tuple(reader.execute(sql, {"part": query.lower()}).fetchone()) != (
            found.count,
            found.repositories,
        )
    return wrong


def deep_times(reader: sqlite3.Connection, queries: list[str], seed: int = 6) -> dict[str, Any]:
    """Time pages anywhere in the results: for each query the second, the last, and some at random."""
    draw = random.Random(seed)
    times = list[tuple[float, str]]()
    for query in queries:
        count = find_refs(reader, OPERATOR, query, limit=0).count
        offsets = [
            20,
            max(count - 20, 0),
            *(int(count ** draw.random()) for _ in range(2)),
            draw.randrange(count + 1),
        ]
        for offset in offsets:
            took = times_of(reader, [query], offset=offset)["p50_ms"]
            times.append((took, f"{took} ms: {query!r} from {offset} of {count}"))
    return {
        "pages": len(times),
        "p50_ms": _percentile([took / 1000 for took, _ in times], 50),
        "p99_ms": _percentile([took / 1000 for took, _ in times], 99),
        "slowest": [told for _, told in sorted(times, reverse=True)[:5]],
    }


def change_refs(connection: sqlite3.Connection, refs: int, seed: int) -> None:
    """Move the head of a branch of `refs` repositories, and give every fifth of them a new branch."""
    draw = random.Random(seed)
    (highest,) = connection.execute("SELECT max(id) FROM repositories").fetchone()
    moved = 0
    while moved < refs:
        repository = draw.randint(1, highest)
        moved += connection.execute(
            """UPDATE branches SET target_date = '2026-11-20T10:00:00.000000Z', target_hash = :hash
               WHERE repository_id = :id
                   AND name = (SELECT min(name) FROM branches WHERE repository_id = :id)""",
            {"hash": f"{draw.getrandbits(160):040x}", "id": repository},
        ).rowcount
        if moved % 5 == 0:
            connection.execute(
                "INSERT OR IGNORE INTO branches (repository_id, name, target_hash, target_date)"
                " VALUES (?, ?, ?, '2026-11-20T10:00:00.000000Z')",
                (repository, f"feature/NEW-{moved}-thing", f"{draw.getrandbits(160):040x}"),
            )


def changed(store: Store, refs: int, queries: list[str], seed: int = 5) -> dict[str, Any]:
    """Change refs of many repositories; return the times of searches while these wait, and of the flush."""
    begun = time.process_time()
    with store.transaction() as connection:
        change_refs(connection, refs, seed)
    written = time.process_time()
    told: dict[str, Any] = {
        "waiting": store.value("SELECT count(*) FROM search_ref_pending"),
        "write_s": round(written - begun, 2),
        "typed": times_of(store.connection, queries),
        "deep": deep_times(store.connection, queries[:20]),
    }
    flushed = time.process_time()
    more = True
    while more:
        with store.transaction() as connection:
            more = flush_refs_step(connection)
    took = time.process_time() - flushed
    return told | {"flush_s": round(took, 2), "ms_a_ref": round(1000 * took / told["waiting"], 3)}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--refs", type=int, default=800_000)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--compared", type=int, default=10)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--check", action="store_true", help="compare the whole index with the rows, too")
    asked = parser.parse_args()
    names = make_ref_names(asked.names)
    with tempfile.TemporaryDirectory() as folder:
        path = asked.keep or Path(folder) / "mirror.db"
        told: dict[str, Any] = {"load_before": os.getloadavg()}
        if not path.exists():
            told["fill_s"] = round(fill(path, asked.repositories, asked.refs, names), 1)
        with Store(path) as store:
            if not store.value("SELECT up_to FROM search_ref_state"):
                begun = time.process_time()
                with store.transaction() as connection:
                    flush_refs_step(connection)
                told["build_s"] = round(time.process_time() - begun, 1)
        with open_reader(path) as reader:
            tables = [
                reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("branches", "tags")
            ]
            told |= {"refs": sum(tables), "names": len(names), "bytes": index_bytes(reader, sum(tables))}
            queries = make_queries(names, asked.queries)
            told["typed"] = times_of(reader, queries)
            told["letters"] = times_of(reader, list(_LETTERS))
            told["exact"] = times_of(reader, [name for name, _ in _USUAL] + names[:200:5], exact=True)
            told["tags"] = times_of(reader, queries[:200], kind="tag")
            hashes = [row[0] for row in reader.execute("SELECT target_hash FROM tags LIMIT 100")]
            told["commits"] = times_of(reader, [one[:7] for one in hashes] + hashes)
            told["deep"] = deep_times(reader, ["e", "master", "release", "v1.", "-", "", *queries[:60]])
            told["deep_of_letters"] = deep_times(reader, ["", *_LETTERS, *frequent_pairs(names, 60)])
            told["counts_that_differ"] = differences(reader, queries[: asked.compared])
        with Store(path) as store:
            waiting = ["e", "master", "release/2", "v1.0", "thing", *queries[:60]]
            told["changes"] = [
                changed(store, refs, waiting, seed) for seed, refs in enumerate((FLUSH_FROM * 5 // 6, 10_000))
            ]
        told["load_after"] = os.getloadavg()
        print(json.dumps(told, indent=2), flush=True)
        if asked.check:
            with open_reader(path) as reader:
                begun = time.process_time()
                faults = check_refs_index(reader)
                took = time.process_time() - begun
            print(json.dumps({"faults": faults, "us_a_ref": round(1e6 * took / sum(tables), 1)}))


if __name__ == "__main__":
    main()
