"""Build the addresses of an upstream's pages and of its git repositories. Nothing else builds them."""

import re
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

from mirror.addresses import CLOUD, escaped, segment

PERSONAL = "~"
"""The prefix of a personal project's key on a Data Center."""

_DOTS = re.compile(r"(^|/)\.{0,2}(/|$)")
_CLONED_BY_URL = re.compile(r"(https?|ssh)://[^\s/?#-][^\s]*", re.IGNORECASE)
_CLONED_BY_SSH = re.compile(r"[\w.]+@[\w.][\w.-]*:[^\s:]+", re.ASCII)


def safe_external(address: str | None) -> str | None:
    """Return an address if it is safe to link to (http or https, with a host), else None."""
    stripped = (address or "").strip()
    try:
        parts = urlsplit(stripped)
        is_safe = parts.scheme.lower() in ("http", "https") and parts.hostname
    except ValueError:
        return None
    return stripped if is_safe else None


def is_clone_address(address: str) -> bool:
    """Return whether an address uses http, https or ssh: with others, git may run a program."""
    return bool(_CLONED_BY_URL.fullmatch(address) or _CLONED_BY_SSH.fullmatch(address))


class WebPages(msgspec.Struct, frozen=True):
    """Builds addresses below `root`, which has no final slash, by the rules of a `kind` of server.

    Names with the parts ``.`` and ``..`` have no address, because browsers remove these from a path.
    """

    root: str = ""
    kind: str = "cloud"

    def owner(self, name: str, *, is_person: bool = False) -> str | None:
        """Return the page of a workspace, a project or a user."""
        if self._is_datacenter:
            return self._at(self._project(f"{PERSONAL}{name.removeprefix(PERSONAL)}" if is_person else name))
        page = self._at(segment(name.removeprefix(PERSONAL)))
        return page and f"{page}/"

    def project(self, owner: str, key: str) -> str | None:
        """Return the page of a project in a workspace; on a Data Center they are the same."""
        if self._is_datacenter:
            return self.owner(owner)
        return self._at(f"{segment(owner)}/workspace/projects/{segment(key)}")

    def repository(self, full_name: str) -> str | None:
        """Return the page of a repository."""
        return self._below(full_name, "browse" if self._is_datacenter else "")

    def ref(self, full_name: str, kind: str, name: str) -> str | None:
        """Return the page of a branch or a tag."""
        if self._is_datacenter:
            page = self.repository(full_name)
            folder = "tags" if kind == "tag" else "heads"
            return page and f"{page}?at={segment(f'refs/{folder}/{name}')}"
        return self._below(full_name, f"{'commits/tag' if kind == 'tag' else 'branch'}/{escaped(name)}")

    def commit(self, full_name: str, name: str) -> str | None:
        """Return the page of a commit by its hash."""
        return self._below(full_name, f"commits/{segment(name)}")

    def clone_addresses(self, full_name: str, scm: str | None) -> dict[str, str]:
        """Return the clone addresses of a repository: ``https``, and on Bitbucket Cloud ``ssh``."""
        owner, _, slug = full_name.partition("/")
        end = "" if scm == "hg" else ".git"
        below = f"scm/{segment(owner.lower())}/{segment(slug)}" if self._is_datacenter else escaped(full_name)
        https = self._at(below)
        if https is None:
            return {}
        ssh = f"ssh://hg@bitbucket.org/{below}" if scm == "hg" else f"git@bitbucket.org:{below}.git"
        return {"https": f"{https}{end}"} | ({"ssh": ssh} if self.root == CLOUD else {})

    @property
    def _is_datacenter(self) -> bool:
        return self.kind == "datacenter"

    def _project(self, key: str) -> str:
        """Return the path of a project; a personal one is below its user."""
        if key.startswith(PERSONAL):
            return f"users/{segment(key.removeprefix(PERSONAL).lower())}"
        return f"projects/{segment(key)}"

    def _below(self, full_name: str, rest: str) -> str | None:
        if self._is_datacenter:
            key, _, slug = full_name.partition("/")
            path = f"{self._project(key)}/repos/{segment(slug)}"
        else:
            path = escaped(full_name)
        return self._at(f"{path}/{rest}" if rest else path)

    def _at(self, path: str) -> str | None:
        return f"{self.root}/{path}" if _is_safe_root(self.root) and not _DOTS.search(path) else None


@lru_cache(maxsize=64)
def _is_safe_root(root: str) -> bool:
    """Return whether an upstream's address is safe to link to; cached, because every row asks."""
    return safe_external(root) is not None
