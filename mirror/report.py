"""What a run tells while it works, and the account it gives at the end."""

from datetime import datetime
from typing import Literal, Protocol

import msgspec

from mirror.store.failures import Failure

State = Literal["complete", "incomplete", "paused", "interrupted", "failed"]


class Reporter(Protocol):
    """Whoever listens to a run; called from the thread that syncs, `waiting` from others too."""

    def phase(self, what: str, total: int | None) -> None:
        """Say that a phase of the work begins, and how many steps it will take, where that is known."""

    def step(self, count: int = 1) -> None:
        """Say that steps of the phase are done."""

    def waiting(self, seconds: float, why: str) -> None:
        """Say that nothing is asked for some seconds, and why."""

    def note(self, text: str) -> None:
        """Say something that the user should know and that is no failure."""


class Silent:
    """A listener that tells nobody."""

    def phase(self, what: str, total: int | None) -> None:
        """Say nothing."""

    def step(self, count: int = 1) -> None:
        """Say nothing."""

    def waiting(self, seconds: float, why: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class Counts(msgspec.Struct):
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
    """The account of one run. `kind` is full when any listing was; `seconds` is wall time.

    `state` is complete, when nothing is known to be missing in the mirror; incomplete, when something is;
    paused, when the budget was spent (`resumes_at`); interrupted; or failed, with `error`, when nothing could
    go on. `run_id` is its row in `sync_runs`.

    `failures` are those of this run, `waiting` older ones whose next try is still to come, `refs_waiting`
    the number of repositories whose branches and tags this run left unread. `accepted` are failures that the
    operator accepts and members that the credential may not see: they are told, and nothing is missing.
    """

    upstream: str
    kind: str
    state: State
    counts: Counts
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

    @property
    def missing(self) -> int:
        """How many things the mirror is known to miss, repositories with unread refs counted one by one."""
        return len(self.failures) + len(self.waiting) + self.refs_waiting
