"""What a browser may load: a strict policy on the mirror's pages, one as strict as may be on Datasette's own.

Datasette's pages carry four small scripts inside them: exactly these may run, by the hash of what they say,
and no other. Their inline style cannot be told apart so, and is allowed; that nothing comes from elsewhere
holds for all.
"""

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasette

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
