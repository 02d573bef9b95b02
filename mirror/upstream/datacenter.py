"""The REST API of Bitbucket Data Center (formerly Server) as an upstream: its projects are the workspaces.

Identities are numbers: ``id:N`` for projects and repositories, ``user:N`` for people. Repositories have no
dates, so every listing is a full one. Pages begin at a `start`; the server names that of the next page, since
rows that are hidden from the caller leave gaps.

A repository that is flagged as public counts as public only if an anonymous request can read it: the flags
stay when public access is switched off.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from mirror.addresses import PERSONAL, segment
from mirror.errors import (
    CredentialsRefused,
    MirrorError,
    NameReused,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey, RepositorySettings
from mirror.upstream import datacenter_decode as decode
from mirror.upstream.client import Http, HttpUpstream, LargeAnswer
from mirror.upstream.git import GitRefs
from mirror.upstream.protocol import SHRINKS_BY, BadRow, ListingOrder, Page, RowDecoder, is_reached
from mirror.upstream.response import NotSent, Response

Row = TypeVar("Row")

PAGE_LENGTH = 1000  # a server may allow less
JUDGED_BY = 5  # how many projects are requested at most to find out whether a credential is valid
MOST_PROBES = 3  # anonymous requests at most, to find out whether public repositories are shown to strangers

_TO_PROJECT = RowDecoder(decode.ProjectJson, decode.to_project)
_TO_REPOSITORY = RowDecoder(decode.RepositoryJson, decode.to_repository)
_TO_MEMBER = RowDecoder(decode.PermissionJson, decode.to_member)
_TO_BRANCH = RowDecoder(decode.RefJson, decode.to_branch)
_TO_TAG = RowDecoder(decode.RefJson, decode.to_tag)

# The prefix of a cursor of the projects that own the repositories, which are listed after the projects.
_ALL = "repos:"

_REFS_CURSOR = re.compile(r"(branches|tags):(\d{1,18})")


class _Envelope(msgspec.Struct, frozen=True):
    """The envelope of a page; its `size` is that of the page, so it is not used."""

    values: list[msgspec.Raw]
    isLastPage: bool | None = None  # noqa: N815 - as the server writes it
    nextPageStart: int | None = None  # noqa: N815
    start: int = 0


class DataCenter(HttpUpstream):
    """A Bitbucket Data Center or Server; with `git`, refs are read by git.

    `projects` are the configured ones; they show whether a credential is valid that may not list users.
    """

    orders_by_update = False
    knows_hg = False
    knows_names_only = True
    never_tells = frozenset({"website", "language", "has_issues", "has_wiki"})

    def __init__(self, name: str, http: Http, git: GitRefs | None, *, projects: Iterable[str]) -> None:
        super().__init__(name, http, git)
        self._projects = tuple(projects)
        self._lengths = dict[str, int]()
        self._shown = dict[str, bool]()
        self._owners = dict[str, Member | None]()

    def fetch_current_user(self) -> Owner | None:
        """Return None: no request shows who the credential belongs to.

        One user is requested, which only a known caller may do. Raises CredentialsRefused if the server
        refuses the credential or treats it as anonymous. A token of a project may not list
        users; then it counts as valid if it can read more than an anonymous caller.
        """
        if not self.anonymous:
            try:
                self._http.get("users?limit=1")
            except UpstreamRefused as error:
                if error.status == 401 and not self._sees_more_than_anonymous():
                    raise CredentialsRefused(f"the upstream treats us as anonymous: {error}") from None
        return None

    def fetch_workspaces(self, cursor: str | None) -> Page[Owner]:
        """Request the projects that the caller can see, then those that own a repository.

        The listing of projects leaves out personal ones, which only their repositories name.
        """
        if cursor is None or not cursor.startswith(_ALL):
            page = self._page("projects", cursor, _TO_PROJECT)
            return page if page.next else _with_next(page, f"{_ALL}0")
        try:
            owned = self._page("repos", cursor.removeprefix(_ALL), _TO_REPOSITORY, "&archived=ALL")
        except UpstreamRefused as error:
            note = f"personal projects are not mirrored unless `workspaces` names them: {error}"
            return Page(rows=(), next=None, size=None, date=self._http.clock(), note=note)
        except UpstreamBusy as error:
            if error.status is None or error.status == 429:
                raise
            # The projects that are known are mirrored; the list is asked for again.
            unread = BadRow(what="personal projects", error=str(error))
            return Page(rows=(), next=None, size=None, date=self._http.clock(), bad=(unread,))
        return Page(
            rows=tuple({row.owner.uuid: row.owner for row in owned.rows}.values()),
            next=f"{_ALL}{owned.next}" if owned.next else None,
            size=None,
            date=owned.date,
            bad=owned.bad,
            told=tuple(row.uuid for row in owned.rows),
        )

    def fetch_workspace(self, workspace: str) -> Owner:
        """Request one project by its key, ``~name`` for a personal one."""
        project, _ = self._http.get_json(f"projects/{segment(workspace)}", decode.ProjectJson)
        self._owners[workspace] = decode.to_owning_member(project)
        return decode.to_project(project)

    def fetch_members(self, workspace: str, cursor: str | None) -> Page[Member]:
        """Request the people with rights on a project; only its administrators may do so.

        The owner of a personal project is not among them: the project tells who that is. If an earlier run
        has requested it, it is requested again.
        """
        if workspace.startswith(PERSONAL) and workspace not in self._owners:
            self.fetch_workspace(workspace)
        page = self._page(f"projects/{segment(workspace)}/permissions/users", cursor, _TO_MEMBER)
        owner = self._owners.get(workspace)
        if owner is None:
            return page
        others = (row for row in page.rows if row.user.uuid != owner.user.uuid)
        return msgspec.structs.replace(page, rows=(*others, owner))

    def fetch_repositories(self, workspace: str, order: ListingOrder, cursor: str | None) -> Page[Repository]:  # noqa: ARG002
        """Request the repositories of a project, in the server's own order.

        Once in each listing, one that is flagged as public is requested anonymously, and others if it is
        refused: it may have another name since the page, or be broken.
        """
        page = self._page(f"projects/{segment(workspace)}/repos", cursor, _TO_REPOSITORY)
        if cursor is None:
            self._shown.pop(workspace, None)
        public = [row for row in page.rows if not row.is_private]
        if not public or self.anonymous:
            return page
        if workspace not in self._shown:
            self._shown[workspace] = self._are_shown_to_anonymous(*public[:MOST_PROBES])
        if self._shown[workspace]:
            return page
        return msgspec.structs.replace(page, rows=tuple(map(as_private, page.rows)))

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Request one repository by its name; there is no other way.

        Raises NameReused, with 404, if the name belongs to another repository by now.
        """
        row, answer = self._http.get_json(_path_of(key.full_name), decode.RepositoryJson)
        found = decode.to_repository(row)
        if found.uuid != key.uuid:
            raise NameReused(
                f"{answer.url}: {key.full_name} is {found.uuid} now, no longer {key.uuid}",
                status=404,
            )
        return self._checked(found)

    def find_repository(self, full_name: str) -> Repository:
        """Request the repository that has this name now."""
        row, _ = self._http.get_json(_path_of(full_name), decode.RepositoryJson)
        return self._checked(decode.to_repository(row))

    def fetch_refs(self, key: RepositoryKey, cursor: str | None) -> Page[Ref]:
        """Request a page of branches; after the last one, the tags."""
        if self._git and cursor is None and key.scm != "hg":
            return self._git.fetch_refs(key)
        found = _REFS_CURSOR.fullmatch(cursor or "branches:0")
        if found is None:
            raise UpstreamShapeError(f"{cursor!r} is not a cursor of a listing of refs")
        if found[1] == "tags":
            page = self._page(f"{_path_of(key.full_name)}/tags", found[2], _TO_TAG)
            return _with_next(page, f"tags:{page.next}" if page.next else None)
        page = self._page(
            f"{_path_of(key.full_name)}/branches", found[2], _TO_BRANCH, "&details=true&orderBy=ALPHABETICAL"
        )
        return _with_next(page, f"branches:{page.next}" if page.next else "tags:0")

    def is_ancestor(self, key: RepositoryKey, commit: str, of: str) -> bool | None:
        """Request the commits that lead to `commit` but not to `of`: none, if it is an ancestor."""
        query = urlencode({"until": commit, "since": of, "limit": "1"})
        path = f"{_path_of(key.full_name)}/commits?{query}"
        found, _ = self._http.get_json(path, decode.CommitsJson, attempts=2)
        return is_reached(commit, [one.id for one in found.values], more=found.is_last_page is False)

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """POST to the project; the server derives the slug from the name."""
        body = {"name": slug, "scmId": "git", **_body(settings)}
        return self._written(self._http.post(f"projects/{segment(owner)}/repos", body))

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """PUT the settings to change."""
        return self._written(self._http.put(_path_of(key.full_name), _body(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE the repository; the server answers 202 and removes the files later."""
        self._http.delete(_path_of(key.full_name))

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """POST to the repository, with the project in the body."""
        body = {**_body(settings), "project": {"key": owner}}
        body.pop("scmId", None)  # a fork has the same kind as its parent
        return self._written(self._http.post(_path_of(key.full_name), body))

    def _sees_more_than_anonymous(self) -> bool:
        """Return whether the server names us, or shows a project or a repository that is not public."""
        paths = [f"projects/{segment(key)}" for key in self._projects[:JUDGED_BY]]
        for path in (*paths, "repos?visibility=private&limit=1"):
            try:
                seen, answer = self._http.get_json(path, decode.Visible)
            except (UpstreamRefused, UpstreamShapeError):
                continue
            if answer.headers.get("x-ausername", "anonymous") != "anonymous" or seen.is_hidden:
                return True
        return False

    def _checked(self, found: Repository) -> Repository:
        """Return a repository, as private unless anonymous callers can read it."""
        if found.is_private or self.anonymous or self._are_shown_to_anonymous(found):
            return found
        return as_private(found)

    def _are_shown_to_anonymous(self, *flagged: Repository) -> bool:
        """Request some repositories of one project anonymously, until one is shown.

        If all answers are 5xx, either these repositories are broken, then the list of the project decides; or
        the server went down, which says nothing of them. Raises UpstreamBusy then, and if there is no answer.
        """
        answers = list[bool | None]()
        for row in flagged:
            answers.append(self._is_shown_to_anonymous(row))
            if answers[-1]:
                return True
        if False in answers:
            return False
        path = f"projects/{segment(flagged[0].key.workspace)}/repos?limit=100"
        try:
            listing, _ = self._http.get_json(path, _Envelope, attempts=2, anonymously=True)
        except (UpstreamRefused, UpstreamShapeError):
            return False
        except UpstreamBusy:
            self._http.get_json(path, _Envelope, attempts=2)  # raises, unless only strangers get a 5xx
            return False
        return bool(listing.values)

    def _is_shown_to_anonymous(self, flagged: Repository) -> bool | None:
        """Request a repository anonymously; any answer but its own row is a refusal, or (None) a 5xx.

        Raises UpstreamBusy if there is no answer, or 429.
        """
        path = _path_of(flagged.full_name)
        try:
            row, _ = self._http.get_json(path, decode.RepositoryJson, attempts=2, anonymously=True)
        except (UpstreamRefused, UpstreamShapeError):
            return False
        except UpstreamBusy as error:
            if error.status is None or error.status == 429:  # nothing is known of its visibility
                raise
            return None
        return decode.to_repository(row).uuid == flagged.uuid

    def _written(self, answer: Response) -> Repository:
        """Decode the written repository; it counts as private if its visibility cannot be checked."""
        made = decode.to_repository(self._http.decoded(answer, decode.RepositoryJson))
        try:
            return self._checked(made)
        except MirrorError:
            return as_private(made)

    def _page(self, path: str, start: str | None, rows: RowDecoder[Row], more: str = "") -> Page[Row]:
        """Request a page that begins at `start`, and decode its rows."""
        listing, answer = self._ask(path, f"&start={start or 0}{more}")
        good, bad = rows.decode(listing.values, redact=self._http.redacted)
        return Page(
            rows=good,
            next=_onward(listing, int(start or 0), answer.url),
            size=None,
            date=answer.date,
            bad=bad,
            doubt=answer.doubt,
        )

    def _ask(self, path: str, more: str) -> tuple[_Envelope, Response]:
        """Request a page; if it is too large or too slow, request fewer rows.

        The length of later pages of the same listing doubles each time, until one fails again.
        """
        while (length := self._lengths.get(path, PAGE_LENGTH)) > 1:
            try:
                found = self._http.get_json(f"{path}?limit={length}{more}", _Envelope, attempts=2)
            except LargeAnswer:
                self._lengths[path] = max(1, length // SHRINKS_BY)
            except UpstreamBusy as error:
                if isinstance(error, NotSent) or error.status == 429:
                    break  # fewer rows would not help
                self._lengths[path] = max(1, length // SHRINKS_BY)
            else:
                self._lengths.pop(path, None)
                if 2 * length < PAGE_LENGTH:
                    self._lengths[path] = 2 * length
                return found
        return self._http.get_json(f"{path}?limit={length}{more}", _Envelope)


def as_private(row: Repository) -> Repository:
    """Return a repository as private."""
    return msgspec.structs.replace(row, is_private=True)


def _with_next(page: Page[Row], cursor: str | None) -> Page[Row]:
    return msgspec.structs.replace(page, next=cursor)


def _onward(listing: _Envelope, start: int, url: str) -> str | None:
    """Return the start of the next page; raises UpstreamShapeError if it is not after this one.

    A page with rows that claims to be the last, but names a next page, is not the last. One that says nothing
    of either may have anything behind it.
    """
    onward = listing.nextPageStart
    if listing.isLastPage and (onward is None or onward <= start or not listing.values):
        return None
    if listing.isLastPage is None and onward is None:
        raise UpstreamShapeError(f"{url}: the page does not say whether it is the last; is `kind` right?")
    if onward is None or onward <= start:
        raise UpstreamShapeError(f"{url}: not the last page, but the next one is said to start at {onward}")
    return str(onward)


def _path_of(full_name: str) -> str:
    project, _, slug = full_name.partition("/")
    return f"projects/{segment(project)}/repos/{segment(slug)}"


def _body(settings: RepositorySettings) -> dict[str, Any]:
    """Return settings under the names of Data Center; raises UpstreamRefused for one that it lacks.

    One that is empty or off is as good as lacking.
    """
    lacking = sorted(name for name, value in settings.given(*DataCenter.never_tells).items() if value)
    if lacking:
        why = "Data Center has no such setting"
        raise UpstreamRefused(
            f"{', '.join(lacking)}: {why}", status=400, fields=dict.fromkeys(lacking, f"{why}.")
        )
    body: dict[str, Any] = settings.given("name", "description")
    if settings.scm is not None:
        body["scmId"] = settings.scm
    if settings.is_private is not None:
        body["public"] = not settings.is_private
    if settings.fork_policy == "no_public_forks":
        raise UpstreamRefused("fork_policy: Data Center has only allow_forks and no_forks", status=400)
    if settings.fork_policy is not None:
        body["forkable"] = settings.fork_policy == "allow_forks"
    return body
