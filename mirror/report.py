"""The reports of a run while it works, and its summary at the end."""

from datetime import datetime
from typing import Literal

import msgspec

from mirror.store.crawl_state import Progress
from mirror.store.runs import Failure

State = Literal["complete", "incomplete", "paused", "interrupted", "failed"]


class Reporter:
    """A listener of a run, which does nothing by itself.

    It is called from the thread that syncs, `waiting` from others too.
    """

    def phase(self, what: str, total: int | None) -> None:
        """Report that a phase begins, and its number of steps, None if unknown."""

    def progress(self, progress: Progress) -> None:
        """Report the progress: after each save, and every two seconds while waiting for one."""

    def waiting(self, seconds: float, why: str) -> None:
        """Report that no request is sent for a number of seconds, and why."""

    def note(self, text: str) -> None:
        """Report something that the user should know, but is not a failure."""

    def fault(self, text: str) -> None:
        """Report that something failed, or is wrong; without another place for it, as a note."""
        self.note(text)


class RunCounts(msgspec.Struct):
    """What a run did; the fields are columns of `sync_runs`."""

    requests: int = 0
    git_requests: int = 0
    retries: int = 0
    slept_seconds: float = 0.0
    repositories_new: int = 0
    repositories_changed: int = 0
    repositories_gone: int = 0
    refs_new: int = 0
    refs_changed: int = 0
    refs_gone: int = 0
    failures: int = 0


class Summary(msgspec.Struct, kw_only=True):
    """The result of one run.

    - `kind`: full, if any listing was a full one; otherwise the kind of its scope.
    - `state`: complete (nothing is known to be missing), incomplete (something is), paused (the budget is
      spent until `resumes_at`), interrupted, or failed (with `error`).
    - `seconds`: wall time.
    - `failures`: those of this run. `waiting`: older ones that are not due for another attempt yet.
    - `refs_waiting`: the number of repositories whose branches and tags this run did not read.
    - `accepted`: failures that the operator accepts, and members that the credential may not see. They are
      reported, but do not count as missing.
    - `run_id`: its row in `sync_runs`.
    - `forced`: the changes that this run found to be forced pushes; earlier runs may have recorded them.
    - `changes`: the ids of the last change that an earlier run reported, and of the last one of all.
    """

    upstream: str
    kind: str
    state: State
    counts: RunCounts
    seconds: float
    failures: list[Failure]
    notes: list[str]
    waiting: list[Failure] = []
    accepted: list[Failure] = []
    refs_waiting: int = 0
    error: str | None = None
    run_id: int = 0
    exit_code: int = 0
    resumes_at: datetime | None = None
    forced: list[int] = []
    changes: tuple[int, int] = (0, 0)

    @property
    def missing(self) -> int:
        """The number of things that are known to be missing; a repository with unread refs counts as one."""
        return len(self.failures) + len(self.waiting) + self.refs_waiting
