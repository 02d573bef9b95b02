"""Convert rows of SQLite to Arrow, write them into the Parquet files of an export, and read them back."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from mirror.errors import ConfigError, StoreError
from mirror.lake import NEEDS_PYARROW
from mirror.lake.columns import BUCKETS, TABLES, Column, Table, bucket_of
from mirror.lake.place import Manifest, Place
from mirror.times import from_text

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise ConfigError(NEEDS_PYARROW) from None

BATCH = 10_000
"""Rows that are read at once."""

TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "moment": pa.timestamp("us", "UTC"),
    "texts": pa.list_(pa.string()),
    "instance": pa.string(),
    "upstream": pa.int64(),
}

_LISTED = r'^\[("[0-9A-Za-z]*"(, "[0-9A-Za-z]*")*)?\]$'
"""A list of hashes as the store writes it, which can be split without a parser of JSON."""

_PLAIN = "^[0-9A-Za-z]*$"
"""A text that needs no escaping in JSON."""

_ALL_DIFFERENT = ("uuid", "target_hash", "target_message", "description")
"""Columns whose values hardly repeat: Parquet would build a dictionary of them and throw it away. It builds
none of lists, the hashes of parents and heads."""


def schema_of(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table; files say what their columns mean."""
    return pa.schema(
        pa.field(one.name, TYPES[one.kind], metadata={"about": one.about}) for one in table.columns
    )


def batches(
    table: Table, rows: Iterator[Sequence[tuple[Any, ...]]], *, seq: int, instances: Mapping[int, str]
) -> Iterator[pa.Table]:
    """Turn lists of rows, whose values are those that the table's columns read, into Arrow tables."""
    schema = schema_of(table)
    firsts = {address: number for number, address in sorted(instances.items(), reverse=True)}
    written = {
        "instance": instances,
        "upstream": {
            number: None if firsts[address] == number else number for number, address in instances.items()
        },
    }
    filled = {"seq": pa.scalar(seq, pa.int64()), "op": pa.scalar("upsert", pa.string())}
    for part in rows:
        values = iter(zip(*part, strict=True))
        arrays = [
            pa.repeat(filled[column.name], len(part))
            if column.sql is None
            else _array(column, next(values), written)
            for column in table.columns
        ]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _array(column: Column, values: Sequence[Any], written: Mapping[str, Mapping[int, Any]]) -> pa.Array:
    kind = TYPES[column.kind]
    if column.kind in written:
        return pa.array([written[column.kind][value] for value in values], kind)
    if column.kind == "flag":
        return pa.array([None if value is None else value != 0 for value in values], kind)
    if column.kind == "moment":
        return _moments(values)
    if column.kind == "texts":
        return _lists(values)
    return pa.array(values, kind)


def _moments(values: Sequence[str | None]) -> pa.Array:
    texts = pa.array(values, pa.string())
    try:
        return texts.cast(TYPES["moment"])
    except pa.ArrowInvalid:  # not in the form that this version writes
        return pa.array([_moment(value) for value in values], TYPES["moment"])


def _moment(value: str | None) -> Any:
    """Parse a moment of any form; None if that fails."""
    try:
        return None if value is None else from_text(value)
    except ValueError:
        return None


def _lists(values: Sequence[str | None]) -> pa.Array:
    texts = pa.array(values, pa.string())
    if texts.null_count == len(texts):
        return pa.nulls(len(texts), TYPES["texts"])
    if not pc.all(pc.match_substring_regex(texts, _LISTED)).as_py():
        return pa.array([_list(value) for value in values], TYPES["texts"])
    lists = pc.split_pattern(pc.utf8_slice_codeunits(texts, 2, -2), '", "')
    return pc.if_else(pc.equal(texts, "[]"), pa.scalar([], TYPES["texts"]), lists)


def _list(value: str | None) -> list[str] | None:
    found = None if value is None else json.loads(value)
    return [str(one) for one in found] if isinstance(found, list) else None


class ParquetFile:
    """A Parquet file that is written in batches, with a digest of its content.

    The digest leaves out columns that move without a change: `seq`, and when a row was last seen.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.rows = path, 0
        self._digest = hashlib.sha256()
        self._moving = [name for name in ("seq", "last_seen_at", "seen_since") if name in schema.names]
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if name not in _ALL_DIFFERENT],
        )

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._writer.write_table(table)
        self.rows += len(table)
        for batch in table.drop_columns(self._moving).to_batches():
            self._digest.update(batch.serialize())

    def close(self) -> None:
        """Close the file; may be called again."""
        self._writer.close()

    @property
    def content(self) -> str:
        """The digest, in hexadecimal digits."""
        return self._digest.hexdigest()


def read_batches(file: Any, columns: Iterable[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of an open Parquet file in batches; all columns, or some."""
    # Not whole: a bucket of a large mirror holds millions of refs.
    for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=None if columns is None else [*columns]):
        yield pa.Table.from_batches([batch])


def read_lists(folder: Path, columns: Iterable[str]) -> Iterator[dict[str, Sequence[Any]]]:
    """Yield the rows of all files of a folder by column, with moments and lists as a mirror stores them.

    Raises StoreError for a file that does not belong to a lake.
    """
    for path in sorted(folder.glob("*.parquet")):
        try:
            yield from _lists_in(path, columns)
        except (pa.ArrowInvalid, KeyError) as error:
            raise StoreError(
                f"{path}: not a file of a merged lake, or an older version merged it; merge again"
            ) from error


def _lists_in(path: Path, columns: Iterable[str]) -> Iterator[dict[str, Sequence[Any]]]:
    with path.open("rb") as file:
        for rows in read_batches(file, columns):
            if len(rows):
                yield {name: _as_stored(rows.column(name)).to_pylist() for name in columns}


def _as_stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert moments to texts, and lists to JSON."""
    if pa.types.is_timestamp(column.type):
        texts = column.cast(pa.timestamp("us")).cast(pa.string())
        return pc.binary_join_element_wise(pc.replace_substring(texts, " ", "T"), "Z", "")
    if pa.types.is_list(column.type):
        return pa.chunked_array([_jsons(part) for part in column.chunks], pa.string())
    return column


def _jsons(lists: pa.ListArray) -> pa.Array:
    if not pc.all(pc.match_substring_regex(lists.flatten(), _PLAIN), min_count=0).as_py():
        values = [None if value is None else json.dumps(value) for value in lists.to_pylist()]
        return pa.array(values, pa.string())
    joined = pc.binary_join_element_wise('["', pc.binary_join(lists, '", "'), '"]', "")
    return pc.if_else(pc.equal(pc.list_value_length(lists), 0), "[]", joined)


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
    """The files of one export of a mirror. `base` files replace earlier files instead of adding to them."""

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
                # Changes stay in one file: readers of a lake open few files, and exports add them often.
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
    rows = rows.combine_chunks()  # taking rows from many chunks takes ten times as long
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
"""Joins the parts of a key; no address contains it, so that different keys stay different."""


def holding(place: Place, manifest: Manifest, table: Table) -> Iterator[pa.Table]:
    """Yield the current rows of a table: those of the last export of their repository, user or project."""
    # A later export has all rows of what changed, so it takes the place of the earlier ones.
    newest = _newest(place, manifest, table) if table.key else None
    schema = schema_of(table)
    for file in manifest.tables.get(table.name, []):
        with place.open(file.path) as opened:
            for found in read_batches(opened):
                rows = _completed(found, schema)
                yield rows if newest is None else rows.filter(_are_newest(rows, table, newest))


def _newest(place: Place, manifest: Manifest, table: Table) -> pa.Table:
    """Return the last export, `seq_max`, of each `key` that was exported after the base."""
    (leader,) = [one for one in TABLES if one.name == (table.follows or table.name)]
    parts = list[pa.Table]()
    for file in manifest.tables.get(leader.name, []):
        if not file.base:
            with place.open(file.path) as opened:
                for found in read_batches(opened, [*leader.key, "seq"]):
                    rows = _completed(found, schema_of(leader))
                    parts.append(pa.table({"key": _keys(rows, leader.key), "seq": rows.column("seq")}))
    empty = pa.table({"key": pa.array([], pa.string()), "seq": pa.array([], pa.int64())})
    return pa.concat_tables([empty, *parts]).group_by("key").aggregate([("seq", "max")])


def _are_newest(rows: pa.Table, table: Table, newest: pa.Table) -> pa.Array:
    place = pc.index_in(_keys(rows, table.key), value_set=newest.column("key").combine_chunks())
    last = pc.take(newest.column("seq_max").combine_chunks(), place)
    return pc.fill_null(pc.equal(rows.column("seq").combine_chunks(), last), fill_value=True)


def _keys(rows: pa.Table, columns: tuple[str, ...]) -> pa.Array:
    parts = (pc.fill_null(rows.column(name).combine_chunks().cast(pa.string()), "") for name in columns)
    return pc.binary_join_element_wise(*parts, _BETWEEN)


def _completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the columns that an older version did not write, without values."""
    known = rows.schema.names
    columns = [
        rows.column(one.name) if one.name in known else pa.nulls(len(rows), one.type) for one in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
