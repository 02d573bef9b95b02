"""Merge the mirrors of a lake by `merge.sql`: with DuckDB on this machine, or with Spark on many."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from mirror.errors import ConfigError, StoreError
from mirror.lake import address_of
from mirror.lake.columns import TABLES, Kind, Table
from mirror.lake.place import Manifest, Place, is_whole, read_all
from mirror.store.faults import explained
from mirror.store.lock import held, sync_to_disk
from mirror.times import to_text, utc_now

Engine = Literal["duckdb", "spark"]

MERGED = "_MERGED.json"
"""Marks a folder as a merged lake, and lists its sources; it is written last."""

OUTPUT = ("repositories", "refs", "users", "members", "followers", "projects", "changes", "instances")

CHECKED = {
    "repositories": "concat_ws('|', instance, uuid, full_name, CAST(is_private AS INT), CAST(gone AS INT),"
    " {micros})",
    "refs": "concat_ws('|', instance, repository_uuid, kind, name, target_hash)",
}
"""The expression behind the checksum of a table; every engine computes the same number in any order."""

_Done = tuple[list["MergedSource"], dict[str, int], dict[str, str]]
"""The result of an engine: the exports that it read, rows by table, checksums."""

_DUCKDB_TYPES: Mapping[Kind, str] = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "flag": "BOOLEAN",
    "moment": "TIMESTAMPTZ",
    "texts": "VARCHAR[]",
    "instance": "VARCHAR",
    "upstream": "BIGINT",
}
_DUCKDB_SUM = "CAST(coalesce(sum(CAST('0x' || substr(md5({text}), 1, 12) AS BIGINT)), 0) AS VARCHAR)"


class MergedSource(msgspec.Struct, frozen=True, kw_only=True):
    """An export that was merged."""

    mirror: str
    seq: int
    moment: str | None


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a merge: rows by table, and checksums of repositories and refs, equal for all engines.

    A merge by spark-submit has no checksums.
    """

    out: str
    engine: Engine
    merged_at: str
    mirrors: list[MergedSource]
    rows: dict[str, int]
    checksums: dict[str, str] = {}

    @property
    def text(self) -> str:
        """The result in one line."""
        sums = " ".join(self.checksums.values())
        return (
            f"{self.out}: {self.rows['repositories']:,} repositories and {self.rows['refs']:,} refs"
            f" of {len(self.mirrors):,} mirror{'' if len(self.mirrors) == 1 else 's'},"
            f" {self.merged_at[:16]}Z; checksums {sums}"
        )


def merge(
    lake: str,
    out: Path,
    engine: Engine,
    *,
    memory: str | None = None,
    master: str | None = None,
) -> Merged:
    """Merge the last exports of all mirrors of a lake into the folder `out`, which is replaced as a whole.

    `memory` limits DuckDB's memory, in DuckDB's notation (`4GB`); `master` is the address of Spark's master.
    Raises ConfigError for folders that cannot be used or an engine that is not installed, StoreLocked while
    another process merges into the same folder, and StoreError.
    """
    if (memory and engine != "duckdb") or (master and engine != "spark"):
        raise ConfigError("--memory is for --engine duckdb, and --master for --engine spark")
    address = address_of(lake)
    if not address.is_folder:
        raise ConfigError(
            f"{address.text}: a merge reads a folder; copy the lake (aws s3 sync), or give"
            " contrib/lake/merge_spark.py to spark-submit"
        )
    place, folder, out = Place(lake), Path(address.text), Path(os.path.realpath(out))
    _check_replaceable(out, address.text)
    manifests = read_all(place)
    if not manifests:
        raise ConfigError(f"{place}: holds no export of a mirror; `mirror export parquet {place}` makes one")
    _check_whole(place, manifests)
    with held(out.with_name(f"{out.name}.lock"), f"merging into {out}"), _replacing(out) as part:
        if engine == "duckdb":
            mirrors, rows, checksums = _by_duckdb(place, manifests, part, memory)
        else:
            mirrors, rows, checksums = _by_spark(folder, part, master)
        merged = Merged(
            out=str(out),
            engine=engine,
            merged_at=to_text(utc_now()),
            mirrors=mirrors,
            rows=rows,
            checksums=checksums,
        )
        with explained(out):
            (part / MERGED).write_bytes(msgspec.json.format(msgspec.json.encode(merged)) + b"\n")
    return merged


def _check_replaceable(out: Path, lake: str) -> None:
    """Raise ConfigError unless `out` is outside of the lake, and nothing but a merged lake is replaced."""
    folder = Path(lake)
    if out == folder or out in folder.parents or folder in out.parents:
        raise ConfigError(f"{out}: the merged lake must be outside of {lake}; give another folder")
    if out.exists() and not (out / MERGED).exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out}: exists, and is not a merged lake; give another folder")


def read_merged(folder: Path) -> Merged:
    """Read the description of a merged lake; raises ConfigError if the folder is not one."""
    try:
        return msgspec.json.decode((folder / MERGED).read_bytes(), type=Merged)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{folder}: not a merged lake; `mirror lake merge DIR {folder}` makes one"
        ) from error


def sql_text() -> str:
    """Return `merge.sql`."""
    return Path(__file__).with_name("merge.sql").read_text("utf-8")


def _check_whole(place: Place, manifests: list[Manifest]) -> None:
    """Raise StoreError for a lost file. Engines would wait for ever for the writer of a named pipe."""
    for one in manifests:
        if not is_whole(place, one):
            raise StoreError(
                f"{place}: files of {one.mirror} are gone; `mirror export parquet` there writes them again"
            )


def _by_duckdb(place: Place, manifests: list[Manifest], part: Path, memory: str | None) -> _Done:
    try:
        import duckdb  # noqa: PLC0415
    except ImportError:
        raise ConfigError("--engine duckdb needs DuckDB: pip install duckdb") from None
    try:
        with closing(duckdb.connect()) as connection:
            if memory:
                _limit_memory(connection, memory)
            _write_merged(connection, Path(place.root), manifests, part)
            rows = {
                name: _first_value(connection, f"SELECT count(*) FROM {_merged_file(part, name)}")
                for name in OUTPUT
            }
            checksums = {
                name: str(
                    _first_value(
                        connection, f"SELECT {_DUCKDB_SUM.format(text=text)} FROM {_merged_file(part, name)}"
                    )
                )
                for name, text in _checksum_sql("epoch_us({moment})").items()
            }
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except duckdb.Error as error:
        _check_whole(place, manifests)
        raise StoreError(f"{place}: cannot be merged: {_first_line(str(error))}") from error
    except RuntimeError as error:  # raised by DuckDB on Ctrl-C
        if "interrupt" not in str(error).lower():
            raise
        raise KeyboardInterrupt from error
    shutil.rmtree(part / "_spilled", ignore_errors=True)
    mirrors = [MergedSource(mirror=one.mirror, seq=one.seq, moment=one.moment) for one in manifests]
    return mirrors, rows, checksums


def _write_merged(connection: Any, lake: Path, manifests: list[Manifest], part: Path) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")  # true would hold all rows in memory
    connection.execute(f"SET temp_directory = {_quoted(str(part / '_spilled'))}")
    for table in TABLES:
        connection.execute(f"CREATE VIEW lake_{table.name} AS {_rows(table, lake, manifests)}")
    # Three tables use `verdicts`: DuckDB would compute a view three times.
    connection.execute(sql_text().replace("VIEW verdicts", "TABLE verdicts"))
    for name in OUTPUT:
        (part / name).mkdir()
        connection.execute(
            f"""COPY (SELECT * FROM merged_{name}) TO {_quoted(str(part / name / "part-0.parquet"))}
                (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"""
        )


def _limit_memory(connection: Any, memory: str) -> None:
    import duckdb  # noqa: PLC0415

    try:
        connection.execute(f"SET memory_limit = {_quoted(memory)}")
    except duckdb.Error as error:
        raise ConfigError(f"--memory {memory}: {_first_line(str(error))}") from error


def _by_spark(lake: Path, part: Path, master: str | None) -> _Done:
    try:
        from mirror.lake import merge_spark  # noqa: PLC0415
    except ImportError:
        raise ConfigError("--engine spark needs PySpark 4 and Java 17: pip install pyspark") from None
    try:
        done = merge_spark.merge_folder(
            str(lake), str(part), sql_text(), _checksum_sql(merge_spark.MICROSECONDS), master=master
        )
    except merge_spark.FAILURES as error:
        line = str(error).strip().partition("\n")[0][:300]
        raise StoreError(f"{lake}: cannot be merged by Spark: {line}") from error
    return [MergedSource(**one) for one in done["mirrors"]], done["rows"], done["checksums"]


def _first_line(said: str) -> str:
    """Return DuckDB's message in one line. Some of its messages are JSON that contains the reason."""
    reason = re.search(r'"exception_message":("(?:[^"\\]|\\.)*")', said)
    text: str = json.loads(reason[1]) if reason else said
    return text.strip().partition("\n")[0][:300]


def _checksum_sql(micros: str) -> Mapping[str, str]:
    """Return the expressions behind the checksums in the SQL of an engine."""
    moment = micros.format(moment="last_seen_at")
    return {name: text.format(micros=moment) for name, text in CHECKED.items()}


def _rows(table: Table, lake: Path, manifests: list[Manifest]) -> str:
    """Return the query of all rows of a table with their mirror; without files, it has no rows.

    A further upstream of the same server counts as a mirror of its own. The mirror is a constant, not read
    from the path: a folder above the lake may also be called `name=other`.
    """
    columns = [f"CAST(NULL AS {_DUCKDB_TYPES[column.kind]}) AS {column.name}" for column in table.columns]
    queries = [f"SELECT {', '.join(columns)}, CAST(NULL AS VARCHAR) AS mirror WHERE false"]
    for one in manifests:
        if paths := [_exactly(lake / file.path) for file in one.tables.get(table.name, [])]:
            source = f"read_parquet([{', '.join(paths)}], union_by_name = true, hive_partitioning = false)"
            queries.append(f"SELECT *, {_quoted(one.mirror)} AS mirror FROM {source}")
    together = " UNION ALL BY NAME ".join(queries)
    return f"SELECT * REPLACE (concat_ws('/', mirror, upstream) AS mirror) FROM ({together})"


def _merged_file(part: Path, name: str) -> str:
    return f"read_parquet({_exactly(part / name / 'part-0.parquet')}, hive_partitioning = false)"


def _first_value(connection: Any, sql: str) -> int:
    found: int = connection.execute(sql).fetchone()[0]
    return found


def _exactly(path: Path) -> str:
    """Quote the path of a file, and escape the wildcards of DuckDB."""
    return _quoted(re.sub(r"[*?[]", r"[\g<0>]", str(path)))


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `out` at the end.

    For a moment there is no `out`. If a process ended in that moment, the old folder is moved back first.
    """
    part, old = (out.with_name(f"{out.name}.{end}") for end in ("part", "old"))
    with explained(part):
        _put_back(out, old)
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir()
    try:
        yield part
        with explained(out):
            shutil.rmtree(old, ignore_errors=True)
            if out.exists():
                out.rename(old)
            part.rename(out)
            sync_to_disk(out.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _put_back(out, old)
        shutil.rmtree(old, ignore_errors=True)


def _put_back(out: Path, old: Path) -> None:
    if old.exists() and not out.exists():
        old.rename(out)
