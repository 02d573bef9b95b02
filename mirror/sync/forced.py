"""Asking which pushes to main branches were forced, where nobody told (`ask_forced`).

A push was forced if the former commit does not come before the present one. One request tells that. It is
asked last, and leaves half of the budget to the crawl. A run that could not ask is complete all the same; the
next runs ask, for a week. What an answer does not tell stays unknown.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from mirror.errors import CredentialsRefused, Interrupted, MirrorError, Paused
from mirror.model import RepositoryKey
from mirror.store.changes import Move, moves_to_ask_about, save_forced
from mirror.sync.engine import Step
from mirror.sync.run import Run
from mirror.times import to_text

ASKED_FOR = timedelta(days=7)
"""Moves that were seen before are not asked about any more: servers drop old commits."""

CRAWLS_SHARE = 0.5
"""The share of the hour's requests that is left to the crawl."""

_MOVES = 100


def forced_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each move of a main branch that is to be asked about, as long as the budget allows."""
    cursor = _MoveCursor(run)
    after = cursor.read()
    since = to_text(run.now() - ASKED_FOR)
    while True:
        with run.store.reading() as connection:
            moves = moves_to_ask_about(connection, run.upstream_id, after=after, since=since, most=_MOVES)
        for move in moves:
            if not _has_room(run):
                return
            yield ForcedStep(run, move, cursor)
        if not moves:
            return
        after = moves[-1].id


def _has_room(run: Run) -> bool:
    limit = run.budget.limit()
    return limit is None or run.budget.used() < (1 - CRAWLS_SHARE) * limit


class _MoveCursor:
    """The last move that was asked about. It `is_held` before one that could not be asked about."""

    def __init__(self, run: Run) -> None:
        self._run, self.is_held = run, False

    def read(self) -> int:
        """Return the number of the move."""
        with self._run.cursors() as cursors:
            return cursors.moves.read() or 0

    def save(self, move_id: int) -> None:
        """Write the number of a move, in a transaction, unless an earlier one is still to be asked about."""
        if not self.is_held:
            with self._run.cursors() as cursors:
                cursors.moves.save(move_id, at=self._run.now_text())


class ForcedStep(Step):
    """Ask whether the former commit of a main branch comes before the present one."""

    def __init__(self, run: Run, move: Move, cursor: _MoveCursor) -> None:
        self.run, self.move, self.cursor = run, move, cursor

    def ask(self) -> bool | None:
        """Request it; None if the response does not tell."""
        move = self.move
        key = RepositoryKey(uuid=move.uuid, full_name=move.full_name, scm=move.scm)
        return self.run.upstream.is_ancestor(key, move.old, of=move.new)

    def save(self, answer: bool | None) -> Sequence[Step]:  # noqa: FBT001 - the answer of `ask`
        """Write it, with the cursor from which the next run goes on."""
        self.run.failures.upstream_answered()
        return self._note(None if answer is None else not answer)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Leave it unknown; where the upstream is out of reach, or busy for long, the next run asks again."""
        if isinstance(error, CredentialsRefused):  # the next run tells, unless it is only of this repository
            self._note(None)
            self.cursor.is_held = True
            raise Paused(str(error)) from error
        if isinstance(error, Interrupted) and self.cursor.is_held:  # what was queued behind it is not asked
            raise Paused(str(error)) from error
        if self.run.failures.must_come_back(error):
            self.cursor.is_held = True
            raise error
        try:
            self.run.failures.isolate(error)
        except MirrorError:
            self.cursor.is_held = True
            raise
        return self._note(None)

    def _note(self, forced: bool | None) -> Sequence[Step]:  # noqa: FBT001 - one of three answers
        with self.run.store.transaction() as connection:
            save_forced(connection, self.move.id, forced=forced)
            self.cursor.save(self.move.id)
        if forced:
            self.run.forced.append(self.move.id)
        return []
