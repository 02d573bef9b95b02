"""Listing workspaces: who they are, their members, their repositories page by page.

For each workspace the requests form one chain: itself, its members, its repositories. The place says
which link of the chain comes next, so that a run that ends anywhere goes on there.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta

import msgspec

from mirror.errors import MirrorError, UpstreamRefused, UpstreamShapeError
from mirror.model import Member, Owner, Repository
from mirror.store.identities import is_named, known_by_uuid
from mirror.store.owners import drop_members, has_unseen_members, save_members
from mirror.store.runs import HIDDEN_MEMBERS, Failure
from mirror.sync import listing_state as places
from mirror.sync.engine import Step
from mirror.sync.preflight import formerly_listed
from mirror.sync.run import Run, place_of_page
from mirror.times import to_text
from mirror.upstream.protocol import Page


def listing_steps(run: Run, workspace: str, names: Collection[str]) -> list[Step]:
    """Return the step that a workspace goes on with; `names` are all that are listed in this run."""
    place = run.place(workspace)
    if place.listing is None and place.round == run.round:
        return []
    listing = places.begin(
        place,
        run.now(),
        full=run.full,
        sweep_every=run.config.sweep_every,
        can_be_incremental=run.upstream.orders_by_update,
    )
    begins = listing is not place.listing
    place = msgspec.structs.replace(place, listing=listing)
    if begins and listing.purpose == "full":
        return [WorkspaceStep(run, workspace, place, names)]
    return _onward(run, workspace, place, names)


def _onward(run: Run, workspace: str, place: places.Place, names: Collection[str]) -> list[Step]:
    """Return the next link of the chain, if there is one."""
    if place.members is not None and not run.waits("members", workspace):
        return [MembersStep(run, workspace, place, names)]
    return [ListingStep(run, workspace, place, names)] if place.listing is not None else []


class _WorkspaceStep(Step):
    """What the steps of a workspace have in common: its place, and what to do when it cannot be had."""

    def __init__(self, run: Run, workspace: str, place: places.Place, names: Collection[str]) -> None:
        self.run, self.workspace, self.place, self.names = run, workspace, place, names

    @property
    def name(self) -> str:
        """What the workspace is called today."""
        return self.place.name or self.workspace

    def onward(self, place: places.Place) -> list[Step]:
        """Return the steps that come next, from a place that has just been saved."""
        return _onward(self.run, self.workspace, place, self.names)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Record that the crawl of the workspace stopped here; its place is kept."""
        run, place = self.run, self.place
        status = run.isolate(error)
        if status != 404 or place.owner_uuid is None:
            run.fail(Failure("workspace", self.workspace, str(error), status=status))
            return []
        if run.cursor(run.stream(self.workspace)) is None:
            return []  # taken over by the step of the name that it has now
        if place.owner_uuid.startswith("{") or isinstance(self, ListingStep):
            return [RenamedStep(run, self.workspace, place, self.names, error)]
        return self.missed(error)

    def report_hidden_members(self, error: UpstreamRefused) -> None:
        """Record that the credential may not see the members, until the next full listing."""
        run = self.run
        run.answered("members", self.workspace)
        again = to_text(run.now() + timedelta(seconds=run.config.sweep_every))
        run.fail(Failure(HIDDEN_MEMBERS, self.workspace, str(error), status=error.status, next_try_at=again))

    def missed(self, error: MirrorError) -> Sequence[Step]:
        """Take a workspace that nothing answers for as gone if the operator says so, else as failed."""
        run = self.run
        if run.confirm_absence:
            gone = msgspec.structs.replace(self.place, listing=None, absent_since=run.now_text(), gone=True)
            run.save_place(self.workspace, gone)
            return []
        text = f"{error}; its rows are kept; if it is gone: mirror sync {run.config.name} --confirm-absence"
        if places.is_identity(self.workspace):
            text = f"the workspace that was called {self._was_called}: {text}"
        run.fail(Failure("workspace", self.workspace, text, status=404))
        return []

    @property
    def _was_called(self) -> str:
        run = self.run
        found = run.store.row("SELECT username FROM users WHERE id = ?", (run.owner_id(self.place),))
        return str(found[0]) if found else "otherwise"


class WorkspaceStep(_WorkspaceStep):
    """Ask who a workspace is, before its full listing."""

    def ask(self) -> Owner:
        """Ask for the workspace."""
        return self.run.upstream.fetch_workspace(self.name)

    def save(self, answer: Owner) -> Sequence[Step]:
        """Write its owner, then go on to its members and its repositories."""
        run, workspace = self.run, self.workspace
        if places.is_identity(workspace) and (answer.username or "").lower() in self._lower_names:
            run.forget_workspace(workspace)  # listed by the name that it has now
            return []
        self._must_have_uuid(answer)
        with run.store.transaction():
            self._keep_displaced(answer)
            run.store.save_owner(run.upstream_id, answer, run_id=run.id, seen_at=run.now_text())
            place = msgspec.structs.replace(
                places.found(self._taken_over(answer)),
                owner_uuid=answer.uuid,
                name=None if (answer.username or "").lower() == workspace.lower() else answer.username,
                listing=self.place.listing,
                members=None if run.upstream.anonymous else places.Members(seen_since=run.now_text()),
            )
            run.hear()  # a failure of the workspace is over when its listing answers, not before
            run.save_place(workspace, place)
        return self.onward(place)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Go on without members where the credential may not see the workspace; its rows name it as well."""
        if not isinstance(error, UpstreamRefused) or error.status not in (401, 403):
            return super().failed(error)
        self.run.hear()
        self.report_hidden_members(error)
        place = msgspec.structs.replace(self.place, members=None)
        self.run.save_place(self.workspace, place)
        return self.onward(place)

    @property
    def _lower_names(self) -> set[str]:
        return {name.lower() for name in self.names}

    def _must_have_uuid(self, answer: Owner) -> None:
        """Raise UpstreamShapeError for an answer without uuid of a workspace that is known by one."""
        run, name = self.run, answer.username or self.name
        if is_named(answer.uuid) and known_by_uuid(run.store.connection, run.upstream_id, [name]):
            raise UpstreamShapeError(f"the workspace {name} has a uuid, and its answer tells none")

    def _keep_displaced(self, answer: Owner) -> None:
        """Keep the place of the workspace that had the name before, under its identity, if it has rows."""
        run, before = self.run, self.place.owner_uuid
        if before is None or before == answer.uuid or run.alive(run.owner_id(self.place)) == 0:
            return
        run.save_place(before, places.displaced(self.place))
        run.note(f"another workspace is called {self.name} now; the one that was is asked for as {before}")

    def _taken_over(self, answer: Owner) -> places.Place:
        """Return the place to go on from: that of the workspace's former name, if it had one here."""
        run = self.run
        if self.place.owner_uuid == answer.uuid and self.place.cursor is not None:
            return self.place
        for name in formerly_listed(run, (name for name in self.names if not places.is_identity(name))):
            place = run.place(name)
            if place.owner_uuid == answer.uuid:
                run.note(f"the workspace {name} is called {answer.username} now")
                run.forget_workspace(name)
                return place
        return self.place if self.place.owner_uuid in (None, answer.uuid) else places.Place()


class RenamedStep(WorkspaceStep):
    """Ask whether a workspace is still there, and under which name, after a 404 (`refused`).

    It is asked for by its uuid. A Data Center gives projects by their key alone, so it is asked by that.
    """

    def __init__(
        self,
        run: Run,
        workspace: str,
        place: places.Place,
        names: Collection[str],
        refused: MirrorError,
    ) -> None:
        super().__init__(run, workspace, place, names)
        self.refused = refused

    def ask(self) -> Owner:
        """Ask by the uuid, where there is one."""
        identity = str(self.place.owner_uuid)
        return self.run.upstream.fetch_workspace(identity if identity.startswith("{") else self.name)

    def save(self, answer: Owner) -> Sequence[Step]:
        """Read everything under the new name; with the old name, the 404 was about the listing alone."""
        run, name = self.run, str(answer.username)
        if name.lower() == self.name.lower():
            run.hear()
            text = f"{self.refused}; the workspace itself answers, so what it lists is missing here"
            run.fail(Failure("workspace", self.workspace, text, status=404))
            return []
        if name.lower() in self._lower_names - {self.workspace.lower()}:
            run.forget_workspace(self.workspace)  # listed under its new name already
            return []
        run.note(f"the workspace {self.workspace} is called {name} now; change `workspaces` accordingly")
        now = run.now_text()
        self.place.listing = places.Listing(purpose="full", began=now, seen_since=now)
        return super().save(answer)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Without an answer to name and identity, the workspace is no more."""
        status = self.run.isolate(error)
        if status == 404:
            return self.missed(error)
        self.run.fail(Failure("workspace", self.workspace, str(error), status=status))
        return []


class MembersStep(_WorkspaceStep):
    """Ask for a page of a workspace's members."""

    def ask(self) -> Page[Member]:
        """Ask for the page."""
        return self.run.upstream.fetch_members(self.name, self._members.next)

    def save(self, answer: Page[Member]) -> Sequence[Step]:
        """Write it; after the last page, forget memberships that none of them named."""
        run, workspace = self.run, self.workspace
        members = places.members_advanced(self._members, answer)
        owner = run.owner_id(self.place)
        with run.store.transaction() as connection:
            if owner is not None:
                save_members(connection, run.upstream_id, owner, answer.rows, seen_at=run.now_text())
            left = members if members.next is not None else self._ended(members, owner)
            place = msgspec.structs.replace(self.place, members=left)
            if left is None:
                run.answered("members", workspace)
            run.answered(HIDDEN_MEMBERS, workspace)
            run.save_place(workspace, place)
        return self.onward(place)

    def _ended(self, members: places.Members, owner: int | None) -> places.Members | None:
        """Return what is left to do after the last page: nothing, another pass, or all of it later."""
        run, since = self.run, members.seen_since
        if owner is None:
            return None
        with run.store.transaction() as connection:
            if places.members_may_be_missed(members, unseen=has_unseen_members(connection, owner, since)):
                return places.Members(seen_since=since, passes=members.passes + 1)
            if members.bad is None:
                drop_members(connection, owner, unseen_since=since)
                return None
        text = f"a row of {self.workspace}'s members was not understood, so none was dropped: {members.bad}"
        run.fail(Failure("members", self.workspace, text))
        return places.Members(seen_since=run.now_text())

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Go on without members: those that the credential may not see are reported, not missing.

        They are asked for again before the next full listing. Anything else is a failure.

        A refusal that comes after the first page is no matter of rights.
        """
        run, place = self.run, msgspec.structs.replace(self.place, members=None)
        is_first = self._members.next is None
        if is_first and isinstance(error, UpstreamRefused) and error.status in (401, 403, 404):
            self.report_hidden_members(error)
        else:
            run.fail(Failure("members", self.workspace, str(error), status=run.isolate(error)))
            place.members = places.Members(seen_since=run.now_text())
        run.save_place(self.workspace, place)
        return self.onward(place)

    @property
    def _members(self) -> places.Members:
        return self.place.members or places.Members(seen_since=self.run.now_text())


class ListingStep(_WorkspaceStep):
    """Ask for the next page of a workspace's repositories; page and place are one transaction."""

    @property
    def listing(self) -> places.Listing:
        """The listing that this is a page of."""
        assert self.place.listing is not None  # noqa: S101 - `_onward` makes no such step without
        return self.place.listing

    def ask(self) -> Page[Repository]:
        """Ask for the page."""
        return self.run.upstream.fetch_repositories(self.name, self.listing.order, self.listing.next)

    def save(self, answer: Page[Repository]) -> Sequence[Step]:
        """Write the page and where the listing goes on, together."""
        run = self.run
        if self._is_of_another(answer):
            # Before anything is concluded it is asked whose name this is now, as before any full listing.
            anew = msgspec.structs.replace(self.place, listing=None, swept_at=None, round=None)
            run.save_place(self.workspace, anew)
            return listing_steps(run, self.workspace, self.names)
        listing = places.advanced(self.listing, answer)
        if listing.purpose == "full" and run.kind == "incremental":  # a look at some workspaces stays one
            run.kind = "full"
        with run.store.transaction():
            listing.bad += self._save_rows(answer)
            place = msgspec.structs.replace(places.found(self.place), listing=listing)
            if answer.rows and run.owner_id(place) is None:
                owners = [row.owner.uuid for row in answer.rows]
                place.owner_uuid = next((uuid for uuid in owners if not is_named(uuid)), owners[0])
            if places.reached_end(listing, place, run.config.overlap):
                place = self._closed(place, listing)
                place.round = run.round
            run.save_place(self.workspace, place)
        run.report.step()
        return self.onward(place)

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Begin anew where a link no longer leads anywhere; else record that the listing stopped here."""
        listing = self.listing
        refused = isinstance(error, UpstreamRefused) and error.status in (400, 404)
        if refused and listing.next is not None and listing.passes < places.PASSES:
            place = msgspec.structs.replace(self.place, listing=places.another_pass(listing, 0))
            self.run.save_place(self.workspace, place)
            return self.onward(place)
        return super().failed(error)

    def _is_of_another(self, page: Page[Repository]) -> bool:
        """Tell whether the newest updates are another owner's, though the mirror holds rows of this one."""
        run, place = self.run, self.place
        others = {row.owner.uuid for row in page.rows}
        if self.listing.purpose == "full" or not others or place.owner_uuid in others:
            return False
        return run.alive(run.owner_id(place)) > 0

    def _save_rows(self, page: Page[Repository]) -> int:
        """Write the rows; return how many could not be told from others."""
        run = self.run
        swept_at = None if self.listing.purpose == "full" else self.place.swept_at
        first = not self.place.whole
        saved = run.save_page(self.workspace, page.rows, first_listing=first, swept_at=swept_at)
        run.counts.repositories_new += len(saved.new)
        run.counts.repositories_changed += len(saved.changed)
        run.answered("workspace", self.workspace)
        run.fail_rows(self.workspace, page.bad, swept_at=swept_at)
        if page.skipped:
            self._note_hole()
        return len(saved.refused)

    def _note_hole(self) -> None:
        """Remember a page that was stepped over.

        In the order of creation it is asked for again by its link. In the order of updates its rows move
        on, and the cursor stays behind in its stead (`places.finished`).
        """
        full = self.listing.purpose == "full"
        page = f"page {self.listing.pages + 1}" if full else NEWEST
        self.run.fail(
            Failure(
                "page",
                f"{self.workspace}: {page}",
                "the upstream cannot give this page of the listing; it was stepped over",
                place=place_of_page(self.name, self.place, self.listing) if full else None,
            )
        )

    def _closed(self, place: places.Place, listing: places.Listing) -> places.Place:
        """Return the place after the last page: done, or once more from the first page, or now in full."""
        run, now = self.run, self.run.now()
        owner = run.owner_id(place)
        alive = run.alive(owner)
        seen = alive - count_absent(run, owner, listing.seen_since)
        doubt = places.may_have_missed(place, listing, seen)
        if doubt and listing.passes < places.PASSES:
            return msgspec.structs.replace(place, listing=places.another_pass(listing, seen))
        if listing.purpose == "full":
            self._forget_bad(listing.seen_since)
            return places.finished(place, listing, staying=seen, doubt=doubt, now=now)
        if not listing.holes:
            run.answered("page", f"{self.workspace}: {NEWEST}")
        done = places.finished(place, listing, staying=alive, doubt=doubt, now=now)
        known = alive - (count_absent(run, owner, place.absent_since) if place.absent_since else 0)
        if places.wants_sweep(done, listing, known, now, run.config.sweep_every):
            began = run.now_text()
            done.listing = places.Listing(purpose="full", began=began, seen_since=began)
        return done

    def _forget_bad(self, since: str) -> None:
        """Drop what was recorded of bad rows and missing pages before: a whole listing did not meet them."""
        prefix = f"{self.workspace}: "
        with self.run.store.transaction() as connection:
            connection.execute(
                """DELETE FROM sync_failures WHERE upstream_id = ? AND kind IN ('row', 'page')
                   AND substr(subject, 1, ?) = ? AND last_at < ?""",
                (self.run.upstream_id, len(prefix), prefix, since),
            )


NEWEST = "newest updates"

_ABSENT = "FROM repositories WHERE owner_id = ? AND deleted_at IS NULL AND last_seen_at < ?"


def absent(run: Run, owner_id: int | None, since: str) -> list[tuple[int, str, str]]:
    """List id, uuid and full name of an owner's repositories that were last seen before a moment."""
    return run.store.rows(f"SELECT id, uuid, full_name {_ABSENT} ORDER BY id", (owner_id, since))


def count_absent(run: Run, owner_id: int | None, since: str) -> int:
    """Count them."""
    return int(run.store.row(f"SELECT count(*) {_ABSENT}", (owner_id, since))[0])
