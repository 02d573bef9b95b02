"""Resolve what is missing after a listing: repositories that a full one did not contain, and unknown uuids.

A listing alone proves nothing: rows slip between pages, tokens lose rights, services fail. Only after a
listing that was complete and without errors, and once the upstream has confirmed the credential again, each
missing repository is requested by its uuid. One that is not there becomes a tombstone with the reason; its
row and refs stay. Too many at once need the operator's confirmation.

Rows that earlier versions saved without a uuid are merged if it is known, else requested by name. After a
copy was restored, strangers see nothing until everything was listed in full: what is public is known then.
"""

from collections.abc import Iterator, Sequence

import msgspec

from mirror.errors import MirrorError, NameReused, UpstreamRefused, UpstreamShapeError
from mirror.model import NAMED, Repository, RepositoryKey
from mirror.readable import repositories_text
from mirror.store.changes import Change, hide_history, of_namesakes
from mirror.store.crawl_state import ListingProgress, WorkspaceState
from mirror.store.repair import merge_second_rows, without_uuid
from mirror.store.repositories import is_named, make_private, mark_gone
from mirror.store.runs import Failure, Failures
from mirror.sync import listing_state
from mirror.sync.engine import Step
from mirror.sync.pages import NEWEST, save_row
from mirror.sync.preflight import check_caller
from mirror.sync.run import Run

WITH_UUIDS = ("cloud", "sandbox")  # kinds of upstreams whose repositories have uuids


def close_listing(
    run: Run, workspace: str, state: WorkspaceState, listing: ListingProgress
) -> WorkspaceState:
    """Return the state after the last page: done, or again from the first page, or now in full."""
    now, name = run.now(), state.name or workspace
    alive = run.states.alive(state)
    seen = alive - run.states.count_absent(state, listing.seen_since)
    uncertain = listing_state.may_have_missed(state, listing, seen)
    if uncertain and listing.passes < listing_state.PASSES:
        return msgspec.structs.replace(state, listing=listing_state.another_pass(listing, seen))
    if listing_state.ends_too_early(state, listing, seen):
        raise UpstreamShapeError(
            f"the listing of {name} reports a total of {listing.last_size:,} and ends after {listing.rows:,}"
        )
    if listing.purpose == "full":
        hidden = listing_state.shortfall(listing, seen)
        if listing_state.came_twice(listing, seen):
            if (missed := hidden - (alive - seen)) > 0:
                text = f"it lists others twice and not {repositories_text(missed)}: its order is not stable"
                run.failures.add(Failure("workspace", workspace, text))
        elif hidden:
            run.note(
                f"{name}: the upstream counts {repositories_text(hidden)} more than it lists;"
                " this credential probably may not see the rest"
            )
        _forget_bad(run, workspace, listing.seen_since)
        return listing_state.finished(state, listing, staying=seen, uncertain=uncertain, now=now)
    if not listing.holes:
        run.failures.answered("page", f"{workspace}: {NEWEST}")
    done = listing_state.finished(state, listing, staying=alive, uncertain=uncertain, now=now)
    known = alive - (run.states.count_absent(state, state.absent_since) if state.absent_since else 0)
    if listing_state.wants_sweep(done, listing, known, now, run.config.sweep_every):
        began = run.now_text()
        done.listing = ListingProgress(purpose="full", began=began, seen_since=began)
    return done


def _forget_bad(run: Run, workspace: str, since: str) -> None:
    """Drop older failures of bad rows and missing pages."""
    with run.store.transaction() as connection:
        failures = Failures(connection, run.upstream_id)
        # The whole listing did not meet them.
        failures.drop_rows_and_pages(workspace, before=since)


def absence_steps(run: Run, workspaces: Sequence[str]) -> Iterator[Step]:
    """Yield a step for each repository that its workspace's last full listing did not name.

    Raises CredentialsRefused before the first, if the credential no longer belongs to anybody.
    """
    states = [run.states.read(workspace) for workspace in workspaces]
    owners = {state.owner_uuid for state in states}
    all_listed = all(state.round == run.round for state in states)
    for workspace in workspaces:
        state = run.states.read(workspace)
        if state.absent_since is None or state.listing is not None:
            continue
        missing = run.states.absent(state, state.absent_since)
        if not state.gone and not (missing and _allowed(run, workspace, state, len(missing))):
            continue
        check_caller(run, since=max(run.round, state.swept_at or ""))
        if state.gone:
            _mark_all(run, workspace, [row.row_id for row in missing])
            continue
        for row_id, uuid, full_name in missing:
            key = _present_key(run, uuid, full_name, state.name or workspace)
            if not run.failures.waits("repository", uuid):
                yield AbsenceStep(run, workspace, row_id, key, owners, all_listed=all_listed)


def _present_key(run: Run, uuid: str, full_name: str, workspace: str) -> RepositoryKey:
    """Return the key of a repository in its workspace, which may have been renamed since it was seen."""
    owner, _, slug = full_name.partition("/")
    # By the former name of a project, nothing is found: that proves nothing.
    by_name = run.upstream.knows_names_only and not is_named(uuid)
    if by_name and owner.lower() != workspace.lower() and not listing_state.is_identity(workspace):
        full_name = f"{workspace}/{slug}"
    return RepositoryKey(uuid=uuid, full_name=full_name)


def close_absences(run: Run, workspaces: Sequence[str]) -> None:
    """End the absence of workspaces that miss nothing any more, and drop failures that no longer apply."""
    for workspace in workspaces:
        state = run.states.read(workspace)
        if state.absent_since is None or state.listing is not None:
            continue
        if not run.states.count_absent(state, state.absent_since):
            with run.store.transaction():
                run.failures.answered("absence", workspace)
                run.states.save(workspace, msgspec.structs.replace(state, absent_since=None))
    with run.store.transaction() as connection:
        failures = Failures(connection, run.upstream_id)
        failures.drop_seen_since()
        if not run.with_refs:
            failures.drop_kinds("refs", "ref")
        if not run.lists_members:
            failures.drop_kinds("members")
        if run.config.workspaces is not None:
            failures.drop_kinds("workspaces")
        failures.drop_other_workspaces({workspace.lower() for workspace in workspaces})


def _allowed(run: Run, workspace: str, state: WorkspaceState, missing: int) -> bool:
    """Apply the brake: more than a share of the workspace needs confirmation."""
    alive = run.states.alive(state)
    # One repository may always go: people delete single ones.
    if missing <= 1 or missing <= run.config.absence_brake * alive or run.confirm_absence:
        return True
    run.failures.add(
        Failure(
            "absence",
            workspace,
            f"{missing:,} of {alive:,} repositories of {workspace} are no longer listed; nothing was marked"
            f" as gone. If that is right: mirror sync {run.config.name} --confirm-absence",
        )
    )
    return False


def _mark_all(run: Run, workspace: str, rows: list[int]) -> None:
    """Turn the repositories of a workspace that is gone into tombstones."""
    with run.transaction():
        for row_id in rows:
            make_tombstone(run, row_id, "workspace gone")
        run.failures.answered("workspace", workspace)
        run.failures.answered("absence", workspace)
        run.states.forget(workspace)
    remedy = "; take it out of `workspaces`" if run.config.workspaces is not None else ""
    run.note(f"the workspace {workspace} is gone: {repositories_text(len(rows))}{remedy}")


def make_tombstone(run: Run, row_id: int, reason: str) -> None:
    """Turn one repository into a tombstone."""
    with run.store.transaction() as connection:
        changes = mark_gone(connection, row_id, reason=reason, seen_at=run.now_text())
        run.store.save_changes(changes, run_id=run.id, at=run.now_text())
        hide_history(connection, of_namesakes(connection, changes), with_refs=False)
    run.counts.repositories_gone += 1


class AbsenceStep(Step):
    """Request one repository that a full listing did not name.

    `owners` are those that are mirrored; `all_listed` says that this round has listed all they have.
    """

    def __init__(
        self,
        run: Run,
        workspace: str,
        row_id: int,
        key: RepositoryKey,
        owners: set[str | None],
        *,
        all_listed: bool = True,
    ) -> None:
        self.run, self.workspace, self.row_id, self.key, self.owners = run, workspace, row_id, key, owners
        self.all_listed = all_listed

    def ask(self) -> Repository:
        """Request it by its uuid."""
        return self.run.upstream.fetch_repository(self.key)

    def save(self, answer: Repository) -> Sequence[Step]:
        """Write it: pages moved while they were read, or it belongs to another owner now."""
        run = self.run
        with run.transaction():
            saved = save_row(run, answer)
            run.counts.repositories_changed += len(saved.changed)
            run.failures.answered("repository", self.key.uuid)
            if answer.owner.uuid not in self.owners:
                make_tombstone(run, self.row_id, f"transferred to {answer.full_name}")
            self._expect(answer)
        return []

    def _expect(self, answer: Repository) -> None:
        """Expect one row more than the listing named."""
        # Else the next total would seem to be off by one, or hide that another row was deleted.
        state = self.run.states.read(self.workspace)
        if answer.owner.uuid == state.owner_uuid:
            self.run.states.save(self.workspace, listing_state.exists_unlisted(state, self.row_id))

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Make a tombstone of it after a refusal; record any other error."""
        status = self.run.failures.isolate(error)
        # Nothing else proves that it is gone. A 401 that does not end the run is Data Center's 403.
        if isinstance(error, UpstreamRefused) and status in (401, 403, 404):
            reason = "deleted" if self._is_deleted(error) else "no longer visible"
            make_tombstone(self.run, self.row_id, reason)
            return []
        self.run.failures.add(Failure("repository", self.key.uuid, str(error), self.row_id, status=status))
        return []

    def _is_deleted(self, error: UpstreamRefused) -> bool:
        """Return whether a refusal proves that it was deleted; by its name, it may have moved instead."""
        by_name = self.run.upstream.knows_names_only and not is_named(self.key.uuid)
        may_have_moved = isinstance(error, NameReused) or (by_name and not self.all_listed)
        return error.status == 404 and not may_have_moved and self._was_visible

    @property
    def _was_visible(self) -> bool:
        """Whether this credential has seen it: for others, and for strangers, hidden looks like deleted."""
        with self.run.cursors() as cursors:
            caller = cursors.caller.read()
        seen_at = self.run.store.value("SELECT last_seen_at FROM repositories WHERE id = ?", (self.row_id,))
        return caller is not None and str(seen_at) >= caller.since


def merge_duplicates(run: Run) -> list[str]:
    """Merge second rows of one repository or owner into the first; return the names of repositories."""
    if run.config.kind not in WITH_UUIDS:
        return []
    with run.store.transaction() as connection:
        merged = merge_second_rows(connection, run.upstream_id)
    for name in merged:
        run.note(f"{name} had a second row, which was merged into the one with its uuid")
    return merged


def uuid_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each repository whose uuid is unknown, unless that has failed lately."""
    if run.config.kind not in WITH_UUIDS:
        return
    for row_id, full_name in without_uuid(run.store.connection, run.upstream_id):
        key = RepositoryKey(uuid=f"{NAMED}{full_name.lower()}", full_name=full_name)
        if not run.failures.waits("repository", key.uuid):
            yield UuidStep(run, row_id, key)


class UuidStep(AbsenceStep):
    """Request a repository by its name: the response has its uuid, or says that it is gone."""

    def __init__(self, run: Run, row_id: int, key: RepositoryKey) -> None:
        owners = {state.owner_uuid for _, state in run.states.all()}
        super().__init__(run, key.workspace, row_id, key, owners)

    def save(self, answer: Repository) -> Sequence[Step]:
        """Write it, and give the row its uuid; raises UpstreamShapeError for an answer without one."""
        steps = super().save(answer)
        merge_duplicates(self.run)
        return steps

    def _expect(self, answer: Repository) -> None:
        """Expect nothing."""  # listings may have named it all the time


def settle_restored(run: Run) -> None:
    """Serve strangers again once every workspace has been listed in full since the copy was restored."""
    with run.cursors() as cursors:
        since = cursors.restored.read()
    if since is None or any(state.swept_at is None or state.listing for _, state in run.states.all()):
        return
    with run.store.transaction() as connection:
        # What was not seen since may have become private: it was out of reach, or is not mirrored any more.
        hidden = make_private(connection, run.upstream_id, unseen_since=since)
        changes = [Change("made_private", repository_id) for repository_id in hidden]
        run.store.save_changes(changes, run_id=run.id, at=run.now_text())
        with run.cursors() as cursors:
            cursors.restored.drop()
    run.note("everything was listed since the copy was restored: strangers are answered again")
    if hidden:
        run.note(
            f"{repositories_text(len(hidden))} could not be confirmed as public, and so count as private"
        )
