"""Addresses at the upstream, of its web pages and its API."""

import re
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from mirror.queries.rows import Upstreams
from mirror.queries.web_pages import PERSONAL

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
"""Bitbucket Cloud's names for resources below a repository."""


class Resource(NamedTuple):
    """An address of the upstream's API; `is_same` where it is just what was asked for, not what it is in."""

    address: str
    is_same: bool


class Addresses(msgspec.Struct, frozen=True):
    """The addresses of what the upstreams hold; `upstreams` maps their rows by id."""

    upstreams: Upstreams

    def project_page(self, upstream_id: int, key: str) -> str | None:
        """Return the page of a project, or of a workspace, for people."""
        return self.upstreams[upstream_id].pages.owner(key)

    def repository_page(self, upstream_id: int, full_name: str) -> str | None:
        """Return the page of a repository for people."""
        return self.upstreams[upstream_id].pages.repository(full_name)

    def below_project(self, upstream_id: int, key: str, rest: str) -> Resource:
        """Return where the API has what lies below a project; Cloud has nothing of the kind."""
        url = self._url(upstream_id)
        if self._is_datacenter(upstream_id):
            return Resource(f"{url}/projects/{_segment(key)}/{_escaped(rest)}", is_same=True)
        owners = "users" if url.endswith("/1.0") else "workspaces"
        return Resource(f"{url}/{owners}/{_workspace(key)}", is_same=False)

    def below_repository(self, upstream_id: int, key: str, slug: str, rest: str) -> Resource:
        """Return where the API has what lies below a repository; Cloud may have it under another name."""
        url = self._url(upstream_id)
        if self._is_datacenter(upstream_id):
            address = f"{url}/projects/{_segment(key)}/repos/{_segment(slug)}/{_escaped(rest)}"
            return Resource(address, is_same=True)
        here = f"{url}/repositories/{_workspace(key)}/{_segment(slug)}"
        for pattern, there in _ON_CLOUD:
            found = pattern.fullmatch(rest)
            if found:
                return Resource(f"{here}/{_escaped(found.expand(there))}", is_same=True)
        return Resource(here, is_same=False)

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
