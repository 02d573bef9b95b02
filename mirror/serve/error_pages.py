"""Error responses. They replace Datasette's, whose handler prints all local variables, even secrets."""

import logging
import sqlite3
from typing import TYPE_CHECKING, Any

from datasette.utils import add_cors_headers, tilde_decode
from datasette.utils.asgi import Base400, Request, Response
from datasette.views.base import DatasetteError
from markupsafe import Markup

from mirror.serve.exchange import SAFETY, ApiError, AsgiScope, unread
from mirror.store.files import known_remedy

if TYPE_CHECKING:
    from datasette.app import Datasette

log = logging.getLogger(__name__)

_OF_A_TABLE = frozenset({"database", "table", "format"})
"""The names in Datasette's routes for tables, views and stored queries."""


def plain_error(scope: AsgiScope, error: ApiError) -> Response:
    """Return an error without rendering a page: as JSON in Datasette's form, or as plain text."""
    text = " ".join(str(one) for one in error.body["error"].values())
    headers = {**SAFETY, **error.headers, "Cache-Control": "no-store"}
    if scope["path"].endswith(".json"):
        body = {"ok": False, "error": text, "status": error.status, "title": str(error)}
        return Response.json(body, status=error.status, headers=headers)
    return Response.text(text, status=error.status, headers=headers)


def not_allowed() -> Response:
    """Refuse a method; `mirror.serve.middleware` adds the allowed ones."""
    return Response.text("Method not allowed", status=405)


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
        return not_allowed()
    info: dict[str, Any] = {}
    title: str | None = None
    message: Any = str(exception)
    if isinstance(exception, Base400):
        status = exception.status
    elif isinstance(exception, DatasetteError):
        status, title = exception.status, exception.title
        info = dict(exception.error_dict)
        message = Markup(exception.message) if exception.message_is_html else exception.message  # noqa: S704
    elif isinstance(exception, sqlite3.DatabaseError) and known_remedy(str(exception)):
        return plain_error(
            request.scope, unread(request.path, exception)
        )  # rendering a page would read the file again
    elif isinstance(exception, OSError | ValueError) and request.path.startswith("/-/static"):
        status, message = 404, "File not found"  # the name is too long for a file
    else:
        status, message = 500, "The mirror could not answer; its log says why."
        log.error("%s %s", request.method, request.path, exc_info=exception)
    headers: dict[str, str] = {}
    if datasette.cors:
        add_cors_headers(headers)
    info |= {"ok": False, "error": message, "status": status, "title": title}
    if request.path.endswith(".json"):
        return Response.json(info, status=status, headers=headers)
    body = await datasette.render_template([f"{status}.html", "error.html"], info, request=request)
    return Response.html(body, status=status, headers=headers)
