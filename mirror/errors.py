"""All errors of this program; the type says what to do next.

MirrorError                   a sentence for the user, and the exit code of a command that ends with it
  ConfigError             2   the operator must change something
  CredentialsRefused      3   401, or a token that reads as anonymous: stop the run, never retry
  ProxyRefused            4   407: stop the run, never retry
  Paused                  0   stopped as asked before the work was done; the cursor is kept
    BudgetSpent               no request is left now; has the time of the next one
  Interrupted           130   Ctrl-C or SIGTERM; the cursor is kept
  UpstreamError           4   not the answer that was asked for
    UpstreamBusy              repeat it: timeout, lost connection, 429, 5xx; has retry_after
    UpstreamRefused           do not repeat it: 400, 403, 404, 410, any other status; has the status
      NameReused              the name leads to another repository: the one that was meant may have moved
    UpstreamShapeError        a body that is not the JSON we know
    OutcomeUnknown            a write that may or may not have happened: look before repeating it
  StoreError              4   the mirror file is missing, locked, full, broken or too new
    StoreLocked               another process holds it, or the file to be written
  NotFound                1   the mirror does not hold what was asked for
    NotKnownThen              nothing is known of it at that moment; has the first moment that is known
"""

from collections.abc import Mapping
from datetime import datetime

from mirror.readable import abridged

LONGEST_MESSAGE = 1000
"""How many characters of a message are kept. One that repeats what somebody typed could have any length."""

INDEX_LOST = "a search index has lost rows; `mirror sync` or `mirror verify --repair` builds it anew"
"""What to do about an index that lacks rows or tables, in a StoreError."""

IF_RENAMED = (
    "its rows stay as they are; if you have changed its `name`, change it back: by another name, an upstream"
    " is another one, and each of its repositories is there twice"
)
"""What to do about an upstream in the file that the configuration does not name."""


class MirrorError(Exception):
    """An error that is one sentence for the user; `exit_code` is that of a command it ends."""

    exit_code = 4

    def __init__(self, message: str) -> None:
        super().__init__(abridged(message, LONGEST_MESSAGE))


class ConfigError(MirrorError):
    """A setting, flag or argument that must be changed by hand."""

    exit_code = 2


class CredentialsRefused(MirrorError):
    """The upstream does not accept the credential; more attempts might lock the account."""

    exit_code = 3


class ProxyRefused(MirrorError):
    """The proxy on the way to the upstream wants a login; more attempts might lock it."""


class Paused(MirrorError):
    """The run stopped as asked before its work was done; the next one resumes it."""

    exit_code = 0


class BudgetSpent(Paused):
    """The upstream's hourly budget is spent; `resumes_at` is when the next request may be sent."""

    def __init__(self, message: str, *, resumes_at: datetime) -> None:
        super().__init__(message)
        self.resumes_at = resumes_at


class Interrupted(MirrorError):
    """The user or the system asked the process to stop."""

    exit_code = 130


class UpstreamError(MirrorError):
    """The upstream did not give what was asked for."""


class UpstreamBusy(UpstreamError):
    """Worth a retry. `retry_after` is the delay in seconds that the upstream asked for, if any.

    `status` is the HTTP status, or None without an answer.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class UpstreamRefused(UpstreamError):
    """Not worth a retry: the answer would be the same. `status` is the HTTP status.

    - `retry_after`: the delay in seconds after which the answer may differ, if the upstream sent one.
    - `words`: the upstream's message without its address.
    - `fields`: the upstream's messages about single fields.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        retry_after: float | None = None,
        words: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.words = words
        self.fields = dict(fields or {})


class NameReused(UpstreamRefused):
    """The name leads to another repository by now. The one that was asked for may be anywhere, or nowhere.

    `words` do not tell which: not all who may ask for a name may know that.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message, status=status, words="the name leads to another repository upstream now")


class UpstreamShapeError(UpstreamError):
    """The body is not JSON, or not of a shape that is known."""


class OutcomeUnknown(UpstreamError):
    """The answer to a write was lost, and reading the repository did not show the outcome."""


class StoreError(MirrorError):
    """The mirror file cannot be used as it is."""


class StoreLocked(StoreError):
    """Another process holds the mirror, or a file that is to be written."""


class NotFound(MirrorError):
    """The mirror does not have what was asked for."""

    exit_code = 1


class NotKnownThen(NotFound):
    """Nothing is known of a repository at a moment; `since` is the first moment of which something is."""

    def __init__(self, message: str, *, since: str) -> None:
        super().__init__(message)
        self.since = since
