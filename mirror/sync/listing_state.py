"""Where the crawl of a workspace stands: kept in the file with every page, pure rules for what is next.

Two listings exist. A *full* one reads every repository, oldest first: updates do not move rows in that
order, new ones come last. An *incremental* one reads newest updates first and ends at the first row older
than the cursor less the overlap; its total tells whether anything is missing or gone, at no extra request.

The cursor is the moment the last complete listing began, by the upstream's clock: whatever changes while a
listing is read is newer than that, so the next incremental listing meets it. See docs/crawling.md.
"""

import zlib
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import msgspec

from mirror.errors import UpstreamShapeError
from mirror.model import Member, Repository
from mirror.times import from_text, to_text
from mirror.upstream.protocol import Order, Page

Purpose = Literal["full", "incremental"]

STALE_LINK = timedelta(days=1)
PASSES = 3
SMALL = 1000
"""Repositories that a full listing reads in ten requests: cheap enough to do whenever a count is off."""


class Landmark(msgspec.Struct, frozen=True):
    """What an earlier page of a listing told: its link onward and (as a hash) its rows.

    `last` are the rows of the page before. `idle` counts the pages that told nothing new, as far as known.
    """

    link: str | None = None
    rows: int = 0
    last: int = 0
    idle: int = 0


class Listing(msgspec.Struct, kw_only=True):
    """A listing that has begun. Counts are of rows, sizes what the upstream told of the whole.

    `began` is by the upstream's clock, `seen_since` by ours: rows seen by this listing carry it or later.
    `next` is the upstream's link to the next page, None before the first; `landmark` an earlier page that
    tells when links go in a circle. `rows` counts what the pages of this pass named, `born` those of them
    created since its first page, `holes` pages that were stepped over, `bad` rows not understood. `shrank`
    says that the whole became smaller between two pages, `short` how many rows the pass before this one
    was short of the total.
    """

    purpose: Purpose
    began: str
    seen_since: str
    next: str | None = None
    landmark: Landmark | None = None
    first_size: int | None = None
    last_size: int | None = None
    shrank: bool = False
    pages: int = 0
    rows: int = 0
    passes: int = 1
    pass_began: str = ""
    born: int = 0
    holes: int = 0
    bad: int = 0
    short: int = 0
    oldest_update: str | None = None
    ordered: bool = True

    @property
    def order(self) -> Order:
        """How the upstream is asked to sort."""
        return "created" if self.purpose == "full" else "newest-update"


class Members(msgspec.Struct, kw_only=True):
    """A listing of members that is not done: where it goes on, and since when (by our clock) it is read.

    `pages`, `rows` and `told` are those of this pass, the last one the largest total that a page told;
    `bad` says what was not understood. For `landmark` see Listing.
    """

    seen_since: str
    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    rows: int = 0
    told: int = 0
    bad: str | None = None
    passes: int = 1


class Place(msgspec.Struct, kw_only=True):
    """The crawl of one workspace, between any two requests.

    `name` is what it is called now, where that is no longer the name it is configured by. `whole` says that
    it has been listed once without a gap, so that whatever is new since is news. `cursor` and `swept_at` are
    None until a full listing has been read to its end. `surplus` is by how much the
    upstream's own count was above the rows it listed then: some counts include what the caller cannot see.
    `doubt` says that rows came and went in every pass of the last listing, so that some may have been
    missed. `absent_since` is set after a full listing that was complete and free of errors, until every
    repository that it did not name (last seen before that moment) has been asked for by itself. `gone` says
    that the workspace itself is no more, and that the operator has confirmed it, until it answers again.
    `round` is the round (see `mirror.sync.scope`) in which it was listed last. `unlisted` are the rows that
    the last full listing left out though they are there, `unlisted_before` those of the one before.
    """

    owner_uuid: str | None = None
    name: str | None = None
    listing: Listing | None = None
    members: Members | None = None
    whole: bool = False
    cursor: str | None = None
    swept_at: str | None = None
    surplus: int = 0
    doubt: bool = False
    absent_since: str | None = None
    gone: bool = False
    round: str | None = None
    moved_at: str | None = None
    unlisted: tuple[int, ...] = ()
    unlisted_before: tuple[int, ...] = ()


def there_all_the_same(place: Place, row_id: int) -> Place:
    """Return the place after a repository that a full listing left out was found to be there.

    Totals are expected to go on leaving it out. Unless the full listing before left it out too, that may be
    wrong, and `doubt` has the next incremental listing followed by a full one.
    """
    return msgspec.structs.replace(
        place,
        surplus=place.surplus - 1,
        doubt=place.doubt or row_id not in place.unlisted_before,
        unlisted=(*place.unlisted, row_id),
    )


def decoded(value: str | None) -> Place:
    """Read a place from the file; one that this program cannot read begins anew, at the cost of requests."""
    try:
        return msgspec.json.decode(value, type=Place) if value else Place()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Place()


SKEW = timedelta(minutes=5)
"""How far the upstream's clock may be ahead of ours without harm."""


def in_time(place: Place, now: datetime, overlap: float) -> Place:
    """Return a place as it counts now: moments ahead of now, which a wrong clock wrote, are never.

    The cursor is by the upstream's clock, and may be ahead as far as the overlap makes up for it.
    """
    ours = to_text(now)
    theirs = to_text(now + max(SKEW, timedelta(seconds=overlap / 2)))
    listing, members = place.listing, place.members
    if listing is not None and (listing.seen_since > ours or listing.began > theirs):
        listing = None
    if members is not None and members.seen_since > ours:
        members = Members(seen_since=ours)
    return msgspec.structs.replace(
        place,
        listing=listing,
        members=members,
        cursor=_not_after(place.cursor, theirs),
        swept_at=_not_after(place.swept_at, ours),
        absent_since=_not_after(place.absent_since, ours),
        round=_not_after(place.round, ours),
        moved_at=_not_after(place.moved_at, ours),
    )


def _not_after(moment: str | None, limit: str) -> str | None:
    return None if moment is not None and moment > limit else moment


def encoded(place: Place) -> str:
    """Write a place as the file keeps it."""
    return msgspec.json.encode(place).decode()


def is_identity(workspace: str) -> bool:
    """Tell whether a workspace is kept under its identity: `{...}`, `id:...`, and no name looks like one."""
    return workspace.startswith("{") or ":" in workspace


def displaced(place: Place) -> Place:
    """Return the place of a workspace whose name another one has taken: asked for by its identity."""
    return msgspec.structs.replace(
        place, name=place.owner_uuid, listing=None, members=None, swept_at=None, round=None
    )


def found(place: Place) -> Place:
    """Return the place of a workspace that has answered: it is not gone, whatever was confirmed before.

    What was concluded from its absence is void, so its repositories are to be counted once more.
    """
    if not place.gone:
        return place
    return msgspec.structs.replace(place, gone=False, absent_since=None, doubt=True)


def begin(
    place: Place, now: datetime, *, full: bool, sweep_every: float, can_be_incremental: bool
) -> Listing:
    """Return the listing to go on with: the one under way unless its link is old, else a new one.

    Whoever asks for a `full` one is not given the rest of an incremental one.
    """
    under_way = place.listing
    if (
        under_way is not None
        and (under_way.purpose == "full" or not full)
        and place.moved_at
        and now - from_text(place.moved_at) < STALE_LINK
    ):
        return under_way
    due = (
        place.cursor is None
        or place.swept_at is None
        or now - from_text(place.swept_at) >= timedelta(seconds=sweep_every)
    )
    purpose: Purpose = "full" if full or due or not can_be_incremental else "incremental"
    return Listing(purpose=purpose, began=to_text(now), seen_since=to_text(now))


MOST_IDLE = 20
"""Pages that tell no row, or those of the landmark once more, until a listing is taken for endless."""

LONG_PAGE = 10
"""From this length on, no chance makes a page equal to the one before it."""


def next_landmark(page: Page[Any], *, asked: str | None, landmark: Landmark | None, pages: int) -> Landmark:
    """Return the landmark of a listing after page number `pages`, which was asked for by the link `asked`.

    It is kept at pages 1, 2, 4, 8, ...: a circle of any length meets it before long, by its links or, where
    these differ for ever, by its rows. Raises UpstreamShapeError for a circle, for pages that tell nothing
    new for ever, and for a page that is the one before it once more: what should stand there is not told.
    """
    known, link = landmark or Landmark(), page.next
    if pages == 1 and link is None:
        return known
    if link is not None and link in (asked, known.link):
        raise UpstreamShapeError("the listing leads back to a page of its own")
    rows = zlib.crc32(msgspec.json.encode(page.rows)) if page.rows else 0
    if rows and rows == known.last and (page.size is None or len(page.rows) >= LONG_PAGE):
        raise UpstreamShapeError("the listing tells the rows of the page before once more")
    is_idle = not (page.rows or page.bad or page.skipped) or (rows != 0 and rows == known.rows)
    idle = known.idle + (is_idle and link is not None)
    if idle > MOST_IDLE:
        raise UpstreamShapeError(f"the listing goes on, and {idle:,} of its pages tell nothing new")
    if pages & (pages - 1) == 0:
        return Landmark(link=link, rows=rows, last=rows, idle=idle)
    return Landmark(link=known.link, rows=known.rows, last=rows, idle=idle)


def members_advanced(members: Members, page: Page[Member]) -> Members:
    """Return the listing after a page of members; raises UpstreamShapeError for links in a circle."""
    pages = members.pages + 1
    bad = next((f"{each.what}: {each.error}" for each in page.bad), None)
    return msgspec.structs.replace(
        members,
        next=page.next,
        landmark=next_landmark(page, asked=members.next, landmark=members.landmark, pages=pages),
        pages=pages,
        rows=members.rows + len(page.rows) + len(page.bad),
        told=max(members.told, page.size or 0),
        bad=members.bad or bad,
    )


def members_may_be_missed(members: Members, *, unseen: bool) -> bool:
    """Tell whether a listing of members that is at its end should be read once more.

    Somebody who leaves pulls others onto a page that was read already: rows are missing, or known members
    `unseen`. The second pass decides, since totals may count what is not listed.
    """
    if members.passes > 1 or members.bad:
        return False
    return members.rows < members.told or (unseen and members.pages > 1)


def advanced(listing: Listing, page: Page[Repository]) -> Listing:
    """Return the listing after a page of it; raises UpstreamShapeError where the links go in a circle."""
    pages = listing.pages + 1
    landmark = next_landmark(page, asked=listing.next, landmark=listing.landmark, pages=pages)
    first = listing.pages == 0
    told = to_text(page.date - timedelta(seconds=1))  # HTTP dates have no fractions
    pass_began = to_text(page.date) if first else listing.pass_began
    updates = [row.updated_at for row in page.rows if row.updated_at]
    chain = [*([listing.oldest_update] if listing.oldest_update else []), *updates]
    return msgspec.structs.replace(
        listing,
        began=min(listing.began, told) if first and listing.passes == 1 else listing.began,
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
        oldest_update=updates[-1] if updates else listing.oldest_update,
        ordered=listing.ordered and all(a >= b for a, b in pairwise(chain)),
    )


def reached_end(listing: Listing, place: Place, overlap: float) -> bool:
    """Tell whether nothing is left to read: no next page, or the rest is older than the cursor's reach.

    A listing that does not come in the order asked for is read to its end.
    """
    if listing.next is None:
        return True
    if listing.purpose == "full" or not listing.ordered or not place.cursor:
        return False
    horizon = to_text(from_text(place.cursor) - timedelta(seconds=overlap))
    return listing.oldest_update is not None and listing.oldest_update < horizon


def may_have_missed(place: Place, listing: Listing, seen: int) -> bool:
    """Tell whether a listing that is at its end should be read once more from its first page.

    `seen` is how many of the workspace's repositories have been seen since the listing began.
    """
    return rows_left_the_listing(listing) or shortfall(listing, seen) > max(place.surplus, listing.short)


def rows_left_the_listing(listing: Listing) -> bool:
    """Tell whether rows went away while the pages were read, so that others may have slipped between two.

    A row that leaves a page already read pulls the following ones forward, and the first of the next page
    onto the one before. In the order of creation, the size must have grown by just the rows that were born
    meanwhile. In the order of updates a birth pushes all rows back by one, which makes up for one that
    left: there, a loss needs a size that shrank between two pages.
    """
    if listing.first_size is None or listing.last_size is None or listing.pages < 2:
        return False
    if listing.purpose == "full" and listing.last_size < listing.first_size + listing.born:
        return True
    return listing.shrank


def shortfall(listing: Listing, seen: int) -> int:
    """Return by how many rows a listing that was read to its last page is short of its own total.

    0 where it cannot be told: no total, pages stepped over, or the end of an incremental listing left out.
    """
    if listing.last_size is None or listing.holes or listing.next is not None:
        return 0
    named = seen if listing.purpose == "full" else listing.rows
    return max(0, listing.last_size - listing.bad - named)


def left_between_passes(listing: Listing, seen: int) -> bool:
    """Tell whether an earlier pass of a full listing named rows that the last one did not.

    They are counted as seen, and may be gone since.
    """
    told = listing.rows if listing.last_size is None else min(listing.rows, listing.last_size)
    return listing.passes > 1 and not listing.holes and seen > told


def another_pass(listing: Listing, seen: int) -> Listing:
    """Return the same listing from its first page again; rows that either pass named count as seen.

    A total that two passes are short of by the same number is believed: it counts what cannot be seen.
    """
    return msgspec.structs.replace(
        listing, next=None, landmark=None, pages=0, rows=0, passes=listing.passes + 1, born=0, holes=0, bad=0,
        short=shortfall(listing, seen), first_size=None, last_size=None, shrank=False, oldest_update=None,
        ordered=True,
    )  # fmt: skip


def wants_sweep(place: Place, listing: Listing, alive: int, now: datetime, sweep_every: float) -> bool:
    """Tell whether an incremental listing's total says that a full one should come forward.

    `alive` is how many of the workspace's repositories the mirror holds, those aside that are known to be
    absent. A large workspace is swept for this at most every seventh part of `sweep_every`.
    """
    if listing.purpose != "incremental":
        return False
    agrees = listing.last_size is None or listing.last_size - alive == place.surplus
    if agrees and not place.doubt:
        return False
    recently = place.swept_at is not None and now - from_text(place.swept_at) < timedelta(
        seconds=sweep_every / 7
    )
    return alive <= SMALL or not recently


def finished(place: Place, listing: Listing, *, staying: int, doubt: bool, now: datetime) -> Place:
    """Return the place after a listing that was read to its end.

    `staying` is how many repositories the mirror will hold once the absent ones are dealt with; `doubt`
    says that rows may have been missed in spite of all passes.
    """
    place = msgspec.structs.replace(place, listing=None, moved_at=to_text(now))
    if listing.purpose == "incremental":
        # What a missing page held is newer than the old cursor: the next listing reads back to it.
        cursor = place.cursor if listing.holes or doubt else listing.began
        return msgspec.structs.replace(place, cursor=cursor, doubt=place.doubt or doubt)
    proof = not listing.holes and not doubt
    return msgspec.structs.replace(
        place,
        cursor=listing.began,
        swept_at=to_text(now),
        surplus=listing.last_size - staying if listing.last_size is not None else 0,
        doubt=doubt or left_between_passes(listing, staying),
        whole=place.whole or proof,
        absent_since=listing.seen_since if proof else place.absent_since,
        unlisted=(),
        unlisted_before=place.unlisted,
    )
