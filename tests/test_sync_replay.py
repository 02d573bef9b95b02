"""Recorded answers, served over HTTP to the real client, are compared with the resulting file.

A small set lies beside the tests; a larger one is taken where a checkout has it next to it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sync_harness import Clock, SyncHarness

from mirror.sandbox import running
from mirror.sandbox.exchange import Request, SandboxResponse
from mirror.times import normalised

HERE = Path(__file__).parent
SETS = {
    "own": HERE / "answers" / "cloud",
    "recorded": HERE.parent.parent / "shared" / "recorded" / "cloud2",
}


def objects(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every object of a recorded answer, and of every recorded page."""
    for path in sorted(folder.rglob("*.json")):
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
        values = found.get("values") if isinstance(found, dict) else found
        yield from (
            each for each in [found, *(values if isinstance(values, list) else [])] if is_object(each)
        )


def is_object(each: Any) -> bool:
    """Return whether a value is a repository or a ref of API 2.0."""
    if not isinstance(each, dict):
        return False
    if each.get("type") in ("branch", "tag", "named_branch"):
        return bool((each.get("target") or {}).get("hash"))
    return each.get("type") == "repository" and "/" in each.get("full_name", "") and "is_private" in each


class Replay:
    """A server of recorded repositories in their workspaces, each with all recorded refs."""

    def __init__(self, folder: Path) -> None:
        self.repositories = dict[str, dict[str, Any]]()
        self.refs = dict[tuple[bool, str], dict[str, Any]]()
        uuids = set[str]()
        for each in objects(folder):
            if each["type"] != "repository":
                self.refs.setdefault((each["type"] == "tag", each["name"]), each)
            elif each.get("uuid") and each["uuid"] not in uuids:
                uuids.add(each["uuid"])
                self.repositories.setdefault(each["full_name"].lower(), each)

    @property
    def workspaces(self) -> tuple[str, ...]:
        """The namespaces that there are."""
        return tuple(sorted({name.partition("/")[0] for name in self.repositories}))

    def answer(self, request: Request) -> SandboxResponse:
        """Response with what was recorded."""
        parts = request.path.removeprefix("/2.0/").split("/")
        if parts[-1] == "refs":
            return page(list(self.refs.values()))
        if parts[0] == "repositories":
            return page([row for name, row in self.repositories.items() if name.startswith(f"{parts[1]}/")])
        return SandboxResponse(200, json.dumps({"slug": parts[1], "type": "workspace"}).encode())


def page(values: list[Any]) -> SandboxResponse:
    """Make a page of rows."""
    return SandboxResponse(200, json.dumps({"pagelen": 100, "values": values}).encode())


@pytest.mark.parametrize("name", SETS)
def test_recorded_answers_arrive_field_by_field(tmp_path: Path, name: str) -> None:
    """Every recorded repository and ref of any year is in the mirror with its values."""
    if not SETS[name].is_dir():
        pytest.skip("no recordings beside this checkout")
    replay = Replay(SETS[name])
    assert len(replay.repositories) >= 3
    assert len(replay.refs) >= 5
    with running(replay) as served:  # type: ignore[arg-type]
        crawl = SyncHarness(
            served.origin,
            tmp_path / "mirror.db",
            Clock(),
            kind="cloud",
            secret=None,
            workspaces=replay.workspaces,
            requests_per_hour=10_000,
        )
        summary = crawl.sync()
    assert (summary.state, summary.failures) == ("complete", [])
    mirrored = {row["full_name"].lower(): row for row in named_rows(crawl, "repositories")}
    assert mirrored.keys() == replay.repositories.keys()
    for full_name, told in replay.repositories.items():
        assert {key: mirrored[full_name][key] for key in said(told)} == said(told), full_name
    for table, is_tag in (("branches", False), ("tags", True)):
        for row in named_rows(crawl, table):
            assert {key: row[key] for key in ref_said(replay.refs[is_tag, row["name"]])} == ref_said(
                replay.refs[is_tag, row["name"]]
            )
    count = sum(crawl.one(f"SELECT count(*) FROM {table}") for table in ("branches", "tags"))
    assert count == len(replay.refs) * len(replay.repositories)


def named_rows(crawl: SyncHarness, table: str) -> list[dict[str, Any]]:
    """Read a table as dictionaries."""
    names = [row[1] for row in crawl.rows(f"PRAGMA table_info({table})")]
    return [
        dict(zip(names, row, strict=True)) for row in crawl.rows(f"SELECT {', '.join(names)} FROM {table}")
    ]


def said(told: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a recorded repository had, by the mirror's columns."""
    plain = ("uuid", "name", "scm", "description", "website", "language", "size", "fork_policy")
    row = {key: told.get(key) for key in plain if key != "name" or told.get("name")}
    clones = {link["name"]: link["href"] for link in (told.get("links") or {}).get("clone") or []}
    return row | {
        "is_private": int(told["is_private"]),
        "main_branch": (told.get("mainbranch") or {}).get("name"),
        "parent_full_name": (told.get("parent") or {}).get("full_name"),
        "project_key": (told.get("project") or {}).get("key"),
        "created_at": moment(told.get("created_on")),
        "updated_at": moment(told.get("updated_on")),
        "clone_ssh": clones.get("ssh"),
    }


def ref_said(told: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a recorded ref had, by the mirror's columns."""
    target = told["target"]
    row = {
        "target_hash": target["hash"],
        "target_date": moment(target.get("date")),
        "target_message": target.get("message"),
        "target_author": (target.get("author") or {}).get("raw"),
    }
    if told["type"] != "tag":
        return row
    tagger = (told.get("tagger") or {}).get("raw")
    return row | {"message": told.get("message"), "date": moment(told.get("date")), "tagger": tagger}


def moment(text: str | None) -> str | None:
    """Write a moment as the mirror does."""
    return None if text is None else normalised(text)
