"""Read a lake as its README says: the files of the manifests, and of them the rows that hold."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

MOVING = ("seq", "last_seen_at", "seen_since")
KEYS = {"repositories": "uuid", "users": "uuid", "projects": "uuid", "listings": "owner_uuid"}
FOLLOWS = {
    "refs": ("repositories", "repository_uuid"),
    "followers": ("repositories", "repository_uuid"),
    "members": ("users", "workspace_uuid"),
}

Rows = dict[str, list[dict[str, Any]]]


def latest(lake: Path, mirror: str | None = None) -> dict[str, Any]:
    """The manifest in force of a mirror, or of the only one."""
    (path,) = lake.glob(f"_manifests/mirror={mirror or '*'}/latest.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def rows_of(lake: Path, mirror: str | None = None) -> Rows:
    """All rows that the manifest's files hold; every file must be as the manifest says."""
    found = Rows()
    for table, files in latest(lake, mirror)["tables"].items():
        found[table] = []
        for file in files:
            contents = (lake / file["path"]).read_bytes()
            assert len(contents) == file["bytes"]
            assert hashlib.sha256(contents).hexdigest() == file["sha256"]
            rows = pq.read_table(lake / file["path"], partitioning=None).to_pylist()
            assert len(rows) == file["rows"]
            found[table] += rows
    return found


def held(lake: Path, mirror: str | None = None) -> Rows:
    """The current rows, sorted, without the columns that change with every export."""
    rows = rows_of(lake, mirror)
    newest = {table: dict[tuple[str, str], int]() for table in KEYS}
    for table, key in KEYS.items():
        for row in rows[table]:
            name = (row["instance"], row[key])
            newest[table][name] = max(row["seq"], newest[table].get(name, 0))
    for table in rows:
        leader, key = FOLLOWS.get(table, (table, KEYS.get(table, "")))
        if leader in KEYS:
            rows[table] = [
                row for row in rows[table] if newest[leader].get((row["instance"], row[key])) == row["seq"]
            ]
    return {
        table: sorted(
            ({name: value for name, value in row.items() if name not in MOVING} for row in found), key=repr
        )
        for table, found in rows.items()
    }


def files_of(lake: Path) -> dict[str, bytes]:
    """The contents of all files of a lake."""
    return {str(path.relative_to(lake)): path.read_bytes() for path in lake.rglob("*") if path.is_file()}
