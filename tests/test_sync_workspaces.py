"""Workspaces that go, come back, are renamed, take another's name, or may not be seen."""

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sync_harness import Rewritten, SyncHarness, assert_matches_sandbox, crawling

from mirror.sandbox import Fault, Sandbox
from mirror.sandbox.api2_shapes import visible_repositories

FIVE: dict[str, Any] = {"workspaces": ("jespern", "ubernostrum")}


def test_a_workspace_that_is_not_found_keeps_its_rows(tmp_path: Path) -> None:
    """404 by name and identity: rows stay until the operator confirms, and may return."""
    with crawling(tmp_path, synced=True, **FIVE) as (sandbox, crawl):
        sandbox.do("delete_workspace", workspace="ubernostrum")
        summary = crawl.sync()
        assert (summary.exit_code, crawl.gone()) == (1, {})
        assert "--confirm-absence" in summary.failures[0].error
        assert crawl.sync(confirm_absence=True).counts.repositories_gone == 2
        assert set(crawl.gone().values()) == {"workspace gone"}
        sandbox.do("restore_workspace", workspace="ubernostrum")
        assert crawl.sync().exit_code == 0
        assert crawl.gone() == {}
        assert_matches_sandbox(crawl, sandbox, FIVE["workspaces"])


@pytest.mark.parametrize("full", [False, True])
def test_a_workspace_that_came_back_is_not_gone(tmp_path: Path, full: bool) -> None:
    """Confirmed as gone by an interrupted run, then back: brake and proof apply as always."""
    with crawling(tmp_path, synced=True, workspaces=("jespern",)) as (sandbox, crawl):
        sandbox.do("delete_workspace", workspace="jespern")
        assert crawl.sync().exit_code == 1
        assert crawl.sync(confirm_absence=True, max_requests=3, later=50_000).state == "paused"
        sandbox.do("restore_workspace", workspace="jespern")
        assert crawl.sync(full=full).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["jespern"])
        for name in ("arriving", "jespern", "jespern-jekyll"):
            sandbox.do("delete", f"jespern/{name}")
        summary = crawl.sync(later=86_400)
        assert [failure.kind for failure in summary.failures] == ["absence"]
        assert crawl.gone() == {}


@pytest.mark.parametrize("kind", ["sandbox", "datacenter"])
def test_no_refs_are_read_of_a_workspace_that_is_no_longer_listed(tmp_path: Path, kind: str) -> None:
    """No listing would tell that a repository became private, and strangers would see its new branches."""
    mine, other = ("~JESPERN", "~UBERNOSTRUM") if kind == "datacenter" else ("jespern", "ubernostrum")
    settings: dict[str, Any] = {}
    if kind == "datacenter":
        settings = {"kind": kind, "secret": "jespern:sandbox", "url": "http://sandbox"}
    with crawling(tmp_path, workspaces=(mine, other), **settings) as (sandbox, crawl):
        assert crawl.sync().exit_code == 0
        sandbox.add_fault(Fault("403", where="*/refs*" if kind == "sandbox" else "*/branches*"))
        sandbox.do("push", "jespern/django-piston")
        assert {failure.kind for failure in crawl.sync(later=2 * 86_400).failures} == {"refs"}
        sandbox.clear_faults()
        crawl.config = msgspec.structs.replace(crawl.config, workspaces=(other,))
        sandbox.do("make_private", "jespern/django-piston")
        sandbox.do("create_branch", "jespern/django-piston", name="secret")
        summary = crawl.sync(later=40 * 86_400)
        assert (summary.exit_code, summary.waiting, summary.refs_waiting) == (0, [], 0)
        assert crawl.rows("SELECT 1 FROM branches WHERE name = 'secret'") == []
        crawl.config = msgspec.structs.replace(crawl.config, workspaces=(mine, other))
        assert crawl.sync().exit_code == 0
        shown = "SELECT is_private FROM branches b JOIN repositories r ON r.id = repository_id"
        assert crawl.rows(f"{shown} WHERE b.name = 'secret'") == [(1,)]


def test_no_refs_of_a_public_repository_are_read_while_its_listing_fails(tmp_path: Path) -> None:
    """It may have become private; the run is incomplete, and the refs are read after the next listing."""
    with crawling(tmp_path, synced=True, workspaces=("jespern",)) as (sandbox, crawl):
        sandbox.do("make_private", "jespern/django-piston")
        for name in ("jespern/django-piston", "jespern/arriving"):
            sandbox.do("create_branch", name, name="secret")
        sandbox.add_fault(Fault("500", where="listing", nth=None))
        summary = crawl.sync(later=40 * 86_400)
        assert ({each.kind for each in summary.failures}, summary.refs_waiting) == ({"workspace"}, 1)
        read = "SELECT r.slug, is_private FROM branches b JOIN repositories r ON r.id = repository_id"
        read = f"{read} WHERE b.name = 'secret' ORDER BY 1"
        assert crawl.rows(read) == [("arriving", 1)]
        sandbox.clear_faults()
        assert crawl.sync(full=True).exit_code == 0
        assert crawl.rows(read) == [("arriving", 1), ("django-piston", 1)]


def test_a_gone_workspace_without_repositories_is_closed(tmp_path: Path) -> None:
    """Without repositories, the confirmation is enough, and no later run requests it."""
    with crawling(tmp_path, synced=True) as (sandbox, crawl):
        sandbox.do("delete", "brodie/hg-project")
        crawl.sync()
        sandbox.do("delete_workspace", workspace="brodie")
        assert [failure.subject for failure in crawl.sync(full=True).failures] == ["brodie"]
        assert crawl.sync(confirm_absence=True).exit_code == 0
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT 1 FROM cursors WHERE stream = 'workspace:brodie'") == []


def test_a_renamed_workspace_is_followed(tmp_path: Path) -> None:
    """The old name answers 404; its uuid finds the new name, and its rows are renamed."""
    with crawling(tmp_path, synced=True, network=True, **FIVE) as (sandbox, crawl):
        sandbox.do("rename_workspace", workspace="jespern", name="noehr")
        summary = crawl.sync()
        assert summary.exit_code == 0
        assert any("called noehr now" in note for note in crawl.notes)
        assert_matches_sandbox(crawl, sandbox, ["noehr", "ubernostrum"])
        assert crawl.gone() == {}
        renames = [change for change in crawl.changes() if change[0] == "owner_renamed"]
        assert renames == [("owner_renamed", None, None, "jespern", "noehr")]
        sandbox.reset()
        assert crawl.sync().counts.requests == 2
        renamed = SyncHarness(
            crawl.config.url.removesuffix("/2.0"),
            crawl.path,
            crawl.clock,
            workspaces=("noehr", "ubernostrum"),
        )
        assert renamed.sync().exit_code == 0
        assert renamed.rows("SELECT stream FROM cursors WHERE stream LIKE 'workspace:%' ORDER BY 1") == [
            ("workspace:noehr",),
            ("workspace:ubernostrum",),
        ]
        assert not [change for change in renamed.changes() if change[0] == "created"]


def test_a_workspace_may_be_configured_by_its_uuid(tmp_path: Path) -> None:
    """Though slugs are what the setting asks for."""
    with crawling(tmp_path) as (sandbox, crawl):
        (uuid,) = (each.uuid for each in sandbox.world.workspaces if each.slug == "erik")
        crawl.config = msgspec.structs.replace(crawl.config, workspaces=(uuid,))
        for _ in range(2):
            assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, ["erik"])


MYLYN = "org.eclipse.mylyn.bitbucket"


def test_a_workspace_with_another_uuid_is_the_one_of_its_name(tmp_path: Path) -> None:
    """Its repositories moved to the new identity, so nothing of the old one is requested."""
    with crawling(tmp_path, synced=True, network=True, workspaces=("erik",)) as (_, crawl):
        uuid = crawl.one("SELECT uuid FROM users WHERE username = 'erik'")
        crawl.transport = Rewritten(
            lambda _, body: json.loads(
                json.dumps(body).replace(uuid, "{00000000-0000-4000-8000-000000000000}")
            )
        )
        for full in (True, True, False):
            summary = crawl.sync(full=full)
            assert (summary.state, crawl.gone()) == ("complete", {})
        assert crawl.rows("SELECT stream FROM cursors WHERE stream LIKE 'workspace:%'") == [
            ("workspace:erik",)
        ]


def with_foreign(foreign: Any, path: str, body: Any) -> Any:
    """Put a row of another workspace into a listing."""
    is_listing = path.endswith("/repositories/jespern")
    return {**body, "values": [*body["values"], foreign]} if is_listing else body


@pytest.mark.parametrize("hidden", [False, True])
def test_rows_of_another_workspace_are_not_taken_for_its_own(tmp_path: Path, *, hidden: bool) -> None:
    """Such a row is a failure and is not saved: no other listing would update it."""
    with crawling(tmp_path, network=True, workspaces=("jespern",)) as (sandbox, crawl):
        if hidden:  # whose the workspace is, its rows alone tell then
            sandbox.add_fault(Fault("403", where="*/workspaces/*", nth=None))
        (erik,) = (row for row in visible_repositories(sandbox.world) if row["full_name"] == f"erik/{MYLYN}")
        crawl.transport, plain = Rewritten(partial(with_foreign, erik)), crawl.transport
        summary = crawl.sync()
        assert [(each.kind, each.subject) for each in summary.failures] == [("row", f"jespern: erik/{MYLYN}")]
        assert crawl.one("SELECT count(*) FROM repositories WHERE full_name LIKE 'erik/%'") == 0
        crawl.transport = plain
        sandbox.clear_faults()
        assert crawl.sync(full=True).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ("jespern",))


def take_the_name(sandbox: Sandbox) -> None:
    """Erik is renamed, and another workspace takes the name erik, between two runs."""
    sandbox.do("rename_workspace", workspace="erik", name="erik-old")
    sandbox.do("rename_workspace", workspace="ubernostrum", name="erik")


@pytest.mark.parametrize("later", [900, 8 * 86_400])
def test_a_workspace_whose_name_was_taken_is_still_mirrored(tmp_path: Path, later: float) -> None:
    """Both are, incrementally and by a sweep; under its new name it continues."""
    with crawling(tmp_path, synced=True, workspaces=("erik",)) as (sandbox, crawl):
        take_the_name(sandbox)
        assert crawl.sync(later=later).exit_code == 0
        assert any("another workspace is called erik" in note for note in crawl.notes)
        assert crawl.rows("SELECT 1 FROM changes WHERE kind = 'created'") == []  # it was first listed now
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["erik", "erik-old"])
        sandbox.reset()
        assert crawl.sync().counts.requests == 2
        sandbox.do("delete", f"erik-old/{MYLYN}")
        assert crawl.sync().exit_code == 0
        assert crawl.gone() == {f"erik-old/{MYLYN}": "deleted"}
        sandbox.do("restore", f"erik-old/{MYLYN}")
        crawl.config = msgspec.structs.replace(crawl.config, workspaces=("erik", "erik-old"))
        for _ in range(2):
            assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["erik", "erik-old"])
        assert crawl.rows("SELECT stream FROM cursors WHERE stream LIKE 'workspace:%' ORDER BY 1") == [
            ("workspace:erik",),
            ("workspace:erik-old",),
        ]


def test_a_gone_workspace_whose_name_was_taken_needs_confirm_absence(tmp_path: Path) -> None:
    """Its rows stay and are requested in each run, until the operator confirms."""
    with crawling(tmp_path, synced=True, workspaces=("erik",)) as (sandbox, crawl):
        take_the_name(sandbox)
        sandbox.do("delete_workspace", workspace="erik-old")
        crawl.sync()
        for _ in range(2):
            summary = crawl.sync()
            assert (summary.exit_code, crawl.gone()) == (1, {})
            assert "that was called erik:" in summary.failures[0].error
            assert "--confirm-absence" in summary.failures[0].error
        assert crawl.sync(confirm_absence=True).counts.repositories_gone == 1
        assert crawl.gone() == {f"erik/{MYLYN}": "workspace gone"}
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT * FROM sync_failures") == []


def test_an_absence_stays_unconfirmed_while_another_workspace_has_the_name(tmp_path: Path) -> None:
    """Too many were missing, then the workspace was renamed and its name taken: still requested."""
    with crawling(tmp_path, synced=True, workspaces=("jespern",)) as (sandbox, crawl):
        for name in ("arriving", "jespern", "jespern-jekyll"):
            sandbox.do("delete", f"jespern/{name}")
        assert [failure.kind for failure in crawl.sync().failures] == ["absence"]
        sandbox.do("rename_workspace", workspace="jespern", name="noehr")
        sandbox.do("rename_workspace", workspace="ubernostrum", name="jespern")
        crawl.sync()
        assert [failure.kind for failure in crawl.sync().failures] == ["absence"]
        assert crawl.gone() == {}
        assert crawl.sync(confirm_absence=True).counts.repositories_gone == 3
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ["jespern", "noehr"])


@pytest.mark.parametrize("action", ["rename_workspace", "delete_workspace"])
def test_a_workspace_that_goes_before_its_first_listing_is_forgotten(tmp_path: Path, action: str) -> None:
    """The next run reads the list of workspaces anew; nothing fails for ever."""
    with crawling(tmp_path) as (sandbox, crawl):
        more = {"name": "renamed"} if action == "rename_workspace" else {}
        sandbox.on_request(3, lambda: sandbox.do(action, workspace="ubernostrum", **more))
        assert crawl.sync().exit_code == 1
        done = crawl.sync()
        assert (done.exit_code, done.state) == (0, "complete")
        assert crawl.one("SELECT count(*) FROM sync_failures WHERE kind = 'workspace'") == 0
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


def test_a_found_workspace_that_is_renamed_asks_for_no_setting(tmp_path: Path) -> None:
    """The list that named it is still good for a while, so its own listing finds the name."""
    with crawling(tmp_path, synced=True) as (sandbox, crawl):
        sandbox.do("rename_workspace", workspace="erik", name="van-zijst")
        assert crawl.sync().exit_code == 0
        assert crawl.notes == ["the workspace erik is called van-zijst now"]


def test_found_workspaces_may_be_renamed_and_deleted(tmp_path: Path) -> None:
    """Without configured names, a renamed one is followed, and a deleted one needs a confirmation.

    No note asks for a change of a setting that is not there.
    """
    with crawling(tmp_path, synced=True) as (sandbox, crawl):
        sandbox.do("rename_workspace", workspace="erik", name="van-zijst")
        sandbox.do("delete_workspace", workspace="brodie")
        summary = crawl.sync(full=True)
        assert [failure.subject for failure in summary.failures] == ["brodie"]
        assert crawl.gone() == {}
        assert crawl.notes == ["the workspace erik is called van-zijst now"]
        assert crawl.sync(confirm_absence=True).exit_code == 0
        assert crawl.notes == ["the workspace brodie is gone: 1 repository"]
        assert crawl.gone() == {"brodie/hg-project": "workspace gone"}
        assert crawl.sync().exit_code == 0
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_workspace_that_may_not_be_seen_is_mirrored_by_its_listing(tmp_path: Path, status: int) -> None:
    """A token with only the repository scope: all repositories, no members, which is reported."""
    with crawling(tmp_path, workspaces=("jespern",)) as (sandbox, crawl):
        sandbox.add_fault(Fault(str(status), where="*/workspaces/*", nth=None))
        assert crawl.sync().exit_code == 0
        assert crawl.rows("SELECT kind, status FROM sync_failures") == [("hidden members", status)]
        assert crawl.one("SELECT count(*) FROM members") == 0
        sandbox.do("delete", "jespern/django-piston")
        crawl.sync()
        assert "jespern/django-piston" in crawl.gone()
        sandbox.clear_faults()
        crawl.sync(full=True)
        assert_matches_sandbox(crawl, sandbox, ("jespern",))


def test_projects_that_swap_their_keys_are_not_missed(tmp_path: Path) -> None:
    """A Data Center finds projects by key only: nothing is asked of it by an identity for ever."""
    server: dict[str, Any] = {"kind": "datacenter", "url": "http://sandbox"}
    with crawling(tmp_path, synced=True, workspaces=("~JESPERN", "~ERIK"), **server) as (sandbox, crawl):
        for old, new in (("jespern", "between"), ("erik", "jespern"), ("between", "erik")):
            sandbox.do("rename_workspace", workspace=old, name=new)
        for _ in range(2):
            assert (crawl.sync().state, crawl.gone()) == ("complete", {})
        assert crawl.one("SELECT full_name FROM repositories WHERE slug = ?", MYLYN) == f"~JESPERN/{MYLYN}"
        assert crawl.rows("SELECT stream FROM cursors WHERE stream LIKE 'workspace:%' ORDER BY 1") == [
            ("workspace:~erik",),
            ("workspace:~jespern",),
        ]


def test_a_project_that_took_the_key_of_another_is_not_missed_by_its_old_one(tmp_path: Path) -> None:
    """The identity of the other is missed in one run only: both are listed by their new keys then."""
    server: dict[str, Any] = {"kind": "datacenter", "url": "http://sandbox"}
    with crawling(tmp_path, synced=True, **server) as (sandbox, crawl):
        sandbox.do("rename_workspace", workspace="jespern", name="noehr")
        sandbox.do("rename_workspace", workspace="erik", name="jespern")
        assert [failure.subject for failure in crawl.sync(later=4_000).failures] == ["id:1"]
        assert (crawl.sync(later=90_000).state, crawl.gone()) == ("complete", {})
        assert crawl.rows("SELECT * FROM sync_failures WHERE kind = 'workspace'") == []


def test_a_project_is_found_again_under_the_key_that_it_had_first(tmp_path: Path) -> None:
    """A server that knows old keys had answered with another key, which nothing has any more."""
    server: dict[str, Any] = {"kind": "datacenter", "url": "http://sandbox", "workspaces": ("~ERIK",)}
    with crawling(tmp_path, synced=True, **server) as (sandbox, crawl):
        with closing(sqlite3.connect(crawl.path)) as connection, connection:
            named = "json_set(value, '$.name', '~OLD')"
            connection.execute(f"UPDATE cursors SET value = {named} WHERE stream = 'workspace:~erik'")
        sandbox.do("edit", f"erik/{MYLYN}", fields={"description": "back again"})
        assert (crawl.sync().state, crawl.gone()) == ("complete", {})
        assert crawl.one("SELECT description FROM repositories WHERE slug = ?", MYLYN) == "back again"
