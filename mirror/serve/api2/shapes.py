"""Rows in the shapes of API 2.0, with their links: pure functions, with the keys of recorded answers.

A value that the mirror does not know is null, or absent where Bitbucket omits it too (docs/api-2.0.md).
"""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from mirror.addresses import WebPages, escaped, hrefs, segment
from mirror.api2_extras import changed
from mirror.api2_objects import account_object, moment, repository_object, workspace_object
from mirror.model import flag, known_uuid
from mirror.queries.rows import (
    AccountRow,
    ProjectRow,
    RepositoryRow,
    UpstreamRow,
    Upstreams,
)
from mirror.serve.exchange import Json

_ENCODER = msgspec.json.Encoder()
_CHILDREN = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")

# Finds the extra of an object, by its kind and the id of its row.
FindExtra = Callable[[str, int], Json | None]


class ApiLinks(msgspec.Struct, frozen=True):
    """Makes the links in one answer: to the API at `api`, and to the pages of the mirror at `origin`.

    HTML links lead to the upstream's `pages`, or to the mirror's if the upstream has none for a name.
    """

    origin: str
    api: str
    pages: WebPages = WebPages()

    @property
    def web(self) -> str:
        """Where the upstream's pages begin."""
        return self.pages.root

    def repository_page(self, full_name: str) -> str:
        """The mirror's page of a repository."""
        return f"{self.origin}/-/r/{escaped(full_name)}"

    def owner_page(self, username: str) -> str:
        """The mirror's page of an owner."""
        return f"{self.origin}/-/u/{segment(username)}"

    def repository_html(self, full_name: str) -> str:
        """The upstream's page of a repository."""
        return self.pages.repository(full_name) or self.repository_page(full_name)

    def owner_html(self, username: str) -> str:
        """The upstream's page of a workspace or a user."""
        return self.pages.owner(username) or self.owner_page(username)

    def project_html(self, owner: str, key: str) -> str:
        """The upstream's page of a project."""
        return self.pages.project(owner, key) or self.owner_page(owner)

    def ref_html(self, full_name: str, kind: str, name: str) -> str:
        """The upstream's page of a branch or a tag."""
        return self.pages.ref(full_name, kind, name) or self.repository_page(full_name)

    def repository(self, full_name: str) -> str:
        """The address of a repository."""
        return f"{self.api}/repositories/{escaped(full_name)}"

    def user(self, identity: str) -> str:
        """The address of a user, by uuid or by name."""
        return f"{self.api}/users/{segment(identity)}"

    def workspace(self, slug: str) -> str:
        """The address of a workspace."""
        return f"{self.api}/workspaces/{segment(slug)}"

    def of_repository(self, full_name: str) -> Json:
        """All links of a repository to this server. They follow from its name."""
        url = self.repository(full_name)
        return hrefs(
            self=url,
            mirror=self.repository_page(full_name),
            **{name: f"{url}/{name}" for name in _CHILDREN},
            branches=f"{url}/refs/branches",
            tags=f"{url}/refs/tags",
            source=f"{url}/src",
        )


class LinksTemplate:
    """The links of a repository as JSON text with gaps for its name. It saves a third of the time of a page.

    :ivar has_html: whether the upstream's page is among them. On a Data Center its address needs more than
        the escaped name.
    """

    _GAP = "gap~gap/gap~gap"

    def __init__(self, links: ApiLinks) -> None:
        html = links.repository_html(self._GAP)
        self.has_html = html is not None and html.endswith(f"/{self._GAP}")
        made = links.of_repository(self._GAP) | (hrefs(html=html) if self.has_html else {})
        self._parts = (msgspec.json.encode(made).removesuffix(b"}") + b",").split(self._GAP.encode())

    def filled(self, name: str, more: Json) -> msgspec.Raw:
        """Return the JSON for an escaped name, followed by the links in `more`."""
        return msgspec.Raw(name.encode().join(self._parts) + _ENCODER.encode(more)[1:])


links_template = lru_cache(maxsize=64)(LinksTemplate)


@lru_cache(maxsize=64)
def _links_at(links: ApiLinks, upstream: UpstreamRow) -> ApiLinks:
    return msgspec.structs.replace(links, pages=upstream.pages)


class Shapes:
    """Shapes of accounts and repositories, with the links of one request.

    :param whole: the caller wants all links of a repository, so they are rendered from a template.
    """

    def __init__(
        self,
        links: ApiLinks,
        *,
        whole: bool = False,
        upstreams: Upstreams | None = None,
        find_extra: FindExtra | None = None,
    ) -> None:
        self._links = links
        self._whole = whole
        self._upstreams = upstreams or {}
        self._find_extra = find_extra or (lambda _, __: None)
        self._shared = dict[int, tuple[Json, Json]]()

    def _at(self, upstream_id: int) -> ApiLinks:
        row = self._upstreams.get(upstream_id)
        return self._links if row is None else _links_at(self._links, row)

    def account(self, row: AccountRow) -> Json:
        """Shape a user or a team. Namespaces have a `username`, people a `nickname`."""
        extra, links = self._find_extra("account", row.id), self._at(row.upstream_id)
        if extra is not None:
            sent = changed(account_object(row, links.api, links.web), extra, links.api, links.web)
            if row.created_at is not None:
                sent.setdefault("created_on", moment(row.created_at))
            if row.username and isinstance(sent.get("links"), dict):
                sent["links"] = {**sent["links"], **hrefs(mirror=links.owner_page(row.username))}
            return sent
        shaped: Json = {
            "type": "team" if row.kind != "user" else "user",
            "display_name": row.display_name,
            "uuid": row.known_uuid,
        }
        if _is_namespace(row):
            shaped["username"] = row.username
        if row.nickname is not None:
            shaped["nickname"] = row.nickname
        if row.account_id is not None:
            shaped["account_id"] = row.account_id
        if row.created_at is not None:
            shaped["created_on"] = moment(row.created_at)
        shaped["links"] = self._account_links(row)
        return shaped

    def caller(self, row: AccountRow) -> Json:
        """Shape the caller's own account: the only one whose `username` Bitbucket tells since 2019."""
        shaped = self.account(row)
        return {**shaped, "username": row.username} if _is_namespace(row) else shaped

    def owner(self, row: AccountRow) -> Json:
        """Shape the owner of a repository.

        A workspace without an account becomes a team without a uuid, since its uuid is the workspace's.
        """
        shaped = self.account(row)
        if row.kind == "workspace":
            del shaped["uuid"]
        return shaped

    def team(self, row: AccountRow) -> Json:
        """Shape a team as ``/teams`` did."""
        slug = row.username or ""
        shaped = {**self.account(row), "type": "team", "kind": "team"}
        shaped["links"] = hrefs(
            self=f"{self._links.api}/teams/{segment(slug)}",
            repositories=f"{self._links.api}/repositories/{segment(slug)}",
            html=self._at(row.upstream_id).owner_html(slug),
            members=f"{self._links.workspace(slug)}/members",
            avatar=row.avatar_url,
        )
        return shaped

    def short_workspace(self, row: AccountRow) -> Json:
        """Shape a workspace as other objects embed it."""
        sent = self._sent_workspace(row)
        if sent is None:
            return {"type": "workspace", "name": row.display_name, **self._workspace_base(row)}
        links = {name: link for name, link in sent["links"].items() if name in ("self", "html", "avatar")}
        return {**{name: sent.get(name) for name in ("type", "uuid", "name", "slug")}, "links": links}

    def workspace(self, row: AccountRow) -> Json:
        """Shape a workspace in full. `is_private` is there if the upstream sent it."""
        slug = row.username or ""
        url = self._links.workspace(slug)
        shaped = self._sent_workspace(row) or {
            **self.short_workspace(row),
            "created_on": moment(row.created_at),
        }
        made = hrefs(
            members=f"{url}/members",
            owners=f"{url}/members?q=permission%3D%22owner%22",
            projects=f"{url}/projects",
            repositories=f"{self._links.api}/repositories/{segment(slug)}",
            snippets=f"{self._links.api}/snippets/{segment(slug)}",
            mirror=self._links.owner_page(slug),
        )
        shaped["links"] = {**made, **shaped["links"]}
        return shaped

    def _sent_workspace(self, row: AccountRow) -> Json | None:
        """Return a workspace as the upstream sent it; None if only its columns are known."""
        extra, links = self._find_extra("workspace", row.id), self._at(row.upstream_id)
        if extra is None:
            return None
        shaped = changed(workspace_object(row, links.api, links.web), extra, links.api, links.web)
        if not isinstance(shaped.get("links"), dict):
            shaped["links"] = self._workspace_base(row)["links"]
        return shaped

    def workspace_access(self, row: AccountRow, permission: str | None) -> Json:
        """Shape an item of ``user/workspaces``: the slug is nested, and there is no name."""
        return {
            "type": "workspace_access",
            "administrator": permission == "owner",
            "workspace": {"type": "workspace_base", **self._workspace_base(row)},
        }

    def membership(self, user: AccountRow, workspace: AccountRow, permission: str | None) -> Json:
        """Shape an item of a workspace's members."""
        identity = user.known_uuid or user.username or ""
        url = f"{self._links.workspace(workspace.username or '')}/members/{segment(identity)}"
        return {
            "type": "workspace_membership",
            "permission": permission,
            "user": self.account(user),
            "workspace": self.short_workspace(workspace),
            "links": hrefs(self=url),
        }

    def project(self, row: ProjectRow, workspace: AccountRow) -> Json:
        """Shape a project in full; `is_private` is null if the upstream does not report it."""
        slug = workspace.username or ""
        repositories = f"{self._links.api}/repositories/{segment(slug)}"
        query = segment(f'project.key="{row.key}"')
        links = self._at(row.upstream_id)
        shared = _project(links, workspace.username, row.key, row.name, row.known_uuid) or {}
        shaped: Json = {
            **shared,
            "description": row.description,
            "is_private": flag(row.is_private),
            "workspace": self.short_workspace(workspace),
            "owner": self.owner(workspace),
        }
        shaped["links"] = {
            **shared["links"],
            **hrefs(repositories=f"{repositories}?q={query}", avatar=row.avatar_url),
        }
        return shaped

    def _account_links(self, row: AccountRow) -> Json:
        slug = row.username or ""
        person = row.kind == "user"
        url = self._links.user(row.known_uuid or slug) if person else self._links.workspace(slug)
        return hrefs(
            self=url,
            html=self._at(row.upstream_id).owner_html(slug),
            mirror=self._links.owner_page(slug) if slug else None,
            avatar=row.avatar_url,
        )

    def _workspace_base(self, row: AccountRow) -> Json:
        slug = row.username or ""
        links = hrefs(
            self=self._links.workspace(slug),
            html=self._at(row.upstream_id).owner_html(slug),
            avatar=row.avatar_url,
        )
        return {"uuid": row.known_uuid, "slug": row.username, "links": links}

    def repository(self, row: RepositoryRow, owner: AccountRow, extra: Json | None = None) -> Json:
        """Shape a repository in full; with its extra, as the object that the upstream sent."""
        if extra is not None:
            return self._sent_repository(row, owner, extra)
        links = self._at(row.upstream_id)
        shared = self._shared.get(owner.id)
        if shared is None:
            shared = self._shared[owner.id] = _owned_by(links, owner)
        account, workspace = shared
        main = {"type": "named_branch" if row.scm == "hg" else "branch", "name": row.main_branch}
        shaped: Json = {
            "type": "repository",
            "uuid": row.known_uuid,
            "full_name": row.full_name,
            "name": row.name,
            "slug": row.slug,
            "description": row.description,
            "scm": row.scm,
            "website": row.website,
            "owner": account,
            "workspace": workspace,
            "is_private": row.is_private != 0,
            "project": _project(
                links, owner.username, row.project_key, row.project_name, known_uuid(row.project_uuid)
            ),
            "fork_policy": row.fork_policy,
            "created_on": moment(row.created_at),
            "updated_on": moment(row.updated_at),
            "size": row.size,
            "language": row.language,
            "has_issues": flag(row.has_issues),
            "has_wiki": flag(row.has_wiki),
            "mainbranch": None if row.main_branch is None else main,
            "parent": self._parent(row),
            "links": self._repository_links(row),
        }
        # Bitbucket dropped these keys. The mirror serves them if the upstream sent a value.
        if row.followers_count is not None:
            shaped["followers_count"] = row.followers_count
        if row.forks_count is not None:
            shaped["forks_count"] = row.forks_count
        if row.archived is not None:
            shaped["archived"] = row.archived != 0
        return shaped

    def _sent_repository(self, row: RepositoryRow, owner: AccountRow, extra: Json) -> Json:
        """Restore the object that the upstream sent, without what the caller may not know of a parent."""
        links = self._at(row.upstream_id)
        if row.parent_full_name is None and extra.get("parent") != []:
            extra = {key: change for key, change in extra.items() if key != "parent"}
        shaped = changed(repository_object(row, owner, links.api, links.web), extra, links.api, links.web)
        shaped["is_private"] = row.is_private != 0
        if isinstance(shaped.get("links"), dict):
            shaped["links"] = {**shaped["links"], **hrefs(mirror=links.repository_page(row.full_name))}
        if row.archived is not None:
            shaped["archived"] = row.archived != 0
        return shaped

    def short_repository(self, row: RepositoryRow) -> Json:
        """Shape a repository as other objects embed it, without slug and owner."""
        return {
            "type": "repository",
            "uuid": row.known_uuid,
            "full_name": row.full_name,
            "name": row.name,
            "links": hrefs(
                self=self._links.repository(row.full_name),
                html=self._at(row.upstream_id).repository_html(row.full_name),
                avatar=row.avatar_url,
            ),
        }

    def permission(self, user: AccountRow, row: RepositoryRow, permission: str) -> Json:
        """Shape an item of ``user/permissions/repositories``."""
        return {
            "type": "repository_permission",
            "permission": permission,
            "user": self.account(user),
            "repository": self.short_repository(row),
        }

    def _parent(self, row: RepositoryRow) -> Json | None:
        """Shape the parent of a fork, with the name that the upstream gives it."""
        if row.parent_uuid is None and row.parent_full_name is None:
            return None
        full_name = row.parent_full_name
        links: Json = {}
        if full_name:
            page = self._at(row.upstream_id).repository_html(full_name)
            links = hrefs(self=self._links.repository(full_name), html=page)
        shaped: Json = {"type": "repository", "full_name": full_name, "links": links}
        if row.parent_name is not None:
            shaped["name"] = row.parent_name
        if known_uuid(row.parent_uuid) is not None:
            shaped["uuid"] = row.parent_uuid
        return shaped

    def _repository_links(self, row: RepositoryRow) -> Json | msgspec.Raw:
        """Return the links of a repository, from the template if the caller wants all of them."""
        clone = [
            {"name": name, "href": href}
            for name, href in (("https", row.clone_https), ("ssh", row.clone_ssh))
            if href is not None
        ]
        links = self._at(row.upstream_id)
        own: Json = {"clone": clone}
        if row.avatar_url is not None:
            own["avatar"] = {"href": row.avatar_url}
        # A name has no page if one of its parts cannot stand in an address.
        template = links_template(links) if self._whole and "/." not in f"/{row.full_name}" else None
        if template is not None and template.has_html:
            return template.filled(escaped(row.full_name), own)
        own |= hrefs(html=links.repository_html(row.full_name))
        if template is not None:
            return template.filled(escaped(row.full_name), own)
        return {**links.of_repository(row.full_name), **own}


def _is_namespace(row: AccountRow) -> bool:
    """Return whether the name of an account is more than a nickname."""
    return row.username is not None and bool(row.is_owner or row.username != row.nickname)


@lru_cache(maxsize=2048)
def _owned_by(links: ApiLinks, owner: AccountRow) -> tuple[Json, Json]:
    """Shape the account and the workspace of an owner. Rows share them, so callers must not change them."""
    shapes = Shapes(links)
    return shapes.owner(owner), shapes.short_workspace(owner)


@lru_cache(maxsize=2048)
def _project(
    links: ApiLinks, owner: str | None, key: str | None, name: str | None, uuid: str | None
) -> Json | None:
    """Shape a project. Rows share it, so callers must not change it."""
    if key is None and name is None and uuid is None:
        return None
    url = f"{links.workspace(owner or '')}/projects/{segment(key or '')}"
    return {
        "type": "project",
        "key": key,
        "uuid": uuid,
        "name": name,
        "links": hrefs(self=url, html=links.project_html(owner or "", key or "")),
    }
