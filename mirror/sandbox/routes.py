"""Which of the APIs a request is for, and how each of them counts it and says no."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from . import api1, api2, datacenter
from .askers import Asker
from .exchange import Answer, Request, no_such_url
from .git import Git, is_git
from .identity import Identity
from .paging import Style
from .world import World

OAUTH_PATH = "/site/oauth2/access_token"


@dataclass(slots=True)
class Options:
    """How the service behaves where the real ones were seen to behave in several ways."""

    lenient: bool = False  # wrong credentials on lists of repositories count as none
    next_prefix: str = "/2.0"  # or "/!api/2.0": links to next pages were seen to change their path
    odd_pages: bool = False  # pages that promise as little as the service was seen to promise
    rate_headers: str = "token"  # "token": three headers, only for access tokens; "ietf": the 60;w=3600 form
    tags_touch: bool = True  # a push of tags alone moves updated_on
    token_seconds: int = 3600  # how long an OAuth token is good
    bucket_size: int = 0  # Data Center's rate limit: requests at once for each user; 0 is no limit
    bucket_refill: int = 5  # and how many a second come back

    def change(self, values: dict[str, Any]) -> None:
        """Set options by name; ValueError for one that is unknown or of another type."""
        known = {each.name for each in fields(self)}
        for name, value in values.items():
            if name not in known or type(value) is not type(getattr(self, name)):
                raise ValueError(f"there is no option {name}={value!r}; there are {asdict(self)}")
        for name, value in values.items():
            setattr(self, name, value)


@dataclass(frozen=True, slots=True)
class Route:
    """How a request is answered: by what, counted as what, out of which quota."""

    kind: str
    answer: Callable[[Asker], Answer]
    quota: str = "hour"  # hour | bucket | free
    is_open: bool = False  # credentials, if there are any, are not the caller's
    bad_credentials: Callable[[], Answer] | None = None  # None: as API 2.0 says it


def route(request: Request, world: World, identity: Identity, options: Options) -> Route:
    """Find what answers a request."""
    path = request.path
    if rest := _below(path, api2.PREFIXES):
        style = Style(options.next_prefix, options.odd_pages)
        return Route(api2.kind_of(rest), lambda asker: api2.Api2(world, request, asker, style).answer(rest))
    if rest := _below(path, api1.PREFIXES):
        refused = api1.refusal(401, "Invalid username or password").answer
        return Route(
            api1.kind_of(rest),
            lambda asker: api1.Api1(world, request, asker).answer(rest),
            bad_credentials=lambda: refused,
        )
    if rest := _below(path, datacenter.PREFIXES):
        return Route(
            datacenter.kind_of(rest),
            lambda asker: datacenter.DataCenter(world, request, asker).answer(rest),
            quota="bucket",
            bad_credentials=datacenter.bad_credentials,
        )
    if is_git(path):
        return Route("git", lambda asker: Git(world, request, asker).answer(), quota="free")
    if path == OAUTH_PATH:
        seconds = options.token_seconds
        return Route("other", lambda _: identity.grant(request, seconds), quota="free", is_open=True)
    return Route("other", lambda _: no_such_url())


def _below(path: str, prefixes: tuple[str, ...]) -> list[str]:
    for prefix in prefixes:
        if path.startswith(prefix):
            return Request("GET", path[len(prefix) :]).segments
    return []
