"""The files of a site besides its pages: the feed, the sitemap, `robots.txt`."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import escape

from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.repositories import repositories_by_ids
from mirror.queries.rows import ChangeRow
from mirror.queries.visibility import ANONYMOUS
from mirror.queries.web_links import WebLinks
from mirror.serve.pages.changes import AUTHORITY, ENTRIES, atom
from mirror.site.paths import CHANGES, FEED, PagePaths, StaticLinks

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
    """Return an id of each change made from its content: row numbers shift with each set of public rows."""
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
    listed = "".join(f"<sitemap><loc>{escape(base + name)}</loc></sitemap>\n" for name in names)
    yield "sitemap.xml", f"{_XML}<sitemapindex {_NAMESPACE}>\n{listed}</sitemapindex>\n"


def _urls(base: str, pages: list[str]) -> str:
    listed = "".join(f"<url><loc>{escape(base + page)}</loc></url>\n" for page in pages)
    return f"{_XML}<urlset {_NAMESPACE}>\n{listed}</urlset>\n"


def robots(base: str) -> str:
    """Return `robots.txt`, which allows everything."""
    return "User-agent: *\nAllow: /\n" + (f"Sitemap: {base}sitemap.xml\n" if base else "")
