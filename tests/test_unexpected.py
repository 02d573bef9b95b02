"""What moved that should not: on histories of the sandbox; told by a page, the feed, SQL and alerts."""

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest
from asgi_client import client_of
from fixtures_db import FixtureDb, hg_ref, repository
from sync_harness import crawling

from mirror.config import from_toml
from mirror.observe.alerts import Alerts
from mirror.queries.caller import OPERATOR
from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.unexpected import TITLES, UNEXPECTED, lines_of_run
from mirror.serve.webhook_events import read_event
from mirror.store.files import open_reader
from mirror.store.webhooks import RefUpdate, RepositoryEvent, save_event

NAME, OTHER = "jespern/django-piston", "ubernostrum/django-registration"


def test_a_sandbox_tells_each_kind(tmp_path: Path) -> None:
    """What happened is found under its name alone, by the run that saw it, and nowhere before."""
    with crawling(tmp_path, 60, workspaces=("jespern", "ubernostrum")) as (sandbox, crawl):
        crawl.sync()
        sandbox.do("move_tag", NAME, name="0.2.1")
        sandbox.do("delete_tag", NAME, name="0.2.2")
        sandbox.do("create_branch", NAME, name="lost")
        sandbox.do("push", OTHER)
        crawl.sync()
        sandbox.do("delete_branch", NAME, name="lost")
        sandbox.do("delete", OTHER)
        run = crawl.sync(full=True)
        with closing(open_reader(crawl.path)) as connection:
            found = {
                name: [
                    (row.repository, row.ref)
                    for row in latest_changes(
                        connection, OPERATOR, ChangeFilter(unexpected=(name,)), limit=9
                    ).rows
                ]
                for name in UNEXPECTED
            }
            told = {name: lines_of_run(connection, name, run.run_id) for name in UNEXPECTED}
    assert found == {
        **{name: [] for name in UNEXPECTED},
        "tag-moved": [(NAME, "0.2.1")],
        "tag-gone": [(NAME, "0.2.2")],
        "branch-lost": [(NAME, "lost")],
        "repository-gone": [(OTHER, None)],
    }
    assert {name for name, lines in told.items() if lines} == {"branch-lost", "repository-gone"}
    assert told["branch-lost"][0].startswith(f"{NAME} branch deleted lost ")


@pytest.fixture(scope="module")
def forced(tmp_path_factory: pytest.TempPathFactory) -> FixtureDb:
    """A main branch that webhooks moved: once by force, once not, once without a word."""
    filled = FixtureDb(tmp_path_factory.mktemp("forced") / "mirror.db")
    filled.repositories([repository("ann/tool", uuid="{tool}")], at="2026-11-01T00:00:00.000000Z", first=True)
    refs = [hg_ref("branch", "master", "1"), hg_ref("branch", "side", "1"), hg_ref("tag", "v1", "1")]
    filled.refs("ann/tool", refs, at="2026-11-01T00:01:00.000000Z")
    for number, (name, old, new, forced) in enumerate(
        (
            ("master", "1", "2", True),
            ("master", "2", "3", False),
            ("master", "3", "4", None),
            ("side", "1", "5", True),
        )
    ):
        update = RefUpdate("branch", name, old * 40, hg_ref("branch", name, new), forced)
        at = f"2026-11-02T00:0{number}:00.000000Z"
        with filled.store.transaction() as connection:
            changes = save_event(
                connection, filled.upstream_id, RepositoryEvent("{tool}", "ann/tool", [update]), at=at
            )
            filled.store.save_changes(changes, run_id=None, at=at)
    return filled


def test_only_told_pushes_of_main_branches_are_forced(forced: FixtureDb) -> None:
    """A page, the feed with the same filter, and a stored query that says unknown where nobody told."""
    ask = client_of(forced.path)
    page = ask("GET", "/-/unexpected").text
    assert all(title in page for title in TITLES.values())
    assert page.count('<li class="change') == 1
    feed = ask("GET", "/-/changes.atom?kind=main-forced").text
    assert feed.count("<entry>") == 1
    assert ask("GET", "/-/changes?kind=unexpected").text.count('<li class="change') == 1
    rows = ask("GET", "/mirror/main_branches_moved.json?_shape=array&days=36500").json()
    assert [row["forced"] for row in rows] == ["yes", "unknown", "no"]


def test_a_webhook_of_cloud_tells_what_was_forced() -> None:
    """As Bitbucket sends it; a webhook without the key says nothing."""
    change = {
        "old": {"name": "m", "type": "branch", "target": {"hash": "1" * 40}},
        "new": {"name": "m", "type": "branch", "target": {"hash": "2" * 40}},
    }
    for said in (True, False, None):
        more = {} if said is None else {"forced": said}
        body = {"repository": {"uuid": "{x}", "full_name": "a/b"}, "push": {"changes": [change | more]}}
        events = read_event("repo:push", json.dumps(body).encode(), datacenter=False)
        assert events is not None
        assert events[0].updates[0].forced is said


def test_an_alert_tells_what_a_run_saw(tmp_path: Path) -> None:
    """One for each kind that it is for, whose command gets the names."""
    out = tmp_path / "heard"
    program = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read() + chr(10))"
    with crawling(tmp_path, 60, workspaces=("jespern",)) as (sandbox, crawl):
        config = from_toml(
            f"""database = {json.dumps(str(crawl.path))}
            [[upstream]]
            name = "here"
            kind = "sandbox"
            url = "http://x"
            [[alert]]
            command = {json.dumps([sys.executable, "-c", program])}
            on = ["tag-moved", "tag-gone"]"""
        )
        crawl.sync()
        sandbox.do("move_tag", NAME, name="0.2.1")
        with Alerts(config) as alerts:
            alerts.tell(crawl.sync())
            alerts.tell(crawl.sync())
    (heard,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (heard["event"], heard["upstream"]) == ("tag-moved", "here")
    assert heard["text"].startswith(f"{NAME} tag moved 0.2.1 ")
