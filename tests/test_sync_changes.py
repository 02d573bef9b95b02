"""The table `changes`: what syncs saw change, with old and new values, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from sync_harness import crawling

from mirror.sandbox import repository_refs

NAME = "jespern/django-piston"
FRESH: dict[str, Any] = {"workspaces": ("jespern", "ubernostrum")}


def test_a_first_sync_records_no_changes(tmp_path: Path) -> None:
    """Existing repositories and refs are not recorded as created, nor by a second run."""
    with crawling(tmp_path, 60, synced=True, page_length=7) as (_, crawl):
        crawl.sync(full=True)
        assert crawl.changes() == []


@pytest.mark.parametrize(
    ("action", "details", "kind", "ref"),
    [
        ("rename", {"name": "Piston"}, "renamed", None),
        ("transfer", {"to": "ubernostrum"}, "transferred", None),
        ("delete", {}, "deleted", None),
        ("make_private", {}, "made_private", None),
        ("push", {}, "branch_moved", "default"),
        ("create_branch", {"name": "next"}, "branch_created", "next"),
        ("delete_branch", {"name": "default"}, "branch_deleted", "default"),
        ("create_tag", {"name": "9.9"}, "tag_created", "9.9"),
        ("move_tag", {"name": "0.2.1"}, "tag_moved", "0.2.1"),
        ("delete_tag", {"name": "0.2.1"}, "tag_deleted", "0.2.1"),
    ],
)
def test_every_kind_of_change_has_old_and_new_values(
    tmp_path: Path, action: str, details: dict[str, Any], kind: str, ref: str | None
) -> None:
    """Each edit is one row with the old and the new value."""
    with crawling(tmp_path, synced=True, **FRESH) as (sandbox, crawl):
        hashes = {each["name"]: each["target"]["hash"] for each in repository_refs(sandbox.world, NAME)}
        done = sandbox.do(action, NAME, **details)
        crawl.sync()
        told = [change for change in crawl.changes() if change[0] == kind]
        assert len(told) == 1
        _, name, its_ref, old, new = told[0]
        assert (name, its_ref) == (done["repository"], ref)
        if kind in ("renamed", "transferred"):
            assert (old, new) == (NAME, done["repository"])
        elif kind == "deleted":
            assert (old, new) == (NAME, "deleted")
        elif ref is not None:
            now = {
                each["name"]: each["target"]["hash"]
                for each in repository_refs(sandbox.world, done["repository"])
            }
            assert (old, new) == (hashes.get(ref), now.get(ref))
        others = {change[0] for change in crawl.changes()} - {kind, "updated"}
        assert not others


def test_created_restored_and_updated(tmp_path: Path) -> None:
    """A new repository, one that is back, one that is public again, and edited settings."""
    with crawling(tmp_path, synced=True, **FRESH) as (sandbox, crawl):
        sandbox.do("create", workspace="jespern", name="Brand New")
        sandbox.do("delete", "jespern/arriving")
        sandbox.do("edit", NAME, fields={"description": "other words"})
        crawl.sync()
        sandbox.do("restore", "jespern/arriving")
        sandbox.do("make_public", "jespern/jespern")
        crawl.sync()
        told = {kind: (name, old, new) for kind, name, _, old, new in crawl.changes()}
        assert told["created"] == ("jespern/brand-new", None, "jespern/brand-new")
        assert told["restored"] == ("jespern/arriving", "deleted", "jespern/arriving")
        assert told["made_public"] == ("jespern/jespern", None, None)
        name, old, new = told["updated"]
        assert (name, json.loads(new or "")) == (NAME, {"description": "other words"})
        assert json.loads(old or "")["description"].startswith("Piston is")
        assert crawl.one("SELECT count(*) FROM changes WHERE run_id IS NULL") == 0
