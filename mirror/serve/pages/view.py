"""The common part of all pages: the caller, reads in one snapshot, templates, safe headers."""

import logging
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote

from datasette.utils import actor_matches_allow
from datasette.utils.asgi import Forbidden, Request, Response

from mirror.queries.crawl import UpstreamSummary, standing, upstreams
from mirror.queries.visibility import Caller, is_unconfirmed
from mirror.readable import visible_html
from mirror.serve.auth import ActorVisitor, caller_of
from mirror.serve.exchange import (
    RESTORED_SECONDS,
    UNCONFIRMED,
    UNTIL_LISTED,
    host_of,
    mirror_of,
    number_in,
    parameters_of,
    served_of,
    snapshot,
)
from mirror.serve.middleware import PAGE
from mirror.serve.urls import SiteLinks, assets, origin_of
from mirror.store.faults import is_busy
from mirror.store.files import snapshot_moment
from mirror.store.lock import is_syncing
from mirror.times import past_moment, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

    from mirror.serve.guarded_database import GuardedDatabase

# Added to what is not here if it may be listed later.
LATER = " It may not have been listed yet."

COUNTING_MS = 60_000  # the time limit of counts in the background, which no page waits for

# Seconds until a page of the status is reloaded, during a sync and otherwise.
BUSY_SECONDS, IDLE_SECONDS = 5, 60

# Characters that HTML forbids, also in the values of fields.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")

Read = TypeVar("Read")
View = Callable[..., Awaitable[Response]]

log = logging.getLogger(__name__)


class NotHere(Exception):
    """The page does not exist for this visitor.

    :param message: what was not found. It becomes a sentence of its own, with a capital letter.
    :param query: a search that may find it.
    """

    def __init__(self, message: str, query: str = "") -> None:
        super().__init__(message[:1].upper() + message[1:])
        self.query = query


class Unconfirmed(Exception):
    """A copy was restored, and what it calls public is not confirmed yet."""


class Visit:
    """A request for a page. `is_open`: the visitor may use tables and SQL, once a page is rendered."""

    def __init__(
        self, datasette: "Datasette", request: Request, database: "GuardedDatabase", caller: Caller
    ) -> None:
        self.datasette = datasette
        self.request = request
        self.database = database
        self.caller = caller
        self.is_open = False
        self.now = utc_now()
        self.links = SiteLinks(datasette.urls.path, str(database.route or database.name))
        given = parameters_of(request)
        self.parameters = {name: value.replace("\x00", "") for name, value in given.items()}

    @property
    def names(self) -> dict[str, str]:
        """The names in the path."""
        return cast("dict[str, str]", self.request.url_vars)

    def named(self, *parts: str) -> str:
        """Return the names in these parts of the path, with slashes between; raises NotHere."""
        try:
            return "/".join(unquote(self.names[part], errors="strict") for part in parts)
        except UnicodeDecodeError:
            raise NotHere("That address is not UTF-8.") from None

    @property
    def names_nothing(self) -> bool:
        """Whether the address has neither a name nor an id, like the target of an empty form."""
        return not self.names and "id" not in self.parameters

    @property
    def origin(self) -> str:
        """The origin of all links: that of the configured address, or of the request."""
        configured = origin_of(served_of(self.request).config.public_url)
        return configured or f"{self.request.scheme}://{host_of(self.request) or 'localhost'}"

    def number(self, parameter: str, default: int, most: int) -> int:
        """Return a parameter that is a number from 1 to `most`; `default` for any other text."""
        number = number_in(self.parameters.get(parameter, ""), digits=15)
        return min(number, most) if number else default

    @property
    def at(self) -> str:
        """The requested time in the past, "" for today; raises NotHere for a future one."""
        given = self.parameters.get("at", "").strip()
        try:
            return past_moment(given, self.now) if given else ""
        except ValueError as error:
            raise NotHere(f"{error}.") from None

    def is_open_in(self, connection: sqlite3.Connection) -> bool:
        """Return whether tables and SQL are open to the visitor in the snapshot of a connection."""
        asking = ActorVisitor(self.request.actor)
        return asking.sees_all(self.database.name) or not (
            self.database.lacks_changes() or asking.lacks(connection, self.database.name)
        )

    def standing(self, connection: sqlite3.Connection) -> list[UpstreamSummary]:
        """Read the state of each upstream; visitors with access to tables also see the progress of a sync."""
        is_open = self.is_open_in(connection)
        return standing(connection, self.caller, syncing=self.syncing, with_progress=is_open)

    @property
    def refresh(self) -> int:
        """Seconds until a page that shows the progress of a sync is reloaded."""
        return IDLE_SECONDS if self.syncing is False else BUSY_SECONDS

    @property
    def syncing(self) -> bool | None:
        """Whether a process holds the lock of the mirror for a run; None if that is unknown."""
        return is_syncing(Path(self.database.path)) if self.database.path else None

    async def read(self, work: Callable[[sqlite3.Connection], Read], *, times: int = 1) -> Read:
        """Read in one snapshot, within `times` times the time limit of Datasette."""
        limit = times * self.datasette.setting("sql_time_limit_ms")
        return cast(
            "Read",
            await self.database.read(lambda connection: _in_snapshot(connection, self.caller, work, limit)),
        )

    async def timed(
        self, work: Callable[[sqlite3.Connection], Read], *, times: int = 1
    ) -> tuple[Read, float]:
        """Read as `read` does; also return how many milliseconds the work took."""

        def measured(connection: sqlite3.Connection) -> tuple[Read, float]:
            start = time.perf_counter()
            found = work(connection)
            return found, (time.perf_counter() - start) * 1000

        return await self.read(measured, times=times)

    async def count(
        self, key: str, work: Callable[[sqlite3.Connection], Read], *, wait: float | None = None
    ) -> Read | None:
        """Return a number that needs a scan, from a cache for each kind of visitor; None until it is known.

        :param wait: how long the page waits for the first count, in seconds, if not as usual.
        """

        async def count() -> Any:
            return await self.database.read(
                lambda connection: _in_snapshot(connection, self.caller, work, COUNTING_MS), "count"
            )

        caller = self.caller
        seen = "everything" if caller.sees_all else caller.user_ids
        # A file that replaces another one has other rows with the same ids.
        remembered = (self.database.name, self.database.inode(), seen, key)
        found = await served_of(self.request).counts.get(remembered, count, wait=wait)
        return cast("Read | None", found)

    async def page(self, template: str, context: dict[str, Any], *, status: int = 200) -> Response:
        """Render a page, with the age of the data in its footer."""

        def work(connection: sqlite3.Connection) -> dict[str, Any]:
            self.is_open = self.is_open_in(connection)
            return {"foot": upstreams(connection, self.caller), "snapshot": snapshot_moment(connection)}

        context |= {"visit": self, **await self.read(work)}
        return await rendered(self.datasette, self.request, template, context, status=status)

    async def fragment(self, template: str, context: dict[str, Any]) -> Response:
        """Render a part of a page, for the script."""
        # Not by Datasette, which asks all plugins for what only whole pages have, at each keystroke.
        found = self.datasette.jinja_env.get_template(template)
        body = await found.render_async({"visit": self, "links": self.links, "now": self.now, **context})
        return Response.html(safe_html(body), headers=PAGE)


async def rendered(
    datasette: "Datasette", request: Request, template: str, context: dict[str, Any], *, status: int = 200
) -> Response:
    """Render a template under the strict content policy. No character of a name is hidden."""
    database = mirror_of(request)
    known: dict[str, Any] = {
        "assets": {name: datasette.urls.path(one.address) for name, one in assets().items()},
        "links": SiteLinks(datasette.urls.path, str(database.route or database.name) if database else ""),
        "now": utc_now(),
        "visit": None,
    }
    body = safe_html(await datasette.render_template(template, known | context, request=request))
    return Response.html(body, status=status, headers=PAGE)


def safe_html(body: str) -> str:
    """Return a rendered page without hidden characters, and without those that HTML forbids."""
    return _FORBIDDEN.sub("\ufffd", visible_html(body))


def page(view: Callable[[Visit], Awaitable[Response]]) -> View:
    """Turn a function that answers a visit into a Datasette view for GET and HEAD."""

    async def answer(datasette: "Datasette", request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response.text("Method not allowed", status=405, headers={"Allow": "GET, HEAD"})
        try:
            response = await _viewed(view, await _visit(datasette, request))
        except NotHere as error:
            response = await _problem(datasette, request, 404, "Not here", str(error))
        except Unconfirmed:
            response = await _problem(datasette, request, 503, UNCONFIRMED, UNTIL_LISTED)
            response.headers["Retry-After"] = str(RESTORED_SECONDS)
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise  # Datasette passes it to `unread`
            log.warning("%s: %s", request.path, error)
            message = "This page took too long. Narrow the request, or try again in a moment."
            response = await _problem(datasette, request, 503, "The mirror is busy", message)
        if request.method == "HEAD":
            response.body = ""
        return response

    return answer


async def _viewed(view: Callable[[Visit], Awaitable[Response]], visit: Visit) -> Response:
    """Answer a visit; what is not here has a page with the age of the data too."""
    try:
        return await view(visit)
    except NotHere as error:
        request, message = visit.request, str(error)
        return await _problem(
            visit.datasette, request, 404, "Not here", message, query=error.query, visit=visit
        )


async def _problem(
    datasette: "Datasette",
    request: Request,
    status: int,
    title: str,
    message: str,
    *,
    query: str = "",
    visit: Visit | None = None,
) -> Response:
    if request.path.endswith((".json", ".csv", ".atom")):
        return Response.json({"ok": False, "error": message, "status": status, "title": title}, status=status)
    context = {"title": title, "message": message, "status": status, "query": query}
    if visit:
        return await visit.page("mirror_problem.html", context, status=status)
    return await rendered(datasette, request, "mirror_problem.html", context, status=status)


async def _visit(datasette: "Datasette", request: Request) -> Visit:
    """Identify the visitor and the mirror; raises NotHere, or Forbidden by the operator's permissions."""
    database = mirror_of(request)
    if database is None:
        raise NotHere("No mirror is attached.")
    await datasette.ensure_permissions(request.actor, ["view-instance"])
    allowed = datasette.metadata("allow", database=database.name, fallback=False)
    if not actor_matches_allow(request.actor, allowed):
        raise Forbidden("view-database")
    database.refuse_outdated()
    return Visit(datasette, request, database, caller_of(request.actor, database.name))


def _in_snapshot(
    connection: sqlite3.Connection,
    caller: Caller,
    work: Callable[[sqlite3.Connection], Read],
    milliseconds: int,
) -> Read:
    with snapshot(connection, milliseconds):
        if is_unconfirmed(connection, caller):
            raise Unconfirmed
        return work(connection)
