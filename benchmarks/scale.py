"""How long crawls of many repositories by many credentials take: `python benchmarks/scale.py [--json]`.

A simulation of requests from measured constants, no crawl. For each size it draws owners (a few have very
many repositories), splits them as `mirror plan-split` does, and lets every credential spend its hourly
budgets, those of the API and of git one after the other. The same seed gives the same table.
"""

import argparse
import json
from random import Random
from statistics import median
from typing import NamedTuple

from mirror.sync.split import KnownWorkspace, hours_of, split
from mirror.upstream.budget import AUTHENTICATED_LIMIT

REPOSITORIES_PER_OWNER = 50
TAIL = 1.1
"""The exponent of the sizes of owners (Pareto): the largest of many has thousands of times the usual."""
REFS_PER_REPOSITORY = 5
CHANGED_A_DAY = 0.01
"""The share of repositories that are pushed to on a day."""

SQLITE_PER_REPOSITORY, SQLITE_PER_REF = 1_035, 291
PARQUET_PER_REPOSITORY, PARQUET_PER_REF = 170, 80
"""Bytes with indexes, and with the index of names; measured with rows of usual length."""
MERGE_CPU_S = 44.3 / 1_500_000
"""CPU seconds of DuckDB for a row of a repository of a mirror, with its refs (benchmarks/lake.py)."""

SIZES = ((1_000_000, 1), (10_000_000, 10), (100_000_000, 100))


class Row(NamedTuple):
    """One line of the table; days of the last mirror and of the median one, hours, gigabytes."""

    repositories: int
    credentials: int
    refs: str
    members: bool
    first_load_last_days: float
    first_load_median_days: float
    sweep_days: float
    owner_look_hours: float
    sqlite_gb: float
    parquet_gb: float
    merge_cpu_minutes: float


def owners_of(repositories: int, random: Random) -> list[int]:
    """Draw how many repositories each owner has, so that they are about as many in all."""
    drawn = [random.paretovariate(TAIL) for _ in range(repositories // REPOSITORIES_PER_OWNER)]
    scale = repositories / sum(drawn)
    return [max(1, round(size * scale)) for size in drawn]


def simulated(repositories: int, credentials: int, refs: str, *, members: bool, seed: int = 1) -> Row:
    """Split a crawl and work out what it takes."""
    sizes = owners_of(repositories, Random(seed))
    workspaces = [
        KnownWorkspace(name=f"w{number}", repositories=size, hours=hours_of(size, refs=refs, members=members))
        for number, size in enumerate(sizes)
    ]
    shares = split(workspaces, credentials)
    loads = sorted(share.hours for share in shares)
    listing = max(sum(1 + -(-sizes[int(name[1:])] // 100) for name in share.workspaces) for share in shares)
    changed = repositories * CHANGED_A_DAY / credentials / 24
    api_left = AUTHENTICATED_LIMIT - (changed if refs == "api" else 0)
    refs_number = repositories * REFS_PER_REPOSITORY
    return Row(
        repositories,
        credentials,
        refs,
        members,
        loads[-1] / 24,
        median(loads) / 24,
        listing / AUTHENTICATED_LIMIT / 24,
        len(sizes) / credentials / max(1.0, api_left),
        (repositories * SQLITE_PER_REPOSITORY + refs_number * SQLITE_PER_REF) / 1e9,
        (repositories * PARQUET_PER_REPOSITORY + refs_number * PARQUET_PER_REF) / 1e9,
        repositories * MERGE_CPU_S / 60,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    kinds = (("api", True), ("git", True), ("git", False))
    rows = [simulated(*size, refs, members=members) for size in SIZES for refs, members in kinds]
    if as_json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return
    heads = (
        "repositories", "credentials", "refs by", "members", "first load, days: last mirror, median",
        "sweep, days", "each owner looked at, hours", "SQLite GB", "Parquet GB", "merge, CPU min",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |\n{'| --- ' * len(heads)}|")
    for row in rows:
        cells = (
            f"{row.repositories // 1_000_000}M",
            row.credentials,
            row.refs,
            "yes" if row.members else "no",
            f"{row.first_load_last_days:.1f}, {row.first_load_median_days:.1f}",
            f"{row.sweep_days:.1f}",
            f"{row.owner_look_hours:.0f}",
            f"{row.sqlite_gb:.1f}",
            f"{row.parquet_gb:.1f}",
            f"{row.merge_cpu_minutes:.1f}",
        )
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
