"""A mirror below a path of a reverse proxy: no link leads out of it."""

import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from asgi_client import AsgiClient, client_of
from fixtures_db import FixtureDb, fill_public
from live_server import WITHOUT_TLS, serving
from reverse_proxy import Proxy, proxy

from mirror.errors import ConfigError
from mirror.serve.urls import in_origin_form, inner, outer
from mirror.store import tokens

ATTRIBUTES = re.compile(r'(?:href|src|action|data-suggest)="([^"#]*)"')
TABLES = (
    "mirror/repositories?_facet=language&_where=id>0&_size=2",
    "mirror?sql=select+full_name+from+repositories&_hide_sql=1",
    "mirror/find?part=django",
    "mirror/users/1",
)
MOST = 2
"""How many addresses of one folder are followed: tables, rows, repositories, each with all parameters."""


def links_of(answer: httpx.Response) -> list[str]:
    """Return all addresses in an answer: attributes of pages, texts of JSON, redirects, Link headers."""
    found = re.findall("<([^>]*)>", answer.headers.get("link", ""))
    if "location" in answer.headers:
        found.append(answer.headers["location"])
    kind = answer.headers.get("content-type", "")
    if "html" in kind or "atom" in kind:
        found += [html.unescape(one) for one in ATTRIBUTES.findall(answer.text)]
    elif "json" in kind:
        found += re.findall(r'"(https?://[^"]*)"', json.dumps(answer.json()))
    return [urljoin(str(answer.url), one) for one in found]


def crawl(begun: list[str], http: httpx.Client) -> Iterator[httpx.Response]:
    """Follow links on the host: all of pages, some of each other folder."""
    waiting, seen, origin = [*begun], Counter[str](), urlsplit(begun[0]).netloc
    known = set(begun)
    while waiting:
        answer = http.get(waiting.pop(0))
        yield answer
        for link in dict.fromkeys(links_of(answer)):
            place = urlsplit(link)
            folder = place.path.rpartition("/")[0]
            if place.netloc != origin or link in known or (seen[folder] >= MOST and place.path in known):
                continue
            if seen[folder] < MOST or folder.endswith(("/-", "/static", "/mirror-assets")):
                seen[folder] += 1
                known |= {link, place.path}
                waiting.append(link)


@pytest.fixture(params=["stripped", "passed on"])
def published(request: pytest.FixtureRequest, public_db: FixtureDb) -> Iterator[tuple[Proxy, str]]:
    """A mirror behind a proxy of either style, whose prefix is also the name of its database."""
    token = tokens.create(public_db.store, "reader", "read")
    public_db.store.close()
    with (
        proxy("/mirror", strips=request.param == "stripped") as server,
        serving(public_db.path, public_url=server.address) as backend,
    ):
        server.backend = backend
        yield server, token


def test_no_link_leaves_the_prefix(published: tuple[Proxy, str]) -> None:
    """On pages, tables, SQL, stored queries, facets, exports, both APIs, the feed and all assets."""
    server, token = published
    begun = [f"{server.address}/{path}" for path in ("", *TABLES, "2.0/repositories?pagelen=2")]
    with httpx.Client(
        verify=WITHOUT_TLS, trust_env=False, timeout=20, headers={"Authorization": f"Bearer {token}"}
    ) as http:
        asked = list(crawl(begun, http))
    told = {urlsplit(str(one.url)).path.removeprefix("/mirror") for one in asked}
    assert server.outside == []
    own = [one for one in asked if re.search(r"/mirror/(-/.*)?$", urlsplit(str(one.url)).path)]
    assert {one.status_code for one in own} <= {200, 302}
    assert {"/", "/-/search", "/-/changes.atom", "/mirror/repositories", "/mirror"} <= told
    assert any(path.endswith(".css") for path in told)
    backend = urlsplit(server.backend).netloc
    assert [str(one.url) for one in asked if backend in one.text] == []


def test_redirects_and_cookies_keep_the_prefix(published: tuple[Proxy, str]) -> None:
    """A login returns to the page that required it; its cookie is for the prefix only."""
    server, token = published
    with httpx.Client(verify=WITHOUT_TLS, trust_env=False) as http:
        page = http.get(f"{server.address}/-/mirror-login", params={"next": "/mirror/repositories?_sort=id"})
        fields = dict(re.findall(r'name="(csrftoken|next)" value="([^"]*)"', page.text))
        answer = http.post(f"{server.address}/-/mirror-login", data=html_free(fields) | {"token": token})
        assert answer.headers["location"] == "/mirror/mirror/repositories?_sort=id"
        assert {(one.name, one.path) for one in http.cookies.jar} == {
            ("ds_csrftoken", "/mirror"), ("ds_actor", "/mirror"),
        }  # fmt: skip
        moved = http.get(f"{server.address}/-/settings.json/")
        assert moved.headers["location"].startswith("/mirror/-/settings")


def html_free(fields: dict[str, str]) -> dict[str, str]:
    """Return the values of fields as a browser sends them."""
    return {name: html.unescape(value) for name, value in fields.items()}


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> AsgiClient:
    """A mirror below a path that no database has as its name."""
    path = tmp_path_factory.mktemp("below") / "mirror.db"
    fill_public(path).store.close()
    return client_of(path, public_url="https://code.example/a/b")


@pytest.mark.parametrize(
    ("path", "bare"),
    [
        ("/a/b", "/"),
        ("/a/b/", "/"),
        ("/", "/"),
        ("/a/b/mirror/tags", "/mirror/tags"),
        ("/mirror/tags", "/mirror/tags"),
        ("/a/bc", "/a/bc"),
    ],
)
def test_requests_work_with_and_without_the_prefix(below: AsgiClient, path: str, bare: str) -> None:
    """With or without a final slash."""
    assert inner(below.datasette, path) == bare
    assert outer(below.datasette, f"{path}?x=/a/b/") == f"/a/b{bare}?x=/a/b/"


@pytest.mark.parametrize(
    ("path", "bare"),
    [
        ("/mirror/", "/"),
        ("/mirror", "/mirror"),
        ("/mirror/mirror", "/mirror"),
        ("/mirror/tags", "/mirror/tags"),
        ("/mirror/mirror/tags/1,a", "/mirror/tags/1,a"),
        ("/mirror/-/search", "/-/search"),
        ("/mirror/2.0/user", "/2.0/user"),
        ("/mirror/mirror.json", "/mirror.json"),
        ("/mirror/mirror/mirror/tags", "/mirror/tags"),
    ],
)
def test_a_prefix_may_equal_the_name_of_the_database(public_path: Path, path: str, bare: str) -> None:
    """What follows it decides."""
    served = client_of(public_path, public_url="https://code.example/mirror")
    assert inner(served.datasette, path) == bare


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://other.example:81/2.0/a%20b", b"/2.0/a%20b", b"other.example:81"),
        (b"HTTPS://me:word@other.example", b"/", b"other.example"),
        (b"/http://other.example/", b"/http://other.example/", b"here"),
        (b"//other.example/", b"//other.example/", b"here"),
        (b"http:///x", b"http:///x", b"here"),
        (b"*", b"*", b"here"),
    ],
)
def test_a_whole_address_is_a_target_too(target: bytes, path: bytes, host: bytes) -> None:
    """Its path is used, at its host; a path that looks like an address is still a path."""
    headers = [(b"host", b"here"), (b"accept", b"*/*")]
    got = in_origin_form({"path": target.decode(), "raw_path": target, "headers": headers})
    assert (got["raw_path"], dict(got["headers"])) == (path, {b"host": host, b"accept": b"*/*"})
    assert got["path"] == path.decode().replace("%20", " ")


def test_links_of_tables_and_feed_lead_to_the_public_address(below: AsgiClient) -> None:
    """Whatever host the proxy uses; the prefix appears once."""
    table = below.json("/mirror/repositories.json?_size=2&_facet=scm")
    assert table["next_url"].startswith("https://code.example/a/b/mirror/repositories.json?")
    toggle = table["facet_results"]["scm"]["results"][0]["toggle_url"]
    assert toggle.startswith("https://code.example/a/b/mirror/repositories.json?")
    feed = below.get("/-/changes.atom").text
    assert 'href="https://code.example/a/b/-/changes.atom"' in feed
    assert "/a/b/a/b" not in feed


@pytest.mark.parametrize(
    "address",
    ["code.example/b", "https://", "ftp://x/b", "https://x/b?c", "https://x//b", "https://u:hunter2@x/b"],
)
def test_an_invalid_public_url_is_refused(public_path: Path, address: str) -> None:
    """Before the server starts, with the expected form, and without its login."""
    with pytest.raises(ConfigError, match="https://HOST/PATH") as caught:
        client_of(public_path, public_url=address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("public_url", "is_secure"), [("https://example.com", True), ("http://example.com", False), ("", False)]
)
def test_the_cookie_of_a_login_is_secure_where_browsers_use_https(
    public_db: FixtureDb, public_url: str, *, is_secure: bool
) -> None:
    """If a proxy ends TLS, `public_url` says what browsers use."""
    token = tokens.create(public_db.store, "browser", "read")
    served = client_of(public_db.path, public_url=public_url)
    answer = served("POST", "/-/mirror-login", data={"token": token})
    assert ("secure" in answer.headers["set-cookie"].lower()) is is_secure
