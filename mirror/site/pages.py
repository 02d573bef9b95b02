"""The pages of a site: those of the server, by its templates, without what needs one.

Nothing in a page tells when it was made: times are dates, and only the home says how current it is. So a page
changes only when what it shows does.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from mirror.model import RefKind
from mirror.queries import refs
from mirror.queries.accounts import owners_after
from mirror.queries.caller import ANONYMOUS
from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.counts import counts_of, ref_counts_of
from mirror.queries.crawl import upstreams
from mirror.queries.repositories import read_repositories, recent_ids, still_visible
from mirror.queries.rows import AccountRow, RepositoryRow, fetch
from mirror.queries.web_links import WebLinks
from mirror.serve.middleware import STRICT
from mirror.serve.pages import filters, owner, repository
from mirror.serve.pages.home import LATEST
from mirror.serve.pages.urls import FOLDER as SERVED_ASSETS
from mirror.serve.pages.urls import assets
from mirror.serve.pages.view import safe_html
from mirror.site.addresses import CHANGES, HOME, SEARCH, Places, SiteLinks, owners_page, top_of
from mirror.times import from_text

HERE = Path(__file__).parent
PER_PAGE, REFS, CHANGES_SHOWN, OWNERS_SHOWN, ROWS_AT_ONCE = 100, 100, 200, 500, 500
_POLICY = STRICT.replace("frame-ancestors 'none'; ", "")
"""What a page may load. Browsers take `frame-ancestors` from a header alone."""

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""What templates get as the present; the filters of a site do not look at it."""

Page = tuple[str, str]
"""A file of the site, and its text."""


class Pages:
    """Renders each page of a site from a file of public rows."""

    def __init__(self, connection: sqlite3.Connection, places: Places, *, title: str, base_path: str) -> None:
        self._connection = connection
        self._places = places
        self._base_path = base_path
        script = (HERE / "static" / "site-search.js").read_text("utf-8")
        served = {name: one for name, one in assets().items() if name != "datasette.css"}
        self.assets = {f"assets/{Path(one.address).name}": one.body for one in served.values()}
        self.assets["assets/site-search.js"] = script
        self._assets = {name: f"assets/{Path(one.address).name}" for name, one in served.items()}
        self._assets["site-search.js"] = "assets/site-search.js"
        self._known = {"static": True, "site_title": title, "policy": _POLICY, "now": _NO_TIME, "visit": None}

    def all(self) -> Iterator[Page]:
        """Yield every page."""
        yield self._home()
        yield self._page(SEARCH, "site_search.html", {})
        yield self._changes()
        missing = {"title": "Not here", "message": "There is no page at this address.", "status": 404}
        yield self._page("404.html", "mirror_problem.html", missing | {"query": ""}, top=self._base_path)
        yield from self._list_of_owners()
        for row in self._owners():
            yield from self._owner(row)
        yield from map(self._repository, self._repositories())

    def _page(self, path: str, template: str, context: Mapping[str, Any], *, top: str | None = None) -> Page:
        top = top_of(path) if top is None else top
        known = {
            **self._known,
            "links": SiteLinks(self._places, top),
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
                "upstreams": upstreams(connection),
                "latest": latest,
                "there": web.changes(latest),
                "recent": recent,
                "web": web.repositories(recent),
                "counts": counts_of(connection, ANONYMOUS),
                "ref_counts": ref_counts_of(connection, ANONYMOUS),
            },
        )

    def _changes(self) -> Page:
        found = latest_changes(self._connection, ANONYMOUS, ChangeFilter(), limit=CHANGES_SHOWN).rows
        there = WebLinks(self._connection, ANONYMOUS).changes(found)
        context = {"changes": found, "there": there, "filters": {}, "problems": []}
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

    def _owner(self, row: AccountRow) -> Iterator[Page]:
        page, more = 1, True
        while more:
            context = owner.everything_of(
                self._connection, ANONYMOUS, row, order="name", page=page, length=PER_PAGE
            )
            yield self._page(self._places.owner(row.username, row.id, page), "mirror_owner.html", context)
            more = page * PER_PAGE < context["owned"].count
            page += 1

    def _repository(self, row: RepositoryRow) -> Page:
        wanted = {kind: _wanted(row, kind) for kind in refs.TABLES}
        context = repository.everything_of(self._connection, ANONYMOUS, row, wanted, now=None)
        return self._page(self._places.repository(row.full_name, row.id), "mirror_repository.html", context)

    def _owners(self) -> Iterator[AccountRow]:
        last = 0
        while found := owners_after(self._connection, last, ROWS_AT_ONCE):
            yield from found
            last = found[-1].id

    def _repositories(self) -> Iterator[RepositoryRow]:
        last = 0
        while found := read_repositories(
            self._connection,
            ANONYMOUS,
            "WHERE r.id > :last ORDER BY r.id LIMIT :most",
            {"last": last, "most": ROWS_AT_ONCE},
        ):
            yield from found
            last = found[-1].id


@cache
def _environment() -> Environment:
    """Return the templates: those of the server, and the site's own."""
    folders = [HERE / "templates", SERVED_ASSETS.parent / "templates"]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, auto_reload=False)
    filters.install(environment)
    environment.filters["moment"] = day
    return environment


def _wanted(row: RepositoryRow, kind: RefKind) -> refs.RefsWanted:
    first = row.main_branch if kind == "branch" else None
    return refs.RefsWanted(kind=kind, first=first, part="", order="newest", page=1, size=REFS)


def day(text: str | None, now: datetime) -> Markup:
    """Return a time as its day, with the exact time as a tooltip: a page stays right for years."""
    del now
    if not text:
        return Markup('<span class="quiet">never</span>')
    try:
        exact = from_text(text)
    except (ValueError, OverflowError):
        return Markup("<span>{}</span>").format(filters.shortened(text, 30))
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        f"{text[:19]}Z", exact.strftime("%Y-%m-%d %H:%M UTC"), exact.strftime("%Y-%m-%d")
    )
