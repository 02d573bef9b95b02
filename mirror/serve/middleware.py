"""What stands around every answer: methods, requests from other sites, headers for browsers."""

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import datasette
from datasette.utils import tilde_decode
from datasette.utils.asgi import Request, Response

from mirror.serve.api1.formats import SAFETY
from mirror.serve.body import READING, Application
from mirror.serve.state import served

if TYPE_CHECKING:
    from datasette.app import Datasette

Message = dict[str, Any]

_OWN = frozenset({"same-origin", "none"})
"""What browsers say of this server's own pages, and of what a person does without any page."""

_REFUSAL = {
    "type": "error",
    "error": {
        "message": "Forbidden",
        "detail": "A page of another site sent this. Scripts on pages send a token as Bearer;"
        " behind a proxy that changes Host, configure public_url.",
    },
}


def refusing_foreign(datasette: "Datasette", application: Application) -> Application:
    """Answer 403 to what foreign pages have a browser write, whatever address it is for."""

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] not in READING:
            headers = Request(scope, receive).headers
            if is_foreign(headers, served(datasette).config.public_url):
                await Response.json(_REFUSAL, status=403, headers=dict(SAFETY)).asgi_send(send)
                return
        await application(scope, receive, send)

    return answer


def is_foreign(headers: Mapping[str, str], public_url: str) -> bool:
    """Tell whether a request was sent by a page that is not this server's."""
    if headers.get("authorization", "").partition(" ")[0].lower() == "bearer":
        return False
    site = headers.get("sec-fetch-site", "")
    if site:
        return site not in _OWN
    origin = headers.get("origin", "").lower()
    ours = {f"{scheme}://{headers.get('host', '').lower()}" for scheme in ("http", "https")}
    return bool(origin) and origin not in ours and origin != _origin(public_url)


def _origin(address: str) -> str:
    """Return the beginning of an address, as browsers name where a page is from."""
    parts = urlsplit(address.lower())
    return f"{parts.scheme}://{parts.netloc}"


_KNOWN = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TAKE_POSTS = ("/-/logout", "/-/messages", "/-/mirror-login")
_OF_A_TABLE = frozenset({"database", "table", "format"})
"""What Datasette takes from the addresses of tables, views and stored queries."""


def checked(application: Application, answers_all: Callable[[str], bool]) -> Application:
    """Refuse methods that no view has, and let every 405 name those that there are.

    `answers_all` tells of which paths the views know all methods by themselves.
    """

    async def answer(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        path, allowed = scope["path"], _allowed(scope["path"])

        async def sent(message: Message) -> None:
            await send(_with_allow(message, allowed) if message.get("status") == 405 else message)

        if scope["method"] not in _KNOWN and not answers_all(path):
            await not_allowed().asgi_send(sent)
        else:
            await application(scope, receive, sent)

    return answer


def not_allowed() -> Response:
    """Refuse a method; `checked` adds which ones there are."""
    return Response.text("Method not allowed", status=405)


async def is_post_to_reading(datasette: "Datasette", request: Request) -> bool:
    """Tell whether a POST went to a table, a view or a stored query that does not write."""
    names = request.scope.get("url_route", {}).get("kwargs", {})
    if request.method != "POST" or names.keys() != _OF_A_TABLE:
        return False
    database = datasette.get_database(route=tilde_decode(names["database"]))
    query = await datasette.get_canned_query(database.name, tilde_decode(names["table"]), request.actor)
    return not (query and query.get("write"))


def _allowed(path: str) -> bytes:
    return b"GET, HEAD, POST" if path.endswith(_TAKE_POSTS) else b"GET, HEAD"


def _with_allow(message: Message, allowed: bytes) -> Message:
    headers = list(message.get("headers", ()))
    if all(name.lower() != b"allow" for name, _ in headers):
        headers.append((b"allow", allowed))
    return {**message, "headers": headers}


_SHARED = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    f"manifest-src 'none'; {_SHARED}"
)


def _inline() -> Iterator[str]:
    """Yield the scripts that Datasette's templates carry, as they stand in its pages."""
    templates = Path(datasette.__file__).parent / "templates"
    for name in ("_close_open_menus.html", "_codemirror_foot.html"):
        yield from re.findall("<script>(.*?)</script>", (templates / name).read_text("utf-8"), re.DOTALL)
    yield from (f"DATASETTE_ALLOW_FACET = {said};" for said in ("true", "false"))


_HASHES = " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in _inline())
DATASETTES = (
    f"default-src 'self'; script-src 'self' {_HASHES}; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' data:; {_SHARED}"
)
PAGE = {
    "Content-Security-Policy": STRICT,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_OTHERS = (
    (b"content-security-policy", DATASETTES.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


def with_headers(application: Application) -> Application:
    """Add to every answer the headers that it does not carry yet."""

    async def answer(scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                said = {name.lower() for name, _ in headers}
                headers += [header for header in _OTHERS if header[0] not in said]
                message = {**message, "headers": headers}
            await send(message)

        await application(scope, receive, sent if scope["type"] == "http" else send)

    return answer
