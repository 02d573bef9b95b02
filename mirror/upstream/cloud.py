"""Bitbucket Cloud's API 2.0 as an upstream.

Listings are sorted by a stable key; otherwise rows would be lost between pages. `next` links are followed
unchanged, since their form is not documented.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar, cast
from urllib.parse import urlencode, urlsplit

import msgspec

from mirror.addresses import Teller, Told, segment
from mirror.decoding import count
from mirror.errors import UpstreamBusy, UpstreamError, UpstreamRefused, UpstreamShapeError
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey, RepositorySettings
from mirror.upstream import cloud_decode as decode
from mirror.upstream.client import Http, HttpUpstream, LargeAnswer
from mirror.upstream.cloud_decode import (
    AccountJson,
    CommitsJson,
    MembershipJson,
    RefJson,
    RepositoryJson,
    WorkspaceAccessJson,
    WorkspaceJson,
)
from mirror.upstream.cloud_refs import UsualRefs
from mirror.upstream.cloud_repositories import UsualRepositories
from mirror.upstream.git import GitRefs
from mirror.upstream.protocol import (
    SHRINKS_BY,
    ListingOrder,
    Page,
    RowDecoder,
    checked_next,
    fields_of,
    is_reached,
    page_after,
    with_fields,
    with_shorter_pages,
)
from mirror.upstream.response import WRONG_ADDRESS, Response

Row = TypeVar("Row")
Answered = TypeVar("Answered")

PAGE_LENGTH = 100
# All keys of rows are requested, since the mirror keeps those that it does not know. One key of the page is
# left out, so that each address has `fields`: a page that cannot be read is requested with only its `next`.
_FIELDS = "-previous"


class _Envelope(msgspec.Struct, frozen=True):
    """The envelope of a page: only `values` and `next` are reliable, and `next` may be ""."""

    values: list[msgspec.Raw]
    next: str | None = None
    size: object = None
    pagelen: object = None


class _Onward(msgspec.Struct, frozen=True):
    """A page of which only `next` was requested."""

    next: str | None = None


class _Slugs(msgspec.Struct, frozen=True):
    """The sandbox's workspaces, as slugs or as objects."""

    workspaces: list[str | WorkspaceJson]


def _query(**others: str) -> str:
    return urlencode({"pagelen": str(PAGE_LENGTH), **others, "fields": _FIELDS}, safe=",")


_SORTS: dict[ListingOrder, str] = {"created": "created_on", "newest-update": "-updated_on"}
_REPOSITORIES = {order: _query(sort=sort) for order, sort in _SORTS.items()}
# Without a sort, refs come in the byte order of their names, which is stable.
_REFS = _query()
_MEMBERS = _query()

_TO_REPOSITORY = RowDecoder(RepositoryJson, decode.to_repository)
_TO_REF = RowDecoder(RefJson, decode.to_ref)
_TO_MEMBER = RowDecoder(MembershipJson, decode.to_member)
_TO_WORKSPACE = RowDecoder(WorkspaceAccessJson, lambda row: decode.to_workspace(row.workspace))


class Cloud(HttpUpstream):
    """Bitbucket Cloud, or another server with API 2.0; with `git`, git reads the refs of git repositories."""

    orders_by_update = True
    knows_hg = False
    knows_names_only = False
    never_tells = frozenset[str]()

    def __init__(self, name: str, http: Http, git: GitRefs | None = None) -> None:
        super().__init__(name, http, git)
        self._tell = Teller(http.url, anonymous=self.anonymous)

    @cached_property
    def _usual_ref(self) -> Callable[[msgspec.Raw], Ref | None]:
        """Reads a ref in the usual shape; made when the first one is read, since most writes read none."""
        return UsualRefs(self._tell).read

    @cached_property
    def _usual_repository(self) -> Callable[[msgspec.Raw], Repository | None]:
        """Reads a repository in the usual shape."""
        return UsualRepositories(self._tell).read

    def fetch_current_user(self) -> Owner | None:
        """Request the user of the credential; without a credential, return None without a request.

        Raises CredentialsRefused if the upstream does not accept the credential.
        """
        if self.anonymous:
            return None
        try:
            account, _ = self._http.get_json("user", AccountJson)
        except UpstreamRefused as error:
            if error.status == 403:  # it belongs to no person, or may not read accounts
                return None
            if error.status == 404 and WRONG_ADDRESS not in str(error):
                raise UpstreamRefused(f"{error}{WRONG_ADDRESS}", status=404) from None
            raise
        return decode.to_account(account)

    def fetch_workspaces(self, cursor: str | None) -> Page[Owner]:
        """Request the workspaces of the credential's user."""
        try:  # Bitbucket removed the other listings of workspaces
            return self._page(cursor or f"user/workspaces?pagelen={PAGE_LENGTH}", _TO_WORKSPACE)
        except UpstreamRefused as error:
            if "workspaces = [" in str(error):
                raise
            raise UpstreamRefused(
                f'{error} - name in the configuration what to mirror: workspaces = ["your-workspace"]',
                status=error.status,
            ) from None

    def fetch_workspace(self, workspace: str) -> Owner:
        """Request one workspace by its slug."""
        row, answer = self._http.get_json(f"workspaces/{segment(workspace)}", WorkspaceJson)
        return self._with_told(decode.to_workspace(row), answer.body)

    def fetch_members(self, workspace: str, cursor: str | None) -> Page[Member]:
        """Request members; a user with several rows on a page appears once, with the highest permission."""
        target = cursor or f"workspaces/{segment(workspace)}/members?{_MEMBERS}"
        page = self._page(target, _TO_MEMBER)
        return msgspec.structs.replace(page, rows=decode.highest(page.rows))

    def fetch_repositories(self, workspace: str, order: ListingOrder, cursor: str | None) -> Page[Repository]:
        """Request repositories; a page that cannot be read is skipped."""
        target = cursor or f"repositories/{segment(workspace)}?{_REPOSITORIES[order]}"
        try:
            return self._page(target, _TO_REPOSITORY, self._usual_repository)
        except UpstreamBusy as error:
            if error.status is not None and error.status < 500:  # such as 429: not the fault of the page
                raise
            return self._skipped_page(target, error)
        except UpstreamShapeError:
            return self._page_or_skipped(target)

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Request one repository by its identity, which renames and transfers do not change.

        Raises UpstreamShapeError if the answer is another repository.
        """
        row, answer = self._known(key, lambda path: self._http.get_json(path, RepositoryJson))
        found = self._with_told(decode.to_repository(row), answer.body)
        if key.uuid.startswith("{") and found.uuid != key.uuid:
            raise UpstreamShapeError(
                f"{key.full_name} was requested as {key.uuid}, but the answer is {found.uuid}"
            )
        return found

    def find_repository(self, full_name: str) -> Repository:
        """Request the repository that has this name now."""
        return self.fetch_repository(RepositoryKey(uuid="", full_name=full_name))

    def fetch_refs(self, key: RepositoryKey, cursor: str | None) -> Page[Ref]:
        """Request branches and tags in one listing, which takes half the requests of two."""
        if cursor:
            return self._page(cursor, _TO_REF, self._usual_ref)
        if self._git and key.scm != "hg":
            return self._git.fetch_refs(key)
        return self._known(key, lambda path: self._page(f"{path}/refs?{_REFS}", _TO_REF, self._usual_ref))

    def is_ancestor(self, key: RepositoryKey, commit: str, of: str) -> bool | None:
        """Request the commits that lead to `commit` but not to `of`: none, if it is an ancestor."""
        query = urlencode({"include": commit, "exclude": of, "pagelen": "1"})
        found, _ = self._http.get_json(f"{self._path(key)}/commits?{query}", CommitsJson, attempts=2)
        return is_reached(commit, [one.hash for one in found.values], more=found.next is not None)

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """POST to the address of the new repository."""
        target = f"repositories/{segment(owner)}/{segment(slug)}"
        return self._written(self._http.post(target, settings.given()))

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """PUT the settings to change."""
        return self._written(self._http.put(self._path(key), settings.given()))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE the repository."""
        self._http.delete(self._path(key))

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """POST to its forks, with the workspace in the body."""
        body: dict[str, Any] = {**settings.given(), "workspace": {"slug": owner}}
        body.pop("scm", None)  # a fork has the same kind as its parent
        return self._written(self._http.post(f"{self._path(key)}/forks", body))

    def _known(self, key: RepositoryKey, ask: Callable[[str], Answered]) -> Answered:
        """Request something of a repository in its last known workspace; after a 404, in any, by its uuid."""
        try:
            return ask(self._path(key))
        except UpstreamRefused as error:
            if error.status != 404 or not key.uuid.startswith("{"):
                raise
        # With a repository's uuid, {} stands for any workspace.
        return ask(f"repositories/{segment('{}')}/{segment(key.uuid)}")

    def _path(self, key: RepositoryKey) -> str:
        identity = key.uuid if key.uuid.startswith("{") else key.slug
        return f"repositories/{segment(key.workspace)}/{segment(identity)}"

    def _page(
        self, target: str, rows: RowDecoder[Row], usual: Callable[[msgspec.Raw], Row | None] | None = None
    ) -> Page[Row]:
        """Request a page and decode its rows, by `usual` where it can; if too large, request fewer rows.

        Its `next` link then leads to pages of the same length.
        """
        try:
            envelope, answer = self._http.get_json(target, _Envelope)
        except LargeAnswer:
            shorter = with_shorter_pages(self._http.address(target), SHRINKS_BY)
            if shorter is None:
                raise
            return self._page(shorter, rows, usual)
        good, bad = rows.decode(envelope.values, self._with_told, usual, redact=self._http.redacted)
        most = count(envelope.pagelen) or PAGE_LENGTH
        page = Page(
            rows=good,
            next=self._next(envelope.next, answer),
            size=count(envelope.size),
            date=answer.date,
            bad=bad,
            full_length=most if len(envelope.values) >= most else 0,
            age=answer.age,
            doubt=answer.doubt,
        )
        return page if page.next or not page.full_length else self._surely_last(target, page, envelope.values)

    def _surely_last(self, target: str, page: Page[Row], values: list[msgspec.Raw]) -> Page[Row]:
        """Request the page after a full one without `next`, unless the reported total shows it is the last.

        The total may include rows that are hidden from the caller, or the link may be missing: only the next
        page shows which. The page with these `values` is returned as the last one, or with a link to the
        next, or unchanged if the answer shows neither. Without a total, an error is raised: nothing else
        would show that rows are missing.
        """
        after = page_after(self._http.address(target))
        if after is None or (page.size is not None and page.size <= after[0] * page.full_length):
            return page
        try:
            envelope, _ = self._http.get_json(after[1], _Envelope, attempts=2)
        except UpstreamRefused as error:
            is_last = error.status == 404
        except UpstreamError:
            if page.size is None:
                raise
            return page
        else:
            if envelope.values == values:  # the server ignores numbers of pages
                return page
            if envelope.values:
                return msgspec.structs.replace(page, next=after[1])
            is_last = not envelope.next
        return msgspec.structs.replace(page, full_length=0) if is_last else page

    def _page_or_skipped(self, target: str) -> Page[Repository]:
        """Request a page of an unknown shape once more, then skip it."""
        try:  # one such page must not end the listing
            return self._page(target, _TO_REPOSITORY, self._usual_repository)
        except UpstreamShapeError as error:
            return self._skipped_page(target, error)

    def _skipped_page(self, target: str, error: UpstreamError) -> Page[Repository]:
        """Skip a page; raises its error if its `next` link cannot be read either."""
        # One bad row can make a page fail every time, but not a request for `next` alone.
        address = self._http.address(target)
        try:
            onward, answer = self._http.get_json(with_fields(address, "next"), _Onward, attempts=2)
        except UpstreamError:
            raise error from None
        following = self._next(onward.next, answer)
        fields = fields_of(address)
        if following and fields and fields_of(following) is not None:
            following = with_fields(following, fields)  # else later pages would have no rows either
        if following == address:
            raise error
        return Page(rows=(), next=following, size=None, date=answer.date, skipped=True)

    def _next(self, link: str | None, answer: Response) -> str | None:
        return checked_next(link, answer.address, self._http.url, self._http.redacted) if link else None

    def _written(self, answer: Response) -> Repository:
        return self._with_told(decode.to_repository(self._http.decoded(answer, RepositoryJson)), answer.body)

    def _with_told(self, row: Row, raw: bytes) -> Row:
        """Return a row with the object that it was decoded from, unless that is not plain JSON."""
        try:
            told = self._tell(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return row
        if isinstance(row, Repository | Ref):
            return msgspec.structs.replace(row, told=told)
        if isinstance(row, Member) and isinstance(told.value.get("user"), dict):
            user = msgspec.structs.replace(row.user, told=Told(told.value["user"], told.anonymous))
            return msgspec.structs.replace(row, user=user)
        if isinstance(row, Owner) and told.value.get("type") == "workspace":
            return msgspec.structs.replace(row, told=told)
        return row


class SandboxUpstream(Cloud):
    """The simulated Bitbucket: like Cloud, but it still makes Mercurial repositories."""

    knows_hg = True

    def fetch_workspaces(self, cursor: str | None) -> Page[Owner]:
        """Request all workspaces of the sandbox, which it lists for any caller."""
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(self._http.url))
        kind = cast("type[_Slugs | list[str | WorkspaceJson]]", _Slugs | list[str | WorkspaceJson])
        found, answer = self._http.get_json(cursor or f"{origin}/-/sandbox/workspaces", kind)
        rows = found if isinstance(found, list) else found.workspaces
        owners = tuple(
            decode.to_workspace(WorkspaceJson(slug=row) if isinstance(row, str) else row) for row in rows
        )
        return Page(rows=owners, next=None, size=len(owners), date=answer.date)
