"""What both APIs do around an answer: parameters, who asks, reads that see one state of the file, headers."""

import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec
from datasette.utils import add_cors_headers, sqlite_timelimit
from datasette.utils.asgi import Request

from mirror.serve import callers, formats, lookups, tokens
from mirror.serve.answers import Answer, ApiError, not_accepted, unread
from mirror.serve.callers import ANONYMOUS, Caller, Credentials, NotAccepted
from mirror.serve.mirrors import served
from mirror.serve.permissions import caller_of, note_use, said_by
from mirror.serve.writes import Limited, Writer, admitted
from mirror.times import from_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

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


def credentials_of(datasette: "Datasette", request: Request, parameters: Mapping[str, str]) -> Credentials:
    """Read who asks. A script on a foreign page (JSONP) is not helped by a password that a browser kept."""
    if "access_token" in parameters:
        return Credentials(token=parameters["access_token"])
    said = said_by(datasette, request)
    if "callback" in parameters and request.headers.get("authorization", "").lower().startswith("basic"):
        return msgspec.structs.replace(said, unused=True)
    return said


async def admitted_writer(
    datasette: "Datasette", database: "Database", said: Credentials
) -> tuple[Caller, Writer]:
    """Recognise who wants to write, and return a writer that does what they may.

    Raises NotAccepted, and ApiError as `admitted` does.
    """

    def read(connection: sqlite3.Connection) -> tuple[Caller, frozenset[str] | None]:
        caller = callers.recognise(connection, said)
        return caller, lookups.administered(connection, caller)

    caller, namespaces = await database.execute_fn(read)
    await note_use(datasette, database, caller)
    admitted(caller)
    return caller, Limited(served(datasette).writer, namespaces)


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
