"""What a page of another site has a browser send is refused, whatever the address, unless it only reads.

Such a page could log a visitor in as somebody else, or out; and a browser keeps a Basic login that a 401
asked for, and sends it with every form that any page posts here. Nothing of a request but its headers tells
whose page that was: browsers say it by `Sec-Fetch-Site` and `Origin`, which no page can change. Programs that
are no browsers send neither. A Bearer is never sent by a browser on its own: a script that sends one may.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datasette.utils.asgi import Request, Response

from mirror.serve.bodies import READING, Application
from mirror.serve.formats import SAFETY
from mirror.serve.mirrors import served

if TYPE_CHECKING:
    from datasette.app import Datasette

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


def guarded(datasette: "Datasette", application: Application) -> Application:
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
