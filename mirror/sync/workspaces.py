"""Listing workspaces: who they are, their members, their repositories page by page."""

from collections.abc import Sequence

import msgspec

from mirror.errors import MirrorError, UpstreamBusy, UpstreamRefused, UpstreamShapeError
from mirror.model import Member, Owner, Repository
from mirror.store.owners import drop_members, save_members
from mirror.store.runs import Failure
from mirror.sync import places
from mirror.sync.run import Run, place_of_page
from mirror.sync.steps import Step
from mirror.upstream.base import Page


def listing_steps(run: Run, workspace: str) -> list[Step]:
    """Return the step that a workspace goes on with: the next page of its listing, or who it is."""
    place = run.place(workspace)
    listing = places.begin(
        place,
        run.now(),
        full=run.full,
        sweep_every=run.config.sweep_every,
        can_be_incremental=run.upstream.orders_by_update,
    )
    place = msgspec.structs.replace(place, listing=listing)
    if listing.purpose == "incremental" or listing.next is not None:
        return [ListingStep(run, workspace, place, listing)]
    return [WorkspaceStep(run, workspace, place, listing)]


class WorkspaceStep(Step):
    """Ask who a workspace is, before its full listing."""

    def __init__(self, run: Run, workspace: str, place: places.Place, listing: places.Listing) -> None:
        self.run, self.workspace, self.place, self.listing = run, workspace, place, listing

    def ask(self) -> Owner:
        """Ask for the workspace."""
        return self.run.upstream.fetch_workspace(self.workspace)

    def save(self, answer: Owner) -> Sequence[Step]:
        """Write its owner, then go on to its members and its repositories."""
        run = self.run
        place = msgspec.structs.replace(self.place, owner_uuid=answer.uuid)
        with run.store.transaction():
            run.store.save_owner(run.upstream_id, answer, run_id=run.id, seen_at=run.now_text())
            run.answered("workspace", self.workspace)
            run.save_place(self.workspace, place)
        steps: list[Step] = [ListingStep(run, self.workspace, place, self.listing)]
        if run.upstream.anonymous:
            return steps
        return [*steps, MembersStep(run, self.workspace, answer.uuid, None, run.now_text())]

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Record that it could not be had."""
        return workspace_failed(self.run, self.workspace, self.place, error)


class MembersStep(Step):
    """Ask for a page of a workspace's members."""

    def __init__(
        self, run: Run, workspace: str, owner_uuid: str, next_page: str | None, seen_since: str
    ) -> None:
        self.run, self.workspace, self.owner_uuid = run, workspace, owner_uuid
        self.next_page, self.seen_since = next_page, seen_since

    def ask(self) -> Page[Member]:
        """Ask for the page."""
        return self.run.upstream.fetch_members(self.workspace, self.next_page)

    def save(self, answer: Page[Member]) -> Sequence[Step]:
        """Write it; after the last page, forget memberships that none of them named."""
        run = self.run
        owner = run.owner_id(places.Place(owner_uuid=self.owner_uuid))
        if owner is None:
            return []
        with run.store.transaction() as connection:
            save_members(connection, run.upstream_id, owner, answer.rows, seen_at=run.now_text())
            if answer.place is None:
                drop_members(connection, owner, unseen_since=self.seen_since)
                run.answered("members", self.workspace)
        if answer.place is None:
            return []
        return [MembersStep(run, self.workspace, self.owner_uuid, answer.place, self.seen_since)]

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Go on without members: what a credential may not see is a note, anything else a failure."""
        if isinstance(error, UpstreamRefused) and error.status in (401, 403, 404):
            self.run.note(f"members of {self.workspace} are not mirrored: {error}")
            return []
        self.run.fail(Failure("members", self.workspace, str(error), status=self.run.isolate(error)))
        return []


class ListingStep(Step):
    """Ask for the next page of a workspace's repositories; page and place are one transaction."""

    def __init__(self, run: Run, workspace: str, place: places.Place, listing: places.Listing) -> None:
        self.run, self.workspace, self.place, self.listing = run, workspace, place, listing

    def ask(self) -> Page[Repository]:
        """Ask for the page."""
        return self.run.upstream.fetch_repositories(self.workspace, self.listing.order, self.listing.next)

    def save(self, answer: Page[Repository]) -> Sequence[Step]:
        """Write the page and where the listing goes on, together."""
        run = self.run
        if answer.place is not None and answer.place == self.listing.next:
            raise UpstreamShapeError(f"{self.workspace}: the listing leads back to its own page")
        if self.listing.purpose == "full":
            run.kind = "full"
        listing = places.advanced(self.listing, answer)
        with run.store.transaction():
            self._save_rows(answer)
            place = msgspec.structs.replace(self.place, listing=listing)
            if place.owner_uuid is None and answer.rows:
                place.owner_uuid = answer.rows[0].owner.uuid
            place = self._closed(place, listing) if self._at_end(place, listing) else place
            run.save_place(self.workspace, place)
        run.report.step()
        return [] if place.listing is None else [ListingStep(run, self.workspace, place, place.listing)]

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Record that the listing stopped here; its place is kept."""
        return workspace_failed(self.run, self.workspace, self.place, error)

    def _save_rows(self, page: Page[Repository]) -> None:
        run = self.run
        saved = run.store.save_page(
            run.upstream_id,
            page.rows,
            run_id=run.id,
            seen_at=run.now_text(),
            with_refs=run.with_refs,
            first_listing=self.place.cursor is None,
        )
        run.counts.repositories_new += len(saved.new)
        run.counts.repositories_changed += len(saved.changed)
        run.answered("workspace", self.workspace)
        for bad in page.bad:
            run.fail(Failure("row", f"{self.workspace}: {bad.what}", bad.error))
        if page.hole:
            run.fail(
                Failure(
                    "page",
                    f"{self.workspace}: page {self.listing.pages + 1}, {self.listing.order}",
                    "the upstream cannot give this page of the listing; it was stepped over",
                    place=place_of_page(self.workspace, self.listing),
                )
            )

    def _at_end(self, place: places.Place, listing: places.Listing) -> bool:
        return places.reached_end(listing, place, self.run.config.overlap)

    def _closed(self, place: places.Place, listing: places.Listing) -> places.Place:
        """Return the place after the last page: done, or once more from the first page, or now in full."""
        run, now = self.run, self.run.now()
        if places.rows_left_the_listing(listing) and listing.passes < places.PASSES:
            return msgspec.structs.replace(place, listing=places.another_pass(listing))
        owner = run.owner_id(place)
        alive = run.alive(owner)
        if places.wants_sweep(place, listing, alive, now, run.config.sweep_every):
            done = places.finished(place, listing, staying=alive, now=now)
            full = places.begin(done, now, full=True, sweep_every=0, can_be_incremental=False)
            return msgspec.structs.replace(done, listing=full)
        staying = alive
        if listing.purpose == "full" and not listing.holes and not listing.bad:
            staying -= len(absent(run, owner, listing.seen_since))
            _forget_rows(run, self.workspace)
        return places.finished(place, listing, staying=staying, now=now)


def absent(run: Run, owner_id: int | None, since: str) -> list[tuple[int, str, str]]:
    """List id, uuid and full name of an owner's repositories that were last seen before a moment."""
    return run.store.rows(
        """SELECT id, uuid, full_name FROM repositories
           WHERE owner_id = ? AND deleted_at IS NULL AND last_seen_at < ? ORDER BY id""",
        (owner_id, since),
    )


def _forget_rows(run: Run, workspace: str) -> None:
    """Drop what was recorded of bad rows and missing pages: a whole listing has been read without any."""
    with run.store.transaction() as connection:
        connection.execute(
            """DELETE FROM sync_failures WHERE upstream_id = ? AND kind IN ('row', 'page')
               AND substr(subject, 1, length(?)) = ?""",
            (run.upstream_id, f"{workspace}: ", f"{workspace}: "),
        )


def workspace_failed(run: Run, workspace: str, place: places.Place, error: MirrorError) -> Sequence[Step]:
    """Record that a workspace could not be listed; raise what concerns the whole upstream."""
    if isinstance(error, UpstreamBusy) and error.status is None:
        raise error
    status = run.isolate(error)
    run.fail(Failure("workspace", workspace, str(error), status=status))
    if status == 404 and place.swept_at and run.confirm_absence:
        place = msgspec.structs.replace(place, listing=None, absent_since=run.now_text(), gone=True)
        run.save_place(workspace, place)
    return []
