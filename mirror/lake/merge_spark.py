"""Merge a lake with Apache Spark: `spark-submit merge_spark.py LAKE OUT`, with `merge.sql` beside this file.

LAKE and OUT are folders that all workers see, or any address that the cluster reads (s3a://, hdfs://). This
file needs pyspark alone, so that it can be sent to a cluster without the rest of the program.
"""

import json
import logging
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import concat_ws
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
}
"""What the merge relies on: moments in UTC, folders `mirror=ID` as texts, and one driver that looks for the
files of the manifests, where Spark would start a task for each.
"""

TYPES: dict[str, DataType] = {
    "string": StringType(),
    "int64": LongType(),
    "double": DoubleType(),
    "bool": BooleanType(),
    "timestamp[us, UTC]": TimestampType(),
    "list<string>": ArrayType(StringType()),
}

LATER: dict[str, DataType] = {"upstream": LongType(), "hidden_until": TimestampType()}
"""Columns that `merge.sql` reads, and that `_SCHEMA.json` does not have if an older version wrote it last."""

MERGED = (
    "repositories", "refs", "users", "members", "followers", "projects", "changes", "instances",
)  # fmt: skip

FAILURES = (Py4JError, PySparkException)
"""What Spark raises."""

CHECKSUM = (
    "CAST(coalesce(sum(CAST(conv(substr(md5({text}), 1, 12), 16, 10) AS DECIMAL(38, 0))), 0) AS STRING)"
)
MICROSECONDS = "unix_micros({moment})"


def merge(spark: SparkSession, lake: str, out: str, statements: list[str]) -> dict[str, Any]:
    """Run the merge, and write each table into a folder of OUT.

    Return the exports that were merged, as `mirrors`, and the number of `rows` by table.
    """
    for name, value in SETTINGS.items():
        spark.conf.set(name, value)
    manifests = [json.loads(text) for text in _texts(spark, f"{lake}/_manifests/mirror=*/latest.json")]
    if not manifests:
        sys.exit(f"{lake}: holds no export of a mirror")
    if len({one["mirror"] for one in manifests}) < len(manifests):  # its rows would count twice
        sys.exit(f"{lake}: has a copy of a manifest in _manifests; remove its folder")
    tables = json.loads(_texts(spark, f"{lake}/_SCHEMA.json")[0])["tables"]
    for name, table in tables.items():
        paths = [f"{lake}/{file['path']}" for one in manifests for file in one["tables"].get(name, [])]
        _rows(spark, f"{lake}/{name}", paths, table).createOrReplaceTempView(f"lake_{name}")
    for statement in statements:
        spark.sql(statement)
    for name in MERGED:
        spark.table(f"merged_{name}").write.mode("overwrite").parquet(f"{out}/{name}")
    return {
        "mirrors": [{name: one[name] for name in ("mirror", "seq", "moment")} for one in manifests],
        "rows": {name: spark.read.parquet(f"{out}/{name}").count() for name in MERGED},
    }


def merge_folder(
    lake: str, out: str, sql: str, checked: Mapping[str, str], *, master: str | None
) -> dict[str, Any]:
    """Merge in a session of its own; return what `merge` does, and the `checksums` of some tables."""
    builder = SparkSession.builder.appName("merge of a lake")
    with _own_interrupt():
        spark = (builder.master(master) if master else builder).getOrCreate()
    try:
        done = merge(spark, lake, out, statements_of(sql))
        sums = {
            name: str(ask(spark, out, f"SELECT {CHECKSUM.format(text=text)} FROM {name}")[0][0])
            for name, text in checked.items()
        }
        return {**done, "checksums": sums}
    finally:
        with suppress(*FAILURES, OSError):  # report what ended the merge, not what follows from it
            spark.stop()


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Restore the handler of Ctrl-C after Spark has begun."""
    # PySpark's own talks to Spark while another answer is read, and py4j logs the error with a traceback.
    before = signal.getsignal(signal.SIGINT)
    logging.getLogger().addHandler(logging.NullHandler())
    yield
    with suppress(ValueError):  # not in the main thread: PySpark has set none
        signal.signal(signal.SIGINT, before)


def statements_of(sql: str) -> list[str]:
    """Split SQL into its statements, without comments."""
    bare = re.sub(r"--[^\n]*", "", sql)
    return [statement.strip() for statement in bare.split(";") if statement.strip()]


def ask(spark: SparkSession, out: str, question: str) -> list[list[Any]]:
    """Run a query on a merged lake, by the names of its tables."""
    for name in MERGED:
        spark.read.parquet(f"{out}/{name}").createOrReplaceTempView(name)
    return [list(row) for row in spark.sql(question).collect()]


def _texts(spark: SparkSession, pattern: str) -> list[str]:
    """Read small files by Hadoop itself: Spark's readers skip names that begin with `_`."""
    java, files, path = _hadoop(spark, pattern)
    texts = []
    for found in files.globStatus(path) or ():
        stream = files.open(found.getPath())
        texts.append(str(java.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")))
        stream.close()
    return texts


def _hadoop(spark: SparkSession, name: str) -> tuple[Any, Any, Any]:
    """Return the classes of Java, the file system of an address, and the address as its path."""
    java: Any = spark._jvm  # noqa: SLF001 - there is no public way
    path = java.org.apache.hadoop.fs.Path(name)
    return java, path.getFileSystem(spark._jsc.hadoopConfiguration()), path  # noqa: SLF001


def _rows(spark: SparkSession, base: str, paths: list[str], table: dict[str, Any]) -> DataFrame:
    """Read the files of a table, with the columns of their folders; without files, it has no rows."""
    columns = LATER | {column["name"]: TYPES[column["type"]] for column in table["columns"]}
    columns |= dict.fromkeys(table["folders"], StringType())
    schema = StructType([StructField(name, kind) for name, kind in columns.items()])
    if not paths:
        return spark.createDataFrame([], schema)
    found = spark.read.schema(schema).option("basePath", base).parquet(*paths)
    # A further upstream of the same server counts as a mirror of its own.
    return found.withColumn("mirror", concat_ws("/", "mirror", found["upstream"].cast("string")))


def main() -> None:
    """Merge, print the number of rows by table, and write the list of sources last."""
    if len(sys.argv) != 3:
        sys.exit("usage: spark-submit merge_spark.py LAKE OUT")
    lake, out = (text.rstrip("/") for text in sys.argv[1:])
    spark = SparkSession.builder.appName("merge of a lake").getOrCreate()
    sql = Path(__file__).with_name("merge.sql").read_text("utf-8")
    # Without this file OUT counts as unfinished, so an old one goes first and the new one comes last.
    _, files, told = _hadoop(spark, f"{out}/_MERGED.json")
    files.delete(told, False)  # noqa: FBT003 - Java has no named arguments
    done = merge(spark, lake, out, statements_of(sql))
    print(json.dumps(done["rows"]))
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    stream = files.create(told)
    stream.write(bytearray(json.dumps({"out": out, "engine": "spark", "merged_at": at, **done}), "utf-8"))
    stream.close()
    spark.stop()


if __name__ == "__main__":
    main()
