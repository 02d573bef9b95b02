"""A server that speaks API 1.0 as an upstream: a Bitbucket from before 2019, or another mirror.

It lists everything of a user in one answer, without pages. It has no identities but names, so a renamed
repository looks like a deleted and a new one, also where the server leads from the old name to the new one:
else both rows would go on, and the old one would show strangers what became private under the new name. Times
without `utc` in their key are Amsterdam's, without offset; they are not read at all.
"""

import re
from functools import partial
from typing import TypeVar
from urllib.parse import unquote, urlencode, urlsplit

import msgspec

from mirror.addresses import Told, segment
from mirror.decoding import count, moment
from mirror.errors import NameReused, UpstreamRefused, UpstreamShapeError
from mirror.model import NAMED, Member, Owner, Ref, RefKind, Repository, RepositoryKey, RepositorySettings
from mirror.upstream.client import Http, HttpUpstream, Method
from mirror.upstream.protocol import ListingOrder, Page, RowDecoder
from mirror.upstream.response import Response

Row = TypeVar("Row")

_MAIL = re.compile(r"\s*<[^<>]*>\s*$")
_URI = re.compile(r"(?:/api)?/1\.0/repositories/([^/]+)/([^/]+)/?")


class UserJson(msgspec.Struct, frozen=True):
    """A user or a team; a team has no last name."""

    username: str
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    is_team: bool | None = None
    avatar: str | None = None


class RepositoryJson(msgspec.Struct, frozen=True):
    """A repository, and so is `fork_of`. Short rows have only a few of these keys."""

    owner: str | None = None
    slug: str | None = None
    resource_uri: str | None = None
    name: str | None = None
    scm: str | None = None
    is_private: bool | None = None
    description: str | None = None
    website: str | None = None
    language: str | None = None
    size: int | float | None = None
    main_branch: str | None = None
    no_forks: bool | None = None
    no_public_forks: bool | None = None
    fork_of: "RepositoryJson | None" = None
    followers_count: int | float | None = None
    forks_count: int | float | None = None
    has_issues: bool | None = None
    has_wiki: bool | None = None
    logo: str | None = None
    utc_created_on: str | None = None
    utc_last_updated: str | None = None


class ChangesetJson(msgspec.Struct, frozen=True):
    """The commit of a branch or tag; its parents are cut to twelve digits, and its size is always -1."""

    raw_node: str | None = None
    author: str | None = None
    raw_author: str | None = None
    utctimestamp: str | None = None
    message: str | None = None


class NamedChangesetJson(msgspec.Struct, frozen=True):
    """An entry of the object that lists refs."""

    name: str
    changeset: ChangesetJson


def with_name(name: str, raw: msgspec.Raw) -> msgspec.Raw:
    """Make one JSON row of a key and its value."""
    return msgspec.Raw(b'{"name":%s,"changeset":%s}' % (msgspec.json.encode(name), bytes(raw)))


_NAMES = """
    node raw_node author raw_author timestamp utctimestamp message name slug owner scm is_private description
    website language main_branch fork_of mq_of is_fork is_mq followers_count forks_count has_issues has_wiki
    logo utc_created_on utc_last_updated resource_uri state
"""
# Keys that columns have, or that name another repository, which may be private.
_IN_COLUMNS = frozenset(_NAMES.split())


def with_told(row: Row, raw: bytes, *, anonymous: bool) -> Row:
    """Return a row with the keys of its object that no column has."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return row
    is_ref = isinstance(row, Ref)
    value = value.get("changeset") if is_ref else value
    if not isinstance(value, dict) or not isinstance(row, Ref | Repository):
        return row
    left_out = {*_IN_COLUMNS}
    if not is_ref:  # local dates have more than the columns only if they have milliseconds
        dates = [key for key in ("created_on", "last_updated") if "." not in str(value.get(key))]
        left_out |= {"size", *dates}
    kept = {key: inner for key, inner in value.items() if key not in left_out}
    return msgspec.structs.replace(row, told=Told(kept, anonymous, "1.0"))


def to_user(row: UserJson) -> Owner:
    """Convert a user or a team."""
    return Owner(
        uuid=f"{NAMED}{row.username.lower()}",
        username=row.username,
        display_name=row.display_name,
        first_name=row.first_name,
        last_name=row.last_name,
        kind="team" if row.is_team else "user",
        avatar_url=row.avatar,
    )


def to_owner_of(row: RepositoryJson) -> Owner:
    """Return the owner that a repository names; raises UpstreamShapeError if it names none."""
    owner, _ = _names(row)
    return Owner(uuid=f"{NAMED}{owner.lower()}", username=owner)


def to_repository(row: RepositoryJson, owner: Owner | None) -> Repository:
    """Convert a repository; `owner` is the user whose repositories are listed, None without one."""
    name, slug = _names(row)
    if owner is None or owner.username is None or owner.username.lower() != name.lower():
        owner = Owner(uuid=f"{NAMED}{name.lower()}", username=name)
    parent = "/".join(_names(row.fork_of)) if row.fork_of else None
    return Repository(
        uuid=f"{NAMED}{name}/{slug}".lower(),
        owner=owner,
        slug=slug,
        name=row.name or slug,
        full_name=f"{name}/{slug}",
        scm=row.scm,
        is_private=row.is_private is not False,
        description=row.description,
        website=row.website,
        language=row.language,
        size=count(row.size),
        main_branch=row.main_branch or None,
        fork_policy=_fork_policy(row),
        parent_uuid=f"{NAMED}{parent}".lower() if parent else None,
        parent_full_name=parent,
        followers_count=count(row.followers_count),
        forks_count=count(row.forks_count),
        has_issues=row.has_issues,
        has_wiki=row.has_wiki,
        avatar_url=row.logo,
        created_at=moment(row.utc_created_on),
        updated_at=moment(row.utc_last_updated),
    )


def to_ref(row: NamedChangesetJson, kind: RefKind) -> Ref:
    """Convert a branch or a tag; raises UpstreamShapeError if the full hash of its commit is missing."""
    target = row.changeset
    if not target.raw_node:
        raise UpstreamShapeError(f"{kind} {row.name!r} has no whole hash")
    line = target.raw_author or target.author
    # If no account has the mail address, `author` is the name in the author line.
    is_in_line = line is not None and target.author == _MAIL.sub("", line)
    return Ref(
        kind=kind,
        name=row.name,
        target_hash=target.raw_node,
        target_date=moment(target.utctimestamp),
        target_author=line,
        target_author_name=None if is_in_line else target.author,
        target_message=target.message,
    )


def _names(row: RepositoryJson) -> tuple[str, str]:
    """Return owner and slug; rows of 2010 have the owner only in their address."""
    found = _URI.fullmatch(row.resource_uri or "")
    owner, slug = row.owner or (found and found[1]), row.slug or (found and found[2])
    if not owner or not slug or "/" in f"{owner}{slug}":
        raise UpstreamShapeError(f"a repository without owner and slug: {row.slug or row.name or 'nameless'}")
    return owner, slug


def _fork_policy(row: RepositoryJson) -> str | None:
    """Return the fork policy for the two switches; before 2014 there was only one."""
    if row.no_forks:
        return "no_forks"
    if row.no_public_forks:
        return "no_public_forks"
    return "allow_forks" if row.no_public_forks is False else None


_REFS = {
    "branches": RowDecoder(NamedChangesetJson, partial(to_ref, kind="branch")),
    "tags": RowDecoder(NamedChangesetJson, partial(to_ref, kind="tag")),
}
_TO_OWNED = RowDecoder(RepositoryJson, to_owner_of)


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class UserAnswer(msgspec.Struct, frozen=True):
    """A user with all of their repositories."""

    user: UserJson
    repositories: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


class Api1(HttpUpstream):
    """A server that speaks API 1.0."""

    orders_by_update = False
    knows_hg = True
    knows_names_only = True
    never_tells = frozenset[str]()

    def __init__(self, name: str, http: Http) -> None:
        super().__init__(name, http)
        self._keep = partial(with_told, anonymous=self.anonymous)

    def fetch_current_user(self) -> Owner | None:
        """Request the user of the credential; without a credential, return None without a request."""
        if self.anonymous:
            return None
        try:
            found, _ = self._get("user", UserAnswer)
        except UpstreamRefused as error:
            if error.status in (403, 404):  # the credential belongs to no user
                return None
            raise
        return to_user(found.user)

    def fetch_workspaces(self, cursor: str | None) -> Page[Owner]:  # noqa: ARG002 - there is one page
        """List the owners of the repositories that the credential can see, in one answer."""
        try:
            listing, answer = self._get("user/repositories", list[msgspec.Raw])
        except UpstreamRefused as error:
            raise UpstreamRefused(
                f'{error} - name in the configuration what to mirror: workspaces = ["some-user"]',
                status=error.status,
            ) from None
        rows, bad = _TO_OWNED.decode(listing, redact=self._http.redacted)
        owners = tuple({owner.uuid: owner for owner in rows}.values())
        return Page(rows=owners, next=None, size=len(owners), date=answer.date, bad=bad)

    def fetch_workspace(self, workspace: str) -> Owner:
        """Request one user or team."""
        found, _ = self._get(f"users/{segment(workspace)}", UserAnswer)
        return to_user(found.user)

    def fetch_members(self, workspace: str, cursor: str | None) -> Page[Member]:  # noqa: ARG002
        """Return an empty page without a request: API 1.0 has no members."""
        return Page(rows=(), next=None, size=0, date=self._http.clock())

    def fetch_repositories(self, workspace: str, order: ListingOrder, cursor: str | None) -> Page[Repository]:  # noqa: ARG002
        """Request all repositories of a user at once, in the server's own order."""
        found, answer = self._get(f"users/{segment(workspace)}", UserAnswer)
        if isinstance(found.repositories, msgspec.UnsetType):
            raise UpstreamShapeError(f"{answer.url}: it lists no `repositories`, not even none")
        owner = to_user(found.user)
        rows = RowDecoder(RepositoryJson, lambda row: to_repository(row, owner))
        good, bad = rows.decode(found.repositories, self._keep, redact=self._http.redacted)
        size = len({row.uuid for row in good}) + len(bad)  # one that is named twice hides no other
        return Page(rows=good, next=None, size=size, date=answer.date, bad=bad)

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Request one repository by its name."""
        row, answer = self._get(_path(key), RepositoryJson)
        found = to_repository(row, None)
        if key.uuid.startswith(NAMED) and found.uuid != key.uuid:
            raise NameReused(f"{answer.url}: {key.full_name} is called {found.full_name} now", status=404)
        return self._keep(found, answer.body)

    def fetch_refs(self, key: RepositoryKey, cursor: str | None) -> Page[Ref]:
        """Request all branches, then all tags: one object each, without pages."""
        kind = cursor or "branches"
        if kind not in _REFS:
            raise UpstreamShapeError(f"{cursor!r} is not a cursor of a listing of refs")
        found, answer = self._get(f"{_path(key)}/{kind}", dict[str, msgspec.Raw])
        rows, bad = _REFS[kind].decode(
            (with_name(name, raw) for name, raw in found.items()), self._keep, redact=self._http.redacted
        )
        onward = "tags" if kind == "branches" else None
        doubt = answer.doubt
        return Page(rows=rows, next=onward, size=None, date=answer.date, bad=bad, doubt=doubt)

    def is_ancestor(self, key: RepositoryKey, commit: str, of: str) -> bool | None:  # noqa: ARG002
        """Return None without a request: API 1.0 compares no commits."""
        return None

    def find_repository(self, full_name: str) -> Repository:
        """Request the repository that has this name now."""
        return self.fetch_repository(RepositoryKey(uuid="", full_name=full_name))

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """POST to all repositories, with the owner as a field; the server derives the slug from the name."""
        fields = {"name": slug, **_fields(settings), "owner": owner}
        return self._written(self._send("POST", "repositories/", fields))

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """PUT the settings to change."""
        return self._written(self._send("PUT", f"{_path(key)}/", _fields(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE the repository."""
        self._http.delete(f"{_path(key)}/")

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """POST to its forks; a server that ignores `owner` forks under the caller's own name."""
        fields = {**_fields(settings), "owner": owner}
        fields.pop("scm", None)  # a fork has the same kind as its parent
        return self._written(self._send("POST", f"{_path(key)}/fork", fields))

    def _get(self, path: str, shape: type[Row]) -> tuple[Row, Response]:
        """Request what has a name; raises NameReused if that leads to what has another one."""
        found, answer = self._http.get_json(f"{path}/", shape)
        there = unquote(urlsplit(answer.address).path).rstrip("/").lower()
        if not there.endswith(f"/{unquote(path).lower()}"):
            raise NameReused(f"{self._http.address(path)}: it leads to {answer.url} now", status=404)
        return found, answer

    def _send(self, method: Method, path: str, fields: dict[str, str]) -> Response:
        return self._http.send(method, path, content=urlencode(fields).encode(), headers=_FORM)

    def _written(self, answer: Response) -> Repository:
        return to_repository(self._http.decoded(answer, RepositoryJson), None)


def _path(key: RepositoryKey) -> str:
    return f"repositories/{segment(key.workspace)}/{segment(key.slug)}"


def _fields(settings: RepositorySettings) -> dict[str, str]:
    """Return settings as fields of a form, with two switches instead of the fork policy."""
    given = settings.given()
    policy = given.pop("fork_policy", None)
    if policy is not None:
        given |= {"no_forks": policy == "no_forks", "no_public_forks": policy != "allow_forks"}
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
