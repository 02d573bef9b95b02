"""The objects of API 2.0. Which keys they have depends on the era of the row."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from mirror.sandbox.model import (
    TOKEN,
    CommitAuthor,
    Era,
    Person,
    Principal,
    SandboxRef,
    SandboxRepository,
    SandboxWorkspace,
    iso,
    pick,
)
from mirror.sandbox.world import World

Json = dict[str, Any]

# Links in one response were seen to lead to all three prefixes of the API.
_LINKED = {Era.OLD: "/!api/2.0", Era.MIDDLE: "/api/2.0", Era.NEW: "/2.0"}


def visible_repositories(
    world: World, caller: Principal = TOKEN, origin: str = "http://sandbox"
) -> Iterator[Json]:
    """Yield every repository that the caller may see, as API 2.0 sends it."""
    shapes = Shapes2(world, origin, caller)
    for workspace in world.workspaces:
        for number in list(world.order(workspace, "created_on", caller)):
            if (row := world.get(number)) is not None:
                yield shapes.repository(row)


def repository_refs(world: World, full_name: str) -> list[Json]:
    """Return all branches and tags of a repository, as API 2.0 sends them; raises LookupError."""
    row = world.find(*full_name.split("/", 1))
    if row is None:
        raise LookupError(f"there is no repository {full_name}")
    shapes = Shapes2(world, "http://sandbox", TOKEN)
    return [shapes.ref(row, ref) for ref in world.refs_of(row)]


class Shapes2:
    """Shapes objects for one caller, with links to the host that the client used."""

    def __init__(self, world: World, origin: str, caller: Principal) -> None:
        self._world = world
        self._origin = origin
        self._api = f"{origin}/2.0"
        self._caller = caller

    def repository(self, row: SandboxRepository) -> Json:
        """Return a full repository."""
        shaped: Json = {
            "type": "repository",
            **pick(row, "uuid full_name name slug description scm website is_private fork_policy size"),
            **pick(row, "language has_issues has_wiki"),
            "owner": self.owner(row.workspace),
            "created_on": iso(row.created),
            "updated_on": iso(row.updated),
            "links": self._repository_links(row),
        }
        match row.main_branch_shape:
            case "full" if row.main_branch is None:
                shaped["mainbranch"] = None
            case "full":
                kind = "named_branch" if row.scm == "hg" else "branch"
                shaped["mainbranch"] = {"type": kind, "name": row.main_branch}
            case "empty":
                shaped["mainbranch"] = {}
            case _:
                pass
        parent = None if row.parent is None else self._world.get(row.parent)
        if parent is not None and self._world.can_see(self._caller, parent):
            shaped["parent"] = self.short_repository(parent)
        elif row.era is not Era.OLD:
            shaped["parent"] = None
        if row.era is not Era.OLD:
            shaped["project"] = self._project(row)
        if row.era is Era.NEW:
            shaped["workspace"] = self.short_workspace(row.workspace)
            shaped["override_settings"] = {"default_merge_strategy": True, "branching_model": True}
            shaped["enforced_signed_commits"] = None
        # Bitbucket no longer has these keys: an extension, so that a mirror has counts to store.
        shaped["followers_count"] = row.followers
        shaped["forks_count"] = len(self._world.forks(row))
        return shaped

    def short_repository(self, row: SandboxRepository) -> Json:
        """Return a repository as other objects embed it, without slug and owner."""
        return {
            "type": "repository",
            "uuid": row.uuid,
            "full_name": row.full_name,
            "name": row.name,
            "links": {
                "self": {"href": f"{self._api}/repositories/{row.full_name}"},
                "html": {"href": f"{self._origin}/{row.full_name}"},
                "avatar": {"href": _picture(row)},
            },
        }

    def owner(self, workspace: SandboxWorkspace) -> Json:
        """Return the owner of a workspace: a user, or a team if no person owns it."""
        if workspace.owner is not None:
            return self.user(workspace.owner)
        return {
            "type": "team",
            "username": workspace.slug,
            "display_name": workspace.name,
            "uuid": workspace.uuid,
            "links": self._account_links(("workspaces", "teams")[workspace.number % 2], workspace.slug),
        }

    def user(self, person: Person) -> Json:
        """Return a person: with a nickname since 2019, with a user name before."""
        shaped: Json = {"type": "user", "display_name": person.display_name, "uuid": person.uuid}
        shaped["links"] = self._account_links("users", _escaped(person.uuid))
        if person.era is Era.OLD:
            shaped["username"] = person.username
            return shaped
        shaped["account_id"] = person.account_id
        if person.number % 11 != 5:  # a few have neither name
            shaped["nickname"] = person.username if person.era is Era.NEW else person.display_name
        return shaped

    def full_user(self, person: Person) -> Json:
        """Return a person with their profile; private profiles have fewer keys."""
        shaped = {**self.user(person), "account_status": "active"}
        if person.number % 3:
            shaped |= {"created_on": iso(person.created), "location": None, "website": None}
        return shaped

    def workspace(self, workspace: SandboxWorkspace) -> Json:
        """Return a full workspace."""
        here = f"{self._api}/workspaces/{workspace.slug}"
        shaped = self.short_workspace(workspace)
        shaped |= {
            "is_private": False,
            "is_privacy_enforced": False,
            "forking_mode": "allow_forks",
            "created_on": iso(workspace.created),
        }
        shaped["links"] |= {
            "members": {"href": f"{here}/members"},
            "owners": {"href": f"{here}/members?q=permission%3D%22owner%22"},
            "projects": {"href": f"{here}/projects"},
            "repositories": {"href": f"{self._api}/repositories/{workspace.slug}"},
        }
        return shaped

    def short_workspace(self, workspace: SandboxWorkspace) -> Json:
        """Return a workspace as other objects embed it."""
        return {"type": "workspace", "name": workspace.name, **self._workspace_base(workspace)}

    def workspace_access(self, workspace: SandboxWorkspace, person: Person | None) -> Json:
        """Return an item of the caller's workspaces: the slug is nested, and the name is missing."""
        return {
            "type": "workspace_access",
            "administrator": person is not None and workspace.members[:1] == [person],
            "workspace": {"type": "workspace_base", **self._workspace_base(workspace)},
        }

    def membership(self, workspace: SandboxWorkspace, person: Person, permission: str) -> Json:
        """Return an item of a workspace's members."""
        here = f"{self._api}/workspaces/{workspace.slug}/members/{_escaped(person.uuid)}"
        return {
            "type": "workspace_membership",
            "permission": permission,
            "user": self.user(person),
            "workspace": self.short_workspace(workspace),
            "links": {"self": {"href": here}},
        }

    def ref(self, row: SandboxRepository, ref: SandboxRef) -> Json:
        """Return a branch or a tag with its target."""
        name = quote(ref.name, safe="$;&=@!,/")  # half encoded, as Bitbucket does it
        here = f"{self._api}/repositories/{row.full_name}"
        html = "branch/" if ref.kind == "branch" else "commits/tag/"
        kind = "branches" if ref.kind == "branch" else "tags"
        shaped: Json = {
            "name": ref.name,
            "type": "named_branch" if ref.heads is not None else ref.kind,
            "target": self._commit(row, ref),
            "links": {
                "self": {"href": f"{here}/refs/{kind}/{name}"},
                "commits": {"href": f"{here}/commits/{name}"},
                "html": {"href": f"{self._origin}/{row.full_name}/{html}{name}"},
            },
        }
        if ref.heads is not None:
            shaped["heads"] = [self.short_commit(row, head) for head in ref.heads]
        if ref.kind == "branch" and row.era is not Era.OLD:
            shaped["default_merge_strategy"] = "merge_commit"
            shaped["merge_strategies"] = ["merge_commit", "squash", "fast_forward"]
        if ref.kind == "tag" and ref.annotation is not None:
            shaped["message"] = ref.annotation.message
            shaped["date"] = iso(ref.annotation.date)
            shaped["tagger"] = self._author(ref.annotation.tagger)
        elif ref.kind == "tag" and not ref.silent:
            shaped |= {"message": None, "date": None, "tagger": None}
        return shaped

    def _commit(self, row: SandboxRepository, ref: SandboxRef) -> Json:
        return {
            **self.short_commit(row, ref.target),
            "date": iso(ref.date),
            "author": self._author(ref.author),
            "message": ref.message,
            "parents": [self.short_commit(row, parent) for parent in ref.parents],
            "repository": self.short_repository(row),
        }

    def short_commit(self, row: SandboxRepository, commit: str) -> Json:
        """Return a commit as other objects embed it."""
        return {
            "type": "commit",
            "hash": commit,
            "links": {
                "self": {"href": f"{self._api}/repositories/{row.full_name}/commit/{commit}"},
                "html": {"href": f"{self._origin}/{row.full_name}/commits/{commit}"},
            },
        }

    def _author(self, author: CommitAuthor) -> Json:
        shaped: Json = {"type": "author", "raw": author.raw}
        if author.person is not None:
            user = self.user(author.person)
            if author.kind == "app_user":
                user["type"] = "app_user"
                user.pop("nickname", None)
            elif author.kind == "no_uuid":
                del user["uuid"]
            shaped["user"] = user
        return shaped

    def _workspace_base(self, workspace: SandboxWorkspace) -> Json:
        return {
            "uuid": workspace.uuid,
            "slug": workspace.slug,
            "links": self._account_links("workspaces", workspace.slug),
        }

    def _project(self, row: SandboxRepository) -> Json:
        slug, key = row.workspace.slug, row.project
        return {
            "type": "project",
            "key": key,
            "uuid": f"{{{row.workspace.uuid[1:-13]}-{key.encode().hex():0>12.12}}}",
            "name": key.title(),
            "links": {
                "self": {"href": f"{self._api}/workspaces/{slug}/projects/{key}"},
                "html": {"href": f"{self._origin}/{slug}/workspace/projects/{key}"},
                "avatar": {"href": f"{self._origin}/account/user/{slug}/projects/{key}/avatar/32?ts=1"},
            },
        }

    def _account_links(self, kind: str, name: str) -> Json:
        return {
            "self": {"href": f"{self._api}/{kind}/{name}"},
            "html": {"href": f"{self._origin}/{name}/"},
            "avatar": {"href": f"{self._origin}/account/{name}/avatar/"},
        }

    def _repository_links(self, row: SandboxRepository) -> Json:
        here = f"{self._origin}{_LINKED[row.era]}/repositories/{row.full_name}"
        kinds = ("watchers", "forks", "commits", "pullrequests", "downloads", "hooks")
        links: Json = {kind: {"href": f"{here}/{kind}"} for kind in kinds}
        links["self"] = {"href": here}
        links["branches"] = {"href": f"{here}/refs/branches"}
        links["tags"] = {"href": f"{here}/refs/tags"}
        links["source"] = {"href": f"{here}/src"}
        links["html"] = {"href": f"{self._origin}/{row.full_name}"}
        links["avatar"] = {"href": _picture(row)}
        links["clone"] = self._clone_links(row)
        return links

    def _clone_links(self, row: SandboxRepository) -> list[Json]:
        """Return the clone URLs; the https one contains the caller's login."""
        scheme, _, host = self._origin.partition("://")
        login = f"{self._caller.name}@" if self._caller.name else ""
        if row.scm == "hg":
            ssh = f"ssh://hg@bitbucket.org/{row.full_name}"
            return [
                {"name": "https", "href": f"{scheme}://{login}{host}/{row.full_name}"},
                {"name": "ssh", "href": ssh},
            ]
        ssh = "ssh://git@bitbucket.org/{}.git" if row.era is Era.OLD else "git@bitbucket.org:{}.git"
        return [
            {"name": "https", "href": f"{scheme}://{login}{host}/{row.full_name}.git"},
            {"name": "ssh", "href": ssh.format(row.full_name)},
        ]


def _escaped(uuid: str) -> str:
    """Return a uuid with its braces escaped for a URL; several times as fast as `quote`."""
    return f"%7B{uuid[1:-1]}%7D"


def _picture(row: SandboxRepository) -> str:
    """Return the address of a repository's picture; Bitbucket's are on a host of their own."""
    return f"https://bytebucket.org/ravatar/{_escaped(row.uuid)}?ts={row.language or 'default'}"
