"""What an API is asked and what it answers, as values; errors in the form of API 1.0."""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from mirror.serve.callers import Caller
from mirror.store.files import DAMAGED, known_remedy

log = logging.getLogger(__name__)

REFS_HEADER = "X-Mirror-Refs"
"""Why refs are not answered: "not read yet" or "not mirrored"."""

REFS_RETRY_SECONDS = 60


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request to an API, taken apart: names out of the path, the first value of each parameter."""

    method: str
    names: tuple[str, ...] = ()
    parameters: Mapping[str, str] = {}
    caller: Caller

    def number(self, parameter: str, default: int, most: int) -> int:
        """Read a parameter that counts something; what is no number is the default, as then."""
        text = self.parameters.get(parameter, "")
        return min(int(text), most) if text.isascii() and text.isdecimal() and len(text) < 10 else default


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A body to be rendered; None is no body at all. `synced_at` is the age of what it was made from."""

    body: Any = None
    status: int = 200
    synced_at: str | None = None
    headers: Mapping[str, str] = {}


Handler = Callable[..., Answer]


class ApiError(Exception):
    """A refusal with its status, in the words of then: ``{"error": {"message", "detail"?, "fields"?}}``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        detail: str | None = None,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        error: dict[str, Any] = {"message": message}
        if detail:
            error["detail"] = detail
        if fields:
            error["fields"] = {name: [complaint] for name, complaint in fields.items()}
        self.body = {"error": error}

    def answer(self) -> Answer:
        """Return the refusal as an answer."""
        return Answer(body=self.body, status=self.status, headers=self.headers)


def bad_request(fields: Mapping[str, str]) -> ApiError:
    """Refuse a form, naming each field and what is wrong with it."""
    detail = " ".join(f"{name}: {complaint}" for name, complaint in fields.items())
    return ApiError(400, "Bad Request", detail=detail, fields=fields)


def unauthorized(reason: str = "") -> ApiError:
    """Ask for credentials; `reason` says what is wrong with those that were sent."""
    return ApiError(
        401,
        "Unauthorized",
        detail=f"{reason}Send a token of this mirror, as the password of a Basic login or as Bearer; "
        "`mirror token create NAME` makes one.",
        headers={"WWW-Authenticate": 'Basic realm="Bitbucket mirror", charset="UTF-8"'},
    )


def unread(path: str, error: Exception) -> ApiError:
    """Log why the file could not be read for a path, busy or damaged, and return the refusal."""
    if isinstance(error, sqlite3.OperationalError):
        log.warning("%s: %s", path, error)
        return ApiError(503, "The mirror is busy", headers={"Retry-After": "1"})
    log.error("%s: %s (%s)", path, known_remedy(str(error)) or DAMAGED, error)
    return ApiError(503, "The file of the mirror cannot be read; the log says why.")


def not_accepted() -> ApiError:
    """Refuse a credential that is unknown, expired or revoked."""
    return unauthorized("This credential is not accepted: it is unknown, expired or revoked. ")


def not_found(what: str, name: str) -> ApiError:
    """Say that the mirror holds no such thing for this caller; clients test how the message begins."""
    return ApiError(404, f"{what} {name} not found")


def refs_not_read(full_name: str) -> ApiError:
    """Say that the refs of a repository were never read; the header tells another mirror so."""
    return ApiError(
        503,
        f"The branches and tags of {full_name} have not been read yet",
        detail="The mirror reads them in one of its next syncs; until then it does not know which there are.",
        headers={"Retry-After": str(REFS_RETRY_SECONDS), REFS_HEADER: "not read yet"},
    )


def not_mirrored(what: str) -> ApiError:
    """Say that nothing is known of something: an empty list would say that there is none."""
    return ApiError(501, f"This mirror does not hold {what}", detail="The upstream does not tell it.")


def refs_not_mirrored() -> ApiError:
    """Say that refs are left out of the mirror as a whole (``refs = "none"``)."""
    return ApiError(
        501,
        "This mirror holds no branches and tags",
        detail='Its operator configured refs = "none" for this upstream.',
        headers={REFS_HEADER: "not mirrored"},
    )


def oldest(moments: Iterable[str | None]) -> str | None:
    """Return the age of what is made of several rows: that of the oldest."""
    return min((moment for moment in moments if moment), default=None)
