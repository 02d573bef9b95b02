"""Addresses in answers: all of them on the server that was asked, under the prefix that was used."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from mirror.serve.answers import ApiError

# As Bitbucket writes them in links: quotes, spaces and # are escaped, these are not.
_UNESCAPED = "/$;&=@!,:+"
# A page has a thousand links, nearly all of them plain: looking costs a fifth of quoting.
_PLAIN = re.compile(r"[\w./~-]*", re.ASCII)
_UUID = re.compile(r"\{[\w-]*\}", re.ASCII)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(?::\d{1,5})?")


class Links(msgspec.Struct, frozen=True):
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


def origin_of(scope: Mapping[str, Any], headers: Mapping[str, str], *, public_url: str, base: str) -> str:
    """Return the address that the caller used, or the configured one; raises ApiError 400.

    What a proxy says of the address (``X-Forwarded-Host``) is not believed: anybody can say that. Whoever
    serves behind a proxy configures `public_url`.
    """
    if public_url:
        return public_url.rstrip("/")
    host = headers.get("host", "")
    if not host:
        name, port = scope.get("server") or ("localhost", None)
        host = f"[{name}]" if ":" in name else name
        host += f":{port}" if port else ""
    if _HOST.fullmatch(host) is None:
        raise ApiError(400, "Bad Request", detail="The Host header is no name of a host.")
    return f"{scope.get('scheme', 'http')}://{host}{base.rstrip('/')}"


def escaped(text: str) -> str:
    """Write a name into an address half escaped, as Bitbucket does."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_UNESCAPED)


def segment(text: str) -> str:
    """Write a text as one segment of an address."""
    if _UUID.fullmatch(text):
        return f"%7B{text[1:-1]}%7D"
    return text if _PLAIN.fullmatch(text) and "/" not in text else quote(text, safe="")
