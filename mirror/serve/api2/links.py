"""The links of API 2.0: addresses of its objects, escaped as Bitbucket escapes them."""

import re
from functools import lru_cache
from urllib.parse import quote

import msgspec

from mirror.serve.exchange import Json

_ENCODER = msgspec.json.Encoder()
_CHILDREN = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")
# Bitbucket leaves these unescaped in its links, but escapes quotes, spaces and #.
_UNESCAPED = "/$;&=@!,:+"
# A page has a thousand links, most of them plain. This check costs a fifth of calling quote().
_PLAIN = re.compile(r"[\w./~-]*", re.ASCII)
_UUID = re.compile(r"\{[\w-]*\}", re.ASCII)


class ApiLinks(msgspec.Struct, frozen=True):
    """Makes the links in one answer: to the API at `api`, and to the HTML pages at `origin`."""

    origin: str
    api: str

    def repository_page(self, full_name: str) -> str:
        """The HTML page of a repository."""
        return f"{self.origin}/-/r/{escaped(full_name)}"

    def owner_page(self, username: str) -> str:
        """The HTML page of an owner."""
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

    def of_repository(self, full_name: str) -> Json:
        """All links of a repository that follow from its name."""
        here = self.repository(full_name)
        return hrefs(
            self=here,
            html=self.repository_page(full_name),
            **{name: f"{here}/{name}" for name in _CHILDREN},
            branches=f"{here}/refs/branches",
            tags=f"{here}/refs/tags",
            source=f"{here}/src",
        )


def escaped(text: str) -> str:
    """Escape a name for an address, only as far as Bitbucket does."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_UNESCAPED)


def segment(text: str) -> str:
    """Escape a text as one segment of an address."""
    if _UUID.fullmatch(text):
        return f"%7B{text[1:-1]}%7D"
    return text if _PLAIN.fullmatch(text) and "/" not in text else quote(text, safe="")


def hrefs(**addresses: str | None) -> Json:
    """Return links by name, as every object of API 2.0 has them; an address that is None is left out."""
    return {name: {"href": address} for name, address in addresses.items() if address is not None}


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
