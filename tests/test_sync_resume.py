"""A process killed at any request: the next one resumes there, and repeats at most one."""

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from forked_command import fork_server
from prepared_files import copy_empty
from sync_harness import START, Clock, SyncHarness, assert_matches_sandbox, contents, crawling, sync_in_child

from mirror.sandbox import Sandbox, World

SMALL: dict[str, Any] = {"workspaces": ("jespern", "erik", "ubernostrum"), "page_length": 2}

Kill = Callable[[], None]


@pytest.fixture(scope="module")
def start() -> Callable[..., BaseProcess]:
    """Start child processes from one that has imported everything already."""

    def started(*arguments: Any) -> BaseProcess:
        child = fork_server().Process(target=sync_in_child, args=arguments)
        child.start()
        return child

    return started


def killed_at(sandbox: Sandbox, number: int, child: Callable[[], BaseProcess], delay: float = 0.0) -> None:
    """Run a child until a request, and kill it before the answer or `delay` seconds later."""
    pid = list[int]()
    known = threading.Event()

    def kill() -> None:
        known.wait(10)
        os.kill(pid[0], signal.SIGKILL)

    def strike() -> None:
        threading.Timer(delay, kill).start() if delay else kill()

    sandbox.reset()
    sandbox.on_request(number, strike)
    process = child()
    assert process.pid is not None
    pid.append(process.pid)
    known.set()
    process.join(30)
    assert process.exitcode in (-signal.SIGKILL, 0 if delay else -signal.SIGKILL)


def edit(sandbox: Sandbox) -> None:
    """Change a little of everything."""
    sandbox.do("push", "jespern/django-piston")
    sandbox.do("create_branch", "ubernostrum/django-profiles", name="next")
    sandbox.do("rename", "jespern/jespern", name="Jespern himself")
    sandbox.do("create", workspace="erik", name="brand new")
    sandbox.do("delete", "jespern/arriving")
    sandbox.do("transfer", "ubernostrum/django-registration", to="erik")


def at_most_one_again(asked: Counter[str], expected: Counter[str]) -> bool:
    """Tell whether no more was asked twice than the request that was killed, which nobody answered.

    Two requests count as one where it takes two to know: whether a repository is gone, in its own workspace
    and in any, and whether a full page of refs, which tells no total, was the last.
    """
    again = asked - expected
    return again.total() - (again["repository"] == 2) - (again["refs"] == 2) <= 1


@pytest.mark.parametrize("later", [False, True], ids=["first sync", "later sync"])
def test_killed_at_every_request(tmp_path: Path, start: Callable[..., BaseProcess], later: bool) -> None:
    """After a kill at any request k, the next run repeats at most one, and the mirror is the same."""
    clock = Clock()
    with crawling(tmp_path, World(0, seed=26, now=clock.now), network=True, clock=clock, **SMALL) as (
        sandbox,
        crawl,
    ):
        origin = crawl.config.url.removesuffix("/2.0")
        before = tmp_path / "before.db"
        if later:
            crawl.sync()
            edit(sandbox)
            shutil.copy(crawl.path, before)
        else:
            copy_empty(before)
        sandbox.reset()
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, SMALL["workspaces"])
        expected, asked = contents(crawl), sandbox.state()["total"]
        expected_kinds = Counter(sandbox.state()["by_kind"])
        assert asked > 15
        for k in range(1, asked + 1):
            path = tmp_path / f"{k}.db"
            shutil.copy(before, path)
            moment = crawl.clock.moment
            killed_at(sandbox, k, lambda path=path, moment=moment: start(origin, path, moment, SMALL))  # type: ignore[misc]
            again = SyncHarness(origin, path, crawl.clock, **SMALL)
            assert again.sync(later=1).state == "complete"
            assert at_most_one_again(Counter(sandbox.state()["by_kind"]), expected_kinds), f"killed at {k}"
            assert contents(again) == expected, f"killed at {k}"


def test_killed_anywhere_with_four_threads(tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
    """A larger crawl, killed at random moments: each thread repeats at most two requests."""
    random, threads = Random(7), 4
    # No repository has a multiple of 17 refs: a full page without a total takes a second request to know.
    settings: dict[str, Any] = {"page_length": 17, "concurrency": threads}
    with crawling(tmp_path, 60, network=True, **settings) as (sandbox, crawl):
        origin = crawl.config.url.removesuffix("/2.0")
        assert crawl.sync().state == "complete"
        expected, asked = contents(crawl), sandbox.state()["total"]
        for number in range(8):
            path = tmp_path / f"{number}.db"
            copy_empty(path)
            k = random.randrange(5, asked)
            killed_at(
                sandbox,
                k,
                lambda path=path: start(origin, path, START, settings),  # type: ignore[misc]
                random.uniform(0.0005, 0.01),
            )
            again = SyncHarness(origin, path, Clock(), **settings)
            assert again.sync().state == "complete"
            assert sandbox.state()["total"] <= asked + 2 * threads
            assert contents(again) == expected


def test_refs_updated_after_they_were_half_listed_are_listed_anew(tmp_path: Path) -> None:
    """After an interruption, a push to an earlier page of branches is read too."""
    name = "ubernostrum/django-profiles"
    with crawling(tmp_path, network=True, page_length=2, workspaces=("ubernostrum",)) as (sandbox, crawl):
        for number in range(6):
            sandbox.do("create_branch", name, name=f"b{number}")
        crawl.sync()
        sandbox.do("push", name, branch="b5")
        assert crawl.sync(max_requests=3, later=7200).state == "paused"
        assert crawl.rows("SELECT 1 FROM cursors WHERE stream LIKE 'refs:%'")
        sandbox.do("push", name, branch="b0")
        assert crawl.sync(later=7200).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ["ubernostrum"])


@pytest.mark.parametrize("way", ["none", "late"])
def test_refs_that_were_half_listed_before_a_gap_are_listed_anew(tmp_path: Path, way: str) -> None:
    """Meanwhile `refs` was "none", so that no push restarted the listing; or nothing told of it for days."""
    name = "ubernostrum/django-profiles"
    with crawling(tmp_path, page_length=2, workspaces=("ubernostrum",)) as (sandbox, crawl):
        for number in range(6):
            sandbox.do("create_branch", name, name=f"b{number}")
        crawl.sync()
        usual = crawl.config
        sandbox.do("push", name, branch="b5")
        assert crawl.sync(max_requests=3, later=7200).state == "paused"
        assert crawl.rows("SELECT 1 FROM cursors WHERE stream LIKE 'refs:%'")
        if way == "late":
            sandbox.do("create_branch", name, name="a0", touch=False)
        else:
            sandbox.do("push", name, branch="b0")
            crawl.config = msgspec.structs.replace(usual, refs="none")
            assert crawl.sync(later=7200).state == "complete"
            crawl.config = usual
        assert crawl.sync(later=60 if way == "none" else 2 * 86_400).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ["ubernostrum"])


def test_refs_that_git_has_read_get_their_dates_by_the_api(tmp_path: Path) -> None:
    """Git tells no dates, authors and messages, and nothing is pushed when `refs` is changed."""
    with crawling(tmp_path, workspaces=("erik",), refs="git") as (sandbox, crawl):
        assert crawl.sync().state == "complete"
        assert crawl.one("SELECT count(*) - count(target_date) FROM branches") > 0
        crawl.config = msgspec.structs.replace(crawl.config, refs="api")
        assert crawl.sync().state == "complete"
        assert_matches_sandbox(crawl, sandbox, ["erik"])


@pytest.mark.parametrize("way", ["half listed", "made public"])
def test_a_repository_without_refs_is_done_whatever_came_before(tmp_path: Path, way: str) -> None:
    """Before its first listing was complete, one of its refs was saved and deleted, or it was made public."""
    with crawling(tmp_path, workspaces=("jespern",)) as (sandbox, crawl):
        sandbox.do("create", workspace="jespern", name="bare")
        sandbox.do("make_private", "jespern/bare")
        assert crawl.sync(max_requests=4).state == "paused"
        if way == "made public":
            sandbox.do("make_public", "jespern/bare")
        else:
            with crawl.writing() as connection:
                connection.execute(
                    """INSERT INTO branches (repository_id, name, target_hash)
                       SELECT id, 'b', ? FROM repositories WHERE full_name = 'jespern/bare'""",
                    ("a" * 40,),
                )
        assert crawl.sync(later=7200).state == "complete"
        assert_matches_sandbox(crawl, sandbox, ["jespern"])
