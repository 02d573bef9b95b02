"""Write the rows of one export into files in a staging folder, each under the name that it will have."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mirror.lake.columns import BUCKETS, Table, bucket_of
from mirror.lake.parquet import ParquetFile, schema_of

LARGEST = 1_000_000
"""Rows that a file has at most, but for those of a bucket."""

GATHERED = 100_000
"""Rows that are sorted into buckets before they are written: each bucket gets its share as one row group."""


class Part(NamedTuple):
    """A file that is written: where it is staged, its name in the lake, and what is in it."""

    staged: Path
    name: str
    rows: int
    content: str
    base: bool


class ExportFiles:
    """The files of one export of a mirror. `base` files do not add to earlier ones."""

    def __init__(self, staging: Path, mirror: str, seq: int) -> None:
        self._staging, self._mirror, self._seq = staging, mirror, seq

    def write(self, table: Table, rows: Iterable[pa.Table], *, base: bool) -> list[Part]:
        """Write the rows of a table; no rows, no file."""
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
    """Put batches together to as many rows as are sorted at once."""
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
    """Yield the rows of each bucket that has some, in the order in which they came."""
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
