"""Search as page, options, JSON and CSV: the same answer in each, reproduced by its address."""

import csv
import io
import re
from pathlib import Path

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from fixtures_db import FixtureDb, repository


@pytest.fixture
def served(tmp_path: Path) -> AsgiClient:
    """Forty-five repositories of two owners, some forks, some Mercurial, one gone."""
    filled = FixtureDb(tmp_path / "mirror.db")
    rows = [
        repository(
            f"{'ann' if n % 2 else 'bob'}/django-{n:02}",
            scm="hg" if n % 5 == 0 else "git",
            language="python" if n % 3 == 0 else "php",
            parent_full_name="x/y" if n % 4 == 0 else None,
            followers_count=n,
        )
        for n in range(44)
    ]
    filled.repositories([*rows, repository("ann/lost", description="=cmd()")], first=True)
    filled.gone("ann/lost")
    filled.store.close()
    return client_of(tmp_path / "mirror.db")


def _names(page: str) -> list[str]:
    found = re.findall(r'<article class="hit">\s*<h2><a href="/-/r/([^"]*)"', page)
    return [str(name) for name in found]


def test_results_are_ranked_highlighted_and_counted(served: AsgiClient) -> None:
    """The total is exact, the most followed come first, the match is highlighted."""
    page = served.get("/-/search?q=JANGO").text
    assert "<b>44</b> repositories" in page
    assert _names(page)[0] == "ann/django-43"
    assert "d<mark>jango</mark>-43" in page


def test_pages_neither_skip_nor_repeat_results(served: AsgiClient) -> None:
    """Links lead through all pages. A page beyond the end links back."""
    address, names = "/-/search?q=django&scm=git", list[str]()
    while address:
        page = served.get(address).text
        names += _names(page)
        address = "".join(re.findall(r'rel="next" href="([^"]*)"', page)).replace("&amp;", "&")
    assert len(names) == len(set(names)) == 35
    beyond = served.get("/-/search?q=django&page=99").text
    assert "There is no page 99" in beyond
    assert re.findall(r'rel="prev" href="[^"]*page=(\d+)"', beyond) == ["3"]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ("owner=ANN", 22), ("owner=nobody", 0), ("scm=hg", 9), ("language=Python", 15), ("forks=only", 11),
        ("forks=none", 33), ("gone=1", 45), ("scm=hg&owner=bob", 5), ("scm=cvs", 44),
        ("visibility=private", 44),
        ("page=x&size=-1", 44), ("size=99999", 44), ("q=ann/", 22),
    ],
)  # fmt: skip
def test_filters_apply_in_every_format(served: AsgiClient, filters: str, count: int) -> None:
    """Invalid and forbidden parameters are ignored."""
    assert f"<b>{count}</b>" in served.get(f"/-/search?{filters}").text
    assert served.json(f"/-/search.json?{filters}")["count"] == count
    assert served.get(f"/-/search.csv?{filters}").headers["x-total-count"] == str(count)


def test_the_form_shows_the_filters_of_the_address(served: AsgiClient) -> None:
    """They are also in the links to the other formats."""
    page = served.get("/-/search?q=django&owner=ann&scm=hg&forks=none&gone=1").text
    for told in ('value="django"', 'value="ann"', "<option selected>hg", 'value="none" selected', "checked"):
        assert told in page
    assert "/-/search.csv?q=django&amp;owner=ann&amp;scm=hg&amp;forks=none&amp;gone=1" in page


def test_json_is_complete_and_links_to_the_next_page(served: AsgiClient) -> None:
    """It contains the next page, the filters and the page of each repository."""
    first = served.json("/-/search.json?q=django&size=30")
    assert (first["count"], len(first["repositories"])) == (44, 30)
    assert first["repositories"][0]["url"] == "/-/r/ann/django-43"
    second = served.json(first["next"])
    assert len(second["repositories"]) == 14
    assert second["next"] is None


def test_csv_is_complete_and_safe_for_spreadsheets(served: AsgiClient) -> None:
    """A description that a spreadsheet would execute is escaped."""
    answer = served.get("/-/search.csv?gone=1")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 45
    assert {row["description"] for row in rows if row["slug"] == "lost"} == {"'=cmd()"}


def test_options_are_a_few_links_and_one_to_all_results(served: AsgiClient) -> None:
    """The fragment that the script shows below the search box."""
    part = served.get("/-/search/options?q=django").text
    assert part.count('role="option"') == 9
    assert 'data-count="44"' in part
    assert "<html" not in part
    assert "Nothing matches that" in served.get("/-/search/options?q=zzzzqqqq&scm=git").text


def test_a_page_without_results_offers_links(served: AsgiClient) -> None:
    """To results without the filters, to gone repositories, to owners."""
    page = served.get("/-/search?q=zzzzqqqq&owner=ann").text
    for link in ('href="/-/search?q=zzzzqqqq"', "gone=1", 'href="/-/search?q=zzzzqqqq%2F"'):
        assert link in page, link


def test_a_typing_error_within_a_name_is_corrected(served: AsgiClient) -> None:
    """The words that were meant are searched instead, and the page says so."""
    for typed, meant in (("djagno", "django"), ("djanngo", "django"), ("bob/djagno", "bob/django")):
        wanted = served.json("/-/search.json", params={"q": meant})
        found = served.json("/-/search.json", params={"q": typed})
        assert found["fuzzy"]
        assert (found["count"], found["corrected"]) == (wanted["count"], ["django"])
        assert (
            "with a name like <b><bdi>django</bdi></b>" in served.get("/-/search", params={"q": typed}).text
        )
        assert "data-fuzzy" in served.get("/-/search/options", params={"q": typed}).text


def test_a_query_that_cannot_be_corrected_gets_a_suggestion(served: AsgiClient) -> None:
    """The longest part that occurs; none for a few letters."""

    def asked(path: str, query: str) -> list[str]:
        page = served.get(path, params={"q": query}).text
        return re.findall(r'href="/-/search\?q=([^"&]*)"[^>]*>(?:<span[^>]*>Did you mean )?<b>', page)

    for path in ("/-/search", "/-/search/options"):
        assert asked(path, "django-xyz") == ["django-"]
        assert asked(path, "djg") == asked(path, "qqqq") == []
    found = served.json("/-/search.json?q=django-")["count"]
    assert f"{found} repositories" in served.get("/-/search?q=django-xyz").text


def test_visibility_is_a_filter_with_a_token(mixed_db: FixtureDb) -> None:
    """With a token, private repositories are found, labelled, and can be selected alone."""
    token = make_tokens(mixed_db.store)["read"]
    mixed_db.store.close()
    served = client_of(mixed_db.path)
    found = served.json("/-/search.json?visibility=private", headers=bearer(token))
    assert found["count"] == 3
    assert all(row["is_private"] for row in found["repositories"])
    assert 'name="visibility"' in served.get("/-/search", headers=bearer(token)).text
    assert 'name="visibility"' not in served.get("/-/search").text
    assert served.json("/-/search.json?visibility=private")["count"] == 7


def test_a_typing_error_is_corrected_if_nothing_matches(served: AsgiClient) -> None:
    """Results for the nearest name are shown, and the page says that it was corrected."""
    found = served.json("/-/search.json?q=djagno-07")
    assert found["fuzzy"]
    assert found["repositories"][0]["slug"] == "django-07"
    assert "no name contains" in served.get("/-/search?q=djagno-07").text


def test_a_correction_names_the_filters_that_leave_out_the_name_as_written(served: AsgiClient) -> None:
    """Others may be named exactly so."""
    named, asked = served.json("/-/search.json?q=django-07"), "q=django-07&language=python"
    assert named["count"] == 1
    assert served.json(f"/-/search.json?{asked}")["fuzzy"]
    page = served.get(f"/-/search?{asked}").text
    assert "no name contains <bdi>“django-07”</bdi> with this filter" in page
