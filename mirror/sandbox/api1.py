"""API 1.0, the reading side, as it was before it was switched off."""

from typing import Any

from . import shapes1
from .askers import Asker
from .exchange import Answer, Refused, Request, json_answer
from .model import Repository, Workspace
from .world import World

PREFIXES = ("/1.0/", "/api/1.0/", "/!api/1.0/")


def refusal(status: int, message: str) -> Refused:
    """Refuse in the shape of 1.0, which has no type, and no challenge with a 401."""
    return Refused(json_answer({"error": {"message": message}}, status))


def kind_of(segments: list[str]) -> str:
    """Name the kind of endpoint that a path of 1.0 belongs to."""
    match segments:
        case ["users", _] | ["repositories"] | ["repositories", _] | ["user", "repositories"]:
            return "listing"
        case ["user"]:
            return "user"
        case ["repositories", _, _]:
            return "repository"
        case ["repositories", _, _, "branches" | "tags" | "branches-tags" | "main-branch"]:
            return "refs"
        case _:
            return "other"


class Api1:
    """Answers the requests of one asker."""

    def __init__(self, world: World, request: Request, asker: Asker) -> None:
        self._world = world
        self._request = request
        self._asker = asker

    def answer(self, segments: list[str]) -> Answer:
        """Answer the request for a path below /1.0/."""
        if self._request.method not in {"GET", "HEAD"}:
            raise refusal(405, "Method not allowed")
        return json_answer(self._get(segments))

    def _get(self, segments: list[str]) -> Any:
        match segments:
            case ["users", name]:
                return self._user(self._workspace(name))
            case ["user"]:
                return self._user(self._own_workspace())
            case ["user", "repositories"]:
                return self._own_repositories()
            case ["repositories"]:
                return self._search(self._request.parameters.get("name", ""))
            case ["repositories", name]:
                place = self._workspace(name)
                return [shapes1.repository(self._world, row) for row in self._rows(place)]
            case ["repositories", owner, slug, *rest]:
                return self._one(self._repository(owner, slug), rest)
            case _:
                raise refusal(404, "There is no API hosted at this URL")

    def _one(self, row: Repository, rest: list[str]) -> Any:
        refs = self._world.refs_of(row)
        match rest:
            case []:
                return shapes1.single_repository(self._world, row)
            case ["branches" | "tags" as kinds]:
                kind = "tag" if kinds == "tags" else "branch"
                return {ref.name: shapes1.changeset(row, ref) for ref in refs if ref.kind == kind}
            case ["branches-tags"]:
                return shapes1.branches_and_tags(row, refs)
            case ["main-branch"] if row.main_branch is not None:
                return {"name": row.main_branch}
            case ["followers"]:
                people = self._world.people()[: max(0, row.followers - 1)]
                # One account is gone: the count was never corrected.
                return {"count": row.followers, "followers": [shapes1.user(each) for each in people]}
            case _:
                raise refusal(404, "Not found")

    def _workspace(self, name: str) -> Workspace:
        found = self._world.workspace(name)
        if found is None or name.startswith("{"):
            raise refusal(404, f"User {name} not found")
        return found

    def _own_workspace(self) -> Workspace:
        if self._asker.kind != "person":
            raise refusal(401, "Authentication required")
        found = self._world.workspace(self._asker.name)
        if found is None:
            raise refusal(404, f"User {self._asker.name} has no repositories of their own")
        return found

    def _repository(self, owner: str, slug: str) -> Repository:
        row = self._world.find(owner, slug)
        if row is None or slug.startswith("{"):
            raise refusal(404, f"Repository {owner}/{slug} not found")
        if not self._world.can_see(self._asker, row):
            raise refusal(403, f"You do not have access to {owner}/{slug}")
        return row

    def _rows(self, place: Workspace) -> list[Repository]:
        order = self._world.order(place, "created_on", self._asker)
        return [row for number in order if (row := self._world.get(number)) is not None]

    def _user(self, place: Workspace) -> Any:
        rows = [shapes1.repository(self._world, row) for row in self._rows(place)]
        return {"repositories": rows, "user": shapes1.account(place)}

    def _own_repositories(self) -> Any:
        if self._asker.kind == "anonymous":
            raise refusal(401, "Authentication required")
        mine = [each for each in self._world.workspaces if self._world.is_member(self._asker, each)]
        return [shapes1.own_repository(row) for place in mine for row in self._rows(place)]

    def _search(self, wanted: str) -> Any:
        """Find public repositories of anybody by a part of their name."""
        found = [
            shapes1.short_repository(row)
            for place in self._world.workspaces
            for row in self._rows(place)
            if wanted.lower() in row.name.lower() and not row.is_private
        ]
        return {"query": wanted, "count": len(found), "repositories": found}
