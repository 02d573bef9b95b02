"""The search for branches and tags as a page and as JSON."""

import re
from pathlib import Path

import pytest
from asgi_client import AsgiClient
from datasette.app import Datasette
from refs_oracle import RefPlayground

OLD, NEW = "2015-01-01T00:00:00.000000Z", "2025-01-01T00:00:00.000000Z"
HASH = "1a2b3c4d5e" + "0" * 30
HOSTILE = ("<script>alert(1)</script>", "a\nb\x1b[2J", "evil\u202egnp", "x" * 250, "%2e%2e", "{{ 7*7 }}")


@pytest.fixture
def served(tmp_path: Path) -> AsgiClient:
    """A mirror with 25 repositories, each with `main`, one private, and refs with hostile names."""
    mirror = RefPlayground(tmp_path / "mirror.db")
    with mirror.store:
        for number in range(1, 26):
            mirror.add(f"tool-{number}", slug=f"tool-{number}", is_private=number == 25)
            mirror.put(number, "branch", "main", f"{number:040x}", OLD)
        for name in HOSTILE:
            mirror.put(1, "tag", name, HASH, NEW)
        mirror.store.finish_search_index()
    return AsgiClient(Datasette([str(tmp_path / "mirror.db")]))


def test_the_page_shows_exact_numbers_and_pages_through_all(served: AsgiClient) -> None:
    """Refs that strangers may see, each once, with links to the next page and to the other search."""
    seen = list[str]()
    for number in (1, 2):
        page = served.get(f"/-/refs?q=MAIN&page={number}").text
        assert "<b>24</b>" in page
        assert "<mark>main</mark>" in page
        seen += re.findall(r'href="/-/r/ann/(tool-\d+)"', page)
    assert len(seen) == len(set(seen)) == 24
    assert 'href="/-/search?q=MAIN"' in page
    assert 'href="/-/refs?q=tool"' in served.get("/-/search?q=tool").text
    assert "There is no page 9" in served.get("/-/refs?q=main&page=9").text


def test_json_has_the_keys_of_the_command_and_the_next_page(served: AsgiClient) -> None:
    """`next` leads through all pages."""
    found, address = list[str](), "/-/refs.json?q=main&size=10"
    while address:
        answer = served.json(address)
        assert (answer["query"], answer["count"], answer["repositories"]) == ("main", 24, 24)
        assert list(answer["refs"][0])[:6] == ["owner", "slug", "kind", "name", "target_hash", "target_date"]
        found += [ref["slug"] for ref in answer["refs"]]
        address = answer["next"]
    assert len(set(found)) == 24


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ("q=1a2b3c4", 6), ("q=1a2b3c4&kind=branch", 0), ("kind=tag", 6), ("q=ai&exact=1", 0),
        ("owner=ANN", 30), ("owner=nobody", 0), ("q=main&kind=wrong&page=x&size=-1", 24), ("q=%00%FF", 0),
        ("q=a%0Ab", 1),
    ],
)  # fmt: skip
def test_filters_narrow_the_search(served: AsgiClient, parameters: str, count: int) -> None:
    """Wrong values are ignored."""
    assert served.json(f"/-/refs.json?{parameters}")["count"] == count
    assert f"<b>{count}</b>" in served.get(f"/-/refs?{parameters}").text


def test_hostile_names_are_shown_as_text(served: AsgiClient) -> None:
    """No tag, no control character, no reversed direction."""
    page = served.get("/-/refs?kind=tag").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "49" not in page
    assert served.get("/-/refs?q=zzqq").text.count("No branch and no tag matches") == 1


def test_sql_searches_refs_where_it_is_open(tmp_path: Path) -> None:
    """The functions are on Datasette's connections."""
    mirror = RefPlayground(tmp_path / "mirror.db")
    with mirror.store:
        mirror.add("tool")
        mirror.put(1, "tag", "v1", HASH, OLD)
    served = AsgiClient(Datasette([str(tmp_path / "mirror.db")]))
    sql = "select mirror_refs_count('V1') + mirror_refs_repositories('v') as n, mirror_refs('v', 3) as refs"
    (row,) = served.get("/mirror.json", params={"sql": sql, "_shape": "array"}).json()
    assert row == {"n": 2, "refs": '[{"repository":1,"kind":"tag","name":"v1"}]'}
