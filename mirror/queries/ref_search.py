"""The search for branches and tags, as far as a caller may see the results."""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Unpack

import msgspec

from mirror.queries.repositories import repositories_by_ids
from mirror.queries.rows import RepositoryRow, fetch_value
from mirror.queries.visibility import Caller, private_owners, visible
from mirror.queries.web_links import RefLinks, WebLinks
from mirror.search.find import one_snapshot
from mirror.search.index.refs.layout import KIND_NAMES, TABLES, has_hashes
from mirror.search.query import plain_cursor
from mirror.search.refs.find import FoundRef, search_refs
from mirror.search.refs.query import RefFilters, is_hash

COMMITS_NOT_SEARCHED = (
    "This mirror does not index commits, so no ref was found by its commit. The setting search_commits = true"
    " indexes them, from the next sync on."
)
SOME_UNREAD = "The branches and tags of some repositories were not read; there may be more."


_COMMIT_OF = {
    kind: f"SELECT target_hash, target_date FROM {table} WHERE repository_id = ? AND name = ?"
    for kind, table in zip(KIND_NAMES, TABLES, strict=True)
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

    `commits_searched` tells whether refs are found by their commit here; `some_unread`, where nothing
    matches, whether there are refs that were not read.
    """

    query: str
    count: int
    repositories: int
    refs: list[ListedRef]
    commits_searched: bool = True
    some_unread: bool = False

    @property
    def notes(self) -> list[str]:
        """What the numbers do not cover, in sentences; usually nothing."""
        not_searched = not self.commits_searched and is_hash(self.query)
        return [COMMITS_NOT_SEARCHED] * not_searched + [SOME_UNREAD] * self.some_unread

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
    **filters: Unpack[RefFilters],
) -> FoundRefs:
    """Find branches and tags of all repositories, as `mirror.search.refs.find.search_refs` does.

    `limit` and `offset` count refs. Raises sqlite3.Error.
    """
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
        refs = list(_listed_refs(connection, [(rows[ref.repository], ref) for ref in found.refs]))
        links = WebLinks(connection, caller).refs_of([(ref.repository, ref) for ref in refs])
        for ref, its in zip(refs, links, strict=True):
            ref.links = its
        return FoundRefs(
            query=query,
            count=found.count,
            repositories=found.repositories,
            refs=refs,
            commits_searched=has_hashes(connection),
            some_unread=not found.count and _some_unread(connection, caller),
        )


def _some_unread(connection: sqlite3.Connection, caller: Caller) -> bool:
    """Return whether the refs of any repository that the caller may see were not read."""
    sql = f"""SELECT EXISTS (SELECT 1 FROM upstreams WHERE refs = 'none')
        OR EXISTS (SELECT 1 FROM repositories r WHERE r.refs_stale AND r.refs_synced_at IS NULL
            AND r.deleted_at IS NULL AND {visible(caller, "r")})"""
    return bool(fetch_value(connection, sql, caller.values))


def _listed_refs(
    connection: sqlite3.Connection, refs: Iterable[tuple[RepositoryRow, FoundRef]]
) -> Iterator[ListedRef]:
    """Read the commits of refs."""
    cursor = plain_cursor(connection)
    for repository, ref in refs:
        row = cursor.execute(_COMMIT_OF[ref.kind], (ref.repository, ref.name)).fetchone()
        yield ListedRef(repository, ref.kind, ref.name, *row)
