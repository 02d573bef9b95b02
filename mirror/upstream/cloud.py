"""Bitbucket Cloud's API 2.0 as an upstream: one request for each method, and a page of rows for each listing.

Lists are asked with a stable sort, else rows are lost between pages, and with narrow `fields`, which spares
time and avoids errors 500 on big lists; `next` is followed as it is, for nobody else can put it together.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import urlencode, urlsplit

import msgspec

from mirror.errors import CredentialsRefused, UpstreamBusy, UpstreamError, UpstreamRefused, UpstreamShapeError
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey, RepositorySettings
from mirror.upstream import cloud_decode as shapes
from mirror.upstream.client import Http
from mirror.upstream.protocol import Caller, Order, Page, Rows
from mirror.upstream.response import Answer
from mirror.upstream.urls import Family, fields_of, segment, with_fields

Row = TypeVar("Row")
Answered = TypeVar("Answered")

PAGE_LENGTH = 100
_ENVELOPE = ("next", "size", "page", "pagelen")
_ACCOUNT = ("uuid", "type", "username", "nickname", "display_name", "account_id", "created_on")
_WORKSPACE = ("uuid", "slug", "name", "created_on", "links.avatar.href")

REPOSITORY_FIELDS = (
    *("uuid", "full_name", "slug", "name", "scm", "is_private", "description", "website", "language", "size"),
    *("mainbranch.name", "fork_policy", "parent.uuid", "parent.full_name", "followers_count", "forks_count"),
    *("has_issues", "has_wiki", "project.key", "project.name", "project.uuid", "created_on", "updated_on"),
    *("links.avatar.href", "links.clone.name", "links.clone.href"),
    *(f"owner.{field}" for field in (*_ACCOUNT, "links.avatar.href")),
    *(f"workspace.{field}" for field in _WORKSPACE),
)
REF_FIELDS = (
    *("name", "type", "target.hash", "target.date", "target.message", "target.parents.hash", "heads.hash"),
    *("target.author.raw", "target.author.user.uuid", "target.author.user.display_name"),
    *("target.author.user.nickname", "target.author.user.username", "message", "date", "tagger.raw"),
)
MEMBER_FIELDS = ("permission", *(f"user.{field}" for field in (*_ACCOUNT, "links.avatar.href")))


class _Slugs(msgspec.Struct, frozen=True):
    """The sandbox's workspaces, by slug alone or as objects."""

    workspaces: list[str | shapes.Workspace]


_SORTS: dict[Order, str] = {"created": "created_on", "newest-update": "-updated_on"}


class Listing(msgspec.Struct, frozen=True):
    """The envelope of a page: only `values` and `next` can be relied on, and `next` may be ""."""

    values: list[msgspec.Raw]
    next: str | None = None
    size: int | float | None = None


class _Onward(msgspec.Struct, frozen=True):
    """A page that was asked for its `next` alone."""

    next: str | None = None


def _query(fields: tuple[str, ...], **others: str) -> str:
    """Write the parameters of a listing."""
    listed = ",".join((*_ENVELOPE, *(f"values.{field}" for field in fields)))
    return urlencode({"pagelen": str(PAGE_LENGTH), **others, "fields": listed}, safe=",")


_REPOSITORIES = {order: _query(REPOSITORY_FIELDS, sort=sort) for order, sort in _SORTS.items()}
_REPOSITORY = urlencode({"fields": ",".join(REPOSITORY_FIELDS)}, safe=",")
# Refs come in the byte order of their names unless told otherwise, which is as stable as can be.
_REFS = _query(REF_FIELDS)
_MEMBERS = _query(MEMBER_FIELDS)


_ROW = shapes.RepositoryRow
_TO_REPOSITORY = Rows(shapes.RepositoryRow, shapes.shape_repository)
_TO_REF = Rows(shapes.RefRow, shapes.shape_ref)
_TO_MEMBER = Rows(shapes.Membership, shapes.shape_member)
_TO_WORKSPACE = Rows(shapes.WorkspaceAccess, lambda row: shapes.shape_workspace(row.workspace))


class Cloud:
    """Bitbucket Cloud, or whatever speaks its API 2.0."""

    orders_by_update = True

    def __init__(self, name: str, http: Http) -> None:
        self.name = name
        self.anonymous = http.credential.form == "anonymous"
        self._http = http
        self._family = Family(http.url)

    def fetch_caller(self) -> Caller:
        """Ask ``/user``; the anonymous are nobody without asking.

        401 means that the credential reads as nobody, so that private repositories would look deleted;
        403 that it is known but acts for no person, or may not read accounts.
        """
        if self.anonymous:
            return Caller(user=None)
        try:
            account, _ = self._http.get_json("user", shapes.Account)
        except CredentialsRefused as error:
            raise CredentialsRefused(f"the upstream takes us for nobody: {error}") from None
        except UpstreamRefused as error:
            if error.status == 403:
                return Caller(user=None)
            raise
        return Caller(user=shapes.shape_account(account))

    def fetch_workspaces(self, place: str | None) -> Page[Owner]:
        """Ask for the caller's workspaces: the only listing of them that is left."""
        try:
            return self._page(place or f"user/workspaces?pagelen={PAGE_LENGTH}", _TO_WORKSPACE)
        except UpstreamRefused as error:
            if "workspaces = [" in str(error):
                raise
            raise UpstreamRefused(
                f'{error} - name in the configuration what to mirror: workspaces = ["your-workspace"]',
                status=error.status,
            ) from None

    def fetch_workspace(self, workspace: str) -> Owner:
        """Ask for one workspace by its slug."""
        row, _ = self._http.get_json(f"workspaces/{segment(workspace)}", shapes.Workspace)
        return shapes.shape_workspace(row)

    def fetch_members(self, workspace: str, place: str | None) -> Page[Member]:
        """Ask for members; a user with several rows on a page comes once, with the highest permission."""
        asked = place or f"workspaces/{segment(workspace)}/members?{_MEMBERS}"
        page = self._page(asked, _TO_MEMBER)
        return msgspec.structs.replace(page, rows=shapes.highest(page.rows))

    def fetch_repositories(self, workspace: str, order: Order, place: str | None) -> Page[Repository]:
        """Ask for repositories; a page that the upstream cannot give is stepped over as a hole."""
        asked = place or f"repositories/{segment(workspace)}?{_REPOSITORIES[order]}"
        try:
            return self._page(asked, _TO_REPOSITORY)
        except UpstreamBusy as error:
            if error.status is not None and error.status < 500:
                raise
            return self._hole(asked, error)
        except UpstreamShapeError:
            return self._page_or_hole(asked)

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Ask for one repository by its identity, which survives renaming and moving.

        Raises UpstreamShapeError where the answer is of another one.
        """
        row = self._known(
            key, lambda path: self._http.get_json(f"{path}?{_REPOSITORY}", shapes.RepositoryRow)[0]
        )
        found = shapes.shape_repository(row)
        if key.uuid.startswith("{") and found.uuid != key.uuid:
            raise UpstreamShapeError(
                f"{key.full_name} was asked for as {key.uuid}, and the answer is of {found.uuid}"
            )
        return found

    def fetch_refs(self, key: RepositoryKey, place: str | None) -> Page[Ref]:
        """Ask for branches and tags in one listing, which costs half of asking apart."""
        if place:
            return self._page(place, _TO_REF)
        return self._known(key, lambda path: self._page(f"{path}/refs?{_REFS}", _TO_REF))

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _known(self, key: RepositoryKey, ask: Callable[[str], Answered]) -> Answered:
        """Ask about a repository where it was last seen; if it is not there, by its identity anywhere.

        With a repository's uuid, ``{}`` stands for any workspace.
        """
        try:
            return ask(self._path(key))
        except UpstreamRefused as error:
            if error.status != 404 or not key.uuid.startswith("{"):
                raise
        return ask(f"repositories/{segment('{}')}/{segment(key.uuid)}")

    def _path(self, key: RepositoryKey) -> str:
        identity = key.uuid if key.uuid.startswith("{") else key.slug
        return f"repositories/{segment(key.workspace)}/{segment(identity)}"

    def _page(self, asked: str, rows: Rows[Row]) -> Page[Row]:
        """Ask for a page and shape its rows."""
        listing, answer = self._http.get_json(asked, Listing)
        good, bad = rows.read(listing.values)
        return Page(
            rows=good,
            place=self._onward(listing.next, answer),
            size=shapes.count(listing.size),
            date=answer.date,
            bad=bad,
        )

    def _page_or_hole(self, asked: str) -> Page[Repository]:
        """Ask once more for a page of an unknown shape, then step over it: it must not end the listing."""
        try:
            return self._page(asked, _TO_REPOSITORY)
        except UpstreamShapeError as error:
            return self._hole(asked, error)

    def _hole(self, asked: str, error: UpstreamError) -> Page[Repository]:
        """Step over a page: one bad row can break it for good, but not its `next`.

        Raises the error that the page gave where that fails as well.
        """
        address = self._http.address(asked)
        try:
            onward, answer = self._http.get_json(with_fields(address, "next"), _Onward, attempts=2)
        except UpstreamError:
            raise error from None
        place = self._onward(onward.next, answer)
        fields = fields_of(address)
        if place and fields and fields_of(place) is not None:
            place = with_fields(place, fields)  # or else every later page would be as bare as this one
        if place == address:
            raise error
        return Page(rows=(), place=place, size=None, date=answer.date, hole=True)

    def _onward(self, place: str | None, answer: Answer) -> str | None:
        return self._family.checked(place, answer.address) if place else None


class Sandbox(Cloud):
    """The simulated Bitbucket: as the cloud, but it tells all of its workspaces to anybody."""

    def fetch_workspaces(self, place: str | None) -> Page[Owner]:
        """Ask the sandbox itself for its workspaces, since the cloud's way tells the caller's only."""
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(self._http.url))
        kind = cast("type[_Slugs | list[str | shapes.Workspace]]", _Slugs | list[str | shapes.Workspace])
        found, answer = self._http.get_json(place or f"{origin}/-/sandbox/workspaces", kind)
        rows = found if isinstance(found, list) else found.workspaces
        owners = tuple(
            shapes.shape_workspace(shapes.Workspace(slug=row) if isinstance(row, str) else row)
            for row in rows
        )
        return Page(rows=owners, place=None, size=len(owners), date=answer.date)


class WritableCloud(Cloud):
    """Bitbucket Cloud, for those who may write to it."""

    knows_hg = False
    never_tells = frozenset[str]()

    def find_repository(self, full_name: str) -> Repository:
        """Ask for the repository that has this name now."""
        return self.fetch_repository(RepositoryKey(uuid="", full_name=full_name))

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """POST to the address that the repository is to have."""
        return self._shaped(
            self._http.post(f"repositories/{segment(owner)}/{segment(slug)}", _body(settings))
        )

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """PUT what is to change."""
        return self._shaped(self._http.put(self._path(key), _body(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE it."""
        self._http.delete(self._path(key))

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """POST to its forks, naming the workspace."""
        body = {**_body(settings), "workspace": {"slug": owner}}
        body.pop("scm", None)  # a fork is what its parent is
        return self._shaped(self._http.post(f"{self._path(key)}/forks", body))

    def _shaped(self, answer: Answer) -> Repository:
        return shapes.shape_repository(self._http.decoded(answer, shapes.RepositoryRow))


class WritableSandbox(WritableCloud):
    """The simulated Bitbucket, which makes Mercurial repositories still."""

    knows_hg = True


def _body(settings: RepositorySettings) -> dict[str, Any]:
    return dict(settings.given())
