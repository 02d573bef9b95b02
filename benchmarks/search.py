"""Name search compared with SQLite's FTS5: the same file, queries and run, reading the rows included.

    python benchmarks/search.py --repositories 1000000 --json
    python benchmarks/search.py --names names.tsv --queries queries.txt --json --keep search.db

A names file has the tab-separated columns owner, slug, name, followers and private (0 or 1); a queries file
has a query a line. The baseline is an FTS5 table with the trigram tokenizer as SQLite's documentation shows
it, and GLOB on it for queries below three characters. Both return the exact count and the twenty best rows,
and every answer is compared. Times are the best of three, or the first if it was slow, so that other
processes on the machine matter less; of CPU also those of the first time, when no row is kept in memory.
"""

import argparse
import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from search_changes import INSERT, row_of, update
from search_corpus import Named, make_names, make_queries, read_names

from mirror.queries.rows import LISTED
from mirror.queries.search import find_repositories
from mirror.queries.visibility import OPERATOR
from mirror.search.names import normalise
from mirror.store import Store
from mirror.store.files import open_reader

LIMIT = 20

_BASELINE_PAGE = f"""
    SELECT {", ".join("u.username" if column == "owner" else f"r.{column}" for column in LISTED)}
    FROM (SELECT r.id FROM baseline b JOIN repositories r ON r.id = b.rowid WHERE {{where}}
        ORDER BY CASE WHEN :q IN (b.name, b.slug) THEN 0
            WHEN substr(b.name, 1, length(:q)) = :q OR substr(b.slug, 1, length(:q)) = :q THEN 1 ELSE 2 END,
            coalesce(r.followers_count, 0) DESC, coalesce(r.forks_count, 0) DESC, r.created_at DESC, r.id
        LIMIT {LIMIT}) AS best
    JOIN repositories r ON r.id = best.id JOIN users u ON u.id = r.owner_id"""


def main() -> None:
    """Fill a file, build both indexes, measure, compare, print."""
    options = _options()
    if options.build:
        print(json.dumps(_build(options.build)))
        return
    folder = Path(tempfile.mkdtemp(prefix="search-benchmark-"))
    path = options.keep or folder / "mirror.db"
    try:
        result = _measure(path, options)
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:24} {value}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--names", type=Path, help="tab-separated owner, slug, name, followers, private")
    parser.add_argument("--queries", type=Path, help="one query a line")
    parser.add_argument("--repositories", type=int, default=100_000, help="how many to make without --names")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--keep", type=Path, metavar="DB", help="fill this file, which must be new, and keep it"
    )
    parser.add_argument("--build", type=Path, metavar="DB", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    names = read_names(options.names) if options.names else make_names(options.repositories)
    filled, sample = fill(path, names)
    built = json.loads(_python(__file__, "--build", str(path)))
    queries = _lines(options.queries) if options.queries else make_queries(sample)
    _progress(f"{filled} repositories, index built in {built['build_s']} s; now the baseline")
    built |= _build_baseline(path)
    with open_reader(path) as reader:
        times, cpu, first_cpu, baseline_times, mismatches = _compare(reader, queries)
        size = _index_bytes(reader)
    reader.close()
    writing = _times_beside_a_writer(path, queries)
    return {
        "repositories": filled,
        "queries": len(queries),
        "p50_ms": _percentile(times, 50),
        "p99_ms": _percentile(times, 99),
        "p50_cpu_ms": _percentile(cpu, 50),
        "p99_cpu_ms": _percentile(cpu, 99),
        "p50_first_cpu_ms": _percentile(first_cpu, 50),
        "p99_first_cpu_ms": _percentile(first_cpu, 99),
        "baseline_p50_ms": _percentile(baseline_times, 50),
        "baseline_p99_ms": _percentile(baseline_times, 99),
        "mismatches": mismatches,
        **built,
        "bytes_per_repository": {name: round(bytes_ / filled, 1) for name, bytes_ in size.items()},
        **update(path),
        "p99_writing_ms": _percentile(writing, 99),
    }


def fill(path: Path, names: Iterable[Named]) -> tuple[int, list[str]]:
    """Load rows as a first sync leaves them; return their number and a sample of their names."""
    if path.exists():
        raise SystemExit(f"{path}: exists already")
    filled, sample = 0, list[str]()
    with Store(path) as store:
        store.save_upstream("cloud", "cloud", "https://bitbucket.example")
        owners, known = dict[str, int](), 0
        indexes = _drop_indexes(store)
        for page in _pages(names, 10_000):
            with store.transaction() as connection:
                rows = [row_of(filled + place, named, owners) for place, named in enumerate(page, 1)]
                connection.executemany(
                    """INSERT INTO users (id, upstream_id, uuid, username, kind, first_seen_at, last_seen_at)
                       VALUES (?, 1, ?, ?, 'team', '', '')""",
                    [(number, name, name) for name, number in islice(owners.items(), known, None)],
                )
                known = len(owners)
                connection.executemany(INSERT, rows)
            filled += len(page)
            sample.append(page[len(page) // 2].name)
            sample.extend(named.name for named in page[:: max(1, len(page) // 8)])
        for statement in indexes:
            store.connection.execute(statement)
    return filled, sample


def _drop_indexes(store: Store) -> list[str]:
    """Drop the SQL indexes while rows are loaded; return the statements that create them again."""
    found = store.rows(
        """SELECT name, sql FROM sqlite_master
           WHERE type = 'index' AND tbl_name IN ('repositories', 'users') AND sql IS NOT NULL"""
    )
    for name, _ in found:
        store.connection.execute(f"DROP INDEX {name}")
    return [sql for _, sql in found]


def _pages(names: Iterable[Named], size: int) -> Iterable[list[Named]]:
    page = list[Named]()
    for named in names:
        page.append(named)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


def _build(path: Path) -> dict[str, float]:
    """Build the index in this process; return the seconds, by the clock and of CPU, and the most memory."""
    with Store(path) as store:
        begun, cpu = time.perf_counter(), time.process_time()
        store.finish_search_index()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"build_s": round(seconds, 2), "build_cpu_s": round(cpu, 2), "build_peak_mb": round(peak, 1)}


def _build_baseline(path: Path) -> dict[str, float]:
    """Index the same normalised names with FTS5, and the slug if it differs; return the seconds."""
    begun, cpu = time.perf_counter(), time.process_time()
    with Store(path) as store:
        store.connection.create_function("normalise", 1, normalise, deterministic=True)
        with store.transaction() as connection:
            connection.execute(
                "CREATE VIRTUAL TABLE baseline USING fts5(name, slug, tokenize='trigram case_sensitive 1')"
            )
            connection.execute(
                """INSERT INTO baseline (rowid, name, slug)
                   SELECT id, normalise(name), nullif(normalise(slug), normalise(name)) FROM repositories"""
            )
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {"baseline_build_s": round(seconds, 2), "baseline_build_cpu_s": round(cpu, 2)}


def _baseline(reader: sqlite3.Connection, query: str) -> tuple[int, list[Any]]:
    """Return the count and the best rows from FTS5."""
    part = normalise(query)
    if len(part) < 3:
        where = "(b.name GLOB :match OR b.slug GLOB :match)"
        match = "*" + "".join(f"[{letter}]" if letter in "*?[" else letter for letter in part) + "*"
    else:
        where, match = "baseline MATCH :match", '"' + part.replace('"', '""') + '"'
    values = {"q": part, "match": match}
    found = reader.execute(f"SELECT count(*) FROM baseline b WHERE {where}", values).fetchone()[0]
    return found, reader.execute(_BASELINE_PAGE.format(where=where), values).fetchall()


def _compare(
    reader: sqlite3.Connection, queries: list[str]
) -> tuple[list[float], list[float], list[float], list[float], int]:
    """Answer every query in both ways; return times, the CPU at best and at first, and how many differ."""
    times, cpu, first_cpu, baseline_times, mismatches = *(list[float]() for _ in range(4)), 0
    for number, query in enumerate(queries, 1):
        ask = partial(find_repositories, reader, OPERATOR, query, limit=LIMIT)
        begun = time.thread_time()
        ask()
        first_cpu.append(time.thread_time() - begun)
        seconds, found = _timed(ask)
        times.append(seconds)
        cpu.append(_timed(ask, time.thread_time)[0])
        seconds, (total, rows) = _timed(partial(_baseline, reader, query))
        baseline_times.append(seconds)
        ids = [] if found.fuzzy else [row.id for row in found.repositories]
        if (0 if found.fuzzy else found.count, ids) != (total, [row["id"] for row in rows]):
            mismatches += 1
            _progress(f"differs: {query!r}: {found.count} beside {total}")
        if number % 100 == 0:
            _progress(f"{number} of {len(queries)} queries")
    return times, cpu, first_cpu, baseline_times, mismatches


def _timed(ask: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Return the seconds of the best of three calls, or of the first if it was slow, and the answer."""
    best = float("inf")
    for _ in range(3):
        begun = clock()
        answer = ask()
        best = min(best, clock() - begun)
        if best > 0.2:
            break
    return best, answer


def _index_bytes(reader: sqlite3.Connection) -> dict[str, int]:
    """Return the bytes of the index's tables, those of all together first."""
    sizes = {
        name: reader.execute("SELECT sum(pgsize) FROM dbstat WHERE name = ?", (f"search_{name}",)).fetchone()[
            0
        ]
        for name in ("rare", "common", "crowds", "columns", "dense")
    }
    return {"all": sum(sizes.values())} | sizes


def _times_beside_a_writer(path: Path, queries: list[str]) -> list[float]:
    """Time the queries once more while another process saves a page of 100 changes ten times a second."""
    arguments = [sys.executable, str(Path(__file__).with_name("search_changes.py")), str(path)]
    with subprocess.Popen(arguments) as writer, open_reader(path) as reader:
        try:
            time.sleep(2)
            return [
                _timed(partial(find_repositories, reader, OPERATOR, query, limit=LIMIT))[0]
                for query in queries
            ]
        finally:
            writer.terminate()


def _percentile(times: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    return round(sorted(times)[min(len(times) - 1, len(times) * percent // 100)] * 1000, 3)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
