"""How far a run is: what is done of its present phase, and when all of it will be done."""

from collections.abc import Callable, Mapping
from datetime import timedelta

from mirror.report import Reporter, RunCounts
from mirror.store import Store
from mirror.store.crawl_state import Progress
from mirror.times import Clock, to_text
from mirror.upstream.budget import Budget

PAGE = 100  # rows of a page of a listing
GIT_REQUESTS = 2  # of a repository, where the server speaks protocol version 2, as Bitbucket does
FAIR_NUMBER = 20  # fewer requests tell no pace
SECONDS_PER_REQUEST = 0.4  # a guess for an upstream that no run has timed yet

LISTINGS, REFS, COMPARED = "listings", "refs", "comparisons"


class RunProgress:
    """The progress of one run, counted by its steps.

    :param budget: counts the requests of the run, and knows when more of them fit.
    :param counts: what the run has found until now: what is new or changed has refs to be read.
    :param report: is told of every step.
    :param usual_pace: the seconds that a request took in earlier runs, waits aside.
    :param by_git: refs are read by git.

    `is_whole` and `refs_done` as in `mirror.store.crawl_state.Progress`; a run begins with those of the last.
    """

    def __init__(
        self,
        budget: Budget,
        counts: RunCounts,
        report: Reporter,
        *,
        clock: Clock,
        usual_pace: float,
        by_git: bool,
        stopwatch: Callable[[], float],
    ) -> None:
        self.run_id = 0
        self.is_whole = False
        self.refs_done = 0
        self._budget, self._counts, self._report, self._clock = budget, counts, report, clock
        self._usual_pace, self._by_git, self._stopwatch = usual_pace, by_git, stopwatch
        self._began = stopwatch()
        self._what = ""
        self._done = 0
        self._total: int | None = None
        self._pages = dict[str, int]()
        self._unlisted = frozenset[str]()
        self._refs_before: int | None = None
        self._done_at: str | None = None

    def begin(self, what: str, phase: str, *, total: int | None, done: int = 0) -> None:
        """Begin a phase of so many steps; `done` of them were taken by earlier runs."""
        self._what, self._done, self._total = what, done, total
        self._report.phase(phase, None if total is None else total - done)
        self.tell()

    def begin_listings(
        self, pages: Mapping[str, int], *, done: int, unlisted: frozenset[str], refs: int | None
    ) -> None:
        """Begin the listings: `pages` is how many each workspace is expected to have left.

        `unlisted` are workspaces whose repositories are not mirrored yet. `refs` is how many repositories
        wait for their refs by now, None for a run that reads none.
        """
        found = self._counts.repositories_new + self._counts.repositories_changed
        self._pages, self._unlisted = dict(pages), unlisted
        self._refs_before = None if refs is None else refs - found
        self.begin(LISTINGS, "listing workspaces", total=done + sum(pages.values()), done=done)

    def begin_refs(self, stale: int) -> None:
        """Begin to list branches and tags, where so many repositories have stale ones."""
        done = self.refs_done
        self.begin(REFS, "branches and tags", total=done + stale, done=done)

    def listed(self, workspace: str, *, pages_left: int | None) -> None:
        """Count a page of a listing, and the pages still expected of its workspace (None: unknown)."""
        before = self._pages.get(workspace, 0)
        now = max(1, before - 1) if pages_left is None else pages_left
        if self._total is not None:
            self._total += now + 1 - before
        self._pages[workspace] = now
        self.step()

    def step(self, number: int = 1) -> None:
        """Count one or several steps."""
        self._done += number
        self.refs_done += number * (self._what == REFS)
        if self._total is not None:
            self._total = max(self._total, self._done)  # there may be more than was expected
        self._report_progress()

    def estimate(self) -> None:
        """Work out when the run will be done; what is read from the file for it takes a few milliseconds."""
        left = self._requests_left()
        if left is None:
            self._done_at = None
            return
        api, git = left
        pace = self._pace()
        seconds = max(
            (api + git) * pace,
            self._budget.seconds_for(api, pace),
            self._budget.seconds_for(git, pace, "git"),
        )
        self._done_at = to_text(self._clock() + timedelta(seconds=seconds))

    def read(self) -> Progress | None:
        """Return how far the run is; None before its first phase."""
        if not self._what:
            return None
        waiting = self._budget.waiting
        return Progress(
            run_id=self.run_id,
            what=self._what,
            done=self._done,
            total=self._total,
            at=to_text(self._clock()),
            done_at=self._done_at,
            waits_until=to_text(waiting.until) if waiting else None,
            why=waiting.why if waiting else None,
            is_whole=self.is_whole,
            refs_done=self.refs_done,
        )

    def tell(self) -> None:
        """Estimate the end, and report the progress."""
        self.estimate()
        self._report_progress()

    def _report_progress(self) -> None:
        progress = self.read()
        if progress is not None:
            self._report.progress(progress)

    def _requests_left(self) -> tuple[int, int] | None:
        """Return how many requests the run will still send, by the API and by git."""
        if self._total is None:
            return None
        left = self._total - self._done
        if self._what == COMPARED:
            return 2 * left, 0
        listings, refs = (left, self._refs_later()) if self._what == LISTINGS else (0, left)
        return (listings, GIT_REQUESTS * refs) if self._by_git else (listings + refs, 0)

    def _refs_later(self) -> int:
        """Return how many repositories will have refs to be read once the listings are done."""
        if self._refs_before is None:
            return 0
        found = self._counts.repositories_new + self._counts.repositories_changed
        # Each repository of a workspace that was never listed is new, so its refs will be read.
        unlisted = sum(self._pages.get(name, 0) for name in self._unlisted)
        return self._refs_before + found + PAGE * unlisted

    def _pace(self) -> float:
        """Return the seconds that a request takes, waits aside: in this run, or for now in earlier ones."""
        sent = self._budget.requests + self._budget.git_requests
        if sent < FAIR_NUMBER:
            return self._usual_pace
        return max(0.0, self._stopwatch() - self._began - self._budget.slept_seconds) / sent


def usual_pace(store: Store, upstream_id: int, *, concurrency: int) -> float:
    """Return the seconds a request has taken, waits aside, in the last run that asked a fair number."""
    row = store.row(
        """SELECT (julianday(finished_at) - julianday(started_at)) * 86400 - slept_seconds,
                  requests + git_requests
           FROM sync_runs WHERE upstream_id = ? AND requests + git_requests >= ?
           AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1""",
        (upstream_id, FAIR_NUMBER),
    )
    return max(0.0, row[0]) / row[1] if row else SECONDS_PER_REQUEST / concurrency
