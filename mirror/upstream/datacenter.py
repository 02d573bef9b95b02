"""Bitbucket Data Center's (once Server's) REST API as an upstream: projects take the part of workspaces.

Identities are numbers, written ``id:N``; people, who are numbered apart from projects, are ``user:N``. The
API tells no dates of repositories, so every listing is a full one. Its pages go by `start`, and the next
start is the one that the server names: rows that the caller may not see leave gaps in the numbers.

A repository that is flagged as public is public only if it is shown to a request without credential: with
public access switched off, the flags stay as they were.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from mirror.errors import (
    CredentialsRefused,
    Paused,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey, RepositorySettings
from mirror.upstream import datacenter_decode as shapes
from mirror.upstream.client import Http, LargeAnswer
from mirror.upstream.protocol import Caller, Order, Page, Rows
from mirror.upstream.response import Answer
from mirror.upstream.retry import Unsent
from mirror.upstream.urls import segment

Row = TypeVar("Row")

PAGE_LENGTH = 1000  # the server gives less if it likes to
SHRINKS_BY = 10
JUDGED_BY = 5
"""Projects that are asked for at most to find out whether the credential is somebody's."""

_TO_OWNED = Rows(shapes.RepositoryRow, lambda row: shapes.shape_project(row.project))

_TO_PROJECT = Rows(shapes.Project, shapes.shape_project)
_TO_REPOSITORY = Rows(shapes.RepositoryRow, shapes.shape_repository)
_TO_MEMBER = Rows(shapes.PermissionRow, shapes.shape_member)
_TO_BRANCH = Rows(shapes.RefRow, shapes.shape_branch)
_TO_TAG = Rows(shapes.RefRow, shapes.shape_tag)

_ALL = "repos:"
"""What the place of a listing of projects begins with, once it goes on with those of all repositories."""

_PLACE = re.compile(r"(branches|tags):(\d{1,18})")


class Listing(msgspec.Struct, frozen=True):
    """The envelope of a page; `size` is that of the page, so of no use."""

    values: list[msgspec.Raw]
    isLastPage: bool | None = None  # noqa: N815 - as the server writes it
    nextPageStart: int | None = None  # noqa: N815
    start: int = 0


class DataCenter:
    """A Bitbucket Data Center or Server."""

    orders_by_update = False

    def __init__(self, name: str, http: Http, projects: Iterable[str] = ()) -> None:
        self.name = name
        self.anonymous = http.credential.form == "anonymous"
        self._http = http
        self._projects = tuple(projects)
        self._lengths = dict[str, int]()
        self._shown = dict[str, bool]()

    def fetch_caller(self) -> Caller:
        """Ask for one user, which only somebody may; who we are is nowhere to be asked.

        A token of a project may not, since nobody stands behind it: it is judged by what it is shown.
        """
        if not self.anonymous:
            try:
                self._http.get("users?limit=1")
            except CredentialsRefused as error:
                raise CredentialsRefused(f"the upstream takes us for nobody: {error}") from None
            except UpstreamRefused as error:
                if error.status == 401 and not self._sees_more_than_strangers():
                    raise CredentialsRefused(f"the upstream takes us for nobody: {error}") from None
        return Caller(user=None)

    def _sees_more_than_strangers(self) -> bool:
        """Tell whether the server names us, or shows a project or a repository that is not public."""
        paths = [f"projects/{segment(key)}" for key in self._projects[:JUDGED_BY]]
        for path in (*paths, "repos?visibility=private&limit=1"):
            try:
                seen, answer = self._http.get_json(path, shapes.Visible)
            except (UpstreamRefused, UpstreamShapeError):
                continue
            if answer.headers.get("x-ausername", "anonymous") != "anonymous" or seen.is_hidden:
                return True
        return False

    def fetch_workspaces(self, place: str | None) -> Page[Owner]:
        """Ask for the projects that the caller can see, then for those of all repositories.

        The listing of projects leaves out personal ones, which only their repositories name.
        """
        if place is None or not place.startswith(_ALL):
            page = self._page("projects", place, _TO_PROJECT)
            return page if page.place else _moved(page, f"{_ALL}0")
        try:
            page = self._page("repos", place.removeprefix(_ALL), _TO_OWNED)
        except UpstreamRefused as error:
            note = f"personal projects are not mirrored unless `workspaces` names them: {error}"
            return Page(rows=(), place=None, size=None, date=self._http.clock(), note=note)
        owners = tuple({owner.uuid: owner for owner in page.rows}.values())
        onward = f"{_ALL}{page.place}" if page.place else None
        return msgspec.structs.replace(page, rows=owners, place=onward)

    def fetch_workspace(self, workspace: str) -> Owner:
        """Ask for one project by its key, ``~name`` for a personal one."""
        project, _ = self._http.get_json(f"projects/{segment(workspace)}", shapes.Project)
        return shapes.shape_project(project)

    def fetch_members(self, workspace: str, place: str | None) -> Page[Member]:
        """Ask for the people with rights on a project, which its administrators may."""
        return self._page(f"projects/{segment(workspace)}/permissions/users", place, _TO_MEMBER)

    def fetch_repositories(self, workspace: str, order: Order, place: str | None) -> Page[Repository]:  # noqa: ARG002
        """Ask for a project's repositories, in the server's own order.

        Once in a listing, one that is flagged as public is asked for without credential.
        """
        page = self._page(f"projects/{segment(workspace)}/repos", place, _TO_REPOSITORY)
        if place is None:
            self._shown.pop(workspace, None)
        public = next((row for row in page.rows if not row.is_private), None)
        if public is None or self.anonymous:
            return page
        if workspace not in self._shown:
            self._shown[workspace] = self._is_shown_to_strangers(public)
        if self._shown[workspace]:
            return page
        return msgspec.structs.replace(page, rows=tuple(map(closed, page.rows)))

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Ask for one repository by its name, the only way.

        Raises UpstreamRefused with 404 where that name belongs to another one by now.
        """
        row, answer = self._http.get_json(_path(key), shapes.RepositoryRow)
        found = shapes.shape_repository(row)
        if found.uuid != key.uuid:
            raise UpstreamRefused(
                f"{answer.url}: {key.full_name} is {found.uuid} now, no longer {key.uuid}",
                status=404,
            )
        return self._checked(found)

    def _checked(self, found: Repository) -> Repository:
        """Return a repository as private unless strangers see it."""
        if found.is_private or self.anonymous or self._is_shown_to_strangers(found):
            return found
        return closed(found)

    def _is_shown_to_strangers(self, flagged: Repository) -> bool:
        """Ask for a repository without credential; whatever is not its own row is a refusal.

        Raises UpstreamBusy where nothing is answered, or 429.
        """
        key = RepositoryKey(uuid=flagged.uuid, full_name=flagged.full_name)
        try:
            row, _ = self._http.get_json(_path(key), shapes.RepositoryRow, attempts=2, as_stranger=True)
        except (UpstreamRefused, UpstreamShapeError):
            return False
        except UpstreamBusy as error:
            if error.status is None or error.status == 429:
                raise
            return False
        return shapes.shape_repository(row).uuid == flagged.uuid

    def fetch_refs(self, key: RepositoryKey, place: str | None) -> Page[Ref]:
        """Ask for a page of branches, and after the last of them for one of tags."""
        found = _PLACE.fullmatch(place or "branches:0")
        if found is None:
            raise UpstreamShapeError(f"{place!r} is no place in a listing of refs")
        if found[1] == "tags":
            page = self._page(f"{_path(key)}/tags", found[2], _TO_TAG)
            return _moved(page, f"tags:{page.place}" if page.place else None)
        page = self._page(
            f"{_path(key)}/branches", found[2], _TO_BRANCH, "&details=true&orderBy=ALPHABETICAL"
        )
        return _moved(page, f"branches:{page.place}" if page.place else "tags:0")

    def fetch_main_branch(self, key: RepositoryKey) -> str | None:
        """Ask for the default branch; an empty repository has none, which is told as 204 or as 404."""
        try:
            answer = self._http.get(f"{_path(key)}/default-branch")
        except UpstreamRefused as error:
            if error.status == 404:
                return None
            raise
        if answer.status == 204 or not answer.body:
            return None
        return shapes.shape_branch(self._http.decoded(answer, shapes.RefRow)).name

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _page(self, path: str, start: str | None, rows: Rows[Row], more: str = "") -> Page[Row]:
        """Ask for a page from a start on, and shape its rows."""
        listing, answer = self._ask(path, f"&start={start or 0}{more}")
        good, bad = rows.read(listing.values)
        return Page(
            rows=good,
            place=_onward(listing, int(start or 0), answer.url),
            size=None,
            date=answer.date,
            bad=bad,
        )

    def _ask(self, path: str, more: str) -> tuple[Listing, Answer]:
        """Ask for a page; one that is too large or takes too long is asked for with fewer rows.

        Later pages of the same listing are twice as long each, until one fails again.
        """
        while (length := self._lengths.get(path, PAGE_LENGTH)) > 1:
            try:
                found = self._http.get_json(f"{path}?limit={length}{more}", Listing, attempts=2)
            except LargeAnswer:
                self._lengths[path] = length // SHRINKS_BY
            except UpstreamBusy as error:
                if isinstance(error, Unsent) or error.status == 429:
                    break
                self._lengths[path] = length // SHRINKS_BY
            else:
                self._lengths.pop(path, None)
                if 2 * length < PAGE_LENGTH:
                    self._lengths[path] = 2 * length
                return found
        return self._http.get_json(f"{path}?limit={length}{more}", Listing)


def closed(row: Repository) -> Repository:
    """Return a repository as private."""
    return msgspec.structs.replace(row, is_private=True)


def _path(key: RepositoryKey) -> str:
    return f"projects/{segment(key.workspace)}/repos/{segment(key.slug)}"


def _moved(page: Page[Row], place: str | None) -> Page[Row]:
    return msgspec.structs.replace(page, place=place)


def _onward(listing: Listing, start: int, url: str) -> str | None:
    """Return the start of the next page; raises UpstreamShapeError where it leads nowhere.

    A page with rows that calls itself the last and names a next one all the same is not believed to be it.
    """
    onward = listing.nextPageStart
    is_last = listing.isLastPage and (onward is None or onward <= start or not listing.values)
    if is_last or (listing.isLastPage is None and onward is None):
        return None
    if onward is None or onward <= start:
        raise UpstreamShapeError(f"{url}: not the last page, but the next one is said to start at {onward}")
    return str(onward)


class WritableDataCenter(DataCenter):
    """A Bitbucket Data Center, for those who may write to it."""

    knows_hg = False
    never_tells = frozenset({"website", "language", "has_issues", "has_wiki"})

    def find_repository(self, full_name: str) -> Repository:
        """Ask for the repository that has this name now."""
        row, _ = self._http.get_json(_path_of(full_name), shapes.RepositoryRow)
        return self._checked(shapes.shape_repository(row))

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """POST to the project; the server makes the slug of the name."""
        body = {"name": slug, "scmId": "git", **_body(settings)}
        return self._shaped(self._http.post(f"projects/{segment(owner)}/repos", body))

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """PUT what is to change."""
        return self._shaped(self._http.put(_path_of(key.full_name), _body(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE it; the server answers 202 and removes the files later."""
        self._http.delete(_path_of(key.full_name))

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """POST to the repository, naming the project."""
        body = {**_body(settings), "project": {"key": owner}}
        body.pop("scmId", None)  # a fork is what its parent is
        return self._shaped(self._http.post(_path_of(key.full_name), body))

    def _shaped(self, answer: Answer) -> Repository:
        """Shape what was written; it is done, so where nobody tells who may see it, it counts as private."""
        made = shapes.shape_repository(self._http.decoded(answer, shapes.RepositoryRow))
        try:
            return self._checked(made)
        except (UpstreamError, Paused):
            return closed(made)


def _path_of(full_name: str) -> str:
    project, _, slug = full_name.partition("/")
    return f"projects/{segment(project)}/repos/{segment(slug)}"


def _body(settings: RepositorySettings) -> dict[str, Any]:
    """Write settings as Data Center names them; raises UpstreamRefused for what it cannot express."""
    body: dict[str, Any] = settings.given("name", "description")
    if settings.scm is not None:
        body["scmId"] = settings.scm
    if settings.is_private is not None:
        body["public"] = not settings.is_private
    if settings.fork_policy == "no_public_forks":
        raise UpstreamRefused("fork_policy: Data Center has allow_forks and no_forks alone", status=400)
    if settings.fork_policy is not None:
        body["forkable"] = settings.fork_policy == "allow_forks"
    return body
