"""The search for repositories, as far as a caller may see the results."""

import sqlite3
from collections.abc import Callable
from typing import Unpack

import msgspec

from mirror.queries.repositories import repositories_by_ids
from mirror.queries.rows import RepositoryRow
from mirror.queries.visibility import Caller, private_owners
from mirror.queries.web_links import RepositoryLinks, WebLinks
from mirror.search import search
from mirror.search.find import one_snapshot
from mirror.search.query import Filters


class FoundRepositories(msgspec.Struct, frozen=True, kw_only=True):
    """How many repositories match in all, and a page of them, the best first.

    `fuzzy` says that the query was corrected; `corrected` holds the names that were searched in its place.
    `described` of the matches, the last ones, have the query in their description alone.
    `links` returns where the upstream has a repository that was found; not each reader asks.
    """

    query: str
    count: int
    fuzzy: bool
    corrected: tuple[str, ...]
    described: int
    repositories: list[RepositoryRow]
    links: Callable[[RepositoryRow], RepositoryLinks]


def find_repositories(
    connection: sqlite3.Connection,
    caller: Caller,
    query: str,
    *,
    limit: int = 20,
    offset: int = 0,
    fuzzy: bool | None = None,
    **filters: Unpack[Filters],
) -> FoundRepositories:
    """Find repositories whose name or slug contains `query`, as `mirror.search.search` does.

    `limit` and `offset` count repositories. `fuzzy` corrects typing errors: True always, False never, None
    when nothing matches as written. Raises sqlite3.Error.
    """
    with one_snapshot(connection):
        found = search(
            connection,
            query,
            limit=limit,
            offset=offset,
            fuzzy=fuzzy,
            visible_private=caller.sees_all,
            private_of=private_owners(connection, caller),
            **filters,
        )
        rows = repositories_by_ids(connection, caller, found.ids)
        links = WebLinks(connection, caller).links_of(rows)
    return FoundRepositories(
        query=query,
        count=found.count,
        fuzzy=found.fuzzy,
        corrected=found.corrected,
        described=found.described,
        repositories=rows,
        links=links,
    )
