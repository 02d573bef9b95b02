"""Writes that a page of another site has a browser send are refused where a Basic login stands beside them.

A 401 asks for a Basic login, so a browser may keep a token as the password of one, and sends it with every
form that any page posts here. Nothing of a request but its headers tells whose page that was: browsers say it
by `Sec-Fetch-Site` and `Origin`, which no page can change. Programs that are no browsers send neither.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datasette.utils.asgi import Request, Response

from mirror.serve.formats import SAFETY
from mirror.serve.mirrors import served

if TYPE_CHECKING:
    from datasette.app import Datasette

_READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OTHER_SITES = frozenset({"cross-site", "same-site"})
_REFUSAL = {
    "type": "error",
    "error": {
        "message": "Forbidden",
        "detail": "A page of another site sent this, with a login that the browser had kept."
        " Scripts on pages send a token as Bearer.",
    },
}

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def guarded(datasette: "Datasette", application: Application) -> Application:
    """Answer 403 to what foreign pages have a browser write, whatever address it is for."""

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] not in _READING:
            headers = Request(scope, receive).headers
            if is_foreign(headers, served(datasette).config.public_url):
                await Response.json(_REFUSAL, status=403, headers=dict(SAFETY)).asgi_send(send)
                return
        await application(scope, receive, send)

    return answer


def is_foreign(headers: Mapping[str, str], public_url: str) -> bool:
    """Tell whether a Basic login comes from a page that is not this server's."""
    if headers.get("authorization", "").partition(" ")[0].lower() != "basic":
        return False
    if headers.get("sec-fetch-site", "") in _OTHER_SITES:
        return True
    origin = headers.get("origin", "").lower()
    ours = {f"{scheme}://{headers.get('host', '').lower()}" for scheme in ("http", "https")}
    return bool(origin) and origin not in ours and origin != _origin(public_url)


def _origin(address: str) -> str:
    """Return the beginning of an address, as browsers name where a page is from."""
    parts = urlsplit(address.lower())
    return f"{parts.scheme}://{parts.netloc}"
