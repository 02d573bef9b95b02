"""The failures of one run: which single objects failed, and whether the upstream is out of reach."""

from collections.abc import Iterable

from mirror.errors import MirrorError, Paused, UpstreamBusy, UpstreamRefused, UpstreamShapeError
from mirror.store import Store
from mirror.store.runs import Failure, Failures
from mirror.times import Clock, to_text
from mirror.upstream.budget import Budget

MOST_LOST = 3
"""After so many lost connections in a row, the upstream counts as out of reach."""


class RunFailures:
    """What failed in a run or before it, with the next tries; `found` are the failures of this run.

    :param budget: tells how long this run may wait for a retry.
    :param now: tells the time of the run.
    """

    def __init__(self, store: Store, upstream_id: int, budget: Budget, now: Clock) -> None:
        self._store, self._upstream_id, self._budget, self._now = store, upstream_id, budget, now
        self.found: list[Failure] = []
        self._lost_connections = 0
        self._lost: MirrorError | None = None
        self._was_answered = False
        self._read_failed()

    def _read_failed(self) -> None:
        """Read what has failed: most of what is answered never did, which saves a query for each answer."""
        failed = self._store.rows(
            "SELECT kind, subject, repository_id FROM sync_failures WHERE upstream_id = ?",
            (self._upstream_id,),
        )
        self._failed = {(kind, subject) for kind, subject, _ in failed}
        self._failed_rows = {row_id for _, _, row_id in failed}

    def spell(self, workspaces: Iterable[str]) -> None:
        """Give the failures of workspaces the names by which they are listed now."""
        with self._store.transaction() as connection:
            Failures(connection, self._upstream_id).spell(workspaces)
        self._read_failed()

    def add(self, failure: Failure) -> None:
        """Record a failure; the run continues and ends as incomplete."""
        with self._store.transaction() as connection:
            self.found.append(Failures(connection, self._upstream_id).save(failure, self._now()))
        self._failed.add((failure.kind, failure.subject))
        self._failed_rows.add(failure.repository_id)

    def retry_all(self) -> None:
        """Make the next try of everything that has failed due now."""
        with self._store.transaction() as connection:
            Failures(connection, self._upstream_id).retry_all()

    def waits(self, kind: str, subject: str) -> bool:
        """Return whether something that failed waits for its next try."""
        with self._store.reading() as connection:
            return Failures(connection, self._upstream_id).waits(kind, subject, to_text(self._now()))

    def is_due(self, kind: str, subject: str) -> bool:
        """Return whether something has failed and its next try is due."""
        return (kind, subject) in self._failed and not self.waits(kind, subject)

    def subjects(self, kind: str) -> set[str]:
        """Return the subjects of one kind that failed, in this run or before it, and did not answer since."""
        return {subject for failed, subject in self._failed if failed == kind}

    def has_refs_of(self, repository_id: int) -> bool:
        """Return whether refs of a repository have failed, in this run or before it."""
        return repository_id in self._failed_rows

    def answered(self, kind: str, subject: str) -> None:
        """Drop a failure, because what failed has been answered."""
        self.upstream_answered()
        if (kind, subject) in self._failed:
            with self._store.transaction() as connection:
                Failures(connection, self._upstream_id).drop(kind, subject)
            self._failed.discard((kind, subject))
            # A workspace that was renamed meanwhile fails by its old name and answers by its new one.
            self.found[:] = [each for each in self.found if (each.kind, each.subject) != (kind, subject)]

    def answered_refs(self, repository_id: int, *, understood: bool) -> None:
        """Drop the failure of a repository's refs, and if all were `understood`, those of single refs."""
        self.upstream_answered()
        if self.has_refs_of(repository_id):
            with self._store.transaction() as connection:
                Failures(connection, self._upstream_id).drop_refs(repository_id, single=understood)

    def upstream_answered(self) -> None:
        """Note that the upstream is not out of reach."""
        self._was_answered, self._lost_connections = True, 0

    def isolate(self, error: MirrorError) -> int | None:
        """Return the status of an error that concerns a single object; raise any other.

        A 429 after all retries pauses the run. `MOST_LOST` lost connections in a row end it; an answer that
        asks to come back later than this run may wait counts as one.
        """
        if isinstance(error, UpstreamBusy) and error.status == 429:
            raise Paused(str(error)) from error
        if not isinstance(error, UpstreamRefused | UpstreamBusy | UpstreamShapeError):
            raise error
        status: int | None = getattr(error, "status", None)
        if not isinstance(error, UpstreamBusy) or not (status is None or self.must_come_back(error)):
            self.upstream_answered()
            return status
        self._lost, self._lost_connections = error, self._lost_connections + 1
        if self._lost_connections >= MOST_LOST:
            raise error
        return status

    def must_come_back(self, error: MirrorError) -> bool:
        """Return whether the upstream wants to be asked again later than this run may wait."""
        return isinstance(error, UpstreamBusy) and (error.retry_after or 0) > self._budget.longest_wait

    def raise_if_unreachable(self) -> None:
        """Raise the last connection error if nothing was answered at all."""
        if self._lost is not None and not self._was_answered:
            raise self._lost
