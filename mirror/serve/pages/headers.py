"""What a browser may load: a strict policy on the mirror's pages, a workable one on Datasette's own.

Datasette's pages carry small scripts and styles inside them, so these cannot be forbidden there; that
everything comes from this server alone can.
"""

from collections.abc import Awaitable, Callable
from typing import Any

_SHARED = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    f"manifest-src 'none'; {_SHARED}"
)
DATASETTES = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
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

Message = dict[str, Any]
Application = Callable[[Message, Any, Any], Awaitable[None]]


def guarded(application: Application) -> Application:
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
