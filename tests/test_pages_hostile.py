"""Names and descriptions written to do harm are shown as text, in valid HTML."""

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from asgi_client import AsgiClient, client_of
from examples import examples
from fixtures_db import SEEN, FixtureDb, hg_ref, repository
from hostile_texts import SCRIPT, TEXTS, fill_hostile, strict_html
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.addresses import safe_external
from mirror.serve.urls import SiteLinks

PAGES = (
    "/", "/-/search", "/-/search/options?q=a", "/-/changes", "/-/mirror-status", "/-/search?gone=1",
    "/-/refs", "/-/refs?q=a&gone=1", "/mirror/repositories",
)  # fmt: skip
OF_ONE = (
    "/-/r?id={repository}", "/-/u?id={owner}", "/-/search?q={text}", "/-/search/options?q={text}",
    "/-/refs?q={text}", "/-/changes?repository={repository}",
)  # fmt: skip


def _fill(path: Path, *texts: str) -> AsgiClient:
    """Serve a mirror that has texts in every place for texts of others."""
    fill_hostile(path, *texts)
    return client_of(path)


def _harmless(html: str, *, ours: bool, fragment: bool = False) -> None:
    """Check that no text became an element, a handler or an active address."""
    if ours:
        tree = strict_html(html, fragment=fragment)
        for element in tree.iter():
            assert element.tag != "script" or element.get("src", "").startswith("/-/mirror-assets/")
            assert element.tag not in ("img", "iframe", "object")
            assert not [name for name in element.keys() if name.startswith("on") or name == "style"]  # noqa: SIM118
            assert not element.get("href", "").lower().startswith(("javascript:", "data:"))
    assert SCRIPT not in html


def _shown(served: AsgiClient, path: str) -> str:
    """Return a page on which nothing does harm."""
    answer = served.get(path)
    assert answer.status_code == 200, path
    _harmless(answer.text, ours=not path.startswith("/mirror/"), fragment="options" in path)
    return answer.text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[AsgiClient, Path]:
    """A served mirror of all the texts, and its file; nothing here writes."""
    path = tmp_path_factory.mktemp("hostile") / "mirror.db"
    return _fill(path, *TEXTS), path


def test_pages_of_many_hostile_names_show_them_escaped(hostile: tuple[AsgiClient, Path]) -> None:
    """Every page, every place; the HTML is valid, and its own links lead to it."""
    links = dict[str, str]()
    for path in PAGES:
        links |= dict.fromkeys(re.findall(r'href="(/-/[ru][^"]*)"', _shown(hostile[0], path)), path)
    assert len(links) > 2 * len(TEXTS)
    for link, path in links.items():
        assert hostile[0].get(link.replace("&amp;", "&")).status_code == 200, (path, link)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:20])
def test_hostile_names_are_shown_escaped(hostile: tuple[AsgiClient, Path], text: str) -> None:
    """On the pages of one repository, and where it is searched for."""
    served, path = hostile
    with closing(sqlite3.connect(path)) as connection:
        one, by = connection.execute(
            "SELECT id, owner_id FROM repositories WHERE name = ?", (f"{text}y",)
        ).fetchone()
    for address in OF_ONE:
        _shown(served, address.format(repository=one, owner=by, text=quote(text[:200])))


def test_names_unfit_for_addresses_link_to_the_row(tmp_path: Path) -> None:
    """Never to another object's number; without a number there is no link."""
    served = _fill(tmp_path / "mirror.db", "..")
    assert 'href="/-/r?id=1"' in served.get("/mirror/repositories").text
    assert 'href="/-/u?id=1"' in served.get("/mirror/users").text
    assert 'href="/-/r?id=1"' in served.get("/mirror/recent_changes").text
    assert "/-/u?id=" not in served.get("/mirror/recent_changes").text
    assert "/-/r" not in re.sub(r"/-/r/[^.]", "", served.get("/mirror/stale?days=1").text)


@pytest.mark.parametrize(
    "path", ["/", "/-/search?q=a&page=2", "/-/changes", "/-/mirror-status", "/-/mirror-login"]
)
def test_our_pages_are_valid_html(tmp_path: Path, path: str) -> None:
    """A strict parser finds no fault, on an empty and on a full mirror."""
    FixtureDb(tmp_path / "mirror.db").store.close()
    strict_html(client_of(tmp_path / "mirror.db").get(path).text)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[AsgiClient, sqlite3.Connection]:
    """One served mirror whose texts are rewritten for each example."""
    path = tmp_path_factory.mktemp("fuzzed") / "mirror.db"
    served = _fill(path, "plain")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return served, connection


anything = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
markup = st.lists(
    st.sampled_from([*"<>\"'&/=%#?{}`;:", "script", "onerror", "--", "]]>", "\u202e", "\0"])
).map("".join)


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(anything, markup.filter(bool)))
def test_random_texts_leave_pages_valid(fuzzed: tuple[AsgiClient, sqlite3.Connection], text: str) -> None:
    """Whatever the file has, also values that no crawl would save."""
    served, connection = fuzzed
    with connection:
        connection.execute(
            """UPDATE repositories SET name = ?1, slug = ?1, full_name = ?1 || '/' || ?1, description = ?1,
                   website = ?1, language = ?1, main_branch = ?1 WHERE id = 1""",
            (text,),
        )
        connection.execute("UPDATE users SET username = ?1, display_name = ?1 WHERE id = 1", (text,))
        connection.execute(
            "UPDATE branches SET name = ?1, target_message = ?1 WHERE repository_id = 1", (text,)
        )
        connection.execute("UPDATE changes SET ref = ?1, old = ?1, new = ?1, at = ?2", (text, SEEN))
    for path in ("/-/r?id=1", "/-/u?id=1", f"/-/search?q={quote(text)}", "/-/changes"):
        answer = served.get(path)
        assert answer.status_code == 200, path
        _harmless(answer.text, ours=True)


@given(st.text(max_size=700), st.text(max_size=50))
@settings(max_examples=examples(100))
def test_links_are_safe_for_any_name(owner_name: str, slug: str) -> None:
    """An address is ASCII, begins with the mirror's own, and cannot lead out of it."""
    links = SiteLinks(lambda path: path, "mirror")
    for link in (
        links.repository(f"{owner_name}/{slug}", 7),
        links.owner(owner_name, 7),
        links.search(q=slug),
    ):
        assert re.fullmatch(r"/-/(r|u|search)[!-~]*", link)
        assert not re.search(r"/\.\.?(/|$)|[\"'<>\\]|//", link.replace("'", "") if "?" in link else link)


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("http://example.com/a?b#c", True), ("https://[::1]/", True), ("HTTPS://EXAMPLE.COM", True),
        ("javascript:alert(1)", False), (" javascript:alert(1)", False), ("java\nscript:alert(1)", False),
        ("data:text/html,x", False), ("//example.com", False), ("http:alert(1)", False), ("http://[", False),
        ("", False), (None, False), ("ftp://example.com", False),
    ],
)  # fmt: skip
def test_only_http_addresses_are_linked(address: str | None, safe: bool) -> None:
    """Any other website is shown as text."""
    assert (safe_external(address) is not None) is safe


def test_broken_addresses_are_answered(tmp_path: Path) -> None:
    """No request makes a page fail."""
    served = _fill(tmp_path / "mirror.db", "plain")
    for path in (
        "/-/r/%FF/x", "/-/u/%FF", "/-/r/a%00/b", "/-/r?id=x", "/-/r", "/-/u?id=99999999999999999999",
        "/-/r/plain%2Fplain/plain", "/-/changes?before=x&repository=y&since=%00&until=9999999d",
        "/-/search?q=%00%FF&page=999999999999",
        "/-/search?q=" + "%F0%9F%92%A9" * 2000, "/-/search.json?q=%ED%A0%80",
        "/-/mirror-assets/..%2F..%2Fx", "/-/search?owner=%FF&language=%00",
        "/-/refs?q=%00%FF&page=999999999999&kind=x&size=0", "/-/refs.json?q=%ED%A0%80",
    ):  # fmt: skip
        assert served.get(path).status_code in (200, 302, 404), path
    assert asyncio.run(served.datasette.client.get("/-/search?" + "a=1&" * 200)).status_code == 200


def test_names_that_are_not_utf_8_stay_distinct_everywhere(tmp_path: Path) -> None:
    r"""Both APIs (lists and names), the page and the tables show them as stored, with ``\xNN``."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("some/one")], first=True)
    names = {r"caf\xe8": "a", r"caf\xe9": "b", r"caf\x5cxe9": "c"}
    filled.refs("some/one", [hg_ref("branch", name, digit) for name, digit in names.items()])
    filled.store.close()
    served = client_of(tmp_path / "mirror.db")
    listed = served.json("/2.0/repositories/some/one/refs/branches")["values"]
    assert {row["name"]: row["target"]["hash"][0] for row in listed} == names
    for row in listed:
        assert (
            served.json(row["links"]["self"]["href"].removeprefix("http://localhost"))["name"] == row["name"]
        )
    assert set(served.json("/1.0/repositories/some/one/branches")) == set(names)
    assert all(f"<bdi>{name}</bdi>" in served.get("/-/r/some/one").text for name in names)
    rows = served.json("/mirror/branches.json?_shape=objects&name=" + quote(r"caf\xe9"))["rows"]
    assert [row["target_hash"][0] for row in rows] == ["b"]
