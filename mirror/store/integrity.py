"""Check the file: SQLite's own checks, foreign keys, and the search indexes against the rows."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from mirror.search.index.check import check_index
from mirror.store import Store
from mirror.store.description_index import check_descriptions
from mirror.store.files import damage_explained, faults_of, open_reader
from mirror.store.lock import sync_lock

MOST = 20


class Complaint(NamedTuple):
    """A fault of a file in one line, and whether it was repaired."""

    text: str
    mended: bool = False


def check_file(path: Path, *, repair: bool) -> list[Complaint]:
    """Return the faults of a mirror; with `repair`, rebuild a broken search index.

    Raises StoreError if the file cannot be opened, StoreLocked if another process syncs when the index is to
    be rebuilt.
    """
    open_reader(path).close()
    with damage_explained(path):
        faults = faults_of(path, MOST)
    return [Complaint(line) for line in faults] or _check_index(path, repair=repair)


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

    with closing(open_reader(path)) as connection, damage_explained(path):
        faults = [f"search index: {line}" for line in check_index(connection)]
        faults += [f"search index of refs: {line}" for line in check_refs_index(connection)]
        faults += [f"search index of descriptions: {line}" for line in check_descriptions(connection)]
    return (
        faults if len(faults) <= MOST else [*faults[:MOST], f"search index: {len(faults) - MOST} faults more"]
    )
