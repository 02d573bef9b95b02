"""Addresses in stored objects, and those of an upstream's pages, which nothing else builds.

In stored objects they begin with API or WEB instead of a host. When the mirror serves an object, it replaces
API by its own address and WEB by the upstream's.
"""

import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

API, WEB = "~api", "~web"
CLOUD = "https://bitbucket.org"
CLOUD_ORIGINS = ("https://api.bitbucket.org", CLOUD)
# Bitbucket serves API 2.0 below each of these paths, and writes any of them into its links.
API_PATHS = ("/2.0", "/!api/2.0", "/api/2.0")
Json = dict[str, Any]

# Bitbucket leaves these unescaped in its links, but escapes quotes, spaces and #.
_UNESCAPED = "/$;&=@!,:+"
# A page has a thousand links, most of them plain. This check costs a fifth of calling quote().
_PLAIN = re.compile(r"[\w./~-]*", re.ASCII)
_UUID = re.compile(r"\{[\w-]*\}", re.ASCII)
_API_PATH = re.compile(r"(/!?api)?/[12]\.0/?$|/rest/api/[\w.]+/?$")
_LOGIN = re.compile(r"^(https?://)[^/?#@]*@", re.IGNORECASE)
_ANY_LOGIN = re.compile(r"^([a-z][a-z0-9+.-]*://)([^/?#]*)@", re.IGNORECASE)
_SERVICE_USERS = {"git", "hg"}
# Also where an escape may hide one; those of ssh stay. A possessive quantifier takes a third of the time of
# an alternative.
_LOGIN_WITHIN = re.compile(rb'://(?<!ssh://)[^/?#@"\\]*+[@\\]')
# At the beginnings of hrefs, as Bitbucket writes the caller's name into clone addresses.
_LOGINS = re.compile(rb'("href": ?"(?i:https?://))[^/?#@"\\]*@')
_ESCAPED = re.compile(rb"\\(?:/|u00[0-7]|\"href\")")


class Told(msgspec.Struct, frozen=True, eq=False):
    """An object as the upstream sent it, with API and WEB in its addresses and without logins.

    - `anonymous`: the crawl had no credential, so everybody may see all of the object.
    - `api`: the API that sent it. For API 1.0, `value` only has the keys without a column.
    - `value`: the object; in the usual shape, a branch or tag is a `mirror.api2_usual.UsualRef`, a listed
      repository a `mirror.api2_usual.UsualRepository`.
    """

    value: Any
    anonymous: bool = False
    api: str = "2.0"

    def __eq__(self, other: object) -> bool:
        """Always true: values of the model are equal whatever objects they were decoded from."""
        return other is None or isinstance(other, Told)

    def __hash__(self) -> int:
        return 0  # equal values must have equal hashes


def web_of(url: str) -> str:
    """Return the address of an upstream's pages for people, by the address of its API."""
    if url.startswith(("https://api.bitbucket.org/", f"{CLOUD}/")):
        return CLOUD
    return _API_PATH.sub("", url).rstrip("/")


def origins_of(url: str) -> tuple[str, ...]:
    """Return the origins of an API: that of its address, for Bitbucket Cloud those of its aliases too."""
    parts = urlsplit(url)
    own = f"{parts.scheme}://{parts.netloc}"
    return CLOUD_ORIGINS if own in CLOUD_ORIGINS else (own,)


class Teller:
    """Decodes objects of an upstream, and replaces their addresses.

    :param url: the address of the upstream's API.
    :param anonymous: it is asked without a credential.
    """

    def __init__(self, url: str, *, anonymous: bool = False) -> None:
        self._web = web = web_of(url)
        origins = CLOUD_ORIGINS if web == CLOUD else (web,)
        paths = {urlsplit(url).path.rstrip("/") or "/2.0", *API_PATHS}
        self.anonymous = anonymous
        self._marks = {f"{origin}{path}/": f"{API}/" for origin in origins for path in sorted(paths)} | {
            f"{web}/": f"{WEB}/"
        }
        self._begins = "\n".join([*self._marks, f"{CLOUD}/"])
        self._is_marked = re.compile("|".join(map(re.escape, self._marks)))
        self._marked = [
            (urlsplit(begin).path.encode(), begin.encode(), mark.encode())
            for begin, mark in self._marks.items()
        ]

    def __call__(self, raw: bytes) -> Told:
        """Return an object with API and WEB in its addresses; raises what `msgspec.json.decode` does."""
        text = self.neutral_text(raw)
        value = self._neutral(msgspec.json.decode(raw)) if text is None else msgspec.json.decode(text)
        return Told(value, self.anonymous)

    def is_page(self, path: str) -> bool:
        """Return whether a path is one of the pages for people, and not of the API."""
        return self._address(f"{self._web}/{path}/") == f"{WEB}/{path}/"

    def looks_for(self, part: str) -> bool:
        """Return whether a text is part of the addresses that are replaced."""
        return part in self._begins

    def neutral_text(self, raw: bytes) -> bytes | None:
        """Return a JSON text with API and WEB in its addresses; None if the text is not plain enough.

        This takes a fifth of the time of replacing them in the decoded object.
        """
        if b"@" in raw:
            raw = _LOGINS.sub(rb"\1", raw)
        href = _plain_hrefs(raw)
        if href is None:
            return None
        for path, begin, mark in self._marked:
            if path in raw:  # most are not, which is found out in half the time
                raw = raw.replace(href + begin, href + mark)
        return raw

    def _neutral(self, value: Any) -> Any:
        # Values of JSON have exactly these classes; isinstance() would take longer.
        if value.__class__ is dict:
            return {
                key: self._address(inner)
                if key == "href" and inner.__class__ is str
                else self._neutral(inner)
                for key, inner in value.items()
            }
        return [self._neutral(inner) for inner in value] if value.__class__ is list else value

    def _address(self, text: str) -> str:
        plain = _LOGIN.sub(r"\1", text) if "@" in text else text
        found = self._is_marked.match(plain)
        return f"{self._marks[found[0]]}{plain[found.end() :]}" if found else plain


def _plain_hrefs(raw: bytes) -> bytes | None:
    """Return how each address of a JSON text begins; None if they differ, or have logins or escapes."""
    # Replacing addresses in the text takes a fifth of the time of doing it in the decoded object.
    if _ESCAPED.search(raw) or _LOGIN_WITHIN.search(raw):
        return None
    first = raw.find(b'"href"')
    begin = b'"href": "' if raw[first + 7 : first + 8] == b" " else b'"href":"'
    return begin if raw.count(begin) == raw.count(b'"href"') else None


def localised(value: Any, api: str, web: str, key: str = "") -> Any:
    """Put the beginnings of addresses back; `key` is that of the value."""
    if isinstance(value, str) and key == "href":
        if value.startswith(f"{API}/"):
            return api + value[len(API) :]
        return web + value[len(WEB) :] if value.startswith(f"{WEB}/") else value
    if isinstance(value, dict):
        return {key: localised(inner, api, web, key) for key, inner in value.items()}
    return [localised(inner, api, web) for inner in value] if isinstance(value, list) else value


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


PERSONAL = "~"
"""The prefix of a personal project's key on a Data Center."""


# Browsers remove such parts from a path.
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

    Names with the parts ``.`` and ``..`` have no address.
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


def without_login(url: str) -> str:
    """Remove the login from a clone address; ``git@`` and ``hg@`` are the service's own users, and stay.

    Bitbucket writes the user name of the caller into these addresses.
    """
    found = _ANY_LOGIN.match(url)
    if found is None:
        return url
    scheme, login = found.groups()
    if scheme.lower() == "ssh://" and login in _SERVICE_USERS:
        return url
    return scheme + url[found.end() :]
