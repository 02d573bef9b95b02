"""Requests to a served mirror in this process, without a network, as each kind of caller."""

import asyncio
import atexit
import base64
import threading
from collections.abc import Coroutine, MutableMapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from mirror.config import ServeConfig
from mirror.serve.connections import Peers
from mirror.serve.server import build
from mirror.serve.state import served
from mirror.store import Store, tokens

if TYPE_CHECKING:
    from datasette.app import Datasette

Told = TypeVar("Told")


def basic(user: str, password: str) -> dict[str, str]:
    """Headers of a Basic login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Headers that carry a token."""
    return {"Authorization": f"Bearer {token}"}


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def run(asked: Coroutine[Any, Any, Told]) -> Told:
    """Do what `asyncio.run` does, in a loop that stays: to make one takes as long as a small answer."""
    if threading.current_thread() is threading.main_thread():
        return _loop().run_until_complete(asked)
    return asyncio.run(asked)


class InProcess(httpx.BaseTransport):
    """Passes requests to an application, as `httpx.ASGITransport` does in half the time."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the application."""
        request.read()
        return run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        url, complete = request.url, asyncio.Event()
        to_read = [{"body": b"", "more_body": False}, {"body": request.content, "more_body": True}]
        sent = list[MutableMapping[str, Any]]()

        async def receive() -> dict[str, Any]:
            if to_read:
                return {"type": "http.request", **to_read.pop()}
            await complete.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            assert not complete.is_set()
            assert message["type"] == ("http.response.body" if sent else "http.response.start")
            sent.append(message)
            if sent[1:] and not message.get("more_body", False):
                complete.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 123),
            "root_path": "",
        }
        await self._application(scope, receive, send)
        assert complete.is_set()
        start, *rest = sent
        body = b"" if request.method == "HEAD" else b"".join(part.get("body", b"") for part in rest)
        return httpx.Response(
            start["status"], headers=start.get("headers", []), stream=httpx.ByteStream(body)
        )


_DEFAULTS = httpx.Client(transport=httpx.BaseTransport()).headers
"""What a client adds to each request."""


class AsgiClient:
    """A Datasette for plain tests to send requests to."""

    def __init__(self, datasette: "Datasette") -> None:
        self.datasette = datasette
        served(datasette).counts.wait = 60  # on a busy machine, pages would lack numbers
        self._transport = InProcess(datasette.client.app)
        run(datasette.invoke_startup())

    def __call__(self, method: str, path: str, *, headers: Any = None, **options: Any) -> httpx.Response:
        """Ask once; redirects are not followed."""
        # Without a client, which takes as long as a small answer, and sends the cookies of earlier answers.
        sent = _DEFAULTS.copy()
        sent.update(headers)
        request = httpx.Request(method, self.datasette.client._fix(path), headers=sent, **options)
        answer = self._transport.handle_request(request)
        answer.request = request
        answer.read()
        return answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask with GET."""
        return self("GET", path, **options)

    def json(self, path: str, **options: Any) -> Any:
        """Ask with GET for JSON that must be there."""
        answer = self.get(path, **options)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
        return answer.json()


class OwnPeers(Peers):
    """Every connection counts as this user's own, because these requests have no socket."""

    def are_listed(self) -> bool:
        return True

    def is_ours(self, client: Any, server: Any) -> bool:
        del client, server
        return True


def client_of(path: Path, *, writer: Any = None, **settings: Any) -> AsgiClient:
    """Build the application as `mirror serve` does."""
    return AsgiClient(build(path, ServeConfig(**settings), writer=writer, peers=OwnPeers()))


def make_tokens(store: Store) -> dict[str, str]:
    """Make one token of every sort: valid ones by scope, a revoked, an expired and an unknown one."""
    made = {
        "read": tokens.create(store, "reader", "read"),
        "write": tokens.create(store, "writer", "read,write"),
        "user": tokens.create(store, "of jespern", "read", user="jespern"),
        "revoked": tokens.create(store, "revoked", "write"),
        "expired": tokens.create(store, "expired", "write", datetime(2020, 1, 1, tzinfo=UTC)),
        "bad": tokens.PREFIX + "0" * 43,
    }
    tokens.revoke(store, "revoked")
    return made
