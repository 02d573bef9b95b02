"""The searches for repositories, branches, tags and commits: as pages, while typing, as JSON and as CSV."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from xml.sax.saxutils import quoteattr

import msgspec
from datasette.utils import add_cors_headers
from datasette.utils.asgi import Response

from mirror.queries.refs import KINDS
from mirror.queries.repositories import languages
from mirror.queries.rows import LISTED
from mirror.queries.search import FoundRefs, FoundRepositories, find_refs, find_repositories
from mirror.queries.visibility import Caller
from mirror.readable import csv_chunks
from mirror.search.query import SWITCHES, Filters
from mirror.serve.exchange import json_response
from mirror.serve.middleware import PAGE
from mirror.serve.pages.view import Visit
from mirror.serve.urls import assets

SHORTEST, LONGEST = 4, 40  # the lengths of a query for which the page suggests other queries


class Near(msgspec.Struct, frozen=True):
    """A part of the query that occurs, and in how many names."""

    text: str
    count: int


def near(connection: sqlite3.Connection, caller: Caller, query: str) -> list[Near]:
    """Return the longest parts of a query without results that do occur in names."""
    owner, slash, part = query.rpartition("/")
    if not SHORTEST <= len(part) <= LONGEST:
        return []

    def count(text: str) -> int:
        asked = f"{owner}{slash}{text}"
        return find_repositories(connection, caller, asked, limit=0, fuzzy=False).count

    return [Near(f"{owner}{slash}{text}", count(text)) for text in _parts(part, count)]


def _parts(part: str, count: Callable[[str], int]) -> Iterator[str]:
    """Yield the longest beginning and the longest end that occur, if they are not too short."""
    beginning = _longest(part, lambda length: count(part[:length]))
    end = _longest(part, lambda length: count(part[-length:]))
    lengths = {part[:beginning]: beginning, part[len(part) - end :]: end}
    yield from (text for text, length in lengths.items() if length >= SHORTEST - 1)


def _longest(part: str, count: Callable[[int], int]) -> int:
    """Return the greatest length that still occurs. A name with a longer part also has the shorter one."""
    least, most = 0, len(part) - 1
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if count(middle) else (least, middle - 1)
    return least


PER_PAGE, MOST_ROWS, OPTIONS, LANGUAGES = 20, 1000, 8, 80
LONGEST_QUERY = 300
CHOICES = {
    "scm": ("git", "hg"),
    "visibility": ("public", "private"),
    **dict.fromkeys(SWITCHES, ("only", "none")),
    "in": ("description",),
    "gone": ("1",),
}
FAR = 5  # how many time limits a later page of results may take
SOON = 0.1  # seconds that results wait for the list of languages; the next page may have it

# The columns that CSV adds: the upstream's page, and the clone addresses.
LINKS = ("upstream_url", "clone_https", "clone_ssh")


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the addresses of both searches have. Wrong parameters are ignored."""

    q: str = ""
    owner: str = ""
    page: int = 1
    size: int = PER_PAGE

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set."""
        raise NotImplementedError

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the first page of this search."""
        size = {} if self.size == PER_PAGE else {"size": str(self.size)}
        return ({"q": self.q} if self.q else {}) | self.filters | size

    @property
    def start(self) -> int:
        """How many results come before this page."""
        return (self.page - 1) * self.size

    def next(self, link: Callable[..., str], count: int) -> str | None:
        """Return the address of the next page as JSON; None after the last one."""
        more = self.start + self.size < count
        return link(".json", **{**self.parameters, "page": self.page + 1}) if more else None


class SearchRequest(_Asked, frozen=True, kw_only=True):
    """A search for repositories."""

    language: str = ""
    choices: Mapping[str, str] = {}

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set."""
        named = {"owner": self.owner, "language": self.language}
        return {name: value for name, value in {**named, **self.choices}.items() if value}


class RefsRequest(_Asked, frozen=True, kw_only=True):
    """A search for branches, tags and commits."""

    kind: str = ""
    exact: bool = False
    gone: bool = False

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set."""
        flags = {name: "1" for name in ("exact", "gone") if getattr(self, name)}
        return {name: value for name, value in (("kind", self.kind), ("owner", self.owner)) if value} | flags


def _asked(visit: Visit) -> dict[str, Any]:
    """Read the parameters that both searches have."""
    texts = {name: visit.parameters.get(name, "").strip()[:LONGEST_QUERY] for name in ("q", "owner")}
    page, size = visit.number("page", 1, 1_000_000), visit.number("size", PER_PAGE, MOST_ROWS)
    return {**texts, "page": page, "size": size}


def request_of(visit: Visit) -> SearchRequest:
    """Read a search from an address."""
    given = visit.parameters
    chosen = {name: given.get(name, "") for name in CHOICES if given.get(name, "") in CHOICES[name]}
    if not visit.caller.known:  # strangers see public repositories only
        chosen.pop("visibility", None)
    language = given.get("language", "").strip()[:LONGEST_QUERY]
    return SearchRequest(**_asked(visit), language=language, choices=chosen)


def find(connection: sqlite3.Connection, caller: Caller, asked: SearchRequest) -> FoundRepositories:
    """Run a search."""
    chosen = asked.choices
    filters: Filters = {
        "owner": asked.owner or None,
        "language": asked.language or None,
        "scm": chosen.get("scm"),
        "private": {"public": False, "private": True}.get(chosen.get("visibility", "")),
        "gone": "gone" in chosen,
        "descriptions": "in" in chosen,
    }
    switches = {name: {"only": True, "none": False}.get(chosen.get(name, "")) for name in SWITCHES}
    return find_repositories(
        connection,
        caller,
        asked.q,
        limit=asked.size,
        offset=asked.start,
        **cast("Filters", filters | switches),
    )


async def results(visit: Visit) -> Response:
    """GET /-/search: the form, the results, and suggestions."""
    asked = request_of(visit)
    found, took_ms = await _found(visit, asked)
    context = _context(asked, found, took_ms) | {
        "switches": SWITCHES,
        "query": " ".join(found.corrected) if found.fuzzy else asked.q,
        "near": await _near(visit, asked) if not found.count else [],
        "languages": await visit.count(
            "languages", lambda c: languages(c, visit.caller, LANGUAGES), wait=SOON
        ),
    }
    return await visit.page("mirror_search.html", context)


def _context(asked: _Asked, found: FoundRepositories | FoundRefs, took_ms: float) -> dict[str, Any]:
    """Return what the pages of both searches show."""
    pages = -(-found.count // asked.size)
    return {"asked": asked, "found": found, "took_ms": took_ms, "pages": pages, "start": asked.start}


async def options(visit: Visit) -> Response:
    """GET /-/search/options: the first results while typing, as items of a list box."""
    asked = request_of(visit)
    found, _ = await _found(visit, msgspec.structs.replace(asked, size=OPTIONS, page=1))
    meant = [] if found.count else await _near(visit, asked)
    return await visit.fragment("mirror_options.html", {"asked": asked, "found": found, "near": meant})


async def as_json(visit: Visit) -> Response:
    """GET /-/search.json: the results for programs."""
    asked = request_of(visit)
    found, _ = await _found(visit, asked)
    body = {
        "query": asked.q,
        "filters": asked.filters,
        "count": found.count,
        "fuzzy": found.fuzzy,
        "corrected": found.corrected,
        "described": found.described,
        "page": asked.page,
        "size": asked.size,
        "next": asked.next(visit.links.search, found.count),
        "repositories": [
            {
                **row.columns(*LISTED),
                "url": visit.links.repository(row.full_name, row.id),
                "upstream_url": found.links(row).url,
                "clone_urls": found.links(row).clone_urls,
            }
            for row in found.repositories
        ],
    }
    return json_response(body, _headers(visit))


async def as_csv(visit: Visit) -> Response:
    """GET /-/search.csv: up to a thousand rows; cells cannot act as formulas in a spreadsheet."""
    given = request_of(visit)
    asked = given if "size" in visit.parameters else msgspec.structs.replace(given, size=MOST_ROWS)
    found, _ = await _found(visit, asked)
    rows = (
        [
            *row.columns(*LISTED).values(),
            links.url,
            links.clone_urls.get("https"),
            links.clone_urls.get("ssh"),
        ]
        for row in found.repositories
        for links in (found.links(row),)
    )
    headers = {
        **_headers(visit),
        "Content-Disposition": 'attachment; filename="search.csv"',
        "X-Total-Count": str(found.count),
    }
    body = "".join(csv_chunks((*LISTED, *LINKS), rows)).encode("utf-8", "replace")
    return Response(body, headers=headers, content_type="text/csv; charset=utf-8")


def _headers(visit: Visit) -> dict[str, str]:
    """Return the headers of results for programs: pages of other sites may read them, as they may tables."""
    headers = dict(PAGE)
    if visit.datasette.cors:
        add_cors_headers(headers)
    return headers


async def _found(visit: Visit, asked: SearchRequest) -> tuple[FoundRepositories, float]:
    """Run a search; return the results and the time in milliseconds."""
    # The first page comes from short lists. A later page, or a common word, has to read every match.
    is_first = asked.page == 1 and asked.size <= PER_PAGE and "in" not in asked.choices
    return await visit.timed(lambda c: find(c, visit.caller, asked), times=1 if is_first else FAR)


async def _near(visit: Visit, asked: SearchRequest) -> list[Near]:
    """Find suggestions, ignoring the filters."""
    return await visit.read(lambda c: near(c, visit.caller, asked.q))


async def opensearch(visit: Visit) -> Response:
    """GET /-/search.xml: describes this search for browsers, with the address of this server."""
    page, suggested, icon = (
        quoteattr(f"{visit.origin}{path}{query}")
        for path, query in (
            (visit.links.search(), "?q={searchTerms}"),
            (visit.links.search("/suggestions"), "?q={searchTerms}"),
            (visit.links.path(assets()["mirror.svg"].address), ""),
        )
    )
    body = f"""<?xml version="1.0" encoding="UTF-8"?>
<OpenSearchDescription xmlns="http://a9.com/-/spec/opensearch/1.1/">
<ShortName>Bitbucket mirror</ShortName>
<Description>Repositories of the Bitbucket mirror, by part of their name</Description>
<InputEncoding>UTF-8</InputEncoding>
<Image width="16" height="16" type="image/svg+xml">{icon[1:-1]}</Image>
<Url type="text/html" method="get" template={page}/>
<Url type="application/x-suggestions+json" method="get" template={suggested}/>
</OpenSearchDescription>
"""
    return Response(
        body, headers=dict(PAGE), content_type="application/opensearchdescription+xml; charset=utf-8"
    )


async def suggestions(visit: Visit) -> Response:
    """GET /-/search/suggestions: names for a beginning, in the form of OpenSearch."""
    asked = msgspec.structs.replace(request_of(visit), size=OPTIONS, page=1)
    rows = (await visit.read(lambda connection: find(connection, visit.caller, asked))).repositories
    body = [
        asked.q,
        [row.full_name for row in rows],
        [" ".join((row.description or "").split()) for row in rows],
        [visit.origin + visit.links.repository(row.full_name, row.id) for row in rows],
    ]
    return json_response(body, PAGE, content_type="application/x-suggestions+json; charset=utf-8")


async def refs_results(visit: Visit) -> Response:
    """GET /-/refs: the form and the results."""
    asked = _refs_request_of(visit)
    return await visit.page("mirror_refs.html", _context(asked, *await _found_refs(visit, asked)))


async def refs_as_json(visit: Visit) -> Response:
    """GET /-/refs.json: the results for programs."""
    asked = _refs_request_of(visit)
    found, _ = await _found_refs(visit, asked)
    body = {
        **found.exported(),
        "filters": asked.filters,
        "page": asked.page,
        "size": asked.size,
        "next": asked.next(visit.links.refs, found.count),
    }
    return json_response(body, PAGE)


def _refs_request_of(visit: Visit) -> RefsRequest:
    given = visit.parameters
    kind = given.get("kind", "")
    return RefsRequest(
        **_asked(visit),
        kind=kind if kind in KINDS else "",
        exact=given.get("exact") == "1",
        gone=given.get("gone") == "1",
    )


async def _found_refs(visit: Visit, asked: RefsRequest) -> tuple[FoundRefs, float]:

    def work(connection: sqlite3.Connection) -> FoundRefs:
        return find_refs(
            connection,
            visit.caller,
            asked.q,
            limit=asked.size,
            offset=asked.start,
            kind=asked.kind or None,
            owner=asked.owner or None,
            exact=asked.exact,
            gone=asked.gone,
        )

    # The first page comes from short lists. A later page, or that of an owner, reads more.
    is_first = asked.page == 1 and asked.size <= PER_PAGE and not asked.owner
    return await visit.timed(work, times=1 if is_first else FAR)
