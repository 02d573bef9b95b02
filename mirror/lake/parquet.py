"""Convert rows of SQLite to Arrow, and write and read Parquet files."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mirror.errors import ConfigError, StoreError
from mirror.lake.columns import Column, Table
from mirror.times import from_text

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise ConfigError("a lake needs pyarrow: pip install 'bitbucket-mirror[lake]'") from None

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
}

_LISTED = r'^\[("[0-9A-Za-z]*"(, "[0-9A-Za-z]*")*)?\]$'
"""A list of hashes as the store writes it, which can be taken apart without a parser."""

_PLAIN = "^[0-9A-Za-z]*$"
"""A text that JSON only puts between quotes."""

_ALL_DIFFERENT = ("uuid", "target_hash", "target_parents.list.element", "target_message", "description")
"""Columns in which values hardly repeat: a dictionary of them would be built and thrown away."""


def schema_of(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table; files say what their columns mean."""
    return pa.schema(
        [
            pa.field(column.name, TYPES[column.kind], metadata={"about": column.about})
            for column in table.columns
        ]
    )


def batches(
    table: Table, rows: Iterator[Sequence[tuple[Any, ...]]], *, seq: int, instances: Mapping[int, str]
) -> Iterator[pa.Table]:
    """Turn lists of rows, whose values are those that the table's columns read, into Arrow tables."""
    schema = schema_of(table)
    for part in rows:
        values = iter(zip(*part, strict=True))
        arrays = [
            _array(column, next(values), instances)
            if column.sql is not None
            else _filled(column, seq, len(part))
            for column in table.columns
        ]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _filled(column: Column, seq: int, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(seq if column.name == "seq" else "upsert", TYPES[column.kind]), count)


def _array(column: Column, values: Sequence[Any], instances: Mapping[int, str]) -> pa.Array:
    kind = TYPES[column.kind]
    if column.kind == "instance":
        return pa.array([instances[value] for value in values], kind)
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
            use_dictionary=[
                field.name for field in schema if not field.name.startswith(_ALL_DIFFERENT[:3])
                and field.name not in _ALL_DIFFERENT
            ],
        )  # fmt: skip

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
    for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=None if columns is None else [*columns]):
        yield pa.Table.from_batches([batch])


def read_lists(folder: Path, columns: Iterable[str]) -> Iterator[dict[str, Sequence[Any]]]:
    """Yield the rows of all files of a folder by column, with moments and lists as a mirror stores them.

    Raises StoreError for a file that does not belong to a lake.
    """
    for path in sorted(folder.glob("*.parquet")):
        try:
            with path.open("rb") as file:
                for rows in read_batches(file, columns):
                    if len(rows):
                        yield {name: _as_stored(rows.column(name)).to_pylist() for name in columns}
        except (pa.ArrowInvalid, KeyError) as error:
            raise StoreError(f"{path}: not a file of a merged lake") from error


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
