"""Words of descriptions: found after names, on request, and kept up to date by triggers."""

import json
import sqlite3
from pathlib import Path

import pytest
from asgi_client import client_of
from click.testing import CliRunner
from fixtures_db import LATER, FixtureDb, fill_mixed, repository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.cli.main import mirror
from mirror.queries.search import find_repositories
from mirror.queries.visibility import ANONYMOUS
from mirror.search import search
from mirror.store.repair import check_descriptions, check_file

DESCRIBED = {
    "a/rest-api": "Answers",
    "a/popular": "A REST server, with an API",
    "a/plain": "Übungen: the api of restaurants",
    "a/other": "nothing of it",
    "a/untold": None,
    "b/quotes": 'Says "hello" AND NOT (world); 50% c++ NEAR x*',
}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> FixtureDb:
    """Repositories with descriptions of every sort; the popular one has followers."""
    filled = FixtureDb(tmp_path_factory.mktemp("described") / "mirror.db")
    filled.repositories(
        [
            repository(name, description=text, followers_count=9 if name == "a/popular" else 0)
            for name, text in DESCRIBED.items()
        ]
    )
    filled.store.finish_search_index()
    return filled


def _names(db: FixtureDb, query: str, **options: object) -> list[str]:
    options = {"descriptions": True, **options}
    found = find_repositories(db.store.connection, ANONYMOUS, query, **options)  # type: ignore[arg-type]
    assert found.count == len(found.repositories) or "limit" in options
    return [row.full_name for row in found.repositories]


def test_descriptions_come_behind_names_and_on_wish_alone(db: FixtureDb) -> None:
    """By popularity, each repository once; by the beginning of a word, all words in any order."""
    assert _names(db, "api", descriptions=False) == ["a/rest-api"]
    assert _names(db, "api") == ["a/rest-api", "a/popular", "a/plain"]
    assert _names(db, "rest api") == ["a/rest-api", "a/popular", "a/plain"]
    assert _names(db, "server rest") == ["a/popular"]
    assert _names(db, "ubung") == ["a/plain"]
    assert _names(db, "erver") == []
    assert _names(db, "b/api") == []
    assert search(db.store.connection, "api", descriptions=True).described == 2


def test_pages_go_from_names_to_descriptions(db: FixtureDb) -> None:
    """Of any length, without gaps and repetitions."""
    whole = _names(db, "api")
    for size in (1, 2, 3):
        pages = [_names(db, "api", limit=size, offset=start) for start in range(0, 4, size)]
        assert [name for page in pages for name in page] == whole


def test_a_typing_error_is_corrected_only_where_no_description_matches(db: FixtureDb) -> None:
    """A word that some description has is no typing error."""
    assert find_repositories(db.store.connection, ANONYMOUS, "plian", descriptions=True).fuzzy
    assert not find_repositories(db.store.connection, ANONYMOUS, "restaurants", descriptions=True).fuzzy


@pytest.mark.parametrize(
    "query", ['"hello"', "hello AND", "(world)", "50%", "c++", "near", "x*", "says: hello"]
)
def test_signs_of_the_query_mean_themselves(db: FixtureDb, query: str) -> None:
    """Nothing in a query is syntax of FTS5."""
    assert _names(db, query) == ["b/quotes"]


AS_WRITTEN = (
    "Straßen & Wege", "R & D", "Flask \N{EN DASH} demo", "\N{LATIN SMALL LIGATURE FI}nance ½", "น้ำ", "ΐ",
    "\N{FULLWIDTH LATIN CAPITAL LETTER T}ool", "Κώστας", "İstanbul", "한국어", "smile 😀 here", "+ c++",
)  # fmt: skip


@pytest.mark.parametrize("text", AS_WRITTEN)
def test_a_description_is_found_as_it_is_written(tmp_path: Path, text: str) -> None:
    """Whatever its letters become in names; words of signs alone are left out."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("a/told", description=f"About {text}."), repository("a/other")])
    assert _names(filled, text) == ["a/told"]
    assert _names(filled, f"{text} nowhere", fuzzy=False) == []
    filled.store.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_any_text_can_be_asked(db: FixtureDb, query: str) -> None:
    """NUL, quotes, lone surrogates, marks: an answer, never an SQL error."""
    find_repositories(db.store.connection, ANONYMOUS, query, descriptions=True, fuzzy=False)


def test_the_index_follows_every_change(tmp_path: Path) -> None:
    """After an edit, a new or removed description, a tombstone, a deleted row: at once."""
    filled = FixtureDb(tmp_path / "mirror.db")
    connection = filled.store.connection
    told = repository("a/b", description="first words")
    filled.repositories([told, repository("a/c", description=None)])
    assert (_names(filled, "first"), _names(filled, "second")) == (["a/b"], [])
    filled.repositories([repository("a/b", description="second words")], at=LATER)
    assert (_names(filled, "first"), _names(filled, "second")) == ([], ["a/b"])
    filled.repositories(
        [repository("a/b", description=None), repository("a/c", description="told")], at=LATER
    )
    assert (_names(filled, "words"), _names(filled, "told")) == ([], ["a/c"])
    filled.gone("a/c")
    assert (_names(filled, "told"), _names(filled, "told", gone=True)) == ([], ["a/c"])
    spoiled = "UPDATE repositories SET description = 'third', full_name = iif(slug = 'b', full_name, NULL)"
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(spoiled)
    assert check_descriptions(connection) == []
    connection.execute("UPDATE repositories SET description = 'third'")
    assert _names(filled, "third") == ["a/b"]
    connection.execute("DELETE FROM changes")
    connection.execute("DELETE FROM repositories WHERE slug = 'b'")
    assert _names(filled, "third", gone=True) == ["a/c"]
    filled.store.close()


def test_verify_finds_and_mends_an_index_that_is_wrong(tmp_path: Path) -> None:
    """Additional and missing words, without disturbing other processes."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("a/b", description="first words"), repository("a/c")])
    filled.store.connection.execute(
        "INSERT INTO search_descriptions (rowid, description) VALUES (2, 'ghost')"
    )
    filled.store.close()
    (found,) = check_file(filled.path, repair=False)
    assert found.text.startswith("search index of descriptions: 1 words of descriptions differ")
    assert "'ghost'" in found.text
    assert [complaint.mended for complaint in check_file(filled.path, repair=True)] == [True]
    assert check_file(filled.path, repair=False) == []


def test_the_command_the_page_and_its_data_take_the_wish(db: FixtureDb, tmp_path: Path) -> None:
    """`--in description`, `in=description`; each shows how many matches are by description."""
    (tmp_path / "mirror.toml").write_text(f'database = "{db.path}"')
    words = ["--config", str(tmp_path / "mirror.toml"), "search", "api", "--in", "description"]
    printed = CliRunner().invoke(mirror, words, catch_exceptions=False).output
    assert printed.startswith("3 found, 2 of them by their description\n")
    answer = json.loads(CliRunner().invoke(mirror, [*words, "--json"], catch_exceptions=False).output)
    assert (answer["count"], answer["described"]) == (3, 2)
    served = client_of(db.path)
    assert served.json("/-/search.json?q=api&in=description")["described"] == 2
    assert served.json("/-/search.json?q=api&in=nonsense")["count"] == 1
    page = served.get("/-/search?q=api&in=description").text
    assert "the last 2 of them, in the description" in page
    assert 'name="in" value="description" checked' in page


def test_private_descriptions_are_found_by_nobody_else(tmp_path: Path) -> None:
    """Neither listed nor counted; also of a repository that was public before."""
    filled = fill_mixed(tmp_path / "mirror.db")
    for query in ("arriving soon", "nobody business"):
        assert search(filled.store.connection, query, descriptions=True).count == 1
        assert _names(filled, query, fuzzy=False) == []
    filled.store.close()
