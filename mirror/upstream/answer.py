"""One answer of an upstream, and how its body is read: pure, no network.

Bodies are decoded by shape; one that is no JSON at all is told apart from one of an unknown shape, for
the first is what proxies and maintenance pages send and may be better the next time.
"""

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from mirror.errors import UpstreamBusy, UpstreamShapeError
from mirror.lenient_json import decoded_bytes

Shape = TypeVar("Shape")

EXCERPT = 80
LONGEST_READ = 65_536


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: `headers` by lower-case names, `date` by the upstream's clock, `address` as asked."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    date: datetime
    address: str

    @property
    def url(self) -> str:
        """The address as it may be shown."""
        return shown_url(self.address)


class NotAsAsked(UpstreamBusy):
    """A success without the kind of body that was asked for: worth another try, then a shape error."""


def decoded(answer: Answer, shape: type[Shape], redact: Callable[[str], str]) -> Shape:
    """Read the body as `shape`; raises NotAsAsked, or UpstreamShapeError naming address and JSON path.

    `redact` takes secrets out of the excerpt that NotAsAsked shows, before it is cut.
    """
    try:
        return decoded_bytes(answer.body, shape)
    except msgspec.ValidationError as error:
        raise UpstreamShapeError(f"{answer.url}: unknown shape: {error}") from None
    except (ValueError, OverflowError, RecursionError):
        raise unexpected(answer, redact, "no JSON") from None


def unexpected(answer: Answer, redact: Callable[[str], str], what: str) -> NotAsAsked:
    """Make the error for a success whose body is not as asked, with an excerpt of it."""
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    excerpt = shown(redact(answer.body[:LONGEST_READ].decode("utf-8", "replace")), EXCERPT)
    return NotAsAsked(
        f"{answer.url}: {answer.status} with a body that is {what} ({shown(kind, 40)}): {excerpt!r}",
        status=answer.status,
    )


@functools.lru_cache(maxsize=64)
def moment_of(date: str) -> datetime | None:
    """Read a Date header; None where it is missing or unreadable. The same second comes many times."""
    try:
        moment = parsedate_to_datetime(date)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def shown(text: str, length: int = 300) -> str:
    """Make foreign text fit for a line of a terminal: one line, no control characters, not too long."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text[: length * 4]).split())
    return flat if len(flat) <= length else flat[: length - 1] + "\u2026"


_SECRET_PARAMS = {"access_token", "jwt", "oauth_token", "token"}


def shown_url(url: str) -> str:
    """Make an address fit to be shown: no login, no token, no long list of fields."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "no address"
    host = parts.netloc.rpartition("@")[2]
    query = ""
    if parts.query:
        kept = [(k, v) for k, v in parse_qsl(parts.query) if k not in _SECRET_PARAMS and k != "fields"]
        query = urlencode(kept, safe="{}/:+-,")
    return shown(urlunsplit((parts.scheme, host, parts.path, query, "")))
