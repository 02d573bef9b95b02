"""Landmarks: how a listing whose links go in a circle, or that never ends, is noticed. Pure functions."""

import zlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from mirror.errors import UpstreamShapeError
from mirror.model import Member, Owner, Ref, Repository
from mirror.store.crawl_state import Landmark
from mirror.upstream.protocol import Page

MOST_IDLE = 20
"""After so many pages in a row without a new row, a listing counts as endless."""

LONG_PAGE = 10
"""Two equal pages in a row are no coincidence if they have at least so many rows."""


def next_landmark(page: Page[Any], *, asked: str | None, landmark: Landmark | None, pages: int) -> Landmark:
    """Return the landmark of a listing after page number `pages`, which was requested by the link `asked`.

    It is set at pages 1, 2, 4, 8, ..., as in Brent's cycle detection: a loop of any length soon meets it, by
    its links or, if they differ every time, by its rows.

    Raises UpstreamShapeError for a loop, for an endless series of pages without anything new, and for a page
    that repeats the one before it.
    """
    known, link = landmark or Landmark(), page.next
    if pages == 1 and link is None:
        return known
    if link is not None and link in (asked, known.link):
        raise UpstreamShapeError("the listing leads back to a page of its own")
    rows = _checksum(page)
    if rows and rows == known.last and (page.size is None or len(page.rows) >= LONG_PAGE):
        raise UpstreamShapeError("the listing repeats the rows of the page before")
    is_idle = not (page.rows or page.bad or page.skipped) or (rows != 0 and rows == known.rows)
    idle = known.idle + (is_idle and link is not None)
    if idle > MOST_IDLE:
        raise UpstreamShapeError(f"the listing does not end: {idle:,} pages had no new rows")
    if pages & (pages - 1) == 0:  # a power of two
        return Landmark(link=link, rows=rows, last=rows, idle=idle)
    return Landmark(link=known.link, rows=known.rows, last=rows, idle=idle)


_IDENTITIES: dict[type, Callable[[Any], Any]] = {
    Member: attrgetter("user.uuid", "user.username"),
    Owner: attrgetter("uuid", "username"),
    Ref: attrgetter("kind", "name"),
    Repository: attrgetter("uuid", "full_name"),
}


def _checksum(page: Page[Any]) -> int:
    """Return a number for the rows of a page, by what identifies them: they may change meanwhile.

    It is 0 without rows. Cursors of former versions have other numbers, which are those of no page.
    """
    if not page.rows:
        return 0
    return zlib.crc32(msgspec.json.encode(page.told or list(map(_IDENTITIES[type(page.rows[0])], page.rows))))
