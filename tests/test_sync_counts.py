"""How many requests a sync sends, and that the mirror equals the upstream."""

from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from sync_harness import Clock, Notes, assert_matches_sandbox, contents, crawling

from mirror.errors import Interrupted, StoreError
from mirror.sandbox import World, repository_refs, visible_repositories
from mirror.store import Store
from mirror.store.crawl_state import Progress
from mirror.sync.crawl import sync_upstream
from mirror.sync.run import Run

SEEDS = 29
"""Repositories that every sandbox of some size holds besides the generated ones."""


def test_a_full_sync_of_1000_spends_1010_requests_and_the_next_one(tmp_path: Path) -> None:
    """1,000 repositories: 10 pages and 1,000 for refs, and one each for caller, workspace and members.

    On top come the further pages of repositories with more than 100 refs. Nothing changed: one request.
    k changed: 1 + k, and refs are asked of those alone.
    """
    clock = Clock()
    world = World(1000 + SEEDS, workspaces=1, now=clock.now)
    with crawling(tmp_path, world, clock=clock, workspaces=("big",), concurrency=4) as (sandbox, crawl):
        first = crawl.sync()
        assert (first.state, first.exit_code) == ("complete", 0)
        assert first.counts.repositories_new == 1000
        rows = [row for row in visible_repositories(world) if row["full_name"].startswith("big/")]
        refs = {name: len(repository_refs(world, name)) for name in (row["full_name"] for row in rows)}
        further = sum(max(0, number - 1) // 100 for number in refs.values())
        assert sandbox.state()["by_kind"] == {
            "user": 1, "workspace": 1, "members": 1, "listing": 10, "refs": 1000 + further,
        }  # fmt: skip
        assert first.counts.requests == 1013 + further
        assert further < 50
        assert_matches_sandbox(crawl, sandbox, ["big"])
        assert crawl.changes() == []

        sandbox.reset()
        second = crawl.sync()
        assert (second.counts.requests, sandbox.state()["by_kind"]) == (1, {"listing": 1})
        assert second.counts.repositories_changed == second.counts.refs_changed == 0

        sandbox.reset()
        for name in [name for name, number in refs.items() if number < 100][-5:]:
            sandbox.do("push", name)
        third = crawl.sync()
        assert (third.counts.requests, sandbox.state()["by_kind"]) == (6, {"listing": 1, "refs": 5})
        assert third.counts.repositories_changed == 5
        assert_matches_sandbox(crawl, sandbox, ["big"])


def test_a_first_sync_needs_few_transactions_and_queries(tmp_path: Path) -> None:
    """Requests are reserved ahead, and ready answers are saved together."""
    statements = list[str]()

    class Traced(Store):
        """A store that records its statements."""

        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.connection.set_trace_callback(statements.append)

    with crawling(tmp_path, 250, network=True, concurrency=4) as (_, crawl):
        crawl.open_store = Traced
        summary = crawl.sync()
        begun = sum(statement.startswith("BEGIN") for statement in statements)
        assert summary.state == "complete"
        assert begun < 1.25 * summary.counts.requests
        looked = sum(statement.lstrip().startswith("SELECT") for statement in statements)
        assert looked < 2.1 * summary.counts.requests  # 1.9 were measured
        kept_apart = sum(statement.startswith("SAVEPOINT") for statement in statements)
        assert kept_apart < 0.4 * summary.counts.requests  # 0.35 were measured
        assert crawl.one("SELECT sum(requests) FROM request_ledger") == summary.counts.requests
        assert crawl.one("SELECT sum(sent) FROM request_ledger") == summary.counts.requests


@pytest.mark.parametrize(("is_full", "counted"), [(False, 1), (True, 0)])
def test_what_is_not_saved_is_not_counted(tmp_path: Path, is_full: bool, counted: int) -> None:
    """Of answers that are saved together one fails: the others count, unless a full disk undoes them too."""

    def save(run: Run, *, fails: bool) -> None:
        with run.transaction() as connection:
            run.counts.refs_new += 1
            if fails and is_full:
                connection.execute("ROLLBACK")  # as SQLite does
            if fails:
                raise StoreError("full")

    with crawling(tmp_path, 10) as (_, crawl), crawl.run() as run:
        with suppress(StoreError), run.together():
            save(run, fails=False)
            save(run, fails=True)
        assert run.counts.refs_new == counted
        with suppress(StoreError):
            save(run, fails=True)
        assert run.counts.refs_new == counted


def test_every_odd_value_is_mirrored_unchanged(tmp_path: Path) -> None:
    """Unnamed workspaces of a sandbox with every oddity are mirrored field by field."""
    with crawling(tmp_path, 100, concurrency=4) as (sandbox, crawl):
        summary = crawl.sync()
        assert (summary.state, summary.failures) == ("complete", [])
        assert_matches_sandbox(crawl, sandbox, sandbox.workspaces())
        sandbox.reset()
        assert crawl.sync().counts.requests == len(sandbox.workspaces())


def test_an_anonymous_mirror_holds_public_repositories(tmp_path: Path) -> None:
    """Without a credential, members and caller are not requested, and there are no private rows."""
    from mirror.sandbox import ANONYMOUS

    with crawling(tmp_path, 60, secret=None, workspaces=("jespern", "1team")) as (sandbox, crawl):
        assert crawl.sync().state == "complete"
        assert sandbox.state()["by_kind"].keys() == {"workspace", "listing", "refs"}
        assert_matches_sandbox(crawl, sandbox, ["jespern", "1team"], ANONYMOUS)
        assert crawl.one("SELECT count(*) FROM repositories WHERE is_private") == 0


def test_eight_threads_write_the_same_rows_as_one(tmp_path: Path) -> None:
    """The same rows have the same ids."""
    found = []
    for threads in (1, 8):
        folder = tmp_path / str(threads)
        with crawling(folder, 150, concurrency=threads, page_length=7) as (sandbox, crawl):
            crawl.sync()
            for name in ("jespern/django-piston", "1team/special-refs"):
                sandbox.do("push", name)
            sandbox.do("delete", "ubernostrum/django-profiles")
            crawl.sync()
            ids = {
                table: crawl.rows(f"SELECT id, uuid FROM {table} ORDER BY id")
                for table in ("users", "repositories")
            }
            changes = crawl.rows("SELECT id, kind, repository_id, ref, old, new FROM changes ORDER BY id")
            # Clone addresses tell the port of the sandbox.
            rows = {k: v for k, v in contents(crawl).items() if k != "repositories"}
            found.append((ids, changes, rows))
    assert found[0] == found[1]


def test_two_upstreams_in_one_file_stay_apart(tmp_path: Path) -> None:
    """The same Bitbucket under two names: two sets of rows, cursors and failures."""
    with crawling(tmp_path, 60, network=True, workspaces=("jespern",)) as (sandbox, crawl):
        crawl.sync()
        other = type(crawl)(
            crawl.config.url.removesuffix("/2.0"),
            crawl.path,
            crawl.clock,
            name="there",
            workspaces=("1team",),
        )
        assert other.sync().state == "complete"
        sandbox.do("delete", "jespern/arriving")
        assert other.sync().counts.repositories_gone == 0
        assert crawl.sync().counts.repositories_gone == 1
        held = crawl.rows(
            """SELECT u.name, count(*) FROM repositories r JOIN upstreams u ON u.id = r.upstream_id
               WHERE deleted_at IS NULL GROUP BY 1 ORDER BY 1"""
        )
        count = sum(row["full_name"].startswith("1team/") for row in visible_repositories(sandbox.world))
        assert held == [("here", 4), ("there", count)]


def test_progress_of_a_run_is_reported(tmp_path: Path) -> None:
    """Its counts are in the file meanwhile; those of an interrupted wait are correct."""
    clock, seconds = Clock(), count(step=10)
    with crawling(tmp_path, 60, clock=clock, workspaces=("jespern",)) as (_, crawl):
        seen = list[tuple[str, int]]()

        class Watching(Notes):
            def progress(self, progress: Progress) -> None:
                seen.extend(crawl.rows("SELECT state, requests FROM sync_runs"))

        with crawl.run(report=Watching(), stopwatch=lambda: next(seconds)) as run:
            summary = sync_upstream(run)
    asked = [requests for _, requests in seen]
    assert {state for state, _ in seen} == {"running"}
    assert asked == sorted(asked)
    assert 0 < asked[-1] <= summary.counts.requests


def test_an_interrupted_wait_is_recorded_with_its_length(tmp_path: Path) -> None:
    """After three seconds of an hour; the waiting request does not count as sent."""

    class Impatient(Clock):
        def wait(self, seconds: float, why: str = "") -> None:
            super().wait(min(seconds, 3) if why else seconds, why)
            if why:
                raise Interrupted("stopped while waiting")

    with crawling(tmp_path, 60, clock=Impatient(), our_limit=3, workspaces=("jespern",)) as (sandbox, crawl):
        counts = crawl.sync().counts
        assert (counts.requests, round(counts.slept_seconds)) == (3, 3)
        assert sum(sandbox.state()["by_kind"].values()) == 3
        assert crawl.rows("SELECT sum(requests), sum(sent) FROM request_ledger") == [(3, 3)]
        assert crawl.rows("SELECT state, requests FROM sync_runs") == [("interrupted", 3)]
