"""What an answer that is no success means: which error, in the upstream's own words, and what to do.

Bodies are JSON, plain text, HTML or nothing, as recorded from Bitbucket; none may hide the status.
"""

import re
from collections.abc import Callable
from typing import Any

from mirror.credentials import Credential
from mirror.errors import CredentialsRefused, MirrorError, UpstreamBusy, UpstreamRefused
from mirror.lenient_json import mended
from mirror.upstream.answer import LONGEST_READ, Answer, shown

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
    answer: Answer, credential: Credential, redact: Callable[[str], str], *, retry_after: float | None = None
) -> MirrorError:
    """Choose the error that an answer without success means; `redact` takes secrets out of its words."""
    words = words_of(answer, redact)
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


def _gone(answer: Answer, words: str) -> str:
    """Say what to configure instead of an endpoint that Bitbucket removed."""
    path = answer.url.partition("?")[0].rstrip("/")
    if "CHANGE-" in words or path.endswith(("/repositories", "/workspaces", "/teams")):
        return (
            " - Bitbucket removed this listing (CHANGE-2770): name in the configuration what to mirror,"
            ' as in workspaces = ["your-workspace"]'
        )
    return " - this address was removed, or its removal is being rehearsed"


def _names(answer: Answer, exception: str) -> bool:
    """Tell whether a Data Center's error is of a kind of exception."""
    return re.search(rb'"exceptionName"\s*:\s*"[\w.]*\b' + exception.encode() + b'"', answer.body) is not None


def words_of(answer: Answer, redact: Callable[[str], str]) -> str:
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
