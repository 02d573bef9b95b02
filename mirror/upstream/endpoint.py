"""Addresses of an upstream, and the account against which requests to it are counted.

Which address a configuration means, which of the addresses that an upstream sends may be followed, and what
must be removed from them.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from mirror.config import CLOUD_URL, SANDBOX_PORT, Config, UpstreamConfig
from mirror.credentials import Credential, read_credential
from mirror.errors import ConfigError, UpstreamShapeError
from mirror.upstream.budget import ANONYMOUS_LIMIT, AUTHENTICATED_LIMIT, limit_in_force
from mirror.upstream.response import shown_url

SANDBOX_URL = f"http://127.0.0.1:{SANDBOX_PORT}/2.0"

_LOGIN = re.compile(r"^([a-z][a-z0-9+.-]*://)([^/?#]*)@", re.IGNORECASE)
_FIELDS = re.compile(r"(?<=[?&]fields=)[^&#]*")
_PAGE_LENGTH = re.compile(r"(?<=[?&])pagelen=(\d{1,4})(?![^&#])")
_PAGE_NUMBER = re.compile(r"(?<=[?&])page=([^&#]*)")
_SERVICE_USERS = {"git", "hg"}
_CLOUD_HOSTS = {"api.bitbucket.org", "bitbucket.org"}
_CLOUD_ORIGINS = ("https://api.bitbucket.org", "https://bitbucket.org")


def url_of(config: UpstreamConfig) -> str:
    """Return the base address of the API: as configured with its path completed, or the kind's default."""
    if not config.url:
        return SANDBOX_URL if config.kind == "sandbox" else CLOUD_URL
    url = config.url.rstrip("/")
    if config.kind == "datacenter":
        return url if "/rest/api/" in url else f"{url}/rest/api/1.0"
    if config.kind == "legacy":
        return url if url.endswith("/1.0") else f"{url}/1.0"
    return url


def default_limit(config: UpstreamConfig, credential: Credential) -> int | None:
    """Return the hourly limit of requests where the upstream does not report one; None for no limit.

    Cloud: 60 for an anonymous address, 1,000 for an identity, each less a margin
    (support.atlassian.com/bitbucket-cloud/docs/api-request-limits). Others have no limit by default.
    """
    if config.kind != "cloud":
        return None
    return ANONYMOUS_LIMIT if credential.form == "anonymous" else AUTHENTICATED_LIMIT


def bucket_of(config: UpstreamConfig, credential: Credential) -> str:
    """Name the account in the ledger for an upstream; raises ConfigError for an impossible address."""
    url = url_of(config)
    try:
        host = urlsplit(url).netloc
        urlsplit(url).port  # noqa: B018 - it raises where the port is not a number
    except ValueError as error:
        raise ConfigError(f"upstream {config.name}: url {url!r} is not a web address: {error}") from None
    return f"{credential.bucket}@{host}"


def accounts_by_upstream(config: Config, told: Mapping[str, int]) -> dict[str, tuple[str, int | None]]:
    """Map each upstream to its bucket in the request ledger and the hourly limit in force.

    `told` are the limits that upstreams reported, by bucket. An upstream with an invalid address, or whose
    credential cannot be read here (another user's environment), is left out.
    """
    found = dict[str, tuple[str, int | None]]()
    for upstream in config.upstreams:
        try:
            credential = read_credential(upstream.credential, os.environ)
            bucket = bucket_of(upstream, credential)
        except ConfigError:
            continue
        limit = limit_in_force(
            told=told.get(bucket),
            ours=upstream.requests_per_hour,
            default=default_limit(upstream, credential),
        )
        found[upstream.name] = (bucket, limit)
    return found


class ApiAddresses:
    """The addresses that belong to one API: those below the configured address, and its aliases.

    Bitbucket links to ``api.bitbucket.org/2.0``, ``bitbucket.org/!api/2.0`` and ``bitbucket.org/api/2.0`` for
    the same API; any other server has its own origin alone.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        own = f"{parts.scheme}://{parts.netloc}"
        is_cloud = parts.scheme == "https" and parts.netloc in _CLOUD_HOSTS
        self.origins = _CLOUD_ORIGINS if is_cloud else (own,)
        self._url = url.rstrip("/")
        self._paths = tuple({f"{parts.path.rstrip('/')}/", "/2.0/", "/!api/2.0/", "/api/2.0/"})

    def checked_next(self, link: str, asked: str) -> str:
        """Return a `next` link, made absolute, that was found at the address `asked`.

        Raises UpstreamShapeError for one that leaves the API or leads back to `asked`.
        """
        try:
            sound = link.isprintable() and " " not in link
            link = urljoin(asked, link)
            parts = urlsplit(link)
            known = (
                sound
                and f"{parts.scheme}://{parts.netloc}" in self.origins
                and parts.path.startswith(self._paths)
            )
        except ValueError:
            known = False
        if not known:
            raise UpstreamShapeError(
                f"{shown_url(asked)}: the next page is said to be at {shown_url(link)}, which is not part of"
                f" {shown_url(self._url)}: not followed"
            )
        if link == asked:
            raise UpstreamShapeError(f"{shown_url(asked)}: the link to the next page is this page itself")
        return link


def redirected(url: str, location: str) -> str | None:
    """Return the target of a redirect; None if it is another host or port, or less safe.

    From http to https at their usual ports is safe; an address with a login in it is not.
    """
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        ports = (here.port, there.port)
    except ValueError:
        return None
    is_upgrade = (here.scheme, there.scheme) == ("http", "https") and ports == (None, None)
    same = here.hostname == there.hostname and (
        is_upgrade or (here.scheme, here.port) == (there.scheme, there.port)
    )
    return target if same and "@" not in there.netloc and location else None


def fields_of(url: str) -> str | None:
    """Return the `fields` parameter of an address, still encoded; None without one."""
    found = _FIELDS.search(url)
    return found[0] if found else None


def with_fields(url: str, fields: str) -> str:
    """Return an address with another `fields` parameter, which must be encoded."""
    if _FIELDS.search(url):
        return _FIELDS.sub(lambda _: fields, url, count=1)
    return f"{url}{'&' if '?' in url else '?'}fields={fields}"


def with_shorter_pages(url: str, by: int) -> str | None:
    """Return the address of a shorter page that begins at the same row; None if that is impossible.

    `by` is how many times shorter it is. If the page number is a text, only the server knows where it begins.
    """
    length, number = _PAGE_LENGTH.search(url), _PAGE_NUMBER.search(url)
    if length is None or int(length[1]) < by or (number is not None and not number[1].isdecimal()):
        return None
    shorter = int(length[1]) // by
    if number is not None:
        first = (int(number[1]) - 1) * int(length[1])
        if first % shorter:
            return None
        url = url[: number.start(1)] + str(first // shorter + 1) + url[number.end(1) :]
    return _PAGE_LENGTH.sub(f"pagelen={shorter}", url)


def page_after(url: str) -> tuple[int, str] | None:
    """Return the number of a page and the address of the next one; None if its number is a text."""
    number = _PAGE_NUMBER.search(url)
    if number is None:
        return 1, f"{url}{'&' if '?' in url else '?'}page=2"
    if re.fullmatch(r"[1-9][0-9]{0,8}", number[1]) is None:
        return None
    following = int(number[1]) + 1
    return following - 1, f"{url[: number.start(1)]}{following}{url[number.end(1) :]}"


def without_login(url: str) -> str:
    """Remove the login from a clone address; ``git@`` and ``hg@`` are the service's own users, and stay.

    Bitbucket writes the user name of the caller into these addresses.
    """
    found = _LOGIN.match(url)
    if found is None:
        return url
    scheme, login = found.groups()
    if scheme.lower() == "ssh://" and login in _SERVICE_USERS:
        return url
    return scheme + url[found.end() :]
