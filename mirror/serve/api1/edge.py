"""The particulars of API 1.0: its addresses, formats, what its paths name, and what the mirror does not hold.

`format` and `callback` are Bitbucket's own parameters of API 1.0. The XML is that of django-piston, the
library it was built with: ``<resource>`` items inside ``<response>``.
"""

import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import yaml

from mirror.api2_extras import changed
from mirror.queries.accounts import users_named
from mirror.queries.repositories import parents_of, repository_named
from mirror.queries.rows import AccountRow, RepositoryRow
from mirror.queries.visibility import extra_of
from mirror.serve.api1 import shapes
from mirror.serve.api_edge import Names, Parameters
from mirror.serve.exchange import JSON_TYPE, Answer, ApiError, ApiRequest, spaced_json, unauthorized
from mirror.serve.unmirrored import COMMON_NOUNS, must_be_listed, noun, refusing

# Every prefix that clients use is answered directly, with and without a slash at the end. Redirects would not
# work: common libraries turn a redirected POST into a GET.
PATTERN = r"^/(?:(?:!|%21)?api/)?1\.0(?P<rest>/.*)?$"
OWNER, SLUG = "<owner>", "<slug>"
LONGEST_CALLBACK = 100

_CALLBACK = re.compile(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*", re.ASCII)
_ELEMENT = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def route(names: Sequence[str]) -> tuple[Names, Names]:
    """Return the pattern of a path, with placeholders, and the names in their places."""
    if any("/" in name for name in names[:3]):  # an escaped slash, which no name contains
        return (), ()
    pattern = list(names)
    for place, holder in ((1, OWNER), (2, SLUG)):
        if len(names) > place and (names[0] == "repositories" or (names[0] == "users" and place == 1)):
            pattern[place] = holder
    return tuple(pattern), tuple(names[1:])


def check(parameters: Parameters) -> None:
    """Raise ApiError 400 if `callback` is not the name of a function."""
    callback = parameters.get("callback")
    if callback is not None and not is_callback(callback):
        raise ApiError(400, "Bad Request", detail="callback: This is not the name of a function.")


def find_repository(connection: sqlite3.Connection, asked: ApiRequest) -> RepositoryRow:
    """Find the repository that the path names; raises ApiError 404, also for one that is hidden.

    Raises ApiError 503 if it may not be listed yet.
    """
    full_name = "/".join(asked.names[:2])
    found = repository_named(connection, asked.caller, full_name)
    if found is None:
        must_be_listed(connection, asked.caller, asked.names[0])
        raise ApiError(404, f"Repository {full_name} not found")  # clients compare how it begins
    return found


def find_users(
    connection: sqlite3.Connection, asked: ApiRequest, name: str | None = None
) -> list[AccountRow]:
    """Find the accounts that the path names, one for each upstream that has it.

    Raises ApiError 404, or 503 for a name that may not be listed yet.

    :param name: the name to find in the place of that in the path.
    """
    name = asked.names[0] if name is None else name
    found = users_named(connection, asked.caller, name)
    if not found:
        must_be_listed(connection, asked.caller, name)
        raise ApiError(404, f"User {name} not found")
    return found


def find_myself(connection: sqlite3.Connection, asked: ApiRequest) -> list[AccountRow]:
    """Find the user of the caller, as `find_users` does; raises ApiError 401, 403 or 404."""
    if not asked.caller.known:
        raise unauthorized()
    if asked.caller.username is None:
        raise ApiError(
            403,
            "This token speaks for no user",
            detail="Make one with `mirror token create --user NAME`, or send the name as the Basic user.",
        )
    return find_users(connection, asked, asked.caller.username)


def shown_repository(connection: sqlite3.Connection, asked: ApiRequest) -> tuple[RepositoryRow, Answer]:
    """Find the repository that the path names, and the answer with it; raises ApiError 404."""
    row = find_repository(connection, asked)
    parent = parents_of(connection, asked.caller, [row]).get(row.parent_id or 0)
    # As on Bitbucket: the answer to a POST says that the repository is still being created.
    body = shapes.repository(row, parent, state="creating" if asked.method == "POST" else "available")
    extra = extra_of(connection, asked.caller, "repository-1.0", row.id)
    return row, Answer(body=changed(body, extra, "", "") if extra else body, synced_at=row.last_seen_at)


def repository(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S."""
    return shown_repository(connection, asked)[1]


def render(answer: Answer, parameters: Parameters) -> tuple[bytes, str]:
    """Return the body in the requested format, and its content type."""
    if answer.body is None:
        return b"", "text/plain; charset=utf-8"
    callback = parameters.get("callback")
    if callback is not None and not is_callback(callback):
        callback = None  # the answer is the error that says so
    return formatted(answer.body, parameters.get("format", "json"), callback)


def is_callback(name: str) -> bool:
    """Return whether a JSONP callback is a plain, perhaps dotted, name, which cannot carry code."""
    return len(name) <= LONGEST_CALLBACK and _CALLBACK.fullmatch(name) is not None


def formatted(data: Any, form: str, callback: str | None) -> tuple[bytes, str]:
    """Return a body and its content type. Browsers do not run any of them, nor show them as a page."""
    if callback is not None:
        text = spaced_json(data).replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        # Without the comment, a body could pass for another kind of file (the Rosetta Flash attack).
        return b"/**/" + callback.encode() + b"(" + text + b");", "application/javascript; charset=utf-8"
    if form == "yaml":  # an unknown form means JSON, as unknown parameters are ignored
        lines = yaml.dump(data, Dumper=_DUMPER, allow_unicode=True, sort_keys=False, default_flow_style=False)
        return lines.encode(), "application/yaml; charset=utf-8"
    if form == "xml":
        root = ET.Element("response")
        _fill(root, data)
        body: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        return body, "application/xml; charset=utf-8"
    return spaced_json(data), JSON_TYPE


def _fill(element: ET.Element, data: Any) -> None:
    """Put a value into an element. A key that cannot name an element becomes an attribute."""
    if isinstance(data, dict):
        for key, value in data.items():
            if _ELEMENT.fullmatch(key):
                child = ET.SubElement(element, key)
            else:
                child = ET.SubElement(element, "resource", name=_NOT_XML.sub("\ufffd", key))
            _fill(child, value)
    elif isinstance(data, list):
        for value in data:
            _fill(ET.SubElement(element, "resource"), value)
    elif data is not None:
        element.text = _NOT_XML.sub("\ufffd", str(data))


Reader = Callable[[sqlite3.Connection, ApiRequest], Answer]

# What the mirror does not hold in API 1.0, by its name in an address.
_NOUNS = {
    "changesets": "history of changesets",
    "changeset": "changesets",
    "raw": "sources",
    "deploy-keys": "deploy keys",
    "ssh-keys": "SSH keys",
    "emails": "mail addresses",
    "links": "links of repositories",
    "services": "services of repositories",
    "privileges": "privileges",
    "groups": "groups",
    "group-privileges": "privileges of groups",
    "invitations": "invitations",
    "plan": "plans of accounts",
    "branches": "single branches",
    "tags": "single tags",
}

# Resources with addresses that begin with their own name, followed by an owner and perhaps a repository.
_OF_OWNER = ("privileges", "groups", "group-privileges", "invitations")

_OF_REPOSITORY = ("changesets", "changeset", "raw", "deploy-keys", "links", "services", *COMMON_NOUNS)
_OF_USER = ("emails", "ssh-keys", "privileges", "groups", "invitations", "plan")

# The patterns of what the documentation of API 1.0 had and the mirror does not hold.
NAMED: tuple[tuple[str, ...], ...] = (
    *(("repositories", OWNER, SLUG, name) for name in _OF_REPOSITORY),
    *(("users", OWNER, name) for name in _OF_USER),
    *(pattern for name in _OF_OWNER for pattern in ((name, OWNER), (name, OWNER, SLUG))),
    *(("user", name) for name in ("emails", "ssh-keys")),
    ("emails",),
    ("ssh-keys",),
)


def unmirrored_reader(pattern: tuple[str, ...]) -> Reader | None:  # noqa: PLR0911 - a table of forms
    """Return a function for an address below something that may be mirrored, though the address is not."""
    match pattern:
        case ("repositories", _, _, name, *_):
            return refusing(noun(name, _NOUNS), find_repository)
        case ("users", _, name, *_):
            return refusing(noun(name, _NOUNS), _first_user)
        case ("groups", _, *_):
            return refusing(noun("groups", _NOUNS), _first_user)
        case (name, _, _, *_) if name in _OF_OWNER:
            return refusing(noun(name, _NOUNS), find_repository)
        case (name, _) if name in _OF_OWNER:
            return refusing(noun(name, _NOUNS), _first_user)
        case ("user" | "emails" | "ssh-keys" as first, *more) if more or first != "user":
            return refusing(noun(more[0] if first == "user" else first, _NOUNS), _first_of_caller)
    return None


def _first_user(connection: sqlite3.Connection, asked: ApiRequest) -> AccountRow:
    return find_users(connection, asked)[0]


def _first_of_caller(connection: sqlite3.Connection, asked: ApiRequest) -> AccountRow:
    return find_myself(connection, asked)[0]
