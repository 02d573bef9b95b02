"""Merge a lake with Apache Spark: `spark-submit merge_spark.py LAKE OUT`, with `merge.sql` beside this file.

LAKE and OUT are folders that all workers see, or any address that the cluster reads (s3a://, hdfs://). This
file needs pyspark alone, so that it can be sent to a cluster without the rest of the program.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
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
"""What the merge relies on: moments in UTC, and folders `mirror=ID` that are texts. The driver looks at the
files that the manifests name; Spark would start a task for each.
"""

TYPES: dict[str, DataType] = {
    "string": StringType(),
    "int64": LongType(),
    "double": DoubleType(),
    "bool": BooleanType(),
    "timestamp[us, UTC]": TimestampType(),
    "list<string>": ArrayType(StringType()),
}

MERGED = (
    "repositories", "refs", "users", "members", "followers", "projects", "changes", "instances",
)  # fmt: skip

FAILURES = (Py4JError, PySparkException)
"""What Spark raises."""

CHECKSUM = "CAST(sum(CAST(conv(substr(md5({text}), 1, 12), 16, 10) AS DECIMAL(38, 0))) AS STRING)"
MICROSECONDS = "unix_micros({moment})"


def merge(spark: SparkSession, lake: str, out: str, statements: list[str]) -> dict[str, int]:
    """Run the merge, and write each table into a folder of OUT; return how many rows each has."""
    for name, value in SETTINGS.items():
        spark.conf.set(name, value)
    manifests = [json.loads(text) for text in _texts(spark, f"{lake}/_manifests/mirror=*/latest.json")]
    tables = json.loads(_texts(spark, f"{lake}/_SCHEMA.json")[0])["tables"]
    for name, table in tables.items():
        paths = [f"{lake}/{file['path']}" for one in manifests for file in one["tables"].get(name, [])]
        _rows(spark, f"{lake}/{name}", paths, table).createOrReplaceTempView(f"lake_{name}")
    for statement in statements:
        spark.sql(statement)
    for name in MERGED:
        spark.table(f"merged_{name}").write.mode("overwrite").parquet(f"{out}/{name}")
    return {name: spark.read.parquet(f"{out}/{name}").count() for name in MERGED}


def merge_folder(
    lake: str, out: str, sql: str, checked: Mapping[str, str], *, master: str | None
) -> tuple[dict[str, int], dict[str, str]]:
    """Merge in a session of its own; return the rows of each table, and the checksums of some."""
    builder = SparkSession.builder.appName("merge of a lake")
    spark = (builder.master(master) if master else builder).getOrCreate()
    try:
        rows = merge(spark, lake, out, statements_of(sql))
        return rows, {
            name: str(ask(spark, out, f"SELECT {CHECKSUM.format(text=text)} FROM {name}")[0][0])
            for name, text in checked.items()
        }
    finally:
        spark.stop()


def statements_of(sql: str) -> list[str]:
    """Take a file of SQL apart into its statements."""
    bare = re.sub(r"--[^\n]*", "", sql)
    return [statement.strip() for statement in bare.split(";") if statement.strip()]


def ask(spark: SparkSession, out: str, question: str) -> list[list[Any]]:
    """Ask a question of a merged lake, whose tables are called by their names."""
    for name in MERGED:
        spark.read.parquet(f"{out}/{name}").createOrReplaceTempView(name)
    return [list(row) for row in spark.sql(question).collect()]


def _texts(spark: SparkSession, pattern: str) -> list[str]:
    """Read small files. By Hadoop itself, since Spark's readers pass over names that begin with `_`."""
    java: Any = spark._jvm  # noqa: SLF001 - there is no other way to them
    path = java.org.apache.hadoop.fs.Path(pattern)
    files = path.getFileSystem(spark._jsc.hadoopConfiguration())  # noqa: SLF001
    texts = []
    for found in files.globStatus(path):
        stream = files.open(found.getPath())
        texts.append(str(java.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")))
        stream.close()
    return texts


def _rows(spark: SparkSession, base: str, paths: list[str], table: dict[str, Any]) -> DataFrame:
    """Read the files of a table, with the columns of their folders; none are a table without rows."""
    columns = [StructField(column["name"], TYPES[column["type"]]) for column in table["columns"]]
    schema = StructType(columns + [StructField(name, StringType()) for name in table["folders"]])
    if not paths:
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).option("basePath", base).parquet(*paths)


def main() -> None:
    """Merge, and print how many rows there are."""
    lake, out = (text.rstrip("/") for text in sys.argv[1:3])
    spark = SparkSession.builder.appName("merge of a lake").getOrCreate()
    sql = Path(__file__).with_name("merge.sql").read_text("utf-8")
    print(json.dumps(merge(spark, lake, out, statements_of(sql))))
    spark.stop()


if __name__ == "__main__":
    main()
