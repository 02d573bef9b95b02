"""Check the file, and repair what earlier versions and wrong clocks left in its rows.

The check covers SQLite's own checks, foreign keys, and the search indexes against the rows. Rows are repaired
before a run sends its first request.

Duplicate rows: earlier versions saved a repository or an owner again, by name, when an answer had no uuid.
Such rows are merged into the row with the uuid. Moments in the future count as never; until they are
corrected, readers ignore them.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mirror.errors import INDEX_LOST
from mirror.model import canonical_uuid
from mirror.store.cursors import Cursors
from mirror.store.faults import BUSY_SECONDS, damage_explained, known_remedy
from mirror.store.files import open_reader
from mirror.store.ledger import count_future_now
from mirror.store.paths import reading_address
from mirror.store.rows import fetch, fetch_row, fetch_value
from mirror.times import to_text

MOST = 20  # faults that a check names
STEPS = 100_000  # of SQLite between two looks at signals: some milliseconds


class Complaint(NamedTuple):
    """A fault of a file in one line, and whether it was repaired."""

    text: str
    mended: bool = False


_NO_FAULTS = ("ok", "*** in database main ***")
"""Lines of SQLite's check that say no fault."""


def faults_of(path: Path, most: int = 1) -> list[str]:
    """Return the faults that SQLite finds in a file: at most `most` of each kind."""
    with closing(sqlite3.connect(reading_address(path), uri=True, timeout=BUSY_SECONDS)) as connection:
        # Python handles signals in its own code only, and a check of a large file is one call for minutes.
        connection.set_progress_handler(lambda: 0, STEPS)
        try:
            found = connection.execute(f"PRAGMA integrity_check({most})")
            lines = [line for (text,) in found for line in text.splitlines()]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchmany(most)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:  # by what handled a signal
                raise KeyboardInterrupt from None
            raise
    return [
        *(f"integrity: {line}" for line in lines if line not in _NO_FAULTS),
        *(f"reference: {table}, row {row}: no such {parent}" for table, row, parent, _ in dangling),
    ]


def check_file(path: Path, *, repair: bool) -> list[Complaint]:
    """Return the faults of a mirror; with `repair`, rebuild a broken search index.

    Raises StoreError if the file cannot be opened, StoreLocked if another process syncs when the index is to
    be rebuilt.
    """
    open_reader(path).close()
    with damage_explained(path):
        faults = faults_of(path, MOST)
    return [Complaint(line) for line in faults] or _check_index(path, repair=repair)


def record_check(path: Path, complaints: Sequence[Complaint], *, at: str) -> None:
    """Record the faults that a check has left in a file, for `/-/health`, unless that is known already.

    Raises StoreError if the file cannot be written.
    """
    from mirror.store import Store  # noqa: PLC0415 - as in `_check_index`

    left = sum(not complaint.mended for complaint in complaints)
    found = f"{left:,} fault{'' if left == 1 else 's'}; see: mirror verify" if left else ""
    with closing(open_reader(path)) as connection, damage_explained(path):
        upstreams = [row_id for (row_id,) in fetch(connection, "SELECT id FROM upstreams")]
        if all((Cursors(connection, each).integrity.read() or "") == found for each in upstreams):
            return
    with Store(path) as store, store.transaction() as connection:
        for each in upstreams:  # the file belongs to all of them, whoever had it checked
            Cursors(connection, each).integrity.save(found, at=at)


def _check_index(path: Path, *, repair: bool) -> list[Complaint]:
    """Compare the search indexes with the rows; with `repair`, rebuild broken ones from them."""
    found = index_faults(path)
    if not found or not repair:
        return [Complaint(line) for line in found]
    # Only a repair needs these, and status pages read this file too.
    from mirror.store import Store  # noqa: PLC0415
    from mirror.store.lock import sync_lock  # noqa: PLC0415

    with sync_lock(path), Store(path) as store:
        store.rebuild_search_index()
    return [*(Complaint(line, mended=True) for line in found), *map(Complaint, index_faults(path))]


def index_faults(path: Path) -> list[str]:
    """Compare the search indexes with the rows; return a line for each fault. Raises StoreError."""
    from mirror.search.index.check import check_index  # noqa: PLC0415 - only a check needs it
    from mirror.search.index.refs.verify import check_refs_index  # noqa: PLC0415 - numpy is slow to import

    with closing(open_reader(path)) as connection, damage_explained(path):
        faults = [f"search index: {line}" for line in _lines(check_index, connection)]
        faults += [f"search index of refs: {line}" for line in _lines(check_refs_index, connection)]
        faults += [f"search index of descriptions: {line}" for line in _lines(check_descriptions, connection)]
    return (
        faults if len(faults) <= MOST else [*faults[:MOST], f"search index: {len(faults) - MOST} faults more"]
    )


def _lines(check: Callable[[sqlite3.Connection], list[str]], connection: sqlite3.Connection) -> list[str]:
    """Return what a check finds; lost tables, and rows that this program never writes, may make it fail."""
    try:
        return check(connection)
    except sqlite3.Error as error:
        if known_remedy(str(error)) != INDEX_LOST:
            raise
        return [str(error)]
    except Exception as error:  # noqa: BLE001 - wrong rows fail anywhere
        return [f"it cannot be read ({type(error).__name__})"]


# The tokenizer, the same as in the migration.
_WORDS_OF = "tokenize='unicode61 remove_diacritics 2', columnsize=0"

_HAVE = """SELECT term, count(*) AS rows, sum(doc) AS ids, sum(doc * doc % 1000003) AS squares
    FROM temp.{} GROUP BY term"""


def check_descriptions(connection: sqlite3.Connection) -> list[str]:
    """Compare the index of descriptions with the rows; return a line if it is wrong, else an empty list.

    Raises sqlite3.Error.
    """
    # FTS5's own check writes, which a reader may not. So a second index is built in a temporary table, and
    # the repositories of each word are compared.
    for statement in (
        f"CREATE VIRTUAL TABLE temp.anew USING fts5(description, content='', {_WORDS_OF})",
        "INSERT INTO temp.anew (rowid, description) SELECT id, description FROM main.repositories",
        "CREATE VIRTUAL TABLE temp.words_there USING fts5vocab('main', 'search_descriptions', 'instance')",
        "CREATE VIRTUAL TABLE temp.words_anew USING fts5vocab('temp', 'anew', 'instance')",
    ):
        connection.execute(statement)
    there, anew = _HAVE.format("words_there"), _HAVE.format("words_anew")
    count, first = fetch_row(
        connection,
        f"""SELECT count(DISTINCT term), min(term) FROM (
            SELECT * FROM ({there} EXCEPT {anew}) UNION ALL SELECT * FROM ({anew} EXCEPT {there}))""",
    )
    return [f"{count} words of descriptions differ from the rows, the first is {first!r}"] if count else []


def rebuild_descriptions(connection: sqlite3.Connection) -> None:
    """Rebuild the full-text index of descriptions from the rows, in a transaction of the caller."""
    # Unlike the other indexes, this one has no backlog: triggers update it with each change.
    connection.execute("INSERT INTO search_descriptions (search_descriptions) VALUES ('delete-all')")
    connection.execute(
        "INSERT INTO search_descriptions (rowid, description) SELECT id, description FROM repositories"
    )


# Finds every uuid that is not in canonical form by the index, and some that are.
_ODD = """(uuid < '{' OR uuid >= '|' OR length(uuid) > 66 OR uuid GLOB '*[A-Z ]*')"""


def merge_second_rows(connection: sqlite3.Connection, upstream_id: int) -> list[str]:
    """Merge duplicate rows of owners and repositories of an upstream with uuids; return the full names.

    A duplicate has the name of a living row, and no uuid or one in another form.
    """
    for row_id, uuid, name in _odd(connection, "users", "username", upstream_id, "is_owner"):
        first = canonical_uuid(uuid) or _uuid_of(connection, "users", "username", upstream_id, name)
        if first not in (None, uuid):
            give_uuid(connection, "users", upstream_id, row_id, first)
    merged = list[str]()
    for row_id, uuid, name in _odd(
        connection, "repositories", "full_name", upstream_id, "deleted_at IS NULL"
    ):
        first = canonical_uuid(uuid) or _uuid_of(connection, "repositories", "full_name", upstream_id, name)
        if first not in (None, uuid) and give_uuid(connection, "repositories", upstream_id, row_id, first):
            merged.append(name)
    return merged


def without_uuid(connection: sqlite3.Connection, upstream_id: int) -> list[tuple[int, str]]:
    """List the id and full name of living repositories without uuid whose owners have one."""
    found = connection.execute(
        f"""SELECT r.id, r.uuid, r.full_name FROM
                (SELECT id, uuid, full_name, owner_id FROM repositories
                 WHERE upstream_id = ? AND deleted_at IS NULL AND {_ODD}) r
            JOIN users o ON o.id = r.owner_id WHERE o.uuid GLOB '{{*' ORDER BY r.id""",
        (upstream_id,),
    )
    return [(row_id, name) for row_id, uuid, name in found if canonical_uuid(uuid) is None]


def _odd(
    connection: sqlite3.Connection, table: str, name: str, upstream_id: int, condition: str
) -> list[tuple[int, str, str]]:
    """List the id, identity and name of rows whose identity may not be a canonical uuid."""
    sql = f"SELECT id, uuid, {name} FROM {table} WHERE upstream_id = ? AND {_ODD} AND {condition}"
    return fetch(connection, sql, (upstream_id,))


def _uuid_of(
    connection: sqlite3.Connection, table: str, column: str, upstream_id: int, name: str | None
) -> str | None:
    """Return the uuid of a living row with this name; None without one."""
    found = connection.execute(
        f"""SELECT uuid FROM {table} WHERE upstream_id = ? AND {column} = ? COLLATE NOCASE
            AND deleted_at IS NULL ORDER BY last_seen_at DESC""",
        (upstream_id, name),
    )
    return next((uuid for (uuid,) in found if canonical_uuid(uuid) == uuid), None)


def give_uuid(
    connection: sqlite3.Connection, table: str, upstream_id: int, row_id: int, uuid: str | None
) -> bool:
    """Set the uuid of a row; if another row already has it, merge the row into that one and return True."""
    same = f"SELECT id FROM {table} WHERE upstream_id = ? AND uuid = ?"
    first: int | None = fetch_value(connection, same, (upstream_id, uuid))
    if first is None:
        connection.execute(f"UPDATE {table} SET uuid = ? WHERE id = ?", (uuid, row_id))
        return False
    if table == "repositories":
        _keep_hidden(connection, upstream_id, row_id, first)
    _point_elsewhere(connection, table, row_id, first)
    kinds = "'repository', 'branch', 'tag'" if table == "repositories" else "'account', 'workspace'"
    connection.execute(f"DELETE FROM extras WHERE kind IN ({kinds}) AND row_id = ?", (row_id,))
    connection.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))
    return True


# Tables from which the rows of a duplicate are deleted; they are read again for the first row.
_OF_ONE_ROW = ("branches", "tags", "followers", "measures", "seen_refs", "sync_failures")


def _keep_hidden(connection: sqlite3.Connection, upstream_id: int, twin: int, first: int) -> None:
    """Delete what was read for a duplicate; none of its hidden changes becomes public.

    If only the duplicate was private, the repository has been made public.
    """
    for table in _OF_ONE_ROW:
        connection.execute(f"DELETE FROM {table} WHERE repository_id = ?", (twin,))
    connection.execute("DELETE FROM changes WHERE repository_id = ? AND kind = 'created'", (twin,))
    Cursors(connection, upstream_id).drop_refs([twin])
    connection.execute(
        """INSERT INTO changes (at, repository_id, kind, previous_look)
           SELECT f.last_seen_at, t.id, 'made_public', t.last_seen_at FROM repositories t, repositories f
           WHERE t.id = :twin AND f.id = :first AND t.is_private AND NOT f.is_private""",
        {"twin": twin, "first": first},
    )
    connection.execute(
        """UPDATE repositories SET public_from = max(public_from, (
               SELECT iif(t.is_private, (SELECT coalesce(max(id), 0) FROM changes), t.public_from)
               FROM repositories t WHERE t.id = :twin)) WHERE id = :first""",
        {"twin": twin, "first": first},
    )


def _point_elsewhere(connection: sqlite3.Connection, table: str, twin: int, first: int) -> None:
    """Redirect all references from a duplicate to the first row."""
    references = fetch(
        connection,
        """SELECT m.name, k."from" FROM sqlite_master m, pragma_foreign_key_list(m.name) k
           WHERE m.type = 'table' AND k."table" = ?""",
        (table,),
    )
    for other, column in references:
        connection.execute(
            f'UPDATE OR IGNORE "{other}" SET "{column}" = ? WHERE "{column}" = ?', (first, twin)
        )
        connection.execute(f'DELETE FROM "{other}" WHERE "{column}" = ?', (twin,))


NEVER = "1970-01-01T00:00:00.000000Z"  # stands for never in columns that must hold a moment

SKEW = 3600  # a hold up to this many seconds in the future stays: the clock may have been set back

# A moment may be this far in the future: another process may have written it just now.
GRACE = timedelta(minutes=1)

_LATEST = """SELECT max(moment) FROM (
    SELECT max(updated_at) AS moment FROM cursors WHERE upstream_id = :upstream
    UNION ALL SELECT max(max(started_at, coalesce(finished_at, ''))) FROM sync_runs
        WHERE upstream_id = :upstream
    UNION ALL SELECT max(last_at) FROM sync_failures WHERE upstream_id = :upstream
    UNION ALL SELECT max(at) FROM writes WHERE upstream_id = :upstream
    UNION ALL SELECT max(at) FROM changes)"""

# Otherwise a row that was "seen" a year ahead could not be missed until then, and a failure would wait that
# long for its next try.
_MENDS = (
    """UPDATE repositories SET last_seen_at = iif(last_seen_at > :now, :never, last_seen_at),
           refs_stale = iif(refs_synced_at > :now AND deleted_at IS NULL, 1, refs_stale),
           refs_synced_at = iif(refs_synced_at > :now, :never, refs_synced_at),
           first_seen_at = min(first_seen_at, :now), deleted_at = min(deleted_at, :now)
       WHERE upstream_id = :upstream
           AND max(last_seen_at, first_seen_at, coalesce(refs_synced_at, ''),
                   coalesce(deleted_at, '')) > :now""",
    """UPDATE users SET last_seen_at = iif(last_seen_at > :now, :never, last_seen_at),
           first_seen_at = min(first_seen_at, :now), deleted_at = min(deleted_at, :now)
       WHERE upstream_id = :upstream
           AND max(last_seen_at, first_seen_at, coalesce(deleted_at, '')) > :now""",
    """UPDATE members SET last_seen_at = :never WHERE last_seen_at > :now
           AND workspace_id IN (SELECT id FROM users WHERE upstream_id = :upstream)""",
    """UPDATE sync_failures SET next_try_at = :now, last_at = :now, first_at = min(first_at, :now)
       WHERE upstream_id = :upstream AND last_at > :now""",
    """UPDATE sync_runs SET state = 'interrupted', error = 'the clock was ahead: ' || started_at,
           started_at = min(started_at, :now), finished_at = min(finished_at, :now)
       WHERE upstream_id = :upstream AND max(started_at, coalesce(finished_at, '')) > :now""",
    "UPDATE changes SET at = :now WHERE at > :now",
    "UPDATE OR REPLACE measures SET until = :now WHERE until > :now",
    "UPDATE writes SET at = :now WHERE upstream_id = :upstream AND at > :now",
    "UPDATE webhook_deliveries SET at = :now WHERE upstream_id = :upstream AND at > :now",
    "UPDATE request_limits SET held_until = NULL WHERE held_until > :second + 1",
)


def latest_ahead(connection: sqlite3.Connection, upstream_id: int, now: datetime) -> str | None:
    """Return the latest moment of the crawl that is in the future; None if none is."""
    latest: str | None = fetch_value(connection, _LATEST, {"upstream": upstream_id})
    return latest if latest is not None and latest > to_text(now + GRACE) else None


def correct_future_moments(connection: sqlite3.Connection, upstream_id: int, now: datetime) -> None:
    """Correct every moment of an upstream that is in the future.

    Rows seen then were never seen, next tries are due, and events happened now.
    """
    values = {
        "upstream": upstream_id,
        "now": to_text(now),
        "never": NEVER,
        "second": int(now.timestamp()) + SKEW,
    }
    for statement in _MENDS:
        connection.execute(statement, values)
    count_future_now(connection, int(now.timestamp()))
    Cursors(connection, upstream_id).correct_moments(to_text(now))
