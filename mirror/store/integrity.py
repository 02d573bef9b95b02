"""Check the file: SQLite's own checks, foreign keys, and the search indexes against the rows."""

from pathlib import Path
from typing import NamedTuple

from mirror.search.index.check import check_index
from mirror.store import Store
from mirror.store.description_index import check_descriptions
from mirror.store.files import damage_explained, open_reader
from mirror.store.lock import sync_lock

MOST = 20


class Complaint(NamedTuple):
    """One fault of a file, in a line, and whether it has been mended."""

    text: str
    mended: bool = False


def check_file(path: Path, *, repair: bool) -> list[Complaint]:
    """Return what is wrong with a mirror; with `repair`, rebuild a broken search index.

    Raises StoreError for a file that cannot be opened at all, StoreLocked where another process syncs while
    the index is to be built.
    """
    connection = open_reader(path)
    try:
        with damage_explained(path):
            broken = [row[0] for row in connection.execute(f"PRAGMA integrity_check({MOST})")]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchmany(MOST)
    finally:
        connection.close()
    complaints = [Complaint(f"integrity: {line}") for line in broken if line != "ok"]
    complaints += [
        Complaint(f"reference: {table}, row {row}: no such {parent}") for table, row, parent, _ in dangling
    ]
    return complaints or _check_index(path, repair=repair)


def _check_index(path: Path, *, repair: bool) -> list[Complaint]:
    """Compare the index with the rows, which SQLite cannot do; with `repair`, rebuild it from them."""
    found = _faults(path)
    if not found or not repair:
        return [Complaint(line) for line in found]
    with sync_lock(path), Store(path) as store:
        store.rebuild_search_index()
    return [*(Complaint(line, mended=True) for line in found), *map(Complaint, _faults(path))]


def _faults(path: Path) -> list[str]:
    from mirror.search.index.refs.verify import check_refs_index  # noqa: PLC0415 - numpy is slow to import

    connection = open_reader(path)
    try:
        with damage_explained(path):
            faults = [f"search index: {line}" for line in check_index(connection)]
            faults += [f"search index of refs: {line}" for line in check_refs_index(connection)]
            faults += [f"search index of descriptions: {line}" for line in check_descriptions(connection)]
    finally:
        connection.close()
    return (
        faults if len(faults) <= MOST else [*faults[:MOST], f"search index: {len(faults) - MOST} faults more"]
    )
