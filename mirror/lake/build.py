"""Make one mirror from a merged lake, or from some of its owners, with indexes and ready to serve.

Refs and changes are first written to another file, `staged`, and sorted there: unsorted rows would be
scattered over the whole new file.
"""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from mirror.errors import ConfigError, StoreError
from mirror.lake.columns import PROJECTS, REFS, REPOSITORIES, USERS, OnProgress
from mirror.lake.merge import MERGED, Merged, read_merged
from mirror.lake.parquet import read_lists
from mirror.search.index.backlog import rebuild_index
from mirror.search.index.refs.changes import rebuild_refs_index
from mirror.store.changes import MEASURED_SINCE
from mirror.store.faults import explained
from mirror.store.lock import place_of_copy, replacing
from mirror.store.repair import faults_of
from mirror.store.schema import HIDDEN, create_unindexed, open_unjournalled

Batch = Mapping[str, Sequence[Any]]
"""Rows of a table of the lake, by column."""

_GIVEN = {"instance", "upstream", "owner_uuid", "seq", "op", "refs_listed_at", "refs_hidden", "hidden_until"}
"""Columns of the lake that have no column of the same name in a mirror."""

_REF = [column.name for column in REFS.columns if column.name.startswith("target_")]
_KEPT: Mapping[str, Sequence[str]] = {
    table.name: [column.name for column in table.columns if column.name not in _GIVEN]
    for table in (USERS, REPOSITORIES, PROJECTS)
}

_USER = "(SELECT id FROM users WHERE upstream_id = :instance AND uuid = :{})"
_OWNED = """INSERT INTO {table} (upstream_id, owner_id, {columns}{more})
    SELECT :instance, o.id, {values}{given}
    FROM users o WHERE o.upstream_id = :instance AND o.uuid = :owner_uuid"""

_SAVE: Mapping[str, str] = {
    "users": f"""INSERT INTO users (upstream_id, {", ".join(_KEPT["users"])})
        VALUES (:instance, {", ".join(f":{name}" for name in _KEPT["users"])})""",
    "repositories": _OWNED.format(
        table="repositories",
        columns=", ".join(_KEPT["repositories"]),
        values=", ".join(f":{name}" for name in _KEPT["repositories"]),
        more=", refs_synced_at, refs_stale, public_from",
        given=f""", :refs_listed_at, :refs_listed_at IS NULL AND :deleted_at IS NULL,
            iif(:refs_hidden, {HIDDEN}, coalesce(:hidden_until, 0))""",
    ),
    "projects": _OWNED.format(
        table="projects",
        columns=", ".join(_KEPT["projects"]),
        values=", ".join(f":{name}" for name in _KEPT["projects"]),
        more="",
        given="",
    ),
    "members": f"""INSERT INTO members SELECT w.id, u.id, :permission, :last_seen_at
        FROM users w, users u WHERE w.upstream_id = :instance AND w.uuid = :workspace_uuid
            AND u.id = {_USER.format("user_uuid")}""",
    "followers": f"""INSERT INTO followers SELECT r.id, u.id
        FROM repositories r, users u WHERE r.upstream_id = :instance AND r.uuid = :repository_uuid
            AND u.id = {_USER.format("user_uuid")}""",
    "refs": f"""INSERT INTO staged.refs SELECT r.id, :kind, :name, {", ".join(f":{name}" for name in _REF)},
            :heads, :tagger, :message, :date
        FROM repositories r WHERE r.upstream_id = :instance AND r.uuid = :repository_uuid""",
    "changes": f"""INSERT INTO staged.changes SELECT :at, :kind, :ref, :old, :new,
        (SELECT id FROM repositories WHERE upstream_id = :instance AND uuid = :repository_uuid),
        {_USER.format("user_uuid")}""",
}
"""By table of the lake, in this order: the statement that writes a row, unless its repository is missing."""

COLUMNS: Mapping[str, Sequence[str]] = {
    table: list(dict.fromkeys(re.findall(r":(\w+)", sql))) for table, sql in _SAVE.items()
}
"""By table of the lake: the columns that a mirror takes."""

_STAGED = (
    f"""CREATE TABLE staged.refs (repository_id INTEGER, kind TEXT, name TEXT, {", ".join(_REF)},
        heads, tagger, message, date)""",
    "CREATE TABLE staged.changes (at, kind, ref, old, new, repository_id INTEGER, user_id INTEGER)",
)

_FINISH = (
    *(
        f"""INSERT INTO {table} (repository_id, name, {", ".join(_REF)}, {more})
            SELECT repository_id, name, {", ".join(_REF)}, {more} FROM staged.refs WHERE kind = '{kind}'
            ORDER BY repository_id, name"""
        for table, kind, more in (("branches", "branch", "heads"), ("tags", "tag", "tagger, message, date"))
    ),
    """INSERT INTO changes (at, kind, ref, old, new, repository_id, user_id)
        SELECT * FROM staged.changes WHERE repository_id IS NOT NULL OR user_id IS NOT NULL
        ORDER BY at, repository_id, kind, ref""",
    # Until here it holds the moment up to which changes are hidden from strangers.
    """UPDATE repositories SET public_from = coalesce(hidden.last, 0)
        FROM (SELECT r.id, max(c.id) AS last FROM repositories r
            LEFT JOIN changes c ON c.repository_id = r.id AND c.at <= r.public_from
            WHERE typeof(r.public_from) = 'text' GROUP BY r.id) AS hidden
        WHERE hidden.id = repositories.id""",
    # A lake has no earlier sizes: measures are known from now on.
    f"""INSERT OR REPLACE INTO mirror_meta (key, value)
        SELECT '{MEASURED_SINCE}', max(last_seen_at) FROM repositories WHERE true HAVING count(*) > 0""",
    """UPDATE repositories SET parent_id = (SELECT p.id FROM repositories p
        WHERE p.upstream_id = repositories.upstream_id AND p.uuid = repositories.parent_uuid)
        WHERE parent_uuid IS NOT NULL""",
)

_OF_OTHERS = (
    "DELETE FROM members WHERE workspace_id NOT IN (SELECT owner_id FROM repositories)",
    "DELETE FROM projects WHERE owner_id NOT IN (SELECT owner_id FROM repositories)",
    """DELETE FROM changes
        WHERE repository_id IS NULL AND user_id NOT IN (SELECT owner_id FROM repositories)""",
    """DELETE FROM users WHERE id NOT IN (SELECT owner_id FROM repositories
        UNION SELECT user_id FROM followers UNION SELECT user_id FROM members)""",
)
"""Remove from a slice the rows of owners that are not in it."""


# The rows are as current as the oldest export: searches and pages read it as a complete sync.
_SYNCED = """INSERT INTO sync_runs (upstream_id, kind, started_at, finished_at, state, repositories_new)
    SELECT u.id, 'full', :moment, :moment, 'complete',
        (SELECT count(*) FROM repositories WHERE upstream_id = u.id)
    FROM upstreams u WHERE :moment IS NOT NULL"""

_COUNTED = ("repositories", "branches", "tags", "users", "members", "followers", "projects", "changes")


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A finished mirror, and its number of rows by table."""

    file: str
    bytes: int
    rows: dict[str, int]


def build(
    file: Path,
    merged: Path,
    mirror: Path,
    *,
    owners: str | None = None,
    force: bool = False,
    progress: OnProgress = lambda *_: None,
) -> Built:
    """Build the mirror `file` from `merged`, the folder that `mirror lake merge` made.

    `owners` is a pattern of owners' names (`team-*`, in any case); repositories of other owners are left out.
    `mirror` is the configured mirror, which `file` must not be. Raises ConfigError, StoreLocked while another
    process builds the same file, and StoreError; `file` is unchanged then.
    """
    source = read_merged(merged)
    place = place_of_copy(mirror, file)
    if place.exists() and not force:
        raise ConfigError(f"{file}: exists; --force replaces it")
    staged = place.with_name(f"{place.name}.staged")
    with replacing(place, part=place.with_name(f"{place.name}.part")) as part, explained(file):
        indexes = create_unindexed(part)
        staged.unlink(missing_ok=True)
        try:
            with closing(open_unjournalled(part)) as connection:
                rows = _fill(connection, staged, merged, source, owners, progress)
                progress("indexing", 0)
                for sql in indexes:
                    connection.execute(sql)
                connection.execute("BEGIN")
                rebuild_index(connection)
                rebuild_refs_index(connection)
                connection.execute("COMMIT")
        finally:
            staged.unlink(missing_ok=True)
        progress("checking", 0)
        if faults := faults_of(part):
            raise StoreError(f"{part}: the new file has faults, and was not kept: {faults[0]}")
        size = part.stat().st_size
    return Built(file=str(file), bytes=size, rows=rows)


def _fill(
    connection: sqlite3.Connection,
    staged: Path,
    merged: Path,
    source: Merged,
    owners: str | None,
    progress: OnProgress,
) -> dict[str, int]:
    """Write the rows of a merged lake in one transaction; return their number by table."""
    if owners is not None:  # rows that a slice leaves out leave no bytes
        connection.execute("PRAGMA secure_delete = ON")
    # It is thrown away in any case, so a crash may destroy it.
    connection.execute("ATTACH ? AS staged", (str(staged),))
    connection.execute("PRAGMA staged.journal_mode = OFF")
    connection.execute("PRAGMA staged.synchronous = OFF")
    connection.execute("BEGIN")
    for statement in _STAGED:
        connection.execute(statement)
    instances = _save_upstreams(connection, merged)
    for table, statement in _SAVE.items():
        read = 0
        for batch in read_lists(merged / table, COLUMNS[table]):
            progress(table, read)
            read += len(batch["instance"])
            _save_batch(connection, statement, COLUMNS[table], _chosen(table, batch, owners), instances)
        if read != source.rows.get(table):  # another merge has replaced the folder meanwhile
            raise StoreError(f"{merged}: does not hold the {table} of its {MERGED}; merge the lake again")
    progress("sorting", 0)
    for statement in (*_FINISH, *(_OF_OTHERS if owners is not None else ())):
        connection.execute(statement)
    moment = min((one.moment for one in source.mirrors if one.moment), default=None)
    connection.execute(_SYNCED, {"moment": moment})
    rows = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _COUNTED}
    connection.execute("COMMIT")
    connection.execute("DETACH staged")
    if owners is not None and not rows["repositories"]:
        raise ConfigError(f"--owners {owners}: no repository has such an owner")
    return rows


def _chosen(table: str, batch: Batch, owners: str | None) -> Batch:
    """Return the rows to save: only repositories whose owner matches."""
    if owners is None or table != "repositories":
        return batch
    pattern = owners.lower()
    fits = [fnmatchcase(name.partition("/")[0].lower(), pattern) for name in batch["full_name"]]
    return {
        name: [value for value, fit in zip(values, fits, strict=True) if fit]
        for name, values in batch.items()
    }


def _save_upstreams(connection: sqlite3.Connection, merged: Path) -> dict[str, int]:
    """Write the upstreams; return the row id of each `instance` of the lake."""
    numbers, names = dict[str, int](), set[str]()
    for batch in read_lists(merged / "instances", ("instance", "kind", "url", "refs")):
        for instance, kind, url, refs in zip(*batch.values(), strict=True):
            number = len(numbers) + 1
            name = kind if kind not in names else f"{kind}-{number}"
            names.add(name)
            connection.execute(
                "INSERT INTO upstreams (id, name, kind, url, refs) VALUES (?, ?, ?, ?, ?)",
                (number, name, kind, url, refs),
            )
            numbers[instance] = number
    return numbers


def _save_batch(
    connection: sqlite3.Connection,
    statement: str,
    names: Sequence[str],
    batch: Batch,
    instances: Mapping[str, int],
) -> None:
    """Write rows of a table of the lake."""
    numbered = re.sub(r":(\w+)", lambda found: f"?{names.index(found[1]) + 1}", statement)
    columns = [
        [instances[value] for value in batch[name]] if name == "instance" else batch[name] for name in names
    ]
    connection.executemany(numbered, zip(*columns, strict=True))
