"""The objects of Data Center's API, from rows, and the addresses of what the upstreams hold: pure functions.

Objects have the keys of recorded answers. What the mirror does not know is left out: clients must expect that
of most keys, as old servers lack them.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from mirror.addresses import PERSONAL
from mirror.queries.accounts import ProjectDetails, is_personal, key_of
from mirror.queries.rows import AccountRow, RefRow, RepositoryRow, Upstreams
from mirror.serve.exchange import Json
from mirror.times import from_text

# Bitbucket Cloud's names for resources below a repository.
_ON_CLOUD = tuple(
    (re.compile(here), there)
    for here, there in (
        (r"branches", "refs/branches"),
        (r"browse", "src"),
        (r"commits", "commits"),
        (r"commits/([^/]+)", r"commit/\1"),
        (r"files", "src"),
        (r"pull-requests(/\d+)?", r"pullrequests\1"),
        (r"tags(/.+)?", r"refs/tags\1"),
        (r"webhooks", "hooks"),
    )
)

LATEST = "com.atlassian.bitbucket.server.bitbucket-branch:latest-commit-metadata"
FIRST_NUMBER = 2**30  # added to row ids, for objects without a number of their own
SCM = "git"
_OWN_NUMBER = re.compile(r"(?:id|user):(\d{1,10})", re.ASCII)
_AUTHOR = re.compile(r"(.*) <([^<>]+)>", re.DOTALL)
_SHORT_HASH = 11
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PERMISSIONS = {"owner": "PROJECT_ADMIN", "collaborator": "PROJECT_WRITE", "member": "PROJECT_READ"}
_TELLS_ANNOTATIONS = frozenset({"cloud", "sandbox"})


class Resource(NamedTuple):
    """An address of the upstream's API. `is_same`: it has what was requested, not just what contains it."""

    address: str
    is_same: bool


class Addresses(msgspec.Struct, frozen=True):
    """The addresses of what the upstreams hold; `upstreams` maps the ids of their rows to them."""

    upstreams: Upstreams

    def project_page(self, upstream_id: int, key: str) -> str | None:
        """Return the web page of a project or a workspace."""
        return self.upstreams[upstream_id].pages.owner(key)

    def repository_page(self, upstream_id: int, full_name: str) -> str | None:
        """Return the web page of a repository."""
        return self.upstreams[upstream_id].pages.repository(full_name)

    def below_project(self, upstream_id: int, key: str, rest: str) -> Resource:
        """Return the address of something below a project. Cloud has nothing there."""
        url = self._url(upstream_id)
        if self._is_datacenter(upstream_id):
            return Resource(f"{url}/projects/{_segment(key)}/{_escaped(rest)}", is_same=True)
        owners = "users" if url.endswith("/1.0") else "workspaces"
        return Resource(f"{url}/{owners}/{_workspace(key)}", is_same=False)

    def below_repository(self, upstream_id: int, key: str, slug: str, rest: str) -> Resource:
        """Return the address of something below a repository; Cloud may have another name for it."""
        url = self._url(upstream_id)
        if self._is_datacenter(upstream_id):
            address = f"{url}/projects/{_segment(key)}/repos/{_segment(slug)}/{_escaped(rest)}"
            return Resource(address, is_same=True)
        base = f"{url}/repositories/{_workspace(key)}/{_segment(slug)}"
        for pattern, there in _ON_CLOUD:
            found = pattern.fullmatch(rest)
            if found:
                return Resource(f"{base}/{_escaped(found.expand(there))}", is_same=True)
        return Resource(base, is_same=False)

    def of_other_api(self, upstream_id: int, names: Sequence[str], near: Resource) -> Resource:
        """Return where a Data Center has a path of another API; `near` is what other upstreams have."""
        if not self._is_datacenter(upstream_id):
            return near._replace(is_same=False)
        root = self._url(upstream_id).partition("/rest/api/")[0]
        return Resource(f"{root}/rest/{_escaped('/'.join(names))}", is_same=True)

    def _is_datacenter(self, upstream_id: int) -> bool:
        return self.upstreams[upstream_id].kind == "datacenter"

    def _url(self, upstream_id: int) -> str:
        return self.upstreams[upstream_id].url.rstrip("/")


def _workspace(key: str) -> str:
    return _segment(key.removeprefix(PERSONAL))


def _segment(text: str) -> str:
    return quote(text, safe="~")


def _escaped(path: str) -> str:
    return quote(path, safe="/~")


class CenterShapes:
    """Shapes for one request.

    Ids are those of the upstream if it is a Data Center, or the first of several. All others are row ids plus
    `FIRST_NUMBER`: clients take an id for an identity, so two objects must never share one.

    :param origin: the mirror's own address.
    :param upstreams: all upstreams, by the ids of their rows.
    """

    def __init__(self, origin: str, upstreams: Upstreams) -> None:
        self.addresses = Addresses(upstreams)
        self._origin = origin
        self._upstreams = upstreams
        self._numbering = next((row.id for row in upstreams.values() if row.kind == "datacenter"), None)

    def project(self, row: AccountRow, known: ProjectDetails) -> Json:
        """Shape a project; a personal one has its owner in the place of `public`."""
        key = key_of(row)
        shaped: Json = {
            "key": key,
            "id": self._number(row.upstream_id, row.uuid, row.id),
            "name": row.display_name or row.username,
        }
        if known.description is not None:
            shaped["description"] = known.description
        if is_personal(row):
            shaped |= {"type": "PERSONAL", "owner": self.user(row)}
        else:
            shaped |= {"public": known.is_public != 0, "type": "NORMAL"}
        page = f"{self._origin}/-/u/{quote(row.username or '', safe='~')}"
        shaped["links"] = _links(self.addresses.project_page(row.upstream_id, key), page)
        return shaped

    def repository(self, row: RepositoryRow, project: Json, origin: Json | None = None) -> Json:
        """Shape a repository in its project; `origin` is its parent, in the same form."""
        shaped: Json = {
            "slug": row.slug,
            "id": self._number(row.upstream_id, row.uuid, row.id),
            "name": row.name,
        }
        if row.description is not None:
            shaped["description"] = row.description
        shaped |= {"scmId": row.scm or SCM, "state": "AVAILABLE", "statusMessage": "Available"}
        if row.fork_policy is not None:
            shaped["forkable"] = row.fork_policy != "no_forks"
        if origin is not None:
            shaped["origin"] = origin
        shaped |= {"project": project, "public": row.is_private == 0}
        if row.archived is not None:
            shaped["archived"] = row.archived != 0
        clone = [
            {"href": href, "name": name}
            for name, href in (("http", row.clone_https), ("ssh", row.clone_ssh))
            if href is not None
        ]
        page = self.addresses.repository_page(row.upstream_id, row.full_name)
        mirror_page = f"{self._origin}/-/r/{quote(row.full_name, safe='/~')}"
        shaped["links"] = {"clone": clone, **_links(page, mirror_page)}
        return shaped

    def unmirrored(self, row: RepositoryRow) -> Json | None:
        """Shape a parent that is known only by its name; None if the caller may not see one."""
        key, _, slug = (row.unmirrored_parent or "").partition("/")
        if not slug:
            return None
        own = _OWN_NUMBER.fullmatch(row.parent_uuid or "")
        number = {"id": int(own[1])} if own and row.upstream_id == self._numbering else {}
        return {"slug": slug, **number, "name": slug, "project": {"key": key}}

    def user(self, row: AccountRow) -> Json:
        """Shape a person; e-mail addresses are not mirrored.

        A person who is known only by a personal project has no id: the known one is the project's.
        """
        name = (row.username or "").removeprefix(PERSONAL)
        shaped: Json = {"name": name}
        if name == row.username:
            shaped["id"] = self._number(row.upstream_id, row.uuid, row.id)
        page = self.addresses.project_page(row.upstream_id, f"{PERSONAL}{name}")
        return shaped | {
            "displayName": row.display_name or name,
            "active": row.deleted_at is None,
            "slug": name.lower(),
            "type": "NORMAL",
            "links": _links(page, f"{self._origin}/-/u/{quote(row.username or '', safe='~')}"),
        }

    def right(self, row: AccountRow, permission: str | None) -> Json:
        """Shape a person's right on a project; `permission` is missing if it is unknown."""
        known = {"permission": _PERMISSIONS[permission]} if permission in _PERMISSIONS else {}
        return {"user": self.user(row), **known}

    def ref(self, repository: RepositoryRow, row: RefRow, *, details: bool = False) -> Json:
        """Shape a branch or a tag. With `details` a branch has its latest commit.

        The `hash` of a tag is null if the tag has no annotation. The hash of an annotation is not mirrored.
        """
        is_tag = row.kind == "tag"
        shaped: Json = {
            "id": f"refs/{'tags' if is_tag else 'heads'}/{row.name}",
            "displayId": row.name,
            "type": "TAG" if is_tag else "BRANCH",
            "latestCommit": row.target_hash,
            "latestChangeset": row.target_hash,
        }
        if not is_tag:
            shaped["isDefault"] = row.name == repository.main_branch
        elif self._is_plain(repository, row):
            shaped["hash"] = None
        if details and not is_tag and (row.target_date is not None or row.target_author is not None):
            shaped["metadata"] = {LATEST: self.commit(row)}
        return shaped

    def commit(self, row: RefRow) -> Json:
        """Shape the commit that a branch or a tag points to. There is one date, used as the author's."""
        shaped: Json = {"id": row.target_hash, "displayId": row.target_hash[:_SHORT_HASH]}
        author: Json = {}
        if row.target_author is not None:
            found = _AUTHOR.fullmatch(row.target_author)
            author |= {"name": found[1], "emailAddress": found[2]} if found else {"name": row.target_author}
        if row.target_author_name is not None:
            author["displayName"] = row.target_author_name
        if author:
            shaped["author"] = author
        if row.target_date is not None:
            shaped["authorTimestamp"] = (from_text(row.target_date) - _EPOCH) // timedelta(milliseconds=1)
        if row.target_message is not None:
            shaped["message"] = row.target_message
        if row.target_parents is not None:
            hashes = json.loads(row.target_parents)
            shaped["parents"] = [{"id": one, "displayId": one[:_SHORT_HASH]} for one in hashes]
        return shaped

    def _is_plain(self, repository: RepositoryRow, row: RefRow) -> bool:
        """Return whether a tag is known to have no annotation."""
        known = (
            row.target_date is not None and self._upstreams[repository.upstream_id].kind in _TELLS_ANNOTATIONS
        )
        return known and row.tagger is None and row.message is None and row.date is None

    def _number(self, upstream_id: int, uuid: str, row_id: int) -> int:
        own = _OWN_NUMBER.fullmatch(uuid) if upstream_id == self._numbering else None
        return int(own[1]) if own else FIRST_NUMBER + row_id


def _links(upstream: str | None, mirror: str) -> Json:
    return {"self": [{"href": upstream or mirror}], "mirror": [{"href": mirror}]}
