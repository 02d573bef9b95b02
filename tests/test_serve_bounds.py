"""What visitors' SQL may call and build: harmless functions, and limited values and memory."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from asgi_client import AsgiClient, bearer, client_of
from fixtures_db import fill_public

from mirror.serve.guarded_database import mirrors
from mirror.serve.sql_access import Reach, restrict
from mirror.serve.sql_limits import (
    LONGEST_COPIED,
    LONGEST_VALUE,
    MOST_FUNCTIONS,
    MOST_PATTERNS,
    BoundedConnection,
    copies,
    own_memory,
)
from mirror.store import tokens

TOKEN = "sesame"


def chain(levels: int, uses: int) -> str:
    """Common table expressions, each of which uses the previous one several times."""
    ctes = ["c0(x) as (select 1)"]
    ctes += [f"c{n}(x) as (select 1 from {', '.join([f'C{n - 1}'] * uses)})" for n in range(1, levels)]
    return f"with {', '.join(ctes)} select * from c{levels - 1}"


NUMBERS = "with recursive c(x) as (select 1 union all select x + 1 from c)"
REFUSED = {
    "a function over a long value": "select instr(zeroblob(4000000), x'01')",
    "a value of gigabytes": "select hex(zeroblob(400000000))",
    "random bytes": "select randomblob(1000000000)",
    "a replacement that grows": "select replace(hex(zeroblob(100000)), '0', hex(zeroblob(100000)))",
    "a long pattern": "select 'a' like replace(hex(zeroblob(100)), '0', '%a')",
    "many patterns": f"select {' or '.join([chr(39) + 'a' + chr(39) + ' like 1'] * (MOST_PATTERNS + 1))}",
    "many functions": f"select {' + '.join(['abs(1)'] * 150)}, {' + '.join(['abs(1)'] * 51)}",
    "many copies": chain(14, 3),
    "a deep expression": f"select {'1 + ' * 900}1",
    "many selects": f"select 1 {'union all select 1 ' * 400}",
    "a long statement": f"select '{'a' * 20000}'",
    "memory that an aggregate takes": f"{NUMBERS} select json_group_array(hex(zeroblob(100000))) from c",
    "memory that rows take": f"{NUMBERS} select {', '.join(['zeroblob(249000)'] * 100)} from c",
    "rows of megabytes": f"{NUMBERS} select zeroblob(200000) from c limit 101",
    "statements of others": "select * from sqlite_stmt",
    "statements of others, counted": "select count(*) from sqlite_stmt",
    "pages of the file": "select * from dbstat",
    "the path of the file": "select * from pragma_database_list",
    "all functions": "select * from pragma_function_list",
    "an extension": "select load_extension('x')",
    "a pointer": "select fts3_tokenizer('simple')",
    "the log": "select sqlite_log(1, 'x')",
    "hashes of tokens": "select token_hash from api_tokens natural full join (select 1 as token_hash)",
    "a quadratic merge": "select json_patch('{}', '{}')",
}
ALLOWED = {
    "tables as values": "select value from json_each('[1]')",
    "columns": "select name from pragma_table_info('repositories')",
    "a plan": "explain query plan select * from repositories",
    "a chain": chain(20, 1),
    "several uses": chain(5, 3),
    "rows of many kilobytes": f"{NUMBERS} select zeroblob(20000) from c limit 100",
    "a series": f"{NUMBERS} select x from c limit 10",
    "the search": "select mirror_search('piston'), mirror_search_count('piston')",
    "usual functions": "select upper('a'), round(1.5), strftime('%Y', 'now'), json_extract('[1]', '$[0]')",
    "texts with words of joins": "select name from repositories where name not like '%natural text% using %'",
    "a join by a name": "select count(*) from branches join tags using (repository_id)",
    "a join of values": "select count(*) from json_each('[1]') as a join json_each('[1]') as b using (key)",
    "an aggregate": "select group_concat(full_name), json_group_array(slug), max(size) from repositories",
    "a window": "select row_number() over (order by id) from repositories",
}


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> tuple[AsgiClient, dict[str, str]]:
    """A public mirror, and the headers of somebody with a token."""
    path = tmp_path_factory.mktemp("public") / "mirror.db"
    filled = fill_public(path)
    token = tokens.create(filled.store, TOKEN, "read")
    filled.store.close()
    return client_of(path), bearer(token)


@pytest.mark.parametrize("sql", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("known", [False, True])
def test_expensive_or_revealing_sql_is_refused(
    public: tuple[AsgiClient, dict[str, str]], sql: str, *, known: bool
) -> None:
    """With the same limits for strangers and token holders; the server keeps answering."""
    served, headers = public
    answer = served.get("/mirror.json", params={"sql": sql}, headers=headers if known else {})
    assert answer.status_code == 400
    assert served.get("/2.0/repositories/jespern/django-piston").status_code == 200


def test_what_the_program_itself_reads_may_be_large() -> None:
    """The functions of SQL read many rows, and return few. Only what a visitor gets is counted."""
    large = f"{NUMBERS} SELECT zeroblob(249000) FROM c LIMIT 100"
    with closing(sqlite3.connect(":memory:", factory=BoundedConnection)) as connection:
        with connection.trusted():
            assert len(connection.execute(large).fetchall()) == 100
        with pytest.raises(sqlite3.OperationalError, match="larger than"):
            connection.execute(large).fetchall()


@pytest.mark.parametrize("reach", [Reach.EVERYTHING, Reach.SCHEMA])
def test_no_join_reads_what_a_plugin_has_used(reach: Reach) -> None:
    """SQLite itself refuses virtual tables of which a connection makes no use before it is restricted."""
    columns = {"sqlite_stmt": "sql", "pragma_database_list": "file", "api_tokens": "token_hash"}
    if reach is Reach.SCHEMA:
        columns["repositories"] = "name"
    with closing(sqlite3.connect(":memory:", factory=BoundedConnection)) as connection:
        connection.executescript("CREATE TABLE api_tokens (token_hash); CREATE TABLE repositories (name)")
        for table in columns:
            connection.execute(f"SELECT 1 FROM {table}").fetchall()
        restrict(connection, reach, ())
        for table, column in columns.items():
            with pytest.raises(sqlite3.OperationalError, match="join by ON"):
                connection.execute(
                    f"SELECT {column} FROM (SELECT 1 AS {column}) FULL JOIN {table} USING ({column})"
                )


@pytest.mark.parametrize("sql", ALLOWED.values(), ids=ALLOWED.keys())
def test_ordinary_sql_is_answered(public: tuple[AsgiClient, dict[str, str]], sql: str) -> None:
    """The usual statements of Datasette's users."""
    served, _ = public
    assert served.json("/mirror.json", params={"sql": sql, "_shape": "array"})


@pytest.mark.parametrize(
    ("sql", "most"),
    [
        ("select 1", 1),
        ("with a as (select 1) select * from a", 1),
        ("with a as (select 1), b as (select * from a, a, a) select * from b, b", 6),
        ("with a(x, y) as not materialized (select 1, 2) select a.x, a.y from a", 1),
        ('with "a""b" as (select 1) select * from [a"b], `a"b`, \'a"b\'', 3),
        ("with a/* as */ as -- (\n ( select 1) select * from A, a", 2),
        ("with recursive n(x) as (select 1 union all select x + 1 from n) select * from n", 2),
        ("with a as (with b as (select 1) select * from b, b) select * from a, a", 4),
        ("with \ufeffa as \ufeff(select 1) select * from \ufeffa, a", 2),
    ],
)
def test_references_to_common_table_expressions_are_counted(sql: str, most: int) -> None:
    """However their names are written."""
    assert copies(sql) == most


def test_estimated_copies_are_never_fewer_than_sqlite_makes() -> None:
    """SQLite's authorizer is called once for each select that it prepares, copies included."""
    for levels, uses in ((3, 2), (4, 3), (6, 2)):
        with closing(sqlite3.connect(":memory:")) as connection:
            asked = list[int]()
            connection.set_authorizer(lambda action, *_, asked=asked: asked.append(action) or 0)
            connection.execute(chain(levels, uses))
        assert asked.count(sqlite3.SQLITE_SELECT) <= levels * copies(chain(levels, uses))


@pytest.mark.parametrize(
    "call",
    [
        "instr('abcabc', 'ca')", "instr('ÄÖÜ', 'Ü')", "instr('abc', '')", "instr('abc', null)",
        "instr(x'00ff01', x'01')", "instr(12345, 34)", "replace('aXbX', 'X', 'yy')",
        "replace('abc', '', 'x')",
        "replace(null, 'a', 'b')", "replace(1.5, 1, 2)", "trim('xxaxx', 'x')", "ltrim('xyxa', 'xy')",
        "rtrim('axyx', 'xy')", "trim('abc', '')", "trim(null, 'x')", "trim('ab', null)", "trim('  a ')",
    ],
)  # fmt: skip
def test_replaced_functions_equal_those_of_sqlite(call: str) -> None:
    """Only their time differs."""
    with closing(sqlite3.connect(":memory:")) as plain, closing(bounded()) as ours:
        assert ours.execute(f"SELECT {call}").fetchone() == plain.execute(f"SELECT {call}").fetchone()


def test_functions_accept_the_longest_values(public: tuple[AsgiClient, dict[str, str]]) -> None:
    """Long needles in long texts, whose search took quadratic time, are found at once."""
    served, _ = public
    long = f"replace(hex(zeroblob({LONGEST_VALUE // 2 - 10})), '0', 'a')"
    calls = ", ".join(["instr(x, substr(x, 1, 120000) || 1)"] * 60)
    sql = f"with t(x) as (select {long}) select {calls} from t"
    (row,) = served.json("/mirror.json", params={"sql": sql, "_shape": "arrays"})["rows"]
    assert set(row) == {0}


def test_own_statements_are_not_limited(public: tuple[AsgiClient, dict[str, str]]) -> None:
    """The limit on function calls is for each statement of a visitor, not for the connection."""
    served, _ = public
    (database,) = mirrors(served.datasette)
    sql = f"select {', '.join(['abs(1)'] * (MOST_FUNCTIONS - 1))}"

    async def ask() -> None:
        for _ in range(10):
            await database.execute(sql)

    asyncio.run(ask())
    assert len(sql) < LONGEST_COPIED


def bounded() -> BoundedConnection:
    """A connection in memory with all limits."""
    connection = sqlite3.connect(":memory:", factory=BoundedConnection)
    connection.bound()
    return connection


def test_visitors_cannot_write(tmp_path: Path, public_path: Path) -> None:
    """SQLite refuses, even if Datasette let a statement pass."""
    (database,) = mirrors(client_of(public_path).datasette)
    for sql in (
        "delete from repositories",
        "create temp table t (x)",
        f"attach '{tmp_path / 'other.db'}' as other",
        "pragma journal_mode = delete",
        "vacuum into 'copy.db'",
    ):
        with pytest.raises(sqlite3.DatabaseError):
            asyncio.run(database.execute(sql))


def test_a_failing_function_prints_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A BLOB or a NULL as an argument can make a function fail."""
    fill_public(tmp_path / "mirror.db").store.close()
    served = client_of(tmp_path / "mirror.db")
    for statement in (
        "select mirror_natural(1)",
        "select mirror_contains(x'00', 1)",
        "select mirror_match(1, 2)",
    ):
        answer = served.get("/mirror.json", params={"sql": statement})
        assert (answer.status_code, "no such function" in answer.text) == (400, False)
    assert "Traceback" not in capfd.readouterr().err


def test_pages_of_a_mapped_file_are_no_memory_of_the_process(tmp_path: Path) -> None:
    """A question that reads all of a large mirror is not refused for that."""
    with closing(sqlite3.connect(tmp_path / "large.db")) as connection:
        connection.execute("CREATE TABLE large (value)")
        connection.executemany("INSERT INTO large VALUES (?)", [(bytes(200_000),)] * 240)
        connection.commit()
    with closing(sqlite3.connect(tmp_path / "large.db")) as connection:
        connection.execute("PRAGMA mmap_size = 100000000")
        before = own_memory()
        assert connection.execute("SELECT count(*), max(instr(value, x'01')) FROM large").fetchone() == (
            240,
            0,
        )
        assert before > 0
        assert own_memory() - before < 24_000_000  # the file has twice as much
