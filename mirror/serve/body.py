"""Reading the body of a request: the one place that does it, within a size and a time.

A body that is too large is refused before it is read where its length is declared, else as soon as it grows
beyond the limit. Datasette and its form protection read any body, and copy it with each piece that arrives,
so every page gets its body from here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from datasette.utils.asgi import Request, Response

from mirror.serve.api1.formats import SAFETY

LARGEST_FORM = 64 * 1024
"""Bytes that a form of a page may have; stored queries that write get theirs by such forms, too."""
SECONDS = 10.0
READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Application = Callable[[Message, Any, Any], Awaitable[None]]


class BodyRefused(Exception):
    """A body that is not read: the status and the reason for the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read(receive: Receive, headers: Mapping[str, str], *, most: int, seconds: float = SECONDS) -> bytes:
    """Read a body of at most so many bytes within so many seconds.

    Raises BodyRefused: 413 for a larger one, 408 for a slower one, 400 for one that ends early.
    """
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > most):
        raise _too_large(most)
    parts, size, more = list[bytes](), 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise BodyRefused(400, "The body ended early.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
                if size > most:
                    raise _too_large(most)
    except TimeoutError:
        raise BodyRefused(408, f"The body was not complete after {seconds:g} seconds.") from None
    return b"".join(parts)


def _too_large(most: int) -> BodyRefused:
    return BodyRefused(413, f"The body is larger than {most:,} bytes.")


def bounded(application: Application, reads_itself: Callable[[str], bool]) -> Application:
    """Give pages their body in one piece; `reads_itself` tells which paths call `read` by themselves."""

    async def answer(scope: Message, receive: Receive, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] in READING or reads_itself(scope["path"]):
            await application(scope, receive, send)
            return
        try:
            body = await read(receive, Request(scope, receive).headers, most=LARGEST_FORM)
        except BodyRefused as error:
            said = {"type": "error", "error": {"message": str(error)}}
            headers = {**SAFETY, "Connection": "close"}
            await Response.json(said, status=error.status, headers=headers).asgi_send(send)
            return
        pieces = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return pieces.pop() if pieces else await receive()

        await application(scope, replayed, send)

    return answer
