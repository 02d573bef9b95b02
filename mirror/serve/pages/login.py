"""The login with a token, and the answer for closed pages."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from datasette.utils.asgi import Request, Response

from mirror.serve.auth import LOGIN_SECONDS, is_closed, login_cookie
from mirror.serve.exchange import fields_in, served_of
from mirror.serve.guarded_database import mirrors
from mirror.serve.pages.view import rendered
from mirror.store import tokens
from mirror.store.schema import snapshot_moment

if TYPE_CHECKING:
    from datasette.app import Datasette

PATH = "/-/mirror-login"


async def login_page(datasette: "Datasette", request: Request) -> Response:
    """GET shows the form. POST takes a token and sets a signed cookie, or shows the form again."""
    if request.method in ("GET", "HEAD"):
        return await _form(datasette, request, request.args.get("next") or "/")
    if request.method != "POST":
        return Response.text("Method not allowed", status=405, headers={"Allow": "GET, POST"})
    form = fields_in(await request.post_body())  # the middleware has limited its size
    destination = local_path(form.get("next", "/"))
    token = form.get("token", "").strip()
    for database in mirrors(datasette):
        living = await database.execute_fn(lambda connection: tokens.find(connection, token))
        if living is not None:
            response = Response.redirect(datasette.urls.path(destination))
            response.set_cookie(
                "ds_actor",
                login_cookie(datasette, database, living),
                max_age=LOGIN_SECONDS,
                httponly=True,
                secure=_is_https(request),
            )
            return response
    return await _form(datasette, request, destination, message="That token is not valid.", status=403)


def _is_https(request: Request) -> bool:
    """Return whether browsers use https; behind a proxy `public_url` says so."""
    public_url = served_of(request).config.public_url
    return (urlsplit(public_url).scheme.lower() if public_url else request.scheme) == "https"


async def closed(datasette: "Datasette", request: Request, message: str) -> Response:
    """Answer a request for a closed page: with JSON if the path ends in .json, else with the form."""
    if request.path.endswith(".json"):
        return Response.json({"ok": False, "error": message, "status": 403, "title": "Forbidden"}, status=403)
    return await _form(datasette, request, local_path(request.full_path), message=message, status=403)


async def _form(
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
    """Return where tables and SQL are open to everybody, and the time of the data; None for nowhere."""
    snapshot = served_of(request).snapshot
    database = snapshot.database_in(datasette) if snapshot else None
    if database is None:
        return None
    return {
        "path": str(datasette.urls.database(database.name)),
        "moment": await database.execute_fn(snapshot_moment) or "",
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
