"""Requests and responses, independent of how they travel; credentials; limits on the number of requests."""

import base64
import binascii
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from mirror.sandbox.model import ANONYMOUS, OAUTH, TOKEN, Principal, person
from mirror.sandbox.world import World

PASSWORD = "sandbox"  # noqa: S105 - everybody's password, and no secret


def basic(header: str) -> tuple[str, str] | None:
    """Return user and password from an Authorization header, None if there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def bearer(header: str) -> str | None:
    """Return the token from an Authorization header, None if there is none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"


class Transfer(Enum):
    """How a response reaches the client, if it does."""

    WHOLE = "whole"
    HANG = "hang"  # nothing is sent, the connection stays open
    DROP = "drop"  # nothing is sent, the connection is closed
    RESET = "reset"  # the connection is reset
    TRUNCATE = "truncate"  # half of the body is sent, then the connection is closed
    DRIP = "drip"  # a few bytes at a time


@dataclass(slots=True)
class Request:
    """One request. Header names are in lower case; `path` is percent-encoded as it was received."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: str = "127.0.0.1"

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters; if one is repeated, its last value."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def segments(self) -> list[str]:
        """The decoded segments of the path, without leading and trailing slashes."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    @property
    def origin(self) -> str:
        """The scheme and host that the client used."""
        return f"http://{self.headers.get('host', 'localhost')}"

    def form(self) -> dict[str, Any]:
        """Return the body, a JSON object or a form; raises ValueError if it is neither."""
        kind = self.headers.get("content-type", "")
        if not self.body.strip():
            return {}
        if "x-www-form-urlencoded" in kind:
            return dict(parse_qsl(self.body.decode(), keep_blank_values=True))
        found = msgspec.json.decode(self.body)  # its errors are ValueErrors
        if not isinstance(found, dict):
            raise ValueError("The body must be a JSON object")  # noqa: TRY004 - a wrong value from outside
        return found


@dataclass(slots=True)
class SandboxResponse:
    """One response, and how it is delivered; `delay` is in seconds."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Transfer = Transfer.WHOLE
    delay: float = 0.0


def json_response(value: Any, status: int = 200, **headers: str) -> SandboxResponse:
    """Return a response with a JSON body."""
    return SandboxResponse(status, msgspec.json.encode(value), headers=dict(headers))


class HttpError(Exception):
    """An error response, raised where the error is found."""

    def __init__(self, answer: SandboxResponse) -> None:
        super().__init__(answer.status)
        self.answer = answer


def error(status: int, message: str, **more: Any) -> SandboxResponse:
    """Return an error in the form of API 2.0."""
    return json_response({"type": "error", "error": {"message": message, **more}}, status)


def no_credentials() -> SandboxResponse:
    """Return the 401 of Bitbucket: an empty page, no JSON."""
    challenge = {
        "WWW-Authenticate": 'Basic realm="Bitbucket.org HTTP"',
        "ETag": '"d41d8cd98f00b204e9800998ecf8427e"',
    }
    return SandboxResponse(401, content_type=HTML, headers=challenge)


def too_many_requests() -> SandboxResponse:
    """Return the 429 of Bitbucket: plain text, no Retry-After."""
    return SandboxResponse(429, b"Rate limit for this resource has been exceeded", content_type="text/plain")


def no_repository() -> SandboxResponse:
    """Return the 404 for a repository that does not exist or that the caller may not see."""
    return error(
        404,
        "You may not have access to this repository or it no longer exists in this workspace. If you think "
        "this repository exists and you have access, make sure you are authenticated.",
    )


def no_such_url() -> SandboxResponse:
    """Return the 404 for an unknown path."""
    return error(404, "Resource not found", detail="There is no API hosted at this URL")


def removed() -> SandboxResponse:
    """Return the 410 of endpoints that were removed in 2026."""
    data = {"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"}
    message = "CHANGE-2770 - Functionality has been deprecated"
    detail = "Please read the changelog entry for more details."
    body = {"type": "error", "error": {"message": message, "detail": detail, "data": data}, "data": data}
    return json_response(body, 410)


GIT_USERS = {"x-token-auth", "x-bitbucket-api-token-auth"}


class Identity:
    """Identifies callers by their credentials, and issues OAuth tokens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._issued: dict[str, int] = {}

    def caller(self, request: Request, *, for_git: bool, lenient: bool) -> Principal:
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


HOUR = 3_600_000_000  # microseconds


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
