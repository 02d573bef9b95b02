"""Hints: repositories that may have changed, requested before anything else and between other steps.

A hint (of a webhook or a write) says only that something may have changed. What has changed, and above all
what is gone, is for the upstream to say: a repository that it refuses has its workspace listed.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from mirror.errors import MirrorError
from mirror.model import Repository, RepositoryKey
from mirror.store.changes import last_change
from mirror.store.crawl_state import Hint, RefsListing
from mirror.store.refs import mark_refs_stale
from mirror.sync.engine import Step
from mirror.sync.missing import make_tombstone
from mirror.sync.pages import save_row
from mirror.sync.refs import RefsStep
from mirror.sync.run import Run

CHECK_EVERY = 2.0
"""Seconds between two looks for new hints during a phase."""


class _Mirrored(NamedTuple):
    id: int
    full_name: str
    scm: str | None


def hint_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each repository hinted at: for its row where the hint says so, else for its refs."""
    with run.cursors() as cursors:
        if not cursors.hints.any():
            return
    with run.store.transaction(), run.cursors() as cursors:
        hints = cursors.hints.take()
    for hint in hints:
        row = run.store.row(
            """SELECT id, full_name, scm FROM repositories
               WHERE upstream_id = ? AND uuid = ? AND deleted_at IS NULL""",
            (run.upstream_id, hint.uuid),
            _Mirrored,
        )
        key = RepositoryKey(uuid=hint.uuid, full_name=row.full_name, scm=row.scm) if row else None
        if key is not None and hint.row:
            yield HintStep(run, hint, key)
            continue
        with run.store.transaction(), run.cursors() as cursors:
            cursors.hints.done(hint)
        if row is not None and key is not None and run.with_refs:
            yield refs_anew(run, row.id, key)


def with_hints(run: Run, steps: Iterable[Step]) -> Iterator[Step]:
    """Yield steps, and between them those of hints that come meanwhile."""
    checked = time.monotonic()  # a phase may last for hours, and a hint should not wait for it
    for step in steps:
        yield step
        if time.monotonic() - checked >= CHECK_EVERY:
            checked = time.monotonic()
            yield from hint_steps(run)


def hinted_workspaces(run: Run) -> dict[str, str]:
    """Map the workspaces that hints want listed, in lower case, to when that was hinted at."""
    with run.cursors() as cursors:
        return cursors.hints.workspaces()


def to_list_now(run: Run, hinted: Collection[str], workspaces: Iterable[str]) -> set[str]:
    """Pick the hinted workspaces that may be listed now; one that failed waits for its next try."""
    wanted = [name for name in workspaces if name.lower() in hinted]
    return {name.lower() for name in wanted if not run.failures.waits("workspace", name)}


def drop_listed(run: Run, hinted: dict[str, str], workspaces: Iterable[str], *, since: str) -> None:
    """Drop hints at workspaces that have been listed since a moment, or that are not mirrored."""
    mirrored = {name.lower() for name in workspaces}
    with run.store.transaction(), run.cursors() as cursors:
        for workspace, at in hinted.items():
            state = run.states.read(workspace)
            is_listed = state.listing is None and (state.cursor is None or (state.moved_at or "") >= since)
            if is_listed or workspace not in mirrored:
                cursors.hints.workspace_done(workspace, hinted_at=at)


def refs_anew(run: Run, row_id: int, key: RepositoryKey) -> Step:
    """Make the step that asks for refs from their first page."""
    with run.store.transaction() as connection, run.cursors() as cursors:
        cursors.refs(row_id).drop()  # a listing that began before the push is out of date
        mark_refs_stale(connection, row_id)
        last = last_change(connection)
    return RefsStep(run, row_id, key, RefsListing(), last_change=last)


class HintStep(Step):
    """Request the row of one repository that may have changed."""

    def __init__(self, run: Run, hint: Hint, key: RepositoryKey) -> None:
        self.run, self.hint, self.key = run, hint, key

    def ask(self) -> Repository:
        """Request it by its identity."""
        return self.run.upstream.fetch_repository(self.key)

    def save(self, answer: Repository) -> Sequence[Step]:
        """Write its row, then request its refs; with an owner that is not mirrored it becomes a tombstone."""
        run = self.run
        has_left = run.states.has_left(answer)
        with run.transaction(), run.cursors() as cursors:
            cursors.hints.done(self.hint)
            saved = save_row(run, answer)
            run.counts.repositories_changed += len(saved.changed)
            row_id = run.store.value(
                "SELECT id FROM repositories WHERE upstream_id = ? AND uuid = ?",
                (run.upstream_id, answer.uuid),
            )
            if has_left:
                make_tombstone(run, row_id, f"transferred to {answer.full_name}")
            if has_left or not run.with_refs:
                return []
            key = answer.key
            return [refs_anew(run, row_id, key)]

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Have the workspace listed."""
        run = self.run
        run.failures.isolate(error)
        with run.store.transaction(), run.cursors() as cursors:
            cursors.hints.done(self.hint)
            # Only a full listing may prove that a repository is gone; a refusal does not.
            if run.states.exists(self.key.workspace):
                cursors.hints.add_workspace(self.key.workspace, at=run.now_text())
        return []
