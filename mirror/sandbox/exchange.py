"""Requests, responses and callers, independent of how they travel."""

import base64
import binascii
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

PASSWORD = "sandbox"  # noqa: S105 - everybody's password, and no secret


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request: anonymous, a person, or a token that may see everything."""

    kind: str  # anonymous | person | token | oauth
    name: str = ""

    @property
    def sees_all(self) -> bool:
        """Whether the caller may see every repository."""
        return self.kind in {"token", "oauth"}

    @property
    def key(self) -> str:
        """The key by which requests are counted."""
        return f"{self.kind}:{self.name}" if self.name else self.kind


ANONYMOUS = Principal("anonymous")
TOKEN = Principal("token")
OAUTH = Principal("oauth")


def person(name: str) -> Principal:
    """Return the caller with this user name."""
    return Principal("person", name.lower())


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
