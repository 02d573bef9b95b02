"""Which rows of a lake hold: for each repository, user, project and listing those of its last export."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mirror.lake.columns import TABLES, Table
from mirror.lake.manifest import Manifest
from mirror.lake.parquet import read_batches, read_columns
from mirror.lake.place import Place

_BETWEEN = "\t"
"""Stands in no address, so that two keys put together differ where one of them does."""


def holding(place: Place, manifest: Manifest, table: Table) -> Iterator[pa.Table]:
    """Yield the rows of a table that hold, in the order of the files."""
    newest = _newest(place, manifest, table) if table.key else None
    for file in manifest.tables.get(table.name, []):
        with place.open(file.path) as opened:
            for rows in read_batches(opened):
                yield rows if newest is None else rows.filter(_holds(rows, table, newest))


def _newest(place: Place, manifest: Manifest, table: Table) -> pa.Table:
    """Return the last export, `seq_max`, of each `key` that was exported since the base."""
    (leader,) = [one for one in TABLES if one.name == (table.follows or table.name)]
    parts = list[pa.Table]()
    for file in manifest.tables.get(leader.name, []):
        if not file.base:
            with place.open(file.path) as opened:
                rows = read_columns(opened, (*leader.key, "seq"))
            parts.append(pa.table({"key": _keys(rows, leader.key), "seq": rows.column("seq")}))
    empty = pa.table({"key": pa.array([], pa.string()), "seq": pa.array([], pa.int64())})
    return pa.concat_tables([empty, *parts]).group_by("key").aggregate([("seq", "max")])


def _holds(rows: pa.Table, table: Table, newest: pa.Table) -> pa.Array:
    place = pc.index_in(_keys(rows, table.key), value_set=newest.column("key").combine_chunks())
    last = pc.take(newest.column("seq_max").combine_chunks(), place)
    return pc.fill_null(pc.equal(rows.column("seq").combine_chunks(), last), fill_value=True)


def _keys(rows: pa.Table, columns: tuple[str, ...]) -> pa.Array:
    return pc.binary_join_element_wise(*(rows.column(name).combine_chunks() for name in columns), _BETWEEN)
