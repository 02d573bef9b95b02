"""One run: what each of its steps needs."""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from mirror.config import UpstreamConfig
from mirror.report import Reporter, RunCounts
from mirror.store import Store
from mirror.store.cursors import Cursors
from mirror.store.runs import restart_run
from mirror.sync.failures import RunFailures
from mirror.sync.progress import RunProgress, usual_pace
from mirror.sync.workspace_states import WorkspaceStates
from mirror.times import Clock, to_text
from mirror.upstream.budget import Budget
from mirror.upstream.protocol import Upstream


class _Upstream(NamedTuple):
    id: int
    url: str


class Run:
    """A run of one upstream.

    :param config: the settings of the upstream.
    :param upstream: what is asked; `budget` counts its requests.
    :param store: the file; it must be locked for this run.
    :param url: the address of the upstream; if it differs from the file's, all links are forgotten.
    :param clock: tells the time; `stopwatch` measures seconds.
    :param stop: ends the run as soon as it is set (state interrupted).
    :param full: list every workspace in full, and trust no earlier check.
    :param confirm_absence: believe that what is gone is gone, however much it is.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        upstream: Upstream,
        budget: Budget,
        store: Store,
        *,
        url: str,
        clock: Clock,
        stop: threading.Event,
        report: Reporter,
        full: bool = False,
        confirm_absence: bool = False,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.upstream = upstream
        self.budget = budget
        self.store = store
        self.clock = clock
        self.stop = stop
        self.report = report
        self.full = full
        self.confirm_absence = confirm_absence
        self._clock_lock = threading.Lock()
        self._latest = clock()
        self._url = url
        known = store.row("SELECT id, url FROM upstreams WHERE name = ?", (config.name,), _Upstream)
        self.has_moved = known is not None and known.url != url
        self.upstream_id = known.id if known is not None and known.url != url else self.save_address()
        self.states = WorkspaceStates(store, self.upstream_id, config, self.now)
        self.counts = RunCounts()
        self.failures = RunFailures(store, self.upstream_id, budget, self.now)
        self.notes: list[str] = []
        self.looks = Counter[str]()
        self.forced: list[int] = []
        self.kind = "incremental"
        self.id = 0
        self.round = ""
        self.stopwatch = stopwatch
        self.ticked = stopwatch()
        self.progress = RunProgress(
            budget,
            self.counts,
            report,
            clock=self.now,
            usual_pace=usual_pace(store, self.upstream_id, concurrency=config.concurrency),
            by_git=config.refs == "git",
            stopwatch=stopwatch,
        )

    def save_address(self) -> int:
        """Write the address of the upstream and return the id of its row."""
        # A new address belongs in the transaction that forgets the links to the old one: afterwards nothing
        # shows that the upstream has moved.
        return self.store.save_upstream(self.config.name, self.config.kind, self._url, refs=self.config.refs)

    @property
    def with_refs(self) -> bool:
        """Whether branches and tags are mirrored at all."""
        return self.config.refs != "none"

    @property
    def lists_members(self) -> bool:
        """Whether the members of workspaces are read."""
        return self.config.members and not self.upstream.anonymous

    def now(self) -> datetime:
        """Return the time, which never goes back within a run."""
        with self._clock_lock:  # what was seen later must not seem older, even if the clock is set back
            self._latest = max(self._latest, self.clock())
            return self._latest

    def now_text(self) -> str:
        """Return the time as a text of the file."""
        return to_text(self.now())

    def begin_at(self, now: datetime) -> None:
        """Take another time than the clock's as now, until the clock has passed it."""
        with self._clock_lock:
            self._latest = now
        with self.store.transaction() as connection:
            restart_run(connection, self.id, at=to_text(now))

    def note(self, text: str) -> None:
        """Report something to the user, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.report.note(text)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Commit what several steps save at once; what does not come into the file is not counted."""
        before = msgspec.structs.asdict(self.counts)
        with self.store.together(lost=lambda: self._count_as(before)):  # a full disk undoes all of them
            yield

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Group writes and what they count: an error undoes both."""
        before = msgspec.structs.asdict(self.counts)
        try:
            with self.store.transaction() as connection:
                yield connection
        except BaseException:
            self._count_as(before)
            raise

    def _count_as(self, before: Mapping[str, Any]) -> None:
        for name, count in before.items():
            setattr(self.counts, name, count)

    @contextmanager
    def cursors(self) -> Iterator[Cursors]:
        """Give the upstream's cursors; what is written together belongs into a transaction of the store."""
        with self.store.reading() as connection:
            yield Cursors(connection, self.upstream_id)
