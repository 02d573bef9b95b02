"""Access: who sends a request, by its credentials, and how many requests they may send."""

from collections import deque

from mirror.sandbox.exchange import (
    ANONYMOUS,
    OAUTH,
    PASSWORD,
    TOKEN,
    HttpError,
    Principal,
    Request,
    SandboxResponse,
    basic,
    bearer,
    error,
    json_response,
    no_credentials,
    person,
)
from mirror.sandbox.world import World

GIT_USERS = {"x-token-auth", "x-bitbucket-api-token-auth"}


class Identity:
    """Identifies callers by their credentials, and issues OAuth tokens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._issued: dict[str, int] = {}

    def caller(self, request: Request, *, for_git: bool = False, lenient: bool = False) -> Principal:
        """Return the caller of a request; raises HttpError 401 for wrong credentials.

        Git accepts tokens under special user names and no e-mail addresses; REST the other way round. With
        `lenient`, wrong credentials count as none, as on some endpoints of Bitbucket.
        """
        header = request.headers.get("authorization")
        if header is None:
            return ANONYMOUS
        token = bearer(header)
        found = self._of_basic(header, for_git=for_git) if token is None else self._of_token(token)
        if found is None and not lenient:
            message = "Token is invalid, expired, or not supported for this endpoint."
            raise HttpError(no_credentials() if token is None else error(401, message))
        return found or ANONYMOUS

    def grant(self, request: Request, seconds: int) -> SandboxResponse:
        """Answer POST /site/oauth2/access_token, which issues tokens for Basic sandbox:sandbox."""
        wanted = request.form().get("grant_type") if request.body else None
        if basic(request.headers.get("authorization", "")) != (PASSWORD, PASSWORD):
            problem = {
                "error": "unauthorized_client",
                "error_description": "Invalid OAuth client credentials",
            }
            return json_response(problem, 401)
        if wanted not in {"client_credentials", "refresh_token"}:
            problem = {"error": "unsupported_grant_type", "error_description": "Unsupported grant type"}
            return json_response(problem, 400)
        token = f"granted-{len(self._issued) + 1}"
        self._issued[token] = self._world.clock.now() + seconds * 1_000_000
        return json_response(
            {
                "access_token": token,
                "refresh_token": f"again-{token}",
                "expires_in": seconds,
                "scopes": "repository account project",
                "token_type": "bearer",
                "state": "client_credentials",
            }
        )

    def _of_basic(self, header: str, *, for_git: bool) -> Principal | None:
        user, password = basic(header) or ("", "")
        if for_git and user in GIT_USERS:
            return self._of_token(password)
        name = user if for_git else user.removesuffix("@example.com")
        known = password == PASSWORD and self._world.person(name) is not None and not name.startswith("{")
        return person(name) if known else None

    def _of_token(self, token: str) -> Principal | None:
        if token == PASSWORD:
            return TOKEN
        return OAUTH if self._issued.get(token, 0) > self._world.clock.now() else None


HOUR = 3_600_000_000


class HourlyQuota:
    """Limits the requests of each key within any hour. Times are in microseconds.

    As on Bitbucket, refused requests do not count. A limit of None means no limit.
    """

    def __init__(self, limit: int | None, anonymous_limit: int | None) -> None:
        self._limits = {True: anonymous_limit, False: limit}
        self._asked: dict[str, deque[int]] = {}

    def limit(self, *, anonymous: bool) -> int | None:
        """Return the number of requests allowed an hour."""
        return self._limits[anonymous]

    def spend(self, key: str, now: int, *, anonymous: bool) -> bool:
        """Count a request at `now`; return False if the limit is reached."""
        limit = self._limits[anonymous]
        if limit is None:
            return True
        asked = self._recent(key, now)
        if len(asked) >= limit:
            return False
        asked.append(now)
        return True

    def spent(self, key: str, now: int) -> int:
        """Return the number of requests in the hour before `now`."""
        return len(self._recent(key, now))

    def seconds_left(self, key: str, now: int) -> int:
        """Return after how many seconds the oldest request no longer counts."""
        asked = self._recent(key, now)
        return (asked[0] + HOUR - now) // 1_000_000 + 1 if asked else 0

    def clear(self) -> None:
        """Forget all requests."""
        self._asked.clear()

    def _recent(self, key: str, now: int) -> deque[int]:
        asked = self._asked.setdefault(key, deque())
        while asked and asked[0] <= now - HOUR:
            asked.popleft()
        return asked


class TokenBuckets:
    """Data Center's rate limit: a bucket of tokens for each key, refilled at a constant rate."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, int]] = {}

    def spend(self, key: str, now: int, *, size: int, refill: int) -> int:
        """Take a token from a bucket of `size`, refilled at `refill` a second.

        Return 0, or the seconds until there is a token.
        """
        left, then = self._left.get(key, (float(size), now))
        left = min(size, left + (now - then) / 1_000_000 * refill)
        if left < 1:
            self._left[key] = left, now
            return int((1 - left) / refill) + 1
        self._left[key] = left - 1, now
        return 0

    def clear(self) -> None:
        """Fill all buckets."""
        self._left.clear()
