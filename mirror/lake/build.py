"""Make one mirror from a merged lake, or from some of its owners, with indexes and ready to serve."""

from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from mirror.errors import ConfigError, StoreError
from mirror.lake.columns import OnProgress
from mirror.lake.fill import COLUMNS, ORDER, Batch, counts, finish, save_batch, save_upstreams, stage
from mirror.lake.merge import MERGED, read_merged
from mirror.lake.parquet import read_lists
from mirror.search.index.backlog import rebuild_index
from mirror.search.index.refs.changes import rebuild_refs_index
from mirror.store.backup import place_of_copy, replacing
from mirror.store.files import explained, faults_of
from mirror.store.new_files import create_unindexed, open_unjournalled


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
    with replacing(place, part=place.with_name(f"{place.name}.part")) as part, explained(file):
        staged = place.with_name(f"{place.name}.staged")
        staged.unlink(missing_ok=True)
        indexes = create_unindexed(part)
        try:
            with closing(open_unjournalled(part)) as connection:
                if owners is not None:  # rows that a slice leaves out leave no bytes
                    connection.execute("PRAGMA secure_delete = ON")
                connection.execute("ATTACH ? AS staged", (str(staged),))
                connection.execute("PRAGMA staged.journal_mode = OFF")
                connection.execute("PRAGMA staged.synchronous = OFF")
                connection.execute("BEGIN")
                stage(connection)
                instances = save_upstreams(connection, _instances(merged))
                for table in ORDER:
                    read = 0
                    for batch in read_lists(merged / table, COLUMNS[table]):
                        progress(table, read)
                        read += len(batch["instance"])
                        save_batch(connection, table, _chosen(table, batch, owners), instances)
                    if read != source.rows.get(table):
                        raise StoreError(
                            f"{merged}: does not hold the {table} of its {MERGED}; merge the lake again"
                        )
                progress("sorting", 0)
                moments = [one.moment for one in source.mirrors if one.moment]
                finish(connection, moment=min(moments, default=None), sliced=owners is not None)
                rows = counts(connection)
                connection.execute("COMMIT")
                if owners is not None and not rows["repositories"]:
                    raise ConfigError(f"--owners {owners}: no repository has such an owner")
                progress("indexing", 0)
                for sql in indexes:
                    connection.execute(sql)
                connection.execute("BEGIN")
                rebuild_index(connection)
                rebuild_refs_index(connection)
                connection.execute("COMMIT")
                connection.execute("DETACH staged")
        finally:
            staged.unlink(missing_ok=True)
        progress("checking", 0)
        if faults := faults_of(part):
            raise StoreError(f"{part}: the new file has faults, and was not kept: {faults[0]}")
        size = part.stat().st_size
    return Built(file=str(file), bytes=size, rows=rows)


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


def _instances(merged: Path) -> Iterator[dict[str, str]]:
    for batch in read_lists(merged / "instances", ("instance", "kind", "url", "refs")):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))
