"""API 2.0: its routes and its writes."""

from collections.abc import Callable
from typing import Any

from mirror.sandbox.api2_query import Style, page_of, refs, repositories, select
from mirror.sandbox.api2_shapes import Shapes2
from mirror.sandbox.edits import create, delete, edit, rename
from mirror.sandbox.exchange import (
    HttpError,
    Request,
    SandboxResponse,
    error,
    json_response,
    no_credentials,
    no_repository,
    no_such_url,
    removed,
)
from mirror.sandbox.model import Person, Principal, SandboxRef, SandboxRepository, SandboxWorkspace
from mirror.sandbox.vocabulary import slugify
from mirror.sandbox.world import World

_SETTINGS = ("description", "website", "language", "has_issues", "has_wiki", "fork_policy", "is_private")
_SWITCHES = {"has_issues", "has_wiki", "is_private"}


PREFIXES = ("/2.0/", "/!api/2.0/", "/api/2.0/")


def kind_of(segments: list[str]) -> str:  # noqa: PLR0911 - a table
    """Return the kind of endpoint of a path of 2.0. Requests are counted by it, and faults select by it."""
    match segments:
        case ["repositories", _] | ["repositories", _, _, "forks" | "watchers"]:
            return "listing"
        case ["repositories", _, _, "refs", *_]:
            return "refs"
        case ["repositories", _, _]:
            return "repository"
        case ["workspaces", _, "members", *_]:
            return "members"
        case ["workspaces", _] | ["user", "workspaces"]:
            return "workspace"
        case ["user"] | ["users", _]:
            return "user"
        case _:
            return "other"


class Api2:
    """Answers the requests of one caller."""

    def __init__(self, world: World, request: Request, caller: Principal, style: Style) -> None:
        self._world = world
        self._request = request
        self._caller = caller
        self._style = style
        self._shapes = Shapes2(world, request.origin, caller)

    def answer(self, segments: list[str]) -> SandboxResponse:
        """Answer the request for a path below /2.0/."""
        if self._request.method in {"GET", "HEAD"}:
            found = self._get(segments)
            fields = self._request.parameters.get("fields")
            return json_response(select(found, fields) if fields else found)
        match self._request.method, segments:
            case "POST", ["repositories", workspace, slug]:
                return self._create(workspace, slug)
            case "PUT", ["repositories", workspace, slug]:
                return self._update(workspace, slug)
            case "DELETE", ["repositories", workspace, slug]:
                return self._delete(workspace, slug)
            case "POST", ["repositories", workspace, slug, "forks"]:
                return self._fork(workspace, slug)
            case _:
                raise HttpError(error(405, "Method not allowed"))

    def _get(self, segments: list[str]) -> Any:  # noqa: C901, PLR0911, PLR0912 - a table of routes
        match segments:
            case ["repositories", workspace]:
                return self._repositories(self._workspace(workspace))
            case ["repositories", workspace, slug]:
                return self._shapes.repository(self._repository(workspace, slug))
            case ["repositories", workspace, slug, "refs", *rest]:
                return self._refs(self._repository(workspace, slug), rest)
            case ["repositories", workspace, slug, "commits"]:
                return self._commits(self._repository(workspace, slug))
            case ["repositories", workspace, slug, "forks"]:
                return self._forks(self._repository(workspace, slug))
            case ["repositories", workspace, slug, "watchers"]:
                return self._watchers(self._repository(workspace, slug))
            case ["workspaces", workspace]:
                return self._shapes.workspace(self._workspace(workspace))
            case ["workspaces", workspace, "members"]:
                return self._members(workspace)
            case ["user", "workspaces"]:
                return self._own_workspaces()
            case ["user"]:
                return self._user()
            case ["users", name]:
                return self._shapes.full_user(self._person(name))
            case ["repositories" | "workspaces" | "snippets"] | ["teams", *_] | ["user", "permissions", *_]:
                raise HttpError(removed())
            case _:
                raise HttpError(no_such_url())

    def _workspace(self, name: str) -> SandboxWorkspace:
        found = self._world.workspace(name)
        if found is None:
            raise HttpError(error(404, f"No workspace with identifier '{name}'."))
        return found

    def _repository(self, workspace: str, slug: str) -> SandboxRepository:
        found = self._world.find(workspace, slug)
        if found is None or not self._world.can_see(self._caller, found):
            raise HttpError(no_repository())
        return found

    def _repositories(self, workspace: SandboxWorkspace) -> Any:
        numbers, descending = repositories(self._world, workspace, self._caller, self._request.parameters)
        return self._page(numbers, self._numbered, descending=descending)

    def _numbered(self, number: int) -> Any:
        row = self._world.get(number)
        return None if row is None else self._shapes.repository(row)

    def _refs(self, row: SandboxRepository, rest: list[str]) -> Any:
        kind = {"branches": "branch", "tags": "tag"}.get(rest[0]) if rest else None
        if rest and kind is None:
            raise HttpError(no_such_url())
        found = [ref for ref in self._world.refs_of(row) if kind in {None, ref.kind}]
        if len(rest) > 1:
            return self._named_ref(row, found, "/".join(rest[1:]))
        chosen = refs(found, self._request.parameters)
        # Lists of branches have a `size`, lists of tags do not.
        return self._page(chosen, lambda ref: self._shapes.ref(row, ref), total=kind == "branch")

    def _named_ref(self, row: SandboxRepository, found: list[SandboxRef], name: str) -> Any:
        for ref in found:
            if ref.name == name:
                return self._shapes.ref(row, ref)
        raise HttpError(error(404, f"No ref with name {name}"))

    def _commits(self, row: SandboxRepository) -> Any:
        """List the commits of `include`, by default the main branch, that are none of `exclude`."""
        heads = {ref.name: ref.target for ref in self._world.refs_of(row)}
        asked = [self._request.parameters.get(name) for name in ("include", "exclude")]
        include, exclude = [heads.get(name, name) if name else None for name in asked]
        include = include or heads.get(row.main_branch or "")
        found = self._world.commits_between(row, include, exclude) if include else None
        if found is None:
            raise HttpError(error(404, f"Commit not found: {asked[0]} or {asked[1]}"))
        return self._page(found, lambda commit: self._shapes.short_commit(row, commit), total=False)

    def _forks(self, row: SandboxRepository) -> Any:
        forks = [fork for fork in self._world.forks(row) if self._world.can_see(self._caller, fork)]
        return self._page(forks, self._shapes.repository)

    def _watchers(self, row: SandboxRepository) -> Any:
        """List the followers, of whom there are no more than people in this world."""
        people = self._world.people()
        return self._page(people[: min(row.followers, len(people))], self._shapes.user)

    def _members(self, name: str) -> Any:
        if self._caller.kind == "anonymous":
            raise HttpError(no_credentials())
        workspace = self._workspace(name)
        return self._page(workspace.memberships(), lambda each: self._shapes.membership(workspace, *each))

    def _own_workspaces(self) -> Any:
        if self._caller.kind == "anonymous":
            raise HttpError(no_credentials())
        mine = [each for each in self._world.workspaces if self._world.is_member(self._caller, each)]
        person = self._world.person(self._caller.name)
        return self._page(mine, lambda each: self._shapes.workspace_access(each, person), total=False)

    def _user(self) -> Any:
        match self._caller.kind:
            case "anonymous":
                raise HttpError(no_credentials())
            case "token":
                raise HttpError(error(403, "This API is only accessible with user credentials."))
            case "oauth":
                person = self._world.people()[0]
            case _:
                person = self._person(self._caller.name)
        return {**self._shapes.full_user(person), "username": person.username}

    def _person(self, name: str) -> Person:
        person = self._world.person(name)
        if person is None or (self._request.path.rstrip("/").endswith(f"/users/{person.username}")):
            raise HttpError(error(404, name))  # no user names; the message is only what was requested
        return person

    def _page(self, rows: Any, shape: Callable[[Any], Any], **more: Any) -> Any:
        return page_of(self._request, rows, shape, style=self._style, **more)

    # Writes

    def _create(self, workspace: str, slug: str) -> SandboxResponse:
        """Create a repository with the slug of the path and the settings of the body."""
        home = self._writable(workspace)
        body = self._body()
        name = str(body.get("name") or slug)
        row = self._make(home, name, slug, scm=str(body.get("scm") or "git"), **_settings(body))
        return json_response(self._shapes.repository(row))

    def _update(self, workspace: str, slug: str) -> SandboxResponse:
        """Change settings. A new name changes the slug; an unknown repository is created."""
        home = self._writable(workspace)
        row = self._world.find(workspace, slug)
        if row is None:
            created = self._create(workspace, slug)
            created.status = 201
            return created
        body = self._body()
        settings = _settings(body)
        name = str(body.get("name") or row.name)
        if name != row.name:
            self._must_be_free(home, slugify(name), unless=row)
            row = rename(self._world, row, name)
        if settings:
            row = edit(self._world, row, settings)
        answer = json_response(self._shapes.repository(row))
        if row.slug != slug:
            answer.headers["Location"] = f"{self._request.origin}/2.0/repositories/{row.full_name}"
        return answer

    def _delete(self, workspace: str, slug: str) -> SandboxResponse:
        """Delete a repository."""
        self._writable(workspace)
        delete(self._world, self._existing(workspace, slug))
        return SandboxResponse(204)

    def _fork(self, workspace: str, slug: str) -> SandboxResponse:
        """Fork a repository into the workspace of the body, by default the caller's own."""
        parent = self._existing(workspace, slug)
        body = self._body()
        target = body.get("workspace")
        target = target.get("slug") if isinstance(target, dict) else target
        home = self._writable(str(target or self._caller.name))
        name = str(body.get("name") or parent.name)
        made = self._make(
            home, name, slugify(name), parent=parent, **{"description": parent.description, **_settings(body)}
        )
        return json_response(self._shapes.repository(made), 201)

    def _make(self, home: SandboxWorkspace, name: str, slug: str, **more: Any) -> SandboxRepository:
        self._must_be_free(home, slug)
        return create(self._world, home, name, slug=slug, **more)

    def _must_be_free(
        self, home: SandboxWorkspace, slug: str, unless: SandboxRepository | None = None
    ) -> None:
        found = self._world.find(home.slug, slug)
        if found is not None and (unless is None or found.number != unless.number):
            message = "Repository with this Slug and Owner already exists."
            raise HttpError(error(400, message, fields={"name": [message]}))

    def _writable(self, workspace: str) -> SandboxWorkspace:
        if self._caller.kind == "anonymous":
            raise HttpError(no_credentials())
        home = self._workspace(workspace)
        if not self._world.is_member(self._caller, home):
            detail = {"required": ["repository:admin"], "granted": ["repository"]}
            message = "Your credentials lack one or more required privilege scopes."
            raise HttpError(error(403, message, detail=detail))
        return home

    def _existing(self, workspace: str, slug: str) -> SandboxRepository:
        if self._caller.kind == "anonymous":
            raise HttpError(no_credentials())
        return self._repository(workspace, slug)

    def _body(self) -> dict[str, Any]:
        try:
            return self._request.form()
        except ValueError as bad:
            raise HttpError(error(400, "Bad request", detail=str(bad))) from None


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in a body. In a form, booleans are the words true and false."""
    settings = {name: body[name] for name in _SETTINGS if name in body}
    for name in _SWITCHES & settings.keys():
        settings[name] = str(settings[name]).lower() == "true"
    return settings
