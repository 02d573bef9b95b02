"""Web addresses at the upstream, as the upstream sent them, or else built by its rules."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mirror.addresses import Json, WebPages, is_clone_address, localised, safe_external
from mirror.queries.rows import AccountRow, ChangeRow, RepositoryRow, upstreams_of
from mirror.queries.visibility import Caller, extra_of, extras_of, extras_of_refs

WITHOUT_PAGES = "sandbox"
"""The kind of upstreams that have no pages for people."""

RefKey = tuple[str, str]
"""The kind and the name of a branch or a tag."""


class RepositoryLinks(msgspec.Struct, frozen=True):
    """The page of a repository, and what its clone addresses are made from; a gone one has none."""

    url: str | None = None
    row: RepositoryRow | None = None
    pages: WebPages | None = None

    @property
    def clone_urls(self) -> dict[str, str]:
        """Its clone addresses, by ``https`` and ``ssh``: those that the upstream sent, or else built ones."""
        # Made only where they are shown: a list of names while typing has none.
        row, pages = self.row, self.pages
        if row is None:
            return {}
        sent = (("https", row.clone_https), ("ssh", row.clone_ssh))
        found = {name: url for name, url in sent if url and is_clone_address(url)}
        return found or (pages.clone_addresses(row.full_name, row.scm) if pages else {})

    def exported(self) -> dict[str, Any]:
        """Return both, for programs."""
        return {"url": self.url, "clone_urls": self.clone_urls}


class RefLinks(msgspec.Struct, frozen=True):
    """The pages of a branch or a tag and of its commit; None if the upstream has none."""

    url: str | None = None
    commit_url: str | None = None


class NamedRef(Protocol):
    """The fields that a branch or a tag must have."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def target_hash(self) -> str: ...  # noqa: D102


class WebLinks:
    """The addresses for one caller, in the snapshot of a connection. Gone repositories have none."""

    def __init__(self, connection: sqlite3.Connection, caller: Caller) -> None:
        self._connection, self._caller = connection, caller
        upstreams = upstreams_of(connection).values()
        self._pages = {row.id: row.pages for row in upstreams if row.kind != WITHOUT_PAGES}

    def repositories(self, rows: Sequence[RepositoryRow]) -> dict[int, RepositoryLinks]:
        """Return the links of repositories, by their rows."""
        links = self.links_of(rows)
        return {row.id: links(row) for row in rows}

    def links_of(self, rows: Iterable[RepositoryRow]) -> Callable[[RepositoryRow], RepositoryLinks]:
        """Read what the links of some repositories depend on; return what builds those of one of them."""
        extras = self._repository_extras(row.id for row in rows if row.deleted_at is None)

        def links(row: RepositoryRow) -> RepositoryLinks:
            if row.deleted_at is not None:
                return RepositoryLinks()
            return RepositoryLinks(self._repository(row, extras), row, self._pages.get(row.upstream_id))

        return links

    def last_page(self, row: RepositoryRow) -> str | None:
        """Return the page of a repository, for a gone one its former page."""
        return self._repository(row, self._repository_extras([row.id]))

    def refs(self, repository: RepositoryRow, rows: Iterable[NamedRef]) -> dict[RefKey, RefLinks]:
        """Return the pages of branches and tags of a repository."""
        rows = list(rows)
        links = self.refs_of([(repository, row) for row in rows])
        return {(row.kind, row.name): its for row, its in zip(rows, links, strict=True)}

    def refs_of(self, rows: Sequence[tuple[RepositoryRow, NamedRef]]) -> list[RefLinks]:
        """Return the pages of branches and tags, each with its repository."""
        wanted = ((repository.id, row.name) for repository, row in rows)
        extras = extras_of_refs(self._connection, self._caller, wanted)
        return [
            self._ref(repository, row, extras.get((repository.id, row.kind, row.name)))
            for repository, row in rows
        ]

    def owner(self, row: AccountRow) -> str | None:
        """Return the page of an account or a workspace."""
        pages, is_person = self._pages.get(row.upstream_id), row.kind == "user"
        if pages is None or row.deleted_at is not None:
            return None
        extra = extra_of(self._connection, self._caller, "account" if is_person else "workspace", row.id)
        # Data Center has no pages by uuid.
        name = row.username or (row.known_uuid if pages.kind != "datacenter" else None)
        return _sent_link(extra, pages, "links") or (pages.owner(name, is_person=is_person) if name else None)

    def changes(self, rows: Sequence[ChangeRow]) -> dict[int, str]:
        """Return the pages of the subjects of changes, by change id."""
        of_repositories = [(row.repository_id, row.ref) for row in rows if row.repository_id is not None]
        extras = self._repository_extras(row_id for row_id, _ in of_repositories)
        named = {(row_id, ref) for row_id, ref in of_repositories if ref is not None}
        refs = extras_of_refs(self._connection, self._caller, named)
        found = dict[int, str]()
        for row in rows:
            pages = self._pages.get(row.upstream_id or 0)
            url = _change(row, pages, extras, refs) if pages and not row.is_gone else None
            if url is not None:
                found[row.id] = url
        return found

    def _repository(self, row: RepositoryRow, extras: Mapping[int, Json]) -> str | None:
        pages = self._pages.get(row.upstream_id)
        if pages is None:
            return None
        return _sent_link(extras.get(row.id), pages, "links") or pages.repository(row.full_name)

    def _ref(self, repository: RepositoryRow, row: NamedRef, extra: Json | None) -> RefLinks:
        pages = self._pages.get(repository.upstream_id)
        if pages is None or repository.deleted_at is not None:
            return RefLinks()
        return RefLinks(
            _sent_link(extra, pages, "links") or pages.ref(repository.full_name, row.kind, row.name),
            _sent_link(extra, pages, "target", "links")
            or pages.commit(repository.full_name, row.target_hash),
        )

    def _repository_extras(self, ids: Iterable[int]) -> Mapping[int, Json]:
        return extras_of(self._connection, self._caller, "repository", ids)


def _change(
    row: ChangeRow,
    pages: WebPages,
    extras: Mapping[int, Json],
    refs: Mapping[tuple[int, str, str], Json],
) -> str | None:
    """Return the page of the ref if it exists, else of the repository, else of the owner."""
    if row.repository is None:
        return pages.owner(row.owner) if row.owner else None
    kind, _, what = row.kind.partition("_")
    if row.ref is not None and what in ("created", "moved"):
        extra = refs.get((row.repository_id or 0, kind, row.ref))
        return _sent_link(extra, pages, "links") or pages.ref(row.repository, kind, row.ref)
    return _sent_link(extras.get(row.repository_id or 0), pages, "links") or pages.repository(row.repository)


def _sent_link(extra: Json | None, pages: WebPages, *keys: str) -> str | None:
    """Return the `html` link at some keys of an extra, which only has links that differ from built ones."""
    if extra is None:  # true of nearly all
        return None
    value: Any = extra
    for key in (*keys, "html", "href"):
        if isinstance(value, list):
            value = value[0] if value else None
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, str):
        return None
    return safe_external(localised(value, "", pages.root, "href"))
