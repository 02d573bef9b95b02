"""Ask whether the pushes that moved main branches were forced, where nobody told it (`ask_forced`).

A push was forced if the commit that the branch was at is none of those before the present one. One request
tells it. What it does not tell stays unknown, and is not asked for again. The budget is for the crawl: half
of it is left alone, and a run that could not ask is complete all the same. What is left waits for the next
run, for a week.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from mirror.errors import CredentialsRefused, Interrupted, MirrorError, Paused
from mirror.model import RepositoryKey
from mirror.store.changes import Move, moves_to_ask_about, save_forced
from mirror.sync.engine import Step
from mirror.sync.run import Run
from mirror.times import to_text

KEPT = timedelta(days=7)
"""Moves that were seen before are not asked about any more: servers drop old commits."""

SHARE = 0.5
"""The share of the hour's requests that is left to the crawl."""

_CHUNK = 100


def forced_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each move of a main branch that is to be asked about, as long as the budget allows."""
    place = _Place(run)
    after = place.read()
    since = to_text(run.now() - KEPT)
    while True:
        with run.store.reading() as connection:
            moves = moves_to_ask_about(connection, run.upstream_id, after=after, since=since, most=_CHUNK)
        for move in moves:
            if not _has_room(run):
                return
            yield ForcedStep(run, move, place)
        if not moves:
            return
        after = moves[-1].id


def _has_room(run: Run) -> bool:
    limit = run.budget.limit()
    return limit is None or run.budget.used() < SHARE * limit


class _Place:
    """The last move that was asked about. It stays before the first one that could not be asked about."""

    def __init__(self, run: Run) -> None:
        self._run, self.stays = run, False

    def read(self) -> int:
        """Return its number."""
        with self._run.cursors() as cursors:
            return cursors.moves.read() or 0

    def save(self, move_id: int) -> None:
        """Write its number, in a transaction, unless an earlier one is still to be asked about."""
        if not self.stays:
            with self._run.cursors() as cursors:
                cursors.moves.save(move_id, at=self._run.now_text())


class ForcedStep(Step):
    """Ask whether the former commit of a main branch comes before the present one."""

    def __init__(self, run: Run, move: Move, place: _Place) -> None:
        self.run, self.move, self.place = run, move, place

    def ask(self) -> bool | None:
        """Ask for it; None where the answer does not tell."""
        move = self.move
        key = RepositoryKey(uuid=move.uuid, full_name=move.full_name, scm=move.scm)
        return self.run.upstream.is_ancestor(key, move.old, of=move.new)

    def save(self, answer: bool | None) -> Sequence[Step]:  # noqa: FBT001 - the answer of `ask`
        """Note it, with the place from which the next run goes on."""
        self.run.hear()
        return self._note(None if answer is None else not answer)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Leave it unknown; where the upstream is out of reach, or busy for long, the next run asks again."""
        if isinstance(error, CredentialsRefused):  # the next run tells, unless it is only of this repository
            self._note(None)
            self.place.stays = True
            raise Paused(str(error)) from error
        if isinstance(error, Interrupted) and self.place.stays:  # what was queued behind it is not asked
            raise Paused(str(error)) from error
        try:
            self.run.isolate(error)
        except MirrorError:
            self.place.stays = True
            raise
        return self._note(None)

    def _note(self, forced: bool | None) -> Sequence[Step]:  # noqa: FBT001 - one of three answers
        with self.run.store.transaction() as connection:
            save_forced(connection, self.move.id, forced=forced)
            self.place.save(self.move.id)
        if forced:
            self.run.forced.append(self.move.id)
        return []
