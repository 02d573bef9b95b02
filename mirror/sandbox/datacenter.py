"""The REST API of Bitbucket Data Center. Each workspace is a project, and every repository is a git one."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

from mirror.sandbox.exchange import HttpError, Request, SandboxResponse, json_response
from mirror.sandbox.model import Person, Principal, SandboxRef, SandboxRepository, SandboxWorkspace
from mirror.sandbox.world import World

Json = dict[str, Any]

_LATEST = "com.atlassian.bitbucket.server.bitbucket-branch:latest-commit-metadata"


def key_of(workspace: SandboxWorkspace) -> str:
    """Return the key of a project; that of a personal project begins with a tilde."""
    return f"~{workspace.slug.upper()}" if workspace.owner is not None else workspace.slug.upper()


class DataCenterShapes:
    """Shapes objects for one caller, with links to the host that the client used."""

    def __init__(self, world: World, origin: str, caller: Principal) -> None:
        self._world = world
        self._origin = origin
        self._caller = caller

    def project(self, workspace: SandboxWorkspace) -> Json:
        """Return a project. A personal one has an owner and no `public`."""
        key = key_of(workspace)
        shaped: Json = {"key": key, "id": workspace.number + 1, "name": workspace.name}
        if workspace.owner is None:
            shaped |= {"type": "NORMAL", "public": True, "description": f"Everything of {workspace.name}"}
        else:
            shaped |= {"type": "PERSONAL", "owner": self.user(workspace.owner)}
        shaped["links"] = {"self": [{"href": f"{self._origin}/projects/{key}"}]}
        return shaped

    def repository(self, row: SandboxRepository, *, nested: bool = False) -> Json:
        """Return a repository; `description`, `archived` and `origin` may be missing."""
        key = key_of(row.workspace)
        shaped: Json = {
            "slug": row.slug,
            "id": row.number + 1,
            "name": row.name,
            "hierarchyId": row.uuid.replace("-", "")[1:21],
            "scmId": "git",
            "state": "AVAILABLE",
            "statusMessage": "Available",
            "forkable": row.fork_policy == "allow_forks",
            "project": self.project(row.workspace),
            "public": not row.is_private,
            "links": {
                "clone": self._clone_links(key, row.slug),
                "self": [{"href": f"{self._origin}/projects/{key}/repos/{row.slug}/browse"}],
            },
        }
        if row.description:
            shaped["description"] = row.description
        if row.archived or row.number % 3:
            shaped["archived"] = row.archived
        parent = None if row.parent is None or nested else self._world.get(row.parent)
        if parent is not None and self._world.can_see(self._caller, parent):
            shaped["origin"] = self.repository(parent, nested=True)
        return shaped

    def ref(self, row: SandboxRepository, ref: SandboxRef, *, details: bool = False) -> Json:
        """Return a branch or a tag. The `hash` of a tag is that of its annotation, or null."""
        shaped: Json = {
            "id": ref.path,
            "displayId": ref.name,
            "type": ref.kind.upper(),
            "latestCommit": ref.target,
            "latestChangeset": ref.target,
        }
        if ref.kind == "branch":
            shaped["isDefault"] = ref.name == row.main_branch
            if details:
                shaped["metadata"] = {_LATEST: self._commit(ref)}
        else:
            shaped["hash"] = ref.annotation.object_id if ref.annotation is not None else None
        return shaped

    def user(self, person: Person) -> Json:
        """Return a person."""
        return {
            "name": person.username,
            "emailAddress": f"{person.username}@example.com",
            "id": person.number + 1,
            "displayName": person.display_name,
            "active": True,
            "slug": person.username.lower(),
            "type": "NORMAL",
            "links": {"self": [{"href": f"{self._origin}/users/{person.username.lower()}"}]},
        }

    def _commit(self, ref: SandboxRef) -> Json:
        name, _, address = ref.author.raw.partition(" <")
        return {
            "id": ref.target,
            "displayId": ref.target[:11],
            "author": {"name": name, "emailAddress": address.rstrip(">")},
            "authorTimestamp": ref.date // 1000,
            "committerTimestamp": ref.date // 1000,
            "message": ref.message,
            "parents": [{"id": parent, "displayId": parent[:11]} for parent in ref.parents],
        }

    def _clone_links(self, key: str, slug: str) -> list[Json]:
        scheme, _, host = self._origin.partition("://")
        login = f"{self._caller.name}@" if self._caller.name else ""
        path = f"{key.lower()}/{slug}.git"
        return [
            {"href": f"{scheme}://{login}{host}/scm/{path}", "name": "http"},
            {"href": f"ssh://git@{host.partition(':')[0]}:7999/{path}", "name": "ssh"},
        ]


T = TypeVar("T")

PREFIXES = ("/rest/api/1.0/", "/rest/api/latest/")
_DEFAULT_LIMIT = 25
_MOST = 100
_GAP = 7


def http_error(status: int, message: str, exception: str | None = None) -> HttpError:
    """Return an error in the form of Data Center."""
    name = f"com.atlassian.bitbucket.{exception}" if exception else None
    return HttpError(
        json_response({"errors": [{"context": None, "message": message, "exceptionName": name}]}, status)
    )


def bad_credentials() -> SandboxResponse:
    """Return the 401 for wrong credentials."""
    message = "Authentication failed. Please check your credentials and try again."
    return http_error(401, message, "auth.IncorrectPasswordAuthenticationException").answer


def busy(seconds: int) -> SandboxResponse:
    """Return the 429 of the token bucket, with the seconds until the next token."""
    answer = http_error(429, "You have exceeded the rate limit. Try again later.").answer
    answer.headers["Retry-After"] = str(seconds)
    return answer


def kind_of(segments: list[str]) -> str:
    """Return the kind of endpoint of a path."""
    match segments:
        case ["repos"] | ["projects", _, "repos"]:
            return "listing"
        case ["projects"] | ["projects", _]:
            return "workspace"
        case ["projects", _, "repos", _]:
            return "repository"
        case ["projects", _, "repos", _, "branches" | "tags" | "default-branch", *_]:
            return "refs"
        case ["users", *_]:
            return "members"
        case _:
            return "other"


class SandboxDataCenter:
    """Answers the requests of one caller."""

    def __init__(self, world: World, request: Request, caller: Principal) -> None:
        self._world = world
        self._caller = caller
        self._method = request.method
        self._parameters = request.parameters
        self._shapes = DataCenterShapes(world, request.origin, caller)

    def answer(self, segments: list[str]) -> SandboxResponse:
        """Answer the request for a path below /rest/api/1.0/."""
        if self._method not in {"GET", "HEAD"}:
            raise http_error(405, "Method Not Allowed")
        return json_response(self._get(segments))

    def _get(self, segments: list[str]) -> Any:  # noqa: C901, PLR0911, PLR0912 - a table of routes
        match segments:
            case ["application-properties"]:
                return {"version": "8.19.1", "buildNumber": "8019001", "displayName": "Bitbucket"}
            case ["projects"]:
                return self._page(self._world.workspaces, self._shapes.project)
            case ["projects", key]:
                return self._shapes.project(self._project(key))
            case ["projects", key, "repos"]:
                return self._repositories([self._project(key)])
            case ["repos"]:
                return self._repositories(self._named_projects(), "ACTIVE")
            case ["projects", key, "repos", slug]:
                return self._shapes.repository(self._repository(key, slug))
            case ["projects", key, "repos", slug, "branches"]:
                return self._refs(self._repository(key, slug), "branch")
            case ["projects", key, "repos", slug, "commits"]:
                return self._commits(self._repository(key, slug))
            case ["projects", key, "repos", slug, "tags"]:
                return self._refs(self._repository(key, slug), "tag")
            case ["projects", key, "repos", slug, "default-branch"] | [
                "projects", key, "repos", slug, "branches", "default",
            ]:  # fmt: skip
                return self._default_branch(self._repository(key, slug))
            case ["users"]:
                return self._users()
            case ["users", slug]:
                return self._user(slug)
            case _:
                raise http_error(404, "The requested resource does not exist")

    def _project(self, key: str) -> SandboxWorkspace:
        found = self._world.workspace(key.removeprefix("~"))
        if found is None or key_of(found).lower() != key.lower():
            raise http_error(404, f"Project {key} does not exist.", "project.NoSuchProjectException")
        return found

    def _repository(self, key: str, slug: str) -> SandboxRepository:
        project = self._project(key)
        row = self._world.find(project.slug, slug)
        if row is None or slug.startswith("{"):
            message = f"Repository {key}/{slug} does not exist."
            raise http_error(404, message, "repository.NoSuchRepositoryException")
        if not self._world.can_see(self._caller, row):
            message = "You are not permitted to access this resource"
            raise http_error(401, message, "AuthorisationException")
        return row

    def _named_projects(self) -> list[SandboxWorkspace]:
        name = self._parameters.get("projectname", "").strip().lower()
        key = self._parameters.get("projectkey", "").strip().lower()
        return [
            each
            for each in self._world.workspaces
            if name in each.name.lower() and (not key or key_of(each).lower() == key)
        ]

    def _repositories(self, projects: Iterable[SandboxWorkspace], default_archived: str = "ALL") -> Any:
        orders = [self._world.order(each, "created_on", self._caller) for each in projects]
        name = self._parameters.get("name", "").strip().lower()
        visibility = self._parameters.get("visibility")
        of_all = self._parameters.get("archived", default_archived).upper()
        archived = {"ARCHIVED": True, "ACTIVE": False}.get(of_all)
        numbers = (number for order in orders for number in order)
        if not name and visibility is None and archived is None:
            start, limit = self._start_and_limit()
            first = _item(start)
            chosen = [
                row for number in islice(numbers, first, first + limit) if (row := self._world.get(number))
            ]
            return self._envelope(chosen, self._shapes.repository, sum(len(order) for order in orders))
        rows = [
            row
            for number in numbers
            if (row := self._world.get(number)) is not None
            and name in row.name.lower()
            and visibility in {None, "private" if row.is_private else "public"}
            and archived in {None, row.archived}
        ]
        return self._page(rows, self._shapes.repository)

    def _refs(self, row: SandboxRepository, kind: str) -> Any:
        wanted = self._parameters.get("filterText", "").lower()
        refs = [ref for ref in git_refs(self._world, row) if ref.kind == kind and wanted in ref.name.lower()]
        if self._parameters.get("orderBy") == "MODIFICATION":
            refs.sort(key=lambda ref: -ref.date)
        details = self._parameters.get("details") == "true"
        return self._page(refs, lambda ref: self._shapes.ref(row, ref, details=details))

    def _commits(self, row: SandboxRepository) -> Any:
        """List the commits of `until`, by default the main branch, that are none of `since`."""
        heads = {name: ref.target for ref in git_refs(self._world, row) for name in (ref.name, ref.path)}
        asked = [self._parameters.get(name) for name in ("until", "since")]
        until, since = [heads.get(name, name) if name else None for name in asked]
        until = until or heads.get(row.main_branch or "")
        found = self._world.commits_between(row, until, since) if until else None
        if found is None:
            message = f"Commit {asked[0]} or {asked[1]} does not exist in repository {row.slug}."
            raise http_error(404, message, "commit.NoSuchCommitException")
        return self._page(found, lambda commit: {"id": commit, "displayId": commit[:11]})

    def _default_branch(self, row: SandboxRepository) -> Any:
        for ref in self._world.refs_of(row):
            if ref.kind == "branch" and ref.name == row.main_branch:
                return self._shapes.ref(row, ref)
        message = f'Repository "{key_of(row.workspace)}/{row.slug}" has no default branch'
        raise http_error(404, message, "repository.NoDefaultBranchException")

    def _users(self) -> Any:
        if self._caller.kind == "anonymous":
            raise http_error(401, "You are not permitted to access this resource", "AuthorisationException")
        wanted = self._parameters.get("filter", "").lower()
        found = [
            each
            for each in self._world.people()
            if wanted in each.username.lower() or wanted in each.display_name.lower()
        ]
        return self._page(found, self._shapes.user)

    def _user(self, slug: str) -> Any:
        person = self._world.person(slug)
        if person is None or slug.startswith("{"):
            raise http_error(404, f"{slug} does not exist.", "user.NoSuchUserException")
        return self._shapes.user(person)

    def _start_and_limit(self) -> tuple[int, int]:
        start, limit = (
            self._parameters.get("start", "0"),
            self._parameters.get("limit", str(_DEFAULT_LIMIT)),
        )
        if not (start.isdecimal() and limit.isdecimal() and int(limit)):
            raise http_error(400, "start and limit must be numbers", "validation.ArgumentValidationException")
        return int(start), min(_MOST, int(limit))

    def _page(self, rows: Sequence[T], shape: Callable[[T], Any]) -> Any:
        start, limit = self._start_and_limit()
        first = _item(start)
        return self._envelope(rows[first : first + limit], shape, len(rows))

    def _envelope(self, rows: Sequence[T], shape: Callable[[T], Any], count: int) -> Any:
        """Return a page of `rows` out of `count`; its `size` is the number of rows in it."""
        start, limit = self._start_and_limit()
        following = _item(start) + limit
        last = following >= count
        shaped = [shape(row) for row in rows]
        page = {"size": len(shaped), "limit": limit, "isLastPage": last, "start": start, "values": shaped}
        return page if last and start else page | {"nextPageStart": None if last else _start(following)}


def git_refs(world: World, row: SandboxRepository) -> list[SandboxRef]:
    """Return the refs that git has: without Mercurial's pseudo tag, and without names that contain spaces."""
    refs = (ref for ref in world.refs_of(row) if " " not in ref.name)
    return [ref for ref in refs if (ref.kind, ref.name) != ("tag", "tip") or row.scm != "hg"]


def _start(item: int) -> int:
    """Return the `start` of an item. It has gaps, because Data Center counts rows that it then leaves out."""
    return item + item // _GAP


def _item(start: int) -> int:
    """Return the first item whose `start` is not below `start`."""
    item = start * _GAP // (_GAP + 1)
    return item if _start(item) >= start else item + 1
