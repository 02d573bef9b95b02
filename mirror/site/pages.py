"""The pages of a site, by the server's templates, and the files beside them: feed, sitemap, `robots.txt`.

A page does not depend on the time when it is made: it shows dates instead of ages, and only the home page
says how current it is. So a page changes only when its content does.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import escape as escape_xml

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from mirror.model import RefKind
from mirror.queries import refs
from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.crawl import upstreams
from mirror.queries.repositories import recent_ids, repositories_by_ids, still_visible
from mirror.queries.rows import AccountRow, ChangeRow, RepositoryRow, accounts_by_ids
from mirror.queries.status import counts_of, ref_counts_of
from mirror.queries.visibility import ANONYMOUS
from mirror.queries.web_links import WebLinks
from mirror.serve.middleware import STRICT
from mirror.serve.pages import owner, repository, templates
from mirror.serve.pages.changes import AUTHORITY, ENTRIES, atom
from mirror.serve.pages.home import LATEST
from mirror.serve.pages.view import safe_html
from mirror.serve.urls import FOLDER as SERVED_ASSETS
from mirror.serve.urls import assets
from mirror.site.folder import (
    CHANGES,
    FEED,
    HOME,
    PER_PAGE,
    SEARCH,
    PagePaths,
    PageSource,
    StaticLinks,
    owners_page,
    top_of,
)
from mirror.store.rows import fetch
from mirror.times import from_text

HERE = Path(__file__).parent
REFS, CHANGES_SHOWN, OWNERS_SHOWN = 100, 200, 500
ROWS_AT_ONCE = 500
_POLICY = STRICT.replace("frame-ancestors 'none'; ", "")
"""The content security policy. Browsers accept `frame-ancestors` only in a header."""

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""The current moment for templates; the filters of a site ignore it."""

Page = tuple[str, str]
"""The path of a file, and its text."""


class Pages:
    """Renders each page of a site from a file of public rows."""

    def __init__(
        self, connection: sqlite3.Connection, places: PagePaths, *, title: str, base_path: str
    ) -> None:
        self._connection = connection
        self._places = places
        self._base_path = base_path
        known = {**assets(), **assets(HERE / "static")}
        self._assets = {
            name: f"assets/{Path(one.address).name}" for name, one in known.items() if name != "datasette.css"
        }
        self.assets = {place: known[name].body for name, place in self._assets.items()}
        self._known = {"static": True, "site_title": title, "policy": _POLICY, "now": _NO_TIME, "visit": None}

    def summaries(self) -> Iterator[Page]:
        """Yield the pages that any change may affect, the home page last."""
        yield from self._list_of_owners()
        yield self._page(SEARCH, "site_search.html", {})
        missing = {"title": "Not here", "message": "There is no page at this address.", "status": 404}
        # A host shows it at any depth, so its links begin at the root of the host.
        yield self._page("404.html", "mirror_problem.html", missing | {"query": ""}, top=self._base_path)
        yield self._changes()
        yield self._home()  # it says how current the site is, so it comes last

    def repositories(self, wanted: Sequence[PageSource]) -> Iterator[tuple[PageSource, str]]:
        """Yield some pages of repositories."""
        for some in batches(wanted):
            rows = repositories_by_ids(self._connection, ANONYMOUS, [source.row_id for source in some])
            for source, row in zip(some, rows, strict=True):
                yield source, self._repository(source.path, row)

    def owners(self, wanted: Sequence[PageSource]) -> Iterator[tuple[PageSource, str]]:
        """Yield some pages of owners."""
        for some in batches(wanted):
            rows = accounts_by_ids(self._connection, [source.row_id for source in some])
            for source in some:
                yield source, self._owner(source.path, rows[source.row_id], source.page)

    def _page(self, path: str, template: str, context: Mapping[str, Any], *, top: str | None = None) -> Page:
        top = top_of(path) if top is None else top
        known = {
            **self._known,
            "links": StaticLinks(self._places, top),
            "assets": {name: top + place for name, place in self._assets.items()},
            "top": top,
        }
        return path, safe_html(_environment().get_template(template).render(context, **known))

    def _home(self) -> Page:
        connection = self._connection
        latest = latest_changes(connection, ANONYMOUS, ChangeFilter(), limit=LATEST).rows
        recent = still_visible(connection, ANONYMOUS, recent_ids(connection, ANONYMOUS))
        web = WebLinks(connection, ANONYMOUS)
        return self._page(
            HOME,
            "mirror_home.html",
            {
                "upstreams": upstreams(connection, ANONYMOUS),
                "latest": latest,
                "web_links": web.changes(latest),
                "recent": recent,
                "web": web.repositories(recent),
                "counts": counts_of(connection, ANONYMOUS),
                "ref_counts": ref_counts_of(connection, ANONYMOUS),
            },
        )

    def _changes(self) -> Page:
        found = latest_changes(self._connection, ANONYMOUS, ChangeFilter(), limit=CHANGES_SHOWN).rows
        web_links = WebLinks(self._connection, ANONYMOUS).changes(found)
        context = {"changes": found, "web_links": web_links, "filters": {}, "problems": []}
        return self._page(CHANGES, "mirror_changes.html", context)

    def _list_of_owners(self) -> Iterator[Page]:
        rows = fetch(
            self._connection,
            """SELECT u.username, u.id, count(*) FROM repositories r JOIN users u ON u.id = r.owner_id
               GROUP BY u.id ORDER BY u.username COLLATE NOCASE, u.id""",
        )
        parts = [rows[start : start + OWNERS_SHOWN] for start in range(0, len(rows), OWNERS_SHOWN)] or [[]]
        ranges = [(part[0][0], part[-1][0]) if part else ("", "") for part in parts]
        for number, part in enumerate(parts, 1):
            context = {"owners": part, "ranges": ranges if number == 1 else [], "page": number}
            context |= {"pages": len(parts), "total": len(rows)}
            yield self._page(owners_page(number), "site_owners.html", context)

    def _owner(self, path: str, row: AccountRow, page: int) -> str:
        context = owner.everything_of(
            self._connection, ANONYMOUS, row, order="name", page=page, length=PER_PAGE
        )
        return self._page(path, "mirror_owner.html", context)[1]

    def _repository(self, path: str, row: RepositoryRow) -> str:
        wanted = {kind: _wanted(row, kind) for kind in refs.KINDS}
        context = repository.everything_of(self._connection, ANONYMOUS, row, wanted, now=None)
        return self._page(path, "mirror_repository.html", context)[1]


@cache
def _environment() -> Environment:
    folders = [HERE / "templates", SERVED_ASSETS.parent / "templates"]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, auto_reload=False)
    templates.add_filters(environment)
    environment.filters["moment"] = day
    return environment


def batches(wanted: Sequence[PageSource]) -> Iterator[Sequence[PageSource]]:
    """Split pages into batches whose rows are read together."""
    return (wanted[start : start + ROWS_AT_ONCE] for start in range(0, len(wanted), ROWS_AT_ONCE))


def _wanted(row: RepositoryRow, kind: RefKind) -> refs.RefsWanted:
    first = row.main_branch if kind == "branch" else None
    return refs.RefsWanted(kind=kind, first=first, part="", order="newest", page=1, size=REFS)


@lru_cache(10_000)
def _day(text: str) -> Markup:
    try:
        exact = from_text(text)
    except (ValueError, OverflowError):
        return Markup("<span>{}</span>").format(templates.shortened(text, 30))
    title = exact.strftime("%Y-%m-%d %H:%M UTC")
    return Markup(f'<time datetime="{escape(text[:19])}Z" title="{title}">{title[:10]}</time>')  # noqa: S704


def day(text: str | None, now: datetime) -> Markup:
    """Return a time as its day, with the exact time as a tooltip; an age would be wrong soon."""
    del now
    return _day(text) if text else Markup('<span class="quiet">never</span>')


MOST_URLS = 50_000
"""The most addresses that one sitemap may have."""

_XML = '<?xml version="1.0" encoding="utf-8"?>\n'
_NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def feed(connection: sqlite3.Connection, places: PagePaths, base: str, title: str) -> str:
    """Return the feed of the latest changes; `base` is the address of the site, "" if unknown."""
    rows = latest_changes(connection, ANONYMOUS, ChangeFilter(), limit=ENTRIES).rows
    return atom(
        rows,
        WebLinks(connection, ANONYMOUS).changes(rows),
        links=StaticLinks(places, ""),
        base=base,
        page=base + CHANGES,
        feed=base + FEED,
        identity=f"{AUTHORITY}site",
        title=f"Changes of {title}",
        names=_names(connection, rows),
    )


def _names(connection: sqlite3.Connection, rows: list[ChangeRow]) -> dict[int, str]:
    """Return ids of changes that depend on their content: row ids shift with each set of public rows."""
    wanted = sorted({row.repository_id for row in rows if row.repository_id is not None})
    uuids = {row.id: row.uuid for row in repositories_by_ids(connection, ANONYMOUS, wanted)}
    names, seen = dict[int, str](), Counter[str]()
    for row in reversed(rows):
        about = uuids.get(row.repository_id or 0), row.upstream, row.at, row.kind, row.ref, row.old, row.new
        text = json.dumps(about)
        seen[text] += 1
        names[row.id] = str(uuid5(NAMESPACE_URL, f"{text} {seen[text]}"))
    return names


def sitemaps(base: str, pages: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the files of the sitemap: one, or several and an index if there are too many pages."""
    parts = [pages[start : start + MOST_URLS] for start in range(0, len(pages), MOST_URLS)]
    if len(parts) == 1:
        yield "sitemap.xml", _urls(base, parts[0])
        return
    names = [f"sitemap-{number}.xml" for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        yield name, _urls(base, part)
    listed = "".join(f"<sitemap><loc>{escape_xml(base + name)}</loc></sitemap>\n" for name in names)
    yield "sitemap.xml", f"{_XML}<sitemapindex {_NAMESPACE}>\n{listed}</sitemapindex>\n"


def _urls(base: str, pages: list[str]) -> str:
    listed = "".join(f"<url><loc>{escape_xml(base + page)}</loc></url>\n" for page in pages)
    return f"{_XML}<urlset {_NAMESPACE}>\n{listed}</urlset>\n"


def robots(base: str) -> str:
    """Return `robots.txt`, which allows everything."""
    return "User-agent: *\nAllow: /\n" + (f"Sitemap: {base}sitemap.xml\n" if base else "")
