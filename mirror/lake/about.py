"""The files of a lake that tell people and programs what it is: `README.md` and `_SCHEMA.json`."""

import json
from pathlib import Path

import msgspec

from mirror.errors import ConfigError, StoreError
from mirror.lake.columns import BUCKETS, LAYOUT, TABLES, Table
from mirror.lake.place import STAGING, Place

SCHEMA = "_SCHEMA.json"

README = """\
# A lake of Bitbucket mirrors

Each mirror writes below its own folders `TABLE/mirror=ID/`; refs are in {buckets} buckets, by
`crc32(uuid) % {buckets}`. `_manifests/mirror=ID/latest.json` names the files of the mirror's last export.
Take those and no others: files that it does not name are about to be removed, or belong to an export that is
not done.

Identity is `(instance, uuid)`. Times are UTC. `_SCHEMA.json` tells every column.

Rows are added, never changed. Of `repositories`, `users`, `projects` and `listings` the row of the highest
`seq` holds, for each mirror and identity; of `refs`, `followers` and `members` those rows whose `seq` is that
of the row they belong to.

With DuckDB, from this folder:

    SET VARIABLE files = (SELECT list(file.path) FROM (SELECT unnest(tables.repositories) AS file
        FROM read_json('_manifests/*/latest.json')));
    CREATE VIEW repositories AS SELECT * FROM read_parquet(getvariable('files'), hive_partitioning = true,
        hive_types = {{'mirror': VARCHAR}}, union_by_name = true)
        QUALIFY row_number() OVER (PARTITION BY mirror, instance, uuid ORDER BY seq DESC) = 1;
    SELECT instance, full_name, is_private, deleted_at FROM repositories LIMIT 10;

`mirror lake merge DIR OUT` makes one row of each repository, whatever number of mirrors has it.
"""


class _Schema(msgspec.Struct):
    layout: int


def check_place(place: Place) -> None:
    """Refuse a place whose files are somebody else's, or of another layout; raises ConfigError, StoreError.

    `_SCHEMA.json` tells that it is a lake, and so do manifests. Before the first export is done, nothing else
    is there than what an export begins with.
    """
    text = place.read(SCHEMA)
    if text is None:
        names = place.names()
        ours = {table.name for table in TABLES}
        others = sorted(name for name in names - ours if not name.startswith(STAGING))
        if others and "_manifests" not in names:
            raise ConfigError(f"{place}: has other files ({others[0]}), and is no lake; give an empty folder")
        return
    try:
        layout = msgspec.json.decode(text, type=_Schema).layout
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigError(f"{place}/{SCHEMA}: is not that of a lake; give an empty folder") from None
    if layout != LAYOUT:
        raise StoreError(f"{place}: is of layout {layout}, and this program knows {LAYOUT}")


def write_about(place: Place, staging: Path) -> None:
    """Write both files, where they are not there as they should be."""
    texts = {SCHEMA: schema_text(), "README.md": README.format(buckets=BUCKETS)}
    for name, text in texts.items():
        if place.read(name) != text.encode():
            place.write(staging, name, text.encode())


def schema_text() -> str:
    """Return the text of `_SCHEMA.json`."""
    tables = {table.name: _described(table) for table in TABLES}
    return json.dumps({"layout": LAYOUT, "buckets": BUCKETS, "tables": tables}, indent=1) + "\n"


def _described(table: Table) -> dict[str, object]:
    kinds = {"moment": "timestamp[us, UTC]", "texts": "list<string>", "flag": "bool", "number": "double"}
    types = {**kinds, "integer": "int64", "text": "string", "instance": "string"}
    return {
        "about": table.about,
        "folders": ["mirror", "bucket"] if table.in_buckets else ["mirror"],
        "rows_follow": table.follows,
        "columns": [
            {"name": column.name, "type": types[column.kind], "about": column.about}
            for column in table.columns
        ],
    }
