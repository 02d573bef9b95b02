"""API 2.0: which path answers what."""

from collections.abc import Callable
from typing import Any

from .askers import Asker
from .exchange import (
    Answer,
    Refused,
    Request,
    error,
    json_answer,
    no_credentials,
    no_repository,
    no_such_url,
    removed,
)
from .fields import select
from .model import Ref, Repository, Workspace
from .paging import Style, page_of
from .selection import refs, repositories
from .shapes2 import Shapes2
from .world import World
from .writes2 import Writes2

PREFIXES = ("/2.0/", "/!api/2.0/", "/api/2.0/")


def kind_of(segments: list[str]) -> str:  # noqa: PLR0911 - a table
    """Name the kind of endpoint that a path of 2.0 belongs to; requests are counted by it."""
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
    """Answers the requests of one asker."""

    def __init__(self, world: World, request: Request, asker: Asker, style: Style) -> None:
        self._world = world
        self._request = request
        self._asker = asker
        self._style = style
        self._shapes = Shapes2(world, request.origin, asker)

    def answer(self, segments: list[str]) -> Answer:
        """Answer the request for a path below /2.0/."""
        if self._request.method in {"GET", "HEAD"}:
            found = self._get(segments)
            fields = self._request.parameters.get("fields")
            return json_answer(select(found, fields) if fields else found)
        writes = Writes2(self._world, self._request, self._asker, self._shapes)
        match self._request.method, segments:
            case "POST", ["repositories", workspace, slug]:
                return writes.create(workspace, slug)
            case "PUT", ["repositories", workspace, slug]:
                return writes.update(workspace, slug)
            case "DELETE", ["repositories", workspace, slug]:
                return writes.delete(workspace, slug)
            case "POST", ["repositories", workspace, slug, "forks"]:
                return writes.fork(workspace, slug)
            case _:
                raise Refused(error(405, "Method not allowed"))

    def _get(self, segments: list[str]) -> Any:  # noqa: C901, PLR0911 - a table of routes
        match segments:
            case ["repositories", workspace]:
                return self._repositories(self._workspace(workspace))
            case ["repositories", workspace, slug]:
                return self._shapes.repository(self._repository(workspace, slug))
            case ["repositories", workspace, slug, "refs", *rest]:
                return self._refs(self._repository(workspace, slug), rest)
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
                return self._account(name)
            case ["repositories" | "workspaces" | "snippets"] | ["teams", *_] | ["user", "permissions", *_]:
                raise Refused(removed())
            case _:
                raise Refused(no_such_url())

    def _workspace(self, name: str) -> Workspace:
        found = self._world.workspace(name)
        if found is None:
            raise Refused(error(404, f"No workspace with identifier '{name}'."))
        return found

    def _repository(self, workspace: str, slug: str) -> Repository:
        found = self._world.find(workspace, slug)
        if found is None or not self._world.can_see(self._asker, found):
            raise Refused(no_repository())
        return found

    def _repositories(self, workspace: Workspace) -> Any:
        numbers, descending = repositories(self._world, workspace, self._asker, self._request.parameters)
        return self._page(numbers, self._numbered, descending=descending)

    def _numbered(self, number: int) -> Any:
        row = self._world.get(number)
        return None if row is None else self._shapes.repository(row)

    def _refs(self, row: Repository, rest: list[str]) -> Any:
        kind = {"branches": "branch", "tags": "tag"}.get(rest[0]) if rest else None
        if rest and kind is None:
            raise Refused(no_such_url())
        found = [ref for ref in self._world.refs_of(row) if kind in {None, ref.kind}]
        if len(rest) > 1:
            return self._named_ref(row, found, "/".join(rest[1:]))
        chosen = refs(found, self._request.parameters)
        # Lists of branches tell how many there are, lists of tags do not.
        return self._page(chosen, lambda ref: self._shapes.ref(row, ref), total=kind == "branch")

    def _named_ref(self, row: Repository, found: list[Ref], name: str) -> Any:
        for ref in found:
            if ref.name == name:
                return self._shapes.ref(row, ref)
        raise Refused(error(404, f"No ref with name {name}"))

    def _forks(self, row: Repository) -> Any:
        forks = [fork for fork in self._world.forks(row) if self._world.can_see(self._asker, fork)]
        return self._page(forks, self._shapes.repository)

    def _watchers(self, row: Repository) -> Any:
        """List as many people as there are; followers whose accounts are gone are not counted any more."""
        people = self._world.people()
        return self._page(people[: min(row.followers, len(people))], self._shapes.user)

    def _members(self, name: str) -> Any:
        if self._asker.kind == "anonymous":
            raise Refused(no_credentials())
        workspace = self._workspace(name)
        return self._page(workspace.memberships(), lambda each: self._shapes.membership(workspace, *each))

    def _own_workspaces(self) -> Any:
        if self._asker.kind == "anonymous":
            raise Refused(no_credentials())
        mine = [each for each in self._world.workspaces if self._world.is_member(self._asker, each)]
        person = self._world.person(self._asker.name)
        return self._page(mine, lambda each: self._shapes.workspace_access(each, person), total=False)

    def _user(self) -> Any:
        match self._asker.kind:
            case "anonymous":
                raise Refused(no_credentials())
            case "token":
                raise Refused(error(403, "This API is only accessible with user credentials."))
            case "oauth":
                return self._shapes.full_user(self._world.people()[0])
            case _:
                return self._account(self._asker.name)

    def _account(self, name: str) -> Any:
        person = self._world.person(name)
        if person is None or (self._request.path.rstrip("/").endswith(f"/users/{person.username}")):
            raise Refused(
                error(404, name)
            )  # user names are not accepted; the message is only the thing asked for
        return self._shapes.full_user(person)

    def _page(self, rows: Any, shape: Callable[[Any], Any], **more: Any) -> Any:
        return page_of(self._request, rows, shape, style=self._style, **more)
