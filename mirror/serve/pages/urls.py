"""All addresses in pages, made from names with any characters; and the static files.

The names of the stylesheets, the script and the icon contain a hash, so browsers may cache them for ever.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from datasette.utils import tilde_encode
from datasette.utils.asgi import Request, Response

FOLDER = Path(__file__).parent.parent / "static"
ASSETS = r"^/-/mirror-assets/(?P<name>[\w.-]+)$"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_EVER = "public, max-age=31536000, immutable"
LONGEST = 500
"""The longest name in a path, in bytes. A longer one is replaced by the id of the row: servers limit paths.
"""


class SiteLinks:
    """Addresses on this server; `base` adds Datasette's `base_url` to a path."""

    def __init__(self, base: Callable[[str], str], database: str) -> None:
        self._base = base
        self._database = database

    def path(self, path: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Return an address with the parameters that have a value."""
        present = {key: value for key, value in (parameters or {}).items() if value not in (None, "", False)}
        return str(self._base(path)) + (f"?{urlencode(present, errors='replace')}" if present else "")

    def repository(self, full_name: str, row_id: int, **parameters: Any) -> str:
        """Return a repository's page."""
        named = _segments(full_name)
        if named is None:
            return self.path("/-/r", {"id": row_id, **parameters})
        return self.path(f"/-/r/{named}", parameters)

    def owner(self, username: str | None, row_id: int | None = None, **parameters: Any) -> str:
        """Return an owner's page."""
        segment = _segment(username or "")
        if segment is None:
            return self.path("/-/u", {"id": row_id, **parameters})
        return self.path(f"/-/u/{segment}", parameters)

    def search(self, form: str = "", **parameters: Any) -> str:
        """Return a search; `form` is a suffix like ``.json``."""
        return self.path(f"/-/search{form}", parameters)

    def refs(self, form: str = "", **parameters: Any) -> str:
        """Return a search for branches and tags; `form` is a suffix like ``.json``."""
        return self.path(f"/-/refs{form}", parameters)

    def changes(self, form: str = "", **parameters: Any) -> str:
        """Return the list of changes; `form` is a suffix like ``.atom``."""
        return self.path(f"/-/changes{form}", parameters)

    def numbered(self, full_name: str, row_id: int) -> str:
        """Return the page of a repository by the id of its row, since it shares its name with another."""
        del full_name
        return self.path("/-/r", {"id": row_id})

    def pages(self) -> tuple[tuple[str, str, str], ...]:
        """Return the links of the navigation bar: name, title, address."""
        return (
            ("search", "Search", self.search()),
            ("changes", "Changes", self.changes()),
            ("questions", "Questions", self.path("/-/questions")),
            ("status", "Status", self.path("/-/mirror-status")),
            ("tables", "Tables", self.tables()),
        )

    def tables(self) -> str:
        """Return the list of tables; without a mirror, of all attached databases."""
        return self.path(f"/{tilde_encode(self._database)}" if self._database else "/-/index")

    def table(self, table: str, **parameters: Any) -> str:
        """Return one of Datasette's tables, or a stored query."""
        return self.path(f"/{tilde_encode(self._database)}/{tilde_encode(table)}", parameters)

    def row(self, table: str, key: object) -> str:
        """Return one of Datasette's rows."""
        return self.path(f"/{tilde_encode(self._database)}/{tilde_encode(table)}/{tilde_encode(str(key))}")

    def sql(self, sql: str, **values: Any) -> str:
        """Return the page of an SQL query and its result."""
        return self.path(f"/{tilde_encode(self._database)}", {"sql": sql, **values})

    def api(self, prefix: str, full_name: str) -> str | None:
        """Return a repository's address in an API; None if its name does not fit into a path."""
        named = _segments(full_name)
        return None if named is None else self.path(f"{prefix}/repositories/{named}")


def _segments(full_name: str) -> str | None:
    """Return a full name as a path; None if it cannot be one."""
    owner, slash, slug = full_name.partition("/")
    parts = [_segment(owner), _segment(slug)]
    return "/".join(filter(None, parts)) if slash and all(parts) else None


def _segment(name: str) -> str | None:
    """Quote a name for a path; None if browsers would read it differently, or it is too long."""
    if not name or name in (".", "..") or "/" in name or "\x00" in name:
        return None
    segment = quote(name, safe="", errors="replace")
    return segment if len(segment) <= LONGEST else None


class Asset(msgspec.Struct, frozen=True):
    """A file that pages refer to."""

    address: str
    body: str
    content_type: str


@cache
def assets(folder: Path = FOLDER) -> dict[str, Asset]:
    """Read the files once; keys are their names in the folder."""
    found = dict[str, Asset]()
    for path in sorted(folder.iterdir()):
        if path.suffix in _TYPES:
            body = path.read_text("utf-8")
            digest = hashlib.sha256(body.encode()).hexdigest()[:12]
            address = f"/-/mirror-assets/{path.stem}.{digest}{path.suffix}"
            found[path.name] = Asset(address, body, _TYPES[path.suffix])
    return found


async def asset(request: Request) -> Response:
    """Answer with a static file. A name with the hash of another release is not found."""
    wanted = f"/-/mirror-assets/{request.url_vars['name']}"
    for one in assets().values():
        if one.address == wanted:
            headers = {"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"}
            body = "" if request.method == "HEAD" else one.body
            return Response(body, headers=headers, content_type=one.content_type)
    return Response.text("There is no such file; reload the page.", status=404)


# Datasette forbids caching for users who are logged in, except for its own static files.
asset._datasette_static = True  # type: ignore[attr-defined]  # noqa: SLF001
