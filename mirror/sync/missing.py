"""What a full listing did not name: asked for one by one before anything is called gone.

A listing alone proves nothing: rows slip between pages, tokens lose rights, services fall ill. Only after
one that was complete and free of errors, and once the upstream has said again who we are, is each missing
repository asked for by its uuid; what is not there becomes a tombstone with the reason, its row and refs
kept. Too many at once stop and ask.
"""

import json
from collections.abc import Iterator, Sequence

import msgspec

from mirror.errors import MirrorError, UpstreamRefused
from mirror.model import Repository, RepositoryKey
from mirror.store.repositories import mark_gone
from mirror.store.runs import HIDDEN_MEMBERS, Failure
from mirror.sync import listing_state as places
from mirror.sync.engine import Step
from mirror.sync.preflight import check_caller
from mirror.sync.run import Run
from mirror.sync.workspaces import absent
from mirror.upstream.protocol import Page


def absence_steps(run: Run, workspaces: Sequence[str]) -> Iterator[Step]:
    """Yield a step for each repository that its workspace's last full listing did not name.

    Raises CredentialsRefused before the first, where the credential has become nobody's.
    """
    owners = {run.place(workspace).owner_uuid for workspace in workspaces}
    for workspace in workspaces:
        place = run.place(workspace)
        if place.absent_since is None or place.listing is not None:
            continue
        missing = absent(run, run.owner_id(place), place.absent_since)
        if not place.gone and not (missing and _allowed(run, workspace, place, len(missing))):
            continue
        check_caller(run, since=max(run.round, place.swept_at or ""))
        if place.gone:
            _mark_all(run, workspace, [row[0] for row in missing])
            continue
        for row_id, uuid, full_name in missing:
            key = RepositoryKey(uuid=uuid, full_name=full_name)
            if not run.waits("repository", uuid):
                yield AbsenceStep(run, workspace, row_id, key, owners)


def settle(run: Run, workspaces: Sequence[str]) -> None:
    """Close the question where nothing is missing any more, and forget failures that time has overtaken."""
    for workspace in workspaces:
        place = run.place(workspace)
        if place.absent_since and place.listing is None and not absent(
            run, run.owner_id(place), place.absent_since
        ):  # fmt: skip
            with run.store.transaction():
                run.answered("absence", workspace)
                run.save_place(workspace, msgspec.structs.replace(place, absent_since=None))
    with run.store.transaction() as connection:
        connection.execute(
            """DELETE FROM sync_failures WHERE upstream_id = ? AND kind = 'repository' AND EXISTS (
                   SELECT 1 FROM repositories r WHERE r.id = repository_id AND r.last_seen_at > last_at)""",
            (run.upstream_id,),
        )
        if not run.with_refs:
            connection.execute(
                "DELETE FROM sync_failures WHERE upstream_id = ? AND kind IN ('refs', 'ref')",
                (run.upstream_id,),
            )
        if run.config.workspaces is not None:
            connection.execute(
                "DELETE FROM sync_failures WHERE upstream_id = ? AND kind = 'workspaces'", (run.upstream_id,)
            )
        listed = {workspace.lower() for workspace in workspaces}
        for row_id, subject in connection.execute(
            """SELECT id, subject FROM sync_failures WHERE upstream_id = ?
               AND kind IN ('workspace', 'members', ?, 'absence', 'row', 'page')""",
            (run.upstream_id, HIDDEN_MEMBERS),
        ).fetchall():
            if subject.partition(": ")[0].lower() not in listed:
                connection.execute("DELETE FROM sync_failures WHERE id = ?", (row_id,))


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


def _mark_all(run: Run, workspace: str, rows: list[int]) -> None:
    """Turn the repositories of a workspace that is no more into tombstones."""
    with run.store.transaction():
        for row_id in rows:
            gone(run, row_id, "workspace gone")
        run.answered("workspace", workspace)
        run.answered("absence", workspace)
        run.forget_workspace(workspace)
    run.note(f"the workspace {workspace} is gone: {len(rows)} repositories; take it out of `workspaces`")


def gone(run: Run, row_id: int, reason: str) -> None:
    """Turn one repository into a tombstone."""
    with run.store.transaction() as connection:
        changes = mark_gone(connection, row_id, reason=reason, seen_at=run.now_text())
        run.store.save_changes(changes, run_id=run.id, at=run.now_text())
    run.counts.repositories_gone += 1


class AbsenceStep(Step):
    """Ask for one repository that a full listing did not name; `owners` are those that are mirrored."""

    def __init__(
        self, run: Run, workspace: str, row_id: int, key: RepositoryKey, owners: set[str | None]
    ) -> None:
        self.run, self.workspace, self.row_id, self.key, self.owners = run, workspace, row_id, key, owners

    def ask(self) -> Repository:
        """Ask for it by its uuid."""
        return self.run.upstream.fetch_repository(self.key)

    def save(self, answer: Repository) -> Sequence[Step]:
        """It is there: pages moved while they were read, or it has moved to another owner."""
        run = self.run
        with run.store.transaction():
            saved = run.save_row(answer)
            run.counts.repositories_changed += len(saved.changed)
            run.answered("repository", self.key.uuid)
            if answer.owner.uuid not in self.owners:
                gone(run, self.row_id, f"transferred to {answer.full_name}")
            self._expect(answer)
        return []

    def _expect(self, answer: Repository) -> None:
        """Expect one row more than the listing named, or the next total would seem to be off by one.

        A row that listings did name before was out of sight for a while only. Its return may hide in the next
        total that another row was deleted, so the workspace is listed in full once more.
        """
        place = self.run.place(self.workspace)
        if answer.owner.uuid == place.owner_uuid:
            self.run.save_place(self.workspace, places.there_all_the_same(place, self.row_id))

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """404 and 403 are the proof; any other error proves nothing and is recorded."""
        status = self.run.isolate(error)
        if isinstance(error, UpstreamRefused) and status in (403, 404):
            hidden = self.run.upstream.anonymous or status == 403
            gone(self.run, self.row_id, "no longer visible" if hidden else "deleted")
            return []
        self.run.fail(Failure("repository", self.key.uuid, str(error), self.row_id, status=status))
        return []


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
        if answer.skipped:
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
