"""An answer ends when nobody reads the rest of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asgi_client import client_of

from mirror.serve.endings import ending_with_client

PARTS = 1000


async def many_parts(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send many parts; like Datasette, take an Exception for a fault."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200})
    for _ in range(PARTS):
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except Exception as error:  # noqa: BLE001
            pytest.fail(str(error))
    await send({"type": "http.response.body", "body": b""})


def sent_to(application: Any, path: str, *, method: str = "GET", leaves_after: int = 0) -> list[Any]:
    """Request an answer and leave after so many of its messages, or never; return all that were sent."""
    messages = list[Any]()
    left = asyncio.Event()
    to_read = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if to_read:
            return to_read.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)
        if len(messages) == leaves_after:
            left.set()

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "scheme": "http"}
    scope |= {"headers": [(b"host", b"localhost")], "query_string": b"_stream=on", "client": ("127.0.0.1", 1)}
    asyncio.run(application(scope, receive, send))
    return messages


def test_an_answer_ends_when_its_client_has_left() -> None:
    """At once, without an error; a client that stays gets everything."""
    application = ending_with_client(many_parts)
    assert len(sent_to(application, "/", leaves_after=10)) == 10
    assert len(sent_to(application, "/")) == PARTS + 2


def test_head_makes_no_rows(public_path: Path) -> None:
    """The stream of a table, of which only the head is requested, ends after that."""
    application = client_of(public_path).datasette.app()
    start, *rest = sent_to(application, "/mirror/repositories.csv", method="HEAD")
    assert start["status"] == 200
    assert [(part["body"], part["more_body"]) for part in rest] == [(b"", False)]
    assert len(sent_to(application, "/mirror/repositories.csv")) > 2
