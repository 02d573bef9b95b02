"""Projects: what the crawl writes, what an older file has, what a stranger sees."""

import sqlite3
from pathlib import Path

import pytest
from asgi_client import AsgiClient, bearer, client_of
from fixtures_db import FixtureDb, owner, repository
from older_files import DUMPS, restored
from sync_harness import Clock, SyncHarness

from mirror.model import Project, Repository
from mirror.queries.accounts import project_named
from mirror.queries.visibility import ANONYMOUS, OPERATOR, Caller
from mirror.sandbox import Sandbox, World, running
from mirror.store import Store, tokens

HIDDEN = Project(key="HUSH", uuid="{hush}", name="Hush project", description="Nobody knows", is_private=True)
SHOWN = Project(key="OPEN", uuid="{open}", name="Open project", avatar_url="https://example.com/open.png")


def in_project(full_name: str, project: Project, *, is_private: bool = False) -> Repository:
    """A repository of a project."""
    return repository(
        full_name,
        project=project,
        project_key=project.key,
        project_name=project.name,
        project_uuid=project.uuid,
        is_private=is_private,
    )


@pytest.fixture
def filled(tmp_path: Path) -> FixtureDb:
    """A workspace with a project of private repositories, and one of both kinds."""
    made = FixtureDb(tmp_path / "mirror.db")
    made.repositories(
        [
            in_project("ws/hidden", HIDDEN, is_private=True),
            in_project("ws/shown", SHOWN),
            in_project("ws/shown-private", SHOWN, is_private=True),
        ],
        first=True,
    )
    return made


def keys(filled: FixtureDb, caller: Caller) -> list[str]:
    """List what a caller sees of the workspace."""
    (ws,) = filled.store.row("SELECT id FROM users WHERE username = 'ws'")
    found = [
        project_named(filled.store.connection, caller, [ws], key) for key in ("hush", "OPEN", "{open}", "X")
    ]
    return [row.key for row in found if row is not None]


def test_a_project_is_seen_through_a_repository(filled: FixtureDb) -> None:
    """Strangers need a living public one in it; members any of theirs."""
    (ws,) = filled.store.row("SELECT id FROM users WHERE username = 'ws'")
    assert keys(filled, ANONYMOUS) == ["OPEN", "OPEN"]
    assert keys(filled, Caller(user_ids=(ws,))) == keys(filled, OPERATOR) == ["HUSH", "OPEN", "OPEN"]
    found = project_named(filled.store.connection, OPERATOR, [ws], "hush")
    assert found is not None
    assert (found.uuid, found.is_private, found.description) == ("{hush}", 1, "Nobody knows")
    filled.gone("ws/shown")
    assert keys(filled, ANONYMOUS) == []


def test_projects_are_listed_and_found_in_api_2(filled: FixtureDb) -> None:
    """A hidden one answers like a missing one, and is counted nowhere."""
    secret = bearer(tokens.create(filled.store, "reader", "read"))
    filled.store.close()
    client = client_of(filled.path)
    listed = client.json("/2.0/workspaces/ws/projects")
    assert ([one["key"] for one in listed["values"]], listed["size"]) == (["OPEN"], 1)
    shown = listed["values"][0]
    assert (shown["type"], shown["uuid"], shown["name"], shown["is_private"]) == (
        "project", "{open}", "Open project", None,
    )  # fmt: skip
    assert shown["links"]["avatar"]["href"] == "https://example.com/open.png"
    assert client.json("/2.0/workspaces/ws/projects/open") == shown
    found = client.json(shown["links"]["repositories"]["href"].partition("http://localhost")[2])
    assert [one["slug"] for one in found["values"]] == ["shown"]
    everything = client.json("/2.0/workspaces/ws/projects?sort=-name", headers=secret)
    assert [(one["key"], one["is_private"]) for one in everything["values"]] == [
        ("OPEN", None),
        ("HUSH", True),
    ]
    hidden, unknown = (client.get(f"/2.0/workspaces/ws/projects/{key}") for key in ("HUSH", "NOPE"))
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.text.replace("HUSH", "NOPE") == unknown.text
    assert client.get("/2.0/workspaces/nope/projects").status_code == 404
    assert client.json('/2.0/workspaces/ws/projects?q=name ~ "hush"')["values"] == []


def test_a_renamed_project_stays_one_row(filled: FixtureDb) -> None:
    """By its uuid; an answer without a value does not erase a value of an earlier answer."""
    renamed = Project(key="NEW", uuid="{open}")
    filled.repositories([in_project("ws/shown", renamed)])
    found = filled.store.rows("SELECT key, name, avatar_url FROM projects WHERE uuid = '{open}'")
    assert found == [("NEW", "Open project", "https://example.com/open.png")]
    unnamed = Project(key="LATER")
    filled.repositories([in_project("ws/other", unnamed)])
    filled.repositories([in_project("ws/other", Project(key="LATER", uuid="{later}"))])
    assert filled.store.rows("SELECT uuid FROM projects WHERE key = 'LATER'") == [("{later}",)]


STATEMENTS = (
    "SELECT * FROM projects",
    "SELECT main.projects.name FROM main.projects",
    "SELECT (SELECT group_concat(description) FROM projects)",
    "SELECT name FROM projects ORDER BY name LIKE 'Hush%' DESC LIMIT 1",
)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_sql_shows_a_stranger_no_hidden_project(filled: FixtureDb, statement: str) -> None:
    """Where the file holds anything private it is closed; where only tombstones were private as well."""
    secret = tokens.create(filled.store, "reader", "read")
    filled.store.close()
    client = client_of(filled.path)
    answer = client.get("/mirror.json", params={"sql": statement})
    assert answer.status_code in (400, 403)
    assert b"ush" not in answer.content.replace(statement.encode(), b"")
    seen = client.json("/mirror.json", params={"sql": STATEMENTS[0]}, headers=bearer(secret))
    assert "Hush project" in str(seen["rows"])


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_open_file_shows_no_project_without_a_public_repository(tmp_path: Path, statement: str) -> None:
    """Nothing in the file is private, but a project of former private repositories may remain."""
    made = FixtureDb(tmp_path / "mirror.db")
    made.repositories([in_project("ws/shown", SHOWN)], first=True)
    made.store.save_owner(
        made.upstream_id,
        owner("HUSH", uuid="id:8", project=HIDDEN),
        run_id=None,
        seen_at="2026-11-01T12:00:00.000000Z",
    )
    made.store.close()
    client: AsgiClient = client_of(made.path)
    answer = client.get("/mirror.json", params={"sql": statement})
    assert "ush" not in answer.text.replace(statement, "")
    if statement == STATEMENTS[0]:
        assert "Open project" in answer.text
    assert "ush" not in client.get("/mirror/projects.json").text


def test_a_synced_mirror_has_the_projects_of_its_upstream(tmp_path: Path) -> None:
    """Those that Cloud's repositories name, with pictures; those of a Data Center."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        cloud = SyncHarness(served.origin, tmp_path / "cloud.db", clock)
        cloud.sync()
        (named,) = (
            cloud.one(
                "SELECT count(*) FROM (SELECT DISTINCT owner_id, project_key FROM repositories "
                "WHERE project_key IS NOT NULL)"
            ),
        )
        told = cloud.rows("SELECT key, name, avatar_url FROM projects")
        assert len(told) == named > 0
        assert all(name == key.title() and avatar for key, name, avatar in told)
        center = SyncHarness(
            served.origin, tmp_path / "center.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=("~ERIK",),
        )  # fmt: skip
        center.sync()
        assert center.rows(
            "SELECT p.key, p.uuid = u.uuid FROM projects p JOIN users u ON u.id = p.owner_id"
        ) == [("~ERIK", 1)]


def test_an_older_file_keeps_the_projects_that_it_knows(tmp_path: Path) -> None:
    """They are taken from the repositories."""
    path = tmp_path / "mirror.db"
    (dump,) = (one for one in DUMPS if one.stem == "23")
    restored(path, dump.read_text("utf-8"))
    Store(path).close()
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT uuid, key, name FROM projects ORDER BY key DESC").fetchall()
    connection.close()
    assert found == [
        ("{0aa1b6a1-0000-4000-8000-000000000001}", "TOOLS", "Tools"),
        ("{p}", "P", "P"),
        ("name:ws/odd", "ODD", None),
    ]
