"""The Atom feed: valid by RFC 4287 and for a feed reader, with stable ids."""

import re
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from asgi_client import AsgiClient, client_of
from fixtures_db import LATER, FixtureDb, hg_ref, owner, repository

ATOM = "{http://www.w3.org/2005/Atom}"
WEIRD = "v\x01<b>&\"'\ud7ff\ufffe\u202e"


@pytest.fixture
def served(public_db: FixtureDb) -> AsgiClient:
    """A mirror with changes, also of things with odd names."""
    public_db.refs(
        "jespern/django-piston", [hg_ref("branch", "default", "c"), hg_ref("tag", WEIRD, "d")], at=LATER
    )
    renamed = repository("mcatalbas/a&b <i>", owner("mcatalbas"), uuid="{mcatalbas/codeigniter}")
    public_db.repositories([renamed], at=LATER)
    public_db.gone("ubernostrum/django-registration")
    public_db.store.close()
    return client_of(public_db.path, public_url="https://mirror.example.com/")


def _valid(text: str) -> ET.Element:
    """Check what RFC 4287 requires of a feed and its entries; return the feed."""
    feed = ET.fromstring(text)  # noqa: S314 - our own
    assert feed.tag == f"{ATOM}feed"
    for element in (feed, *feed.findall(f"{ATOM}entry")):
        for name in ("id", "title", "updated"):
            (child,) = element.findall(f"{ATOM}{name}")
            assert child.text
        datetime.fromisoformat(element.findtext(f"{ATOM}updated") or "")
        assert re.fullmatch(r"tag:[\w.-]+,\d{4}:[!-~]+", element.findtext(f"{ATOM}id") or "")
        links = [link.attrib for link in element.findall(f"{ATOM}link")]
        assert [link["rel"] for link in links].count("alternate") == 1
        assert all(re.fullmatch(r"https?://[!-~]+", link["href"]) for link in links)
    (own,) = [link for link in feed.findall(f"{ATOM}link") if link.get("rel") == "self"]
    assert own.get("href")
    assert feed.findtext(f"{ATOM}author/{ATOM}name")
    ids = [entry.findtext(f"{ATOM}id") for entry in feed.findall(f"{ATOM}entry")]
    assert len(ids) == len(set(ids))
    return feed


def test_the_feed_is_valid_with_odd_names_and_when_empty(served: AsgiClient) -> None:
    """Every filter gives a valid feed, an empty one too."""
    answer = served.get("/-/changes.atom")
    assert answer.headers["content-type"] == "application/atom+xml; charset=utf-8"
    assert len(_valid(answer.text).findall(f"{ATOM}entry")) > 4
    for query in (
        "kind=tags",
        "owner=jespern&ref=v",
        "kind=owner_renamed",
        "since=bad",
        "ref=%22%26%3C%E2%80%AE",
    ):
        _valid(served.get(f"/-/changes.atom?{query}").text)
    assert not _valid(served.get("/-/changes.atom?owner=nobody").text).findall(f"{ATOM}entry")


def test_a_feed_reader_understands_it(served: AsgiClient) -> None:
    """Titles describe the change, links lead to the pages at the public address."""
    feedparser = pytest.importorskip("feedparser", reason="feedparser is not installed")
    parsed = feedparser.parse(served.get("/-/changes.atom").content)
    assert not parsed.bozo
    assert parsed.version == "atom10"
    titles = {entry.title for entry in parsed.entries}
    assert "ubernostrum/django-registration is gone" in titles
    assert any(title.startswith("mcatalbas/a&b <i> was renamed (mcatalbas/codeigniter") for title in titles)
    assert all(entry.link.startswith("https://mirror.example.com/-/r/") for entry in parsed.entries)
    assert all("<script" not in entry.summary for entry in parsed.entries)


def test_filters_apply_and_entry_ids_are_stable(served: AsgiClient, tmp_path: Path) -> None:
    """An entry has the same id in every feed, also after later changes."""
    everything = _valid(served.get("/-/changes.atom").text)
    tags = _valid(served.get("/-/changes.atom?kind=tags").text)
    ids = {entry.findtext(f"{ATOM}id") for entry in everything.findall(f"{ATOM}entry")}
    some = {entry.findtext(f"{ATOM}id") for entry in tags.findall(f"{ATOM}entry")}
    assert some
    assert some < ids
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.gone("dchambers/django-piston")
    filled.store.close()
    later = _valid(served.get("/-/changes.atom").text)
    assert ids < {entry.findtext(f"{ATOM}id") for entry in later.findall(f"{ATOM}entry")}


def test_an_invalid_host_header_is_not_repeated(public_path: Path) -> None:
    """Without a configured address, the requested host is used if it is valid."""
    served = client_of(public_path)
    assert (
        "http://good.example:81/-/" in served.get("/-/changes.atom", headers={"Host": "good.example:81"}).text
    )
    assert "evil" not in served.get("/-/changes.atom", headers={"Host": 'evil"/><x'}).text


@pytest.mark.parametrize("wrong", ["kind=tag_movd", "since=abc", "until=2020", "repository=jespern"])
def test_a_filter_that_cannot_be_read_is_named(served: AsgiClient, wrong: str) -> None:
    """A feed with a misspelled filter would bring everything, and nobody would notice."""
    value = wrong.partition("=")[2]
    feed = _valid(served.get(f"/-/changes.atom?{wrong}").text)
    assert f"“{value}” is not" in str(feed.findtext(f"{ATOM}title"))
    assert not feed.findall(f"{ATOM}entry")
    assert f"“{value}” is not" in served.get(f"/-/changes?{wrong}").text
