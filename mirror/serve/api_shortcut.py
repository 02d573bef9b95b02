"""Requests that only read an API, without a cookie: they go to its view past Datasette's router.

Datasette protects forms, asks plugins who sends a request, and tries all routes. That costs more than most
answers of an API, which finds out by itself who sends a request, unless by a cookie.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from datasette.utils.asgi import Request

from mirror.serve.api_edge import Api
from mirror.serve.exchange import Application, AsgiScope, Message, Receive, Send

if TYPE_CHECKING:
    from datasette.app import Datasette

_OWN_PLUGINS = ("datasette.", "mirror.")
_VARY = (b"Cookie", b"Authorization")


def passing_router(datasette: "Datasette", application: Application, apis: Sequence[Api]) -> Application:
    """Answer what the views of APIs can answer by themselves; leave all else to the application.

    All is left to it where another plugin wraps it: that one may refuse requests, or add to answers.
    """
    if datasette.setting("trace_debug") or datasette.setting("force_https_urls"):
        return application
    if _is_hooked("asgi_wrapper"):
        return application

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        path = _plain_path(datasette, scope)
        for api in apis if path else ():
            found = api.address.match(path)
            if found is not None:
                inside = {**scope, "actor": scope.get("actor"), "url_route": {"kwargs": found.groupdict()}}
                response = await api.view(datasette, Request(inside, receive))
                await response.asgi_send(_as_router_sends(scope, send))
                return
        await application(scope, receive, send)

    return answer


def _plain_path(datasette: "Datasette", scope: AsgiScope) -> str:
    """Return the path that the router would match; "" where more than the path counts."""
    raw: bytes = scope.get("raw_path") or b""
    if scope["method"] not in ("GET", "HEAD") or not raw.isascii():
        return ""
    if any(name == b"cookie" for name, _ in scope["headers"]) or not datasette._startup_invoked:  # noqa: SLF001
        return ""
    if _is_hooked("actor_from_request"):
        return ""
    path = raw.partition(b"?")[0].decode("ascii")
    base = datasette.setting("base_url")
    return "" if base != "/" and path.startswith(base) else path


def _is_hooked(name: str) -> bool:
    """Return whether a plugin of others implements a hook."""
    from datasette import plugins  # noqa: PLC0415 - it imports all plugins, this package too

    hooks = getattr(plugins.pm.hook, name).get_hookimpls()
    return any(not hook.function.__module__.startswith(_OWN_PLUGINS) for hook in hooks)


def _as_router_sends(scope: AsgiScope, send: Send) -> Send:
    """Say as the router does that answers depend on who asks, and that no cache may share a private one."""
    is_private = scope.get("actor") is not None or any(
        name == b"authorization" for name, _ in scope["headers"]
    )

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"]]
            if is_private:
                headers = [one for one in headers if one[0].lower() != b"cache-control"]
                headers.append((b"cache-control", b"private, no-store"))
            vary = [
                part.strip()
                for name, value in headers
                if name.lower() == b"vary"
                for part in value.split(b",")
            ]
            known = {part.lower() for part in vary}
            vary += [name for name in _VARY if name.lower() not in known]
            headers = [one for one in headers if one[0].lower() != b"vary"]
            message = {**message, "headers": [*headers, (b"vary", b", ".join(vary))]}
        await send(message)

    return sent
