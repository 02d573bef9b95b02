"""Bitbucket Data Center's (once Server's) REST API as an upstream: projects take the part of workspaces.

Identities are numbers, written ``id:N``; people, who are numbered apart from projects, are ``user:N``. The
API tells no dates of repositories, so every listing is a full one. Its pages go by `start`, and the next
start is the one that the server names: rows that the caller may not see leave gaps in the numbers.
"""

import re
from typing import TypeVar

import msgspec

from mirror.errors import CredentialsRefused, UpstreamRefused, UpstreamShapeError
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey
from mirror.upstream import datacenter_shapes as shapes
from mirror.upstream.addresses import segment
from mirror.upstream.base import Caller, Order, Page
from mirror.upstream.http import Http
from mirror.upstream.listing import Rows

Row = TypeVar("Row")

PAGE_LENGTH = 1000  # the server gives less if it likes to

_TO_PROJECT = Rows(shapes.Project, shapes.shape_project)
_TO_REPOSITORY = Rows(shapes.RepositoryRow, shapes.shape_repository)
_TO_MEMBER = Rows(shapes.PermissionRow, shapes.shape_member)
_TO_BRANCH = Rows(shapes.RefRow, shapes.shape_branch)
_TO_TAG = Rows(shapes.RefRow, shapes.shape_tag)

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

    def __init__(self, name: str, http: Http) -> None:
        self.name = name
        self.anonymous = http.credential.form == "anonymous"
        self._http = http

    def fetch_caller(self) -> Caller:
        """Ask for one user, which only somebody may; who we are is nowhere to be asked."""
        if not self.anonymous:
            try:
                self._http.get("users?limit=1")
            except CredentialsRefused as error:
                raise CredentialsRefused(f"the upstream takes us for nobody: {error}") from None
            except UpstreamRefused as error:
                if error.status == 401:
                    raise CredentialsRefused(f"the upstream takes us for nobody: {error}") from None
        return Caller(user=None)

    def fetch_workspaces(self, place: str | None) -> Page[Owner]:
        """Ask for the projects that the caller can see; servers may leave out personal ones."""
        return self._page("projects", place, _TO_PROJECT)

    def fetch_workspace(self, workspace: str) -> Owner:
        """Ask for one project by its key, ``~name`` for a personal one."""
        project, _ = self._http.get_json(f"projects/{segment(workspace)}", shapes.Project)
        return shapes.shape_project(project)

    def fetch_members(self, workspace: str, place: str | None) -> Page[Member]:
        """Ask for the people with rights on a project, which its administrators may."""
        return self._page(f"projects/{segment(workspace)}/permissions/users", place, _TO_MEMBER)

    def fetch_repositories(self, workspace: str, order: Order, place: str | None) -> Page[Repository]:  # noqa: ARG002
        """Ask for a project's repositories, in the server's own order."""
        return self._page(f"projects/{segment(workspace)}/repos", place, _TO_REPOSITORY)

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
        return found

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
        listing, answer = self._http.get_json(f"{path}?limit={PAGE_LENGTH}&start={start or 0}{more}", Listing)
        good, bad = rows.read(listing.values)
        return Page(
            rows=good,
            place=_onward(listing, int(start or 0), answer.url),
            size=None,
            date=answer.date,
            bad=bad,
        )


def _path(key: RepositoryKey) -> str:
    return f"projects/{segment(key.workspace)}/repos/{segment(key.slug)}"


def _moved(page: Page[Row], place: str | None) -> Page[Row]:
    return msgspec.structs.replace(page, place=place)


def _onward(listing: Listing, start: int, url: str) -> str | None:
    """Return the start of the next page; raises UpstreamShapeError where it leads nowhere."""
    onward = listing.nextPageStart
    if listing.isLastPage or (listing.isLastPage is None and onward is None):
        return None
    if onward is None or onward <= start:
        raise UpstreamShapeError(f"{url}: not the last page, but the next one is said to start at {onward}")
    return str(onward)
