"""Other plugins beside the mirror's: scripts that their hooks add run, scripts in values do not."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, client_of, make_tokens
from browser_fixtures import browser
from datasette import hookimpl
from datasette.plugins import pm
from fixtures_db import FixtureDb, fill_mixed, fill_public

from mirror.config import read_config
from mirror.config_checks import sources_of
from mirror.errors import ConfigError

APART = Path(__file__).parent.parent / ".venv/plugins"
NONCE = re.compile(r"'nonce-([\w-]{20,})'")
EVIL = "</script><script>window.evil = 1</script>"
PLUGINS = ("cluster_map", "copyable", "graphql", "search_all", "vega")


def test_sources_are_read_by_directive() -> None:
    """Directives may be in any order and repeated; lines may be broken."""
    assert sources_of("") == {}
    text = (
        "img-src https://*.tile.example data:;\n script-src 'unsafe-eval'; img-src http://b.example:8080/x/;"
    )
    assert sources_of(text) == {
        "img-src": ("https://*.tile.example", "data:", "http://b.example:8080/x/"),
        "script-src": ("'unsafe-eval'",),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("https://tiles.example", "nothing can be added to 'https://tiles.example'"),
        ("image-src https://a.example", "did you mean 'img-src'"),
        ("default-src https://a.example", "nothing can be added to 'default-src'"),
        ("frame-ancestors https://a.example", "nothing can be added to 'frame-ancestors'"),
        ("img-src", "img-src names no source"),
        ("script-src 'unsafe-inline'", "would let names and descriptions run scripts"),
        ("script-src 'UNSAFE-INLINE'", "would let names and descriptions run scripts"),
        ("script-src unsafe-inline", "would let names and descriptions run scripts"),
        ("script-src 'nonce-abc'", "is no source of script-src"),
        ("script-src 'strict-dynamic'", "is no source of script-src"),
        ("script-src data:", "is no source of script-src"),
        ("script-src *", "is no source of script-src"),
        ("img-src https:", "is no source of img-src"),
        ("img-src javascript:alert(1)", "is no source of img-src"),
        ("img-src https://a.example,https://b.example", "is no source of img-src"),
        ("img-src https://a.example\r\nSet-Cookie:x=1", "is no source of img-src"),
        ("img-src https://ä.example", "is no source of img-src"),
        ("img-src https://user@a.example", "is no source of img-src"),
    ],
)
def test_what_would_weaken_or_break_the_policy_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    """In one line with the setting."""
    with pytest.raises(ValueError, match=re.escape(complaint)):
        sources_of(text)
    path = tmp_path / "mirror.toml"
    path.write_text(f"[serve]\ncsp = {json.dumps(text, ensure_ascii=False)}\n")
    with pytest.raises(ConfigError, match=re.escape(complaint)) as error:
        read_config(path)
    assert f"{path}, line 2: csp: " in str(error.value)
    assert "\n" not in str(error.value)


class Collected:
    """A plugin that uses each hook for scripts and stylesheets."""

    __name__ = "collected"

    @hookimpl  # type: ignore[untyped-decorator]
    def extra_body_script(self) -> str:
        """A script in the page."""
        return "window.collected = 1;"

    @hookimpl  # type: ignore[untyped-decorator]
    def extra_js_urls(self) -> list[str]:
        """A script elsewhere."""
        return ["https://scripts.example/a.js"]

    @hookimpl  # type: ignore[untyped-decorator]
    def extra_css_urls(self) -> list[str]:
        """Stylesheets elsewhere; one address tries to end the policy."""
        return ["https://styles.example/a b;c.css?v=1", "javascript:alert(1)", "https://x;y/"]


@pytest.fixture
def collected(public_db: FixtureDb) -> Iterator[AsgiClient]:
    """A mirror beside that plugin."""
    with public_db.store.transaction() as connection:
        connection.execute("UPDATE repositories SET description = ?", (EVIL,))
    public_db.store.close()
    plugin = Collected()
    pm.register(plugin)
    try:
        yield client_of(public_db.path, csp="img-src https://tiles.example")
    finally:
        pm.unregister(plugin)


@pytest.mark.parametrize("path", ["/mirror", "/mirror/repositories", "/mirror/repositories/1", "/nowhere"])
def test_scripts_of_templates_and_hooks_have_the_nonce_of_the_answer(
    collected: AsgiClient, path: str
) -> None:
    """A new one for each response; the operator's sources and collected stylesheets are allowed too."""
    answer = collected.get(path)
    policy = answer.headers["content-security-policy"]
    (nonce,) = NONCE.findall(policy)
    assert nonce not in NONCE.findall(collected.get(path).headers["content-security-policy"])
    scripts = re.findall(r"<script[^>]*>", answer.text)
    assert len(scripts) >= 4
    assert all(f'nonce="{nonce}"' in one for one in scripts)
    assert any("https://scripts.example/a.js" in one for one in scripts)
    assert "window.collected = 1;" in answer.text
    assert "<script>window.evil" not in answer.text
    directives = dict(one.split(" ", 1) for one in policy.split("; "))
    assert directives["style-src"] == "'self' 'unsafe-inline' https://styles.example/a%20b%3Bc.css"
    assert directives["img-src"] == "'self' data: https://tiles.example"
    assert directives["script-src"] == f"'self' 'nonce-{nonce}'"


class Broken:
    """A plugin with a fault."""

    __name__ = "broken"

    @hookimpl  # type: ignore[untyped-decorator]
    def render_cell(self) -> str:
        """Fail at every value of a table."""
        raise KeyError("nothing has this name")


def test_the_fault_of_a_plugin_is_no_fault_of_the_address(
    public_db: FixtureDb, caplog: pytest.LogCaptureFixture
) -> None:
    """On a page of a table too, whose address Datasette may fail to read; the log tells it."""
    client = client_of(public_db.path)
    plugin = Broken()
    pm.register(plugin)
    try:
        assert client.get("/mirror/repositories").status_code == 500
    finally:
        pm.unregister(plugin)
    assert "nothing has this name" in caplog.text


def test_answers_without_scripts_need_no_nonce(collected: AsgiClient) -> None:
    """JSON, and the mirror's own pages, which keep their policy."""
    assert "nonce" not in collected.get("/mirror/repositories.json").headers["content-security-policy"]
    assert "nonce" not in collected.get("/-/search").headers["content-security-policy"]
    assert "nonce" not in collected.get("/-/search").text


@pytest.mark.parametrize("cors", [True, False])
def test_results_may_be_read_by_other_sites_where_tables_may(public_path: Path, cors: bool) -> None:
    """With `--cors`, like tables."""
    client = client_of(public_path)
    client.datasette.cors = cors
    for path in ("/-/search.json?q=a", "/-/search.csv?q=a", "/mirror/repositories.json"):
        assert (client.get(path).headers.get("access-control-allow-origin") == "*") is cors, path


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _datasette(place: Path, *files: Path) -> Iterator[str]:
    """Serve files by plain Datasette, with the separately installed plugins."""
    policy = {"csp": "script-src 'unsafe-eval'; img-src https://*.tile.openstreetmap.org"}
    (place / "metadata.json").write_text(json.dumps({"plugins": {"bitbucket-mirror": policy}}))
    port = _free_port()
    words = [sys.executable, "-m", "datasette", *map(str, files), "-p", str(port), "-m",
             str(place / "metadata.json")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(APART)}
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(300):
                with closing(socket.socket()) as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mirror, a closed mirror and a file with places, served beside five plugins."""
    missing = [name for name in PLUGINS if not (APART / f"datasette_{name}").is_dir()]
    if missing:
        pytest.skip(f"no datasette plugins {', '.join(missing)}: make .venv/installed-plugins")
    place = tmp_path_factory.mktemp("plugins")
    public, mixed, places = (place / f"{name}.db" for name in ("mirror", "closed", "places"))
    fill_public(public).store.close()
    filled = fill_mixed(mixed)
    (place / "token").write_text(make_tokens(filled.store)["read"])
    filled.store.close()
    with closing(sqlite3.connect(places)) as connection:
        connection.execute("CREATE TABLE spots (name TEXT, latitude REAL, longitude REAL)")
        connection.execute("INSERT INTO spots VALUES (?, 52.1, 4.3)", (EVIL,))
        connection.commit()
    with _datasette(place, public, mixed, places) as found:
        yield found


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    with browser() as found:
        yield found


def test_pages_open_beside_five_plugins(address: str, running: Any) -> None:
    """A chart, a map, GraphiQL, a copyable table and the mirror's search, without console messages."""
    said = list[str]()
    page = running.new_page()
    page.route("https://*/**", lambda route: route.fulfill(status=204))
    page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
    page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    page.on("response", lambda one: said.append(f"{one.status} {one.url}") if one.status >= 400 else None)
    query = "%7Brepositories%7BtotalCount%20nodes%7Bfull_name%20owner_id%7Busername%7D%7D%7D%7D"

    page.goto(
        f"{address}/mirror/repositories#g.mark=bar&g.x_column=scm&g.x_type=ordinal&g.y_column=size&g.y_type=quantitative"
    )
    page.wait_for_selector(".vega-embed svg, .vega-embed canvas, .datasette-vega svg, .datasette-vega canvas")
    page.goto(f"{address}/places/spots")
    page.wait_for_selector(".leaflet-marker-icon")
    assert page.evaluate("window.evil") is None
    page.goto(f"{address}/graphql/mirror?query={query}")
    page.click("button.execute-button")
    page.wait_for_selector(".result-window >> text=django-piston")
    page.goto(f"{address}/mirror/repositories.copyable")
    assert "jespern/django-piston" in page.locator("textarea").input_value()
    page.goto(f"{address}/-/search?q=piston")
    assert page.locator(".hit").count() == 2
    for path in ("/", "/-/index", "/mirror", "/mirror/users", "/mirror/branches"):
        assert page.goto(f"{address}{path}").status == 200, path
    assert said == []


def test_graphql_shows_no_more_than_tables(address: str, running: Any) -> None:
    """It closes a mirror with private rows to strangers too."""
    query = "/graphql/closed?query=%7Brepositories%7Bnodes%7Bfull_name%7D%7D%7D"
    asked = running.new_context(extra_http_headers={"Accept": "application/json"}).request
    refused = asked.get(f"{address}{query}")
    assert refused.status == 403
    assert "arriving" not in refused.text()
