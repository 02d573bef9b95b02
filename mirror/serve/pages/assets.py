"""The stylesheet, the script and the icon: each under a name that holds its content's hash, kept for ever."""

import hashlib
from functools import cache
from pathlib import Path

import msgspec
from datasette.utils.asgi import Request, Response

FOLDER = Path(__file__).parent.parent / "static"
PATTERN = r"^/-/mirror-assets/(?P<name>[\w.-]+)$"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_EVER = "public, max-age=31536000, immutable"


class Asset(msgspec.Struct, frozen=True):
    """A file that pages refer to."""

    address: str
    body: str
    content_type: str


@cache
def assets() -> dict[str, Asset]:
    """Read the files once; keys are their names in the folder."""
    found = dict[str, Asset]()
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in TYPES:
            body = path.read_text("utf-8")
            digest = hashlib.sha256(body.encode()).hexdigest()[:12]
            address = f"/-/mirror-assets/{path.stem}.{digest}{path.suffix}"
            found[path.name] = Asset(address, body, TYPES[path.suffix])
    return found


async def asset(request: Request) -> Response:
    """Answer with a file; a name of another release is not found, so that nothing old is kept as new."""
    wanted = f"/-/mirror-assets/{request.url_vars['name']}"
    for one in assets().values():
        if one.address == wanted:
            headers = {"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"}
            body = "" if request.method == "HEAD" else one.body
            return Response(body, headers=headers, content_type=one.content_type)
    return Response.text("There is no such file; reload the page that asked for it.", status=404)


# Datasette keeps every answer to somebody who is logged in out of all caches, but for its own static files.
asset._datasette_static = True  # type: ignore[attr-defined]  # noqa: SLF001
