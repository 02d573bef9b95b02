"""What moved, as an Atom feed; the filters of the page hold, its pages do not."""

import re
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote, urlencode

from datasette.utils.asgi import Response
from feedgenerator import Atom1Feed  # type: ignore[import-untyped]

from mirror.lookup import REFS_READ
from mirror.serve.pages.headers import PAGE
from mirror.serve.pages.history import said_of, wanted_of
from mirror.serve.pages.reads.changes import changes
from mirror.serve.pages.reads.rows import Row
from mirror.serve.pages.visit import Visit
from mirror.serve.pages.wording import sentence
from mirror.times import from_text

ENTRIES = 50
AUTHORITY = "tag:bitbucket-mirror,2026:"

_NOT_XML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]")


async def feed(visit: Visit) -> Response:
    """GET /-/changes.atom: the same, for feed readers; the filters hold, the pages do not."""
    said = said_of(visit)
    wanted, _ = wanted_of(visit, said, limit=ENTRIES, paged=False)
    found = (await visit.read(lambda connection: changes(connection, visit.caller, wanted)))[:ENTRIES]
    return Response(
        _atom(visit, said, found), headers=dict(PAGE), content_type="application/atom+xml; charset=utf-8"
    )


def _atom(visit: Visit, said: dict[str, str], found: list[Row]) -> str:
    """Write the feed; its identities stay the same whatever address the mirror is read under."""
    base = visit.origin
    query = f"?{urlencode(said)}" if said else ""
    name = visit.database.name
    written = Atom1Feed(
        title="Changes of the Bitbucket mirror",
        link=base + visit.links.changes(**said),
        description="What the mirror saw change",
        feed_url=base + visit.links.changes(".atom") + query,
        feed_guid=f"{AUTHORITY}{quote(name)}/changes{query}",
        author_name="bitbucket-mirror",
    )
    for change in found:
        at = from_text(change["at"])
        written.add_item(
            title=_NOT_XML.sub("\ufffd", sentence(change)),
            link=base + _subject(visit, change),
            description=_NOT_XML.sub("\ufffd", _details(change)),
            unique_id=f"{AUTHORITY}{quote(name)}/change/{change['id']}",
            pubdate=at,
            updateddate=at,
            categories=(change["kind"],),
        )
    if not found:
        written.latest_post_date = lambda: datetime.fromtimestamp(0, UTC)
    text: str = written.writeString("utf-8")
    return text


def _subject(visit: Visit, change: Row) -> str:
    if change["repository"] is not None:
        return visit.links.repository(change["repository"], change["repository_id"])
    return visit.links.owner(change["owner"], change["owner_id"])


def _details(change: Row) -> str:
    """Write a change as the small HTML that feeds carry."""
    lines = [escape(sentence(change))]
    if change["refs"] not in (None, REFS_READ):
        lines.append(f"branches and tags: {change['refs']}")
    told = [(name, change[name]) for name in ("old", "new") if change[name]]
    lines += [f"{name}: <code>{escape(str(value)[:500])}</code>" for name, value in told]
    return "<br>".join(lines)
