"""Archived repositories: reported by a Data Center, stored, served, shown, filtered and exported."""

import json
from pathlib import Path

import pytest
from asgi_client import AsgiClient, client_of
from cli_runner import Folder
from fixtures_db import FixtureDb, repository
from sync_harness import Clock, SyncHarness

from mirror.sandbox import Sandbox, World, running
from mirror.store import Store

ROWS = {"old": True, "new": False, "unknown": None}


def fill(path: Path) -> FixtureDb:
    """One archived repository, one that is not, and one of which it is unknown."""
    filled = FixtureDb(path)
    filled.repositories([repository(f"ann/{slug}", archived=told) for slug, told in ROWS.items()], first=True)
    return filled


def said(folder: Folder, *arguments: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    done = folder.run(*arguments)
    assert done.code == 0, done
    return done.out


@pytest.fixture
def client(tmp_path: Path) -> AsgiClient:
    filled = fill(tmp_path / "mirror.db")
    filled.store.close()
    return client_of(filled.path)


def test_archived_comes_from_a_data_center_and_its_change_is_recorded(tmp_path: Path) -> None:
    """Older rows are updated; learning that one is not archived is no change."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=("1TEAM",),
        )  # fmt: skip
        crawl.sync()
        told = dict(crawl.rows("SELECT slug, archived FROM repositories"))
        assert told["hello-asd"] == 1
        assert sum(told.values()) == 1
        with Store(tmp_path / "mirror.db") as store:  # as a new migration leaves it
            store.connection.execute("UPDATE repositories SET archived = NULL WHERE slug <> 'hello-asd'")
        served.sandbox.do("edit", "1team/hello-asd", fields={"archived": False})
        crawl.sync(full=True, later=3600)
        changes = crawl.rows("SELECT kind, old, new FROM changes WHERE kind = 'updated'")
        assert [(kind, json.loads(old), json.loads(new)) for kind, old, new in changes] == [
            ("updated", {"archived": 1}, {"archived": False})
        ]


def test_api_2_serves_archived_where_known(client: AsgiClient) -> None:
    """With queries and orders; API 1.0 never had it."""
    shaped = {row["slug"]: row for row in client.json("/2.0/repositories/ann")["values"]}
    assert {slug: row.get("archived") for slug, row in shaped.items()} == ROWS
    assert "archived" not in shaped["unknown"]
    for query, found in (
        ("archived=true", {"old"}),
        ("archived=false", {"new"}),
        ("archived=null", {"unknown"}),
    ):
        values = client.json(f"/2.0/repositories/ann?q={query}")["values"]
        assert {row["slug"] for row in values} == found
    assert "archived" not in client.json("/1.0/repositories/ann/old")


def test_pages_show_and_filter_archived(client: AsgiClient) -> None:
    """A badge in lists and on the page, a choice beside the one for forks, and a key in JSON and CSV."""
    badge = '<span class="badge warn">archived</span>'
    assert badge in client.get("/-/r/ann/old").text
    assert badge not in client.get("/-/r/ann/new").text
    assert client.get("/-/search?q=").text.count(badge) == 1
    assert '<select name="archived">' in client.get("/-/search").text
    for choice, found in (("only", {"old"}), ("none", {"new", "unknown"}), ("", set(ROWS))):
        listed = client.json(f"/-/search.json?archived={choice}")["repositories"]
        assert {row["slug"]: row["archived"] for row in listed} == {
            slug: None if ROWS[slug] is None else int(bool(ROWS[slug])) for slug in found
        }


def test_commands_show_filter_and_export_archived(folder: Folder) -> None:
    """`mirror search --archived yes|no|only` as `--forks`; `show` names it in words and in JSON."""
    fill(folder.path / "mirror.db").store.close()
    (folder.path / "mirror.toml").write_text('database = "mirror.db"')
    for choice, found in (("yes", set(ROWS)), ("no", {"new", "unknown"}), ("only", {"old"})):
        listed = json.loads(said(folder, "search", "", "--archived", choice, "--json"))["repositories"]
        assert {row["slug"] for row in listed} == found
        assert all("archived" in row for row in listed)
    assert "public archived" in said(folder, "show", "ann/old")
    assert "archived" not in said(folder, "show", "ann/new")
    assert json.loads(said(folder, "show", "ann/old", "--json"))["repository"]["archived"] == 1
