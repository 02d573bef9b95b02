"""Listing branches and tags: of every repository that is new, was updated, or has not been asked for long."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from mirror.errors import MirrorError, UpstreamShapeError
from mirror.model import Ref, RepositoryKey
from mirror.store.refs import save_refs
from mirror.store.runs import Failure
from mirror.sync.run import Run
from mirror.sync.steps import Step
from mirror.times import to_text
from mirror.upstream.base import Page

_CHUNK = 500
_STALE = """
    FROM repositories AS r
    WHERE upstream_id = :upstream AND refs_stale AND deleted_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM sync_failures AS f
        WHERE f.repository_id = r.id AND f.kind = 'refs' AND f.next_try_at > :now)"""


def count_stale(run: Run) -> int:
    """Count the repositories whose refs are to be asked for."""
    values = {"upstream": run.upstream_id, "now": run.now_text()}
    return int(run.store.row(f"SELECT count(*) {_STALE}", values)[0])


def mark_old(run: Run) -> None:
    """Let refs be asked for anew once they are older than `refs_every`: tags may move unannounced."""
    before = to_text(run.now() - timedelta(seconds=run.config.refs_every))
    with run.store.transaction() as connection:
        connection.execute(
            """UPDATE repositories SET refs_stale = 1
               WHERE upstream_id = ? AND NOT refs_stale AND deleted_at IS NULL AND refs_synced_at < ?""",
            (run.upstream_id, before),
        )


def refs_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each repository whose refs are stale, a few hundred read ahead at a time."""
    last = 0
    while True:
        rows = run.store.rows(
            f"SELECT id, uuid, full_name, scm {_STALE} AND id > :last ORDER BY id LIMIT {_CHUNK}",
            {"upstream": run.upstream_id, "now": run.now_text(), "last": last},
        )
        if not rows:
            return
        for row_id, uuid, full_name, scm in rows:
            key = RepositoryKey(uuid=uuid, full_name=full_name, scm=scm)
            yield RefsStep(run, row_id, key, run.cursor(f"refs:{row_id}"))
        last = rows[-1][0]


class RefsStep(Step):
    """Ask for a page of a repository's branches and tags."""

    def __init__(self, run: Run, row_id: int, key: RepositoryKey, next_page: str | None) -> None:
        self.run, self.row_id, self.key, self.next_page = run, row_id, key, next_page

    def ask(self) -> Page[Ref]:
        """Ask for the page."""
        return self.run.upstream.fetch_refs(self.key, self.next_page)

    def save(self, answer: Page[Ref]) -> Sequence[Step]:
        """Write it, with where a listing of several pages goes on."""
        run = self.run
        if answer.place is not None and answer.place == self.next_page:
            raise UpstreamShapeError(f"{self.key.full_name}: the refs listing leads back to its own page")
        with run.store.transaction() as connection:
            saved = save_refs(
                connection,
                self.row_id,
                answer.rows,
                first_page=self.next_page is None,
                last_page=answer.place is None,
                seen_at=run.now_text(),
            )
            run.store.save_changes(saved.changes, run_id=run.id, at=run.now_text())
            if answer.place is not None:
                run.save_cursor(f"refs:{self.row_id}", answer.place)
            elif self.next_page is not None:
                run.drop_cursor(f"refs:{self.row_id}")
            if answer.place is None:
                run.answered("refs", self.key.uuid)
        run.counts.refs_new += saved.new
        run.counts.refs_changed += saved.moved
        run.counts.refs_gone += saved.gone
        for bad in answer.bad:
            run.fail(
                Failure("ref", f"{self.key.full_name}: {bad.what}", bad.error, repository_id=self.row_id)
            )
        if answer.place is not None:
            return [RefsStep(run, self.row_id, self.key, answer.place)]
        run.report.step()
        return []

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Keep the refs that are known, and try again after a growing while."""
        run, status = self.run, self.run.isolate(error)
        with run.store.transaction():
            run.drop_cursor(f"refs:{self.row_id}")
            run.fail(
                Failure(
                    "refs",
                    self.key.uuid,
                    f"{self.key.full_name}: {error}",
                    repository_id=self.row_id,
                    status=status,
                )
            )
        run.report.step()
        return []
