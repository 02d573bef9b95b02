"""What the routes of API 2.0 share: a request taken apart, and pages put together."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mirror.queries import repositories as reads
from mirror.queries.caller import Caller
from mirror.queries.rows import Account, Repository
from mirror.serve.api2 import listings as catalogue
from mirror.serve.api2 import paging
from mirror.serve.api2.fields import Selection
from mirror.serve.api2.paging import Listing, Page, order_of, queried, read_page
from mirror.serve.api2.shapes import Json, Links, Shapes
from mirror.serve.exchange import Answer, ApiError, oldest


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request, taken apart: names out of the path, parameters, who asks, and where answers link to."""

    names: tuple[str, ...] = ()
    parameters: Mapping[str, str] = {}
    caller: Caller
    links: Links
    pages: paging.Links
    selection: Selection

    @property
    def shapes(self) -> Shapes:
        """Shapes with this request's links."""
        return Shapes(self.links, whole=not self.selection.reaches_into("links"))


Reader = Callable[[sqlite3.Connection, Asked], Answer]


def no_repository() -> ApiError:
    """Say what Bitbucket says of a repository that is missing and of one that is hidden, alike."""
    return ApiError(
        404,
        "You may not have access to this repository or it no longer exists in this workspace. "
        "If you think this repository exists and you have access, make sure you are authenticated.",
    )


def no_workspace(name: str) -> ApiError:
    """Say that there is no such workspace."""
    return ApiError(404, f"No workspace with identifier '{name}'.")


def find_repository(connection: sqlite3.Connection, asked: Asked) -> Repository:
    """Find the repository that the path names; raises ApiError 404."""
    found = reads.repository(connection, asked.caller, *asked.names[:2])
    if found is None:
        raise no_repository()
    return found


def page_of(
    connection: sqlite3.Connection, asked: Asked, listing: Listing, *, counted: bool = True
) -> tuple[Page, paging.Window]:
    """Read the page of a listing that is asked for; raises ApiError 400 that names what cannot be read."""
    window = paging.window(asked.parameters)
    page = read_page(
        connection,
        listing,
        window,
        order=order_of(listing, asked.parameters.get("sort")),
        query=queried(listing, asked.parameters.get("q")),
        counted=counted and asked.selection.wants("size"),
    )
    return page, window


def envelope(
    asked: Asked,
    page: Page,
    window: paging.Window,
    values: Sequence[Json],
    synced_at: str | None,
    **moved: str,
) -> Answer:
    """Put values into a page, with links to its neighbours; `moved` are parameters that change behind it."""
    body: Json = {"pagelen": window.length, "page": window.number, "values": values}
    if page.size is not None:
        body["size"] = page.size
    if page.next is not None:
        size = page.size if asked.parameters.get("q") else None
        body["next"] = asked.pages.to(paging.opaque(window.number + 1, page.next, size), **moved)
    if window.number > 1 and "after" not in asked.parameters:
        body["previous"] = asked.pages.to(str(window.number - 1))
    return Answer(body=body, synced_at=synced_at)


def shaped(
    connection: sqlite3.Connection, asked: Asked, rows: Sequence[Repository]
) -> tuple[list[Json], str | None]:
    """Shape the repositories of a page, with their owners; nothing where only the frame is wanted."""
    synced_at = oldest(row.last_seen_at for row in rows)
    if not asked.selection.wants("values"):
        return [], synced_at
    owners = reads.accounts(connection, {row.owner_id for row in rows})
    shapes = asked.shapes
    return [shapes.repository(row, owners[row.owner_id]) for row in rows], synced_at


def listed(connection: sqlite3.Connection, asked: Asked, listing: Listing, seen: str | None) -> Answer:
    """Answer with a page of repositories."""
    page, window = page_of(connection, asked, listing)
    rows = reads.repositories(connection, asked.caller, [row[0] for row in page.rows])
    values, synced_at = shaped(connection, asked, rows)
    return envelope(asked, page, window, values, synced_at or seen)


def accounts_of(
    connection: sqlite3.Connection,
    asked: Asked,
    listing: Listing,
    shape: Callable[[Account, Any], Json],
    seen: str | None = None,
) -> Answer:
    """Answer with a page of accounts; `shape` gets each with what the listing has besides."""
    page, window = page_of(connection, asked, listing)
    width = len(reads.ACCOUNT_COLUMNS)
    rows = [(Account(*row[:width]), row[width] if len(row) > width else None) for row in page.rows]
    values = [shape(account, more) for account, more in rows]
    return envelope(asked, page, window, values, oldest(row.last_seen_at for row, _ in rows) or seen)


def role_of(asked: Asked, roles: Sequence[str] = catalogue.ROLES) -> str | None:
    """Read the `role` parameter; raises ApiError 400."""
    role = asked.parameters.get("role") or None
    if role is not None and role not in roles:
        raise ApiError(400, f"Invalid role: {role[:100]}", detail=f"It is one of {', '.join(roles)}.")
    return role
