"""Bodies of requests: read within limits of size and time, and decoded as forms or JSON.

A body that is too large is refused before it is read if its length is declared, else once it exceeds the
limit.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import msgspec
from datasette.utils.asgi import Request

from mirror.serve.exchange import ApiError, Receive

LARGEST_BODY = 256 * 1024
"""The most bytes of a body for an API."""

LARGEST_FORM = 64 * 1024
"""The most bytes of a form of a page, or of a stored query that writes."""

SECONDS = 10.0
MOST_FIELDS, MOST_PAGE_FIELDS = 200, 20
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
_REFUSALS = {400: "Bad Request", 408: "Request Timeout", 413: "Request Entity Too Large"}


class BodyRefused(Exception):
    """A body was not read; the error has the status and the reason for the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_within(
    receive: Receive, headers: Mapping[str, str], *, most: int, seconds: float = SECONDS
) -> bytes:
    """Read a body of at most `most` bytes within `seconds`.

    Raises BodyRefused: 413 for a larger body, 408 for a slower one, 400 for one that ends early.
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


async def read_fields(request: Request, *, assumed: str) -> dict[str, Any]:
    """Read the fields of a form, which are texts, or a JSON object.

    :param assumed: FORM or JSON, for a body that does not say what it is.

    Raises ApiError: 413 for a body of more than LARGEST_BODY bytes, 408 for a slow one, 415 for another type,
    400 for one that cannot be decoded or has more than MOST_FIELDS fields.
    """
    body, content_type = await read_body(request), content_type_of(request) or assumed
    if not body.strip():
        return {}
    if content_type == JSON or content_type.endswith("+json"):
        return read_json(body)
    if content_type != FORM:
        raise ApiError(415, "Unsupported Media Type", detail=f"Send the fields as {assumed}.")
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise _unreadable(error) from None
    return dict(reversed(pairs))  # the first value of a repeated field counts


def fields_in(body: bytes) -> dict[str, str]:
    """Return the fields of a page's form; none if it has more than MOST_PAGE_FIELDS."""
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_PAGE_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def content_type_of(request: Request) -> str:
    """Return the content type of a body without its parameters; "" if there is none."""
    content_type: str = request.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


async def read_body(request: Request) -> bytes:
    """Read a body of at most LARGEST_BODY bytes; raises ApiError 413, 408 or 400."""
    try:
        return await read_within(request.receive, request.headers, most=LARGEST_BODY)
    except BodyRefused as error:
        raise ApiError(
            error.status, _REFUSALS[error.status], detail=str(error), headers={"Connection": "close"}
        ) from None


def read_json(body: bytes) -> dict[str, Any]:
    """Decode a JSON object; raises ApiError 400, also for one that is nested too deeply."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> ApiError:
    return ApiError(400, "Bad Request", detail=f"The body cannot be read: {error}")
