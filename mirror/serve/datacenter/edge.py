"""The particulars of Data Center's API: its addresses, requests, pages, errors, and what the mirror lacks.

`start` counts rows, `limit` is the number of rows of a page; pages have no total. An error is ``{"errors":
[{"context", "message", "exceptionName"}]}``.

What the mirror does not hold is answered with 501 and the upstream's address, never with an empty list.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec
from datasette.utils.asgi import Request

from mirror.addresses import PERSONAL
from mirror.queries.accounts import key_of, person_named, projects_keyed
from mirror.queries.repositories import repository_owned
from mirror.queries.rows import AccountRow, RepositoryRow
from mirror.queries.sources import Source
from mirror.queries.visibility import Caller
from mirror.serve.api2.query_language import containing, pattern_of
from mirror.serve.api_edge import Names, Parameters
from mirror.serve.datacenter.shapes import CenterShapes, Resource
from mirror.serve.exchange import Answer, ApiError, ApiRequest, Json, address_of, number_in, unauthorized
from mirror.serve.unmirrored import NotMirrored, held_nowhere, must_be_listed, noun, passed_on
from mirror.store.rows import fetch

if TYPE_CHECKING:
    from datasette.app import Datasette

PATTERN = r"^/rest/api/(?:1\.0|latest)(?P<rest>/.*)?$"
# Placeholders in the patterns of paths. `MORE` is the rest of the path.
PROJECT, REPOSITORY, NAME, PERSON, MORE = "<project>", "<repository>", "<name>", "<user>", "<more>"

HERE = ("projects", PROJECT, "repos", REPOSITORY)  # the pattern of a repository's path

# The content type exactly as a real server sends it: one client compares the whole text.
CONTENT_TYPE = "application/json;charset=UTF-8"

NO_WRITES = "This API is read-only here: write to the upstream, or with API 1.0 or 2.0 of this mirror."

_EXCEPTIONS = {
    400: "validation.ArgumentValidationException",
    401: "auth.IncorrectPasswordAuthenticationException",
}
_PACKAGE = "com.atlassian.bitbucket"

Row = TypeVar("Row")
DEFAULT_LIMIT = 25  # rows of a page, as on a real server
MOST = 1000  # the most rows of a page
LAST_START = 2**31 - 1  # as on a real server, where it is an int of Java
LONGEST_PART = 1000


class DataCenterRequest(ApiRequest, frozen=True, kw_only=True):
    """A request to Data Center's API, with the shapes for its answer."""

    shapes: CenterShapes

    def flag(self, parameter: str) -> bool:
        """Return a parameter that is true or false; false for any other text."""
        return self.parameters.get(parameter, "").strip().lower() == "true"

    def text(self, parameter: str) -> str:
        """Return a parameter without the spaces around it; "" if it is missing."""
        return self.parameters.get(parameter, "").strip()

    def choice(self, parameter: str, *choices: str) -> str | None:
        """Return a parameter that must be one of several words, in any case; raises ApiError 400."""
        text = self.text(parameter)
        if not text:
            return None
        found = next((word for word in choices if word.lower() == text.lower()), None)
        if found is None:
            raise refused(400, f"{parameter} is one of {', '.join(choices)}.", context=parameter)
        return found

    def selected(self, answer: Answer) -> Answer:
        """Add the name of the caller: clients learn their own name from this header."""
        if not self.caller.known:
            return answer
        name = quote(self.caller.username or self.caller.name, safe=" @")
        return msgspec.structs.replace(answer, headers={**answer.headers, "X-AUSERNAME": name})


Reader = Callable[[sqlite3.Connection, DataCenterRequest], Answer]


def route(names: Sequence[str]) -> tuple[Names, Names]:  # noqa: PLR0911 - a table of forms
    """Return the pattern of a path, and the names in the places of its placeholders."""
    match names:
        case [] | ["projects" | "repos" | "users" | "application-properties"]:
            return tuple(names), ()
        case ["users", name, "repos", *_]:  # another address of a personal project, as on a real server
            return route(["projects", f"{PERSONAL}{name.removeprefix(PERSONAL)}", *names[2:]])
        case ["projects", key] | ["projects", key, "repos"] | ["projects", key, "permissions", "users"]:
            return ("projects", PROJECT, *names[2:]), (key,)
        case ["projects", key, "repos", slug, *more]:
            match more:
                case [] | ["branches" | "tags" | "default-branch" | "forks"] | ["branches", "default"]:
                    return (*HERE, *more), (key, slug)
                case ["tags", *_] | ["commits", _]:  # a tag's name may contain slashes, escaped or not
                    return (*HERE, more[0], NAME), (key, slug, "/".join(more[1:]))
            return (*HERE, MORE), (key, slug, "/".join(more))
        case ["projects", key, *more]:
            return ("projects", PROJECT, MORE), (key, "/".join(more))
        case ["users", name, *more]:
            return ("users", PERSON, *([MORE] if more else [])), (name, "/".join(more))
    return (names[0], MORE), (names[0],)


def other_route(names: Sequence[str]) -> tuple[Names, Names]:
    """Return the pattern of a path of another API, and its names: those of the API and the version first."""
    return (names[0], MORE), tuple(names)


def request_of(datasette: "Datasette", request: Request, asked: ApiRequest) -> DataCenterRequest:
    """Add what this API needs to a request; raises ApiError 400."""
    shapes = CenterShapes(address_of(datasette, request), asked.upstreams)
    return DataCenterRequest(**msgspec.structs.asdict(asked), shapes=shapes)


def render(answer: Answer, parameters: Parameters) -> tuple[bytes, str]:
    """Return an answer as JSON, and its content type. Errors of the edge get the form of this API."""
    del parameters
    if answer.body is None:
        return b"", "text/plain; charset=utf-8"
    body: Any = answer.body
    if answer.status >= 300 and "error" in body:
        error = body["error"]
        message = ": ".join(text for text in (error["message"], error.get("detail")) if text)
        body = refused(answer.status, message).body
    return msgspec.json.encode(body), CONTENT_TYPE


def refused(
    status: int,
    message: str,
    exception: str | None = None,
    *,
    context: str | None = None,
    headers: dict[str, str] | None = None,
) -> ApiError:
    """Return an error in the form of this API; `exception` is the last part of a Java class's name."""
    error = ApiError(status, message, headers=headers)
    exception = exception or _EXCEPTIONS.get(status)
    name = f"{_PACKAGE}.{exception}" if exception else None
    error.body = {"errors": [{"context": context, "message": message, "exceptionName": name}]}
    return error


def not_permitted(caller: Caller) -> ApiError:
    """Return the error for what the caller may not see; strangers are asked for credentials."""
    message = "You are not permitted to access this resource"
    headers = {} if caller.known else unauthorized().headers
    return refused(401, message, "AuthorisationException", headers=headers)


def find_projects(connection: sqlite3.Connection, asked: DataCenterRequest) -> list[AccountRow]:
    """Find the projects with the key in the path, nearly always one; raises ApiError 404 or 503."""
    key = asked.names[0]  # a hidden one does not exist: 404, though a real server answers 401
    found = projects_keyed(connection, asked.caller, key)
    if not found:
        must_be_listed(connection, asked.caller, key, ())  # one that is hidden is as good as unknown
        raise refused(404, f"Project {key} does not exist.", "project.NoSuchProjectException")
    return found


def find_repository(
    connection: sqlite3.Connection, asked: DataCenterRequest
) -> tuple[AccountRow, RepositoryRow]:
    """Find the repository of the path, and its project; raises ApiError 404 or 503."""
    key, slug, *_ = asked.names
    projects = find_projects(connection, asked)
    for project in projects:
        found = repository_owned(connection, asked.caller, project, slug)
        if found is not None:
            return project, found
    must_be_listed(connection, asked.caller, key, projects)
    message = f"Repository {key}/{slug} does not exist."
    raise refused(404, message, "repository.NoSuchRepositoryException")


def find_person(connection: sqlite3.Connection, asked: DataCenterRequest) -> AccountRow:
    """Find the person of the path; raises ApiError 401 for strangers, 404 if the caller may not know them."""
    if not asked.caller.known:
        raise not_permitted(asked.caller)
    found = person_named(connection, asked.caller, asked.names[0])
    if found is None:
        raise refused(404, f"{asked.names[0]} does not exist.", "user.NoSuchUserException")
    return found


class WantedRows:
    """The rows that a request wants: `start` and `limit`, and conditions on them; raises ApiError 400."""

    def __init__(self, asked: DataCenterRequest) -> None:
        self._start = _number(asked, "start", 0, least=0)
        self._limit = min(_number(asked, "limit", DEFAULT_LIMIT, least=1), MOST)
        self._conditions = list[str]()
        self.values = dict[str, Any]()

    def containing(self, name: str, text: str, *columns: str) -> None:
        """Keep rows in which one of several columns contains a text, in any case; "" keeps all rows.

        Raises ApiError 400 for a text that is too long.
        """
        if not text:
            return
        if len(text) > LONGEST_PART:
            raise refused(400, f"{name} has more than {LONGEST_PART} characters.", context=name)
        folded = text.casefold()
        self.values |= {name: pattern_of(folded), f"{name}_folded": folded}
        held = (containing(column, f":{name}", f":{name}_folded") for column in columns)
        self._conditions.append(f"({' OR '.join(held)})")

    def equal(self, column: str, value: int | None) -> None:
        """Keep rows whose column has a value; None keeps all rows."""
        if value is not None:
            self._conditions.append(f"{column} = {value:d}")

    def read(self, connection: sqlite3.Connection, source: Source, order: str) -> list[Any]:
        """Read the rows of the page, and one more if another page follows."""
        return fetch(
            connection,
            f"""SELECT {source.columns} FROM {source.table}
                WHERE {" AND ".join([source.where, *self._conditions])}
                ORDER BY {order} LIMIT :window_limit OFFSET :window_start""",
            {**source.values, **self.values, "window_start": self._start, "window_limit": self._limit + 1},
        )

    def page(
        self,
        rows: Sequence[Row],
        shape: Callable[[Row], Json],
        synced_at: Callable[[Sequence[Row]], str | None],
    ) -> Answer:
        """Answer with a page of what was read. One row too many means that more follow.

        `size` is that of the page.
        """
        shown, is_last = rows[: self._limit], len(rows) <= self._limit
        body: Json = {
            "size": len(shown),
            "limit": self._limit,
            "isLastPage": is_last,
            "values": [shape(row) for row in shown],
            "start": self._start,
        }
        if not is_last:
            body["nextPageStart"] = self._start + self._limit
        return Answer(body=body, synced_at=synced_at(shown))


def _number(asked: DataCenterRequest, name: str, default: int, *, least: int) -> int:
    text = asked.parameters.get(name, "")
    number = number_in(text, digits=10) if text else default
    if number is None or not least <= number <= LAST_START:
        raise refused(400, f"{name} is a number from {least} to {LAST_START}.", context=name)
    return number


_NOUNS = {
    "archive": "archives of files",
    "avatar.png": "pictures",
    "branches": "other data of branches",
    "browse": "files",
    "changes": "changes of files",
    "commits": "commits",
    "compare": "comparisons",
    "default-reviewers": "reviewers",
    "diff": "differences",
    "files": "files",
    "hook-scripts": "hook scripts",
    "patch": "patches",
    "permissions": "permissions other than those of users on projects",
    "pull-requests": "pull requests",
    "raw": "files",
}
# Resources below a project or a repository, and at the top level.
_ALONE = {
    "admin": "administration",
    "build-status": "builds",
    "commits": "commits",
    "dashboard": "pull requests",
    "groups": "groups",
    "hook-scripts": "hook scripts",
    "hooks": "hooks",
    "inbox": "pull requests",
    "labels": "labels",
    "logs": "logs",
    "markup": "rendered texts",
    "profile": "lists of viewed repositories",
    "tasks": "tasks",
}

# The server's other REST APIs, each with versions of its own.
_OTHER_APIS = {
    "access-tokens": "access tokens",
    "analytics": "statistics",
    "audit": "audit logs",
    "branch-permissions": "branch permissions",
    "branch-utils": "other data of branches",
    "build-status": "builds",
    "capabilities": "capabilities",
    "code-owners": "code owners",
    "comment-likes": "likes",
    "default-reviewers": "reviewers",
    "default-tasks": "tasks",
    "git": "settings of git",
    "gpg": "keys",
    "insights": "reports on commits",
    "jira": "issues",
    "keys": "keys",
    "mirroring": "mirrors of the server",
    "policies": "policies",
    "required-builds": "required builds",
    "search": "search in files",
    "ssh": "keys",
    "sync": "settings of forks",
}
# An unknown name needs a version behind it: it may be a database of Datasette's.
OTHER_PATTERN = (
    rf"^/rest(?P<rest>/(?:{'|'.join(['api', *_OTHER_APIS])}|[a-z][a-z-]*/(?:[0-9]+\.[0-9]+|latest))(?:/.*)?)$"
)

_KEPT_BY_NOBODY = {"Cache-Control": "no-store"}


def not_mirrored_at(resource: Resource, what: str, asked: DataCenterRequest) -> ApiError:
    """Return the error with an address of the upstream. It redirects only if that address has the same."""
    if resource.is_same:
        return NotMirrored(what, f"{resource.address}{passed_on(asked.query)}")
    message = f"This mirror holds no {what}; ask {resource.address}"
    return ApiError(501, message, headers=_KEPT_BY_NOBODY)


def _noun(rest: str) -> str:
    return noun(rest.partition("/")[0], _NOUNS)


def of_repository(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse projects/K/repos/S/..."""
    rest = asked.names[2]
    raise not_mirrored_here(connection, asked, _noun(rest), rest)


def not_mirrored_here(
    connection: sqlite3.Connection, asked: DataCenterRequest, what: str, rest: str
) -> ApiError:
    """Return the error for `what`, which is at `rest` below the repository of the path."""
    owner, row = find_repository(connection, asked)
    resource = asked.shapes.addresses.below_repository(row.upstream_id, key_of(owner), row.slug, rest)
    return not_mirrored_at(resource, what, asked)


def of_project(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse projects/K/..."""
    row, rest = find_projects(connection, asked)[0], asked.names[1]
    resource = asked.shapes.addresses.below_project(row.upstream_id, key_of(row), rest)
    raise not_mirrored_at(resource, _noun(rest), asked)


def of_person(connection: sqlite3.Connection, asked: DataCenterRequest, what: str = "") -> Answer:
    """Refuse users/U/...; `what` names the data, by default the path does."""
    row = find_person(connection, asked)
    page = asked.shapes.addresses.project_page(row.upstream_id, key_of(row))
    resource = Resource(page or "the upstream", is_same=False)
    raise not_mirrored_at(resource, what or _noun(asked.names[1]), asked)


def alone(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse resources outside all projects; their path does not show which upstream has them."""
    del connection
    raise held_nowhere(_ALONE[asked.names[0]])


def of_other_api(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse a path of another API, after checking that the caller may know what it is about."""
    what, addresses = _OTHER_APIS[asked.names[0]], asked.shapes.addresses

    def about(*names: str) -> DataCenterRequest:
        return msgspec.structs.replace(asked, names=names)

    match asked.names[2:]:
        case ["projects", key, "repos", slug, *_]:
            owner, found = find_repository(connection, about(key, slug))
            near = addresses.below_repository(found.upstream_id, key_of(owner), found.slug, "")
            resource = addresses.of_other_api(found.upstream_id, asked.names, near)
            raise not_mirrored_at(resource, what, asked)
        case ["projects", key, *_]:
            row = find_projects(connection, about(key))[0]
            near = addresses.below_project(row.upstream_id, key_of(row), "")
            resource = addresses.of_other_api(row.upstream_id, asked.names, near)
            raise not_mirrored_at(resource, what, asked)
        case ["users", name, *more]:
            return of_person(connection, about(name, "/".join(more)), what)
    raise held_nowhere(what)


# Addresses that are not mirrored, below something that may be; `MORE` is the rest of the path.
UNMIRRORED: dict[tuple[str, ...], Reader] = {
    (*HERE, MORE): of_repository,
    ("projects", PROJECT, MORE): of_project,
    ("users", PERSON, MORE): of_person,
    **{(first, MORE): alone for first in _ALONE},
}
# The server's other APIs, of which nothing is mirrored.
UNMIRRORED_APIS: dict[tuple[str, ...], Reader] = {(name, MORE): of_other_api for name in _OTHER_APIS}
