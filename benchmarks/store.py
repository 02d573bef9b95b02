"""How fast rows are written: `python benchmarks/store.py [--repositories N]`.

Prints rows a second for a first load (which builds the search index at its end: `index_rows_s`), for a
second listing of unchanged rows, and for one that changes a tenth of them, with all indexes; and, in the
same run, for sqlite-utils' `upsert_all` into a table with the same three indexes. Ratios can be compared
between machines, rows a second cannot.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from sqlite_utils import Database

from mirror.model import Owner, Ref, Repository
from mirror.store import Store
from mirror.store.refs import save_refs
from mirror.store.repositories import Look

PAGE = 100


def repositories(count: int) -> list[Repository]:
    """Generate realistic rows, in the order of their owners, as listings return them."""
    owners = [
        Owner(uuid=f"{{owner-{n}}}", username=f"owner{n}", kind="team") for n in range(max(1, count // 250))
    ]
    return [
        Repository(
            uuid=f"{{{n * 2654435761 % 2**64:016x}}}",
            owner=owners[n * len(owners) // count],
            slug=f"repository-{n}",
            name=f"Repository {n}",
            full_name=f"{owners[n * len(owners) // count].username}/repository-{n}",
            scm="git",
            description="A small library for everyday use, with a description of usual length.",
            website="",
            language="python",
            size=n,
            main_branch="main",
            fork_policy="allow_forks",
            clone_https="https://bitbucket.org/owner/repository.git",
            created_at="2020-01-01T00:00:00.000000Z",
            updated_at="2021-01-01T00:00:00.000000Z",
        )
        for n in range(count)
    ]


def pages(rows: Sequence[Repository]) -> Iterator[Sequence[Repository]]:
    """Split rows into pages."""
    return (rows[start : start + PAGE] for start in range(0, len(rows), PAGE))


def timed(count: int, work: Callable[[], None]) -> float:
    """Do some work; return its items a second, out of `count`."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def measure_store(path: Path, rows: list[Repository]) -> dict[str, float]:
    """Load rows, list them again, change a tenth, add refs."""
    changed = [
        msgspec.structs.replace(row, description="changed", updated_at="2022-01-01T00:00:00.000000Z")
        if n % 10 == 0
        else row
        for n, row in enumerate(rows)
    ]
    with Store(path) as store:
        upstream = store.save_upstream("bench", "cloud", "https://api.bitbucket.org/2.0")

        def load(all_rows: list[Repository], seen_at: str, *, first: bool = False) -> Callable[[], None]:
            def work() -> None:
                for page in pages(all_rows):
                    store.save_page(upstream, page, Look(seen_at, with_refs=True, first_listing=first))

            return work

        def refs() -> None:
            for row_id in range(1, len(rows) + 1):
                with store.transaction() as connection:
                    save_refs(connection, row_id, REFS, seen_at="2026-01-04")

        return {
            "first_rows_s": timed(len(rows), load(rows, "2026-01-01T00:00:00.000000Z", first=True)),
            "index_rows_s": timed(len(rows), store.finish_search_index),
            "unchanged_rows_s": timed(len(rows), load(rows, "2026-01-02T00:00:00.000000Z")),
            "tenth_changed_rows_s": timed(len(rows), load(changed, "2026-01-03T00:00:00.000000Z")),
            "refs_s": timed(len(rows) * len(REFS), refs),
        }


REFS = [
    Ref(kind=kind, name=f"{kind}-{n}", target_hash=f"{n:040x}", target_message="Mend it\n")
    for kind in ("branch", "tag")
    for n in range(4)
]


def measure_baseline(path: Path, rows: list[Repository]) -> dict[str, float]:
    """Do the same with `upsert_all`, one transaction a page."""
    db = Database(path)
    db.enable_wal()
    records = [{**msgspec.structs.asdict(row), "owner": row.owner.username, "refs_stale": 1} for row in rows]
    table = db.table("repositories")
    table.upsert(records[0], pk="uuid")
    for columns in (["full_name"], ["owner", "created_at"], ["refs_stale"]):
        table.create_index(columns)

    def work() -> None:
        for start in range(0, len(records), PAGE):
            table.upsert_all(records[start : start + PAGE], pk="uuid")

    result = {
        "baseline_first_rows_s": timed(len(rows), work),
        "baseline_unchanged_rows_s": timed(len(rows), work),
    }
    db.close()
    return result


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=100_000)
    count = parser.parse_args().repositories
    rows = repositories(count)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_store(Path(folder) / "mirror.db", rows)
        figures |= measure_baseline(Path(folder) / "baseline.db", rows)
    figures["first_ratio"] = figures["first_rows_s"] / figures["baseline_first_rows_s"]
    print(
        json.dumps(
            {"repositories": count} | {key: round(value, 1) for key, value in figures.items()}, indent=2
        )
    )


if __name__ == "__main__":
    main()
