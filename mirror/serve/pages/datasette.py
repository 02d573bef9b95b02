"""Datasette's own pages of a mirror: names lead to our pages, column notes fold, the foot says its age."""

import re
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datasette.utils import actor_matches_allow
from datasette.utils.asgi import Request
from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from mirror.queries.crawl import upstreams
from mirror.serve.access import is_closed
from mirror.serve.database import mirror_named
from mirror.serve.exchange import mirror_of
from mirror.serve.pages.filters import ago, shortened
from mirror.serve.pages.urls import SiteLinks, assets
from mirror.times import utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

REPOSITORIES = ("full_name", "repository")
OWNERS = ("owner", "username")
LABELS = {
    "_filter_column": "Column to filter by",
    "_filter_op": "How to compare",
    "_filter_value": "Value to compare with",
    "_sort": "Column to sort by",
}
HEADINGS = {"Custom SQL query returning": "Answer:", "Custom SQL query": "Answer"}
STYLES = ("mirror.css", "datasette.css")


def cell(datasette: "Datasette", database: str, column: str, row: Any, value: Any) -> Markup | None:
    """Link a repository's or an owner's name to its page; None leaves the cell to Datasette."""
    if column not in (*REPOSITORIES, *OWNERS) or not isinstance(value, str) or not value:
        return None
    if mirror_named(datasette, database) is None:
        return None
    if column in REPOSITORIES and "/" not in value:
        return None
    keys = ("repository_id", "id") if column in REPOSITORIES else ("id",) if column == "username" else ()
    row_id = next((row[key] for key in keys if key in row.keys()), 0)  # noqa: SIM118 - rows iterate values
    links = SiteLinks(datasette.urls.path, database)
    to = links.repository(value, row_id) if column in REPOSITORIES else links.owner(value, row_id)
    if not row_id and urlsplit(to).path.endswith(("/-/r", "/-/u")):
        return None  # a name that fits into no address, of a row whose number nobody said
    return Markup('<a href="{}"><bdi>{}</bdi></a>').format(to, shortened(value))


def style(datasette: "Datasette", database: str | None, request: Request | None) -> list[str]:
    """Return the stylesheets that Datasette's pages of a mirror take beside their own."""
    is_ours = request is not None and _mirror_of(datasette, database, request) is not None
    return [assets()[name].address for name in STYLES] if is_ours else []


def _mirror_of(datasette: "Datasette", database: str | None, request: Request) -> "Database | None":
    """Return the mirror that a page belongs to; those of no database, like errors, belong to the first."""
    return mirror_named(datasette, database) if database else mirror_of(request)


async def _may_look(datasette: "Datasette", actor: Any, name: str) -> bool:
    """Tell whether the operator's rules let somebody see a mirror's pages at all."""
    allowed = datasette.metadata("allow", database=name, fallback=False)
    if not actor_matches_allow(actor, allowed):
        return False
    return bool(await datasette.permission_allowed(actor, "view-instance", default=True))


async def foot(
    datasette: "Datasette", template: str | None, database: str | None, request: Request | None
) -> dict[str, Any]:
    """Give Datasette's pages of a mirror its bar, and say under them how current it is; nothing to others."""
    if request is None or (template or "").startswith("mirror_"):
        return {}
    found = _mirror_of(datasette, database, request)
    if found is None:
        return {}
    if database is None and not await _may_look(datasette, request.actor, found.name):
        return {}

    def read(connection: sqlite3.Connection) -> list[str]:
        now = utc_now()
        return [f"{one.name}: complete {ago(one.complete_at, now)}" for one in upstreams(connection)]

    said = ", ".join(await found.execute_fn(read))
    is_open = not await is_closed(datasette, None, found.name)
    return {
        "mirror_foot": {
            "said": said,
            "status": datasette.urls.path("/-/mirror-status"),
            "is_open": is_open,
        },
        "assets": {name: datasette.urls.path(one.address) for name, one in assets().items()},
        "links": SiteLinks(datasette.urls.path, str(found.route or found.name)),
    }


def labelled(page: Markup, headings: int = 0) -> Markup:
    """Name the fields of Datasette's filters for whoever does not see where they stand, and order headings.

    The first so many headings of the third level become such of the second, 0 for all. Only what stands in
    Datasette's templates is met: in what comes from a file each `<` and each quote is escaped.
    """
    text = str(page)
    for field, name in LABELS.items():
        text = text.replace(f' name="{field}', f' aria-label="{name}" name="{field}')
    text = re.sub("<h3>(.*?)</h3>", r"<h2>\1</h2>", text, count=headings, flags=re.DOTALL)
    return Markup(text)  # noqa: S704 - what Datasette's template rendered


def answered(page: Markup) -> Markup:
    """Call the answer to a stored question an answer."""
    plain = str(page)
    for heading, said in HEADINGS.items():
        if f"<h2>{heading}" in plain:
            return Markup(plain.replace(f"<h2>{heading}", f"<h2>{said}", 1))  # noqa: S704 - as above
    return page


def install(env: Environment, folder: str) -> None:
    """Put the plugin's templates behind those of the operator, and before Datasette's own."""
    env.filters |= {"labelled": labelled, "answered": answered}
    found = env.loader
    if not isinstance(found, ChoiceLoader) or not isinstance(found.loaders[0], FileSystemLoader):
        env.loader = ChoiceLoader([*([found] if found else []), FileSystemLoader(folder)])
        return
    paths = [path for path in found.loaders[0].searchpath if path != folder]
    env.loader = ChoiceLoader([FileSystemLoader([*paths[:-1], folder, paths[-1]]), *found.loaders[1:]])
