"""Request bodies are limited in size and time, at every address, before anything else reads them."""

import asyncio
from typing import Any

import pytest
from asgi_client import AsgiClient, client_of
from fixtures_db import fill_mixed

from mirror.serve.endings import MOST_UNASKED, reading_rest_of_body
from mirror.serve.exchange import LARGEST_FORM, BodyRefused, read_within

ADDRESSES = (
    "/-/mirror-login",
    "/-/logout",
    "/-/messages",
    "/mirror",
    "/mirror/repositories",
    "/nothing",
    "/-/webhook/cloud",
    "/1.0/repositories",
    "/2.0/repositories/jespern/new",
)
PIECE = b"x" * 65_536


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> AsgiClient:
    """A mirror that takes writes, so that every address may read a body."""
    path = tmp_path_factory.mktemp("served") / "mirror.db"
    fill_mixed(path).store.close()
    return client_of(path, writes=True, writer=object())


def taken_of(
    served: AsgiClient, path: str, headers: dict[str, str], *, method: str = "POST", pieces: int = 0
) -> tuple[int, int]:
    """Send a body (0 pieces: an endless one); return the status and how many were read before the answer."""
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        assert taken <= (pieces or 2000)
        return {"type": "http.request", "body": PIECE, "more_body": taken != pieces}

    statuses, taken_before = list[int](), list[int]()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            taken_before.append(taken)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "client": ("127.0.0.1", 50_000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(served.datasette.app()(scope, receive, send))
    assert taken_before == [taken]
    return statuses[0], taken


@pytest.mark.parametrize("cookie", [{}, {"Cookie": "ds_actor=x"}], ids=["clean", "cookie"])
@pytest.mark.parametrize("path", ADDRESSES)
def test_an_endless_body_is_refused_at_every_address(
    served: AsgiClient, path: str, cookie: dict[str, str]
) -> None:
    """As soon as it is too large; if its length is declared, it is not read at all."""
    form = {"Host": "localhost", "Content-Type": "application/x-www-form-urlencoded", **cookie}
    status, taken = taken_of(served, path, {**form, "Transfer-Encoding": "chunked"})
    assert 400 <= status < 500
    assert taken <= MOST_UNASKED / len(PIECE) + 1
    for length in (str(MOST_UNASKED + 1), "9" * 5_000):
        status, taken = taken_of(served, path, {**form, "Content-Length": length})
        assert 400 <= status < 500
        assert taken == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": str(4 * len(PIECE))},
        {"Transfer-Encoding": "chunked"},
        {"Content-Length": str(4 * len(PIECE)), "Expect": "100-continue"},
    ],
    ids=["length", "chunked", "waits"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND"])
def test_an_answer_follows_a_short_body(served: AsgiClient, method: str, headers: dict[str, str]) -> None:
    """Read by a view or not, also one that has to be asked for: proxies wait, stop or fail otherwise."""
    for path in ADDRESSES:
        _, taken = taken_of(served, path, {"Host": "localhost", **headers}, method=method, pieces=4)
        assert taken == 4


def test_an_answer_does_not_wait_for_ever() -> None:
    """A client that does not send the body that it announced is answered nevertheless."""
    events = list[str]()

    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    async def receive() -> dict[str, Any]:
        events.append("asked")
        return await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        events.append(message["type"])

    async def ask() -> None:
        hearing = reading_rest_of_body(refuse, seconds=0.01)
        await hearing({"headers": [(b"content-length", b"1")]}, receive, send)

    asyncio.run(ask())
    assert events == ["asked", "http.response.start"]


def test_a_large_body_gets_a_413_page(served: AsgiClient) -> None:
    """One just within the limit is read."""
    answer = served("POST", "/-/mirror-login", content=b"token=" + b"x" * LARGEST_FORM)
    assert answer.status_code == 413
    assert "connection" not in answer.headers  # a client that is still sending would not hear the answer
    assert "larger than" in answer.json()["error"]["message"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = served("POST", "/-/mirror-login", content=b"token=".ljust(LARGEST_FORM, b"x"), headers=form)
    assert answer.status_code == 403
    answer = served("POST", "/-/mirror-login", content=b"a=b&" * 10_000, headers=form)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("messages", "status"),
    [([{"type": "http.disconnect"}], 400), ([], 408)],
    ids=["broken off", "never sent"],
)
def test_an_unfinished_body_is_refused(messages: list[dict[str, Any]], status: int) -> None:
    """Of a client that disconnects, or that stops sending."""

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.Future()

    with pytest.raises(BodyRefused) as refused:
        asyncio.run(read_within(receive, {}, most=10, seconds=0.01))
    assert refused.value.status == status
