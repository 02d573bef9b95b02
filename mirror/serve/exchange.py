"""What both APIs do around an answer: parameters, who asks, reads that see one state of the file, headers."""

import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl

import msgspec
from datasette.utils import add_cors_headers, sqlite_timelimit
from datasette.utils.asgi import Request

from mirror.queries.caller import ANONYMOUS, Caller
from mirror.queries.repositories import REFS_NOT_MIRRORED
from mirror.queries.visible import state_of_refs
from mirror.serve import auth as callers
from mirror.serve.api1 import formats
from mirror.serve.auth import Credentials, NotAccepted, caller_of, said_by
from mirror.serve.body import BodyRefused, read
from mirror.store import tokens
from mirror.store.files import DAMAGED, known_remedy
from mirror.times import from_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database


log = logging.getLogger(__name__)

REFS_HEADER = "X-Mirror-Refs"
"""Why refs are not answered: "not read yet" or "not mirrored"."""

REFS_RETRY_SECONDS = 60

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
LARGEST_BODY = 256 * 1024
MOST_FIELDS = 200
_REFUSALS = {400: "Bad Request", 408: "Request Timeout", 413: "Request Entity Too Large"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request to an API, taken apart: names out of the path, the first value of each parameter."""

    method: str
    names: tuple[str, ...] = ()
    parameters: Mapping[str, str] = {}
    caller: Caller

    def number(self, parameter: str, default: int, most: int) -> int:
        """Read a parameter that counts something; what is no number is the default, as then."""
        text = self.parameters.get(parameter, "")
        return min(int(text), most) if text.isascii() and text.isdecimal() and len(text) < 10 else default


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A body to be rendered; None is no body at all. `synced_at` is the age of what it was made from."""

    body: Any = None
    status: int = 200
    synced_at: str | None = None
    headers: Mapping[str, str] = {}


Handler = Callable[..., Answer]


class ApiError(Exception):
    """A refusal with its status, in the words of then: ``{"error": {"message", "detail"?, "fields"?}}``."""

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
        """Return the refusal as an answer."""
        return Answer(body=self.body, status=self.status, headers=self.headers)


def bad_request(fields: Mapping[str, str]) -> ApiError:
    """Refuse a form, naming each field and what is wrong with it."""
    detail = " ".join(f"{name}: {complaint}" for name, complaint in fields.items())
    return ApiError(400, "Bad Request", detail=detail, fields=fields)


def unauthorized(reason: str = "") -> ApiError:
    """Ask for credentials; `reason` says what is wrong with those that were sent."""
    return ApiError(
        401,
        "Unauthorized",
        detail=f"{reason}Send a token of this mirror, as the password of a Basic login or as Bearer; "
        "`mirror token create NAME` makes one.",
        headers={"WWW-Authenticate": 'Basic realm="Bitbucket mirror", charset="UTF-8"'},
    )


def unread(path: str, error: Exception) -> ApiError:
    """Log why the file could not be read for a path, busy or damaged, and return the refusal."""
    if isinstance(error, sqlite3.OperationalError):
        log.warning("%s: %s", path, error)
        return ApiError(503, "The mirror is busy", headers={"Retry-After": "1"})
    log.error("%s: %s (%s)", path, known_remedy(str(error)) or DAMAGED, error)
    return ApiError(503, "The file of the mirror cannot be read; the log says why.")


def not_accepted() -> ApiError:
    """Refuse a credential that is unknown, expired or revoked."""
    return unauthorized("This credential is not accepted: it is unknown, expired or revoked. ")


def not_found(what: str, name: str) -> ApiError:
    """Say that the mirror holds no such thing for this caller; clients test how the message begins."""
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


def must_have_read_refs(
    connection: sqlite3.Connection, repository_id: int, full_name: str, refs_synced_at: str | None
) -> None:
    """Raise ApiError 503 for a repository whose refs were never read, 501 where none are mirrored."""
    if refs_synced_at is not None:
        return
    not_mirrored_here = state_of_refs(connection, repository_id) == REFS_NOT_MIRRORED
    raise refs_not_mirrored() if not_mirrored_here else refs_not_read(full_name)


def must_know_followers(known: Sequence[object], count: int | None) -> None:
    """Raise ApiError 501 where the upstream told neither followers nor how many there are."""
    if not known and count is None:
        raise not_mirrored("who follows a repository")


def oldest(moments: Iterable[str | None]) -> str | None:
    """Return the age of what is made of several rows: that of the oldest."""
    return min((moment for moment in moments if moment), default=None)


log = logging.getLogger(__name__)


async def refusals_answered(request: Request, answering: Awaitable[Answer]) -> Answer:
    """Await an answer; whatever goes wrong is an answer as well."""
    try:
        return await answering
    except ApiError as error:
        return error.answer()
    except NotAccepted:
        return not_accepted().answer()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return unread(request.path, error).answer()
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return ApiError(500, "The mirror could not answer; its log says why.").answer()


def parameters_of(request: Request) -> dict[str, str]:
    """Read the query, the first value of each; what cannot be read is ignored like what is not known."""
    try:
        read = parse_qs(request.query_string, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return {}
    return {key: values[0] for key, values in read.items()}


async def read_fields(request: Request) -> dict[str, str]:
    """Read the fields of a form, or of a JSON object instead.

    Raises ApiError: 413 for a body of more than LARGEST_BODY bytes, 408 for a slow one, 415 for another type,
    400 for one that cannot be read or has more than MOST_FIELDS fields.
    """
    body, content_type = await read_body(request), content_type_of(request)
    if not body:
        return {}
    if content_type == JSON:
        fields = read_json(body)
        if isinstance(fields.get("owner"), Mapping | list):  # which must not be taken for no owner
            raise bad_request({"owner": "This field is a name."})
        return plain_fields(fields)
    if content_type not in ("", FORM):
        raise ApiError(415, "Unsupported Media Type", detail=f"Send the fields as {FORM}.")
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise _unreadable(error) from None
    return dict(reversed(pairs))  # the first value of a repeated field counts


def content_type_of(request: Request) -> str:
    """Return the content type of a body without its parameters, "" where none is given."""
    content_type: str = request.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


async def read_body(request: Request) -> bytes:
    """Read a body of at most LARGEST_BODY bytes; raises ApiError 413, 408 or 400."""
    try:
        return await read(request.receive, request.headers, most=LARGEST_BODY)
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


def plain_fields(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts, numbers and booleans of a JSON object as fields of a form."""
    return {name: str(value) for name, value in values.items() if isinstance(value, str | int | float)}


def _unreadable(error: Exception) -> ApiError:
    return ApiError(400, "Bad Request", detail=f"The body cannot be read: {error}")


def credentials_of(datasette: "Datasette", request: Request, parameters: Mapping[str, str]) -> Credentials:
    """Read who asks. A script on a foreign page (JSONP) is not helped by a password that a browser kept."""
    if "access_token" in parameters:
        return Credentials(token=parameters["access_token"])
    said = said_by(datasette, request)
    if "callback" in parameters and request.headers.get("authorization", "").lower().startswith("basic"):
        return msgspec.structs.replace(said, unused=True)
    return said


def login_of(request: Request, database: "Database") -> int | None:
    """Return the token behind a login cookie, recognised by the plugin in this very request; for reading."""
    return caller_of(request.actor, database.name).token_id or None


def caller_in(connection: sqlite3.Connection, said: Credentials, login: int | None) -> Caller:
    """Recognise who asks, by credentials or by the token behind a login; raises NotAccepted."""
    if login is None:
        return callers.recognise(connection, said)
    living = tokens.find_by_id(connection, login)
    return callers.holder(connection, living, None) if living else ANONYMOUS


@contextlib.contextmanager
def bounded(datasette: "Datasette", connection: sqlite3.Connection) -> Iterator[None]:
    """Let all reads of an answer see one state of the file, within Datasette's time limit."""
    # Datasette decodes texts by a function in Python, for files by anybody; a mirror's are all UTF-8.
    decoding, connection.text_factory = connection.text_factory, str
    try:
        with sqlite_timelimit(connection, datasette.setting("sql_time_limit_ms")):
            connection.execute("BEGIN")
            try:
                yield
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
    finally:
        connection.text_factory = decoding


def method_not_allowed(methods: Sequence[str], *, read_only: bool) -> ApiError:
    """Say which methods an address has."""
    detail = (
        "This mirror is read-only. Writes pass through to the upstream where `writes = true` is configured."
        if read_only
        else None
    )
    return ApiError(405, "Method Not Allowed", detail=detail, headers={"Allow": ", ".join(methods)})


def headers_of(datasette: "Datasette", parameters: Mapping[str, str], answer: Answer) -> dict[str, str]:
    """Return an answer's headers: its age, and what keeps it from being misused or kept by others."""
    headers = {**formats.SAFETY, **answer.headers}
    if "access_token" in parameters:  # Datasette sees to this where a header or a cookie says who asks
        headers["Cache-Control"] = "private, no-store"
    if answer.synced_at is not None:
        headers["X-Mirror-Synced-At"] = answer.synced_at
        age = (utc_now() - from_text(answer.synced_at)).total_seconds()
        headers["Age"] = str(max(0, int(age)))
    if datasette.cors:
        add_cors_headers(headers)
    return headers
