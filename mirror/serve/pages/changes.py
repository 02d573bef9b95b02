"""The page of changes with its filters, the Atom feed with the same, and the page of unexpected ones."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from datasette.utils.asgi import Response
from feedgenerator import Atom1Feed  # type: ignore[import-untyped]

from mirror.queries.changes import KINDS, TITLES, UNEXPECTED, ChangeFilter, ChangesPage, latest_changes
from mirror.queries.crawl import UpstreamSummary, upstreams
from mirror.queries.refs import REFS_READ
from mirror.queries.rows import ChangeRow
from mirror.queries.web_links import WebLinks
from mirror.readable import visible
from mirror.serve.exchange import number_in
from mirror.serve.middleware import PAGE
from mirror.serve.pages.templates import sentence
from mirror.serve.pages.view import Visit
from mirror.times import from_text, moment_of, to_text

PER_PAGE = 50
UNEXPECTED_GROUP = "unexpected"  # the kind, in an address, that stands for all unexpected changes
FILTERS = ("kind", "owner", "upstream", "ref", "repository", "since", "until")

ENTRIES = 50
AUTHORITY = "tag:bitbucket-mirror,2026:"
LATEST = 10


async def history(visit: Visit) -> Response:
    """GET /-/changes: changes of repositories, owners, branches and tags."""
    filters = filters_of(visit)
    wanted, problems = wanted_of(visit, filters)

    def work(connection: sqlite3.Connection) -> tuple[ChangesPage, Mapping[int, str], list[UpstreamSummary]]:
        found = latest_changes(connection, visit.caller, wanted, limit=PER_PAGE)
        return (
            found,
            WebLinks(connection, visit.caller).changes(found.rows),
            upstreams(connection, visit.caller),
        )

    found, web_links, known = await visit.read(work)
    context: dict[str, Any] = {
        "changes": found.rows,
        "web_links": web_links,
        "filters": filters,
        "problems": problems,
        "kinds": {**KINDS, UNEXPECTED_GROUP: tuple(UNEXPECTED)},
        "upstreams": [row.name for row in known],
        "older": found.rows[-1].id if found.more else None,
        "is_later_page": wanted.before is not None,
    }
    return await visit.page("mirror_changes.html", context)


def filters_of(visit: Visit) -> dict[str, str]:
    """Return the filters that the address sets."""
    filters = {name: visit.parameters.get(name, "").strip()[:300] for name in FILTERS}
    return {name: value for name, value in filters.items() if value}


def wanted_of(visit: Visit, filters: dict[str, str], *, paged: bool = True) -> tuple[ChangeFilter, list[str]]:
    """Turn the filters into a ChangeFilter, and list the filters that cannot be read."""
    problems, moments = list[str](), dict[str, str]()
    for name in ("since", "until"):
        try:
            moments[name] = to_text(moment_of(filters[name], visit.now)) if name in filters else ""
        except (ValueError, OverflowError):
            problems.append(
                f"“{filters[name][:60]}” is not a time; write 2026-11-01, 2026-11-01T10:00 or 24h."
            )
    kind = filters.get("kind", "")
    known = any(kind in kinds for kinds in KINDS.values())
    unexpected = tuple(UNEXPECTED) if kind == UNEXPECTED_GROUP else (kind,) if kind in UNEXPECTED else ()
    if kind and not (known or kind in KINDS or unexpected):
        problems.append(f"“{kind[:60]}” is not a kind of change.")
    repository_id = number_in(filters.get("repository", ""), digits=15)
    if "repository" in filters and repository_id is None:
        problems.append(f"“{filters['repository'][:60]}” is not the number of a repository.")
    wanted = ChangeFilter(
        kinds=KINDS.get(kind) or ((kind,) if known else ()),  # a group of kinds, or one
        unexpected=unexpected,
        owner=filters.get("owner", ""),
        upstream=filters.get("upstream", ""),
        ref=filters.get("ref", ""),
        repository_id=repository_id,
        since=moments.get("since", ""),
        until=moments.get("until", ""),
        before=visit.number("before", 0, 2**62) or None if paged else None,
    )
    return wanted, problems


async def feed(visit: Visit) -> Response:
    """GET /-/changes.atom: the latest changes for feed readers, with the same filters.

    A filter that cannot be read selects nothing, and the title names it: with all changes in the feed, nobody
    would notice.
    """
    filters = filters_of(visit)
    wanted, problems = wanted_of(visit, filters, paged=False)

    def work(connection: sqlite3.Connection) -> tuple[list[ChangeRow], Mapping[int, str]]:
        rows = [] if problems else latest_changes(connection, visit.caller, wanted, limit=ENTRIES).rows
        return rows, WebLinks(connection, visit.caller).changes(rows)

    found, web_links = await visit.read(work)
    query = f"?{urlencode(filters)}" if filters else ""
    base = visit.origin
    whose = filters.get("owner") or "the Bitbucket mirror"
    if "repository" in filters:  # an id, whose name the visitor learns only from entries
        whose = next((row.repository for row in found if row.repository), "a repository")
    text = atom(
        found,
        web_links,
        links=visit.links,
        base=base,
        page=base + visit.links.changes(**filters),
        feed=base + visit.links.changes(".atom") + query,
        identity=f"{AUTHORITY}{quote(visit.database.name)}",
        query=query,
        title=problems[0] if problems else f"Changes of {whose}",
    )
    return Response(text, headers=dict(PAGE), content_type="application/atom+xml; charset=utf-8")


class Links(Protocol):
    """Makes the addresses of pages of repositories and owners."""

    def repository(self, full_name: str, row_id: int) -> str:
        """Return a repository's page."""

    def owner(self, username: str | None, row_id: int | None = None) -> str:
        """Return an owner's page."""


class RelatedFeed(Atom1Feed):  # type: ignore[misc]
    """An Atom feed whose entries link to the pages of the upstream."""

    def add_item_elements(self, handler: Any, item: dict[str, Any]) -> None:
        """Write an entry."""
        super().add_item_elements(handler, item)
        if item["related"] is not None:
            handler.addQuickElement("link", "", {"rel": "related", "href": item["related"]})


def atom(
    found: Sequence[ChangeRow],
    web_links: Mapping[int, str],
    *,
    links: Links,
    base: str,
    page: str,
    feed: str,
    identity: str,
    title: str,
    query: str = "",
    names: Mapping[int, str] | None = None,
) -> str:
    """Return a feed of changes.

    :param web_links: the upstream's pages, by the ids of the changes.
    :param base: stands before each address of `links`.
    :param page: the address of the page that shows the changes.
    :param feed: the address of the feed itself.
    :param identity: begins the ids in the feed, which therefore do not depend on addresses.
    :param names: end the ids instead of the ids of the changes, where those are not stable.
    """
    written = RelatedFeed(
        title=visible(title),
        link=page,
        description="Changes that the mirror has seen",
        feed_url=feed,
        feed_guid=f"{identity}/changes{query}",
        author_name="bitbucket-mirror",
    )
    for change in found:
        at = from_text(change.at)
        if change.repository is not None:
            subject = links.repository(change.repository, change.repository_id or 0)
        else:
            subject = links.owner(change.owner, change.owner_id)
        written.add_item(
            title=visible(sentence(change)),
            link=base + subject,
            description=visible(_details(change, web_links.get(change.id))),
            related=web_links.get(change.id),
            unique_id=f"{identity}/change/{names[change.id] if names else change.id}",
            pubdate=at,
            updateddate=at,
            categories=(change.kind,),
        )
    if not found:
        written.latest_post_date = lambda: datetime.fromtimestamp(0, UTC)
    text: str = written.writeString("utf-8")
    return text


def _details(change: ChangeRow, web_link: str | None) -> str:
    """Describe a change in the simple HTML of feeds; `web_link` is its page at the upstream."""
    lines = [escape(sentence(change))]
    if change.refs not in (None, REFS_READ):
        lines.append(f"branches and tags: {change.refs}")
    values = [("old", change.old), ("new", change.new)]
    lines += [f"{name}: <code>{escape(value[:500])}</code>" for name, value in values if value]
    if web_link is not None:
        lines.append(f'<a href="{escape(web_link)}">{escape(web_link)}</a>')
    return "<br>".join(lines)


async def unexpected_page(visit: Visit) -> Response:
    """GET /-/unexpected: refs that moved or vanished, repositories gone, published or transferred."""

    def work(connection: sqlite3.Connection) -> dict[str, ChangesPage]:
        return {
            name: latest_changes(connection, visit.caller, ChangeFilter(unexpected=(name,)), limit=LATEST)
            for name in TITLES
        }

    return await visit.page("mirror_unexpected.html", {"found": await visit.read(work), "titles": TITLES})
