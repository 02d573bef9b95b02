"""Highlighting, and the search as SQL functions."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refs_oracle import RefPlayground
from search_oracle import Playground, normal

from mirror.search import highlight_ranges, register, search
from mirror.search.refs.find import register_refs


@pytest.mark.parametrize(
    ("text", "query", "marked"),
    [
        ("Django-CMS", "cms", ["CMS"]),
        ("My ﬁne  Name", "fi", ["ﬁ"]),
        ("My ﬁne  Name", "e-n", ["e  N"]),
        ("Straße", "SS", ["ß"]),
        ("e\u0301cole", "é", ["e\u0301"]),
        ("q\u0303uote", "q", ["q\u0303"]),
        ("banana", "an", ["anan"]),
        ("tool", "owner/oo", ["oo"]),
        ("tool", "owner/", []),
        ("tool", "x", []),
    ],
)
def test_ranges_refer_to_the_text_as_written(text: str, query: str, marked: list[str]) -> None:
    """Even if its normal form is longer."""
    assert [text[start:end] for start, end in highlight_ranges(text, query)] == marked


@given(st.text(max_size=8), st.text(min_size=1, max_size=3).filter(lambda query: "/" not in query))
def test_a_text_is_highlighted_if_and_only_if_it_matches(text: str, query: str) -> None:
    """For any Unicode; ranges are in order, without overlaps, and inside the text."""
    ranges = highlight_ranges(text, query)
    assert bool(ranges) == (normal(query) in normal(text))
    places = [place for pair in ranges for place in pair]
    assert places == sorted(set(places))
    assert all(0 <= place <= len(text) for place in places)


def test_sql_can_join_on_a_search(tmp_path: Path) -> None:
    """In the order of the results, and with their count."""
    mirror = Playground(tmp_path / "mirror.db")
    mirror.fill(60)
    mirror.store.finish_search_index()
    register(mirror.connection, visible_private=True)
    rows = mirror.connection.execute(
        """SELECT r.id, mirror_search_count('django') FROM json_each(mirror_search('django', 5)) AS hit
           JOIN repositories AS r ON r.id = hit.value ORDER BY hit.key"""
    ).fetchall()
    found = search(mirror.connection, "django", limit=5)
    assert [row[0] for row in rows] == found.ids
    assert {row[1] for row in rows} == {found.count}


@pytest.mark.parametrize(
    ("limit", "listed"), [("NULL", 20), ("''", 20), ("'3'", 3), ("2.0", 2), ("9e999", 30)]
)
def test_a_number_is_a_query_of_sql_and_an_empty_limit_the_default(
    tmp_path: Path, limit: str, listed: int
) -> None:
    """A column may hold numbers, and a form of Datasette sends the fields that nobody filled."""
    mirror = RefPlayground(tmp_path / "mirror.db")
    with mirror.store.transaction():
        for number in range(30):
            mirror.put(mirror.add(f"tool-2024-{number}"), "tag", f"2024.{number}", "a" * 40, None)
    register(mirror.connection)
    register_refs(mirror.connection)
    for function in ("mirror_search", "mirror_refs"):
        (found,) = mirror.connection.execute(f"SELECT {function}(2024, {limit})").fetchone()
        assert len(json.loads(found)) == listed
        counted = mirror.connection.execute(f"SELECT {function}_count(2024)").fetchone()
        assert counted == (30,)


def test_sql_finds_private_repositories_only_if_allowed(tmp_path: Path) -> None:
    """By default, the functions find public repositories only."""
    mirror = Playground(tmp_path / "mirror.db")
    mirror.add("secret", is_private=1)
    register(mirror.connection)
    assert mirror.connection.execute("SELECT mirror_search_count('secret')").fetchone()[0] == 0
    assert json.loads(mirror.connection.execute("SELECT mirror_search(NULL)").fetchone()[0]) == []
    register(mirror.connection, visible_private=True)
    assert mirror.connection.execute("SELECT mirror_search_count('secret')").fetchone()[0] == 1
