"""Answers of an upstream: how a success is decoded, which error anything else becomes, and what is retried.

Error bodies are JSON, plain text, HTML or nothing, as recorded from Bitbucket; the status is always shown.
"""

import functools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from mirror.config import Retry
from mirror.credentials import Credential
from mirror.decoding import decoded_bytes, mended
from mirror.errors import (
    CredentialsRefused,
    MirrorError,
    ProxyRefused,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.readable import visible
from mirror.upstream.budget import Budget

if TYPE_CHECKING:
    import tenacity

Shape = TypeVar("Shape")

EXCERPT = 80  # characters of an unexpected body that its error shows
LONGEST_READ = 65_536  # bytes of a body that are searched for words

_RETRIED = {304, 408, 425, 429}  # 304 answers a condition, and no request has one

# Sent by another mirror with refs that it has to read again (200), has not read (503) or does not mirror
# (501), and with what a workspace owns before it was listed (503). It concerns one repository or workspace,
# which is requested again later; the others are not kept waiting.
_REFS_HEADER, _LISTING_HEADER = "x-mirror-refs", "x-mirror-listing"

_AGE = re.compile(r"[0-9]{1,9}")

_NO_REFS = ' - set refs = "git" for this upstream, or refs = "none" to mirror no branches and tags'

WRONG_ADDRESS = " - is `url` right, with its path?"
PROXY_LOGIN = " - the proxy wants a login: write its address as http://USER:PASSWORD@HOST:PORT"

_SECRET_PARAMS = {"access_token", "jwt", "oauth_token", "token"}

_USED = {
    "basic": "a user and a token by the Basic scheme",
    "bearer": "a token by the Bearer scheme",
    "oauth": "an OAuth consumer's key and secret",
    "anonymous": "none",
}

_WANTED = (
    "an API token goes as ACCOUNT-EMAIL:TOKEN, an access token of a repository, project or workspace as TOKEN"
    " alone, an OAuth consumer as oauth:KEY:SECRET; app passwords ended on 28 July 2026 (a Data Center takes"
    " USER:PASSWORD, or an HTTP access token alone)"
)

Answer = TypeVar("Answer")


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of an upstream.

    `headers` have lower-case names, `date` is by the upstream's clock, `address` is the one that was asked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    date: datetime
    address: str

    @property
    def url(self) -> str:
        """The address in a form that may be shown."""
        return shown_url(self.address)

    @property
    def age(self) -> int:
        """How many seconds ago a mirror or a cache in between got what it sent."""
        age = self.headers.get("age", "")
        return int(age) if _AGE.fullmatch(age) else 0

    @property
    def doubt(self) -> str:
        """What another mirror says against the refs that it sent; empty for the present ones."""
        return self.headers.get(_REFS_HEADER, "")


class UnexpectedBody(UpstreamBusy):
    """A success whose body is not of the kind that was requested; retried, then an UpstreamShapeError."""


def decoded(answer: Response, shape: type[Shape], redact: Callable[[str], str]) -> Shape:
    """Decode a JSON body as `shape`.

    `redact` removes secrets from the excerpt that UnexpectedBody shows. Raises UnexpectedBody if the body is
    not JSON, UpstreamShapeError with the address and the JSON path if it has another shape.
    """
    try:
        return decoded_bytes(answer.body, shape)
    except msgspec.ValidationError as error:
        raise UpstreamShapeError(f"{answer.url}: unknown shape: {error}") from None
    except (ValueError, OverflowError, RecursionError):
        raise unexpected_body(answer, redact, "no JSON") from None


def unexpected_body(answer: Response, redact: Callable[[str], str], what: str) -> UnexpectedBody:
    """Return the error for a success whose body is `what`, with an excerpt of the body."""
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    # Redacted before it is cut: half a secret would not be recognised.
    excerpt = shown(redact(answer.body[:LONGEST_READ].decode("utf-8", "replace")), EXCERPT)
    return UnexpectedBody(
        f"{answer.url}: {answer.status} with a body that is {what} ({shown(kind, 40)}): {excerpt!r}",
        status=answer.status,
    )


def error_for(
    answer: Response,
    credential: Credential,
    redact: Callable[[str], str],
    *,
    retry_after: float | None = None,
) -> MirrorError:
    """Return the error for an answer that is no success, with what the upstream says and what to do.

    `redact` removes secrets from the upstream's words. `retry_after` is in seconds; None if it is not given.
    """
    words = _upstream_message(answer, redact)
    line = f"{answer.url}: {answer.status}" + (f": {words}" if words else "")
    if answer.status == 407:
        return ProxyRefused(f"{line}{PROXY_LOGIN}")
    if answer.status in (401, 403) and _is_locked(answer, words):
        return CredentialsRefused(
            f"{line} - the account is locked: log in with a browser to unlock it, then wait"
        )
    if answer.status == 401:
        # Data Center's answer for a single thing that a known caller may not see.
        is_single = _has_exception(answer, "AuthorisationException")
        refused = UpstreamRefused(line, status=401, words=words)
        return refused if is_single else _refused_credential(line, credential)
    if _REFS_HEADER in answer.headers or _LISTING_HEADER in answer.headers:
        line += _NO_REFS if answer.status == 501 and _REFS_HEADER in answer.headers else ""
        return UpstreamRefused(line, status=answer.status, retry_after=retry_after)
    if answer.status >= 500 or answer.status in _RETRIED:
        return UpstreamBusy(line, status=answer.status, retry_after=retry_after)
    if answer.status == 404 and not words:  # a page of HTML, or nothing: Bitbucket says what is missing
        line += WRONG_ADDRESS
    if answer.status == 410:
        line += _removed(answer, words)
    message, fields = _told_error(answer, redact)
    return UpstreamRefused(line, status=answer.status, words=message or words, fields=fields)


def _is_locked(answer: Response, words: str) -> bool:
    """Return whether an account is locked; Data Center wants a CAPTCHA then, and says so in a header."""
    why = answer.headers.get("x-authentication-denied-reason", "")
    return "invalid password attempts" in words.lower() or why.upper().startswith("CAPTCHA")


def shown(text: str, length: int = 300) -> str:
    """Make foreign text safe for a terminal: one line of at most `length` characters, none of them hidden."""
    # It is cut first, since a body may have any size.
    flat = visible(" ".join(text[: length * 4].split()))
    return flat if len(flat) <= length else flat[: length - 1] + "\u2026"


def shown_url(url: str) -> str:
    """Return an address in a form that may be shown: without login, token and the long list of fields."""
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


@functools.lru_cache(maxsize=64)
def moment_of(date: str) -> datetime | None:
    """Read a Date header; None if it is missing or unreadable. Many answers have the same one."""
    try:
        moment = parsedate_to_datetime(date)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _refused_credential(line: str, credential: Credential) -> MirrorError:
    """Explain a 401. It ends the run if there is a credential; without one, only the request fails."""
    if credential.form == "anonymous":
        return UpstreamRefused(
            f"{line} - this needs a credential and none is configured: set `credential`; {_WANTED}",
            status=401,
        )
    return CredentialsRefused(
        f"{line} - the upstream refuses the credential. Used: {_USED[credential.form]}. Wanted: {_WANTED}."
        " Check the form first, then that the token has not expired and has the scopes to read accounts,"
        " workspaces, projects and repositories"
    )


def _removed(answer: Response, words: str) -> str:
    """Explain a 410: what to configure instead of an endpoint that Bitbucket removed."""
    path = answer.url.partition("?")[0].rstrip("/")
    if "CHANGE-" in words or path.endswith(("/repositories", "/workspaces", "/teams")):
        return (
            " - Bitbucket removed this listing (CHANGE-2770): name in the configuration what to mirror,"
            ' as in workspaces = ["your-workspace"]'
        )
    return " - this address was removed, or its removal is being rehearsed"


def _has_exception(answer: Response, exception: str) -> bool:
    """Return whether a Data Center's error is of an exception class."""
    return re.search(rb'"exceptionName"\s*:\s*"[\w.]*\b' + exception.encode() + b'"', answer.body) is not None


def _upstream_message(answer: Response, redact: Callable[[str], str]) -> str:
    """Return what the upstream says about its refusal, in one line; "" if it says nothing useful."""
    try:
        body = mended(answer.body) if answer.body else None
    except (ValueError, RecursionError):
        text = answer.body[:LONGEST_READ].decode("utf-8", "replace")
        return "" if text.lstrip().startswith("<") else shown(redact(text))
    return shown(redact("; ".join(part for part in _parts(body) if part)))


def _told_error(answer: Response, redact: Callable[[str], str]) -> tuple[str, dict[str, str]]:
    """Return the message of an error of API 2.0, and what that or Data Center says of each field."""
    try:
        body = mended(answer.body) if answer.body else None
    except (ValueError, RecursionError):
        return "", {}
    body = body if isinstance(body, dict) else {}
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    fields = error.get("fields")
    fields = fields if isinstance(fields, dict) else dict(_of_fields(body.get("errors")))
    told = {
        shown(redact(str(name)), 100): shown(redact(", ".join(_texts(value)) or _text(value)))
        for name, value in fields.items()
        if name
    }
    return shown(redact(_text(error.get("message")))), told


def _parts(body: Any) -> list[str]:
    """Return the texts in an error body of API 2.0, API 1.0, OAuth or Data Center."""
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
        return [": ".join(filter(None, pair)) for pair in _of_fields(errors[:3])]
    return [_text(body.get("message")), _detail(body.get("detail"))]


def _of_fields(errors: Any) -> list[tuple[str, str]]:
    """Return the errors of Data Center, each with its field or ""."""
    found = [item for item in errors if isinstance(item, dict)] if isinstance(errors, list) else []
    return [(_text(item.get("context")), _text(item.get("message"))) for item in found]


def _detail(detail: Any) -> str:
    """Return `detail` as a text: it is one, or holds the scopes that were required and granted."""
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


class NotSent(UpstreamBusy):
    """The request was never sent, so even a write may be retried."""


class Retrying:
    """Calls a function until it succeeds or no attempt is left, then raises the last error.

    `may_repeat` says which errors are worth another attempt, `delay` and `wait` what comes before it.
    """

    def __init__(
        self,
        attempts: int,
        *,
        may_repeat: "Callable[[BaseException], bool]",
        delay: "Callable[[tenacity.RetryCallState], float]",
        wait: "Callable[[tenacity.RetryCallState], None]",
    ) -> None:
        self.attempts, self._may_repeat, self._delay, self._wait = attempts, may_repeat, delay, wait

    def __call__(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Call the function with its arguments."""
        try:
            return function(*arguments)
        except UpstreamBusy as error:
            failed = [error]

        def attempt() -> Answer:
            if failed:
                raise failed.pop()
            return function(*arguments)

        # Most runs see no error, and the import takes longer than most commands.
        import tenacity  # noqa: PLC0415

        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_repeat),
            wait=self._delay,
            stop=tenacity.stop_after_attempt(self.attempts),
            before_sleep=self._wait,
            sleep=lambda _: None,  # `wait` has waited already
            reraise=True,
        )
        return again(attempt)


class RetryPolicy:
    """Which requests are retried: reads if it may help, writes only if they were certainly not done.

    `retry` is configured; `budget` waits and tells the user why; `random` spreads the delays.
    """

    def __init__(self, retry: Retry, budget: Budget, random: Random) -> None:
        self._retry = retry
        self._budget = budget
        self._random = random
        self.reads = self.reads_at_most(retry.attempts)
        self.writes = self._retrying(retry.attempts, _was_not_done)

    def reads_at_most(self, attempts: int) -> Retrying:
        """Return the rule for reads with fewer attempts than are configured."""
        most = min(attempts, self._retry.attempts)
        return self._retrying(most, self._may_ask_again)

    def _retrying(self, attempts: int, may_repeat: Callable[[BaseException], bool]) -> Retrying:
        wait = functools.partial(self._wait, attempts)
        return Retrying(attempts, may_repeat=may_repeat, delay=self._delay, wait=wait)

    def _may_ask_again(self, error: BaseException) -> bool:
        """Return whether a read is worth another attempt in this run."""
        if not isinstance(error, UpstreamBusy):
            return False
        return error.status == 429 or (error.retry_after or 0) <= self._budget.longest_wait

    def _delay(self, state: "tenacity.RetryCallState") -> float:
        """Return the seconds until the next attempt: Retry-After, else a growing delay with jitter."""
        error = _error_of(state)
        if error.status == 429:
            return 0.0  # the budget waits: 429 holds the whole account
        if error.retry_after:
            return error.retry_after
        growing = self._retry.first_delay * 2 ** (state.attempt_number - 1)
        longest: float = min(growing, self._retry.max_delay, self._budget.longest_wait)
        return longest * self._random.uniform(0.5, 1.0)

    def _wait(self, attempts: int, state: "tenacity.RetryCallState") -> None:
        """Wait before the next attempt, and tell the user why."""
        self._budget.repeat_next()
        seconds = state.next_action.sleep if state.next_action else 0.0
        if seconds:
            number = state.attempt_number + 1
            why = f"{_error_of(state)}; try {number} of {attempts}"
            self._budget.pause(seconds, why)


def _error_of(state: "tenacity.RetryCallState") -> UpstreamBusy:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, UpstreamBusy) else UpstreamBusy(str(error))


def _was_not_done(error: BaseException) -> bool:
    """Return whether a write was certainly not done."""
    # A 429 refuses a request before anything is done.
    return isinstance(error, NotSent) or (isinstance(error, UpstreamBusy) and error.status == 429)
