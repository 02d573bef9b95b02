"""Unexpected changes: on histories of the sandbox; told by a page, the feed, SQL and alerts."""

import json
import os
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_client import client_of
from fixtures_db import FixtureDb, hg_ref, repository
from hypothesis import given, settings
from hypothesis import strategies as st
from sync_harness import Clock, SyncHarness, WithoutNetwork, crawling

from mirror.config import from_toml
from mirror.observe.alerts import Alerts
from mirror.queries.changes import TITLES, UNEXPECTED, ChangeFilter, latest_changes, lines_of_run
from mirror.queries.visibility import OPERATOR
from mirror.report import Summary
from mirror.sandbox import Fault, Sandbox, World
from mirror.serve.webhook_events import read_event
from mirror.store.files import open_reader
from mirror.store.webhooks import RefUpdate, RepositoryEvent, save_event

NAME, OTHER = "jespern/django-piston", "ubernostrum/django-registration"


def lines_told(connection: sqlite3.Connection, name: str, run: Summary) -> list[str]:
    """Return the lines of an alert after a run about one kind."""
    return lines_of_run(connection, name, run.upstream, run.changes, run.forced)


def test_a_sandbox_tells_each_kind(tmp_path: Path) -> None:
    """Each change is found under its own name only, by the run that saw it."""
    with crawling(tmp_path, 60, synced=True, workspaces=("jespern", "ubernostrum")) as (sandbox, crawl):
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
            told = {name: lines_told(connection, name, run) for name in UNEXPECTED}
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
    """A main branch that webhooks moved: forced, not forced, unknown; then another main branch."""
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
    side = repository("ann/tool", uuid="{tool}", main_branch="side")  # which hides nothing of then
    filled.repositories([side], at="2026-11-03T00:00:00.000000Z")
    return filled


def test_only_told_pushes_of_main_branches_are_forced(forced: FixtureDb) -> None:
    """A page, the feed with the filter, and a stored query that shows unknown."""
    ask = client_of(forced.path)
    page = ask("GET", "/-/unexpected").text
    assert all(title in page for title in TITLES.values())
    assert page.count('<li class="change') == 1
    feed = ask("GET", "/-/changes.atom?kind=main-forced").text
    assert feed.count("<entry>") == 1
    assert "master by force</title>" in feed
    assert ask("GET", "/-/changes?kind=unexpected").text.count('<li class="change') == 1
    rows = ask("GET", "/mirror/main_branches_moved.json?_shape=array&days=36500").json()
    assert [row["forced"] for row in rows] == ["yes", "unknown", "no"]


ASKING: dict[str, Any] = {"workspaces": ("jespern", "ubernostrum"), "ask_forced": True}


@contextmanager
def asking(path: Path, **settings: Any) -> Iterator[tuple[Sandbox, SyncHarness]]:
    """A sandbox in this process, and a synced mirror of two workspaces."""
    clock = Clock()
    sandbox = Sandbox(World(60, now=clock.now))
    crawl = SyncHarness("http://sandbox", path / "mirror.db", clock, **ASKING | settings)
    crawl.transport = WithoutNetwork(sandbox.answer)
    crawl.sync()
    sandbox.reset()
    yield sandbox, crawl


def forced_of(crawl: SyncHarness) -> dict[str, list[int | None]]:
    """Whether each move of a main branch was forced, by repository."""
    found = defaultdict[str, list[int | None]](list)
    for name, forced in crawl.rows(
        """SELECT r.full_name, c.forced FROM changes c JOIN repositories r ON r.id = c.repository_id
            WHERE c.kind = 'branch_moved' AND c.ref = r.main_branch ORDER BY c.id"""
    ):
        found[name].append(forced)
    return found


def commits_asked(sandbox: Sandbox) -> int:
    """Count the requests for commits."""
    return int(sandbox.state()["by_kind"].get("other", 0))


def test_one_request_tells_whether_a_push_was_forced(tmp_path: Path) -> None:
    """One for each move of a main branch, none for others; alerts and pages show the result."""
    with asking(tmp_path) as (sandbox, crawl):
        sandbox.do("push", NAME)
        sandbox.do("force_push", OTHER)
        sandbox.do("create_branch", NAME, name="side")
        run = crawl.sync()
        assert forced_of(crawl) == {NAME: [0], OTHER: [1]}
        assert (run.state, commits_asked(sandbox)) == ("complete", 2)
        with closing(open_reader(crawl.path)) as connection:
            (line,) = lines_told(connection, "main-forced", run)
            assert line.startswith(f"{OTHER} branch moved ")
        sandbox.do("force_push", NAME, branch="side")
        crawl.sync()
        assert commits_asked(sandbox) == 2
    assert client_of(crawl.path).get("/-/unexpected").text.count('<li class="change') == 1


def test_what_is_not_told_is_unknown_and_not_asked_again(tmp_path: Path) -> None:
    """A commit that no longer exists, and a server with another answer."""
    with asking(tmp_path) as (sandbox, crawl):
        for answer in ("404", "500", "nonsense"):
            sandbox.do("push", NAME)
            sandbox.add_fault(Fault(answer, where="other", nth=None))
            summary = crawl.sync()
            assert (summary.state, summary.failures) == ("complete", [])
            sandbox.clear_faults()
            sandbox.reset()
            crawl.sync()
            assert commits_asked(sandbox) == 0
        assert forced_of(crawl)[NAME] == [None, None, None]
    with asking(tmp_path / "off", ask_forced=False) as (sandbox, crawl):
        sandbox.do("force_push", NAME)
        crawl.sync()
        assert (forced_of(crawl)[NAME], commits_asked(sandbox)) == ([None], 0)


class Between(httpx.BaseTransport):
    """Lets a test answer requests for commits (`act`), or act `after` each."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self.act: Callable[[], httpx.Response | None] = lambda: None
        self.after: Callable[[], object] = lambda: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass it on, unless the test answers."""
        if "/commits" not in request.url.path:
            return self._inner.handle_request(request)
        answer = self.act() or self._inner.handle_request(request)
        self.after()
        return answer


@pytest.mark.parametrize("threads", [1, 4])
def test_what_is_not_answered_now_is_asked_by_the_next_run(tmp_path: Path, threads: int) -> None:
    """No sync waits or fails; a refused credential is not tried again for the same move."""
    late = httpx.Response(503, headers={"Retry-After": "3000"})
    more = httpx.Response(200, json={"values": [], "next": "http://sandbox/2.0/more"})
    with asking(tmp_path, concurrency=threads) as (sandbox, crawl):
        transport = Between(crawl.transport or httpx.HTTPTransport())
        crawl.transport = transport
        names = [name for (name,) in crawl.rows("SELECT full_name FROM repositories WHERE main_branch <> ''")]
        expected = list[int | None]()
        for first, then in ((late, 1), (httpx.Response(429), 1), (httpx.Response(401), None), (more, None)):
            answers = [first, None]
            transport.act = lambda answers=answers: answers.pop(0) if answers else None  # type: ignore[misc]
            for name in names:
                sandbox.do("force_push", name)
            now, waits = crawl.clock.moment, len(crawl.clock.waits)
            assert crawl.sync().state == "complete"
            assert not any("50 min" in why for why in crawl.clock.waits[waits:])
            assert (crawl.clock.moment - now).total_seconds() < 1000
            assert crawl.sync().state == "complete"
            expected.append(then)
        found = crawl.rows("SELECT forced FROM changes WHERE is_main ORDER BY id")
    rounds = [[row[0] for row in found[at : at + len(names)]] for at in range(0, len(found), len(names))]
    assert [one.count(1) for one in rounds] == [len(names) - (then is None) for then in expected]
    assert [one.count(None) for one in rounds] == [int(then is None) for then in expected]


@pytest.mark.parametrize(("moment", "asked"), [("act", 0), ("after", 0), ("act", 1), ("after", 1)])
def test_a_killed_sync_asks_again_and_what_it_saw_is_told(tmp_path: Path, moment: str, asked: int) -> None:
    """SIGKILL before a request, and before its answer is saved, with others saved before."""
    with asking(tmp_path, requests_per_hour=100) as (sandbox, crawl):
        transport = Between(crawl.transport or httpx.HTTPTransport())
        crawl.transport = transport
        sandbox.do("force_push", OTHER)
        sandbox.do("force_push", NAME)
        sandbox.do("move_tag", NAME, name="0.2.1")
        crawl.clock.wait(900)
        child = os.fork()
        if child == 0:
            left = [None] * asked
            setattr(transport, moment, lambda: left.pop() if left else os.kill(os.getpid(), signal.SIGKILL))
            crawl.sync()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        counted = crawl.one("SELECT sum(sent) FROM request_ledger")
        assert crawl.one("SELECT count(forced) FROM changes") == asked
        crawl.clock.wait(900)
        first, second = crawl.sync(), crawl.sync()
        assert commits_asked(sandbox) == 2 - asked
        assert forced_of(crawl) == {OTHER: [1], NAME: [1]}
        assert counted <= crawl.one("SELECT sum(requests) FROM request_ledger") <= 100
        with closing(open_reader(crawl.path)) as connection:
            for name, lines in (("tag-moved", 1), ("main-forced", 2)):
                assert len(lines_told(connection, name, first)) == lines
                assert lines_told(connection, name, second) == []


def test_the_crawl_comes_first(tmp_path: Path) -> None:
    """Half of the budget stays; open questions are asked and reported by later runs."""
    with asking(tmp_path, requests_per_hour=22) as (sandbox, crawl):
        crawl.clock.wait(3600)
        for (name,) in crawl.rows("SELECT full_name FROM repositories WHERE main_branch IS NOT NULL"):
            sandbox.do("force_push", name)
        runs = [crawl.sync(max_requests=10), crawl.sync(later=60), *(crawl.sync(later=3601) for _ in "ab")]
        assert [(run.state, run.counts.requests, len(run.forced)) for run in runs] == [
            ("complete", 2 + 6 + 2, 2), ("complete", 2, 0), ("complete", 2 + 4, 4), ("complete", 2, 0),
        ]  # fmt: skip
        assert len({number for run in runs for number in run.forced}) == 6
        with closing(open_reader(crawl.path)) as connection:
            assert len(lines_told(connection, "main-forced", runs[2])) == 4


def test_a_data_center_is_asked_too(tmp_path: Path) -> None:
    """By its own request; none of its webhooks reports a forced push."""
    clock = Clock()
    sandbox = Sandbox(World(60, now=clock.now))
    crawl = SyncHarness(
        "http://sandbox", tmp_path / "mirror.db", clock, kind="datacenter", url="http://sandbox",
        secret="jespern:sandbox", workspaces=("~JESPERN", "~UBERNOSTRUM"), ask_forced=True,
    )  # fmt: skip
    crawl.transport = WithoutNetwork(sandbox.answer)
    crawl.sync()
    sandbox.do("push", NAME)
    sandbox.do("force_push", OTHER)
    crawl.sync(full=True)
    assert sorted(forced_of(crawl).values()) == [[0], [1]]


def test_whatever_was_pushed_between_two_looks(tmp_path: Path) -> None:
    """Forced if any push since the last look was, not forced if none was."""
    with asking(tmp_path) as (sandbox, crawl):
        expected = list[int | None]()

        @settings(max_examples=10)
        @given(pushes=st.lists(st.sampled_from(("push", "force_push")), min_size=1, max_size=4))
        def look(pushes: list[str]) -> None:
            for push in pushes:
                sandbox.do(push, NAME)
            crawl.sync()
            expected.append(int("force_push" in pushes))
            assert forced_of(crawl)[NAME] == expected

        look()


def test_a_webhook_of_cloud_tells_what_was_forced() -> None:
    """In Bitbucket's form; without the key it is unknown."""
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
    """One for each of its kinds; a command gets the names."""
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
            alerts.send_for(crawl.sync())
            alerts.send_for(crawl.sync())
    (heard,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (heard["event"], heard["upstream"]) == ("tag-moved", "here")
    assert heard["text"].startswith(f"{NAME} tag moved 0.2.1 ")
