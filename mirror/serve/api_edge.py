"""What all APIs share: addresses, methods, credentials, one snapshot, errors, headers.

`Api` describes how one API differs from another; `Api.view` does what all have in common.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import unquote

import msgspec
from datasette.utils.asgi import Request, Response

from mirror.queries.file_state import published_at
from mirror.queries.rows import Upstreams, upstreams_of
from mirror.queries.visibility import Caller, extra_of, is_unconfirmed
from mirror.serve.auth import NO_CREDENTIALS, NotAccepted, caller_in, caller_of, credentials_of, save_use_of
from mirror.serve.exchange import (
    SNAPSHOT_HEADER,
    Answer,
    ApiError,
    ApiRequest,
    address_of,
    headers_of,
    mirror_of,
    not_accepted,
    parameters_of,
    served_of,
    snapshot,
    unconfirmed,
    unread,
)
from mirror.serve.mementos import ACCEPT, Memento, answered_at, moment_asked
from mirror.serve.quick_reads import read_in_thread
from mirror.serve.unmirrored import NotMirrored, as_sent, passed_on
from mirror.serve.writer import FindRepository, Write, Writing, admitted_writer, answer_of
from mirror.times import utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

    from mirror.serve.guarded_database import GuardedDatabase

LONGEST_PATH = 2000  # characters below the version; names are shorter
_SEARCHES = {"q", "sort", "name"}  # parameters that may make an answer read many rows
_READ_ONLY = (
    "This mirror is read-only. Writes pass through to the upstream where `writes = true` is configured."
)

Names = tuple[str, ...]
Parameters = Mapping[str, str]
Reader = Callable[[sqlite3.Connection, Any], Answer]

log = logging.getLogger(__name__)


class Api(NamedTuple):
    """The description of one API.

    :param pattern: regular expression of its addresses; the group `rest` follows the version.
    :param route: splits a path into a pattern with placeholders, and the names in their places.
    :param readers: the functions that answer GET, by pattern.
    :param writers: the functions that pass a write to the upstream, by pattern and method.
    :param find: finds the repository of a path, and the answer to a read of it; needed where there are
        writers.
    :param missing: the error for an unknown address.
    :param render: turns an answer into bytes and their content type.
    :param check: raises ApiError for parameters that are wrong at any address.
    :param slow_formats: values of the parameter `format` that are slow to render.
    :param jsonp: whether `callback` makes the answer a script. Login cookies are then ignored.
    :param headers: headers of every answer.
    :param version: the name of the API in addresses.
    :param request: adds what only this API needs to a request; raises ApiError.
    :param unmirrored: for an address whose data the mirror does not hold, returns a function that raises
        NotMirrored, or 404 if the caller may not know the repository or account; None for unknown addresses.
    :param dated: the readers that accept a time in the past; owner and slug come first in their addresses.
    :param at_once: the readers that usually take less time than a change of threads.
    :param no_writes: why an API has no writes, for the error 405.
    """

    pattern: str
    route: Callable[[Sequence[str]], tuple[Names, Names]]
    readers: Mapping[Names, Reader]
    missing: ApiError
    render: Callable[[Answer, Parameters], tuple[bytes, str]]
    writers: Mapping[Names, Mapping[str, Write]] = {}
    find: FindRepository | None = None
    check: Callable[[Parameters], None] | None = None
    slow_formats: Collection[str] = ()
    jsonp: bool = False
    headers: Mapping[str, str] = {}
    version: str = ""
    request: Callable[["Datasette", Request, ApiRequest], ApiRequest] = lambda _, __, asked: asked
    unmirrored: Callable[[Names], Reader | None] = lambda _: None
    no_writes: str | None = None
    dated: Collection[Reader] = ()
    at_once: Collection[Reader] = ()

    async def view(self, datasette: "Datasette", request: Request) -> Response:
        """Answer a request with any method. Every error becomes an answer too."""
        asking = _Exchange(self, datasette, request, parameters_of(request))
        found = await asking.answer()
        parameters = asking.parameters
        if parameters.get("format") in self.slow_formats:
            # A long list takes seconds, which would block the event loop.
            body, content_type = await asyncio.to_thread(self.render, found, parameters)
        else:
            body, content_type = self.render(found, parameters)
        headers = {**headers_of(datasette, parameters, found), **self.headers}
        if found.status != 204:
            headers["Content-Length"] = str(len(body))
        sent = b"" if request.method == "HEAD" else body
        return Response(sent, status=found.status, headers=headers, content_type=content_type)


class _Exchange(NamedTuple):
    """One request to an API, while it is answered."""

    api: Api
    datasette: "Datasette"
    request: Request
    parameters: Parameters

    async def answer(self) -> Answer:
        """Return the answer; every error becomes one too."""
        request = self.request
        try:
            return await self._found()
        except NotMirrored as error:
            redirects = served_of(request).config.redirect_unmirrored and request.method in ("GET", "HEAD")
            return error.redirect() if redirects else error.answer()
        except ApiError as error:
            return error.answer()
        except NotAccepted:
            return not_accepted().answer()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return unread(request.path, error).answer()
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return ApiError(500, "The mirror could not answer; its log says why.").answer()

    async def _found(self) -> Answer:
        """Find the route, then read or write; raises ApiError and NotAccepted."""
        api, method = self.api, self.request.method
        server, database = served_of(self.request), mirror_of(self.request)
        if database is None:
            raise ApiError(404, "No mirror is attached")
        pattern, names = self._route()
        reader, writers = api.readers.get(pattern), api.writers.get(pattern, {})
        unmirrored = api.unmirrored(pattern) if reader is None and not writers else None
        if unmirrored is not None and method != "OPTIONS":
            return await self._read(unmirrored, names, None)
        reader = reader or unmirrored
        if reader is None and not writers:
            raise api.missing
        writable = server.config.writes and server.writer is not None
        methods = [*(("GET", "HEAD") if reader else ()), *(writers if writable else ()), "OPTIONS"]
        if method == "OPTIONS":
            return Answer(headers={"Allow": ", ".join(methods)})
        if method not in methods:
            detail = _READ_ONLY if method in writers else api.no_writes
            raise ApiError(405, "Method Not Allowed", detail=detail, headers={"Allow": ", ".join(methods)})
        if api.find is not None and method in writers:
            given = credentials_of(self.request, self.parameters)
            caller, access = await admitted_writer(server, database, given)
            known = cast("Upstreams", await database.read(upstreams_of))
            asked = self._asked(names, caller, known)
            return await answer_of(writers[method], Writing(access, self.request, database, asked, api.find))
        reader = cast("Reader", reader)
        if reader in api.dated:
            return await self._read_at_time(reader, names)
        return await self._read(reader, names, None)

    def _route(self) -> tuple[Names, Names]:
        """Check the parameters and split the path; raises ApiError."""
        if self.api.check is not None:
            self.api.check(self.parameters)
        rest = self.request.url_vars["rest"] or "/"
        if len(rest) > LONGEST_PATH:
            raise ApiError(414, "Request-URI Too Long")
        try:
            names = [unquote(part, errors="strict") for part in rest.removesuffix("/").split("/")[1:]]
        except UnicodeDecodeError:
            raise ApiError(400, "Bad Request", detail="The address is not UTF-8.") from None
        # The rest of the path below a repository is a path of its own, which may have empty parts.
        is_readable = all(names[:3]) and not any("\x00" in name for name in names)
        return self.api.route(names) if is_readable else ((), ())

    async def _read_at_time(self, reader: Reader, names: Names) -> Answer:
        """Read from an address that accepts a time in the past, and say so in the headers."""
        request = self.request
        url = f"{address_of(self.datasette, request)}{as_sent(request.path)}{passed_on(request.query_string)}"
        headers = {"Vary": ACCEPT, "Link": f'<{url}>; rel="original timegate"'}
        moment = request.headers.get(ACCEPT.lower())
        try:
            at = None if moment is None else moment_asked(moment, utc_now())
            found = await self._read(reader, names, at)
        except ApiError as error:  # without these headers, a cache would serve it for the present
            error.headers = {**headers, **error.headers}
            raise
        return msgspec.structs.replace(found, headers={**headers, **found.headers})

    async def _read(self, reader: Reader, names: Names, at: str | None) -> Answer:
        """Call a reader in one snapshot of the file: as it is now, or as it was `at` a time.

        Raises ApiError and NotAccepted.
        """
        api, request, parameters = self.api, self.request, self.parameters
        server, database = served_of(request), cast("GuardedDatabase", mirror_of(request))
        given = credentials_of(request, parameters)
        # With `callback`, any page may include the answer as a script, and the browser would send the cookie.
        is_login = given == NO_CREDENTIALS and not (api.jsonp and "callback" in parameters)
        # Logins may read here, but not write; the 0 of Datasette's root is no token.
        login = (caller_of(request.actor, database.name).token_id or None) if is_login else None

        def read(connection: sqlite3.Connection, milliseconds: int) -> tuple[Caller, Answer | ApiError]:
            with _plain_texts(connection), snapshot(connection, milliseconds):
                caller = caller_in(connection, given, login)
                try:
                    return caller, self._found_in(connection, caller, reader, names, at)
                except ApiError as error:  # that the token was used is saved nevertheless
                    return caller, error

        # A search may read many rows, so it gets a thread.
        is_quick = at is None and reader in api.at_once and not _SEARCHES & parameters.keys()
        reading = server.quick_reads.read if is_quick else read_in_thread
        limit = self.datasette.setting("sql_time_limit_ms")
        caller, outcome = cast(
            "tuple[Caller, Answer | ApiError]", await reading(database, reader, read, limit)
        )
        await save_use_of(server, database, caller)
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome

    def _found_in(
        self, connection: sqlite3.Connection, caller: Caller, reader: Reader, names: Names, at: str | None
    ) -> Answer:
        """Call a reader in a snapshot; raises ApiError."""
        if is_unconfirmed(connection, caller):
            raise unconfirmed()
        known = upstreams_of(connection)

        def of_past(then: Memento) -> Answer:
            asked = self._asked(then.names, caller, known, then.copy)
            return asked.selected(reader(then.copy, asked))

        if at is not None:
            return answered_at(connection, caller, names, at, of_past)
        asked = self._asked(names, caller, known, connection)
        found, moment = asked.selected(reader(connection, asked)), published_at(connection)
        if moment is None:
            return found
        return msgspec.structs.replace(found, headers={**found.headers, SNAPSHOT_HEADER: moment})

    def _asked(
        self, names: Names, caller: Caller, known: Upstreams, connection: sqlite3.Connection | None = None
    ) -> ApiRequest:
        """Return the request as this API wants it; raises ApiError for unreadable parameters."""
        request = self.request
        asked = ApiRequest(
            method=request.method,
            names=names,
            parameters=self.parameters,
            caller=caller,
            api=self.api.version,
            path=request.url_vars["rest"] or "/",
            query=request.query_string,
            upstreams=known,
            find_extra=None if connection is None else partial(extra_of, connection, caller),
        )
        return self.api.request(self.datasette, request, asked)


@contextmanager
def _plain_texts(connection: sqlite3.Connection) -> Iterator[None]:
    """Let SQLite decode texts."""
    # Datasette decodes them in Python, in case some are not UTF-8, which is slower.
    decoding, connection.text_factory = connection.text_factory, str
    try:
        yield
    finally:
        connection.text_factory = decoding
