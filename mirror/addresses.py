"""Addresses without a host: in stored objects, addresses begin with API or WEB.

The mirror replaces these by its own address and the upstream's when it serves the object.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

API, WEB = "~api", "~web"
CLOUD = "https://bitbucket.org"
Json = dict[str, Any]

# Bitbucket leaves these unescaped in its links, but escapes quotes, spaces and #.
_UNESCAPED = "/$;&=@!,:+"
# A page has a thousand links, most of them plain. This check costs a fifth of calling quote().
_PLAIN = re.compile(r"[\w./~-]*", re.ASCII)
_UUID = re.compile(r"\{[\w-]*\}", re.ASCII)
_API_PATH = re.compile(r"(/!?api)?/[12]\.0/?$|/rest/api/[\w.]+/?$")
_LOGIN = re.compile(r"^(https?://)[^/?#@]*@", re.IGNORECASE)


class Told(msgspec.Struct, frozen=True, eq=False):
    """An object as the upstream sent it, with API and WEB in its addresses and without logins.

    - `anonymous`: the crawl had no credential, so everybody may see all of the object.
    - `api`: the API that sent it. For API 1.0, `value` only has the keys without a column.
    """

    value: Json
    anonymous: bool = False
    api: str = "2.0"

    def __eq__(self, other: object) -> bool:
        """Always true: values of the model are compared without the objects that they came from."""
        return other is None or isinstance(other, Told)

    def __hash__(self) -> int:
        return 0


def web_of(url: str) -> str:
    """Return the address of the pages for people of whose API the address is known."""
    if url.startswith(("https://api.bitbucket.org/", f"{CLOUD}/")):
        return CLOUD
    return _API_PATH.sub("", url).rstrip("/")


def teller(url: str, *, anonymous: bool = False) -> Callable[[Any], Told]:
    """Return a function that replaces an upstream's addresses in the objects that it sends."""
    web = web_of(url)
    origins = ("https://api.bitbucket.org", CLOUD) if web == CLOUD else (web,)
    paths = {urlsplit(url).path.rstrip("/") or "/2.0", "/2.0", "/!api/2.0", "/api/2.0"}
    apis = "|".join(re.escape(f"{origin}{path}/") for origin in origins for path in sorted(paths))
    is_api, is_web = re.compile(f"(?:{apis})"), re.compile(re.escape(web) + r"(?=/)")

    def address(text: str) -> str:
        plain = _LOGIN.sub(r"\1", text) if "@" in text else text
        if found := is_api.match(plain):
            return f"{API}/{plain[found.end() :]}"
        return f"{WEB}{plain[found.end() :]}" if (found := is_web.match(plain)) else plain

    def neutral(value: Any) -> Any:
        if value.__class__ is dict:
            return {
                key: address(inner) if key == "href" and inner.__class__ is str else neutral(inner)
                for key, inner in value.items()
            }
        return [neutral(inner) for inner in value] if value.__class__ is list else value

    return lambda value: Told(neutral(value), anonymous)


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
