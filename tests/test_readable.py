"""Texts of others and sizes for people: the same rules in commands, pages, the feed and the search box."""

import unicodedata
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from asgi_client import AsgiClient, client_of
from cli_runner import Folder
from fixtures_db import LATER, FixtureDb, hg_ref, repository

from mirror.errors import LONGEST_MESSAGE, StoreError
from mirror.readable import abridged, size_text, visible, visible_html

VISIBLE_FORMATS = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Signs of Arabic and other scripts that Unicode calls formats, and that are seen."""
EVIL = "safe\u202egpj.\x1b[31m\x9b\u200b"
TOLD = "safe\\u202egpj.\\x1b[31m\\x9b\\u200b"


def test_every_character_that_is_not_seen_is_written_out() -> None:
    """All control, format and surrogate characters and line separators, except tabs and line ends."""
    hidden = {
        code for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }
    kept = {code for code in hidden if visible(chr(code)) == chr(code)}
    assert kept - {ord("\t"), ord("\n")} == VISIBLE_FORMATS
    assert all(visible(chr(code)).isascii() for code in hidden - kept)


@pytest.mark.parametrize(
    "text",
    [
        "größe",
        "日本\u3000語",
        "c\xa0d",
        "👨\u200d👩\u200d👧",
        "\u0645\u200c\u062e",
        "❤\ufe0f",
        "a\r\nb\tc",
        "عربي",
    ],
)
def test_what_is_seen_or_needed_stays(text: str) -> None:
    """Letters, spaces, emoji and joiners between letters that need them."""
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [("a\rb", "a\\rb"), ("a\u200db", "a\\u200db"), ("\u200d", "\\u200d"), ("\U000e0041", "\\U000e0041")],
)
def test_what_hides_is_told_by_its_number(text: str, told: str) -> None:
    """As Python escapes it."""
    assert visible(text) == told


def test_a_page_keeps_addresses_and_values() -> None:
    """Values of forms and addresses of links are unchanged."""
    page = '<a href="/\u202e" title="\u202e">\u202e</a><input value="\u202e"><textarea>\u202e</textarea>'
    wanted = '<a href="/\u202e" title="\\u202e">\\u202e</a><input value="\u202e"><textarea>\u202e</textarea>'
    assert visible_html(page) == wanted


def test_a_text_is_abridged_in_its_middle() -> None:
    """To the number of characters that is given; a shorter one stays."""
    assert abridged("abcdefghij", 10) == "abcdefghij"
    assert abridged("abcdefghijk", 10) == "abcdef…ijk"


def test_the_message_of_an_error_is_abridged() -> None:
    """Commands, pages, logs, tools and the file get it as it is."""
    assert len(str(StoreError(f"{'x' * 100_000}: no such file"))) == LONGEST_MESSAGE
    assert str(StoreError(f"{'x' * 100_000}: no such file")).endswith("x: no such file")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "not known"), (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"),
        (9949, "9.9 kB"), (9950, "10 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (887_709_436, "888 MB"),
        (5 * 10**18, "5,000 PB"),
    ],
)  # fmt: skip
def test_sizes_have_one_unit_and_few_digits(size: int | None, text: str) -> None:
    """And never a thousand of a unit."""
    assert size_text(size) == text


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with malicious names, and a repository with many branches and an old main branch."""
    filled = FixtureDb(tmp_path_factory.mktemp("readable") / "mirror.db")
    filled.repositories([repository(f"eve/{EVIL}", description=EVIL, name=EVIL)], first=True)
    filled.refs(f"eve/{EVIL}", [])
    filled.refs(f"eve/{EVIL}", [hg_ref("branch", EVIL, "b")], at=LATER)
    filled.repositories([repository("ann/many", size=1_234_567)], first=True)
    old, new = "2009-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z"
    branches = [hg_ref("branch", f"b{number:04}", "c", target_date=new) for number in range(2000)]
    filled.refs("ann/many", [*branches, hg_ref("branch", "master", "a", target_date=old)])
    filled.store.close()
    return filled.path


@pytest.fixture(scope="module")
def served(path: Path) -> AsgiClient:
    """The mirror, served."""
    return client_of(path)


def test_evil_names_are_written_out_wherever_they_are_shown(served: AsgiClient) -> None:
    """Titles, links, history, search box, feed, Datasette's tables; JSON and CSV keep them."""
    (row,) = served.json("/-/search.json?q=safe")["repositories"]
    assert row["slug"] == EVIL
    for page in (row["url"], "/-/search?q=safe", "/-/search/options?q=safe", "/-/changes", "/-/u/eve",
                 "/mirror/repositories", "/mirror/repositories/1", "/mirror/branches"):  # fmt: skip
        text = served.get(page).text
        assert TOLD in text.replace("<mark>safe</mark>", "safe"), page
        assert not any(letter in text for letter in "\u202e\x1b\x9b\u200b"), page
    assert f"<title>eve/{TOLD} · Bitbucket mirror</title>" in served.get(row["url"]).text
    feed = ET.fromstring(served.get("/-/changes.atom").text)  # noqa: S314 - our own
    assert any(TOLD in (one.text or "") for one in feed.iter("{http://www.w3.org/2005/Atom}title"))
    assert "safe%E2%80%AE" in served.get("/-/changes.atom").text


def test_what_one_typed_stays_in_the_box(served: AsgiClient) -> None:
    """Otherwise it would be another query."""
    text = served.get("/-/search?q=a%E2%80%AEb").text
    assert 'value="a\u202eb"' in text
    assert "“a\\u202eb”" in text


def test_commands_write_evil_names_out(path: Path, tmp_path: Path) -> None:
    """In results, in a repository and in changes."""
    (tmp_path / "mirror.toml").write_text(f'database = "{path}"\n')
    folder = Folder(tmp_path)
    for words in (("search", "safe"), ("show", f"eve/{EVIL}"), ("changes", "--since", "2020-01-01")):
        found = folder.run(*words)
        assert (found.code, TOLD in found.out) == (0, True), words
        assert not any(letter in found.out for letter in "\u202e\x1b\x9b\u200b")
    assert "\\u202e" in folder.run("show", "eve/no\u202e").err


def test_the_main_branch_comes_first_and_thousands_are_paged(
    served: AsgiClient, path: Path, tmp_path: Path
) -> None:
    """On the page and in the command; --json has all."""
    page = served.get("/-/r/ann/many").text.split('id="branches-list"')[1]
    assert page.index("master") < page.index("b0000")
    (tmp_path / "mirror.toml").write_text(f'database = "{path}"\n')
    folder = Folder(tmp_path)
    shown = folder.run("show", "ann/many").out
    assert "1.2 MB" in shown
    listed = shown.split("branches (2,001)\n")[1].split("tags")[0].splitlines()
    assert listed[0].split()[:2] == ["master", "a" * 12]
    assert listed[0].rstrip().endswith(" years ago")
    assert (len(listed), listed[-1].strip()) == (51, "and 1,951 more; --refs 2001 lists them, --json too")
    assert folder.run("show", "ann/many", "--refs", "2001").out.count("cccccccccccc") == 2000
    assert folder.run("show", "ann/many", "--json").out.count('"url"') == 2002


@pytest.mark.parametrize("address", ["/nowhere", "/mirror/no-table", "/jespern/many", "/-/no/many"])
def test_an_address_at_which_nothing_is_offers_a_search(served: AsgiClient, address: str) -> None:
    """Datasette's 404 in the mirror's words, with the last name in a search box."""
    answer = served.get(address)
    name = address.rpartition("/")[2]
    assert answer.status_code == 404
    assert "<h1>Not here</h1>" in answer.text
    assert f'value="{name}"' in answer.text
    assert answer.text.count('type="search"') == 1
    assert served.get(f"{address}.json").headers["content-type"].startswith("application/json")
