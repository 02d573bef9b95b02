"""The ASGI middleware around every answer, from the outermost layer inwards.

A request to an API without a cookie skips Datasette's router. The router protects forms, asks plugins for the
actor, and tries all routes, which takes longer than most answers of an API.
"""

import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property, partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from datasette.utils.asgi import Request, Response

from mirror.config_checks import sources_of
from mirror.observe.metrics import WEBHOOK
from mirror.serve.api_edge import Api
from mirror.serve.auth import NotAccepted
from mirror.serve.endings import ending_with_client, reading_rest_of_body
from mirror.serve.exchange import (
    LARGEST_FORM,
    MIRROR,
    SAFETY,
    SERVED,
    ApiError,
    Application,
    AsgiScope,
    BodyRefused,
    Message,
    Receive,
    Send,
    at_start,
    not_accepted,
    plain_error,
    read_within,
    unread,
)
from mirror.serve.guarded_database import mirrors
from mirror.serve.heads import bounding_heads
from mirror.serve.state import served
from mirror.serve.urls import in_origin_form, stripping_prefix

if TYPE_CHECKING:
    from datasette.app import Datasette

READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_KNOWN = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ONLY_READ = re.compile(
    r"^/-/(health|metrics|openapi/.*|static/.*|(actor|config|databases|metadata|plugins|settings|threads|versions)(\.json)?)$"
)
_TAKE_POSTS = ("/-/logout", "/-/messages", "/-/mirror-login")

# `Sec-Fetch-Site` of requests from pages of this server, and of those that no page sends.
_OWN = frozenset({"same-origin", "none"})

_CROSS_SITE = {
    "type": "error",
    "error": {
        "message": "Forbidden",
        "detail": "A page of another site sent this. Scripts on pages send a token as Bearer;"
        " behind a proxy that changes Host, configure public_url.",
    },
}

_REFUSAL_HEADERS = {**SAFETY, "Referrer-Policy": "same-origin"}

# Labels of latencies, by path. Other paths are tables and SQL. A path itself never becomes a label.
_KINDS = (
    ("api1", re.compile(r"^/(?:(?:!|%21)?api/)?1\.0(/|$)")),
    ("api2", re.compile(r"^/(?:(?:!|%21)?api/)?2\.0(/|$)")),
    ("datacenter", re.compile(r"^/rest(/|$)")),
    ("search", re.compile(r"^/-/(search|refs)")),
    (WEBHOOK, re.compile(r"^/-/webhook/")),
    ("watch", re.compile(r"^/-/(health|metrics)$")),
    ("page", re.compile(r"^/(-/.*)?$")),
)

SHARED = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_SELF = "'self'"
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "default-src": (_SELF,),
    "script-src": (_SELF,),
    "style-src": (_SELF, "'unsafe-inline'"),
    "img-src": (_SELF, "data:"),
}

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    f"manifest-src 'none'; {SHARED}"
)
PAGE = {
    "Content-Security-Policy": STRICT,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_POLICY = b"content-security-policy"
_VARY = (b"Cookie", b"Authorization")
_OWN_PLUGINS = ("datasette.", "mirror.")
_REFERRER = (b"referrer-policy", b"same-origin")
_PLAIN = ((b"x-content-type-options", b"nosniff"), _REFERRER)


class PagePolicy:
    """The content policy of a page of Datasette: scripts of templates and of plugins run, no others."""

    def __init__(self) -> None:
        self.styles = dict[str, None]()

    @cached_property
    def nonce(self) -> str:
        """The nonce of scripts in templates, made when the first one needs it."""
        return secrets.token_urlsafe(16)

    def header(self, added: Mapping[str, tuple[str, ...]]) -> str:
        """Return the value of the header, with the sources that the operator added."""
        allowed = {**_ALLOWED}
        if "nonce" in self.__dict__:
            allowed["script-src"] = (*allowed["script-src"], f"'nonce-{self.nonce}'")
        allowed["style-src"] = (*allowed["style-src"], *self.styles)
        for directive, sources in added.items():
            allowed[directive] = (*allowed.get(directive, (_SELF,)), *sources)
        return "; ".join([*(" ".join((name, *sources)) for name, sources in allowed.items()), SHARED])


# The content policy of the page that is being rendered.
current_policy: ContextVar[PagePolicy | None] = ContextVar("policy", default=None)


def wrapped(
    datasette: "Datasette",
    application: Application,
    is_for_programs: Callable[[str], bool],
    apis: Sequence[Api],
) -> Application:
    """Put all middleware around Datasette. Requests that `apis` can answer by themselves skip its router.

    :param is_for_programs: returns whether a path belongs to an API or a webhook. Their views read bodies and
        refuse methods themselves.
    """
    inside = bounding_bodies(answering_errors(application), is_for_programs)
    inside = adding_headers(checking_methods(inside, is_for_programs))
    inside = bounding_heads(passing_router(datasette, inside, apis), is_for_programs)
    inside = measuring(datasette, refusing_cross_site(inside))
    if datasette.setting("base_url") != "/":
        inside = stripping_prefix(datasette, inside)
    inside = reading_rest_of_body(ending_with_client(inside))
    server = served(datasette)

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        mirror = next(mirrors(datasette), None)
        if server.snapshot is not None and mirror is not None:
            server.snapshot.attach(datasette)
        if not (scope.get("raw_path") or b"/").startswith(b"/"):
            scope = in_origin_form(scope)
        await inside({**scope, SERVED: server, MIRROR: mirror}, receive, send)

    return answer


def measuring(datasette: "Datasette", application: Application) -> Application:
    """Measure how long answers take."""
    server = served(datasette)

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 500  # the server sends 500 if the application fails

        def noted(message: Message) -> Message:
            nonlocal status
            status = message["status"]
            return message

        try:
            await application(scope, receive, at_start(send, noted))
        finally:
            server.latencies.answered(kind_of(scope["path"]), status, time.perf_counter() - began)

    return answer


def kind_of(path: str) -> str:
    """Return the label of a path."""
    return next((name for name, pattern in _KINDS if pattern.match(path)), "table")


def adding_headers(application: Application) -> Application:
    """Add the security headers that an answer does not have yet."""

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        policy = PagePolicy()
        current_policy.set(policy)

        def with_headers(message: Message) -> Message:
            # ASGI wants names in lower case: datasette-gzip, around this, replaces no others.
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            present = {name for name, _ in headers}
            headers += [header for header in _PLAIN if header[0] not in present]
            if _POLICY not in present:
                added = sources_of(scope[SERVED].config.csp)
                headers.append((_POLICY, policy.header(added).encode("ascii")))
            return {**message, "headers": headers}

        await application(scope, receive, at_start(send, with_headers))

    return answer


def checking_methods(application: Application, answers_all: Callable[[str], bool]) -> Application:
    """Refuse unknown methods, and add the allowed ones to every 405.

    :param answers_all: returns whether the view of a path handles all methods itself.
    """

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        allowed = b"GET, HEAD, POST" if path.endswith(_TAKE_POSTS) else b"GET, HEAD"

        def with_allowed(message: Message) -> Message:
            headers = message.get("headers", ())
            if message["status"] != 405 or any(name.lower() == b"allow" for name, _ in headers):
                return message
            return {**message, "headers": [*headers, (b"allow", allowed)]}

        known = _KNOWN & READING if _ONLY_READ.match(path) else _KNOWN
        if scope["method"] not in known and not answers_all(path):
            refusal = Response.text("Method not allowed", status=405)
            await refusal.asgi_send(at_start(send, with_allowed))
        else:
            await application(scope, receive, at_start(send, with_allowed))

    return answer


def refusing_cross_site(application: Application) -> Application:
    """Protect against cross-site requests: answer 403 to writes that a page of another site sends."""

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        # Browsers add a cached Basic login to every request, whichever page sends it.
        if scope["method"] not in READING and _is_cross_site(
            Request(scope, receive).headers, scope[SERVED].config.public_url
        ):
            await Response.json(_CROSS_SITE, status=403, headers=dict(_REFUSAL_HEADERS)).asgi_send(send)
        else:
            await application(scope, receive, send)

    return answer


def _is_cross_site(headers: Mapping[str, str], public_url: str) -> bool:
    """Return whether a page of another site sent a request."""
    # Only a script that knows a token can send it as Bearer.
    if headers.get("authorization", "").partition(" ")[0].lower() == "bearer":
        return False
    site = headers.get("sec-fetch-site", "")
    if site:
        return site not in _OWN
    origin = headers.get("origin", "").lower()
    ours = {f"{scheme}://{headers.get('host', '').lower()}" for scheme in ("http", "https")}
    configured = urlsplit(public_url.lower())
    return bool(origin) and origin not in ours and origin != f"{configured.scheme}://{configured.netloc}"


def bounding_bodies(application: Application, reads_itself: Callable[[str], bool]) -> Application:
    """Read bodies here, within limits. Datasette and its CSRF check would read a body of any size.

    :param reads_itself: returns whether the view of a path reads the body itself.
    """

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["method"] in READING or reads_itself(scope["path"]):
            await application(scope, receive, send)
            return
        try:
            body = await read_within(receive, Request(scope, receive).headers, most=LARGEST_FORM)
        except BodyRefused as error:
            refusal = {"type": "error", "error": {"message": str(error)}}
            await Response.json(refusal, status=error.status, headers=dict(SAFETY)).asgi_send(send)
            return
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return parts.pop() if parts else await receive()

        await application(scope, replayed, send)

    return answer


def answering_errors(application: Application) -> Application:
    """Answer 401 to a credential that is not accepted, and 503 if the file cannot be read."""

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        try:
            await application(scope, receive, send)
        except NotAccepted:
            await plain_error(scope, not_accepted()).asgi_send(send)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # Bytes that cannot be decoded may come from the request, such as from a cookie, or from the file.
            sent = (scope.get("raw_path") or b"", scope.get("query_string") or b"")
            sent = (*sent, *(value for _, value in scope["headers"]))
            if isinstance(error, UnicodeDecodeError) and any(error.object in one for one in sent):
                refusal = ApiError(400, "The request is not UTF-8.")
            else:
                refusal = unread(scope["path"], error)
            await plain_error(scope, refusal).asgi_send(send)

    return answer


def passing_router(datasette: "Datasette", application: Application, apis: Sequence[Api]) -> Application:
    """Let the views of APIs answer what they can; pass everything else to the application."""
    if datasette.setting("trace_debug") or datasette.setting("force_https_urls"):
        return application
    if _is_hooked("asgi_wrapper"):  # another plugin's wrapper may refuse requests, or add to answers
        return application

    # Views of APIs turn every error into an answer, and set all headers but those added here.
    addresses = [(re.compile(api.pattern), api) for api in apis]

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        path = _plain_path(datasette, scope)
        for pattern, api in addresses if path else ():
            found = pattern.match(path)
            if found is not None:
                inside = {**scope, "actor": scope.get("actor"), "url_route": {"kwargs": found.groupdict()}}
                response = await api.view(datasette, Request(inside, receive))
                await response.asgi_send(at_start(send, partial(_as_router_sends, scope)))
                return
        await application(scope, receive, send)

    return answer


def _plain_path(datasette: "Datasette", scope: AsgiScope) -> str:
    """Return the path that the router would match; "" if the answer depends on more than the path."""
    raw: bytes = scope.get("raw_path") or b""
    if not raw.isascii():
        return ""
    if any(name == b"cookie" for name, _ in scope["headers"]) or not datasette._startup_invoked:  # noqa: SLF001
        return ""
    if _is_hooked("actor_from_request"):
        return ""
    path = raw.partition(b"?")[0].decode("ascii")
    base = datasette.setting("base_url")
    return "" if base != "/" and path.startswith(base) else path


def _is_hooked(name: str) -> bool:
    """Return whether a plugin that is not part of this program implements a hook."""
    from datasette import plugins  # noqa: PLC0415 - it imports all plugins, this package too

    hooks = getattr(plugins.pm.hook, name).get_hookimpls()
    return any(not hook.function.__module__.startswith(_OWN_PLUGINS) for hook in hooks)


def _as_router_sends(scope: AsgiScope, message: Message) -> Message:
    """Add the headers that the router and `adding_headers` would add."""
    is_private = scope.get("actor") is not None or any(
        name == b"authorization" for name, _ in scope["headers"]
    )
    replaced = {b"vary", b"cache-control"} if is_private else {b"vary"}
    headers = [one for one in message["headers"] if one[0].lower() not in replaced]
    if is_private:  # no shared cache may keep it
        headers.append((b"cache-control", b"private, no-store"))
    sent = b",".join(value for name, value in message["headers"] if name.lower() == b"vary")
    vary = [part.strip() for part in sent.split(b",") if part]
    known = {part.lower() for part in vary}
    vary += [name for name in _VARY if name.lower() not in known]
    return {**message, "headers": [*headers, (b"vary", b", ".join(vary)), _REFERRER]}
