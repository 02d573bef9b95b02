"""Addresses of this server: the prefix under which a proxy publishes it, links in pages, static files.

Inside the server, paths have no prefix, whether or not the proxy strips it. Datasette's `urls` add it to
their links by `base_url`; this module adds it to all others: redirects, cookies, and links that Datasette
makes from the path of the request.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode

import msgspec
from datasette.utils import StartupError, tilde_decode, tilde_encode
from datasette.utils.asgi import Request, Response
from jinja2 import Environment
from markupsafe import Markup

from mirror.addresses import without_login
from mirror.config_checks import PUBLIC_URL
from mirror.errors import ConfigError
from mirror.serve.exchange import Application, AsgiScope, Message, Receive, Send, at_start

if TYPE_CHECKING:
    from datasette.app import Datasette

_TARGET = re.compile(rb"https?://(?:[^/?#]*@)?(?P<host>[^/?#@]+)", re.IGNORECASE)
_COOKIE_PATH = re.compile(rb";\s*path=/(?=;|$)", re.IGNORECASE)
_LINK = re.compile(r'( (?:href|action|src)=")(/[^/"][^"]*|/)(?=")')
# First segments of paths, up to their first dot, that cannot name a database.
_TOP = frozenset({"", "-", "api", "!api", "%21api", "1", "2", "rest", "favicon", "robots"})


def base_of(public_url: str) -> str:
    """Return the path of a configured address, with slashes at both ends; raises ConfigError."""
    if not public_url:
        return "/"
    found = PUBLIC_URL.fullmatch(public_url)
    if found is None:
        raise ConfigError(
            f"public_url = {without_login(public_url)!r}: write it as https://HOST or https://HOST/PATH,"
            " without login, ? and #"
        )
    return f"{found['path']}/"


def origin_of(public_url: str) -> str:
    """Return a configured address without its path."""
    found = PUBLIC_URL.fullmatch(public_url)
    return found["origin"] if found else ""


def check_prefix(datasette: "Datasette", public_url: str) -> None:
    """Raise StartupError if Datasette was started with a prefix other than that of `public_url`."""
    try:
        wanted = base_of(public_url)
    except ConfigError as error:
        raise StartupError(str(error)) from None
    if public_url and wanted != datasette.setting("base_url"):
        raise StartupError(
            f"public_url = {public_url!r} has the path {wanted}: "
            f"start Datasette with --setting base_url {wanted}"
        )


def inner(datasette: "Datasette", path: str) -> str:
    """Return the path of an address without the prefix."""
    base = datasette.setting("base_url")
    if base == "/":
        return path
    # A database may have the same name as the prefix. Then the next segment decides which is meant.
    shared = _is_database(datasette, base.strip("/"))
    if path == base[:-1]:
        return path if shared else "/"
    while path.startswith(base):  # Datasette adds it even to paths that have it
        rest = path[len(base) - 1 :]
        first = rest.split("/")[1].partition(".")[0]
        if shared and first not in _TOP and not _is_database(datasette, first):
            break  # a table of that database
        path = rest
        if not shared:
            break
    return path


def outer(datasette: "Datasette", address: str) -> str:
    """Return a link of this server with the prefix exactly once."""
    path, mark, query = re.fullmatch(r"([^?#]*)([?#]?)(.*)", address, re.DOTALL).groups()  # type: ignore[union-attr]
    return str(datasette.setting("base_url")) + inner(datasette, path)[1:] + mark + query


def install(env: Environment, datasette: "Datasette") -> None:
    """Add the template filter `below_base`, which corrects the links in Datasette's own templates."""

    def below_base(page: Markup) -> Markup:
        # Quotes in values from a file are escaped, so this matches only the templates' own links.
        if datasette.setting("base_url") == "/":
            return page
        text = _LINK.sub(lambda found: found[1] + outer(datasette, found[2]), str(page))
        return Markup(text)  # noqa: S704 - what Datasette's template rendered

    env.filters["below_base"] = below_base


def stripping_prefix(datasette: "Datasette", application: Application) -> Application:
    """Strip the prefix from the path of each request, and add it to redirects and cookies."""

    def with_prefix(message: Message) -> Message:
        headers = [_with_prefix(datasette, name, value) for name, value in message["headers"]]
        return {**message, "headers": headers}

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        await application(_without_prefix(datasette, scope), receive, at_start(send, with_prefix))

    return answer


def in_origin_form(scope: AsgiScope) -> AsgiScope:
    """Return a request whose target is a whole address as a request for its path, others unchanged."""
    # A server must accept both (RFC 9112, 3.2.2), and Jenkins sends the former without a proxy too. The host
    # in the target counts, not the header.
    found = _TARGET.match(scope.get("raw_path") or b"")
    if found is None:
        return scope
    raw = scope["raw_path"][found.end() :] or b"/"
    headers = [(b"host", found["host"]), *(one for one in scope["headers"] if one[0] != b"host")]
    return {**scope, "path": unquote(raw.decode("latin-1")), "raw_path": raw, "headers": headers}


def _without_prefix(datasette: "Datasette", scope: AsgiScope) -> AsgiScope:
    raw = scope.get("raw_path")
    path = raw.decode("latin-1").partition("?")[0] if raw else scope["path"]
    stripped = inner(datasette, path)
    # Datasette strips its `base_url` again, so a path that happens to begin with it is given it twice.
    if stripped.startswith(datasette.setting("base_url")):
        stripped = datasette.setting("base_url") + stripped[1:]
    return {**scope, "path": unquote(stripped), "raw_path": stripped.encode("latin-1")}


def _with_prefix(datasette: "Datasette", name: bytes, value: bytes) -> tuple[bytes, bytes]:
    base = datasette.setting("base_url").encode()
    if name.lower() == b"location" and value.startswith(b"/") and not value.startswith(b"//"):
        return name, outer(datasette, value.decode("latin-1")).encode("latin-1")
    if name.lower() == b"set-cookie":
        return name, _COOKIE_PATH.sub(b"; Path=" + base[:-1], value)
    return name, value


def _is_database(datasette: "Datasette", segment: str) -> bool:
    name = tilde_decode(segment.partition(".")[0])
    return any(name == (database.route or database.name) for database in datasette.databases.values())


FOLDER = Path(__file__).with_name("static")
ASSETS = r"^/-/mirror-assets/(?P<name>[\w.-]+)$"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_EVER = "public, max-age=31536000, immutable"
# The longest name in a path, in bytes. A longer one is replaced by the id of the row: servers limit paths.
LONGEST = 500


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
            # With a hash in its name, browsers may cache a file for ever.
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
