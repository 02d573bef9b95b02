"""The search for branches, tags and commits: as a page, and as JSON."""

import sqlite3

import msgspec
from datasette.utils.asgi import Response

from mirror.queries.ref_search import FoundRefs, find_refs
from mirror.queries.refs import KINDS
from mirror.serve.exchange import json_response
from mirror.serve.middleware import PAGE
from mirror.serve.pages.search import FAR, LONGEST_QUERY, MOST_ROWS, PER_PAGE
from mirror.serve.pages.view import Visit


class RefsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A search for refs, as its address describes it. Wrong parameters are ignored."""

    q: str = ""
    kind: str = ""
    owner: str = ""
    exact: bool = False
    gone: bool = False
    page: int = 1
    size: int = PER_PAGE

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set."""
        flags = {name: "1" for name in ("exact", "gone") if getattr(self, name)}
        return {name: value for name, value in (("kind", self.kind), ("owner", self.owner)) if value} | flags

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the first page of this search."""
        size = {} if self.size == PER_PAGE else {"size": str(self.size)}
        return ({"q": self.q} if self.q else {}) | self.filters | size


async def results(visit: Visit) -> Response:
    """GET /-/refs: the form and the results."""
    asked = _request_of(visit)
    found, took_ms = await _found(visit, asked)
    context = {
        "asked": asked,
        "found": found,
        "took_ms": took_ms,
        "pages": -(-found.count // asked.size),
        "start": (asked.page - 1) * asked.size,
    }
    return await visit.page("mirror_refs.html", context)


async def as_json(visit: Visit) -> Response:
    """GET /-/refs.json: the results for programs."""
    asked = _request_of(visit)
    found, _ = await _found(visit, asked)
    more = asked.page * asked.size < found.count
    following = {**asked.parameters, "page": asked.page + 1}
    body = {
        **found.exported(),
        "filters": asked.filters,
        "page": asked.page,
        "size": asked.size,
        "next": visit.links.refs(".json", **following) if more else None,
    }
    return json_response(body, PAGE)


def _request_of(visit: Visit) -> RefsRequest:
    """Read a search from an address."""
    given = visit.parameters
    kind = given.get("kind", "")
    return RefsRequest(
        q=given.get("q", "").strip()[:LONGEST_QUERY],
        kind=kind if kind in KINDS else "",
        owner=given.get("owner", "").strip()[:LONGEST_QUERY],
        exact=given.get("exact") == "1",
        gone=given.get("gone") == "1",
        page=visit.number("page", 1, 1_000_000),
        size=visit.number("size", PER_PAGE, MOST_ROWS),
    )


async def _found(visit: Visit, asked: RefsRequest) -> tuple[FoundRefs, float]:
    """Run a search; return the results and the time in milliseconds."""

    def work(connection: sqlite3.Connection) -> FoundRefs:
        return find_refs(
            connection,
            visit.caller,
            asked.q,
            limit=asked.size,
            offset=(asked.page - 1) * asked.size,
            kind=asked.kind or None,
            owner=asked.owner or None,
            exact=asked.exact,
            gone=asked.gone,
        )

    # The first page comes from short lists. A later page, or that of an owner, reads more.
    is_first = asked.page == 1 and asked.size <= PER_PAGE and not asked.owner
    return await visit.timed(work, times=1 if is_first else FAR)
