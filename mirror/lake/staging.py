"""Write the rows of an export into files of a staging folder, and read rows back for compaction."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mirror.lake.columns import BUCKETS, TABLES, Table, bucket_of
from mirror.lake.manifest import Manifest
from mirror.lake.parquet import ParquetFile, read_batches, schema_of
from mirror.lake.place import Place

LARGEST = 1_000_000
"""The most rows in a file; a bucket's file may have more."""

GATHERED = 100_000
"""Rows that are sorted into buckets together; each bucket gets its share as one row group."""


class Part(NamedTuple):
    """A written file: its staged path, its name in the lake, and its content."""

    staged: Path
    name: str
    rows: int
    content: str
    base: bool


class ExportFiles:
    """The files of one export of a mirror. A `base` file replaces earlier files instead of adding to them."""

    def __init__(self, staging: Path, mirror: str, seq: int) -> None:
        self._staging, self._mirror, self._seq = staging, mirror, seq

    def write(self, table: Table, rows: Iterable[pa.Table], *, base: bool) -> list[Part]:
        """Write the rows of a table; without rows, no file."""
        if table.in_buckets:
            return list(self._buckets(table, rows, base=base))
        return list(self._files(table, rows, base=base))

    def _files(self, table: Table, rows: Iterable[pa.Table], *, base: bool) -> Iterator[Part]:
        file: ParquetFile | None = None
        number = 0
        try:
            for batch in rows:
                if not len(batch):
                    continue
                if file is not None and base and file.rows + len(batch) > LARGEST:
                    yield self._closed(file, table, base=base)
                    file, number = None, number + 1
                if file is None:
                    end = f"-{number}" if base else ""
                    file = ParquetFile(self._path(table, "", base=base, end=end), schema_of(table))
                file.write(batch)
        finally:
            if file is not None:
                file.close()
        if file is not None:
            yield self._closed(file, table, base=base)

    def _buckets(self, table: Table, rows: Iterable[pa.Table], *, base: bool) -> Iterator[Part]:
        with ExitStack() as stack:
            files = dict[int, ParquetFile]()
            for gathered in _gathered(rows):
                for bucket, part in _sorted_out(gathered):
                    if bucket not in files:
                        path = self._path(table, f"bucket={bucket:02x}", base=base)
                        files[bucket] = ParquetFile(path, schema_of(table))
                        stack.callback(files[bucket].close)
                    files[bucket].write(part)
        for _, file in sorted(files.items()):
            yield self._closed(file, table, base=base)

    def _path(self, table: Table, bucket: str, *, base: bool, end: str = "") -> Path:
        folder = self._staging / table.name / bucket
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{'base' if base else 'changes'}-{self._seq:08}{end}.parquet"

    def _closed(self, file: ParquetFile, table: Table, *, base: bool) -> Part:
        file.close()
        inside = file.path.relative_to(self._staging / table.name)
        name = f"{table.name}/mirror={self._mirror}/{inside.as_posix()}"
        return Part(file.path, name, file.rows, file.content, base)


def _gathered(rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Combine batches until there are GATHERED rows."""
    held, count = list[pa.Table](), 0
    for batch in rows:
        held.append(batch)
        count += len(batch)
        if count >= GATHERED:
            yield pa.concat_tables(held)
            held, count = [], 0
    if count:
        yield pa.concat_tables(held)


def _sorted_out(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of each bucket that has any, in their original order."""
    rows = rows.combine_chunks()  # from many chunks, taking rows costs ten times as much
    known = dict[Any, int]()
    buckets = [
        known[uuid] if uuid in known else known.setdefault(uuid, bucket_of(uuid))
        for uuid in rows.column("repository_uuid").to_pylist()
    ]
    numbers = pa.array(buckets, pa.uint8())
    for bucket in range(BUCKETS):
        places = pc.indices_nonzero(pc.equal(numbers, bucket))
        if len(places):
            yield bucket, rows.take(places)


_BETWEEN = "\t"
"""Joins the parts of a key. No address contains it, so different keys stay different."""


def holding(place: Place, manifest: Manifest, table: Table) -> Iterator[pa.Table]:
    """Yield the current rows of a table: those of the last export of their repository, user or project."""
    newest = _newest(place, manifest, table) if table.key else None
    for file in manifest.tables.get(table.name, []):
        with place.open(file.path) as opened:
            for rows in read_batches(opened):
                yield rows if newest is None else rows.filter(_holds(rows, table, newest))


def _newest(place: Place, manifest: Manifest, table: Table) -> pa.Table:
    """Return the last export, `seq_max`, of each `key` that was exported after the base."""
    (leader,) = [one for one in TABLES if one.name == (table.follows or table.name)]
    parts = list[pa.Table]()
    for file in manifest.tables.get(leader.name, []):
        if not file.base:
            with place.open(file.path) as opened:
                rows = pq.read_table(opened, columns=[*leader.key, "seq"])
            parts.append(pa.table({"key": _keys(rows, leader.key), "seq": rows.column("seq")}))
    empty = pa.table({"key": pa.array([], pa.string()), "seq": pa.array([], pa.int64())})
    return pa.concat_tables([empty, *parts]).group_by("key").aggregate([("seq", "max")])


def _holds(rows: pa.Table, table: Table, newest: pa.Table) -> pa.Array:
    place = pc.index_in(_keys(rows, table.key), value_set=newest.column("key").combine_chunks())
    last = pc.take(newest.column("seq_max").combine_chunks(), place)
    return pc.fill_null(pc.equal(rows.column("seq").combine_chunks(), last), fill_value=True)


def _keys(rows: pa.Table, columns: tuple[str, ...]) -> pa.Array:
    return pc.binary_join_element_wise(*(rows.column(name).combine_chunks() for name in columns), _BETWEEN)
