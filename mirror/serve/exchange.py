"""A request and its answer, read and written in one way by both APIs, the pages and the webhooks."""

import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

import msgspec
from datasette.utils import add_cors_headers, sqlite_timelimit
from datasette.utils.asgi import Request

from mirror.queries.caller import Caller
from mirror.queries.refs import REFS_NOT_MIRRORED, REFS_READ
from mirror.queries.rows import RepositoryRow
from mirror.store.files import DAMAGED, known_remedy
from mirror.times import from_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

    from mirror.serve.database import GuardedDatabase
    from mirror.serve.state import Served

AsgiScope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[AsgiScope, Receive, Send], Awaitable[None]]
"""The types of ASGI, which Datasette speaks with the server below it."""

SERVED, MIRROR = "mirror.served", "mirror.database"
"""Keys of an ASGI scope: the state of the server, and the mirror that the request is about."""

SAFETY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer that is no page: browsers neither guess its type nor run anything in it."""

JSON_TYPE = "application/json; charset=utf-8"
REFS_HEADER = "X-Mirror-Refs"
"""Why refs are not answered: "not read yet" or "not mirrored"."""

REFS_RETRY_SECONDS = 60
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)

log = logging.getLogger(__name__)


def served_of(request: Request) -> "Served":
    """Return the state of the server that a request came to."""
    return cast("Served", request.scope[SERVED])


def mirror_of(request: Request) -> "GuardedDatabase | None":
    """Return the mirror that a request is about: the first that is attached."""
    return cast("GuardedDatabase | None", request.scope[MIRROR])


def parameters_of(request: Request) -> dict[str, str]:
    """Return the first value of each query parameter; nothing where the query cannot be read."""
    try:
        read = parse_qs(request.query_string, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return {}
    return {key: values[0] for key, values in read.items()}


def number_in(text: str, *, digits: int) -> int | None:
    """Read a whole number in at most so many ASCII digits; None for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None


def host_of(request: Request) -> str | None:
    """Return the host and port that a request was sent to; None for a Host header that names none.

    ``X-Forwarded-Host`` is not believed, because anybody can send it. Whoever serves behind a proxy
    configures `public_url`.
    """
    host: str = request.headers.get("host", "")
    if not host:
        name, port = request.scope.get("server") or ("localhost", None)
        host = f"[{name}]" if ":" in name else name
        host += f":{port}" if port else ""
    return host if _HOST.fullmatch(host) else None


def address_of(datasette: "Datasette", request: Request) -> str:
    """Return the configured address of the server, else the one that the request was sent to.

    It ends without a slash. Raises ApiError 400 for a Host header that names no host.
    """
    public_url = served_of(request).config.public_url
    if public_url:
        return public_url.rstrip("/")
    host = host_of(request)
    if host is None:
        raise ApiError(400, "Bad Request", detail="The Host header is no name of a host.")
    return f"{request.scheme}://{host}{datasette.setting('base_url').rstrip('/')}"


@contextmanager
def snapshot(connection: sqlite3.Connection, milliseconds: int) -> Iterator[None]:
    """Let all reads inside see one state of the file; they are interrupted after so many milliseconds."""
    with sqlite_timelimit(connection, milliseconds):
        connection.execute("BEGIN")
        try:
            yield
        finally:
            if connection.in_transaction:  # an error of the file may have ended it
                connection.execute("COMMIT")


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to an API: names out of the path, the first value of each parameter, and who asks."""

    method: str
    names: tuple[str, ...] = ()
    parameters: Mapping[str, str] = {}
    caller: Caller

    def number(self, parameter: str, default: int, most: int) -> int:
        """Return a parameter that is a whole number, at most `most`; `default` for any other text."""
        number = number_in(self.parameters.get(parameter, ""), digits=9)
        return default if number is None else min(number, most)

    def selected(self, answer: "Answer") -> "Answer":
        """Return the parts of an answer that are asked for: all of them, unless an API has a parameter."""
        return answer


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A body to be rendered, None for none. `synced_at` is when the rows that it shows were read upstream."""

    body: Any = None
    status: int = 200
    synced_at: str | None = None
    headers: Mapping[str, str] = {}


class ApiError(Exception):
    """An error with its status; the body is ``{"error": {"message", "detail"?, "fields"?}}``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        detail: str | None = None,
        fields: Mapping[str, str] | None = None,
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
        self.body = {"error": error}

    def answer(self) -> Answer:
        """Return the error as an answer."""
        return Answer(body=self.body, status=self.status, headers=self.headers)


def bad_request(fields: Mapping[str, str]) -> ApiError:
    """Return the error for a form; `fields` maps the wrong ones to what is wrong with them."""
    detail = " ".join(f"{name}: {complaint}" for name, complaint in fields.items())
    return ApiError(400, "Bad Request", detail=detail, fields=fields)


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
    """Log why the file could not be read, busy or damaged, and return the error."""
    if isinstance(error, sqlite3.OperationalError):
        log.warning("%s: %s", path, error)
        return ApiError(503, "The mirror is busy", headers={"Retry-After": "1"})
    log.error("%s: %s (%s)", path, known_remedy(str(error)) or DAMAGED, error)
    return ApiError(503, "The file of the mirror cannot be read; the log says why.")


def not_accepted() -> ApiError:
    """Return the error for a credential that is unknown, expired or revoked."""
    return unauthorized("This credential is not accepted: it is unknown, expired or revoked. ")


def not_found(what: str, name: str) -> ApiError:
    """Return the error for what the caller cannot see; clients test how the message begins."""
    return ApiError(404, f"{what} {name} not found")


def refs_not_read(full_name: str) -> ApiError:
    """Say that the refs of a repository were never read; the header tells another mirror so."""
    return ApiError(
        503,
        f"The branches and tags of {full_name} have not been read yet",
        detail="The mirror reads them in one of its next syncs; until then it does not know which there are.",
        headers={"Retry-After": str(REFS_RETRY_SECONDS), REFS_HEADER: "not read yet"},
    )


def not_mirrored(what: str) -> ApiError:
    """Say that nothing is known of something: an empty list would say that there is none."""
    return ApiError(501, f"This mirror does not hold {what}", detail="The upstream does not tell it.")


def refs_not_mirrored() -> ApiError:
    """Say that refs are left out of the mirror as a whole (``refs = "none"``)."""
    return ApiError(
        501,
        "This mirror holds no branches and tags",
        detail='Its operator configured refs = "none" for this upstream.',
        headers={REFS_HEADER: "not mirrored"},
    )


def must_have_read_refs(row: RepositoryRow) -> None:
    """Raise ApiError 503 for a repository whose refs were never read, 501 where none are mirrored."""
    if row.refs != REFS_READ:
        raise refs_not_mirrored() if row.refs == REFS_NOT_MIRRORED else refs_not_read(row.full_name)


def must_know_followers(known: Sequence[object], count: int | None) -> None:
    """Raise ApiError 501 where the upstream told neither followers nor how many there are."""
    if not known and count is None:
        raise not_mirrored("who follows a repository")


def oldest(moments: Iterable[str | None]) -> str | None:
    """Return the oldest of several moments; None where there is none."""
    return min((moment for moment in moments if moment), default=None)


def headers_of(datasette: "Datasette", parameters: Mapping[str, str], answer: Answer) -> dict[str, str]:
    """Return the headers of an answer: its age, what browsers may do with it, who may cache it."""
    headers = {**SAFETY, **answer.headers}
    if "access_token" in parameters:  # Datasette sees to this where a header or a cookie says who asks
        headers["Cache-Control"] = "private, no-store"
    if answer.synced_at is not None:
        headers["X-Mirror-Synced-At"] = answer.synced_at
        age = (utc_now() - from_text(answer.synced_at)).total_seconds()
        headers["Age"] = str(max(0, int(age)))
    if datasette.cors:
        add_cors_headers(headers)
    return headers
