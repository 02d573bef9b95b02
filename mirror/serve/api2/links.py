"""The links of API 2.0: addresses of its objects, escaped as Bitbucket escapes them."""

from functools import lru_cache

import msgspec

from mirror.addresses import escaped, hrefs, segment
from mirror.queries.web_pages import WebPages
from mirror.serve.exchange import Json

_ENCODER = msgspec.json.Encoder()
_CHILDREN = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")


class ApiLinks(msgspec.Struct, frozen=True):
    """Makes the links in one answer: to the API at `api`, to the pages of the mirror at `origin`.

    HTML links lead to the upstream's `pages`; where it has none for a name, to the mirror's.
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
        """All links of a repository to this server, which follow from its name."""
        here = self.repository(full_name)
        return hrefs(
            self=here,
            mirror=self.repository_page(full_name),
            **{name: f"{here}/{name}" for name in _CHILDREN},
            branches=f"{here}/refs/branches",
            tags=f"{here}/refs/tags",
            source=f"{here}/src",
        )


class LinksTemplate:
    """The links of a repository as JSON text with gaps for its name. It saves a third of a page's time.

    :ivar has_html: whether the upstream's page is among them: on a Data Center its address needs more than
        the escaped name.
    """

    _GAP = "gap~gap/gap~gap"

    def __init__(self, links: ApiLinks) -> None:
        html = links.repository_html(self._GAP)
        self.has_html = html is not None and html.endswith(f"/{self._GAP}")
        told = links.of_repository(self._GAP) | (hrefs(html=html) if self.has_html else {})
        self._parts = (msgspec.json.encode(told).removesuffix(b"}") + b",").split(self._GAP.encode())

    def filled(self, name: str, more: Json) -> msgspec.Raw:
        """Return the JSON for an escaped name, followed by the links in `more`."""
        return msgspec.Raw(name.encode().join(self._parts) + _ENCODER.encode(more)[1:])


links_template = lru_cache(maxsize=64)(LinksTemplate)
