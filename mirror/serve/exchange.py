"""HTTP requests and answers: what the APIs, the pages and the webhooks share."""

import asyncio
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, parse_qsl

import msgspec
from datasette.utils import add_cors_headers, sqlite_timelimit
from datasette.utils.asgi import Request, Response

from mirror.queries.rows import AccountRow, ProjectRow, RepositoryRow, Upstreams
from mirror.queries.visibility import Caller
from mirror.store.faults import DAMAGED, is_busy, known_remedy
from mirror.times import from_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

    from mirror.serve.guarded_database import GuardedDatabase
    from mirror.serve.state import Served

Json = dict[str, Any]  # a JSON object
AsgiScope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# The types of ASGI, the protocol between Datasette and its web server.
Application = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

# Keys of an ASGI scope: the state of the server, and the mirror that answers the request.
SERVED, MIRROR = "mirror.served", "mirror.database"

# Headers of every answer that is not a page: browsers do not guess its type or run scripts in it.
SAFETY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

UNCONFIRMED = "This mirror was restored from a copy"
UNTIL_LISTED = (
    "What was public then may be private now. Once everything has been listed again, it answers; until then"
    " it needs a token of the whole mirror."
)
RESTORED_SECONDS = 300  # how many seconds a client is to wait while a listing is awaited
JSON_TYPE = "application/json; charset=utf-8"
SNAPSHOT_HEADER = "X-Mirror-Snapshot"  # the time that a published file shows
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)

_ENCODER = msgspec.json.Encoder()

log = logging.getLogger(__name__)

LARGEST_BODY = 256 * 1024  # the size limit for the body of an API request, in bytes
LARGEST_FORM = 64 * 1024  # the size limit for a form of a page or of a stored query that writes, in bytes
SECONDS = 10.0  # for how long a body may be sent
MOST_PARAMETERS = 1000  # that are read of an address
MOST_FIELDS, MOST_PAGE_FIELDS = 200, 20  # fields of a form: to an API, of a page
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
_REFUSALS = {400: "Bad Request", 408: "Request Timeout", 413: "Request Entity Too Large"}


def served_of(request: Request) -> "Served":
    """Return the state of the server that received a request."""
    return cast("Served", request.scope[SERVED])


def mirror_of(request: Request) -> "GuardedDatabase | None":
    """Return the mirror that answers a request: the first attached one, or None."""
    return cast("GuardedDatabase | None", request.scope[MIRROR])


def at_start(send: Send, change: Callable[[Message], Message]) -> Send:
    """Return a `send` that changes the message with the status and the headers of a response."""

    async def sent(message: Message) -> None:
        await send(change(message) if message["type"] == "http.response.start" else message)

    return sent


def parameters_of(request: Request) -> dict[str, str]:
    """Return the first value of each query parameter, of the first MOST_PARAMETERS."""
    read = parse_qs(
        "&".join(request.query_string.split("&", MOST_PARAMETERS)[:MOST_PARAMETERS]), keep_blank_values=True
    )
    # Some clients repeat `fields` to send a list.
    return {key: ",".join(values) if key == "fields" else values[0] for key, values in read.items()}


def number_in(text: str, *, digits: int) -> int | None:
    """Read a whole number of at most `digits` ASCII digits; None for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None


def host_of(request: Request) -> str | None:
    """Return the host and port that a request was sent to; None for an invalid Host header."""
    # X-Forwarded-Host is ignored, because any client can send it. Behind a proxy, `public_url` is needed.
    host: str = request.headers.get("host", "")
    if not host:
        name, port = request.scope.get("server") or ("localhost", None)
        host = f"[{name}]" if ":" in name else name
        host += f":{port}" if port else ""
    return host if _HOST.fullmatch(host) else None


def address_of(datasette: "Datasette", request: Request) -> str:
    """Return the configured address of the server, or the one that the request was sent to.

    It has no slash at the end. Raises ApiError 400 for an invalid Host header.
    """
    public_url = served_of(request).config.public_url
    if public_url:
        return public_url.rstrip("/")
    host = host_of(request)
    if host is None:
        raise ApiError(400, "Bad Request", detail="The Host header does not name a host.")
    return f"{request.scheme}://{host}{datasette.setting('base_url').rstrip('/')}"


@contextmanager
def snapshot(connection: sqlite3.Connection, milliseconds: int) -> Iterator[None]:
    """Give all reads inside the same state of the file; interrupt them after a number of milliseconds."""
    with sqlite_timelimit(connection, milliseconds):
        connection.execute("BEGIN")
        try:
            yield
        finally:
            if connection.in_transaction:  # an I/O error may have ended it
                connection.execute("COMMIT")


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to an API: the names in its path, the first value of each parameter, and the caller.

    :param api: the version of the API, as in addresses.
    :param path: what follows the version in the address, as it was sent.
    :param query: the query of the address, as it was sent.
    :param upstreams: all upstreams, by the ids of their rows.
    :param find_extra: finds the extra of an object, by its kind and the id of its row.
    """

    method: str
    names: tuple[str, ...] = ()
    parameters: Mapping[str, str] = {}
    caller: Caller
    api: str = ""
    path: str = ""
    query: str = ""
    upstreams: Upstreams = {}
    find_extra: Callable[[str, int], Json | None] | None = None

    def number(self, parameter: str, default: int, most: int) -> int:
        """Return a parameter that is a whole number, limited to `most`; `default` for any other text."""
        number = number_in(self.parameters.get(parameter, ""), digits=9)
        return default if number is None else min(number, most)

    def selected(self, answer: "Answer") -> "Answer":
        """Return the requested parts of an answer: all of them, unless the API has a parameter for it."""
        return answer


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A body to be rendered, or None. `synced_at` is when its rows were read from the upstream."""

    body: Any = None
    status: int = 200
    synced_at: str | None = None
    headers: Mapping[str, str] = {}


class ApiError(Exception):
    """An error with its status; the body is ``{"error": {"message", "detail"?, "fields"?, "data"?}}``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        detail: str | None = None,
        fields: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        error: dict[str, Any] = {"message": message}
        if detail:
            error["detail"] = detail
        if fields:
            error["fields"] = {name: [complaint] for name, complaint in fields.items()}
        if data:
            error["data"] = dict(data)
        self.body: Json = {"error": error}

    def answer(self) -> Answer:
        """Return the error as an answer."""
        return Answer(body=self.body, status=self.status, headers=self.headers)


def bad_request(fields: Mapping[str, str]) -> ApiError:
    """Return the error for an invalid form; `fields` maps the invalid fields to what is wrong with each."""
    detail = " ".join(f"{name}: {complaint}" for name, complaint in fields.items())
    return ApiError(400, "Bad Request", detail=detail, fields=fields)


def unconfirmed() -> ApiError:
    """Return the error for callers who get nothing until a restored copy has been confirmed."""
    later = {"Retry-After": str(RESTORED_SECONDS)}
    return ApiError(503, UNCONFIRMED, detail=UNTIL_LISTED, headers=later)


def unauthorized(reason: str = "") -> ApiError:
    """Return the error that asks for credentials; `reason` says what is wrong with those that were sent."""
    return ApiError(
        401,
        "Unauthorized",
        detail=f"{reason}Send a token of this mirror, as the password of a Basic login or as Bearer; "
        "`mirror token create NAME` makes one.",
        headers={"WWW-Authenticate": 'Basic realm="Bitbucket mirror", charset="UTF-8"'},
    )


def unread(path: str, error: Exception) -> ApiError:
    """Log why the file could not be read, and return the error."""
    if is_busy(error):
        log.warning("%s: %s", path, error)
        return ApiError(503, "The mirror is busy", headers={"Retry-After": "1"})
    log.error("%s: %s (%s)", path, known_remedy(str(error)) or DAMAGED, error)
    return ApiError(503, "The file of the mirror cannot be read; the log says why.")


def plain_error(scope: AsgiScope, error: ApiError) -> Response:
    """Return an error without rendering a page: as JSON in Datasette's form, or as plain text."""
    text = " ".join(str(one) for one in error.body["error"].values())
    headers = {**SAFETY, **error.headers, "Cache-Control": "no-store"}
    if scope["path"].endswith(".json"):
        body = {"ok": False, "error": text, "status": error.status, "title": str(error)}
        return Response.json(body, status=error.status, headers=headers)
    return Response.text(text, status=error.status, headers=headers)


def spaced_json(body: Any) -> bytes:
    """Encode a body in one line with a blank after each comma and colon, as Bitbucket does.

    Shell scripts cut names and links out of it with sed and grep, the blanks included.
    """
    return msgspec.json.format(_ENCODER.encode(body), indent=0)


def json_response(
    body: Any, headers: Mapping[str, str], *, status: int = 200, content_type: str = JSON_TYPE
) -> Response:
    """Return a response with a body that is encoded as JSON."""
    return Response(
        msgspec.json.encode(body), status=status, headers=dict(headers), content_type=content_type
    )


def not_accepted() -> ApiError:
    """Return the error for a credential that is unknown, expired or revoked."""
    return unauthorized("This credential is not accepted: it is unknown, expired or revoked. ")


def oldest(moments: Iterable[str | None]) -> str | None:
    """Return the oldest of several times; None if there are none."""
    return min((moment for moment in moments if moment), default=None)


def last_seen(rows: Iterable[AccountRow | ProjectRow | RepositoryRow]) -> str | None:
    """Return when the row that was not seen for the longest time was last seen; None without rows."""
    return oldest(row.last_seen_at for row in rows)


def headers_of(datasette: "Datasette", parameters: Mapping[str, str], answer: Answer) -> dict[str, str]:
    """Return the headers of an answer: its age, its limits for browsers, and who may cache it."""
    headers = {**SAFETY, **answer.headers}
    if "access_token" in parameters:  # for headers and cookies Datasette does this
        headers["Cache-Control"] = "private, no-store"
    if answer.synced_at is not None:
        headers["X-Mirror-Synced-At"] = answer.synced_at
        age = (utc_now() - from_text(answer.synced_at)).total_seconds()
        headers["Age"] = str(max(0, int(age)))
    if datasette.cors:
        add_cors_headers(headers)
    return headers


class BodyRefused(Exception):
    """A body was not read, with the status and the reason for the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_within(
    receive: Receive, headers: Mapping[str, str], *, most: int, seconds: float = SECONDS
) -> bytes:
    """Read a body of at most `most` bytes within `seconds`.

    Raises BodyRefused: 413 for a larger body, 408 for a slower one, 400 for one that ends early.
    """
    too_large = BodyRefused(413, f"The body is larger than {most:,} bytes.")
    length = headers.get("content-length", "")  # refused before anything is read
    if length.isdecimal() and (len(length) > 18 or int(length) > most):
        raise too_large
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
                    raise too_large
    except TimeoutError:
        raise BodyRefused(408, f"The body was not complete after {seconds:g} seconds.") from None
    return b"".join(parts)


async def read_fields(request: Request, *, assumed: str) -> dict[str, Any]:
    """Read the fields of a form, which are texts, or of a JSON object.

    :param assumed: FORM or JSON, for a body without a content type.

    Raises ApiError: 413 for a body of more than LARGEST_BODY bytes, 408 for a slow one, 415 for another
    content type, 400 for one that cannot be decoded or has more than MOST_FIELDS fields.
    """
    try:
        body = await read_within(request.receive, request.headers, most=LARGEST_BODY)
    except BodyRefused as error:
        raise ApiError(error.status, _REFUSALS[error.status], detail=str(error)) from None
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower() or assumed
    is_json = content_type == JSON or content_type.endswith("+json")
    if not body.strip():
        return {}
    if not is_json and content_type != FORM:
        raise ApiError(415, "Unsupported Media Type", detail=f"Send the fields as {assumed}.")
    try:
        if is_json:
            return msgspec.json.decode(body, type=dict[str, Any])
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors too
        raise ApiError(400, "Bad Request", detail=f"The body cannot be read: {error}") from None
    return dict(reversed(pairs))  # the first value of a repeated field counts


def fields_in(body: bytes) -> dict[str, str]:
    """Return the fields of a page's form; none if it has more than MOST_PAGE_FIELDS."""
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_PAGE_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}
