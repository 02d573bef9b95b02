"""Mirroring a Data Center: branches report the main branch, without another request."""

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sync_harness import Clock, Edited, SyncHarness, crawling

from mirror.queries.changes import changes_since
from mirror.queries.search import find_refs
from mirror.queries.visibility import ANONYMOUS
from mirror.sandbox import Fault, Sandbox, World, repository_refs, running
from mirror.store.files import open_reader

SOME = "erik/org.eclipse.mylyn.bitbucket"


def test_the_main_branch_comes_with_the_branches(tmp_path: Path) -> None:
    """It survives listings of repositories, follows listings of branches, and goes with the last branch."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=("~ERIK",), refs_every=60.0,
        )  # fmt: skip

        def main_branch() -> str | None:
            crawl.sync()
            told = crawl.rows("SELECT main_branch FROM repositories WHERE slug = ?", SOME.partition("/")[2])
            return None if told[0][0] is None else str(told[0][0])

        row = served.sandbox.world.find(*SOME.split("/"))
        assert row is not None
        first = row.main_branch
        assert first is not None
        assert main_branch() == first
        served.sandbox.reset()
        assert main_branch() == first
        assert served.sandbox.state()["by_kind"]["refs"] == 2  # a page of branches, one of tags
        served.sandbox.do("create_branch", SOME, name="another")
        served.sandbox.do("delete_branch", SOME, name=first)
        assert main_branch() not in {None, first}
        for ref in repository_refs(served.sandbox.world, SOME):
            if ref["type"] != "tag":
                served.sandbox.do("delete_branch", SOME, name=ref["name"])
            else:
                served.sandbox.do("delete_tag", SOME, name=ref["name"])
        assert main_branch() is None
        assert crawl.rows("SELECT kind FROM sync_failures") == [("hidden members",)]


def test_a_push_is_seen_though_no_update_is_told(tmp_path: Path) -> None:
    """The listing does not change: refs are read every day, and by a full sync."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=("~ERIK",),
        )  # fmt: skip
        crawl.sync()
        served.sandbox.do("push", SOME)
        assert crawl.sync(later=3600).counts.refs_changed == 0
        assert crawl.sync(later=86_400).counts.refs_changed == 1
        served.sandbox.do("push", SOME)
        assert crawl.sync(full=True, later=3600).counts.refs_changed == 1
        served.sandbox.reset()
        crawl.sync(later=3600)
        assert "refs" not in served.sandbox.state()["by_kind"]


def test_a_full_sync_sees_a_push_to_what_was_half_read(tmp_path: Path) -> None:
    """A run paused between the branches and the tags; a pushed branch is on the page that was read."""
    settings: dict[str, Any] = {"workspaces": ("~ERIK",), "secret": "jespern:sandbox"}
    with crawling(tmp_path, kind="datacenter", url="http://sandbox", **settings) as (sandbox, crawl):
        assert crawl.sync().state == "complete"
        sandbox.add_fault(Fault("429", where="*/tags*", nth=None))
        assert crawl.sync(later=90_000, may_wait=False).state == "paused"
        sandbox.clear_faults()
        sandbox.do("create_branch", SOME, name="pushed")
        assert crawl.sync(full=True).state == "complete"
        assert crawl.one("SELECT count(*) FROM branches WHERE name = 'pushed'") == 1


def test_a_project_whose_listing_answers_404_is_not_gone(tmp_path: Path) -> None:
    """The project itself answers: a failure, and --confirm-absence makes no tombstones."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=("~ERIK",),
        )  # fmt: skip
        crawl.sync()
        served.sandbox.add_fault(Fault("404", where="*/projects/~ERIK/repos", nth=None))
        summary = crawl.sync(confirm_absence=True)
        assert (summary.exit_code, [each.kind for each in summary.failures]) == (1, ["workspace"])
        assert crawl.gone() == {}


def test_projects_are_mirrored_while_personal_ones_cannot_be_listed(tmp_path: Path) -> None:
    """The list of all repositories, which names those, fails: no run is complete before it is read."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=None,
        )  # fmt: skip
        served.sandbox.add_fault(Fault("500", where="/rest/api/1.0/repos", nth=None))
        summary = crawl.sync()
        assert (summary.exit_code, [each.kind for each in summary.failures]) == (1, ["workspaces"])
        assert "personal projects" in summary.failures[0].error
        assert crawl.rows("SELECT 1 FROM repositories")
        served.sandbox.clear_faults()
        assert crawl.sync(later=7200).state == "complete"


@pytest.mark.parametrize("confirms", [False, True])
def test_a_renamed_project_is_found_by_the_list_of_projects(tmp_path: Path, confirms: bool) -> None:
    """At once, though that list is good for hours; and a confirmed absence does not call it gone."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=None,
        )  # fmt: skip
        assert crawl.sync().state == "complete"
        before = crawl.one("SELECT count(*) FROM repositories WHERE full_name LIKE '1TEAM/%'")
        served.sandbox.do("rename_workspace", workspace="1team", name="renamed")
        summary = crawl.sync(later=3700, confirm_absence=confirms)
        if not confirms:
            assert [each.kind for each in summary.failures] == ["workspace"]
            summary = crawl.sync(later=60)
        assert (summary.state, crawl.gone()) == ("complete", {})
        assert crawl.one("SELECT count(*) FROM repositories WHERE full_name LIKE 'RENAMED/%'") == before > 0


def test_what_a_renamed_project_does_not_list_is_requested_by_its_new_key(tmp_path: Path) -> None:
    """By the former key nothing is found any more, which proves no deletion."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=("1TEAM",), refs="none",
        )  # fmt: skip

        def edit(path: str, body: Any) -> Any:
            return {**body, "values": body["values"][1:]} if path.endswith("/repos") else body

        assert crawl.sync().state == "complete"
        served.sandbox.do("rename_workspace", workspace="1team", name="renamed")
        crawl.config = msgspec.structs.replace(crawl.config, workspaces=("RENAMED",))
        crawl.transport = Edited(edit)
        assert (crawl.sync(later=3700).state, crawl.gone()) == ("complete", {})


def test_a_project_that_took_the_key_of_another_is_missing_by_neither(tmp_path: Path) -> None:
    """It failed by its former key, in capitals, while the list of projects still had it."""
    settings: dict[str, Any] = {"workspaces": None, "secret": "sandbox", "refs": "none"}
    with crawling(tmp_path, kind="datacenter", url="http://sandbox", **settings) as (sandbox, crawl):
        assert crawl.sync().state == "complete"
        for slug, name in (("big", "elsewhere"), ("1team", "big")):
            sandbox.do("rename_workspace", workspace=slug, name=name)
        assert [each.subject for each in crawl.sync(later=3700).failures] == ["1TEAM"]
        assert crawl.sync(later=3700).state == "complete"


def test_a_repository_that_became_hidden_is_no_longer_visible(tmp_path: Path) -> None:
    """The server answers 401 for it alone, where others answer 403; it does not fail for ever."""
    clock = Clock()
    with running(Sandbox(World(30, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            secret="jespern:sandbox", workspaces=("~UBERNOSTRUM",),
        )  # fmt: skip
        assert crawl.sync().state == "complete"
        name = "ubernostrum/django-profiles"
        served.sandbox.do("make_private", name)
        assert crawl.sync(full=True).state == "complete"
        assert crawl.gone() == {f"~{name.upper().split('/')[0]}/django-profiles": "no longer visible"}


@pytest.mark.parametrize(
    ("way", "reason"),
    [("transfer", "no longer visible"), ("delete", "no longer visible"), ("delete only", "deleted")],
)
def test_a_name_that_another_repository_has_proves_no_deletion(tmp_path: Path, way: str, reason: str) -> None:
    """The repository that had it may have moved to a project that is not mirrored."""
    settings: dict[str, Any] = {"workspaces": ("~JESPERN",), "secret": "jespern:sandbox", "refs": "none"}
    with crawling(tmp_path, kind="datacenter", url="http://sandbox", **settings) as (sandbox, crawl):
        assert crawl.sync().state == "complete"
        uuid = crawl.one("SELECT uuid FROM repositories WHERE full_name = '~JESPERN/django-piston'")
        sandbox.do(
            way.removesuffix(" only"),
            "jespern/django-piston",
            **({"to": "erik"} if way == "transfer" else {}),
        )
        if way != "delete only":
            sandbox.do("create", "jespern/django-piston")
        assert crawl.sync(later=90_000).state == "complete"
        sql = "SELECT uuid, gone_reason FROM repositories WHERE deleted_at IS NOT NULL"
        assert crawl.rows(sql) == [(uuid, reason)]


def test_refs_that_may_be_of_a_namesake_are_read_again(tmp_path: Path) -> None:
    """Two repositories swap their names between the listing and the refs, which are requested by name."""
    clock = Clock()
    with running(Sandbox(World(0, now=clock.now))) as served:
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind="datacenter", url=served.origin,
            workspaces=("~ERIK",),
        )  # fmt: skip
        for name in ("one", "other"):
            served.sandbox.do("create", workspace="erik", name=name, main_branch="main")
            served.sandbox.do("create_branch", f"erik/{name}", name=f"of-{name}")
            served.sandbox.do("make_private", f"erik/{name}")
        left = ["erik/one"]

        def edit(path: str, body: Any) -> Any:
            if path.endswith("/repos") and left:
                served.sandbox.do("swap_names", left.pop(), **{"with": "erik/other"})
            return body

        def branches() -> dict[str, str]:
            sql = """SELECT r.uuid, b.name FROM branches b JOIN repositories r ON r.id = b.repository_id
                WHERE b.name LIKE 'of-%'"""
            return {was[uuid]: name for uuid, name in crawl.rows(sql)}

        crawl.transport = Edited(edit)
        assert crawl.sync().state == "complete"
        was = dict(crawl.rows("SELECT uuid, slug FROM repositories"))
        assert branches() == {"one": "of-other", "other": "of-one"}
        assert crawl.sync().state == "complete"
        assert branches() == {"one": "of-one", "other": "of-other"}


@pytest.mark.parametrize(("refs", "is_whole"), [("api", True), ("api", False), ("git", True)])
@pytest.mark.parametrize("way", ["swap", "delete and create"])
def test_strangers_learn_nothing_of_a_private_repository_that_took_a_name(
    tmp_path: Path, refs: str, way: str, *, is_whole: bool
) -> None:
    """Refs are requested by name: those read between two listings may be of the new holder.

    So may be the branches alone, if the tags cannot be read.
    """
    old, private = "jespern/django-piston", "jespern/jespern"
    settings: dict[str, Any] = {"workspaces": ("~JESPERN",), "secret": "jespern:sandbox", "refs": refs}
    with crawling(tmp_path, kind="datacenter", url="http://sandbox", **settings) as (sandbox, crawl):
        assert crawl.sync().state == "complete"
        sandbox.do("push", old)

        def edit() -> None:
            if way == "swap":
                sandbox.do("swap_names", private, **{"with": old})
            else:
                sandbox.do("delete", old)
                sandbox.do("create", old, is_private=True)
            sandbox.do("create_branch", old, name="top-secret")

        sandbox.reset()
        sandbox.on_request(6, edit)  # the first for refs
        if not is_whole:
            sandbox.add_fault(Fault("404", where="*/tags", nth=None))
        crawl.sync(later=90_000)
        sandbox.clear_faults()
        assert crawl.rows("SELECT 1 FROM branches WHERE name = 'top-secret'")
        assert crawl.sync(full=True).exit_code == 0
        with closing(open_reader(crawl.path)) as connection:
            assert find_refs(connection, ANONYMOUS, "top-secret", gone=True).count == 0
            assert "top-secret" not in {row.ref for row in changes_since(connection, ANONYMOUS, "2000")}
