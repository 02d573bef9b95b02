"""What an answer that is no success means: which error, in the upstream's own words, and what to do.

Bodies are JSON, plain text, HTML or nothing, as recorded from Bitbucket; none may hide the status.
"""

import functools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from mirror.credentials import Credential
from mirror.errors import CredentialsRefused, MirrorError, UpstreamBusy, UpstreamRefused, UpstreamShapeError
from mirror.lenient_json import decoded_bytes, mended

Shape = TypeVar("Shape")

EXCERPT = 80
LONGEST_READ = 65_536


class Response(msgspec.Struct, frozen=True, kw_only=True):
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


class UnexpectedBody(UpstreamBusy):
    """A success without the kind of body that was asked for: worth another try, then a shape error."""


def decoded(answer: Response, shape: type[Shape], redact: Callable[[str], str]) -> Shape:
    """Read the body as `shape`; raises UnexpectedBody, or UpstreamShapeError naming address and JSON path.

    `redact` takes secrets out of the excerpt that UnexpectedBody shows, before it is cut.
    """
    try:
        return decoded_bytes(answer.body, shape)
    except msgspec.ValidationError as error:
        raise UpstreamShapeError(f"{answer.url}: unknown shape: {error}") from None
    except (ValueError, OverflowError, RecursionError):
        raise unexpected_body(answer, redact, "no JSON") from None


def unexpected_body(answer: Response, redact: Callable[[str], str], what: str) -> UnexpectedBody:
    """Make the error for a success whose body is not as asked, with an excerpt of it."""
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    excerpt = shown(redact(answer.body[:LONGEST_READ].decode("utf-8", "replace")), EXCERPT)
    return UnexpectedBody(
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


_REPEATED = {304, 408, 425, 429}  # 304 answers a condition, and none was asked

_REFS_HEADER = "x-mirror-refs"
"""What another mirror sends with refs that it has not read (503) or does not mirror (501).

That is said of one repository: it is asked again later by itself, and the others meanwhile.
"""

_NO_REFS = ' - set refs = "git" for this upstream, or refs = "none" to mirror no branches and tags'

_USED = {
    "basic": "a user and a token by the Basic scheme",
    "bearer": "a token by the Bearer scheme",
    "oauth": "an OAuth consumer's key and secret",
    "anonymous": "none",
}

WANTED = (
    "an API token goes as ACCOUNT-EMAIL:TOKEN, an access token of a repository, project or workspace as TOKEN"
    " alone, an OAuth consumer as oauth:KEY:SECRET; app passwords ended on 28 July 2026 (a Data Center takes"
    " USER:PASSWORD, or an HTTP access token alone)"
)


def error_for(
    answer: Response,
    credential: Credential,
    redact: Callable[[str], str],
    *,
    retry_after: float | None = None,
) -> MirrorError:
    """Choose the error that an answer without success means; `redact` takes secrets out of its words."""
    words = upstream_message(answer, redact)
    line = f"{answer.url}: {answer.status}" + (f": {words}" if words else "")
    if answer.status == 401 and _names(answer, "AuthorisationException"):
        # Data Center says so of one thing that somebody it knows may not see.
        return UpstreamRefused(line, status=401)
    if answer.status == 401:
        return refused_credentials(line, credential)
    if answer.status == 403 and "invalid password attempts" in words.lower():
        return CredentialsRefused(
            f"{line} - the account is locked: log in with a browser to unlock it, then wait"
        )
    if _REFS_HEADER in answer.headers:
        line += _NO_REFS if answer.status == 501 else ""
        return UpstreamRefused(line, status=answer.status, retry_after=retry_after)
    if answer.status >= 500 or answer.status in _REPEATED:
        return UpstreamBusy(line, status=answer.status, retry_after=retry_after)
    if answer.status == 410:
        line += _gone(answer, words)
    return UpstreamRefused(line, status=answer.status)


def refused_credentials(line: str, credential: Credential) -> MirrorError:
    """Explain a 401: for those who sent a credential the run is over, for the anonymous just this answer."""
    if credential.form == "anonymous":
        return UpstreamRefused(
            f"{line} - this needs a credential and none is configured: set `credential`; {WANTED}", status=401
        )
    return CredentialsRefused(
        f"{line} - the upstream refuses the credential. Used: {_USED[credential.form]}. Wanted: {WANTED}."
        " Check the form first, then that the token has not expired and has the scopes to read accounts,"
        " workspaces, projects and repositories"
    )


def _gone(answer: Response, words: str) -> str:
    """Say what to configure instead of an endpoint that Bitbucket removed."""
    path = answer.url.partition("?")[0].rstrip("/")
    if "CHANGE-" in words or path.endswith(("/repositories", "/workspaces", "/teams")):
        return (
            " - Bitbucket removed this listing (CHANGE-2770): name in the configuration what to mirror,"
            ' as in workspaces = ["your-workspace"]'
        )
    return " - this address was removed, or its removal is being rehearsed"


def _names(answer: Response, exception: str) -> bool:
    """Tell whether a Data Center's error is of a kind of exception."""
    return re.search(rb'"exceptionName"\s*:\s*"[\w.]*\b' + exception.encode() + b'"', answer.body) is not None


def upstream_message(answer: Response, redact: Callable[[str], str]) -> str:
    """Return what the upstream says of its refusal, in one line; "" where it says nothing of use."""
    try:
        body = mended(answer.body) if answer.body else None
    except (ValueError, RecursionError):
        text = answer.body[:LONGEST_READ].decode("utf-8", "replace")
        return "" if text.lstrip().startswith("<") else shown(redact(text))
    return shown(redact("; ".join(part for part in _parts(body) if part)))


def _parts(body: Any) -> list[str]:
    """Take the words out of the error bodies of 2.0, 1.0, OAuth and Data Center."""
    if not isinstance(body, dict):
        return [body] if isinstance(body, str) else []
    error = body.get("error")
    if isinstance(error, dict):
        message, detail = error.get("message"), error.get("detail")
        return [_text(message), _detail(detail), _fields(error.get("fields"))]
    if isinstance(error, str):
        return [error, _text(body.get("error_description"))]
    errors = body.get("errors")
    if isinstance(errors, list):
        return [_text(item.get("message")) for item in errors[:3] if isinstance(item, dict)]
    return [_text(body.get("message")), _detail(body.get("detail"))]


def _detail(detail: Any) -> str:
    """Read `detail`: a text, or the scopes that were required and granted."""
    if not isinstance(detail, dict):
        return _text(detail)
    required, granted = _texts(detail.get("required")), _texts(detail.get("granted"))
    missing = [scope for scope in required if scope not in granted] or required
    if missing:
        return f"the credential lacks the scope {', '.join(missing)} (it has {', '.join(granted) or 'none'})"
    return ""


def _fields(fields: Any) -> str:
    if not isinstance(fields, dict):
        return ""
    return "; ".join(f"{name}: {', '.join(_texts(value)) or _text(value)}" for name, value in fields.items())


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
