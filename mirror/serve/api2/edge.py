"""API 2.0's edge to Datasette: addresses, methods, credentials, `fields` and headers around the routes.

Every prefix that links of Bitbucket lead to is answered, with and without the trailing slash, never by a
redirect. Errors have the form of 2.0: ``{"type": "error", "error": {"message", "detail"?, "fields"?}}``.
"""

import re
import sqlite3
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote

import msgspec
from datasette.utils.asgi import Request, Response

from mirror.queries import repositories as reads
from mirror.queries.caller import Caller
from mirror.queries.rows import Repository
from mirror.serve import auth as callers
from mirror.serve.api1.edge import LONGEST_PATH
from mirror.serve.api1.formats import JSON_TYPE
from mirror.serve.api2 import paging
from mirror.serve.api2.exchange import Asked, find_repository
from mirror.serve.api2.fields import selection
from mirror.serve.api2.routes import NAME, READERS, REPOSITORY, WORKSPACE, repository
from mirror.serve.api2.shapes import Links, origin_of
from mirror.serve.api2.writes import WRITERS, Looking, Write
from mirror.serve.auth import note_use
from mirror.serve.database import mirrors
from mirror.serve.exchange import (
    Answer,
    ApiError,
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

PATTERN = r"^(?P<prefix>/(?:(?:!|%21)?api/)?2\.0)(?P<rest>/.*)?$"
_PATTERN = re.compile(PATTERN)

LIMIT = "1000000"
"""Requests an hour, as Bitbucket tells it: there is no quota here, and who minds one learns it by this."""

Names = tuple[str, ...]


def is_api(path: str) -> bool:
    """Tell whether a path is this API's, where no cookie counts for a write."""
    return _PATTERN.match(path) is not None


async def view(datasette: "Datasette", request: Request) -> Response:
    """Answer one request to API 2.0, whatever its method."""
    parameters = parameters_of(request)
    answer = await refusals_answered(request, _answered(datasette, request, parameters))
    return _response(datasette, request, parameters, answer)


async def _answered(datasette: "Datasette", request: Request, parameters: dict[str, str]) -> Answer:
    """Find the route and answer; raises ApiError."""
    database = next(mirrors(datasette), None)
    if database is None:
        raise ApiError(404, "No mirror is attached")
    pattern, names = _route(request.url_vars["rest"] or "/")
    reader, writers = READERS.get(pattern), WRITERS.get(pattern, {})
    if reader is None:
        raise ApiError(404, "Resource not found", detail="There is no API hosted at this URL")
    writable = served(datasette).config.writes and served(datasette).writer is not None
    methods = ["GET", "HEAD", *(writers if writable else ()), "OPTIONS"]
    if request.method == "OPTIONS":
        return Answer(headers={"Allow": ", ".join(methods)})
    if request.method not in methods:
        raise method_not_allowed(methods, read_only=request.method in writers)
    if request.method in writers:
        return await _written(datasette, database, request, writers[request.method], names, parameters)
    said = credentials_of(datasette, request, parameters)
    login = login_of(request, database) if said == callers.NOTHING_SAID else None

    def work(connection: sqlite3.Connection) -> tuple[Caller, Answer | ApiError]:
        with bounded(datasette, connection):
            caller = caller_in(connection, said, login)
            try:
                asked = _asked(datasette, request, names, parameters, caller)
                return caller, _selected(reader(connection, asked), asked)
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
    names: Names,
    parameters: dict[str, str],
) -> Answer:
    """Pass a write on, then answer with what the mirror shows of it."""
    said = credentials_of(datasette, request, parameters)
    caller, writer = await admitted_writer(datasette, database, said)
    asked = _asked(datasette, request, names, parameters, caller)

    async def find() -> Repository:
        return cast(
            "Repository", await database.execute_fn(lambda connection: find_repository(connection, asked))
        )

    async def workspace(name: str) -> str | None:
        if not name.startswith("{"):  # a slug: the upstream may have one that is not mirrored yet
            return name
        found = await database.execute_fn(lambda connection: reads.owner(connection, name))
        return found.username if found else None

    done = await write(writer, request, caller, names, Looking(find, workspace))
    if done.full_name is None:
        return Answer(status=done.status)
    shown = msgspec.structs.replace(asked, names=tuple(done.full_name.split("/")))
    try:
        answer = cast("Answer", await database.execute_fn(lambda connection: repository(connection, shown)))
    except ApiError:
        raise ApiError(503, "The write was done, but the mirror does not show it yet") from None
    where = {"Location": asked.links.repository(done.full_name)} if done.status == 201 else {}
    return msgspec.structs.replace(_selected(answer, asked), status=done.status, headers=where)


def _asked(
    datasette: "Datasette",
    request: Request,
    names: Names,
    parameters: dict[str, str],
    caller: Caller,
) -> Asked:
    """Put together what a route is asked; raises ApiError 400."""
    origin = origin_of(
        request.scope,
        request.headers,
        public_url=served(datasette).config.public_url,
        base=datasette.setting("base_url"),
    )
    rest = (request.url_vars["rest"] or "/").rstrip("/")
    here = f"{origin}{request.url_vars['prefix']}{quote(unquote(rest), safe=_IN_PATHS)}"
    return Asked(
        names=names,
        parameters=parameters,
        caller=caller,
        links=Links(origin, f"{origin}{request.url_vars['prefix']}"),
        pages=paging.Links(here, parameters),
        selection=selection(parameters.get("fields")),
    )


_IN_PATHS = "/$;&=@!,:+"


def _selected(answer: Answer, asked: Asked) -> Answer:
    return msgspec.structs.replace(answer, body=asked.selection.of(answer.body))


def _route(rest: str) -> tuple[Names, Names]:
    """Take a path apart: its pattern, with placeholders, and the names that stand in their places.

    The name of a ref may hold slashes, escaped or not, so it is all that is left.
    """
    if len(rest) > LONGEST_PATH:
        raise ApiError(414, "Request-URI Too Long")
    try:
        names = [unquote(part, errors="strict") for part in rest.removesuffix("/").split("/")[1:]]
    except UnicodeDecodeError:
        raise ApiError(400, "Bad Request", detail="The address is not UTF-8.") from None
    if not all(names) or any("\x00" in name for name in names):
        return (), ()
    match names:
        case ["repositories", workspace, slug, "refs", "branches" | "tags" as kind, *name] if name:
            pattern = ("repositories", WORKSPACE, REPOSITORY, "refs", kind, NAME)
            return pattern, (workspace, slug, "/".join(name))
        case ["repositories", workspace, slug, *more]:
            return ("repositories", WORKSPACE, REPOSITORY, *more), (workspace, slug)
        case ["workspaces", workspace, "members", member]:
            return ("workspaces", WORKSPACE, "members", NAME), (workspace, member)
        case ["repositories" | "users" | "teams" | "workspaces" as kind, name, *more]:
            return (kind, WORKSPACE, *more), (name,)
    return tuple(names), ()


def _response(
    datasette: "Datasette", request: Request, parameters: dict[str, str], answer: Answer
) -> Response:
    """Render an answer with its headers; an error's body gets its type."""
    headers = {**headers_of(datasette, parameters, answer), "X-RateLimit-Limit": LIMIT}
    content = answer.body
    if answer.status >= 400 and content is not None:
        content = {"type": "error", **content}
    body = b"" if content is None else msgspec.json.encode(content)
    if answer.status != 204:
        headers["Content-Length"] = str(len(body))
    return Response(
        b"" if request.method == "HEAD" else body,
        status=answer.status,
        headers=headers,
        content_type=JSON_TYPE if content is not None else "text/plain; charset=utf-8",
    )
