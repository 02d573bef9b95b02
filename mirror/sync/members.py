"""Listing the members of a workspace, who may see its private repositories."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec

from mirror.errors import MirrorError, UpstreamRefused
from mirror.model import Member
from mirror.store.crawl_state import Members, WorkspaceState
from mirror.store.owners import drop_members, has_unseen_members, save_members
from mirror.store.runs import HIDDEN_MEMBERS, Failure
from mirror.sync import listing_state
from mirror.sync.engine import Step
from mirror.sync.run import Run
from mirror.times import to_text
from mirror.upstream.protocol import Page


class MembersStep(Step):
    """Request a page of a workspace's members; `onward` makes the steps that follow from a saved state."""

    def __init__(
        self,
        run: Run,
        workspace: str,
        state: WorkspaceState,
        onward: Callable[[WorkspaceState], list[Step]],
    ) -> None:
        self.run, self.workspace, self.state, self.onward = run, workspace, state, onward

    def ask(self) -> Page[Member]:
        """Request the page."""
        return self.run.upstream.fetch_members(self.state.name or self.workspace, self._members.next)

    def save(self, answer: Page[Member]) -> Sequence[Step]:
        """Write it; after the last page, forget memberships that none of them named."""
        run, workspace = self.run, self.workspace
        members = listing_state.members_advanced(self._members, answer)
        owner = run.states.owner_id(self.state)
        with run.store.transaction() as connection:
            if owner is not None:
                save_members(connection, run.upstream_id, owner, answer.rows, seen_at=run.now_text())
            left = members if members.next is not None else self._ended(members, owner)
            state = msgspec.structs.replace(self.state, members=left)
            if left is None:
                run.failures.answered("members", workspace)
            run.failures.answered(HIDDEN_MEMBERS, workspace)
            run.states.save(workspace, state)
        return self.onward(state)

    def _ended(self, members: Members, owner: int | None) -> Members | None:
        """Return what is left to do after the last page: nothing, another pass, or all of it later."""
        run, since = self.run, members.seen_since
        if owner is None:
            return None
        with run.store.transaction() as connection:
            if listing_state.members_may_be_missed(
                members, unseen=has_unseen_members(connection, owner, since)
            ):
                return Members(seen_since=since, passes=members.passes + 1)
            if members.bad is None:
                drop_members(connection, owner, unseen_since=since)
                return None
        text = f"a row of {self.workspace}'s members was not understood, so none was dropped: {members.bad}"
        run.failures.add(Failure("members", self.workspace, text))
        return Members(seen_since=run.now_text())

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Go on without members; they are requested again before the next full listing."""
        run, state = self.run, msgspec.structs.replace(self.state, members=None)
        is_first = self._members.next is None  # a later page is not refused for want of rights
        # 501 comes from a mirror that holds no members.
        if is_first and isinstance(error, UpstreamRefused) and error.status in (401, 403, 404, 501):
            report_hidden_members(run, self.workspace, error)
        else:
            status = run.failures.isolate(error)
            run.failures.add(Failure("members", self.workspace, str(error), status=status))
            state.members = Members(seen_since=run.now_text())
        run.states.save(self.workspace, state)
        return self.onward(state)

    @property
    def _members(self) -> Members:
        return self.state.members or Members(seen_since=self.run.now_text())


def report_hidden_members(run: Run, workspace: str, error: UpstreamRefused) -> None:
    """Record that the credential may not see the members, until the next full listing.

    The refusal may be a mistake, so those of the last two full listings stay. Others are members no more:
    outdated ones would keep access to private repositories for ever.
    """
    every = timedelta(seconds=run.config.sweep_every)
    run.failures.answered("members", workspace)
    again = to_text(run.now() + every)
    run.failures.add(Failure(HIDDEN_MEMBERS, workspace, str(error), status=error.status, next_try_at=again))
    owner = run.states.owner_id(run.states.read(workspace))
    if owner is not None:
        with run.store.transaction() as connection:
            drop_members(connection, owner, unseen_since=to_text(run.now() - 2 * every))
