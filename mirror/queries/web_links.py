"""Web addresses at the upstream, of pages and for clones: as the upstream sent them, or built by its rules.

Nothing else builds them.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from mirror.addresses import CLOUD, Json, escaped, localised, segment, web_of
from mirror.queries.accounts import PERSONAL
from mirror.queries.rows import AccountRow, ChangeRow, RepositoryRow, UpstreamRow, upstreams_of
from mirror.queries.visibility import Caller, extra_of, extras_of, extras_of_refs

# Browsers remove such parts from a path.
_DOTS = re.compile(r"(^|/)\.{0,2}(/|$)")
_CLONED_BY_URL = re.compile(r"(https?|ssh)://[^\s/?#-][^\s]*", re.IGNORECASE)
_CLONED_BY_SSH = re.compile(r"[\w.]+@[\w.][\w.-]*:[^\s:]+", re.ASCII)


def safe_external(address: str | None) -> str | None:
    """Return an address if it is safe to link to (http or https, with a host), else None."""
    stripped = (address or "").strip()
    try:
        parts = urlsplit(stripped)
        is_safe = parts.scheme.lower() in ("http", "https") and parts.hostname
    except ValueError:
        return None
    return stripped if is_safe else None


def is_clone_address(address: str) -> bool:
    """Return whether an address uses http, https or ssh: with others, git may run a program."""
    return bool(_CLONED_BY_URL.fullmatch(address) or _CLONED_BY_SSH.fullmatch(address))


class WebPages(msgspec.Struct, frozen=True):
    """Builds addresses below `root`, which has no final slash, by the rules of a `kind` of server.

    Names with the parts ``.`` and ``..`` have no address.
    """

    root: str = ""
    kind: str = "cloud"

    def owner(self, name: str, *, is_person: bool = False) -> str | None:
        """Return the page of a workspace, a project or a user."""
        if self._is_datacenter:
            return self._at(self._project(f"{PERSONAL}{name.removeprefix(PERSONAL)}" if is_person else name))
        page = self._at(segment(name.removeprefix(PERSONAL)))
        return page and f"{page}/"

    def project(self, owner: str, key: str) -> str | None:
        """Return the page of a project in a workspace; on a Data Center they are the same."""
        if self._is_datacenter:
            return self.owner(owner)
        return self._at(f"{segment(owner)}/workspace/projects/{segment(key)}")

    def repository(self, full_name: str) -> str | None:
        """Return the page of a repository."""
        return self._below(full_name, "browse" if self._is_datacenter else "")

    def ref(self, full_name: str, kind: str, name: str) -> str | None:
        """Return the page of a branch or a tag."""
        if self._is_datacenter:
            page = self.repository(full_name)
            folder = "tags" if kind == "tag" else "heads"
            return page and f"{page}?at={segment(f'refs/{folder}/{name}')}"
        return self._below(full_name, f"{'commits/tag' if kind == 'tag' else 'branch'}/{escaped(name)}")

    def commit(self, full_name: str, name: str) -> str | None:
        """Return the page of a commit by its hash."""
        return self._below(full_name, f"commits/{segment(name)}")

    def clone_addresses(self, full_name: str, scm: str | None) -> dict[str, str]:
        """Return the clone addresses of a repository: ``https``, and on Bitbucket Cloud ``ssh``."""
        owner, _, slug = full_name.partition("/")
        end = "" if scm == "hg" else ".git"
        below = f"scm/{segment(owner.lower())}/{segment(slug)}" if self._is_datacenter else escaped(full_name)
        https = self._at(below)
        if https is None:
            return {}
        ssh = f"ssh://hg@bitbucket.org/{below}" if scm == "hg" else f"git@bitbucket.org:{below}.git"
        return {"https": f"{https}{end}"} | ({"ssh": ssh} if self.root == CLOUD else {})

    @property
    def _is_datacenter(self) -> bool:
        return self.kind == "datacenter"

    def _project(self, key: str) -> str:
        """Return the path of a project; a personal one is below its user."""
        if key.startswith(PERSONAL):
            return f"users/{segment(key.removeprefix(PERSONAL).lower())}"
        return f"projects/{segment(key)}"

    def _below(self, full_name: str, rest: str) -> str | None:
        if self._is_datacenter:
            key, _, slug = full_name.partition("/")
            path = f"{self._project(key)}/repos/{segment(slug)}"
        else:
            path = escaped(full_name)
        return self._at(f"{path}/{rest}" if rest else path)

    def _at(self, path: str) -> str | None:
        return f"{self.root}/{path}" if _is_safe_root(self.root) and not _DOTS.search(path) else None


@lru_cache(maxsize=64)
def _is_safe_root(root: str) -> bool:
    """Return whether an upstream's address is safe to link to; cached, because every row asks."""
    return safe_external(root) is not None


def pages_of(upstream: UpstreamRow) -> WebPages:
    """Return what builds the addresses of an upstream's pages."""
    return WebPages(web_of(upstream.url), upstream.kind)


WITHOUT_PAGES = "sandbox"
"""The kind of upstreams that have no pages for people."""

RefKey = tuple[str, str]
"""The kind and the name of a branch or a tag."""


class RepositoryLinks(msgspec.Struct, frozen=True):
    """The page of a repository and its clone addresses, by ``https`` and ``ssh``; none if it is gone."""

    url: str | None = None
    clone_urls: Mapping[str, str] = {}


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
        self._pages = {row.id: pages_of(row) for row in upstreams if row.kind != WITHOUT_PAGES}

    def repositories(self, rows: Sequence[RepositoryRow]) -> dict[int, RepositoryLinks]:
        """Return the links of repositories, by their rows."""
        links = self.links_of(rows)
        return {row.id: links(row) for row in rows}

    def links_of(self, rows: Iterable[RepositoryRow]) -> Callable[[RepositoryRow], RepositoryLinks]:
        """Read what the links of some repositories depend on; return what builds those of one of them."""
        told = self._told_of_repositories(row.id for row in rows if row.deleted_at is None)

        def links(row: RepositoryRow) -> RepositoryLinks:
            if row.deleted_at is not None:
                return RepositoryLinks()
            return RepositoryLinks(self._repository(row, told), self._clone_addresses(row))

        return links

    def last_page(self, row: RepositoryRow) -> str | None:
        """Return the page of a repository, for a gone one its former page."""
        return self._repository(row, self._told_of_repositories([row.id]))

    def refs(self, repository: RepositoryRow, rows: Iterable[NamedRef]) -> dict[RefKey, RefLinks]:
        """Return the pages of branches and tags of a repository."""
        rows = list(rows)
        links = self.refs_of([(repository, row) for row in rows])
        return {(row.kind, row.name): its for row, its in zip(rows, links, strict=True)}

    def refs_of(self, rows: Sequence[tuple[RepositoryRow, NamedRef]]) -> list[RefLinks]:
        """Return the pages of branches and tags, each with its repository."""
        wanted = ((repository.id, row.name) for repository, row in rows)
        told = extras_of_refs(self._connection, self._caller, wanted)
        return [
            self._ref(repository, row, told.get((repository.id, row.kind, row.name)))
            for repository, row in rows
        ]

    def owner(self, row: AccountRow) -> str | None:
        """Return the page of an account or a workspace."""
        pages, is_person = self._pages.get(row.upstream_id), row.kind == "user"
        if pages is None or row.deleted_at is not None:
            return None
        extra = extra_of(self._connection, self._caller, "account" if is_person else "workspace", row.id)
        name = row.username or (row.known_uuid if pages.kind != "datacenter" else None)
        return _told(extra, pages, "links") or (pages.owner(name, is_person=is_person) if name else None)

    def changes(self, rows: Sequence[ChangeRow]) -> dict[int, str]:
        """Return the pages of the subjects of changes, by change id."""
        of_repositories = [(row.repository_id, row.ref) for row in rows if row.repository_id is not None]
        told = self._told_of_repositories(row_id for row_id, _ in of_repositories)
        named = {(row_id, ref) for row_id, ref in of_repositories if ref is not None}
        refs = extras_of_refs(self._connection, self._caller, named)
        found = dict[int, str]()
        for row in rows:
            pages = self._pages.get(row.upstream_id or 0)
            url = _change(row, pages, told, refs) if pages and not row.is_gone else None
            if url is not None:
                found[row.id] = url
        return found

    def _repository(self, row: RepositoryRow, told: Mapping[int, Json]) -> str | None:
        pages = self._pages.get(row.upstream_id)
        if pages is None:
            return None
        return _told(told.get(row.id), pages, "links") or pages.repository(row.full_name)

    def _ref(self, repository: RepositoryRow, row: NamedRef, extra: Json | None) -> RefLinks:
        pages = self._pages.get(repository.upstream_id)
        if pages is None or repository.deleted_at is not None:
            return RefLinks()
        return RefLinks(
            _told(extra, pages, "links") or pages.ref(repository.full_name, row.kind, row.name),
            _told(extra, pages, "target", "links") or pages.commit(repository.full_name, row.target_hash),
        )

    def _clone_addresses(self, row: RepositoryRow) -> dict[str, str]:
        pages = self._pages.get(row.upstream_id)
        told = (("https", row.clone_https), ("ssh", row.clone_ssh))
        found = {name: url for name, url in told if url and is_clone_address(url)}
        return found or (pages.clone_addresses(row.full_name, row.scm) if pages else {})

    def _told_of_repositories(self, ids: Iterable[int]) -> Mapping[int, Json]:
        return extras_of(self._connection, self._caller, "repository", ids)


def _change(
    row: ChangeRow,
    pages: WebPages,
    told: Mapping[int, Json],
    refs: Mapping[tuple[int, str, str], Json],
) -> str | None:
    """Return the page of the ref if it exists, else of the repository, else of the owner."""
    if row.repository is None:
        return pages.owner(row.owner) if row.owner else None
    kind, _, what = row.kind.partition("_")
    if row.ref is not None and what in ("created", "moved"):
        extra = refs.get((row.repository_id or 0, kind, row.ref))
        return _told(extra, pages, "links") or pages.ref(row.repository, kind, row.ref)
    return _told(told.get(row.repository_id or 0), pages, "links") or pages.repository(row.repository)


def _told(extra: Json | None, pages: WebPages, *keys: str) -> str | None:
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
