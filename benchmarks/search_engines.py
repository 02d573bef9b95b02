"""The same counts and best twenty from other engines: plain scans, DuckDB, PostgreSQL, tantivy.

    python benchmarks/search.py --names names.tsv --keep search.db
    python benchmarks/search_engines.py search.db --queries 200

Needs the packages `duckdb`, `tantivy` and `psycopg`, and for PostgreSQL a running server, given by
`--postgresql 'host=... dbname=...'`; what is missing is left out. tantivy gets the trigrams of a name as
words and searches phrases, so that it answers from three characters on. All get normalised names only,
which spares them the cost of a repository's slug.
"""

import argparse
import importlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from search_corpus import make_queries

from mirror.search.names import normalise

Ask = Callable[[str], Any]
SAMPLE = 1000


def main() -> None:
    """Fill each engine from the file, run all queries, print milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("database", type=Path)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--postgresql", metavar="DSN", help="where a PostgreSQL server is")
    options = parser.parse_args()
    connection = sqlite3.connect(f"file:{options.database}?mode=ro", uri=True)
    rows = [
        (row_id, normalise(name), followers or 0)
        for row_id, name, followers in connection.execute(
            "SELECT id, name, followers_count FROM repositories WHERE deleted_at IS NULL ORDER BY id"
        )
    ]
    step = max(1, len(rows) // SAMPLE)
    queries = make_queries([row[1] for row in rows[::step]], options.queries)
    with tempfile.TemporaryDirectory() as folder:
        engines = [("LIKE", _like), ("instr", _instr), ("DuckDB", _duckdb), ("tantivy", _tantivy)]
        if options.postgresql:
            engines.append(("pg_trgm", partial(_postgresql, options.postgresql)))
        for name, make in engines:
            try:
                ask = make(rows, Path(folder))
            except ImportError as missing:
                print(f"{name:10} left out: {missing}")
                continue
            print(json.dumps({"engine": name, "repositories": len(rows), **_times(ask, queries)}))


def _times(ask: Ask, queries: list[str]) -> dict[str, float]:
    """Run a query again if the first run was fast, as `benchmarks/search.py` does."""
    times = []
    for query in map(normalise, queries):
        for _ in range(2):
            begun = time.perf_counter()
            answer = ask(query)
            seconds = time.perf_counter() - begun
            if seconds > 0.2:
                break
        if answer is not None:
            times.append(seconds * 1000)
    times.sort()
    return {
        "queries": len(times),
        "p50_ms": round(times[len(times) // 2], 3),
        "p99_ms": round(times[len(times) * 99 // 100], 3),
    }


_SCAN = """SELECT id, count(*) OVER () FROM names WHERE {}
    ORDER BY CASE WHEN name = ?2 THEN 0 WHEN substr(name, 1, length(?2)) = ?2 THEN 1 ELSE 2 END,
        followers DESC, id LIMIT 20"""


def _sqlite(rows: list[Any], path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT, followers INTEGER)")
    connection.executemany("INSERT INTO names VALUES (?, ?, ?)", rows)
    connection.commit()
    return connection


def _like(rows: list[Any], folder: Path) -> Ask:
    connection = _sqlite(rows, folder / "like.db")
    query = _SCAN.format("name LIKE ?1 ESCAPE '!'")
    return lambda part: connection.execute(query, (f"%{_escaped(part)}%", part)).fetchall()


def _escaped(part: str) -> str:
    return "".join("!" + letter if letter in "!%_" else letter for letter in part)


def _instr(rows: list[Any], folder: Path) -> Ask:
    connection = _sqlite(rows, folder / "instr.db")
    return lambda part: connection.execute(_SCAN.format("instr(name, ?1)"), (part, part)).fetchall()


def _duckdb(rows: list[Any], folder: Path) -> Ask:
    duckdb: Any = importlib.import_module("duckdb")
    source = folder / "names.csv"
    source.write_text("".join(f'{row[0]},"{row[1].replace(chr(34), "")}",{row[2]}\n' for row in rows))
    connection = duckdb.connect()
    columns = "{'id': 'BIGINT', 'name': 'VARCHAR', 'followers': 'BIGINT'}"
    connection.execute(
        f"CREATE TABLE names AS SELECT * FROM read_csv('{source}', columns = {columns}, header = false)"
    )
    query = """SELECT id, count(*) OVER () FROM names WHERE contains(name, $1)
        ORDER BY CASE WHEN name = $1 THEN 0 WHEN starts_with(name, $1) THEN 1 ELSE 2 END, followers DESC, id
        LIMIT 20"""
    return lambda part: connection.execute(query, [part]).fetchall()


def _postgresql(dsn: str, rows: list[Any], _: Path) -> Ask:
    psycopg: Any = importlib.import_module("psycopg")
    connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
    connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    connection.execute("CREATE TEMPORARY TABLE names (id BIGINT, name TEXT, followers BIGINT)")
    with connection.cursor().copy("COPY names FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.execute("CREATE INDEX ON names USING gin (name gin_trgm_ops)")
    connection.execute("ANALYZE names")
    query = """SELECT id, count(*) OVER () FROM names WHERE name LIKE %(pattern)s ESCAPE '!'
        ORDER BY CASE WHEN name = %(part)s THEN 0 WHEN starts_with(name, %(part)s) THEN 1 ELSE 2 END,
            followers DESC, id LIMIT 20"""
    return lambda part: connection.execute(query, {"pattern": f"%{_escaped(part)}%", "part": part}).fetchall()


def _tantivy(rows: list[Any], folder: Path) -> Ask:
    tantivy: Any = importlib.import_module("tantivy")
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("id", stored=True)
    builder.add_integer_field("followers", fast=True)
    builder.add_text_field("name", tokenizer_name="whitespace", index_option="position")
    schema = builder.build()
    (folder / "tantivy").mkdir()
    index = tantivy.Index(schema, str(folder / "tantivy"))
    writer = index.writer(200_000_000, num_threads=1)
    for row_id, name, followers in rows:
        writer.add_document(tantivy.Document(id=row_id, followers=followers, name=" ".join(_trigrams(name))))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def ask(part: str) -> Any:
        words = _trigrams(part)
        if not words:
            return None
        query = (
            tantivy.Query.phrase_query(schema, "name", words)
            if len(words) > 1
            else tantivy.Query.term_query(schema, "name", words[0])
        )
        return searcher.search(query, 20, count=True, order_by_field="followers")

    return ask


def _trigrams(name: str) -> list[str]:
    return [name[at : at + 3] for at in range(len(name) - 2)]


if __name__ == "__main__":
    main()
