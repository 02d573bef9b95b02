"""Datasette's own pages: linked names, the age of the data, errors, and the login for closed ones."""

import logging
import re
import sqlite3
import sys
from traceback import walk_tb
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from datasette.database import QueryInterrupted
from datasette.utils import actor_matches_allow, add_cors_headers, tilde_decode
from datasette.utils.asgi import Base400, Request, Response
from datasette.views.base import DatasetteError
from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from mirror.errors import LONGEST_MESSAGE
from mirror.queries.crawl import upstreams
from mirror.readable import size_text, visible_html
from mirror.serve.auth import LOGIN_SECONDS, caller_of, is_closed, login_cookie
from mirror.serve.exchange import fields_in, mirror_of, plain_error, served_of, unread
from mirror.serve.guarded_database import mirror_named, mirrors
from mirror.serve.pages.templates import ago, shortened
from mirror.serve.pages.view import rendered
from mirror.serve.urls import SiteLinks, assets
from mirror.store import tokens
from mirror.store.faults import is_busy, known_remedy
from mirror.store.files import snapshot_moment
from mirror.times import utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

DATASETTE = {"datasette", *sys.stdlib_module_names}
"""Packages whose code alone runs where Datasette cannot read an address."""
_UNCHECKED = ("/-/allow-debug", "/-/messages")
# How complaints of SQLite begin about the key of a row that lacks parts, a list in a list, and very long SQL.
_UNBOUND = ("You did not supply a value for binding", "Error binding parameter", "query string is too large")
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

log = logging.getLogger(__name__)
# The names in Datasette's routes for tables, views and stored queries.
_OF_A_TABLE = frozenset({"database", "table", "format"})


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
        return None  # the name does not fit into an address, and the row's id is unknown
    return Markup('<a href="{}"><bdi>{}</bdi></a>').format(to, shortened(value))


def size_cell(datasette: "Datasette", database: str, value: Any) -> Markup | None:
    """Write the size of a repository; None leaves the cell to Datasette."""
    if not isinstance(value, int) or mirror_named(datasette, database) is None:
        return None
    return Markup('<span title="{:,} bytes">{}</span>').format(value, size_text(value).replace(" ", "\xa0"))


def stylesheets(datasette: "Datasette", database: str | None, request: Request | None) -> list[str]:
    """Return the stylesheets to add to Datasette's pages of a mirror."""
    is_ours = request is not None and _mirror_of(datasette, database, request) is not None
    return [assets()[name].address for name in STYLES] if is_ours else []


def _mirror_of(datasette: "Datasette", database: str | None, request: Request) -> "Database | None":
    """Return the mirror of a page. Pages without a database, like errors, belong to the first mirror."""
    return mirror_named(datasette, database) if database else mirror_of(request)


async def _may_look(datasette: "Datasette", actor: Any, name: str) -> bool:
    """Return whether the operator's permissions let an actor see the pages of a mirror."""
    allowed = datasette.metadata("allow", database=name, fallback=False)
    if not actor_matches_allow(actor, allowed):
        return False
    return bool(await datasette.permission_allowed(actor, "view-instance", default=True))


async def template_variables(
    datasette: "Datasette", template: str | None, database: str | None, request: Request | None
) -> dict[str, Any]:
    """Return the template variables for the bar and the footer of Datasette's pages of a mirror."""
    if request is None or (template or "").startswith("mirror_"):
        return {}
    found = _mirror_of(datasette, database, request)
    if found is None:
        return {}
    if database is None and not await _may_look(datasette, request.actor, found.name):
        return {}

    caller = caller_of(request.actor, found.name)

    def read(connection: sqlite3.Connection) -> list[str]:
        now, moment = utc_now(), snapshot_moment(connection)
        dated = [] if moment is None else [f"a published snapshot of {ago(moment, now)}"]
        known = upstreams(connection, caller)
        return dated + [f"{one.name}: complete {ago(one.complete_at, now)}" for one in known]

    text = ", ".join(await found.read(read))
    is_open = not await is_closed(datasette, None, found.name)
    return {
        "mirror_foot": {
            "text": text,
            "status": datasette.urls.path("/-/mirror-status"),
            "is_open": is_open,
        },
        "assets": {name: datasette.urls.path(one.address) for name, one in assets().items()},
        "links": SiteLinks(datasette.urls.path, str(found.route or found.name)),
    }


def labelled(page: Markup, headings: int = 0) -> Markup:
    """Label the fields of Datasette's filters for screen readers, correct headings, drop links to nothing.

    :param headings: how many h3 become h2, from the first one; 0 means all.
    """
    # Only text of Datasette's templates can match: in values from a file, each < and each quote is escaped.
    text = str(page)
    for field, name in LABELS.items():
        text = text.replace(f' name="{field}', f' aria-label="{name}" name="{field}')
    text = re.sub("<h3>(.*?)</h3>", r"<h2>\1</h2>", text, count=headings, flags=re.DOTALL)
    text = re.sub('<a href="[^"]*">None(,None)+</a>', "", text)  # a row whose keys are withheld has no page
    return Markup(text)  # noqa: S704 - what Datasette's template rendered


def answered(page: Markup) -> Markup:
    """Change the heading above the result of a stored query to Answer."""
    plain = str(page)
    for heading, replacement in HEADINGS.items():
        if f"<h2>{heading}" in plain:
            return Markup(plain.replace(f"<h2>{heading}", f"<h2>{replacement}", 1))  # noqa: S704 - as above
    return page


def readable(page: Markup) -> Markup:
    """Make hidden characters visible in a part of a page."""
    return Markup(visible_html(str(page)))  # noqa: S704 - as above


def last_name(path: str) -> str:
    """Return the last name in a path, as a search for a page that does not exist."""
    return unquote(path.rstrip("/").rpartition("/")[2], errors="replace")[:100]


def install(env: Environment, folder: str) -> None:
    """Add the plugin's templates after those of the operator and before Datasette's own."""
    env.filters |= {"labelled": labelled, "answered": answered, "readable": readable, "last_name": last_name}
    found = env.loader
    if not isinstance(found, ChoiceLoader) or not isinstance(found.loaders[0], FileSystemLoader):
        env.loader = ChoiceLoader([*([found] if found else []), FileSystemLoader(folder)])
        return
    paths = [path for path in found.loaders[0].searchpath if path != folder]
    env.loader = ChoiceLoader([FileSystemLoader([*paths[:-1], folder, paths[-1]]), *found.loaders[1:]])


async def is_post_to_reading(datasette: "Datasette", request: Request) -> bool:
    """Return whether a request is a POST to a table, a view or a stored query that does not write."""
    names = request.scope.get("url_route", {}).get("kwargs", {})
    if request.method != "POST" or names.keys() != _OF_A_TABLE:
        return False
    database = datasette.get_database(route=tilde_decode(names["database"]))
    query = await datasette.get_canned_query(database.name, tilde_decode(names["table"]), request.actor)
    return not (query and query.get("write"))


async def error_page(datasette: "Datasette", request: Request, exception: Exception) -> Response:
    """Return the response to an exception, as JSON if the path ends in .json; log unexpected ones."""
    if not isinstance(exception, Base400) and await is_post_to_reading(datasette, request):
        return Response.text("Method not allowed", status=405)  # the middleware adds the allowed ones
    # Datasette's own reads have the time limit of SQL, too.
    fault = exception.e if isinstance(exception, QueryInterrupted) else exception
    if isinstance(fault, sqlite3.DatabaseError) and (is_busy(fault) or known_remedy(str(fault))):
        # Rendering a page would read the file again.
        return plain_error(request.scope, unread(request.path, fault))
    status, title, message = _explained(exception, request)
    info: dict[str, Any] = exception.error_dict if isinstance(exception, DatasetteError) else {}
    return await _shown(datasette, request, {**info, "status": status, "title": title, "error": message})


def _explained(error: Exception, request: Request) -> tuple[int, str | None, Any]:
    """Return the status, the title and the message for an error; log one that nobody expected."""
    if isinstance(error, DatasetteError):
        return _of_datasette(error, request)
    if isinstance(error, Base400):
        return error.status, None, str(error)
    if isinstance(error, OSError | ValueError) and request.path.startswith("/-/static"):
        return 404, None, "File not found"  # the name is too long for a file
    if _is_of_the_address(error, request):
        return 400, None, "Something in this address is missing or cannot be read."
    log.error("%s %s", request.method, request.path, exc_info=error)
    return 500, None, "The mirror could not answer; its log says why."


async def _shown(datasette: "Datasette", request: Request, info: dict[str, Any]) -> Response:
    """Return the response with the status, the title and the message of an error."""
    status, message = info["status"], info["error"]
    is_json = request.path.endswith(".json")
    if not isinstance(message, Markup):
        message = shortened(message, LONGEST_MESSAGE)
    elif is_json:  # without the statement, which the sender has
        message = message.partition("<pre>")[0].striptags()
    headers: dict[str, str] = {}
    if datasette.cors:
        add_cors_headers(headers)
    info |= {"ok": False, "error": message}
    if is_json:
        return Response.json(info, status=status, headers=headers)
    body = await datasette.render_template([f"{status}.html", "error.html"], info, request=request)
    return Response.html(body, status=status, headers=headers)


def _is_of_the_address(error: Exception, request: Request) -> bool:
    """Return whether Datasette's own code failed, which reads some addresses and forms without checks."""
    if "database" in request.url_vars and str(error).startswith(_UNBOUND):
        return True
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    # A file of this program, or a plugin's, has a fault that the log must tell.
    is_unchecked = "database" in request.url_vars or request.path in _UNCHECKED
    return is_unchecked and DATASETTE.issuperset(name.partition(".")[0] for name in modules)


_FIELD = re.compile("<textarea[^>]*>(.*)</textarea>.*</script>", re.DOTALL)


def _of_datasette(error: DatasetteError, request: Request) -> tuple[int, str | None, Any]:
    """Return the status, the title and the message of an error of Datasette's."""
    message = str(error.message)
    if message.startswith(("Cannot sort ", "Cannot use ", "Invalid _through")):  # Datasette says 500
        return 400, error.title, message
    if "pks" in request.url_vars and message.startswith("no such table: "):  # a row; Datasette says 400
        return 404, None, "Table not found"
    if error.message_is_html:  # of SQL that took too long: a field that only a script makes high enough
        return error.status, error.title, Markup(_FIELD.sub(r"<pre>\1</pre>", message))  # noqa: S704
    return error.status, error.title, message


LOGIN = "/-/mirror-login"
_REFUSALS = {
    "view-database-download": "To download this file, you need a token of the whole mirror.",
    "view-instance": "You do not have permission to view this server",
    "view-database": "You do not have permission to view this database",
}
"""Sentences for permissions that Datasette calls by their names alone."""


async def login_page(datasette: "Datasette", request: Request) -> Response:
    """GET shows the form. POST takes a token and sets a signed cookie, or shows the form again."""
    if request.method in ("GET", "HEAD"):
        return await _login_form(datasette, request, request.args.get("next") or "/")
    if request.method != "POST":
        return Response.text("Method not allowed", status=405, headers={"Allow": "GET, POST"})
    form = fields_in(await request.post_body())  # the middleware has limited its size
    destination = local_path(form.get("next", "/"))
    token = form.get("token", "").strip()
    for database in mirrors(datasette):
        living = await database.read(lambda connection: tokens.find(connection, token))
        if living is not None:
            public_url = served_of(request).config.public_url  # what browsers use, if a proxy is in front
            is_https = (urlsplit(public_url).scheme.lower() if public_url else request.scheme) == "https"
            response = Response.redirect(datasette.urls.path(destination))
            response.set_cookie(
                "ds_actor",
                login_cookie(datasette, database, living),
                max_age=LOGIN_SECONDS,
                httponly=True,
                secure=is_https,
            )
            return response
    return await _login_form(datasette, request, destination, message="That token is not valid.", status=403)


async def closed(datasette: "Datasette", request: Request, message: str) -> Response:
    """Answer a request for a closed page: with JSON if the path ends in .json, else with the form."""
    message = _REFUSALS.get(message, message)
    if request.path.endswith(".json"):
        return Response.json({"ok": False, "error": message, "status": 403, "title": "Forbidden"}, status=403)
    return await _login_form(datasette, request, local_path(request.full_path), message=message, status=403)


async def _login_form(
    datasette: "Datasette", request: Request, destination: str, *, message: str = "", status: int = 200
) -> Response:
    closed = [await is_closed(datasette, None, one.name) for one in mirrors(datasette)]
    context: dict[str, Any] = {
        "message": message,
        "next": local_path(destination),
        "is_closed": any(closed),
        "public_snapshot": await _snapshot_of(datasette, request),
    }
    return await rendered(datasette, request, "mirror_login.html", context, status=status)


async def _snapshot_of(datasette: "Datasette", request: Request) -> dict[str, str] | None:
    """Return the path of the database that is open to everybody, and the time of its data."""
    snapshot = served_of(request).snapshot
    database = snapshot.database_in(datasette) if snapshot else None
    if database is None:
        return None
    return {
        "path": str(datasette.urls.database(database.name)),
        "moment": await database.read(snapshot_moment) or "",
    }


def local_path(text: str) -> str:
    """Return the path to redirect to; an address of another server becomes the home page."""
    try:
        parts = urlsplit(text)
    except ValueError:  # an unbalanced bracket
        return "/"
    if parts.scheme or parts.netloc or not text.startswith("/") or text.startswith(("//", "/\\")):
        return "/"
    return quote(text, safe="/?&=%:;,@!$'()*+~.-_[]")
