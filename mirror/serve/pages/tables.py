"""Datasette's own pages of a mirror: names lead to our pages, column notes fold, the foot says its age."""

import sqlite3
from typing import TYPE_CHECKING, Any

from datasette.utils.asgi import Request
from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from mirror.serve.mirrors import mirror_named
from mirror.serve.pages.assets import assets
from mirror.serve.pages.links import Links
from mirror.serve.pages.reads.upstreams import upstreams
from mirror.serve.pages.wording import ago, shortened
from mirror.times import utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

REPOSITORIES = ("full_name", "repository")
OWNERS = ("owner", "username")
STYLE = "datasette.css"


def cell(datasette: "Datasette", database: str, column: str, row: Any, value: Any) -> Markup | None:
    """Link a repository's or an owner's name to its page; None leaves the cell to Datasette."""
    if column not in (*REPOSITORIES, *OWNERS) or not isinstance(value, str) or not value:
        return None
    if mirror_named(datasette, database) is None:
        return None
    links = Links(datasette.urls.path, database)
    row_id = next((row[key] for key in ("repository_id", "id") if key in row.keys()), 0)  # noqa: SIM118
    if column in REPOSITORIES and "/" not in value:
        return None
    to = links.repository(value, row_id) if column in REPOSITORIES else links.owner(value, row_id)
    return Markup('<a href="{}"><bdi>{}</bdi></a>').format(to, shortened(value))


def style(datasette: "Datasette", database: str | None) -> list[str]:
    """Return the stylesheet that Datasette's pages of a mirror take beside their own."""
    is_mirrors = database is not None and mirror_named(datasette, database) is not None
    return [assets()[STYLE].address] if is_mirrors else []


async def foot(datasette: "Datasette", database: str | None, request: Request | None) -> dict[str, Any]:
    """Say under every table how current the mirror is; nothing under those of other databases."""
    found = mirror_named(datasette, database) if database else None
    if found is None or request is None:
        return {}

    def read(connection: sqlite3.Connection) -> list[str]:
        now = utc_now()
        return [f"{one['name']}: complete {ago(one['complete_at'], now)}" for one in upstreams(connection)]

    said = ", ".join(await found.execute_fn(read))
    return {"mirror_foot": {"said": said, "status": datasette.urls.path("/-/mirror-status")}}


def install(env: Environment, folder: str) -> None:
    """Put the plugin's templates behind those of the operator, and before Datasette's own."""
    found = env.loader
    if not isinstance(found, ChoiceLoader) or not isinstance(found.loaders[0], FileSystemLoader):
        env.loader = ChoiceLoader([*([found] if found else []), FileSystemLoader(folder)])
        return
    paths = [path for path in found.loaders[0].searchpath if path != folder]
    env.loader = ChoiceLoader([FileSystemLoader([*paths[:-1], folder, paths[-1]]), *found.loaders[1:]])
