"""What was marked as changed: asked of the upstream before anything else, and between the steps of long runs.

Whoever marked it (a webhook) is believed as far as that something may have changed. What has changed, and
above all what is gone, only the upstream says: a repository that it does not give makes its workspace due.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence

from mirror.errors import MirrorError
from mirror.model import Repository, RepositoryKey
from mirror.store import cursors as marks
from mirror.store.cursors import Mark
from mirror.sync.engine import Step
from mirror.sync.missing import gone
from mirror.sync.refs import RefsPlace, RefsStep
from mirror.sync.run import Run

LOOK_SECONDS = 2.0


def marked_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each marked repository: for its row where that is marked, else for its refs."""
    if not marks.any_marked(run.store.connection, run.upstream_id):
        return
    with run.store.transaction() as connection:
        found = list(marks.marked(connection, run.upstream_id))
    for mark in found:
        row = run.store.row(
            """SELECT id, scm, full_name FROM repositories
               WHERE upstream_id = ? AND uuid = ? AND deleted_at IS NULL""",
            (run.upstream_id, mark.uuid),
        )
        key = RepositoryKey(uuid=mark.uuid, full_name=row[2], scm=row[1]) if row else None
        if key is not None and mark.row:
            yield MarkedStep(run, mark, key)
            continue
        with run.store.transaction() as connection:
            marks.unmark(connection, run.upstream_id, mark)
        if key is not None and run.with_refs:
            yield refs_anew(run, row[0], key)


def between(run: Run, steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps of a run, and what is marked meanwhile between them: a backlog may last for hours."""
    looked = time.monotonic()
    for step in steps:
        yield step
        if time.monotonic() - looked >= LOOK_SECONDS:
            looked = time.monotonic()
            yield from marked_steps(run)


def due_workspaces(run: Run) -> dict[str, str]:
    """Map the workspaces that were marked to be listed to when that was said."""
    return marks.due_workspaces(run.store.connection, run.upstream_id)


def to_ask(run: Run, due: Collection[str], workspaces: Iterable[str]) -> set[str]:
    """Pick the marked workspaces that may be listed now; one that failed waits for its next try."""
    marked = (name for name in workspaces if name.lower() in due)
    return {name.lower() for name in marked if not run.waits("workspace", name)}


def forget_listed(run: Run, due: dict[str, str], workspaces: Iterable[str], *, since: str) -> None:
    """Forget marks of workspaces that have been listed since, and of those that are not mirrored."""
    mirrored = {name.lower() for name in workspaces}
    with run.store.transaction() as connection:
        for workspace, at in due.items():
            place = run.place(workspace)
            is_listed = place.listing is None and (place.cursor is None or (place.moved_at or "") >= since)
            if is_listed or workspace not in mirrored:
                marks.unmark_workspace(connection, run.upstream_id, workspace, said_at=at)


def refs_anew(run: Run, row_id: int, key: RepositoryKey) -> Step:
    """Ask for refs from their first page: a listing of them that had begun is of before the push."""
    with run.store.transaction() as connection:
        run.drop_cursor(f"refs:{row_id}")
        connection.execute("UPDATE repositories SET refs_stale = 1 WHERE id = ?", (row_id,))
    return RefsStep(run, row_id, key, RefsPlace())


class MarkedStep(Step):
    """Ask for the row of one repository that is said to have changed."""

    def __init__(self, run: Run, mark: Mark, key: RepositoryKey) -> None:
        self.run, self.mark, self.key = run, mark, key

    def ask(self) -> Repository:
        """Ask for it by its identity."""
        return self.run.upstream.fetch_repository(self.key)

    def save(self, answer: Repository) -> Sequence[Step]:
        """Write its row, then its refs are asked for; with an owner that is not mirrored it is gone."""
        run = self.run
        has_left = run.has_left(answer)
        with run.store.transaction() as connection:
            marks.unmark(connection, run.upstream_id, self.mark)
            saved = run.save_row(answer)
            run.counts.repositories_changed += len(saved.changed)
            row = run.store.row(
                "SELECT id FROM repositories WHERE upstream_id = ? AND uuid = ?",
                (run.upstream_id, answer.uuid),
            )
            if has_left:
                gone(run, row[0], f"transferred to {answer.full_name}")
            if has_left or not run.with_refs:
                return []
            key = RepositoryKey(uuid=answer.uuid, full_name=answer.full_name, scm=answer.scm)
            return [refs_anew(run, row[0], key)]

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Nothing is gone because it could not be had: its workspace is listed, and that may prove it."""
        run = self.run
        run.isolate(error)
        with run.store.transaction() as connection:
            marks.unmark(connection, run.upstream_id, self.mark)
            self._list_soon()
        return []

    def _list_soon(self) -> None:
        run, workspace = self.run, self.key.workspace
        if run.cursor(run.stream(workspace)) is not None:
            marks.mark_workspace(run.store.connection, run.upstream_id, workspace, at=run.now_text())
