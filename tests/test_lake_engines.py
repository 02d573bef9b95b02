"""The commands of docs/lake.md for other engines: run by DuckDB and polars, and parsed for Trino.

Skipped where an engine is missing; `make test-lake` installs them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from fixtures_db import LATER, FixtureDb, hg_ref, repository

from mirror.lake.export import ExportOptions, export
from mirror.lake.merge import merge, sql_text
from mirror.lake.place import Place

ROOT = Path(__file__).parent.parent
QUESTIONS = (ROOT / "contrib/lake/questions.sql").read_text()


def commands(heading: str) -> str:
    """The indented lines below a heading of the document."""
    text = (ROOT / "docs/lake.md").read_text()
    section = text.partition(f"### {heading}\n")[2].partition("\n#")[0]
    return "".join(f"{line[4:]}\n" for line in section.splitlines() if line.startswith("    "))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged lake in which each question has an answer."""
    folder = tmp_path_factory.mktemp("engines")
    filled = FixtureDb(folder / "one.db")
    owners = ("ann", "bob", "cid")
    filled.repositories(
        [repository(f"{owner}/{slug}") for owner in owners for slug in ("Tool", "lib", owner)]
    )
    for digit in "12":
        filled.refs("ann/Tool", [hg_ref("tag", "v1", digit)], at=LATER)
    filled.gone("bob/lib")
    filled.store.close()
    export(filled.path, Place(str(folder / "lake")), ExportOptions())
    merge(str(folder / "lake"), folder / "merged", "duckdb")
    return folder / "merged"


def typed(python: str, out: Path) -> str:
    """Run lines of Python from the document, with another path; return what they print."""
    found = subprocess.run(
        [sys.executable, "-c", python.replace("/srv/merged", str(out))],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_commands_for_duckdb_answer_the_questions(out: Path) -> None:
    """Each of the three with a row."""
    python = commands("DuckDB, from an empty machine").partition("<<'END'\n")[2].partition("END\n")[0]
    answers = typed(python, out)
    assert re.search(r"tool\W+3\W+3", answers)
    assert "ann/Tool" in answers
    assert "v1" in answers
    assert "0 rows" not in answers


def test_the_commands_for_polars_answer_as_duckdb_does(out: Path) -> None:
    """Names under many owners, the same rows in the same order."""
    pytest.importorskip("polars", reason="polars is not installed; `make test-lake` installs it")
    more = "import json; print(json.dumps(names.collect().rows()))"
    found = typed(f"{commands('polars')}\n{more}", out).splitlines()[-1]
    repositories = f"(SELECT * FROM '{out}/repositories/*.parquet')"
    question = QUESTIONS.partition(";")[0].replace("FROM repositories", f"FROM {repositories}")
    with duckdb.connect() as connection:
        wanted = connection.execute(question).fetchall()
    assert [tuple(row) for row in json.loads(found)] == wanted != []


@pytest.mark.parametrize("source", ["docs/lake.md", "questions.sql", "merge.sql"])
def test_trino_can_read_the_sql(source: str) -> None:
    """Every statement is parsed as Trino's SQL, since no Trino runs here."""
    sqlglot = pytest.importorskip("sqlglot", reason="sqlglot is not installed; `make test-lake` installs it")
    texts = {
        "docs/lake.md": commands("Trino"),
        "questions.sql": QUESTIONS,
        "merge.sql": sql_text().replace("CREATE OR REPLACE TEMPORARY VIEW", "CREATE VIEW"),
    }
    statements = [one for one in sqlglot.parse(texts[source], read="trino") if one is not None]
    assert len(statements) == len(re.findall(r";\s*$", texts[source], re.MULTILINE))
    assert {type(one).__name__ for one in statements} <= {"Create", "Select"}
