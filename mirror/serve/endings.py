"""The ends of requests, which are read before an answer, and of answers whose clients have left."""

import asyncio
from contextlib import suppress

from mirror.serve.exchange import SECONDS, Application, AsgiScope, Message, Receive, Send

MOST_UNASKED = 64 * 1024 * 1024  # of a body that nothing here asked for, in bytes


def reading_rest_of_body(application: Application, seconds: float = SECONDS) -> Application:
    """Read the rest of a body before its answer begins, unless the body is large or slow.

    Proxies do not expect an earlier answer. nginx reports 502 if the connection is closed while it sends.
    HAProxy stops sending then: its client sees no end of the answer, or the next request on this connection
    is read as the rest of the body. Apache reports 500 if a body that waits (`Expect`) is not asked for.
    """

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        is_short = length.isdigit() and len(length) < 10 and int(length) <= MOST_UNASKED
        if not (is_short or b"transfer-encoding" in headers):
            await application(scope, receive, send)
            return
        until = asyncio.get_running_loop().time() + seconds
        size, more = 0, True

        async def noted() -> Message:
            nonlocal size, more
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        while more and size < MOST_UNASKED:
                            await noted()
            await send(message)

        await application(scope, noted, sent)

    return answer


class _Unwanted(asyncio.CancelledError):
    """Nobody reads the rest of an answer. Datasette takes any Exception for a fault of its stream."""


def ending_with_client(application: Application) -> Application:
    """End an answer in several parts once its client has left; after its head, if only that was requested.

    The web server discards what it is given then, so Datasette would read a table to its end for nobody.
    """

    async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
        leaving: asyncio.Task[None] | None = None

        async def sent(message: Message) -> None:
            nonlocal leaving
            if not message.get("more_body"):
                await send(message)
                return
            leaving = leaving or asyncio.create_task(_until_left(receive))
            await asyncio.sleep(0)  # Datasette sends a thousand rows without a turn for anybody else
            if scope["method"] == "HEAD":
                await send({**message, "body": b"", "more_body": False})
            if scope["method"] == "HEAD" or leaving.done():
                raise _Unwanted
            await send(message)

        try:
            await application(scope, receive, sent)
        except _Unwanted:
            pass
        finally:
            if leaving is not None:
                leaving.cancel()

    return answer


async def _until_left(receive: Receive) -> None:
    message = await receive()
    while message["type"] != "http.disconnect":
        await asyncio.sleep(0)  # some servers do not wait for the client to leave, but repeat the body
        message = await receive()
