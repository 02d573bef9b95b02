"""The Datasette plugin. Each hook calls the module that does the work.

Registered by the entry point `mirror`, so it works under `mirror serve` and under plain `datasette FILE`.
"""

import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasette import hookimpl
from datasette.utils import StartupError, await_me_maybe
from datasette.utils.asgi import Request, Response
from jinja2 import Environment

from mirror.errors import ConfigError
from mirror.queries.past import register_past
from mirror.search import register
from mirror.search.refs.find import register_refs
from mirror.serve import auth, middleware, urls, webhooks
from mirror.serve.api1.routes import API as API_1
from mirror.serve.api2 import query_language
from mirror.serve.api2.routes import API as API_2
from mirror.serve.datacenter.routes import API as DATA_CENTER
from mirror.serve.datacenter.routes import OTHER_APIS
from mirror.serve.exchange import Application, mirror_of
from mirror.serve.guarded_database import as_csv, bytes_of, guard, mirror_named, mirrors
from mirror.serve.openapi import document as openapi
from mirror.serve.pages import changes, home, owner, repository, search, status, templates
from mirror.serve.pages import datasette as datasette_pages
from mirror.serve.pages.view import View, page
from mirror.serve.sql_access import current_visitor, sees_history
from mirror.serve.state import served
from mirror.serve.stored_queries import QUERIES
from mirror.serve.table_metadata import metadata
from mirror.store.files import MAPPED_BYTES

if TYPE_CHECKING:
    from datasette.app import Datasette

TEMPLATES = Path(__file__).with_name("templates")

APIS = (API_1, API_2, DATA_CENTER, OTHER_APIS)
_FOR_PROGRAMS = tuple(re.compile(one) for one in (*(api.pattern for api in APIS), webhooks.PATTERN))
_CREDENTIALS = {"authorization", "cookie"}

_NAMED = r"^/-/r/(?P<owner>[^/]+)/(?P<slug>[^/]+)/?$"

# Patterns of the pages, and their views.
ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (r"^/$", home.home_page),
    (r"^/-/index(\.(?P<format>jsono?))?$", home.index),
    (rf"^{datasette_pages.LOGIN}$", datasette_pages.login_page),
    (urls.ASSETS, urls.asset),
    (r"^/-/search$", page(search.results)),
    (r"^/-/search/options$", page(search.options)),
    (r"^/-/search\.json$", page(search.as_json)),
    (r"^/-/search\.csv$", page(search.as_csv)),
    (r"^/-/refs$", page(search.refs_results)),
    (r"^/-/refs\.json$", page(search.refs_as_json)),
    (r"^/-/search\.xml$", page(search.opensearch)),
    (r"^/-/search/suggestions$", page(search.suggestions)),
    (_NAMED, page(repository.repository_page)),
    (r"^/-/r$", page(repository.repository_page)),
    (r"^/-/u/(?P<owner>[^/]+)/?$", page(owner.owner_page)),
    (r"^/-/u$", page(owner.owner_page)),
    (r"^/-/changes$", page(changes.history)),
    (r"^/-/changes\.atom$", page(changes.feed)),
    (r"^/-/unexpected$", page(changes.unexpected_page)),
    (r"^/-/questions$", page(home.questions)),
    (r"^/-/inventory$", page(home.inventory)),
    (r"^/-/inventory\.csv$", page(home.inventory_csv)),
    (r"^/-/mirror-status$", page(status.status_page)),
]


@hookimpl
def startup(datasette: "Datasette") -> None:
    """Check the settings, so that a wrong one fails the start and not a request."""
    guard(datasette)
    # Datasette lets SQLite print a traceback for each failing function, and visitors' SQL can make them fail.
    sqlite3.enable_callback_tracebacks(False)  # noqa: FBT003 - takes no keywords
    try:
        served(datasette).check()
    except ConfigError as error:
        raise StartupError(str(error)) from error
    urls.check_prefix(datasette, served(datasette).config.public_url)


@hookimpl
def get_metadata(datasette: "Datasette") -> dict[str, Any]:
    """Describe the mirrors' tables."""
    known = served(datasette)
    # Datasette asks many times for each page, and a file may grow or be replaced while it is served.
    described = (datasette.databases, [bytes_of(one) for one in datasette.databases.values()])
    if known.described_databases != described:
        known.described_databases = described
        known.metadata = metadata({database.name: bytes_of(database) for database in mirrors(datasette)})
    return known.metadata


@hookimpl
def canned_queries(datasette: "Datasette", database: str) -> dict[str, dict[str, Any]]:
    """Offer the stored queries on mirrors, except those that the operator's metadata replace."""
    offered = QUERIES if mirror_named(datasette, database) else {}
    own = datasette.metadata("queries", database=database, fallback=False) or {}
    return {name: question.stored() for name, question in offered.items() if name not in own}


@hookimpl(tryfirst=True)
def actor_from_request(datasette: "Datasette", request: Request) -> Callable[[], Awaitable[Any]] | None:
    """Recognise tokens, trusted users and logins. The APIs recognise tokens themselves, in their snapshot.

    Raises NotAccepted when awaited; `mirror.serve.middleware` answers it.
    """
    headers = request.headers
    if ("authorization" in headers and _is_for_programs(request.path)) or not _CREDENTIALS & headers.keys():
        return None
    return lambda: auth.actor_of(datasette, request)


@hookimpl(hookwrapper=True, specname="actor_from_request")
def visitor_of_request(request: Request) -> Iterator[None]:
    """Remember whose SQL the request runs, whichever plugin recognised the sender, and whether for CSV."""
    outcome: Any = yield
    opinions = outcome.get_result()

    async def remembered() -> Any:
        current_visitor.set(auth.STRANGER)
        as_csv.set(request.path.endswith(".csv"))
        actor = None
        for opinion in opinions:
            actor = await await_me_maybe(opinion)
            if actor and not auth.has_ended(actor):
                break
            actor = None
        known = actor or request.scope.get("actor")
        if known:
            current_visitor.set(auth.ActorVisitor(known))
        return actor

    outcome.force_result([remembered])


@hookimpl(trylast=True)  # the last opinion decides
def permission_allowed(
    datasette: "Datasette", actor: dict[str, Any] | None, action: str, resource: Any
) -> Callable[[], Awaitable[bool | None]]:
    """Close mirrors that hold private rows, and what Datasette opens to whoever is called root."""

    async def opinion() -> bool | None:
        is_of_root = action in ("permissions-debug", "debug-menu") or resource == "_internal"
        if is_of_root and actor and "mirror" in actor:
            return False
        if action == "view-database-download" and not auth.may_download(datasette, actor, resource):
            return False
        return False if await auth.is_closed(datasette, actor, resource) else None

    return opinion


@hookimpl(tryfirst=True)
def register_routes() -> list[tuple[str, View]]:
    """Add the routes of the plugin; Datasette tries them before those of other plugins."""
    return [
        *ROUTES,
        (webhooks.PATTERN, webhooks.answer),
        *status.MONITORING,
        (openapi.PATTERN, openapi.openapi),
        *((api.pattern, api.view) for api in APIS),
    ]


@hookimpl
def skip_csrf(scope: dict[str, Any]) -> bool:
    """Exempt APIs and webhooks from the CSRF check."""
    # A cookie never gives them the right to write. A cached Basic login would, so `mirror.serve.middleware`
    # refuses writes of other sites.
    return _is_for_programs(scope.get("path", ""))


def _is_for_programs(path: str) -> bool:
    """Return whether a path belongs to an API or a webhook, whose views handle all methods."""
    return any(pattern.match(path) for pattern in _FOR_PROGRAMS)


@hookimpl
def forbidden(datasette: "Datasette", request: Request, message: str) -> Callable[[], Awaitable[Response]]:
    """Answer a request for a closed page with the login form."""
    return lambda: datasette_pages.closed(datasette, request, message)


@hookimpl(hookwrapper=True)
def handle_exception(datasette: "Datasette", request: Request, exception: Exception) -> Iterator[None]:
    """Replace Datasette's error handler, which prints all local variables, including tokens."""
    outcome: Any = yield
    others = [
        one for one in outcome.get_result() if getattr(one, "__module__", "") != "datasette.handle_exception"
    ]
    outcome.force_result([*others, lambda: datasette_pages.error_page(datasette, request, exception)])


@hookimpl
def menu_links(
    datasette: "Datasette", actor: dict[str, Any] | None, request: Request | None
) -> list[dict[str, str]]:
    """Link to the login if a mirror is attached."""
    if actor or request is None or mirror_of(request) is None:
        return []
    return [{"href": datasette.urls.path(datasette_pages.LOGIN), "label": "Log in with a token"}]


@hookimpl
def prepare_jinja2_environment(env: Environment, datasette: "Datasette") -> None:
    """Add the plugin's templates, after those of the operator, and the filters that they use."""
    urls.install(env, datasette)
    datasette_pages.install(env, str(TEMPLATES))
    templates.add_filters(env)
    templates.install(env, TEMPLATES)


@hookimpl
def asgi_wrapper(datasette: "Datasette") -> Callable[[Application], Application]:
    """Put the middleware around the application."""
    guard(datasette)

    return lambda application: middleware.wrapped(datasette, application, _is_for_programs, APIS)


@hookimpl
def render_cell(
    datasette: "Datasette", database: str, table: str | None, column: str, row: Any, value: Any
) -> Any:
    """Link names in tables to their pages, and write sizes as these do."""
    if (table, column) == ("repositories", "size"):
        return datasette_pages.size_cell(datasette, database, value)
    return datasette_pages.cell(datasette, database, column, row, value)


@hookimpl
def extra_css_urls(datasette: "Datasette", database: str | None, request: Request | None) -> list[str]:
    """Add the stylesheets for Datasette's pages of a mirror."""
    return datasette_pages.stylesheets(datasette, database, request)


@hookimpl
def extra_template_vars(
    datasette: "Datasette", template: str | None, database: str | None, request: Request | None
) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Give Datasette's pages of a mirror its navigation bar and the age of its data."""
    return lambda: datasette_pages.template_variables(datasette, template, database, request)


@hookimpl
def prepare_connection(conn: Any, database: str, datasette: "Datasette") -> None:
    """Let readers of a mirror wait for a checkpoint instead of failing, and search by SQL."""
    if mirror_named(datasette, database):
        # A visitor who may run SQL on a mirror may read all of it, so the search need not hide private rows.
        reading = getattr(conn, "trusted", nullcontext)
        register(conn, visible_private=True, reading=reading)
        register_refs(conn, visible_private=partial(sees_history, conn), reading=reading)
        register_past(conn, sees_all=partial(sees_history, conn), reading=reading)
        query_language.register(conn)
        conn.execute("PRAGMA busy_timeout = 5000")
        conn.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
