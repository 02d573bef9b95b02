"""The objects of Data Center's REST API: projects in place of workspaces, no dates, no sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .askers import Asker
    from .model import Person, Ref, Repository, Workspace
    from .world import World

Json = dict[str, Any]

_LATEST = "com.atlassian.bitbucket.server.bitbucket-branch:latest-commit-metadata"


def key_of(workspace: Workspace) -> str:
    """Give the key of a project; those of people begin with a tilde."""
    return f"~{workspace.slug.upper()}" if workspace.owner is not None else workspace.slug.upper()


class DataCenterShapes:
    """Shapes for one asker, with links to the host that was asked."""

    def __init__(self, world: World, origin: str, asker: Asker) -> None:
        self._world = world
        self._origin = origin
        self._asker = asker

    def project(self, workspace: Workspace) -> Json:
        """Give a project; personal ones have an owner and are not said to be public."""
        key = key_of(workspace)
        shaped: Json = {"key": key, "id": workspace.number + 1, "name": workspace.name}
        if workspace.owner is None:
            shaped |= {"type": "NORMAL", "public": True, "description": f"Everything of {workspace.name}"}
        else:
            shaped |= {"type": "PERSONAL", "owner": self.user(workspace.owner)}
        shaped["links"] = {"self": [{"href": f"{self._origin}/projects/{key}"}]}
        return shaped

    def repository(self, row: Repository, *, nested: bool = False) -> Json:
        """Give a repository; `description`, `archived` and `origin` come and go."""
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
        if row.number % 3:
            shaped["archived"] = False
        parent = None if row.parent is None or nested else self._world.get(row.parent)
        if parent is not None and self._world.can_see(self._asker, parent):
            shaped["origin"] = self.repository(parent, nested=True)
        return shaped

    def ref(self, row: Repository, ref: Ref, *, details: bool = False) -> Json:
        """Give a branch or a tag; the hash of a tag is that of its annotation, if it has one."""
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
        """Give a person."""
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

    def _commit(self, ref: Ref) -> Json:
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
        login = f"{self._asker.name}@" if self._asker.name else ""
        path = f"{key.lower()}/{slug}.git"
        return [
            {"href": f"{scheme}://{login}{host}/scm/{path}", "name": "http"},
            {"href": f"ssh://git@{host.partition(':')[0]}:7999/{path}", "name": "ssh"},
        ]
