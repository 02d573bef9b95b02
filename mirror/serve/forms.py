"""Form bodies of API 1.0: read within limits and checked field by field, before an upstream is asked.

Bodies are ``application/x-www-form-urlencoded``; JSON is taken as well. Booleans arrived as ``True``,
``true`` and ``False`` from different clients.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from datasette.utils.asgi import Request

from mirror.serve import body as bodies
from mirror.serve.body import BodyRefused
from mirror.serve.exchange import ApiError, bad_request

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
LARGEST_BODY = 256 * 1024
MOST_FIELDS = 200
_REFUSALS = {400: "Bad Request", 408: "Request Timeout", 413: "Request Entity Too Large"}
TRUE = frozenset({"true", "1", "on", "yes"})
FALSE = frozenset({"false", "0", "off", "no", ""})
FLAGS = ("is_private", "has_issues", "has_wiki", "no_forks", "no_public_forks", "no_private_forks")
TEXTS = {"name": 255, "description": 100_000, "website": 2000, "language": 100, "owner": 255}
SCMS = ("git", "hg")


class RepositoryForm(msgspec.Struct, frozen=True, kw_only=True):
    """What a form said; None is what it did not mention."""

    name: str | None = None
    scm: str | None = None
    owner: str | None = None
    is_private: bool | None = None
    description: str | None = None
    website: str | None = None
    language: str | None = None
    has_issues: bool | None = None
    has_wiki: bool | None = None
    no_forks: bool | None = None
    no_public_forks: bool | None = None
    no_private_forks: bool | None = None


async def read_fields(request: Request) -> dict[str, str]:
    """Read a body; raises ApiError 413 for a large one, 415 for another type, 400 for what cannot be read."""
    body = await read_body(request)
    kind = kind_of_body(request)
    if not body:
        return {}
    if kind == JSON:
        return _from_json(body)
    if kind not in ("", FORM):
        raise ApiError(415, "Unsupported Media Type", detail=f"Send the fields as {FORM}.")
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise _unreadable(error) from None
    return dict(reversed(pairs))  # of a field that is sent twice, the first counts


def kind_of_body(request: Request) -> str:
    """Tell what a body is said to be, without parameters; "" where nothing is said."""
    said: str = request.headers.get("content-type", "")
    return said.partition(";")[0].strip().lower()


async def read_body(request: Request) -> bytes:
    """Read a body up to the limit; raises ApiError as `bodies.read` refuses it."""
    try:
        return await bodies.read(request.receive, request.headers, most=LARGEST_BODY)
    except BodyRefused as error:
        raise ApiError(
            error.status, _REFUSALS[error.status], detail=str(error), headers={"Connection": "close"}
        ) from None


def read_json(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises ApiError 400, also for one that is nested too deeply."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _unreadable(error) from None


def plain_fields(said: Mapping[str, Any]) -> dict[str, str]:
    """Write the plain values of a JSON object as the fields of a form; null is not mentioned."""
    return {name: str(value) for name, value in said.items() if isinstance(value, str | int | float)}


def _from_json(body: bytes) -> dict[str, str]:
    """Read a JSON object as a form; an owner that is no name must not be the caller instead."""
    said = read_json(body)
    if isinstance(said.get("owner"), Mapping | list):
        raise bad_request({"owner": "This field is a name."})
    return plain_fields(said)


def _unreadable(error: Exception) -> ApiError:
    return ApiError(400, "Bad Request", detail=f"The body cannot be read: {error}")


def repository_form(fields: Mapping[str, str], *, required: tuple[str, ...] = ()) -> RepositoryForm:
    """Check the fields of a repository; raises ApiError 400 that names every wrong or missing one.

    Fields that 1.0 did not know are ignored.
    """
    said, wrong = dict[str, Any](), dict[str, str]()
    for name in (*TEXTS, *FLAGS, "scm"):
        if name in fields:
            said[name], complaint = _checked(name, fields[name])
            if complaint:
                wrong[name] = complaint
    for name in required:
        if not said.get(name):
            wrong[name] = "This field is required."
    if wrong:
        raise bad_request(wrong)
    return RepositoryForm(**said)


def _checked(name: str, text: str) -> tuple[Any, str | None]:
    """Read one field; return its value and what is wrong with it, if anything is."""
    if name in FLAGS:
        flag = text.strip().lower()
        return flag in TRUE, None if flag in TRUE | FALSE else "This field is true or false."
    if name == "scm":
        scm = text.strip().lower() or None
        return scm, None if scm in (*SCMS, None) else "This field is git or hg."
    if name not in ("name", "owner"):
        return text, _too_long(name, text)
    text = text.strip()
    if not text:
        return text, "This field is required."
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        return text, "This field holds control characters."
    return text, _too_long(name, text)


def _too_long(name: str, text: str) -> str | None:
    longest = TEXTS[name]
    return f"This field is longer than {longest} characters." if len(text) > longest else None
