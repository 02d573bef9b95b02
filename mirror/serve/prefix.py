"""The path prefix under which a proxy publishes the server, and the origin before it.

Inside the server, paths have no prefix, whether or not the proxy strips it. Datasette's `urls` add it to
their links by `base_url`; this module adds it to all others: redirects, cookies, and links that Datasette
makes from the path of the request.
"""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from datasette.utils import StartupError, tilde_decode
from jinja2 import Environment
from markupsafe import Markup

from mirror.errors import ConfigError
from mirror.serve.exchange import Application, AsgiScope, Message, Receive, Send

if TYPE_CHECKING:
    from datasette.app import Datasette

_ADDRESS = re.compile(r"(?P<origin>https?://[^/?#\s\"'<>]+)(?P<path>(?:/[^/?#\s\"'<>;]+)*)/?", re.IGNORECASE)
_TARGET = re.compile(rb"https?://(?:[^/?#]*@)?(?P<host>[^/?#@]+)", re.IGNORECASE)
_COOKIE_PATH = re.compile(rb";\s*path=/(?=;|$)", re.IGNORECASE)
_LINK = re.compile(r'( (?:href|action|src)=")(/[^/"][^"]*|/)(?=")')
_TOP = frozenset({"", "-", "api", "!api", "%21api", "1", "2", "rest", "favicon", "robots"})
"""First segments of paths, up to their first dot, that cannot name a database."""


def base_of(public_url: str) -> str:
    """Return the path of a configured address, with slashes at both ends; raises ConfigError."""
    if not public_url:
        return "/"
    found = _ADDRESS.fullmatch(public_url)
    if found is None:
        raise ConfigError(
            f"public_url = {public_url!r}: write it as https://HOST or https://HOST/PATH, without ? and #"
        )
    return f"{found['path']}/"


def origin_of(public_url: str) -> str:
    """Return a configured address without its path."""
    found = _ADDRESS.fullmatch(public_url)
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
    """Return the path of an address without the prefix.

    A database may have the same name as the prefix. Then the next segment decides which is meant, and the
    prefix is removed repeatedly, since Datasette adds it even to paths that have it.
    """
    base = datasette.setting("base_url")
    if base == "/":
        return path
    shared = _is_database(datasette, base.strip("/"))
    if path == base[:-1]:
        return path if shared else "/"
    while path.startswith(base):
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

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [_with_prefix(datasette, name, value) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        await application(_without_prefix(datasette, scope), receive, sent)

    return answer


def in_origin_form(scope: AsgiScope) -> AsgiScope:
    """Return a request whose target is a whole address as one for its path; no other is changed.

    A server must accept both (RFC 9112, 3.2.2), and Jenkins sends the former without a proxy too. The host
    in the target counts, not the header.
    """
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
