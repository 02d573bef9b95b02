"""What a lake costs: `python benchmarks/lake.py [--repositories N] [--refs N] [--folder DIR] [STEP ...]`.

Each step runs in a process of its own, and prints its CPU seconds, its wall time and its peak of memory:

- export: a mirror with that many rows, made once in the folder, into an empty lake; bytes a row
- changes: 10,000 of its repositories with all their refs, changed since
- merge: eight mirrors, which overlap by half and miss a tenth of each other's refs, by DuckDB
- build: one mirror out of the merged lake

Steps rely on those before them. The eight mirrors are parts of the first one's files, not crawls.
"""

import argparse
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import publish
import pyarrow.parquet as pq

from mirror.lake.columns import TABLES
from mirror.lake.place import LakeFile, Manifest, Place, place_manifest, read_all

STEPS = ("export", "changes", "merge", "build")
MIRRORS = 8


def measured(command: list[str]) -> dict[str, Any]:
    """Run the program in another process; return what that took, and what it printed."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["/usr/bin/time", "-f", "%M", sys.executable, "-m", "mirror", *command],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "wall_s": round(time.perf_counter() - begun, 1),
        "peak_mb": round(int(done.stderr.split()[-1]) / 1024),
        "load": round(os.getloadavg()[0], 1),
        "said": json.loads(done.stdout),
    }


def bytes_a_row(lake: Path) -> dict[str, float]:
    """Return how many bytes a row of the large tables takes."""
    (manifest,) = read_all(Place(str(lake)))
    return {
        name: round(sum(file.bytes for file in files) / sum(file.rows for file in files), 1)
        for name, files in manifest.tables.items()
        if name in ("repositories", "refs")
    }


def change(mirror: Path, count: int) -> None:
    """Change some repositories, and a branch of each."""
    with closing(sqlite3.connect(mirror)) as connection, connection:
        every = max(1, connection.execute("SELECT max(id) FROM repositories").fetchone()[0] // count)
        connection.execute("UPDATE repositories SET size = size + 1 WHERE id % ? = 0", (every,))
        connection.execute(
            "UPDATE branches SET target_hash = 'f' || substr(target_hash, 2) WHERE name = 'main'"
            " AND repository_id IN (SELECT id FROM repositories WHERE id % ? = 0)",
            (every,),
        )


def part_lake(lake: Path, parts: Path) -> None:
    """Make eight mirrors out of the one of a lake: each has three sixteenths of its repositories."""
    (whole,) = read_all(Place(str(lake)))
    place = Place(str(parts))
    shutil.copy(lake / "_SCHEMA.json", parts / "_SCHEMA.json")
    with closing(duckdb.connect()) as connection:
        connection.execute("SET memory_limit = '2GB'")
        connection.execute("SET preserve_insertion_order = false")
        for number in range(MIRRORS):
            mirror, tables = f"m{number}", dict[str, list[LakeFile]]()
            for table in TABLES:
                paths = [str(lake / file.path) for file in whole.tables[table.name]]
                tables[table.name] = []
                if not paths:
                    continue
                key = "repository_uuid" if table.name == "refs" else "uuid"
                mine = f"hash({key}) % 16 IN ({2 * number}, {2 * number + 1}, {(2 * number + 2) % 16})"
                where = mine if table.name in ("repositories", "refs") else "true"
                if table.name == "refs":
                    where += f" AND hash(name, {key}) % 10 <> {number}"
                moved = f"* REPLACE (last_seen_at + INTERVAL ({number}) MINUTE AS last_seen_at,"
                moved += f" refs_listed_at + INTERVAL ({number * 7 % MIRRORS}) MINUTE AS refs_listed_at)"
                chosen = moved if table.name == "repositories" else "*"
                bucket = "bucket=00/" if table.in_buckets else ""
                name = f"{table.name}/mirror={mirror}/{bucket}base-00000001-0.parquet"
                (parts / name).parent.mkdir(parents=True, exist_ok=True)
                connection.execute(
                    f"""COPY (SELECT {chosen} FROM read_parquet({paths}, hive_partitioning = false)
                        WHERE {where}) TO '{parts / name}' (FORMAT parquet, COMPRESSION zstd)"""
                )
                rows = pq.read_metadata(parts / name).num_rows
                size = (parts / name).stat().st_size
                tables[table.name] = [
                    LakeFile(path=name, rows=rows, bytes=size, sha256="", content="", base=True)
                ]
            manifest = Manifest(
                mirror=mirror, seq=1, export=mirror, public=False, exported_at=whole.exported_at,
                moment=whole.moment, tables=tables,
            )  # fmt: skip
            place_manifest(place, manifest, parts)


def main() -> None:
    """Measure, and print a line of JSON for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--refs", type=int, default=800_000)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp())
    mirror, config = folder / "mirror.db", folder / "lake.toml"
    lake, parts, merged = folder / "lake", folder / "parts", folder / "merged"
    config.write_text(f"database = {json.dumps(str(mirror))}\n")
    if not mirror.exists():
        publish.make(mirror, asked.repositories, asked.refs)
    exporting = ["--config", str(config), "export", "parquet", str(lake), "--json"]
    commands = {
        "export": [*exporting, "--full"],
        "changes": exporting,
        "merge": ["lake", "merge", str(parts), str(merged), "--memory", "3GB", "--json"],
        "build": ["--config", str(config), "lake", "build", str(folder / "union.db"), "--from", str(merged),
                  "--force", "--json"],
    }  # fmt: skip
    for step in asked.steps or STEPS:
        if step == "changes":
            change(mirror, 10_000)
        if step == "merge" and not parts.exists():
            parts.mkdir()
            part_lake(lake, parts)
        figures = {"step": step, **measured(commands[step])}
        if step == "export":
            figures["bytes_a_row"] = bytes_a_row(lake)
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
