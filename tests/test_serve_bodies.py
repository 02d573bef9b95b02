"""Request bodies are limited in size and time, at every address, before anything else reads them."""

import asyncio
from typing import Any

import pytest
from asgi_client import AsgiClient, client_of
from fixtures_db import fill_mixed

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


def taken_of(served: AsgiClient, path: str, headers: dict[str, str]) -> tuple[int, int]:
    """Send an endless body; return the status and how many pieces were read."""
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        assert taken < 1000
        return {"type": "http.request", "body": PIECE, "more_body": True}

    statuses = list[int]()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "client": ("127.0.0.1", 50_000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(served.datasette.app()(scope, receive, send))
    return statuses[0], taken


@pytest.mark.parametrize("cookie", [{}, {"Cookie": "ds_actor=x"}], ids=["clean", "cookie"])
@pytest.mark.parametrize("path", ADDRESSES)
def test_an_endless_body_is_refused_at_every_address(
    served: AsgiClient, path: str, cookie: dict[str, str]
) -> None:
    """As soon as it is too large; if its length is declared, it is not read at all."""
    form = {"Host": "localhost", "Content-Type": "application/x-www-form-urlencoded", **cookie}
    status, taken = taken_of(served, path, form)
    assert 400 <= status < 500
    assert taken <= 1_000_000 / len(PIECE) + 2
    status, taken = taken_of(served, path, {**form, "Content-Length": "9" * 30})
    assert 400 <= status < 500
    assert taken == 0


def test_a_large_body_gets_a_413_page(served: AsgiClient) -> None:
    """413, and the connection is closed; one just within the limit is read."""
    answer = served("POST", "/-/mirror-login", content=b"token=" + b"x" * LARGEST_FORM)
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
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
