"""Pages of listings: which one is requested, its rows in a stable order, and the answer with links to others.

A page is requested by its number, or by the position of the row before it. `q` filters the rows.
"""

import base64
import binascii
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mirror.queries.file_state import encoded_in
from mirror.queries.repositories import repositories_by_ids
from mirror.queries.rows import AccountRow, RepositoryRow, Values, accounts_by_ids
from mirror.queries.sources import Source
from mirror.queries.visibility import extras_of
from mirror.serve.api2.edge import Api2Request
from mirror.serve.api2.query_language import Condition, Field, QueryError, condition_of
from mirror.serve.exchange import Answer, ApiError, Json, last_seen, oldest, spaced_json
from mirror.store.rows import fetch, fetch_value

DEFAULT_LENGTH = 10  # rows of a page, as on Bitbucket
LONGEST = 100  # the most rows of a page, as on Bitbucket
_LONGEST_KEPT = 200  # a longer `fields` could fill the memory
_OPAQUE = "c"  # begins a page that is not a number
_LONGEST_PLACE = 2000  # characters of such a page; with a longer one, proxies refuse the address

Position = tuple[str | int | float | None, ...]


class PageWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Which page is requested: by number, or after a position.

    :param length: the number of rows of a page.
    :param after: the sort value and the keys of the last row of the page before.
    :param size: the number of rows of the whole listing, if the page before counted them.
    """

    length: int = DEFAULT_LENGTH
    number: int = 1
    after: Position | None = None
    size: int | None = None

    @property
    def offset(self) -> int:
        """How many rows to skip, for a page that is requested by its number."""
        return 0 if self.after is not None else (self.number - 1) * self.length


class _OpaquePage(msgspec.Struct, frozen=True, array_like=True):
    """The content of an opaque `page`: number, position before it, and the size if counting is slow."""

    number: int
    after: tuple[str | int | float | None, ...]
    size: int | None = None


def window_of(parameters: Mapping[str, str]) -> PageWindow:
    """Read `pagelen` and `page`; raises ApiError 400."""
    length = min(_positive(parameters, "pagelen", DEFAULT_LENGTH, most=LONGEST), LONGEST)
    page = parameters.get("page", "1")
    if not page.startswith(_OPAQUE):
        return PageWindow(length=length, number=_positive(parameters, "page", 1))
    try:
        raw = base64.urlsafe_b64decode(page[1:] + "=" * (-len(page[1:]) % 4))
        place = msgspec.json.decode(raw, type=_OpaquePage)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise ApiError(400, "Invalid page") from None
    # Clients can put anything into an opaque page, also what SQLite cannot store.
    is_counted = place.size is None or 0 <= place.size < 2**53
    is_storable = not any(
        abs(one) >= 2**63
        if isinstance(one, int)
        else isinstance(one, str) and any("\ud800" <= letter <= "\udfff" for letter in one)
        for one in place.after
    )
    if not (0 < place.number < 2**53 and is_counted and is_storable):
        raise ApiError(400, "Invalid page")
    return PageWindow(length=length, number=place.number, after=place.after, size=place.size)


def opaque(number: int, after: Sequence[Any], size: int | None) -> str:
    """Encode the content of an opaque `page`."""
    raw = msgspec.json.encode(_OpaquePage(number, tuple(after), size))
    return _OPAQUE + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _positive(parameters: Mapping[str, str], name: str, default: int, *, most: int | None = None) -> int:
    """Read a number from 1; one of ten digits and more means `most`, or is an error without it."""
    text = parameters.get(name, "")
    if not text:
        return default
    is_number = text.isascii() and text.isdecimal()
    if most is not None and is_number and len(text.lstrip("0")) >= 10:
        return most
    if not (is_number and len(text) < 10 and int(text) > 0):
        raise ApiError(400, f"Invalid {name}")
    return int(text)


class SortOrder(msgspec.Struct, frozen=True):
    """An order: by an SQL expression, then by the keys of the listing, all in one direction."""

    sql: str
    descending: bool = False


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Something that can be listed, queried by its `fields` and sorted.

    :param sorts: SQL to sort by, for names whose order is not that of the field of that name.
    :param default: the order if the caller requests none.
    """

    source: Source
    fields: Mapping[str, Field]
    sorts: Mapping[str, str] = {}
    default: SortOrder


class ListingPage(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a page, which was requested as `window`.

    :param next: the position of its last row, if more rows follow.
    :param first_beyond: the sort value of the first row after the page.
    """

    window: PageWindow
    rows: list[Any]
    next: Position | None = None
    first_beyond: Any = None
    size: int | None = None


def order_of(listing: Listing, sort: str | None) -> SortOrder:
    """Read the `sort` parameter; raises ApiError 400 that lists the known fields."""
    if not sort:
        return listing.default
    name = sort.removeprefix("-").lower()
    plain = {one: field.sql for one, field in listing.fields.items() if field.kind != "object"}
    orders = {**plain, **listing.sorts}
    if name not in orders:
        known = ", ".join(sorted(orders))
        raise ApiError(400, f"Invalid sort: {name[:100]}", detail=f"The fields to sort by are {known}.")
    return SortOrder(orders[name], sort.startswith("-"))


def queried(listing: Listing, query: str | None) -> Condition | None:
    """Read the `q` parameter; raises ApiError 400 that says what is wrong with it."""
    if not query or not query.strip():
        return None
    try:
        return condition_of(query, listing.fields)
    except QueryError as error:
        raise ApiError(400, f"Invalid query: {error}") from None


def read_page(
    connection: sqlite3.Connection,
    listing: Listing,
    window: PageWindow,
    *,
    order: SortOrder,
    query: Condition | None,
    counted: bool,
) -> ListingPage:
    """Read a page, and one row more to know whether another page follows; `counted` fills in its `size`."""
    source, size = listing.source, None
    where = f"{source.where} AND {query.sql}" if query else source.where
    values = {**source.values, **(query.values if query else {})}
    if counted and query is None and source.count is not None:
        size = source.count(connection)
    elif counted and query is not None and window.after is not None and window.size is not None:
        size = window.size  # counting with a query reads every row, so only the first page does it
    elif counted:
        size = int(fetch_value(connection, f"SELECT count(*) FROM {source.table} WHERE {where}", values))
    keys = [key for key in source.keys if key != order.sql]
    begin = f"SELECT {', '.join([order.sql, *keys])}, {source.columns} FROM {source.table} WHERE {where}"
    directed = ", ".join(f"{one} DESC" if order.descending else one for one in [order.sql, *keys])
    if window.after is not None and len(window.after) != 1 + len(keys):
        raise ApiError(400, "Invalid page")
    found = list[Any]()
    for condition, more in segments(order, keys, window):
        left = {"limit": window.length + 1 - len(found), "offset": window.offset}
        sql = f"{begin} {condition} ORDER BY {directed} LIMIT :limit OFFSET :offset"
        found += fetch(connection, sql, {**values, **more, **left})
        if len(found) > window.length:
            break
    width = 1 + len(keys)
    rows, beyond = found[: window.length], found[window.length :]
    return ListingPage(
        window=window,
        rows=[row[width:] for row in rows],
        next=tuple(rows[-1][:width]) if beyond else None,
        first_beyond=beyond[0][0] if beyond else None,
        size=size,
    )


def segments(order: SortOrder, keys: Sequence[str], window: PageWindow) -> list[tuple[str, Values]]:
    """Return one condition for each run of rows after a position, in their order.

    First come the rows with the same sort value, then those with a later value, then nulls or values: nulls
    come first in ascending order, and last in descending order.
    """
    if window.after is None:
        return [("", {})]
    value, *rest = window.after
    than = "<" if order.descending else ">"
    values: dict[str, Any] = {"after": value, **{f"after{place}": one for place, one in enumerate(rest)}}
    same = "IS NULL" if value is None else "= :after"
    found = list[tuple[str, Values]]()  # SQLite finds each run by an index, but would scan for an OR of all
    if keys:
        places = ", ".join(f":after{place}" for place in range(len(rest)))
        found.append((f"AND {order.sql} {same} AND ({', '.join(keys)}) {than} ({places})", values))
    if value is not None:
        found.append((f"AND {order.sql} {than} :after", values))
    if (value is None) != order.descending:
        found.append((f"AND {order.sql} IS {'' if order.descending else 'NOT '}NULL", {}))
    return found


def page_of(
    connection: sqlite3.Connection, asked: Api2Request, listing: Listing, *, counted: bool = True
) -> ListingPage:
    """Read the requested page of a listing; raises ApiError 400 that names the wrong parameter."""
    return read_page(
        connection,
        listing,
        window_of(asked.parameters),
        order=order_of(listing, asked.parameters.get("sort")),
        query=queried(listing, asked.parameters.get("q")),
        counted=counted and asked.wants("size"),
    )


def envelope(
    asked: Api2Request,
    page: ListingPage,
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
    window = page.window
    body: Json = {"pagelen": window.length, "page": window.number, "values": values}
    if page.size is not None:
        body["size"] = page.size
    if page.next is not None:
        size = page.size if asked.parameters.get("q") else None
        place = opaque(window.number + 1, page.next, size)
        named = place if len(place) <= _LONGEST_PLACE else str(window.number + 1)
        body["next"] = asked.pages.to(named, **moved)
    if window.number > 1 and backwards:
        body["previous"] = asked.pages.to(str(window.number - 1))
    return Answer(body=body, synced_at=synced_at)


def repositories_of_page(
    connection: sqlite3.Connection, asked: Api2Request, ids: Sequence[int]
) -> tuple[list[Any], str | None]:
    """Shape the repositories of a page, which are visible, and return when the oldest was read."""
    caller, fields = asked.caller, asked.parameters.get("fields") or ""
    if len(fields) > _LONGEST_KEPT or not asked.wants("values") or (caller.user_ids and not caller.sees_all):
        rows = repositories_by_ids(connection, caller, ids)
        return shaped(connection, asked, rows), last_seen(rows)
    # Repositories, and the parts that each `fields` selects, are encoded once for all strangers and once for
    # all who see everything, as long as the file does not change: reading and encoding a hundred takes longer
    # than the rest of an answer.
    known = encoded_in(connection, (asked.links, caller.sees_all, fields))
    rows = repositories_by_ids(connection, caller, [one for one in ids if one not in known])
    for row, value in zip(rows, shaped(connection, asked, rows), strict=True):
        sent = value if asked.selection is None else asked.selection.of_value(value)
        known[row.id] = msgspec.Raw(spaced_json(sent)), row.last_seen_at
    found = [known[one] for one in ids if one in known]
    return [value for value, _ in found], oldest(seen for _, seen in found)


def shaped(connection: sqlite3.Connection, asked: Api2Request, rows: Sequence[RepositoryRow]) -> list[Json]:
    """Shape repositories with their owners; an empty list if `fields` excludes the values of a page."""
    if not asked.wants("values"):
        return []
    owners = accounts_by_ids(connection, {row.owner_id for row in rows})
    extras = extras_of(connection, asked.caller, "repository", [row.id for row in rows])
    return [asked.shapes.repository(row, owners[row.owner_id], extras.get(row.id)) for row in rows]


def listed(connection: sqlite3.Connection, asked: Api2Request, listing: Listing, seen: str | None) -> Answer:
    """Answer with a page of repositories."""
    page = page_of(connection, asked, listing)
    values, synced_at = repositories_of_page(connection, asked, [row[0] for row in page.rows])
    return envelope(asked, page, values, synced_at or seen)


def accounts_of(
    connection: sqlite3.Connection,
    asked: Api2Request,
    listing: Listing,
    shape: Callable[[AccountRow, Any], Json],
    about: AccountRow | RepositoryRow | None = None,
) -> Answer:
    """Answer with a page of accounts; `shape` gets each account and the extra column of the listing.

    :param about: the row that the listing is about; its age is that of an empty page.
    """
    page = page_of(connection, asked, listing)
    width = len(AccountRow.__struct_fields__)
    rows = [(AccountRow(*row[:width]), row[width] if len(row) > width else None) for row in page.rows]
    values = [shape(account, more) for account, more in rows]
    synced_at = last_seen(row for row, _ in rows) or (about.last_seen_at if about else None)
    return envelope(asked, page, values, synced_at)
