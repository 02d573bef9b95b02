"""The links of API 2.0: addresses of its objects, escaped as Bitbucket escapes them."""

from functools import lru_cache

import msgspec

from mirror.addresses import escaped, hrefs, segment
from mirror.serve.exchange import Json

_ENCODER = msgspec.json.Encoder()
_CHILDREN = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")


class ApiLinks(msgspec.Struct, frozen=True):
    """Makes the links in one answer: to the API at `api`, to the pages of the mirror at `origin`.

    HTML links lead to the upstream's pages at `web`, in the form of its `kind`; without one to the mirror's.
    """

    origin: str
    api: str
    web: str = ""
    kind: str = "cloud"

    def repository_page(self, full_name: str) -> str:
        """The mirror's page of a repository."""
        return f"{self.origin}/-/r/{escaped(full_name)}"

    def owner_page(self, username: str) -> str:
        """The mirror's page of an owner."""
        return f"{self.origin}/-/u/{segment(username)}"

    def repository_html(self, full_name: str) -> str:
        """The upstream's page of a repository."""
        if not self.web:
            return self.repository_page(full_name)
        if self.kind == "datacenter":
            project, _, slug = full_name.partition("/")
            return f"{self.web}/projects/{segment(project)}/repos/{segment(slug)}"
        return f"{self.web}/{escaped(full_name)}"

    def owner_html(self, username: str) -> str:
        """The upstream's page of a workspace or a user."""
        if not self.web:
            return self.owner_page(username)
        owned = f"projects/{segment(username)}" if self.kind == "datacenter" else f"{segment(username)}/"
        return f"{self.web}/{owned}"

    def project_html(self, owner: str, key: str) -> str:
        """The upstream's page of a project."""
        if self.kind == "datacenter" or not self.web:
            return self.owner_html(owner)
        return f"{self.web}/{segment(owner)}/workspace/projects/{segment(key)}"

    def ref_html(self, full_name: str, kind: str, name: str) -> str:
        """The upstream's page of a branch or a tag."""
        page = self.repository_html(full_name)
        if not self.web:
            return page
        folder = "tags" if kind == "tag" else "heads"
        if self.kind == "datacenter":
            return f"{page}/browse?at={segment(f'refs/{folder}/{name}')}"
        return f"{page}/{'commits/tag' if kind == 'tag' else 'branch'}/{escaped(name)}"

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
        """All links of a repository that follow from its name."""
        here = self.repository(full_name)
        return hrefs(
            self=here,
            html=self.repository_html(full_name),
            mirror=self.repository_page(full_name),
            **{name: f"{here}/{name}" for name in _CHILDREN},
            branches=f"{here}/refs/branches",
            tags=f"{here}/refs/tags",
            source=f"{here}/src",
        )


class LinksTemplate:
    """The links of a repository as JSON text with gaps for its name. It saves a third of a page's time."""

    _GAP = "gap~gap/gap~gap"

    def __init__(self, links: ApiLinks) -> None:
        text = msgspec.json.encode(links.of_repository(self._GAP))
        self._parts = (text.removesuffix(b"}") + b",").split(self._GAP.encode())

    def filled(self, name: str, more: Json) -> msgspec.Raw:
        """Return the JSON for an escaped name, followed by the links in `more`."""
        return msgspec.Raw(name.encode().join(self._parts) + _ENCODER.encode(more)[1:])


links_template = lru_cache(maxsize=64)(LinksTemplate)
