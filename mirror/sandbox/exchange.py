"""What goes in and out of the sandbox: requests and answers, apart from how they travel."""

import base64
import binascii
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

PASSWORD = "sandbox"  # noqa: S105 - the sandbox's only secret, and no secret at all


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever sent a request: nobody, a person, or an access token that sees everything."""

    kind: str  # anonymous | person | token | oauth
    name: str = ""

    @property
    def sees_all(self) -> bool:
        """Tell whether every repository is visible."""
        return self.kind in {"token", "oauth"}

    @property
    def key(self) -> str:
        """The name under which requests are counted."""
        return f"{self.kind}:{self.name}" if self.name else self.kind


ANONYMOUS = Principal("anonymous")
TOKEN = Principal("token")
OAUTH = Principal("oauth")


def person(name: str) -> Principal:
    """Give the caller that signs in under this user name."""
    return Principal("person", name.lower())


def basic(header: str) -> tuple[str, str] | None:
    """Read user and password from an Authorization header, or give None."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def bearer(header: str) -> str | None:
    """Read the token from an Authorization header, or give None."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"


class Delivery(Enum):
    """How an answer reaches the client, if it does."""

    WHOLE = "whole"
    HANG = "hang"  # never a byte, the connection stays open
    DROP = "drop"  # the connection closes in order, without a byte
    RESET = "reset"  # the connection is reset
    TRUNCATE = "truncate"  # half a body, then the connection closes
    DRIP = "drip"  # a few bytes at a time


@dataclass(slots=True)
class Request:
    """One request. Header names are in lower case; `path` is as it came, still percent-encoded."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: str = "127.0.0.1"

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters; of one given twice, the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def segments(self) -> list[str]:
        """The parts of the path, decoded; a slash at the end makes no difference."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    @property
    def origin(self) -> str:
        """The scheme and host that the client asked."""
        return f"http://{self.headers.get('host', 'localhost')}"

    def form(self) -> dict[str, Any]:
        """Read the body, a JSON object or a form; ValueError when it is neither."""
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
class Response:
    """One answer, and how it is delivered, after so many seconds."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Delivery = Delivery.WHOLE
    delay: float = 0.0


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    """Response with JSON."""
    return Response(status, msgspec.json.encode(value), headers=dict(headers))


class HttpError(Exception):
    """An answer other than the one asked for, raised where it is found out."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


def error(status: int, message: str, **more: Any) -> Response:
    """Response with an error in the shape of API 2.0."""
    return json_response({"type": "error", "error": {"message": message, **more}}, status)


def no_credentials() -> Response:
    """Give the 401 that was recorded: an empty page that names no JSON error."""
    challenge = {
        "WWW-Authenticate": 'Basic realm="Bitbucket.org HTTP"',
        "ETag": '"d41d8cd98f00b204e9800998ecf8427e"',
    }
    return Response(401, content_type=HTML, headers=challenge)


def too_many_requests() -> Response:
    """Give the 429 that was recorded: bare text, and no Retry-After."""
    return Response(429, b"Rate limit for this resource has been exceeded", content_type="text/plain")


def no_repository() -> Response:
    """Give the 404 for a repository that is missing, or private and somebody else's."""
    return error(
        404,
        "You may not have access to this repository or it no longer exists in this workspace. If you think "
        "this repository exists and you have access, make sure you are authenticated.",
    )


def no_such_url() -> Response:
    """Give the 404 for a path that no API answers."""
    return error(404, "Resource not found", detail="There is no API hosted at this URL")


def removed() -> Response:
    """Give the 410 of endpoints that were taken away in 2026."""
    data = {"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"}
    message = "CHANGE-2770 - Functionality has been deprecated"
    detail = "Please read the changelog entry for more details."
    body = {"type": "error", "error": {"message": message, "detail": detail, "data": data}, "data": data}
    return json_response(body, 410)
