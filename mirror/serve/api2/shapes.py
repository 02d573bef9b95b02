"""The objects of API 2.0, from rows: pure, with the keys and nulls of recorded answers.

What the mirror does not know is null, or absent where Bitbucket leaves it out as well (docs/api-2.0.md).
"""

import json
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from mirror.queries.rows import AccountRow, RefRow, RepositoryRow, known_uuid

# As Bitbucket writes them in links: quotes, spaces and # are escaped, these are not.
_UNESCAPED = "/$;&=@!,:+"
# A page has a thousand links, nearly all of them plain: looking costs a fifth of quoting.
_PLAIN = re.compile(r"[\w./~-]*", re.ASCII)
_UUID = re.compile(r"\{[\w-]*\}", re.ASCII)


class ApiLinks(msgspec.Struct, frozen=True):
    """Makes links for one request: to its API, at `api`, and to the pages for people, at `origin`."""

    origin: str
    api: str

    def repository_page(self, full_name: str) -> str:
        """The page of a repository, for people."""
        return f"{self.origin}/-/r/{escaped(full_name)}"

    def owner_page(self, username: str) -> str:
        """The page of an owner, for people."""
        return f"{self.origin}/-/u/{segment(username)}"

    def repository(self, full_name: str) -> str:
        """The address of a repository."""
        return f"{self.api}/repositories/{escaped(full_name)}"

    def user(self, identity: str) -> str:
        """The address of a user, by uuid or by name."""
        return f"{self.api}/users/{segment(identity)}"

    def workspace(self, slug: str) -> str:
        """The address of a workspace."""
        return f"{self.api}/workspaces/{segment(slug)}"


def escaped(text: str) -> str:
    """Write a name into an address half escaped, as Bitbucket does."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_UNESCAPED)


def segment(text: str) -> str:
    """Write a text as one segment of an address."""
    if _UUID.fullmatch(text):
        return f"%7B{text[1:-1]}%7D"
    return text if _PLAIN.fullmatch(text) and "/" not in text else quote(text, safe="")


Json = dict[str, Any]


def moment(text: str | None) -> str | None:
    """Write a moment as Bitbucket does: with an offset, and six digits, without which old clients fail."""
    return None if text is None else f"{text[:-1]}+00:00"


def seconds(text: str | None) -> str | None:
    """Write the date of a commit or a tag as Bitbucket does: git knows no fractions."""
    if text is None or not text.endswith(".000000Z"):
        return moment(text)
    return f"{text[:19]}+00:00"


def avatar(href: str | None) -> Json:
    """Give the link to a picture, where there is one: nobody here makes pictures up."""
    return {} if href is None else {"avatar": {"href": href}}


class AccountShapes:
    """Shapes with links for one request."""

    def __init__(self, links: ApiLinks) -> None:
        self._links = links

    def account(self, row: AccountRow) -> Json:
        """Give a user or a team: `username` for namespaces, `nickname` for people."""
        shaped: Json = {
            "type": "team" if row.kind != "user" else "user",
            "display_name": row.display_name,
            "uuid": row.known_uuid,
        }
        if row.username is not None and (row.is_owner or row.username != row.nickname):
            shaped["username"] = row.username
        if row.nickname is not None:
            shaped["nickname"] = row.nickname
        if row.account_id is not None:
            shaped["account_id"] = row.account_id
        if row.created_at is not None:
            shaped["created_on"] = moment(row.created_at)
        shaped["links"] = self._account_links(row)
        return shaped

    def owner(self, row: AccountRow) -> Json:
        """Give the owner of a repository.

        A workspace that no account stands behind is a team without uuid, for the uuid is the workspace's.
        """
        shaped = self.account(row)
        if row.kind == "workspace":
            del shaped["uuid"]
        return shaped

    def full_user(self, row: AccountRow) -> Json:
        """Give a user as they are asked for alone."""
        return self.account(row)

    def team(self, row: AccountRow) -> Json:
        """Give a team as ``/teams`` did."""
        slug = row.username or ""
        shaped = {**self.account(row), "type": "team", "kind": "team"}
        here = f"{self._links.api}/teams/{segment(slug)}"
        shaped["links"] = {
            "self": {"href": here},
            "repositories": {"href": f"{self._links.api}/repositories/{segment(slug)}"},
            "html": {"href": self._links.owner_page(row.username or "")},
            "members": {"href": f"{self._links.workspace(slug)}/members"},
            **avatar(row.avatar_url),
        }
        return shaped

    def short_workspace(self, row: AccountRow) -> Json:
        """Give the workspace that others embed."""
        return {"type": "workspace", "name": row.display_name, **self._workspace_base(row)}

    def workspace(self, row: AccountRow) -> Json:
        """Give a workspace in full; whether it is private is not mirrored, so that key is left out."""
        slug = row.username or ""
        here = self._links.workspace(slug)
        shaped = self.short_workspace(row)
        shaped["created_on"] = moment(row.created_at)
        shaped["links"] |= {
            "members": {"href": f"{here}/members"},
            "owners": {"href": f"{here}/members?q=permission%3D%22owner%22"},
            "projects": {"href": f"{here}/projects"},
            "repositories": {"href": f"{self._links.api}/repositories/{segment(slug)}"},
            "snippets": {"href": f"{self._links.api}/snippets/{segment(slug)}"},
        }
        return shaped

    def workspace_access(self, row: AccountRow, permission: str | None) -> Json:
        """Give an item of the caller's workspaces: the slug is nested, and there is no name."""
        return {
            "type": "workspace_access",
            "administrator": permission == "owner",
            "workspace": {"type": "workspace_base", **self._workspace_base(row)},
        }

    def membership(self, user: AccountRow, workspace: AccountRow, permission: str | None) -> Json:
        """Give an item of a workspace's members."""
        identity = user.known_uuid or user.username or ""
        here = f"{self._links.workspace(workspace.username or '')}/members/{segment(identity)}"
        return {
            "type": "workspace_membership",
            "permission": permission,
            "user": self.account(user),
            "workspace": self.short_workspace(workspace),
            "links": {"self": {"href": here}},
        }

    def _account_links(self, row: AccountRow) -> Json:
        slug = row.username or ""
        person = row.kind == "user"
        here = self._links.user(row.known_uuid or slug) if person else self._links.workspace(slug)
        return {
            "self": {"href": here},
            "html": {"href": self._links.owner_page(row.username or "")},
            **avatar(row.avatar_url),
        }

    def _workspace_base(self, row: AccountRow) -> Json:
        return {
            "uuid": row.known_uuid,
            "slug": row.username,
            "links": {
                "self": {"href": self._links.workspace(row.username or "")},
                "html": {"href": self._links.owner_page(row.username or "")},
                **avatar(row.avatar_url),
            },
        }


_CHILDREN = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")


class Shapes(AccountShapes):
    """Shapes for one request; `whole` where nothing is picked out of the links in them."""

    def __init__(self, links: ApiLinks, *, whole: bool = False) -> None:
        super().__init__(links)
        self._stencil = _stencil(links) if whole else None
        self._shared = dict[int, tuple[Json, Json]]()

    def repository(self, row: RepositoryRow, owner: AccountRow) -> Json:
        """Give the full object."""
        shared = self._shared.get(owner.id)
        if shared is None:
            shared = self._shared[owner.id] = _owned_by(self._links, owner)
        account, workspace = shared
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
                self._links, owner.username, row.project_key, row.project_name, known_uuid(row.project_uuid)
            ),
            "fork_policy": row.fork_policy,
            "created_on": moment(row.created_at),
            "updated_on": moment(row.updated_at),
            "size": row.size,
            "language": row.language,
            "has_issues": _flag(row.has_issues),
            "has_wiki": _flag(row.has_wiki),
            "mainbranch": _main_branch(row),
            "parent": self._parent(row),
            "links": self._repository_links(row),
        }
        # Bitbucket has no such keys any more: an extension, for those who told.
        if row.followers_count is not None:
            shaped["followers_count"] = row.followers_count
        if row.forks_count is not None:
            shaped["forks_count"] = row.forks_count
        if row.archived is not None:
            shaped["archived"] = row.archived != 0
        return shaped

    def short_repository(self, row: RepositoryRow) -> Json:
        """Give the object that others embed: without slug and owner."""
        return {
            "type": "repository",
            "uuid": row.known_uuid,
            "full_name": row.full_name,
            "name": row.name,
            "links": {
                "self": {"href": self._links.repository(row.full_name)},
                "html": {"href": self._links.repository_page(row.full_name)},
                **avatar(row.avatar_url),
            },
        }

    def permission(self, user: AccountRow, row: RepositoryRow, permission: str) -> Json:
        """Give an item of the caller's repositories."""
        return {
            "type": "repository_permission",
            "permission": permission,
            "user": self.account(user),
            "repository": self.short_repository(row),
        }

    def ref(self, repository: RepositoryRow, row: RefRow) -> Json:
        """Give a branch or a tag with its target."""
        here, name = self._links.repository(repository.full_name), escaped(row.name)
        is_tag = row.kind == "tag"
        shaped: Json = {
            "name": row.name,
            "type": "tag" if is_tag else "branch" if row.heads is None else "named_branch",
            "target": self._target(repository, row),
            "links": {
                "self": {"href": f"{here}/refs/{'tags' if is_tag else 'branches'}/{name}"},
                "commits": {"href": f"{here}/commits/{name}"},
                "html": {"href": self._links.repository_page(repository.full_name)},
            },
        }
        if is_tag:
            tagger = None if row.tagger is None else {"type": "author", "raw": row.tagger}
            shaped |= {"message": row.message, "date": seconds(row.date), "tagger": tagger}
        elif row.heads is not None:
            shaped["heads"] = [self._commit(here, one) for one in json.loads(row.heads)]
        return shaped

    def _target(self, repository: RepositoryRow, row: RefRow) -> Json:
        here = self._links.repository(repository.full_name)
        parents = None if row.target_parents is None else json.loads(row.target_parents)
        return {
            **self._commit(here, row.target_hash),
            "date": seconds(row.target_date),
            "author": self._author(row),
            "message": row.target_message,
            "parents": None if parents is None else [self._commit(here, one) for one in parents],
            "repository": self.short_repository(repository),
        }

    def _author(self, row: RefRow) -> Json | None:
        """Give the author of a target: the line of the commit, and the account behind it if there is one."""
        if row.target_author is None and row.target_author_name is None and row.target_author_uuid is None:
            return None
        shaped: Json = {"type": "author", "raw": row.target_author}
        if row.target_author_name is not None or row.target_author_uuid is not None:
            user: Json = {"type": "user", "display_name": row.target_author_name}
            if row.target_author_uuid is not None:
                user["uuid"] = row.target_author_uuid
                user["links"] = {"self": {"href": self._links.user(row.target_author_uuid)}}
            shaped["user"] = user
        return shaped

    def _commit(self, repository: str, name: str) -> Json:
        return {
            "type": "commit",
            "hash": name,
            "links": {"self": {"href": f"{repository}/commit/{name}"}},
        }

    def _parent(self, row: RepositoryRow) -> Json | None:
        """Give what a repository was forked from, as its upstream named it."""
        if row.parent_uuid is None and row.parent_full_name is None:
            return None
        full_name = row.parent_full_name
        links: Json = {}
        if full_name:
            links["self"] = {"href": self._links.repository(full_name)}
            links["html"] = {"href": self._links.repository_page(full_name)}
        shaped: Json = {
            "type": "repository",
            "full_name": full_name,
            "links": links,
        }
        if row.parent_name is not None:
            shaped["name"] = row.parent_name
        if known_uuid(row.parent_uuid) is not None:
            shaped["uuid"] = row.parent_uuid
        return shaped

    def _repository_links(self, row: RepositoryRow) -> Json | msgspec.Raw:
        """Give the links of a repository; where nothing is picked out of them, as text that is filled in."""
        clone = [
            {"name": name, "href": href}
            for name, href in (("https", row.clone_https), ("ssh", row.clone_ssh))
            if href is not None
        ]
        own: Json = {"clone": clone} if row.avatar_url is None else {"clone": clone, **avatar(row.avatar_url)}
        if self._stencil is not None:
            return self._stencil.filled(escaped(row.full_name), own)
        return {**_links_of_repository(self._links, row.full_name), **own}


def _links_of_repository(links: ApiLinks, full_name: str) -> Json:
    """Return the links that a repository's name makes."""
    here = links.repository(full_name)
    return {
        "self": {"href": here},
        "html": {"href": links.repository_page(full_name)},
        **{name: {"href": f"{here}/{name}"} for name in _CHILDREN},
        "branches": {"href": f"{here}/refs/branches"},
        "tags": {"href": f"{here}/refs/tags"},
        "source": {"href": f"{here}/src"},
    }


_encode = msgspec.json.Encoder().encode


class _Stencil:
    """The links of a repository as JSON with holes for its name: a third of a page's time is saved by it."""

    _HOLE = "hole~hole/hole~hole"

    def __init__(self, links: ApiLinks) -> None:
        text = msgspec.json.encode(_links_of_repository(links, self._HOLE))
        self._parts = (text.removesuffix(b"}") + b",").split(self._HOLE.encode())

    def filled(self, name: str, more: Json) -> msgspec.Raw:
        """Return the JSON for an escaped name, with `more` behind it."""
        return msgspec.Raw(name.encode().join(self._parts) + _encode(more)[1:])


_stencil = lru_cache(maxsize=64)(_Stencil)


@lru_cache(maxsize=2048)
def _owned_by(links: ApiLinks, owner: AccountRow) -> tuple[Json, Json]:
    """Return the account and the workspace of an owner, which rows of a page share; not to be changed."""
    shapes = Shapes(links)
    return shapes.owner(owner), shapes.short_workspace(owner)


@lru_cache(maxsize=2048)
def _project(
    links: ApiLinks, owner: str | None, key: str | None, name: str | None, uuid: str | None
) -> Json | None:
    """Return a project, which many repositories share; not to be changed."""
    if key is None and name is None and uuid is None:
        return None
    here = f"{links.workspace(owner or '')}/projects/{segment(key or '')}"
    return {
        "type": "project",
        "key": key,
        "uuid": uuid,
        "name": name,
        "links": {"self": {"href": here}, "html": {"href": links.owner_page(owner or "")}},
    }


def _main_branch(row: RepositoryRow) -> Json | None:
    if row.main_branch is None:
        return None
    return {"type": "named_branch" if row.scm == "hg" else "branch", "name": row.main_branch}


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
