"""Listing workspaces: who they are, and their repositories page by page.

For each workspace the requests form one chain: itself, its members, its repositories. Its state says which
link of the chain comes next, so the next run resumes an interrupted one there.
"""

from collections.abc import Collection, Sequence

import msgspec

from mirror.errors import MirrorError, UpstreamRefused, UpstreamShapeError
from mirror.model import Owner, Repository
from mirror.store.crawl_state import ListingProgress, Members, WorkspaceState
from mirror.store.owners import drop_members
from mirror.store.repositories import is_named, known_by_uuid
from mirror.store.runs import HIDDEN_MEMBERS, Failure
from mirror.sync import listing_state
from mirror.sync.engine import Step
from mirror.sync.members import MembersStep, report_hidden_members
from mirror.sync.missing import close_listing
from mirror.sync.pages import fail_rows, next_listing, note_hole, pages_left, save_page
from mirror.sync.preflight import formerly_listed
from mirror.sync.run import Run
from mirror.upstream.protocol import BadRow, Page

MOST_LOOKS = 3
"""How often a run looks for a workspace that is refused, by its identity or by another of its names."""


def listing_steps(run: Run, workspace: str, names: Collection[str]) -> list[Step]:
    """Return the next step of a workspace; `names` are all workspaces that are listed in this run."""
    is_configured = workspace in (run.config.workspaces or ())
    if listing_state.is_identity(workspace) and not is_configured and not run.states.exists(workspace):
        return []  # taken over in this run by the name that it has now
    state = run.states.read(workspace)
    if state.listing is None and state.round == run.round:
        return []
    listing = next_listing(run, state)
    begins = listing is not state.listing
    state = msgspec.structs.replace(state, listing=listing)
    if begins and listing.purpose == "full":
        return [WorkspaceStep(run, workspace, state, names)]
    return _onward(run, workspace, state, names)


def _onward(run: Run, workspace: str, state: WorkspaceState, names: Collection[str]) -> list[Step]:
    """Return the next link of the chain, if there is one."""
    if run.lists_members and state.members is not None and not run.failures.waits("members", workspace):
        return [MembersStep(run, workspace, state, lambda left: _onward(run, workspace, left, names))]
    return [ListingStep(run, workspace, state, names)] if state.listing is not None else []


class _WorkspaceStep(Step):
    """The common part of a workspace's steps: its state, and the handling of a refusal."""

    def __init__(self, run: Run, workspace: str, state: WorkspaceState, names: Collection[str]) -> None:
        self.run, self.workspace, self.state, self.names = run, workspace, state, names

    @property
    def name(self) -> str:
        """The present name of the workspace."""
        return self.state.name or self.workspace

    def onward(self, state: WorkspaceState) -> list[Step]:
        """Return the steps that come next, from a state that has just been saved."""
        return _onward(self.run, self.workspace, state, self.names)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Record that the crawl of the workspace stopped here; its state is kept."""
        run, state = self.run, self.state
        status = run.failures.isolate(error)
        if status != 404 or state.owner_uuid is None:
            if status == 404:
                # There is no such workspace, so it has no members either.
                run.failures.answered(HIDDEN_MEMBERS, self.workspace)
                self._doubt_list()
            run.failures.add(Failure("workspace", self.workspace, str(error), status=status))
            return []
        if not run.states.exists(self.workspace):
            return []  # taken over by the step of the name that it has now
        run.looks[self.workspace] += 1
        if run.looks[self.workspace] > MOST_LOOKS:
            text = f"{error}; the upstream calls {self.workspace} so, and refuses that name"
            run.failures.add(Failure("workspace", self.workspace, text, status=status))
            return []
        if state.name not in (None, self.workspace) and not state.owner_uuid.startswith("{"):
            # A project that has its first key back: nothing else would lead from the other one to it.
            anew = msgspec.structs.replace(state, name=None)
            run.states.save(self.workspace, anew)
            return [WorkspaceStep(run, self.workspace, anew, self.names)]
        if state.owner_uuid.startswith("{") or isinstance(self, ListingStep):
            return [RenamedStep(run, self.workspace, state, self.names, error)]
        return self.missed(error)

    def _doubt_list(self) -> None:
        """Forget a workspace that is not there and of which nothing is held; a configured name stays."""
        if self.run.config.workspaces is None:
            self.run.states.forget(self.workspace)
            self._read_list_anew()

    def _read_list_anew(self) -> None:
        """Let the next run read the list of workspaces, which may have another name for this one."""
        run = self.run
        if run.config.workspaces is None and not run.failures.waits("workspace", self.workspace):
            with run.cursors() as cursors:
                cursors.workspace_list.drop()

    def missed(self, error: MirrorError) -> Sequence[Step]:
        """Take a workspace that cannot be found as gone if the operator confirms that, else as failed."""
        run = self.run
        if self._has_another_name():
            self._forget(self.workspace)
            return []
        if run.confirm_absence:
            gone = msgspec.structs.replace(self.state, listing=None, absent_since=run.now_text(), gone=True)
            run.states.save(self.workspace, gone)
            return []
        if listing_state.is_identity(self.workspace) and run.states.alive(self.state) == 0:
            self._forget(self.workspace)  # its repositories are those of its name's new holder
            return []
        text = f"{error}; its rows are kept; if it is gone: mirror sync {run.config.name} --confirm-absence"
        if listing_state.is_identity(self.workspace):
            text = f"the workspace that was called {self._was_called}: {text}"
        self._read_list_anew()
        run.failures.add(Failure("workspace", self.workspace, text, status=404))
        return []

    def _forget(self, workspace: str) -> None:
        """Forget where the crawl stood under a name that nothing is listed by any more, and its failure."""
        self.run.states.forget(workspace)
        self.run.failures.answered("workspace", workspace)

    def _has_another_name(self) -> bool:
        """Return whether the workspace is listed by another name: projects swap keys, and have no uuids."""
        states = self.run.states
        others = (states.read(name) for name in self.names if name != self.workspace)
        return any(state.owner_uuid == self.state.owner_uuid for state in others)

    @property
    def _was_called(self) -> str:
        run = self.run
        owner_id = run.states.owner_id(self.state)
        return str(run.store.value("SELECT username FROM users WHERE id = ?", (owner_id,)) or "otherwise")


class WorkspaceStep(_WorkspaceStep):
    """Ask who a workspace is, before its full listing."""

    def ask(self) -> Owner:
        """Request the workspace."""
        return self.run.upstream.fetch_workspace(self.name)

    def save(self, answer: Owner) -> Sequence[Step]:
        """Write its owner, then go on to its members and its repositories."""
        run, workspace = self.run, self.workspace
        if listing_state.is_identity(workspace) and (answer.username or "").lower() in self._lower_names:
            self._forget(workspace)  # listed by the name that it has now
            return []
        self._must_have_uuid(answer)
        with run.store.transaction():
            self._keep_displaced(answer)
            owner = run.store.save_owner(run.upstream_id, answer, run_id=run.id, seen_at=run.now_text())
            if not run.lists_members:  # as in `report_hidden_members`
                drop_members(run.store.connection, owner, unseen_since=run.now_text())
            state = msgspec.structs.replace(
                listing_state.found(self._taken_over(answer)),
                owner_uuid=answer.uuid,
                name=None if (answer.username or "").lower() == workspace.lower() else answer.username,
                listing=self.state.listing,
                members=Members(seen_since=run.now_text()) if run.lists_members else None,
            )
            # A failure of the workspace is over when its listing answers, not before.
            run.failures.upstream_answered()
            run.states.save(workspace, state)
        return self.onward(state)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Go on without members where the credential may not see the workspace; its listing may be enough."""
        # Some servers answer 404 then, or 410 for an address that they have removed.
        if not isinstance(error, UpstreamRefused) or error.status not in (401, 403, 404, 410):
            return super().failed(error)
        if error.status == 404 and self.state.owner_uuid is not None:  # it may have another name now
            return super().failed(error)
        run = self.run
        run.failures.upstream_answered()
        report_hidden_members(run, self.workspace, error)
        state = msgspec.structs.replace(self.state, members=None)
        run.states.save(self.workspace, state)
        return self.onward(state)

    @property
    def _lower_names(self) -> set[str]:
        return {name.lower() for name in self.names}

    def _must_have_uuid(self, answer: Owner) -> None:
        """Raise UpstreamShapeError for an answer without uuid of a workspace that is known by one."""
        run, name = self.run, answer.username or self.name
        if is_named(answer.uuid) and known_by_uuid(run.store.connection, run.upstream_id, [name]):
            raise UpstreamShapeError(f"the workspace {name} has a uuid, and its answer tells none")

    def _keep_displaced(self, answer: Owner) -> None:
        """Keep the state of the workspace that had the name before, under its identity, if it has rows."""
        run, before = self.run, self.state.owner_uuid
        if before is None or before == answer.uuid or self._has_another_name():
            return
        if run.states.alive(self.state) == 0:
            return
        run.states.save(before, listing_state.displaced(self.state))
        run.note(f"another workspace is called {self.name} now; the one that was is asked for as {before}")

    def _taken_over(self, answer: Owner) -> WorkspaceState:
        """Return the state to continue: that of the workspace's former name, if it had one here."""
        run = self.run
        if self.state.owner_uuid == answer.uuid and self.state.cursor is not None:
            return self.state
        for name in formerly_listed(
            run, (name for name in self.names if not listing_state.is_identity(name))
        ):
            state = run.states.read(name)
            if state.owner_uuid == answer.uuid:
                run.note(f"the workspace {name} is called {answer.username} now")
                self._forget(name)
                return state
        return self.state if self.state.owner_uuid in (None, answer.uuid) else WorkspaceState()


class RenamedStep(WorkspaceStep):
    """Ask whether a workspace is still there, and under which name, after a 404 (`refused`).

    It is requested by its uuid. Data Center has projects by their key only, so the key is used there.
    """

    def __init__(
        self,
        run: Run,
        workspace: str,
        state: WorkspaceState,
        names: Collection[str],
        refused: MirrorError,
    ) -> None:
        super().__init__(run, workspace, state, names)
        self.refused = refused

    def ask(self) -> Owner:
        """Ask by the uuid, where there is one."""
        identity = str(self.state.owner_uuid)
        return self.run.upstream.fetch_workspace(identity if identity.startswith("{") else self.name)

    def save(self, answer: Owner) -> Sequence[Step]:
        """List everything under the new name; if the name is the old one, only its listing was refused."""
        run, name = self.run, str(answer.username)
        if name.lower() == self.name.lower():
            run.failures.upstream_answered()
            text = f"{self.refused}; the workspace itself answers, so what it lists is missing here"
            run.failures.add(Failure("workspace", self.workspace, text, status=404))
            return []
        if name.lower() in self._lower_names - {self.workspace.lower()}:
            run.states.forget(self.workspace)  # listed under its new name already
            return []
        remedy = "; change `workspaces` accordingly" if run.config.workspaces is not None else ""
        run.note(f"the workspace {self.workspace} is called {name} now{remedy}")
        now = run.now_text()
        self.state.listing = ListingProgress(purpose="full", began=now, seen_since=now)
        return super().save(answer)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Take the workspace as missed: neither its name nor its identity is known any more."""
        status = self.run.failures.isolate(error)
        if status == 404:
            return self.missed(error)
        text = f"{self.refused}; asked by its identity: {error}"
        self.run.failures.add(Failure("workspace", self.workspace, text, status=status))
        return []


class ListingStep(_WorkspaceStep):
    """Request the next page of a workspace's repositories; page and state are saved in one transaction."""

    @property
    def listing(self) -> ListingProgress:
        """The listing that this is a page of."""
        assert self.state.listing is not None  # noqa: S101 - `_onward` makes no such step without
        return self.state.listing

    def ask(self) -> Page[Repository]:
        """Request the page."""
        return self.run.upstream.fetch_repositories(self.name, self.listing.order, self.listing.next)

    def save(self, answer: Page[Repository]) -> Sequence[Step]:
        """Write the page and the cursor behind it in one transaction."""
        run = self.run
        if self._is_of_another(answer):
            # Ask first whose name this is now, as before any full listing.
            anew = msgspec.structs.replace(self.state, listing=None, swept_at=None, round=None)
            run.states.save(self.workspace, anew)
            return listing_steps(run, self.workspace, self.names)
        answer = self._without_foreign(answer)
        listing = listing_state.advanced(self.listing, answer)
        if listing.purpose == "full" and run.kind == "incremental":  # a watch run stays one
            run.kind = "full"
        with run.transaction():
            listing.bad += self._save_rows(answer)
            state = msgspec.structs.replace(listing_state.found(self.state), listing=listing)
            if answer.rows and run.states.owner_id(state) is None:
                named = [
                    row for row in answer.rows if (row.owner.username or "").lower() == self.name.lower()
                ]
                owners = [row.owner.uuid for row in named or answer.rows]
                state.owner_uuid = next((uuid for uuid in owners if not is_named(uuid)), owners[0])
            if listing_state.reached_end(listing, state, run.config.overlap):
                state = close_listing(run, self.workspace, state, listing)
                state.round = run.round
            run.states.save(self.workspace, state)
        self._tell_progress(state.listing)
        return self.onward(state)

    def _tell_progress(self, listing: ListingProgress | None) -> None:
        """Count the page; without a total from the upstream, the expected number stays as it was."""
        if listing is None:
            left: int | None = 0
        else:
            left = None if listing.last_size is None else pages_left(listing, listing.last_size)
        self.run.progress.listed(self.workspace, pages_left=left)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Start over where a link is refused; else record that the listing stopped here."""
        listing = self.listing
        refused = isinstance(error, UpstreamRefused) and error.status in (400, 404)
        if refused and listing.next is not None and listing.passes < listing_state.PASSES:
            state = msgspec.structs.replace(self.state, listing=listing_state.another_pass(listing, 0))
            self.run.states.save(self.workspace, state)
            return self.onward(state)
        return super().failed(error)

    def _is_of_another(self, page: Page[Repository]) -> bool:
        """Return whether the newest updates are another owner's, though the mirror holds rows of this one."""
        run, state = self.run, self.state
        others = {row.owner.uuid for row in page.rows}
        if self.listing.purpose == "full" or not others or state.owner_uuid in others:
            return False
        return run.states.alive(state) > 0

    def _without_foreign(self, page: Page[Repository]) -> Page[Repository]:
        """Take out rows of another workspace, by identity and name: no later listing would see them."""
        name, ours = self.name, self.state.owner_uuid or _owner_in(page.rows, self.name)
        if ours is None:
            return page
        foreign = [row for row in page.rows if row.owner.uuid != ours and not _is_called(row, name)]
        bad = [
            BadRow(
                what=row.full_name, error=f"it is listed as a repository of {name}, and belongs to another"
            )
            for row in foreign
        ]
        kept = tuple(row for row in page.rows if row not in foreign)
        return msgspec.structs.replace(page, rows=kept, bad=(*page.bad, *bad))

    def _save_rows(self, page: Page[Repository]) -> int:
        """Write the rows; return how many could not be distinguished from others."""
        run = self.run
        swept_at = None if self.listing.purpose == "full" else self.state.swept_at
        first = not self.state.whole
        saved = save_page(
            run,
            self.workspace,
            page.rows,
            first_listing=first,
            since=self.listing.seen_since,
            swept_at=swept_at,
        )
        run.counts.repositories_new += len(saved.new)
        run.counts.repositories_changed += len(saved.changed)
        run.failures.answered("workspace", self.workspace)
        fail_rows(run, self.workspace, page.bad, swept_at=swept_at)
        if page.skipped:
            note_hole(run, self.workspace, self.state, self.listing)
        return len(saved.refused)


def _owner_in(rows: Sequence[Repository], workspace: str) -> str | None:
    """Return the identity of the workspace of this name by its repositories, a real one if there is one."""
    named = [row for row in rows if _is_called(row, workspace)]
    owners = [row.owner.uuid for row in named or rows]
    return next((uuid for uuid in owners if not is_named(uuid)), owners[0] if owners else None)


def _is_called(row: Repository, workspace: str) -> bool:
    """Return whether a repository belongs to a workspace of this name."""
    names = (row.owner.username or "", row.full_name.partition("/")[0])
    return workspace.lower() in (name.lower() for name in names)
