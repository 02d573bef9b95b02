"""The API's edge to Datasette: addresses, methods, credentials, formats, headers; `api1` and `writes` answer.

Every prefix that clients were seen to use is answered, with and without the trailing slash, never by a
redirect: common libraries turn a redirected POST into a GET.
"""

import asyncio
import re
import sqlite3
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from datasette.utils.asgi import Request, Response

from mirror.queries import visible as lookups
from mirror.queries.caller import Caller
from mirror.serve import auth as callers
from mirror.serve.api1 import formats
from mirror.serve.api1 import shapes as legacy
from mirror.serve.api1.routes import READERS
from mirror.serve.api1.writes import OWNER, SLUG, WRITERS, Write
from mirror.serve.auth import note_use
from mirror.serve.database import mirrors
from mirror.serve.exchange import (
    Answer,
    ApiError,
    Asked,
    bounded,
    caller_in,
    credentials_of,
    headers_of,
    login_of,
    method_not_allowed,
    parameters_of,
    refusals_answered,
)
from mirror.serve.state import served
from mirror.serve.writer import admitted_writer

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

    from mirror.queries.rows import FoundRepository

PATTERN = r"^/(?:(?:!|%21)?api/)?1\.0(?P<rest>/.*)?$"
LONGEST_PATH = 2000

_PATTERN = re.compile(PATTERN)


def is_api(path: str) -> bool:
    """Tell whether a path is an API's, where no cookie counts for a write."""
    return _PATTERN.match(path) is not None


async def view(datasette: "Datasette", request: Request) -> Response:
    """Answer one request to API 1.0, whatever its method."""
    parameters = parameters_of(request)
    answer = await refusals_answered(request, _answered(datasette, request, parameters))
    if parameters.get("format") in ("yaml", "xml"):  # a long list takes seconds: not on the event loop
        return await asyncio.to_thread(_response, datasette, request, parameters, answer)
    return _response(datasette, request, parameters, answer)


async def _answered(datasette: "Datasette", request: Request, parameters: dict[str, str]) -> Answer:
    """Find the route and answer; raises ApiError."""
    database = next(mirrors(datasette), None)
    if database is None:
        raise ApiError(404, "No mirror is attached")
    callback = parameters.get("callback")
    if callback is not None and not formats.is_callback(callback):
        raise ApiError(400, "Bad Request", detail="callback: This is no name of a function.")
    pattern, names = _route(request)
    writers = WRITERS.get(pattern, {})
    reader = READERS.get(pattern)
    if reader is None and not writers:
        raise ApiError(404, "There is no API hosted at this address")
    writable = served(datasette).config.writes and served(datasette).writer is not None
    methods = [*(("GET", "HEAD") if reader else ()), *(writers if writable else ()), "OPTIONS"]
    method = request.method
    if method == "OPTIONS":
        return Answer(headers={"Allow": ", ".join(methods)})
    if method not in methods:
        raise method_not_allowed(methods, read_only=method in writers)
    if reader is None or method in writers:
        return await _written(datasette, database, request, writers[method], names, parameters)
    said = credentials_of(datasette, request, parameters)
    login = login_of(request, database) if said == callers.NOTHING_SAID and callback is None else None

    def work(connection: sqlite3.Connection) -> tuple[Caller, Answer | ApiError]:
        with bounded(datasette, connection):
            caller = caller_in(connection, said, login)
            asked = Asked(method=method, names=names, parameters=parameters, caller=caller)
            try:
                return caller, reader(connection, asked)
            except ApiError as error:
                return caller, error

    caller, outcome = cast("tuple[Caller, Answer | ApiError]", await database.execute_fn(work))
    await note_use(datasette, database, caller)
    if isinstance(outcome, ApiError):
        raise outcome
    return outcome


async def _written(
    datasette: "Datasette",
    database: "Database",
    request: Request,
    write: Write,
    names: tuple[str, ...],
    parameters: dict[str, str],
) -> Answer:
    """Pass a write on, then answer with what the mirror shows of it."""
    said = credentials_of(datasette, request, parameters)
    caller, writer = await admitted_writer(datasette, database, said)
    asked = Asked(method=request.method, names=names, parameters=parameters, caller=caller)

    async def find(full_name: str) -> "FoundRepository | None":
        found: FoundRepository | None = await database.execute_fn(
            lambda connection: lookups.repository(connection, caller, full_name)
        )
        return found

    full_name, answer = await write(writer, request, asked, find)
    if not full_name:
        return answer
    shown = await find(full_name)
    if shown is None:
        raise ApiError(503, "The write was done, but the mirror does not show it yet")
    state = "creating" if request.method == "POST" else "available"
    return Answer(body=legacy.repository(shown, state=state), synced_at=shown.row.last_seen_at)


def _route(request: Request) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take a path apart: its pattern, with placeholders, and the names that stand in their places."""
    rest = request.url_vars["rest"] or "/"
    if len(rest) > LONGEST_PATH:
        raise ApiError(414, "Request-URI Too Long")
    parts = rest.removesuffix("/").split("/")[1:]
    try:
        names = [unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        raise ApiError(400, "Bad Request", detail="The address is not UTF-8.") from None
    if not all(names) or any("/" in name or "\x00" in name for name in names):
        return (), ()
    pattern = list(names)
    for place, holder in ((1, OWNER), (2, SLUG)):
        if len(names) > place and (names[0] == "repositories" or (names[0] == "users" and place == 1)):
            pattern[place] = holder
    return tuple(pattern), tuple(names[1:])


def _response(
    datasette: "Datasette", request: Request, parameters: dict[str, str], answer: Answer
) -> Response:
    """Render an answer with its headers."""
    headers = headers_of(datasette, parameters, answer)
    body, content_type = b"", "text/plain; charset=utf-8"
    if answer.body is not None:
        callback = parameters.get("callback")
        if callback is not None and not formats.is_callback(callback):
            callback = None
        body, content_type = formats.render(answer.body, parameters.get("format", "json"), callback)
    if answer.status != 204:
        headers["Content-Length"] = str(len(body))
    return Response(
        b"" if request.method == "HEAD" else body,
        status=answer.status,
        headers=headers,
        content_type=content_type,
    )
