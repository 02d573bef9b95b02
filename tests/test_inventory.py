"""The inventory: the known facts of each repository, and unknown ones as unknown."""

import csv
import io
import json
from pathlib import Path

import pytest
from asgi_client import AsgiClient, bearer, client_of
from click.testing import CliRunner
from fixtures_db import JESPERN, SECRETS, FixtureDb, fill_mixed, hg_ref, owner, repository

from mirror.cli.main import mirror
from mirror.errors import NotFound
from mirror.queries.inventory import COLUMNS, InventoryLine, InventoryPlace, all_lines, inventory_page
from mirror.queries.visibility import ANONYMOUS, OPERATOR
from mirror.store import tokens
from mirror.store.files import open_reader

KNOWN = {
    "owner": "jespern",
    "project": "WEB",
    "slug": "site",
    "size": 0,
    "visibility": "public",
    "archived": False,
    "default_branch": "main",
    "last_push": "2024-05-01T12:00:00.000000Z",
    "branches": 3,
    "tags": 1,
    "forks": 0,
    "last_author": "=HYPERLINK(1)",
    "webhooks": None,
}
UNKNOWN = {
    **dict.fromkeys(COLUMNS),
    "owner": "jespern",
    "slug": "unread",
    "visibility": "public",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with a fully known repository, one with only a name, an empty one, and one that is gone."""
    filled = FixtureDb(tmp_path_factory.mktemp("inventory") / "mirror.db")
    told = {"project_key": "WEB", "archived": False, "forks_count": 0, "main_branch": "main", "size": 0}
    untold = {"main_branch": None, "size": None}
    filled.repositories(
        [
            repository("jespern/site", JESPERN, **told),
            repository("jespern/unread", JESPERN, **untold),
            repository("jespern/empty", JESPERN, **untold),
            repository("jespern/lost", JESPERN),
            repository("-cmd/@site", owner("-cmd"), **untold),
        ]
    )
    refs = [
        hg_ref("branch", "main", "a"),
        hg_ref("branch", "undated", "b", target_date=None),
        hg_ref(
            "branch", "new", "c", target_date="2024-05-01T12:00:00.000000Z", target_author="=HYPERLINK(1)"
        ),
        hg_ref("tag", "later", "d", target_date="2025-05-01T12:00:00.000000Z"),
    ]
    filled.refs("jespern/site", refs)
    filled.refs("jespern/empty", [])
    filled.gone("jespern/lost")
    filled.store.close()
    return filled.path


@pytest.fixture(scope="module")
def configured(path: Path) -> str:
    """A configuration of that mirror."""
    file = path.with_name("mirror.toml")
    file.write_text(f'database = "{path}"\n[[upstream]]\nname = "cloud"\nkind = "cloud"\n')
    return str(file)


def _run(configured: str, *arguments: str) -> str:
    done = CliRunner().invoke(mirror, ["--config", configured, "inventory", *arguments])
    if done.exception:
        raise done.exception
    return done.stdout_bytes.decode()


def test_json_has_an_object_on_each_line_and_null_for_what_is_not_known(configured: str) -> None:
    """By name, without gone ones; 0 only if the upstream said 0."""
    lines = [json.loads(line) for line in _run(configured, "--json").splitlines()]
    assert [line["slug"] for line in lines] == ["@site", "empty", "site", "unread"]
    assert lines[2] == KNOWN
    assert lines[3] == UNKNOWN
    assert lines[1] == {**UNKNOWN, "slug": "empty", "branches": 0, "tags": 0}


def test_csv_has_empty_cells_and_none_that_a_spreadsheet_runs(configured: str) -> None:
    """Texts that begin like a formula get an apostrophe, in names of people and repositories."""
    rows = list(csv.DictReader(io.StringIO(_run(configured, "--csv"))))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["owner"], rows[0]["slug"]) == ("'-cmd", "'@site")
    assert rows[2] == {
        name: "" if value is None else "no" if value is False else str(value) for name, value in KNOWN.items()
    } | {"last_author": "'=HYPERLINK(1)"}
    assert rows[3] == {name: value or "" for name, value in UNKNOWN.items()}


def test_one_owner_in_any_case_and_an_unknown_one_is_an_error(configured: str) -> None:
    """An unknown owner is not shown as an owner of nothing."""
    assert len(_run(configured, "--owner", "JESPERN", "--json").splitlines()) == 3
    with pytest.raises(NotFound, match="no owner nobody"):
        _run(configured, "--owner", "nobody")


def test_people_see_a_count_and_words(configured: str) -> None:
    """Unknown values are "not known"; an empty repository is known to have no branch."""
    told = _run(configured)
    assert told.startswith("4 repositories, 4 shown")
    (unread,) = [line.split() for line in told.splitlines() if line.startswith("jespern/unread")]
    assert unread == ["jespern/unread", "not", "known", "public", *["not", "known"] * 4]
    (empty,) = [line.split() for line in told.splitlines() if line.startswith("jespern/empty")]
    assert empty == ["jespern/empty", "not", "known", "public", "none", "none", "0", "0"]


def test_pages_neither_skip_nor_repeat(path: Path) -> None:
    """With pages of any length, for every caller."""
    connection = open_reader(path)
    whole = list(all_lines(connection, OPERATOR))
    for size in (1, 2, 3, 4):
        seen, place = list[InventoryLine](), InventoryPlace()
        while True:
            page = inventory_page(connection, ANONYMOUS, after=place, size=size)
            seen += page.lines
            if page.more is None:
                break
            place = page.more
        assert seen == whole
    connection.close()


@pytest.fixture(scope="module")
def served(path: Path) -> AsgiClient:
    """The mirror, served."""
    return client_of(path)


def test_the_page_the_csv_and_the_stored_query_tell_the_same(served: AsgiClient, configured: str) -> None:
    """One line for each repository with the same cells; the query returns NULL."""
    printed = _run(configured, "--csv")
    answer = served.get("/-/inventory.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == printed
    rows = served.json("/mirror/inventory.json?_shape=array")
    lines = [json.loads(line) for line in _run(configured, "--json").splitlines()]
    assert rows == [{**line, "archived": {None: None, False: "no"}[line["archived"]]} for line in lines]
    page = served.get("/-/inventory").text
    assert page.count('<th scope="row">') == 4
    assert "=HYPERLINK(1)" in page


def test_the_page_filters_by_owner_and_goes_on(served: AsgiClient) -> None:
    """An unknown name shows nothing, like an owner of hidden repositories."""
    assert served.get("/-/inventory?owner=Jespern").text.count('<th scope="row">') == 3
    assert "no repository of <bdi>“nobody”" in served.get("/-/inventory?owner=nobody").text
    assert served.get("/-/inventory?after=jespern/empty&id=999").text.count('<th scope="row">') == 2
    assert served("HEAD", "/-/inventory.csv").text == ""


def test_everybody_sees_what_is_theirs_alone(tmp_path: Path) -> None:
    """Strangers see public ones, a user also their own, a token without a user all."""
    filled = fill_mixed(tmp_path / "mirror.db")
    everything = tokens.create(filled.store, "all", "read")
    own = tokens.create(filled.store, "own", "read", user="jespern")
    filled.store.close()
    served = client_of(filled.path)
    stranger = served.get("/-/inventory.csv").content
    assert not [secret for secret in SECRETS if secret in stranger]
    theirs = served.get("/-/inventory.csv", headers=bearer(own)).text
    assert "arriving" in theirs
    assert "hg-project" not in theirs
    assert "hg-project" in served.get("/-/inventory.csv", headers=bearer(everything)).text
