"""What Datasette shows of a mirror: titles, labels, facets, order, hidden tables; not of other files."""

import re
import sqlite3
from html import unescape
from pathlib import Path

import pytest
from asgi_client import AsgiClient, client_of
from datasette.app import Datasette
from fixtures_db import FixtureDb, copy_rows, fill_many, fill_public, repository
from forked_command import fork_server

from mirror.serve.stored_queries import QUERIES
from mirror.serve.table_metadata import HIDDEN, MOST_BYTES_FACETED, TABLES, metadata


@pytest.fixture
def public(public_path: Path) -> AsgiClient:
    """A served mirror with public rows alone."""
    return client_of(public_path)


def test_the_docs_name_every_table_and_stored_query() -> None:
    """docs/serving.md has all that Datasette describes, and nothing else."""
    text = (Path(__file__).parent.parent / "docs/serving.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == TABLES.keys()
    assert set(re.findall(r"`(?:/mirror/)?(\w+)[?`]", text)) >= QUERIES.keys()


def test_plain_datasette_serves_a_mirror_too(public_path: Path) -> None:
    """By the entry point, `datasette data/mirror.db` has the titles and the queries."""
    plain = AsgiClient(Datasette([str(public_path)]))
    assert plain.json("/mirror/who_owns_most.json?_shape=objects")["rows"][0]["owner"]
    assert "Who owns most" in plain.get("/mirror").text


@pytest.mark.parametrize("form", ["", ".json"])
def test_an_error_of_datasette_does_not_repeat_a_long_text(public: AsgiClient, form: str) -> None:
    """Its beginning and its end are enough."""
    text = public.get(f"/mirror/repositories{form}?_sort={'x' * 10_000}").text
    assert "Cannot sort table by xxx" in text
    assert "x" * 1_000 not in text


def test_another_database_beside_it_is_left_alone(tmp_path: Path, public_path: Path) -> None:
    """Tables of the same names in another file get no titles, queries or rules of ours."""
    other = sqlite3.connect(tmp_path / "other.db")
    other.executescript("CREATE TABLE repositories (name TEXT, is_private INTEGER)")
    other.execute("INSERT INTO repositories VALUES ('theirs', 1)")
    other.commit()
    other.close()
    both = AsgiClient(Datasette([str(public_path), str(tmp_path / "other.db")]))
    assert both.json("/other/repositories.json?_shape=objects")["rows"] == [
        {"rowid": 1, "name": "theirs", "is_private": 1}
    ]
    assert both.json("/other.json")["queries"] == []
    assert "other" not in both.json("/-/metadata.json")["databases"]


def test_tables_of_the_program_are_hidden(public: AsgiClient) -> None:
    """The list shows the documented tables, nothing else."""
    tables = {table["name"]: table["hidden"] for table in public.json("/mirror.json")["tables"]}
    assert {name for name, hidden in tables.items() if hidden} <= {
        name for name in tables if name.startswith(HIDDEN)
    }
    shown = {name for name, hidden in tables.items() if not hidden}
    assert shown == {name for name in TABLES if name in tables}
    assert "api_tokens" not in shown


def test_the_list_of_tables_is_read_without_a_word(
    public: AsgiClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Datasette counts hidden tables too, such as the index of descriptions, and logs each failure."""
    assert public.get("/mirror").status_code == 200
    assert public.json("/mirror/search_descriptions.json")["rows"] == []
    assert "ERROR" not in capsys.readouterr().err


def test_every_described_column_exists(public: AsgiClient) -> None:
    """Descriptions match the schema."""
    for name, table in TABLES.items():
        columns = set(public.json(f"/mirror/{name}.json?_size=0")["columns"])
        used = {*table.get("columns", ()), *table.get("facets", ())}
        used |= {table[key] for key in ("sort", "sort_desc", "label_column") if key in table}
        assert used <= columns, name


def test_foreign_keys_show_names(public: AsgiClient) -> None:
    """A number links with the name that it stands for."""
    rows = public.json("/mirror/repositories.json?_labels=on&_shape=objects&full_name=jespern/django-piston")
    assert rows["rows"][0]["owner_id"]["label"] == "jespern"
    assert rows["rows"][0]["upstream_id"]["label"] == "cloud"
    refs = public.json("/mirror/tags.json?_labels=on&_shape=objects&name=0.2.1")["rows"]
    assert refs[0]["repository_id"]["label"] == "jespern/django-piston"


def test_repositories_are_sorted_newest_first_with_facets(public: AsgiClient) -> None:
    """An index gives the first page of any number of repositories."""
    page = public.json("/mirror/repositories.json?_shape=objects")
    assert [row["id"] for row in page["rows"]] == [5, 4, 3, 2, 1]
    assert set(page["facet_results"]) == {"scm", "is_private", "language", "owner_id"}
    by_scm = {one["value"]: one["count"] for one in page["facet_results"]["scm"]["results"]}
    assert by_scm == {"hg": 3, "git": 2}


def test_sql_that_took_too_long_is_shown_whole_without_a_script(public_path: Path) -> None:
    """The content policy would stop the script."""
    served = AsgiClient(Datasette([str(public_path)], settings={"sql_time_limit_ms": 100}))
    endless = (
        "with recursive a(x) as (select 1 union all select x + 1 from a) select '</pre>' from a where x < 0"
    )
    answer = served.get("/mirror", params={"sql": endless})
    assert answer.status_code == 400
    assert [unescape(shown) for shown in re.findall("<pre>([^<]*)</pre>", answer.text)] == [endless]
    assert "querySelector" not in answer.text
    says = "SQL query took too long."
    answer = served.get("/mirror.json", params={"sql": endless})
    assert (answer.status_code, answer.json()["error"].startswith(says)) == (400, True)
    assert not set("<>") & set(answer.json()["error"])
    answer = served.get("/mirror.csv", params={"sql": endless})
    assert (answer.status_code, says in answer.text) == (400, True)


@pytest.mark.parametrize("path", ["/mirror", "/mirror/repositories.json"])
def test_pages_that_are_not_read_in_time_are_busy(
    path: str, public_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a machine with too much to do, what Datasette itself reads takes too long; that is no fault."""
    served = AsgiClient(Datasette([str(public_path)], settings={"sql_time_limit_ms": 0}))
    answer = served.get(path)
    assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1")
    assert "The mirror is busy" in answer.text
    assert "Traceback" not in caplog.text


def test_csv_of_sql_that_fails_is_no_table_without_rows(public: AsgiClient) -> None:
    """Who saves it would take it for the answer that there are none."""
    for sql, says in (
        ("select nope from repositories", "no such column: nope"),
        ("select name from repositoris", "no such table: repositoris"),
        ("select 1; select 2", "one statement at a time"),
        ("select * from mirror_shown_users", "are reserved"),
    ):
        answer = public.get("/mirror.csv", params={"sql": sql})
        assert (answer.status_code, says in answer.text) == (400, True)
    assert public.get("/mirror.csv", params={"sql": "select 1 as one"}).text == "one\r\n1\r\n"
    labelled = public.get("/mirror/repositories.csv?_labels=on")
    assert (labelled.status_code, "owner_id_label" in labelled.text) == (200, True)


def test_facets_are_shown_at_100_000_rows(tmp_path: Path) -> None:
    """No facet of ours is dropped; the limits are generous, since tests assert no times.

    A tenth of the rows is in the file, and the whole would be small enough to have facets.
    """
    filled = fill_many(tmp_path / "mirror.db", 1_000, tags=0)
    copy_rows(filled, 10)
    filled.store.close()
    assert (tmp_path / "mirror.db").stat().st_size * 10 < MOST_BYTES_FACETED
    settings = {"suggest_facets": False, "facet_time_limit_ms": 30_000, "sql_time_limit_ms": 30_000}
    page = AsgiClient(Datasette([str(tmp_path / "mirror.db")], settings=settings)).json(
        "/mirror/repositories.json"
    )
    assert set(page["facet_results"]) == {"scm", "is_private", "language", "owner_id"}
    assert page["filtered_table_rows_count"] == 10_000


def test_a_large_file_shows_no_facets_by_itself() -> None:
    """Each reads the whole table; a requested one is shown."""
    for size, number in ((MOST_BYTES_FACETED, 4), (MOST_BYTES_FACETED + 1, 0)):
        described = metadata({"mirror": size})["databases"]["mirror"]["tables"]
        assert len(described["repositories"].get("facets", [])) == number
        assert described["repositories"]["title"] == "Repositories"


def test_a_file_that_grows_loses_its_facets(tmp_path: Path) -> None:
    """While it is served; requested ones still work."""
    path = tmp_path / "mirror.db"
    fill_many(path, 5, tags=0).store.close()
    client = AsgiClient(Datasette([str(path)]))
    assert client.json("/mirror/repositories.json")["facet_results"].keys() > {"scm"}
    with path.open("r+b") as file:
        file.truncate(MOST_BYTES_FACETED + 4096)
    assert client.json("/mirror/repositories.json?_nocount=1")["facet_results"] == {}
    assert client.json("/mirror/repositories.json?_facet=scm")["facet_results"].keys() == {"scm"}


def test_pages_are_html_with_titles(public: AsgiClient) -> None:
    """Home, database, table and row answer with their titles."""
    assert "Bitbucket mirror" in public.get("/").text
    for path in ("/mirror", "/mirror/repositories", "/mirror/branches", "/mirror/repositories/1"):
        answer = public.get(path)
        assert answer.status_code == 200
        assert "text/html" in answer.headers["content-type"]
    assert "owner of the namespace" in public.get("/mirror/repositories").text


def test_sizes_are_read_and_written_with_units(public: AsgiClient) -> None:
    """In a table and in a row; the exact number of bytes is the title."""
    found = public.json("/mirror/repositories.json?size__gt=0.8GB&_shape=objects")["rows"]
    assert [row["full_name"] for row in found] == ["jespern/django-piston"]
    for path in ("/mirror/repositories?_sort_desc=size", f"/mirror/repositories/{found[0]['id']}"):
        assert '<span title="887,709,436 bytes">888\xa0MB</span>' in public.get(path).text


@pytest.mark.parametrize(
    "text", ["9**9", "9⁹", "9 MB**9**9", "(9)", "5/0", "*", "5.5.5", "m/", "m**22", "٩", "9" * 101, "m" * 101]
)
def test_a_size_is_no_calculation(public: AsgiClient, text: str) -> None:
    """Datasette's library of units also calculates, for hours if a visitor likes."""
    answer = public.get("/mirror/repositories.json", params={"size__gt": text})
    assert answer.status_code == 400
    assert "is no number with a unit" in answer.json()["error"]


def _write_pages(path: str, pages: int) -> None:
    filled = FixtureDb(Path(path))
    for page in range(pages):
        filled.repositories([repository(f"writer/repo-{page}-{n}") for n in range(100)])
    filled.store.close()


def test_names_are_searched_by_sql(public: AsgiClient) -> None:
    """Any query can join on the search of the command line."""
    sql = (
        "select r.full_name from json_each(mirror_search('piston', 5)) as hit "
        "join repositories r on r.id = hit.value order by hit.key"
    )
    found = public.json("/mirror.json", params={"sql": sql, "_shape": "arrayfirst"})
    assert found == ["jespern/django-piston", "dchambers/django-piston"]


def test_reads_work_while_a_sync_writes(tmp_path: Path) -> None:
    """Another process commits pages; every answer is whole, and the count only grows."""
    path = tmp_path / "mirror.db"
    fill_public(path).store.close()
    reader = client_of(path)
    writer = fork_server().Process(target=_write_pages, args=(str(path), 30))
    writer.start()
    counts = list[int]()
    while writer.is_alive() or not counts:
        rows = reader.json("/mirror.json?sql=select+count(*)+as+n+from+repositories&_shape=objects")["rows"]
        counts.append(rows[0]["n"])
    writer.join()
    assert writer.exitcode == 0
    counts.append(reader.json("/mirror.json?sql=select+count(*)+from+repositories&_shape=arrayfirst")[0])
    assert counts == sorted(counts)
    assert counts[-1] == 3005
    assert len(set(counts)) > 3, "nothing was read between two pages"


NO_KEY = '{"table": "upstreams", "column": "name", "value": "1"}'


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/mirror/repositories?_sort=nosuch", 400, "Cannot sort table by nosuch"),
        ("/mirror/repositories?_sort=id&_sort_desc=id", 400, "Cannot use _sort and _sort_desc"),
        ("/mirror/nosuch/1", 404, "There is no page at this address. Table not found"),
        ("/mirror/-/create", 404, "There is no page at this address. Table not found"),
        ("/mirror/repositories/-/insert", 404, "There is no page at this address. </p>"),
        ("/mirror?sql=select+1+from+nosuch", 400, "no such table: nosuch"),
        ("/mirror.csv", 400, "Something in this address is missing"),
        ("/mirror/repositories?_through=x", 400, "Something in this address is missing"),
        ("/mirror/repositories.json?_through={}", 400, "Something in this address is missing"),
        ("/mirror/repositories?_through=" + NO_KEY, 400, "Invalid _through"),
        ("/mirror/repositories.csv?name__in=[", 400, "Something in this address is missing"),
        ("/mirror/branches/1.json", 400, "Something in this address is missing"),
    ],
)
def test_wrong_addresses_of_tables_are_no_faults_of_the_server(
    public: AsgiClient, path: str, status: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Datasette answers 500, or 400 with a complaint about SQL that the visitor did not write.

    Nor does the terminal show what visitors typed.
    """
    answer = public.get(path)
    assert answer.status_code == status
    assert message in answer.text
    assert capfd.readouterr() == ("", "")


def test_a_refused_download_is_explained(public: AsgiClient) -> None:
    """In words, not by the name of a permission."""
    answer = public.get("/mirror.db")
    assert answer.status_code == 403
    assert "To download this file, you need a token of the whole mirror." in answer.text
    assert "view-database-download" not in answer.text
