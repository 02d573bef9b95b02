"""The searches for repositories and for refs, as far as a caller may see the results."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from mirror.errors import StoreError
from mirror.queries.file_state import file_state
from mirror.queries.repositories import repositories_by_ids
from mirror.queries.rows import RepositoryRow
from mirror.queries.visibility import Caller, private_owners, visible
from mirror.queries.web_links import RefLinks, RepositoryLinks, WebLinks
from mirror.search import search
from mirror.search.find import one_snapshot
from mirror.search.query import Filters, plain_cursor
from mirror.search.scan import KeptReads
from mirror.store.rows import fetch_value
from mirror.store.schema import REF_TABLES

if TYPE_CHECKING:
    from mirror.search.refs.find import FoundRef
    from mirror.search.refs.query import RefFilters


class FoundRepositories(msgspec.Struct, frozen=True, kw_only=True):
    """How many repositories match in all, and a page of them, the best first.

    `fuzzy` says that the query was corrected; `corrected` holds the names that were searched in its place.
    `described` of the matches, the last ones, have the query in their description alone.
    `links` returns where the upstream has a repository that was found; not every reader calls it.
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
            kept=kept_reads(connection),
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


def kept_reads(connection: sqlite3.Connection) -> KeptReads:
    """Return what searches have read in the present state of the file."""
    state = file_state(connection)
    if state.searched is None:
        state.searched = KeptReads()
    return state.searched


COMMITS_NOT_SEARCHED = (
    "This mirror does not index commits, so no ref was found by its commit. The setting search_commits = true"
    " indexes them, from the next sync on."
)
SOME_UNREAD = "The branches and tags of some repositories were not read; there may be more."


_COMMIT_OF: dict[str, str] = {
    kind: f"SELECT target_hash, target_date FROM {table} WHERE repository_id = ? AND name = ?"
    for kind, table in REF_TABLES.items()
}


class ListedRef(msgspec.Struct):
    """A matching branch or tag with its repository."""

    repository: RepositoryRow
    kind: str
    name: str
    target_hash: str
    target_date: str | None
    links: RefLinks = RefLinks()

    def exported(self) -> dict[str, str | None]:
        """Return the data of `mirror refs --json`."""
        return {
            "owner": self.repository.owner,
            "slug": self.repository.slug,
            "kind": self.kind,
            "name": self.name,
            "target_hash": self.target_hash,
            "target_date": self.target_date,
            **msgspec.structs.asdict(self.links),
        }


class FoundRefs(msgspec.Struct, frozen=True, kw_only=True):
    """The number of matching refs and of their repositories, and one page of the refs.

    `commits_searched` tells whether refs are found by their commit here; `notes` say in sentences what the
    numbers do not cover, usually nothing.
    """

    query: str
    count: int
    repositories: int
    refs: list[ListedRef]
    commits_searched: bool
    notes: list[str]

    def exported(self) -> dict[str, Any]:
        """Return what `mirror refs --json` prints: with `notes` only where there are any."""
        return {
            "query": self.query,
            "count": self.count,
            "repositories": self.repositories,
            "refs": [ref.exported() for ref in self.refs],
            **({"notes": self.notes} if self.notes else {}),
        }


def find_refs(
    connection: sqlite3.Connection,
    caller: Caller,
    query: str,
    *,
    limit: int = 20,
    offset: int = 0,
    **filters: "Unpack[RefFilters]",
) -> FoundRefs:
    """Find branches and tags of all repositories, as `mirror.search.refs.find.search_refs` does.

    `limit` and `offset` count refs. Raises sqlite3.Error.
    """
    # The search for repositories, in this file too, does not need them.
    from mirror.search.index.refs.layout import has_hashes  # noqa: PLC0415
    from mirror.search.refs.find import search_refs  # noqa: PLC0415
    from mirror.search.refs.query import is_hash  # noqa: PLC0415

    with one_snapshot(connection):
        found = search_refs(
            connection,
            query,
            limit=limit,
            offset=offset,
            visible_private=caller.sees_all,
            private_of=private_owners(connection, caller),
            **filters,
        )
        ids = sorted({ref.repository for ref in found.refs})
        rows = {row.id: row for row in repositories_by_ids(connection, caller, ids)}
        refs = list(_listed_refs(connection, rows, found.refs))
        links = WebLinks(connection, caller).refs_of([(ref.repository, ref) for ref in refs])
        for ref, its in zip(refs, links, strict=True):
            ref.links = its
        commits_searched = has_hashes(connection)
        notes = [COMMITS_NOT_SEARCHED] if is_hash(query) and not commits_searched else []
        if not found.count and _some_unread(connection, caller):
            notes.append(SOME_UNREAD)
        return FoundRefs(
            query=query,
            count=found.count,
            repositories=found.repositories,
            refs=refs,
            commits_searched=commits_searched,
            notes=notes,
        )


def _some_unread(connection: sqlite3.Connection, caller: Caller) -> bool:
    """Return whether the refs of any repository that the caller may see were not read."""
    sql = f"""SELECT EXISTS (SELECT 1 FROM upstreams WHERE refs = 'none')
        OR EXISTS (SELECT 1 FROM repositories r WHERE r.refs_stale AND r.refs_synced_at IS NULL
            AND r.deleted_at IS NULL AND {visible(caller, "r")})"""
    return bool(fetch_value(connection, sql, caller.values))


def _listed_refs(
    connection: sqlite3.Connection, repositories: Mapping[int, RepositoryRow], refs: Iterable["FoundRef"]
) -> Iterator[ListedRef]:
    """Read the commits of refs; raises StoreError for one that only the index has."""
    cursor = plain_cursor(connection)
    for ref in refs:
        repository = repositories.get(ref.repository)
        row = cursor.execute(_COMMIT_OF[ref.kind], (ref.repository, ref.name)).fetchone()
        if repository is None or row is None:
            raise StoreError(
                "the index of refs has some that are not there; `mirror verify --repair` builds it anew"
            )
        yield ListedRef(repository, ref.kind, ref.name, *row)
