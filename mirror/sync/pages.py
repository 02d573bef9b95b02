"""Pages of listings: which are to come, saving their rows, and noting what is not understood or skipped."""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta

from mirror.errors import MirrorError, UpstreamShapeError
from mirror.model import Repository
from mirror.store.crawl_state import ListingProgress, WorkspaceState
from mirror.store.repositories import Look, SavedRepositories
from mirror.store.runs import Failure, Failures
from mirror.sync import listing_state
from mirror.sync.engine import Step
from mirror.sync.progress import PAGE
from mirror.sync.run import Run
from mirror.times import from_text, to_text
from mirror.upstream.protocol import BadRow, Page

NEWEST = "newest updates"
"""The name of a page by update time in a failure: such pages have no lasting number."""


def next_listing(run: Run, state: WorkspaceState) -> ListingProgress:
    """Return the listing that a workspace's state has begun, or else the one to begin now."""
    return listing_state.begin(
        state,
        run.now(),
        full=run.full,
        sweep_every=run.config.sweep_every,
        can_be_incremental=run.upstream.orders_by_update,
    )


def begin_listings(run: Run, workspaces: Collection[str], *, refs: int | None) -> None:
    """Begin the phase of listings.

    `refs` is how many repositories have refs to be read by now; None in a run that reads none.
    """
    left, done, unlisted = dict[str, int](), 0, set[str]()
    for name in workspaces:
        state = run.states.read(name)
        if state.listing is None and state.round == run.round:  # an earlier run of this round has listed it
            done += 1
            continue
        listing = next_listing(run, state)
        done += listing.pages
        size = run.states.alive(state) if listing.last_size is None else listing.last_size
        left[name] = pages_left(listing, size)
        if not state.whole:
            unlisted.add(name)
    run.progress.begin_listings(left, done=done, unlisted=frozenset(unlisted), refs=refs)


def pages_left(listing: ListingProgress, size: int) -> int:
    """Return how many pages of a listing are still to come, if it has so many rows."""
    # An incremental listing nearly always ends on its first page.
    return 1 if listing.purpose == "incremental" else max(1, -(-size // PAGE) - listing.pages)


def save_page(
    run: Run,
    workspace: str,
    rows: Sequence[Repository],
    *,
    first_listing: bool,
    since: str,
    swept_at: str | None = None,
) -> SavedRepositories:
    """Write a page of a workspace's listing as this run saw it; what cannot be written is a failure.

    `since` is when the listing began. For `swept_at` see `fail_rows`.
    """
    # A repository may have come from a workspace that was listed earlier in this round.
    saved = _save(run, rows, first_listing=first_listing, listed_since=min(since, run.round))
    bad = [BadRow(what=row.full_name, error=why) for row, why in saved.refused]
    refused = [row for row, _ in saved.refused]
    _answered_rows(run, workspace, [row for row in rows if row not in refused])
    fail_rows(run, workspace, bad, swept_at=swept_at)
    return saved


def save_row(run: Run, row: Repository) -> SavedRepositories:
    """Write a repository that was requested directly; raises UpstreamShapeError if it cannot be written."""
    with run.store.transaction():
        saved = _save(run, [row], first_listing=False, listed_since=None)
        for refused, why in saved.refused:
            raise UpstreamShapeError(f"{refused.full_name}: {why}")
    return saved


def _save(
    run: Run, rows: Sequence[Repository], *, first_listing: bool, listed_since: str | None
) -> SavedRepositories:
    """Write repositories with their owners, and record what changed."""
    look = Look(run.now_text(), run.id, run.with_refs, first_listing, listed_since)
    return run.store.save_page(run.upstream_id, rows, look)


def fail_rows(run: Run, workspace: str, bad: Sequence[BadRow], *, swept_at: str | None) -> None:
    """Record rows of a listing that were not understood; the next full listing reads them again."""
    last = from_text(swept_at) if swept_at else run.now()
    due = to_text(last + timedelta(seconds=run.config.sweep_every))
    for row in bad:
        run.failures.add(Failure("row", f"{workspace}: {row.what}", row.error, next_try_at=due))


def _answered_rows(run: Run, workspace: str, rows: Sequence[Repository]) -> None:
    """Forget that rows were not understood before."""
    failed = run.failures.subjects("row")  # nearly always empty, which saves a look for each row
    for row in rows if failed else ():
        for subject in (f"{workspace}: {row.full_name}", f"{workspace}: {row.uuid}"):
            if subject in failed:
                run.failures.answered("row", subject)


def note_hole(run: Run, workspace: str, state: WorkspaceState, listing: ListingProgress) -> None:
    """Record a page that was skipped."""
    # In the order of creation it can be requested again by its link. In the order of updates its rows move to
    # other pages, so the cursor stays behind instead (`listing_state.finished`).
    full = listing.purpose == "full"
    page = f"page {listing.pages + 1}" if full else NEWEST
    run.failures.add(
        Failure(
            "page",
            f"{workspace}: {page}",
            "the upstream cannot give this page of the listing; it was stepped over",
            place=_place_of(workspace, state, listing) if full else None,
        )
    )


def _place_of(workspace: str, state: WorkspaceState, listing: ListingProgress) -> str:
    """Record which page of which listing could not be read, so that it is requested again."""
    where = {"workspace": state.name or workspace, "order": listing.order, "next": listing.next}
    return json.dumps(where | {"first": not state.whole})


def hole_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each hole whose next try is due."""
    with run.store.reading() as connection:
        pages = Failures(connection, run.upstream_id).due_pages(run.now_text())
    for subject, place in pages:
        yield HoleStep(run, subject, place)


class HoleStep(Step):
    """Request a page again that was skipped because the upstream could not give it."""

    def __init__(self, run: Run, subject: str, place: str) -> None:
        self.run, self.subject, self.place = run, subject, place
        self.where = json.loads(place)

    def ask(self) -> Page[Repository]:
        """Request the page."""
        where = self.where
        return self.run.upstream.fetch_repositories(where["workspace"], where["order"], where["next"])

    def save(self, answer: Page[Repository]) -> Sequence[Step]:
        """Write its rows and drop the failure, unless the page is skipped again."""
        run = self.run
        if answer.skipped:
            run.failures.add(Failure("page", self.subject, "still missing", place=self.place))
            return []
        with run.store.transaction():
            saved = save_page(
                run,
                self.where["workspace"],
                answer.rows,
                first_listing=self.where.get("first", False),
                since=run.round,
            )
            run.failures.answered("page", self.subject)
            fail_rows(run, self.subject.partition(": ")[0], answer.bad, swept_at=None)
        run.counts.repositories_new += len(saved.new)
        run.counts.repositories_changed += len(saved.changed)
        return []

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Record one more attempt."""
        status = self.run.failures.isolate(error)
        self.run.failures.add(Failure("page", self.subject, str(error), status=status, place=self.place))
        return []
