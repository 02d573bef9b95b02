"""The rules of a listing: what comes next, and what it proves once it is at its end. Pure functions.

There are two kinds. A *full* listing reads every repository, oldest first: updates do not move rows in that
order, and new rows come last. An *incremental* one reads the newest updates first and ends at the first row
older than the cursor less the overlap; its total tells, at no extra request, whether anything is missing.

The cursor is the moment the last complete listing began, by the upstream's clock. Whatever changes while a
listing is read is newer than that, so the next incremental listing meets it. See docs/crawling.md.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec

from mirror.errors import UpstreamShapeError
from mirror.model import Member, Repository
from mirror.store.crawl_state import (
    ListingProgress,
    Members,
    Purpose,
    RefsListing,
    WorkspaceState,
)
from mirror.sync.landmarks import next_landmark
from mirror.times import from_text, to_text
from mirror.upstream.protocol import Page

STALE_LINK = timedelta(days=1)
"""A listing whose last page is older than this starts over: its link may have expired."""

PASSES = 3
"""How often a listing is read at most. Rows that come or go meanwhile call for another pass."""

SMALL = 1000
"""A workspace of so many repositories costs ten requests to list: cheap enough whenever a count differs."""

SKEW = timedelta(minutes=5)
"""How far the upstream's clock may be ahead of ours without harm."""


def as_of(state: WorkspaceState, now: datetime, overlap: float) -> WorkspaceState:
    """Return a state as it counts now: times in the future, which a wrong clock wrote, count as never.

    The cursor is by the upstream's clock. It may be ahead by half the overlap (seconds), or by SKEW if that
    is more.
    """
    ours = to_text(now)
    theirs = to_text(now + max(SKEW, timedelta(seconds=overlap / 2)))
    listing, members = state.listing, state.members
    if listing is not None and (listing.seen_since > ours or listing.began > theirs):
        listing = None
    if members is not None and members.seen_since > ours:
        members = Members(seen_since=ours)
    return msgspec.structs.replace(
        state,
        listing=listing,
        members=members,
        cursor=_not_after(state.cursor, theirs),
        swept_at=_not_after(state.swept_at, ours),
        absent_since=_not_after(state.absent_since, ours),
        round=_not_after(state.round, ours),
        moved_at=_not_after(state.moved_at, ours),
    )


def _not_after(moment: str | None, limit: str) -> str | None:
    return None if moment is not None and moment > limit else moment


def is_identity(workspace: str) -> bool:
    """Tell whether a workspace is kept under its identity: `{...}` or `id:...`, which no name looks like."""
    return workspace.startswith("{") or ":" in workspace


def displaced(state: WorkspaceState) -> WorkspaceState:
    """Return the state of a workspace whose name another one has taken: it is requested by its identity."""
    return msgspec.structs.replace(
        state, name=state.owner_uuid, listing=None, members=None, swept_at=None, round=None
    )


def found(state: WorkspaceState) -> WorkspaceState:
    """Return the state of a workspace that has answered: it is not gone, even if that was confirmed before.

    What was concluded from its absence is void, so its repositories are to be counted again.
    """
    if not state.gone:
        return state
    return msgspec.structs.replace(state, gone=False, absent_since=None, uncertain=True)


def exists_unlisted(state: WorkspaceState, row_id: int) -> WorkspaceState:
    """Return the state after a repository that a full listing left out was found to exist.

    Totals are expected to leave it out from now on. Unless the full listing before left it out too, that may
    be wrong, and `uncertain` has the next incremental listing followed by a full one.
    """
    return msgspec.structs.replace(
        state,
        count_offset=state.count_offset - 1,
        uncertain=state.uncertain or row_id not in state.unlisted_before,
        unlisted=(*state.unlisted, row_id),
    )


def begin(
    state: WorkspaceState, now: datetime, *, full: bool, sweep_every: float, can_be_incremental: bool
) -> ListingProgress:
    """Return the listing to continue: the one under way, unless its link is old, else a new one.

    With `full`, the rest of an incremental one is not enough. `sweep_every` is the number of seconds from one
    full listing to the next; `can_be_incremental` says whether the upstream sorts by update.
    """
    under_way = state.listing
    if (
        under_way is not None
        and (under_way.purpose == "full" or not full)
        and state.moved_at
        and now - from_text(state.moved_at) < STALE_LINK
    ):
        return under_way
    due = (
        state.cursor is None
        or state.swept_at is None
        or now - from_text(state.swept_at) >= timedelta(seconds=sweep_every)
    )
    purpose: Purpose = "full" if full or due or not can_be_incremental else "incremental"
    return ListingProgress(purpose=purpose, began=to_text(now), seen_since=to_text(now))


def refuse_cut_off(page: Page[Any], *, pages: int, rows: int = 0) -> None:
    """Raise UpstreamShapeError for a full page without `next` whose total promises more than so many pages.

    `rows` counts those of the listing so far: earlier pages may have been longer. Other totals that are not
    reached prove nothing, since totals may count what cannot be seen.
    """
    held = max(pages * page.full_length, rows)
    if page.full_length and page.next is None and page.size is not None and held < page.size:
        raise UpstreamShapeError(f"the listing reports a total of {page.size:,} and ends after {held:,}")


def members_advanced(members: Members, page: Page[Member]) -> Members:
    """Return the listing after a page of members; raises UpstreamShapeError as `next_landmark` does."""
    pages = members.pages + 1
    refuse_cut_off(page, pages=pages)
    bad = next((f"{each.what}: {each.error}" for each in page.bad), None)
    return msgspec.structs.replace(
        members,
        next=page.next,
        landmark=next_landmark(page, asked=members.next, landmark=members.landmark, pages=pages),
        pages=pages,
        rows=members.rows + len(page.rows) + len(page.bad),
        reported=max(members.reported, page.size or 0),
        bad=members.bad or bad,
    )


def members_may_be_missed(members: Members, *, unseen: bool) -> bool:
    """Return whether a listing of members that is at its end should be read again.

    A member who leaves pulls others onto a page that was read already: rows are missing, or known members
    are `unseen`. The second pass decides, since totals may count what is not listed.
    """
    if members.passes > 1 or members.bad:
        return False
    return members.rows < members.reported or (unseen and members.pages > 1)


def refs_advanced(listing: RefsListing, page: Page[Any], asked_at: str) -> RefsListing:
    """Return the listing after a page of refs; raises UpstreamShapeError for links in a loop."""
    pages = listing.pages + 1
    return RefsListing(
        next=page.next,
        landmark=next_landmark(page, asked=listing.next, landmark=listing.landmark, pages=pages),
        pages=pages,
        rows=listing.rows + len(page.rows) + len(page.bad),
        bad=listing.bad + len(page.bad),
        passes=listing.passes,
        since=listing.since if listing.pages else asked_at,
        stale=bool(page.doubt) or (listing.stale and listing.pages > 0),
    )


def advanced(listing: ListingProgress, page: Page[Repository]) -> ListingProgress:
    """Return the listing after a page of repositories; raises UpstreamShapeError for links in a loop."""
    pages = listing.pages + 1
    landmark = next_landmark(page, asked=listing.next, landmark=listing.landmark, pages=pages)
    first = listing.pages == 0
    # HTTP dates have no fractions. Another mirror may learn later of updates from before it saw its rows.
    reported = to_text(page.date - timedelta(seconds=1 + page.age))
    pass_began = to_text(page.date) if first else listing.pass_began
    updates = [row.updated_at for row in page.rows if row.updated_at]
    chain = [*([listing.oldest_update] if listing.oldest_update else []), *updates]
    return msgspec.structs.replace(
        listing,
        began=min(listing.began, reported) if first and listing.passes == 1 else listing.began,
        pass_began=pass_began,
        next=page.next,
        landmark=landmark,
        first_size=page.size if listing.first_size is None else listing.first_size,
        last_size=page.size if page.size is not None else listing.last_size,
        shrank=listing.shrank
        or (page.size is not None and listing.last_size is not None and page.size < listing.last_size),
        pages=pages,
        rows=listing.rows + len(page.rows),
        born=listing.born + sum((row.created_at or "") >= pass_began for row in page.rows),
        holes=listing.holes + page.skipped,
        bad=listing.bad + len(page.bad),
        longest=max(listing.longest, len(page.rows)),
        ended_early=page.next is None
        and (page.full_length > 0 or not (page.rows or page.bad or page.skipped)),
        oldest_update=updates[-1] if updates else listing.oldest_update,
        ordered=listing.ordered and all(a >= b for a, b in pairwise(chain)),
    )


def reached_end(listing: ListingProgress, state: WorkspaceState, overlap: float) -> bool:
    """Return whether nothing is left to read: no next page, or the rest is older than cursor less overlap.

    A listing whose rows do not come in the requested order is read to its last page.
    """
    if listing.next is None:
        return True
    if listing.purpose == "full" or not listing.ordered or not state.cursor:
        return False
    horizon = to_text(from_text(state.cursor) - timedelta(seconds=overlap))
    return listing.oldest_update is not None and listing.oldest_update < horizon


def may_have_missed(state: WorkspaceState, listing: ListingProgress, seen: int) -> bool:
    """Return whether a listing that is at its end should be read again from its first page.

    `seen` is how many of the workspace's repositories have been seen since the listing began.
    """
    if not state.whole and listing.passes == 1 and listing.last_size is None and listing.rows == 0:
        return True  # the first listing had nothing, not even a total: the second pass decides
    if came_twice(listing, seen):
        return True
    return rows_left_the_listing(listing) or shortfall(listing, seen) > max(state.count_offset, listing.short)


def came_twice(listing: ListingProgress, seen: int) -> bool:
    """Return whether a full listing that is at its end named some rows twice, in the place of others.

    It has as many rows as its total, and they are fewer repositories: rows that cannot be seen do not come.
    The upstream's order differs from one page to the next.
    """
    if listing.purpose != "full" or listing.last_size is None or listing.pages < 2:
        return False
    return listing.rows + listing.bad >= listing.last_size and shortfall(listing, seen) > 0


def rows_left_the_listing(listing: ListingProgress) -> bool:
    """Return whether rows left while the pages were read, so that others may have slipped between two pages.

    When a row leaves a page that was read already, the following rows move up, and the first row of the next
    page moves onto the page before. In the order of creation, the size must have grown by exactly the rows
    that were created meanwhile. In the order of updates, a new row pushes all others back by one and makes up
    for one that left: there, only a size that shrank between two pages shows a loss.
    """
    if listing.first_size is None or listing.last_size is None or listing.pages < 2:
        return False
    if listing.purpose == "full" and listing.last_size < listing.first_size + listing.born:
        return True
    return listing.shrank


def shortfall(listing: ListingProgress, seen: int) -> int:
    """Return by how many rows a listing that was read to its last page is below its own total.

    0 if it is unknown: no total, skipped pages, or an incremental listing that was not read to its end.
    """
    if listing.last_size is None or listing.holes or listing.next is not None:
        return 0
    named = seen if listing.purpose == "full" else listing.rows
    return max(0, listing.last_size - listing.bad - named)


def ends_too_early(state: WorkspaceState, listing: ListingProgress, seen: int) -> bool:
    """Return whether an empty page, or a full one, ended a listing although its total promises more pages.

    If a total counts rows that cannot be seen, all its pages come, some of them short.
    """
    return (
        listing.ended_early
        and listing.pages * listing.longest < (listing.last_size or 0)
        and shortfall(listing, seen) > state.count_offset
    )


def left_between_passes(listing: ListingProgress, seen: int) -> bool:
    """Return whether an earlier pass of a full listing named rows that the last one did not.

    They are counted as seen, and may be gone since.
    """
    named = listing.rows if listing.last_size is None else min(listing.rows, listing.last_size)
    return listing.passes > 1 and not listing.holes and seen > named


def another_pass(listing: ListingProgress, seen: int) -> ListingProgress:
    """Return the same listing, to be read from its first page again; rows of either pass count as seen.

    If two passes stay below the total by the same number, it counts rows that cannot be seen.
    """
    return msgspec.structs.replace(
        listing, next=None, landmark=None, pages=0, rows=0, passes=listing.passes + 1, born=0, holes=0, bad=0,
        short=shortfall(listing, seen), longest=0, first_size=None, last_size=None, shrank=False,
        oldest_update=None, ordered=True,
    )  # fmt: skip


def wants_sweep(
    state: WorkspaceState, listing: ListingProgress, alive: int, now: datetime, sweep_every: float
) -> bool:
    """Return whether the total of an incremental listing, or its being empty, calls for a full one now.

    `alive` is how many of the workspace's repositories the mirror holds, without those known to be absent. A
    large workspace gets such a sweep at most once in a seventh of `sweep_every` seconds.
    """
    if listing.purpose != "incremental":
        return False
    if listing.last_size is None:
        agrees = not alive or listing.rows + listing.bad + listing.holes > 0
    else:
        agrees = listing.last_size - alive == state.count_offset
    if agrees and not state.uncertain:
        return False
    recently = state.swept_at is not None and now - from_text(state.swept_at) < timedelta(
        seconds=sweep_every / 7
    )
    return alive <= SMALL or not recently


def finished(
    state: WorkspaceState, listing: ListingProgress, *, staying: int, uncertain: bool, now: datetime
) -> WorkspaceState:
    """Return the state after a listing that was read to its end.

    `staying` is how many repositories the mirror will hold once the absent ones are dealt with; `uncertain`
    says that rows may have been missed in spite of all passes.
    """
    state = msgspec.structs.replace(state, listing=None, moved_at=to_text(now))
    if listing.purpose == "incremental":
        # Rows of a missing page are newer than the old cursor: the next listing reads back to it.
        cursor = state.cursor if listing.holes or uncertain else listing.began
        return msgspec.structs.replace(state, cursor=cursor, uncertain=state.uncertain or uncertain)
    proof = not listing.holes and not uncertain
    return msgspec.structs.replace(
        state,
        cursor=listing.began,
        swept_at=to_text(now),
        count_offset=listing.last_size - staying if listing.last_size is not None else 0,
        uncertain=uncertain or left_between_passes(listing, staying),
        whole=state.whole or proof,
        absent_since=listing.seen_since if proof else state.absent_since,
        unlisted=(),
        unlisted_before=state.unlisted,
    )
