"""Access tokens of an OAuth consumer: fetched, kept until shortly before they expire, shared by threads."""

import threading
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

import msgspec

from mirror.times import Clock

EARLY_SECONDS = 120.0  # a token must not expire during a request
LONGEST = 86_400.0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The token endpoint's answer; `expires_in` is seconds, 3,600 to 7,200 at Bitbucket."""

    access_token: str
    expires_in: float = 3600.0

    def __repr__(self) -> str:
        return "<Grant>"


def token_address(url: str) -> str:
    """Return the address of the token endpoint: on Bitbucket's web host, not its API host."""
    parts = urlsplit(url)
    if parts.hostname == "api.bitbucket.org":
        return "https://bitbucket.org/site/oauth2/access_token"
    return f"{parts.scheme}://{parts.netloc}/site/oauth2/access_token"


class AccessTokens:
    """Keeps one access token: `token`, "" where there is none; `fetch` asks for a new one."""

    def __init__(self, fetch: Callable[[], Grant], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self.token = ""
        self._good_until = clock()

    def get(self) -> str:
        """Return a token that is still valid; other threads wait while one fetches it."""
        with self._lock:
            if not self.token or self._clock() >= self._good_until:
                grant = self._fetch()
                lifetime = min(max(grant.expires_in, 0.0), LONGEST)
                seconds = max(lifetime - EARLY_SECONDS, lifetime / 2)
                self.token, self._good_until = grant.access_token, self._clock() + timedelta(seconds=seconds)
            return self.token

    def drop(self, refused: str) -> None:
        """Forget a refused token, unless another thread has replaced it already."""
        with self._lock:
            if self.token == refused:
                self.token = ""
