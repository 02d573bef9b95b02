"""Check the file: SQLite's own checks, foreign keys, and the search indexes against the rows."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from mirror.search.index.check import check_index
from mirror.store import Store
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


_WORDS_OF = "tokenize='unicode61 remove_diacritics 2', columnsize=0"
"""The tokenizer, the same as in the migration."""

_HAVE = """SELECT term, count(*) AS rows, sum(doc) AS ids, sum(doc * doc % 1000003) AS squares
    FROM temp.{} GROUP BY term"""


def check_descriptions(connection: sqlite3.Connection) -> list[str]:
    """Compare the index of descriptions with the rows; return a line if it is wrong, else an empty list.

    FTS5's own check writes, which a reader may not. So this builds a second index in a temporary table, and
    compares the repositories of each word. Raises sqlite3.Error.
    """
    for statement in (
        f"CREATE VIRTUAL TABLE temp.anew USING fts5(description, content='', {_WORDS_OF})",
        "INSERT INTO temp.anew (rowid, description) SELECT id, description FROM main.repositories",
        "CREATE VIRTUAL TABLE temp.words_there USING fts5vocab('main', 'search_descriptions', 'instance')",
        "CREATE VIRTUAL TABLE temp.words_anew USING fts5vocab('temp', 'anew', 'instance')",
    ):
        connection.execute(statement)
    there, anew = _HAVE.format("words_there"), _HAVE.format("words_anew")
    count, first = connection.execute(
        f"""SELECT count(DISTINCT term), min(term) FROM (
            SELECT * FROM ({there} EXCEPT {anew}) UNION ALL SELECT * FROM ({anew} EXCEPT {there}))"""
    ).fetchone()
    return [f"{count} words of descriptions differ from the rows, the first is {first!r}"] if count else []
