"""Pages that were stepped over: asked for again when their next try is due."""

import json
from collections.abc import Iterator, Sequence

from mirror.errors import MirrorError
from mirror.model import Repository
from mirror.store.runs import Failure
from mirror.sync.run import Run
from mirror.sync.steps import Step
from mirror.upstream.base import Page


def hole_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each page that is remembered as missing and due."""
    for subject, place in run.store.rows(
        """SELECT subject, place FROM sync_failures
           WHERE upstream_id = ? AND kind = 'page' AND place IS NOT NULL AND next_try_at <= ? ORDER BY id""",
        (run.upstream_id, run.now_text()),
    ):
        yield HoleStep(run, subject, place)


class HoleStep(Step):
    """Ask once more for a page that the upstream could not give."""

    def __init__(self, run: Run, subject: str, place: str) -> None:
        self.run, self.subject, self.place = run, subject, place
        self.where = json.loads(place)

    def ask(self) -> Page[Repository]:
        """Ask for the page."""
        where = self.where
        return self.run.upstream.fetch_repositories(where["workspace"], where["order"], where["next"])

    def save(self, answer: Page[Repository]) -> Sequence[Step]:
        """Write its rows and forget the hole, unless it is one still."""
        run = self.run
        if answer.hole:
            run.fail(Failure("page", self.subject, "still missing", place=self.place))
            return []
        with run.store.transaction():
            saved = run.save_page(
                self.where["workspace"], answer.rows, first_listing=self.where.get("first", False)
            )
            run.answered("page", self.subject)
            run.fail_rows(self.subject.partition(": ")[0], answer.bad, swept_at=None)
        run.counts.repositories_new += len(saved.new)
        run.counts.repositories_changed += len(saved.changed)
        return []

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Remember it for later still."""
        status = self.run.isolate(error)
        self.run.fail(Failure("page", self.subject, str(error), status=status, place=self.place))
        return []
