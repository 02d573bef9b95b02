"""API 1.0: its routes and its objects. Times without `utc` in their name are in Amsterdam's zone."""

from datetime import UTC
from hashlib import md5
from typing import Any
from zoneinfo import ZoneInfo

from mirror.sandbox.exchange import HttpError, Request, SandboxResponse, json_response
from mirror.sandbox.model import (
    Era,
    Person,
    Principal,
    SandboxRef,
    SandboxRepository,
    SandboxWorkspace,
    moment,
    pick,
)
from mirror.sandbox.world import World

Json = dict[str, Any]

AMSTERDAM = ZoneInfo("Europe/Amsterdam")


def local_time(microseconds: int, era: Era) -> str:
    """Format a time in Amsterdam's zone, without an offset: to the second in old rows, else to the ms."""
    there = moment(microseconds).astimezone(AMSTERDAM).replace(tzinfo=None)
    if era is Era.OLD:
        return there.isoformat(" ", "seconds")
    return there.isoformat("T", "milliseconds")


def utc_time(microseconds: int) -> str:
    """Format a time in UTC, to the second, with a space and an offset."""
    return moment(microseconds).astimezone(UTC).isoformat(" ", "seconds")


def short_repository(row: SandboxRepository) -> Json:
    """Return a search result, which has few keys."""
    return {
        "owner": row.workspace.slug,
        **pick(row, "slug name scm website description"),
        "followers_count": row.followers,
        "logo": None,
        "resource_uri": f"/1.0/repositories/{row.full_name}",
    }


def repository(world: World, row: SandboxRepository, *, nested: bool = False) -> Json:
    """Return a full repository; a fork contains its parent, whose own parent is left out."""
    parent = None if row.parent is None or nested else world.get(row.parent)
    fork_of = None if parent is None or parent.is_private else repository(world, parent, nested=True)
    shaped = short_repository(row) | {
        "created_on": local_time(row.created, row.era),
        "last_updated": local_time(row.updated, row.era),
        "utc_created_on": utc_time(row.created),
        "utc_last_updated": utc_time(row.updated),
        **pick(row, "size language is_private has_wiki has_issues"),
        "state": "available",
        "creator": None,
        "is_fork": row.parent is not None,
        "fork_of": fork_of,
        "is_mq": False,
        "mq_of": fork_of if row.era is Era.MIDDLE else None,
        "read_only": False,
        "no_public_forks": row.fork_policy == "no_public_forks",
        "no_forks": row.fork_policy == "no_forks" or None,
        "email_mailinglist": "",
    }
    if row.era is Era.OLD:
        shaped |= {"email_writers": True, "resource_uri": f"/api/1.0/repositories/{row.full_name}"}
        if row.main_branch is not None:
            shaped["main_branch"] = row.main_branch
    return shaped


def account(workspace: SandboxWorkspace) -> Json:
    """Return the owner of a workspace as a user; a team has no last name."""
    if workspace.owner is not None:
        return user(workspace.owner)
    return _user(workspace.slug, workspace.name, "", is_team=True)


def user(person: Person) -> Json:
    """Return a person as a user."""
    first, _, last = person.display_name.partition(" ")
    return _user(person.username, first, last, is_team=False)


def _user(username: str, first: str, last: str, *, is_team: bool) -> Json:
    digest = md5(username.encode(), usedforsecurity=False).hexdigest()
    return {
        "username": username,
        "first_name": first,
        "last_name": last,
        "display_name": f"{first} {last}".strip(),
        "is_team": is_team,
        "avatar": f"https://secure.gravatar.com/avatar/{digest}?d=identicon&s=32",
        "resource_uri": f"/1.0/users/{username}",
    }


def changeset(row: SandboxRepository, ref: SandboxRef) -> Json:
    """Return the commit of a branch or tag."""
    author = ref.author.person.username if ref.author.person else ref.author.raw.partition(" <")[0]
    is_hg = row.scm == "hg"
    if ref.kind == "branch":
        branch: str | None = ref.name
    else:
        branch = row.main_branch if is_hg else None
    return {
        "node": ref.target[:12],
        "raw_node": ref.target,
        "author": author,
        "raw_author": ref.author.raw,
        "timestamp": moment(ref.date).astimezone(AMSTERDAM).replace(tzinfo=None).isoformat(" ", "seconds"),
        "utctimestamp": utc_time(ref.date),
        "parents": [parent[:12] for parent in ref.parents],
        "branch": branch,
        "message": ref.message,
        "revision": int(ref.target[:4], 16) if is_hg else None,
        "size": -1,
        "files": [{"type": "modified", "file": "README.md"}],
    }


def branches_and_tags(row: SandboxRepository, refs: list[SandboxRef]) -> Json:
    """Return branches and tags in the short form that build tools use."""
    branches: list[Json] = []
    for ref in refs:
        if ref.kind == "branch":
            heads = list(ref.heads) if ref.heads is not None else [ref.target]
            branch: Json = {"name": ref.name, "changeset": ref.target, "heads": heads}
            if ref.name == row.main_branch:
                branch["mainbranch"] = True
            branches.append(branch)
    tags = [{"name": ref.name, "changeset": ref.target} for ref in refs if ref.kind == "tag"]
    return {"branches": branches, "tags": tags}


PREFIXES = ("/1.0/", "/api/1.0/", "/!api/1.0/")


def http_error(status: int, message: str) -> HttpError:
    """Return an error in the form of 1.0: no type, and no challenge with a 401."""
    return HttpError(json_response({"error": {"message": message}}, status))


def kind_of(segments: list[str]) -> str:
    """Return the kind of endpoint of a path of 1.0."""
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


class SandboxApi1:
    """Answers the requests of one caller."""

    def __init__(self, world: World, request: Request, caller: Principal) -> None:
        self._world = world
        self._request = request
        self._caller = caller

    def answer(self, segments: list[str]) -> SandboxResponse:
        """Answer the request for a path below /1.0/."""
        if self._request.method not in {"GET", "HEAD"}:
            raise http_error(405, "Method not allowed")
        return json_response(self._get(segments))

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
                workspace = self._workspace(name)
                return [repository(self._world, row) for row in self._rows(workspace)]
            case ["repositories", owner, slug, *rest]:
                return self._one(self._repository(owner, slug), rest)
            case _:
                raise http_error(404, "There is no API hosted at this URL")

    def _one(self, row: SandboxRepository, rest: list[str]) -> Any:
        refs = self._world.refs_of(row)
        match rest:
            case []:
                return repository(self._world, row) | {"forks_count": len(self._world.forks(row))}
            case ["branches" | "tags" as kinds]:
                kind = "tag" if kinds == "tags" else "branch"
                return {ref.name: changeset(row, ref) for ref in refs if ref.kind == kind}
            case ["branches-tags"]:
                return branches_and_tags(row, refs)
            case ["main-branch"] if row.main_branch is not None:
                return {"name": row.main_branch}
            case ["followers"]:
                people = self._world.people()[: max(0, row.followers - 1)]
                # One account is gone, but the count was never corrected.
                return {"count": row.followers, "followers": [user(each) for each in people]}
            case _:
                raise http_error(404, "Not found")

    def _workspace(self, name: str) -> SandboxWorkspace:
        found = self._world.workspace(name)
        if found is None or name.startswith("{"):
            raise http_error(404, f"User {name} not found")
        return found

    def _own_workspace(self) -> SandboxWorkspace:
        if self._caller.kind != "person":
            raise http_error(401, "Authentication required")
        found = self._world.workspace(self._caller.name)
        if found is None:
            raise http_error(404, f"User {self._caller.name} has no repositories of their own")
        return found

    def _repository(self, owner: str, slug: str) -> SandboxRepository:
        row = self._world.find(owner, slug)
        if row is None or slug.startswith("{"):
            raise http_error(404, f"Repository {owner}/{slug} not found")
        if not self._world.can_see(self._caller, row):
            raise http_error(403, f"You do not have access to {owner}/{slug}")
        return row

    def _rows(self, workspace: SandboxWorkspace) -> list[SandboxRepository]:
        order = self._world.order(workspace, "created_on", self._caller)
        return [row for number in order if (row := self._world.get(number)) is not None]

    def _user(self, workspace: SandboxWorkspace) -> Any:
        rows = [repository(self._world, row) for row in self._rows(workspace)]
        return {"repositories": rows, "user": account(workspace)}

    def _own_repositories(self) -> Any:
        if self._caller.kind == "anonymous":
            raise http_error(401, "Authentication required")
        mine = [each for each in self._world.workspaces if self._world.is_member(self._caller, each)]
        return [
            {"owner": workspace.slug, **pick(row, "scm slug is_private name")}
            for workspace in mine
            for row in self._rows(workspace)
        ]

    def _search(self, wanted: str) -> Any:
        """Return all public repositories whose name contains `wanted`."""
        found = [
            short_repository(row)
            for workspace in self._world.workspaces
            for row in self._rows(workspace)
            if wanted.lower() in row.name.lower() and not row.is_private
        ]
        return {"query": wanted, "count": len(found), "repositories": found}
