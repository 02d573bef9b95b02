"""The particulars of API 2.0: its addresses, requests, pages and errors.

Every prefix that Bitbucket's links use is answered directly, with and without a slash at the end, never by a
redirect. Errors have the form of 2.0: ``{"type": "error", "error": {"message", "detail"?, "fields"?}}``.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec
from datasette.utils.asgi import Request

from mirror.queries.accounts import account_named, accounts_by_ids, owner_named, owners_named
from mirror.queries.repositories import repositories_by_ids, repository_in_workspace
from mirror.queries.rows import AccountRow, RepositoryRow, encoded_in
from mirror.queries.visibility import extra_of, extras_of
from mirror.serve.api2 import paging
from mirror.serve.api2.fields import Selection, selection
from mirror.serve.api2.listings import ROLES
from mirror.serve.api2.paging import Listing, ListingPage, order_of, queried, read_page
from mirror.serve.api2.ref_shapes import RefShapes
from mirror.serve.api2.shapes import ApiLinks
from mirror.serve.api_edge import Names, Parameters
from mirror.serve.exchange import JSON_TYPE, Answer, ApiError, ApiRequest, Json, address_of, oldest

if TYPE_CHECKING:
    from datasette.app import Datasette

PATTERN = r"^(?P<prefix>/(?:(?:!|%21)?api/)?2\.0)(?P<rest>/.*)?$"
WORKSPACE, REPOSITORY, NAME = "<workspace>", "<repository>", "<name>"
HEADERS = {"X-RateLimit-Limit": "1000000"}
"""Requests per hour, for clients that read this header. The mirror has no quota."""

_IN_PATHS = "/$;&=@!,:+"


class Api2Request(ApiRequest, frozen=True, kw_only=True):
    """A request to API 2.0, with the links for its answer and the requested `fields`."""

    links: ApiLinks
    pages: paging.PageLinks
    selection: Selection | None = None

    @property
    def shapes(self) -> RefShapes:
        """The shapes, with the links of this request."""
        return RefShapes(
            self.links,
            whole=self.selection is None or not self.selection.reaches_into("links"),
            upstreams=self.upstreams,
            find_extra=self.find_extra,
        )

    def wants(self, name: str) -> bool:
        """Return whether the caller wants a part of the answer."""
        return self.selection is None or self.selection.wants(name)

    def selected(self, answer: Answer) -> Answer:
        """Return an answer with only the requested `fields`."""
        if self.selection is None:
            return answer
        return msgspec.structs.replace(answer, body=self.selection.of(answer.body))


Reader = Callable[[sqlite3.Connection, Api2Request], Answer]


def route(names: Sequence[str]) -> tuple[Names, Names]:  # noqa: PLR0911 - a table of forms
    """Return the pattern of a path, with placeholders, and the names in their places.

    The name of a ref is the rest of the path, since it may contain slashes, escaped or not.
    """
    match names:
        case ["repositories", workspace, slug, "refs", "branches" | "tags" as kind, *name] if name:
            pattern = ("repositories", WORKSPACE, REPOSITORY, "refs", kind, NAME)
            return pattern, (workspace, slug, "/".join(name))
        case ["repositories", workspace, slug, "commit", commit]:
            return ("repositories", WORKSPACE, REPOSITORY, "commit", NAME), (workspace, slug, commit)
        case ["user", "workspaces", workspace, *more]:
            return ("user", "workspaces", WORKSPACE, *more), (workspace,)
        case ["repositories", workspace, slug, *more]:
            return ("repositories", WORKSPACE, REPOSITORY, *more), (workspace, slug)
        case ["workspaces", workspace, "members" | "projects" as kind, name]:
            return ("workspaces", WORKSPACE, kind, NAME), (workspace, name)
        case ["repositories" | "users" | "teams" | "workspaces" as kind, name, *more]:
            return (kind, WORKSPACE, *more), (name,)
    return tuple(names), ()


def request_of(datasette: "Datasette", request: Request, asked: ApiRequest) -> Api2Request:
    """Add the links and the `fields` to a request; raises ApiError 400."""
    origin = address_of(datasette, request)
    api = f"{origin}{request.url_vars['prefix']}"
    rest = (request.url_vars["rest"] or "/").rstrip("/")
    here = f"{api}{quote(unquote(rest), safe=_IN_PATHS)}"
    fields = asked.parameters.get("fields")
    return Api2Request(
        **msgspec.structs.asdict(asked),
        links=ApiLinks(origin, api),
        pages=paging.PageLinks(here, asked.parameters),
        selection=selection(fields) if fields else None,
    )


def render(answer: Answer, parameters: Parameters) -> tuple[bytes, str]:
    """Return the body as JSON, and its content type. The body of an error gets a `type`."""
    del parameters
    if answer.body is None:
        return b"", "text/plain; charset=utf-8"
    body = {"type": "error", **answer.body} if answer.status >= 400 else answer.body
    return msgspec.json.encode(body), JSON_TYPE


def no_repository() -> ApiError:
    """Return Bitbucket's error for a repository that does not exist or is hidden: the same for both."""
    return ApiError(
        404,
        "You may not have access to this repository or it no longer exists in this workspace. "
        "If you think this repository exists and you have access, make sure you are authenticated.",
    )


def no_workspace(name: str) -> ApiError:
    """Return the error for an unknown workspace."""
    return ApiError(404, f"No workspace with identifier '{name}'.")


def find_repository(connection: sqlite3.Connection, asked: Api2Request) -> RepositoryRow:
    """Find the repository that the path names; raises ApiError 404."""
    found = repository_in_workspace(connection, asked.caller, *asked.names[:2])
    if found is None:
        raise no_repository()
    return found


def find_workspace(connection: sqlite3.Connection, asked: Api2Request) -> AccountRow:
    """Find the workspace that the path names; raises ApiError 404."""
    found = owner_named(connection, asked.names[0])
    if found is None:
        raise no_workspace(asked.names[0])
    return found


def find_workspace_rows(connection: sqlite3.Connection, asked: Api2Request) -> list[AccountRow]:
    """Find the rows of a workspace: with several upstreams there may be more than one."""
    found = owners_named(connection, asked.names[0])
    if not found:
        raise no_workspace(asked.names[0])
    return found


def find_account(connection: sqlite3.Connection, asked: Api2Request) -> AccountRow:
    """Find the account that the path names; raises ApiError 404."""
    found = account_named(connection, asked.caller, asked.names[0])
    if found is None:
        raise ApiError(404, asked.names[0])
    return found


def shown_repository(connection: sqlite3.Connection, asked: Api2Request) -> tuple[RepositoryRow, Answer]:
    """Find the repository that the path names, and the answer with it; raises ApiError 404."""
    row = find_repository(connection, asked)
    owner = accounts_by_ids(connection, [row.owner_id])[row.owner_id]
    extra = extra_of(connection, asked.caller, "repository", row.id)
    return row, Answer(body=asked.shapes.repository(row, owner, extra), synced_at=row.last_seen_at)


def repository(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S, by slug or by uuid."""
    return shown_repository(connection, asked)[1]


def page_of(
    connection: sqlite3.Connection, asked: Api2Request, listing: Listing, *, counted: bool = True
) -> tuple[ListingPage, paging.Window]:
    """Read the requested page of a listing; raises ApiError 400 that names the wrong parameter."""
    window = paging.window(asked.parameters)
    page = read_page(
        connection,
        listing,
        window,
        order=order_of(listing, asked.parameters.get("sort")),
        query=queried(listing, asked.parameters.get("q")),
        counted=counted and asked.wants("size"),
    )
    return page, window


def envelope(
    asked: Api2Request,
    page: ListingPage,
    window: paging.Window,
    values: Sequence[Any],
    synced_at: str | None,
    *,
    backwards: bool = True,
    **moved: str,
) -> Answer:
    """Put values into a page, with links to its neighbours.

    :param backwards: whether a link may lead to the page before.
    :param moved: replaces parameters in the link to the next page.
    """
    body: Json = {"pagelen": window.length, "page": window.number, "values": values}
    if page.size is not None:
        body["size"] = page.size
    if page.next is not None:
        size = page.size if asked.parameters.get("q") else None
        body["next"] = asked.pages.to(paging.opaque(window.number + 1, page.next, size), **moved)
    if window.number > 1 and backwards:
        body["previous"] = asked.pages.to(str(window.number - 1))
    return Answer(body=body, synced_at=synced_at)


def repositories_of_page(
    connection: sqlite3.Connection, asked: Api2Request, ids: Sequence[int]
) -> tuple[list[Any], str | None]:
    """Shape the repositories of a page, and return when the oldest was read.

    The ids must have been checked to be visible. Whole repositories are encoded once for all strangers and
    once for all who see everything, as long as the file does not change: reading and encoding a hundred takes
    longer than the rest of an answer.
    """
    caller = asked.caller
    if asked.selection is not None or (caller.user_ids and not caller.sees_all):
        rows = repositories_by_ids(connection, caller, ids)
        return shaped(connection, asked, rows), oldest(row.last_seen_at for row in rows)
    known, key = encoded_in(connection), (asked.links, caller.sees_all)
    missing = [one for one in ids if (key, one) not in known]
    rows = repositories_by_ids(connection, caller, missing)
    for row, value in zip(rows, shaped(connection, asked, rows), strict=True):
        known[key, row.id] = msgspec.Raw(msgspec.json.encode(value)), row.last_seen_at
    found = [known[key, one] for one in ids if (key, one) in known]
    return [value for value, _ in found], oldest(seen for _, seen in found)


def shaped(connection: sqlite3.Connection, asked: Api2Request, rows: Sequence[RepositoryRow]) -> list[Json]:
    """Shape repositories with their owners; an empty list if `fields` excludes the values of a page."""
    if not asked.wants("values"):
        return []
    owners = accounts_by_ids(connection, {row.owner_id for row in rows})
    shapes = asked.shapes
    extras = extras_of(connection, asked.caller, "repository", [row.id for row in rows])
    return [shapes.repository(row, owners[row.owner_id], extras.get(row.id)) for row in rows]


def listed(connection: sqlite3.Connection, asked: Api2Request, listing: Listing, seen: str | None) -> Answer:
    """Answer with a page of repositories."""
    page, window = page_of(connection, asked, listing)
    values, synced_at = repositories_of_page(connection, asked, [row[0] for row in page.rows])
    return envelope(asked, page, window, values, synced_at or seen)


def accounts_of(
    connection: sqlite3.Connection,
    asked: Api2Request,
    listing: Listing,
    shape: Callable[[AccountRow, Any], Json],
    seen: str | None = None,
) -> Answer:
    """Answer with a page of accounts; `shape` gets each account and the extra column of the listing."""
    page, window = page_of(connection, asked, listing)
    width = len(AccountRow.__struct_fields__)
    rows = [(AccountRow(*row[:width]), row[width] if len(row) > width else None) for row in page.rows]
    values = [shape(account, more) for account, more in rows]
    return envelope(asked, page, window, values, oldest(row.last_seen_at for row, _ in rows) or seen)


def role_of(asked: Api2Request, roles: Sequence[str] = ROLES) -> str | None:
    """Read the `role` parameter; raises ApiError 400."""
    role = asked.parameters.get("role") or None
    if role is not None and role not in roles:
        raise ApiError(400, f"Invalid role: {role[:100]}", detail=f"It is one of {', '.join(roles)}.")
    return role
