"""The edge of an API to Datasette: addresses, methods, credentials, one snapshot, errors, headers.

`Api` says in what API 1.0 and API 2.0 differ; `answer` does what they have in common.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import unquote

from datasette.utils.asgi import Request, Response

from mirror.queries.caller import Caller
from mirror.serve.auth import (
    NOTHING_SAID,
    NotAccepted,
    caller_in,
    credentials_of,
    login_of,
    note_use,
)
from mirror.serve.exchange import (
    Answer,
    ApiError,
    ApiRequest,
    headers_of,
    mirror_of,
    not_accepted,
    parameters_of,
    served_of,
    snapshot,
    unread,
)
from mirror.serve.writer import WriteAccess, admitted_writer

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

LONGEST_PATH = 2000

Names = tuple[str, ...]
Parameters = Mapping[str, str]

log = logging.getLogger(__name__)


class Writing(NamedTuple):
    """A write that is admitted: what the caller may write to, and where its result is read."""

    access: WriteAccess
    request: Request
    database: "Database"
    asked: Any


class Api(NamedTuple):
    """What makes an API.

    pattern: the regular expression of its addresses; the group `rest` is what follows the version.
    route: takes the names of a path apart into a pattern with placeholders, and the names in their places.
    request: completes what is common to all requests with what is this API's; raises ApiError.
    readers: by pattern, the functions that answer GET.
    writers: by pattern and method, the functions that `write` calls.
    write: passes a write on, and answers with what the mirror shows of it.
    missing: the error for an address that the API does not have.
    render: turns an answer into bytes and their content type.
    check: raises ApiError for parameters that no address takes.
    slow_formats: values of the parameter `format` that take long to render.
    jsonp: whether `callback` makes an answer a script, for which a login does not count.
    headers: headers of every answer.
    """

    pattern: str
    route: Callable[[Sequence[str]], tuple[Names, Names]]
    request: Callable[["Datasette", Request, ApiRequest], ApiRequest]
    readers: Mapping[Names, Callable[[sqlite3.Connection, Any], Answer]]
    writers: Mapping[Names, Mapping[str, Any]]
    write: Callable[[Any, Writing], Awaitable[Answer]]
    missing: ApiError
    render: Callable[[Answer, Parameters], tuple[bytes, str]]
    check: Callable[[Parameters], None] | None = None
    slow_formats: Collection[str] = ()
    jsonp: bool = False
    headers: Mapping[str, str] = {}

    async def view(self, datasette: "Datasette", request: Request) -> Response:
        """Answer one request, whatever its method."""
        return await answer(self, datasette, request)


async def answer(api: Api, datasette: "Datasette", request: Request) -> Response:
    """Answer one request to an API; whatever goes wrong is an answer as well."""
    parameters = parameters_of(request)
    try:
        found = await _answered(api, datasette, request, parameters)
    except ApiError as error:
        found = error.answer()
    except NotAccepted:
        found = not_accepted().answer()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        found = unread(request.path, error).answer()
    except Exception:
        log.exception("%s %s", request.method, request.path)
        found = ApiError(500, "The mirror could not answer; its log says why.").answer()
    if parameters.get("format") in api.slow_formats:  # a long list takes seconds: not on the event loop
        body, content_type = await asyncio.to_thread(api.render, found, parameters)
    else:
        body, content_type = api.render(found, parameters)
    headers = {**headers_of(datasette, parameters, found), **api.headers}
    if found.status != 204:
        headers["Content-Length"] = str(len(body))
    sent = b"" if request.method == "HEAD" else body
    return Response(sent, status=found.status, headers=headers, content_type=content_type)


async def _answered(api: Api, datasette: "Datasette", request: Request, parameters: Parameters) -> Answer:
    """Find the route, then read or write; raises ApiError and NotAccepted."""
    server, database = served_of(request), mirror_of(request)
    if database is None:
        raise ApiError(404, "No mirror is attached")
    pattern, names = _route(api, request, parameters)
    reader, writers = api.readers.get(pattern), api.writers.get(pattern, {})
    if reader is None and not writers:
        raise api.missing
    writable = server.config.writes and server.writer is not None
    methods = [*(("GET", "HEAD") if reader else ()), *(writers if writable else ()), "OPTIONS"]
    method = request.method
    if method == "OPTIONS":
        return Answer(headers={"Allow": ", ".join(methods)})
    if method not in methods:
        raise _method_not_allowed(methods, read_only=method in writers)
    said = credentials_of(request, parameters)

    def asked_by(caller: Caller) -> ApiRequest:
        return api.request(
            datasette, request, ApiRequest(method=method, names=names, parameters=parameters, caller=caller)
        )

    if reader is None or method in writers:
        caller, access = await admitted_writer(server, database, said)
        return await api.write(writers[method], Writing(access, request, database, asked_by(caller)))
    is_login = said == NOTHING_SAID and not (api.jsonp and "callback" in parameters)
    login = login_of(request, database) if is_login else None

    def read(connection: sqlite3.Connection) -> tuple[Caller, Answer | ApiError]:
        with _plain_texts(connection), snapshot(connection, datasette.setting("sql_time_limit_ms")):
            caller = caller_in(connection, said, login)
            try:
                asked = asked_by(caller)
                return caller, asked.selected(reader(connection, asked))
            except ApiError as error:
                return caller, error

    caller, outcome = cast("tuple[Caller, Answer | ApiError]", await database.execute_fn(read))
    await note_use(server, database, caller)
    if isinstance(outcome, ApiError):
        raise outcome
    return outcome


@contextmanager
def _plain_texts(connection: sqlite3.Connection) -> Iterator[None]:
    """Let SQLite decode texts. Datasette does so in Python, for files that are not all UTF-8."""
    decoding, connection.text_factory = connection.text_factory, str
    try:
        yield
    finally:
        connection.text_factory = decoding


def _route(api: Api, request: Request, parameters: Parameters) -> tuple[Names, Names]:
    """Check the parameters, and take a path apart, with or without a slash at its end; raises ApiError."""
    if api.check is not None:
        api.check(parameters)
    rest = request.url_vars["rest"] or "/"
    if len(rest) > LONGEST_PATH:
        raise ApiError(414, "Request-URI Too Long")
    try:
        names = [unquote(part, errors="strict") for part in rest.removesuffix("/").split("/")[1:]]
    except UnicodeDecodeError:
        raise ApiError(400, "Bad Request", detail="The address is not UTF-8.") from None
    return api.route(names) if all(names) and not any("\x00" in name for name in names) else ((), ())


def _method_not_allowed(methods: Sequence[str], *, read_only: bool) -> ApiError:
    """Say which methods an address has."""
    detail = (
        "This mirror is read-only. Writes pass through to the upstream where `writes = true` is configured."
        if read_only
        else None
    )
    return ApiError(405, "Method Not Allowed", detail=detail, headers={"Allow": ", ".join(methods)})
