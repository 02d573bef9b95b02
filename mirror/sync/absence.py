"""What a full listing did not name: asked for one by one before anything is called gone.

A listing alone proves nothing: rows slip between pages, tokens lose rights, services fall ill. Only after
one that was complete and free of errors is each missing repository asked for by its uuid; what is not
there becomes a tombstone with the reason, its row and refs kept. Too many at once stop and ask.
"""

from collections.abc import Iterator, Sequence

import msgspec

from mirror.errors import MirrorError, UpstreamRefused
from mirror.model import Repository, RepositoryKey
from mirror.store.repositories import mark_gone
from mirror.store.runs import Failure
from mirror.sync import places
from mirror.sync.run import Run
from mirror.sync.steps import Step
from mirror.sync.workspaces import absent


def absence_steps(run: Run, workspaces: Sequence[str]) -> Iterator[Step]:
    """Yield a step for each repository that its workspace's last full listing did not name."""
    for workspace in workspaces:
        place = run.place(workspace)
        if place.absent_since is None or place.listing is not None:
            continue
        missing = absent(run, run.owner_id(place), place.absent_since)
        if place.gone:
            _mark_all(run, workspace, place, [row[0] for row in missing])
        elif _allowed(run, workspace, place, len(missing)):
            yield from (
                AbsenceStep(run, row_id, RepositoryKey(uuid=uuid, full_name=full_name))
                for row_id, uuid, full_name in missing
                if not _waits(run, uuid)
            )


def settle(run: Run, workspaces: Sequence[str]) -> None:
    """Close the question for workspaces of which nothing is missing any more."""
    for workspace in workspaces:
        place = run.place(workspace)
        if place.absent_since and place.listing is None and not absent(
            run, run.owner_id(place), place.absent_since
        ):  # fmt: skip
            with run.store.transaction():
                run.answered("absence", workspace)
                run.save_place(workspace, msgspec.structs.replace(place, absent_since=None))


def _allowed(run: Run, workspace: str, place: places.Place, missing: int) -> bool:
    """Apply the brake: a single repository may go, more than a share of the workspace may not unasked."""
    alive = run.alive(run.owner_id(place))
    if missing <= 1 or missing <= run.config.absence_brake * alive or run.confirm_absence:
        return True
    run.fail(
        Failure(
            "absence",
            workspace,
            f"{missing} of {alive} repositories of {workspace} are no longer listed; nothing was marked as "
            f"gone. If that is right: mirror sync {run.config.name} --confirm-absence",
        )
    )
    return False


def _waits(run: Run, uuid: str) -> bool:
    """Tell whether a failed question about a repository is not to be repeated yet."""
    return (
        run.store.row(
            """SELECT 1 FROM sync_failures WHERE upstream_id = ? AND kind = 'repository'
               AND subject = ? AND next_try_at > ?""",
            (run.upstream_id, uuid, run.now_text()),
        )
        is not None
    )


def _mark_all(run: Run, workspace: str, place: places.Place, rows: list[int]) -> None:
    """Turn the repositories of a workspace that is no more into tombstones."""
    with run.store.transaction():
        for row_id in rows:
            gone(run, row_id, "workspace gone")
        run.answered("workspace", workspace)
        run.save_place(workspace, msgspec.structs.replace(place, absent_since=None, gone=False))


def gone(run: Run, row_id: int, reason: str) -> None:
    """Turn one repository into a tombstone."""
    with run.store.transaction() as connection:
        changes = mark_gone(connection, row_id, reason=reason, seen_at=run.now_text())
        run.store.save_changes(changes, run_id=run.id, at=run.now_text())
    run.counts.repositories_gone += 1


class AbsenceStep(Step):
    """Ask for one repository that a full listing did not name."""

    def __init__(self, run: Run, row_id: int, key: RepositoryKey) -> None:
        self.run, self.row_id, self.key = run, row_id, key

    def ask(self) -> Repository:
        """Ask for it by its uuid."""
        return self.run.upstream.fetch_repository(self.key)

    def save(self, answer: Repository) -> Sequence[Step]:
        """It is there: pages moved while they were read, or it has moved to another owner."""
        run = self.run
        with run.store.transaction():
            saved = run.store.save_page(
                run.upstream_id,
                [answer],
                run_id=run.id,
                seen_at=run.now_text(),
                with_refs=run.with_refs,
                first_listing=False,
            )
            run.counts.repositories_changed += len(saved.changed)
            run.answered("repository", self.key.uuid)
            if not self._is_mirrored(answer):
                gone(run, self.row_id, f"transferred to {answer.full_name}")
        return []

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """404 and 403 are the proof; any other error proves nothing and is recorded."""
        if isinstance(error, UpstreamRefused) and error.status in (403, 404):
            hidden = self.run.upstream.anonymous or error.status == 403
            gone(self.run, self.row_id, "no longer visible" if hidden else "deleted")
            return []
        status = self.run.isolate(error)
        self.run.fail(Failure("repository", self.key.uuid, str(error), self.row_id, status=status))
        return []

    def _is_mirrored(self, answer: Repository) -> bool:
        """Tell whether the namespace that a repository is in now is one that this mirror lists."""
        namespace = answer.full_name.partition("/")[0]
        known = self.run.place(namespace)
        return known.owner_uuid == answer.owner.uuid or namespace.lower() == self.key.workspace.lower()
