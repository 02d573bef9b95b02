"""The search for branches and tags, as far as a caller may see the results."""

import sqlite3
from typing import Any, Unpack

import msgspec

from mirror.queries.repositories import repositories_by_ids
from mirror.queries.rows import RepositoryRow, fetch
from mirror.queries.visibility import Caller, private_owners
from mirror.queries.web_links import RefLinks, WebLinks
from mirror.search.find import one_snapshot
from mirror.search.refs.find import FoundRef, search_refs
from mirror.search.refs.query import RefFilters


class ListedRef(msgspec.Struct, frozen=True, kw_only=True):
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
    """The number of matching refs and of their repositories, and one page of the refs."""

    query: str
    count: int
    repositories: int
    refs: list[ListedRef]

    def exported(self) -> dict[str, Any]:
        """Return what `mirror refs --json` prints."""
        return msgspec.structs.asdict(self) | {"refs": [ref.exported() for ref in self.refs]}


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
        listed = [_listed_ref(connection, ref, rows[ref.repository]) for ref in found.refs]
        web = WebLinks(connection, caller)
        refs = [msgspec.structs.replace(ref, links=web.ref(ref.repository, ref)) for ref in listed]
    return FoundRefs(query=query, count=found.count, repositories=found.repositories, refs=refs)


def _listed_ref(connection: sqlite3.Connection, ref: FoundRef, repository: RepositoryRow) -> ListedRef:
    ((target_hash, target_date),) = fetch(
        connection,
        f"""SELECT target_hash, target_date FROM {"branches" if ref.kind == "branch" else "tags"}
            WHERE repository_id = :id AND name = :name""",
        {"id": ref.repository, "name": ref.name},
    )
    return ListedRef(
        repository=repository,
        kind=ref.kind,
        name=ref.name,
        target_hash=target_hash,
        target_date=target_date,
    )
