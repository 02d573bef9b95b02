"""The particulars of API 2.0: its addresses, requests, `fields`, errors, and what the mirror does not hold.

Every prefix that Bitbucket's links use is answered directly, with and without a slash at the end, never by a
redirect. Errors have the form of 2.0: ``{"type": "error", "error": {"message", "detail"?, "fields"?}}``.

``fields=a,b.c`` sends only these parts, ``-a`` leaves one out, ``+a`` adds one to the default or to what is
left; ``*`` is every key. Paths that an answer does not have are ignored. Source:
developer.atlassian.com/cloud/bitbucket/rest/intro/#partial-response.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode

import msgspec
from datasette.utils.asgi import Request

from mirror.queries.accounts import account_named, owners_named
from mirror.queries.repositories import repository_in_workspace
from mirror.queries.rows import AccountRow, RepositoryRow, accounts_by_ids
from mirror.queries.visibility import extra_of
from mirror.serve.api2.ref_shapes import RefShapes
from mirror.serve.api2.shapes import ApiLinks
from mirror.serve.api_edge import Names, Parameters
from mirror.serve.exchange import (
    JSON_TYPE,
    Answer,
    ApiError,
    ApiRequest,
    address_of,
    spaced_json,
    unauthorized,
)
from mirror.serve.unmirrored import COMMON_NOUNS, must_be_listed, noun, refusing

if TYPE_CHECKING:
    from datasette.app import Datasette

PATTERN = r"^(?P<prefix>/(?:(?:!|%21)?api/)?2\.0)(?P<rest>/.*)?$"
WORKSPACE, REPOSITORY, NAME = "<workspace>", "<repository>", "<name>"
# Requests per hour, for clients that read this header. The mirror has no quota.
HEADERS = {"X-RateLimit-Limit": "1000000"}
_IN_PATHS = "/$;&=@!,:+"

MOST_PATHS = 500  # of the parameter `fields`
DEEPEST = 20

Tree = dict[str, "Tree"]


class Selection(msgspec.Struct, frozen=True):
    """Which paths of an answer to keep (None: all), and what to change then, in order: ``-`` or ``+``."""

    kept: Tree | None = None
    changes: tuple[tuple[str, Tree], ...] = ()

    def reaches_into(self, name: str) -> bool:
        """Return whether objects with that name are sent in part, not as a whole or not at all."""
        trees = (self.kept, *(tree for _, tree in self.changes))
        return any(_reaches(tree, name) for tree in trees if tree)

    def of(self, value: Any) -> Any:
        """Return the selected parts of a value, as new objects."""
        found = value if self.kept is None else _keep(value, self.kept)
        for sign, tree in self.changes:
            found = _drop(found, tree) if sign == "-" else _joined(found, _keep(value, tree))
        return found

    def of_value(self, value: Any) -> Any:
        """Return the selected parts of one value of a page; encoded, `of` leaves them as they are."""
        [selected] = self.of({"values": [value]}).get("values", [None])
        return selected

    def wants(self, name: str) -> bool:
        """Return whether an answer can contain anything below a key; if not, it need not be computed."""
        wanted = self.kept is None or name in self.kept or "*" in self.kept
        for sign, tree in self.changes:
            if sign == "+":
                wanted = wanted or name in tree or "*" in tree
            elif tree.get(name) == {} or tree.get("*") == {}:
                wanted = False
        return wanted


def selection(text: str | None) -> Selection:
    """Read the parameter. A space before a path is an unescaped ``+``.

    Signed paths apply in their order, so a ``+`` after a ``-`` brings a part back.
    """
    paths = [path for path in (text or "").split(",") if path.strip()][:MOST_PATHS]
    wanted = [path.strip() for path in paths if path[0] not in "+- "]
    signed = [("-" if path[0] == "-" else "+", path[1:].strip()) for path in paths if path[0] in "+- "]
    changes = [(sign, _tree(path for _, path in alike)) for sign, alike in groupby(signed, key=itemgetter(0))]
    return Selection(_tree(wanted) if wanted else None, tuple(changes))


def _tree(paths: Iterable[str]) -> Tree:
    """Merge paths into a tree. A path selects everything below its end."""
    tree: Tree = {}
    for path in sorted(set(paths), key=len, reverse=True):
        branch = tree
        *before, last = path.split(".")[:DEEPEST]
        for part in before:
            branch = branch.setdefault(part, {})
        branch[last] = {}
    return tree


def _reaches(tree: Tree, name: str) -> bool:
    return any((key in (name, "*") and inner) or _reaches(inner, name) for key, inner in tree.items())


def _keep(value: Any, tree: Tree) -> Any:
    if not tree or tree.get("*") == {}:
        return value
    if isinstance(value, list):
        return [_keep(item, tree) for item in value]
    if isinstance(value, dict):
        if "*" in tree:
            return {key: _keep(item, tree.get(key, tree["*"])) for key, item in value.items()}
        return {key: _keep(value[key], inner) for key, inner in tree.items() if key in value}
    return value


def _drop(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_drop(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    left = {}
    for key, item in value.items():
        branches = [tree[name] for name in (key, "*") if name in tree]
        if {} not in branches:
            left[key] = reduce(_drop, branches, item)
    return left


def _joined(value: Any, added: Any) -> Any:
    """Return a value with the parts that were added to it."""
    if isinstance(value, dict) and isinstance(added, dict):
        joined = {**value}
        for key, item in added.items():
            joined[key] = _joined(value[key], item) if key in value else item
        return joined
    if isinstance(value, list) and isinstance(added, list) and len(value) == len(added):
        return [_joined(one, more) for one, more in zip(value, added, strict=True)]
    return added


class PageLinks(msgspec.Struct, frozen=True):
    """Makes the addresses of other pages: the requested address, with another `page`."""

    address: str
    parameters: Mapping[str, str]

    def to(self, page: str, **others: str) -> str:
        """Return the address of a page."""
        return f"{self.address}?{urlencode({**self.parameters, **others, 'page': page})}"


class Api2Request(ApiRequest, frozen=True, kw_only=True):
    """A request to API 2.0, with the links and shapes for its answer, and the requested `fields`."""

    links: ApiLinks
    shapes: RefShapes
    pages: PageLinks
    selection: Selection | None = None

    def wants(self, name: str) -> bool:
        """Return whether the caller wants a part of the answer."""
        return self.selection is None or self.selection.wants(name)

    def selected(self, answer: Answer) -> Answer:
        """Return an answer with only the requested `fields`."""
        if self.selection is None:
            return answer
        return msgspec.structs.replace(answer, body=self.selection.of(answer.body))


Reader = Callable[[sqlite3.Connection, Api2Request], Answer]


def route(names: Sequence[str]) -> tuple[Names, Names]:  # noqa: PLR0911 - a table of forms
    """Return the pattern of a path, with placeholders, and the names in their places.

    The name of a ref is the rest of the path, since it may contain slashes, escaped or not.
    """
    match names:
        case ["repositories", workspace, slug, "refs", "branches" | "tags" as kind, *name] if name:
            pattern = ("repositories", WORKSPACE, REPOSITORY, "refs", kind, NAME)
            return pattern, (workspace, slug, "/".join(name))
        case ["repositories", workspace, slug, "commit", commit]:
            return ("repositories", WORKSPACE, REPOSITORY, "commit", NAME), (workspace, slug, commit)
        case ["user", "workspaces", workspace, *more]:
            return ("user", "workspaces", WORKSPACE, *more), (workspace,)
        case ["repositories", workspace, slug, *more]:
            return ("repositories", WORKSPACE, REPOSITORY, *more), (workspace, slug)
        case ["workspaces", workspace, "members" | "projects" as kind, name]:
            return ("workspaces", WORKSPACE, kind, NAME), (workspace, name)
        case ["repositories" | "users" | "teams" | "workspaces" as kind, name, *more]:
            return (kind, WORKSPACE, *more), (name,)
    return tuple(names), ()


def request_of(datasette: "Datasette", request: Request, asked: ApiRequest) -> Api2Request:
    """Add the links and the `fields` to a request; raises ApiError 400."""
    origin = address_of(datasette, request)
    api = f"{origin}{request.url_vars['prefix']}"
    here = f"{api}{quote(unquote(asked.path), safe=_IN_PATHS)}"
    fields = asked.parameters.get("fields")
    links, selected = ApiLinks(origin, api), selection(fields) if fields else None
    return Api2Request(
        **msgspec.structs.asdict(asked),
        links=links,
        shapes=RefShapes(
            links,
            whole=selected is None or not selected.reaches_into("links"),
            upstreams=asked.upstreams,
            find_extra=asked.find_extra,
        ),
        pages=PageLinks(here, asked.parameters),
        selection=selected,
    )


def render(answer: Answer, parameters: Parameters) -> tuple[bytes, str]:
    """Return the body as JSON, and its content type. The body of an error gets a `type`."""
    del parameters
    if answer.body is None:
        return b"", "text/plain; charset=utf-8"
    body = {"type": "error", **answer.body} if answer.status >= 400 else answer.body
    values = body.get("values") if isinstance(body, dict) else None
    if not (values and isinstance(values[0], msgspec.Raw)):
        return spaced_json(body), JSON_TYPE
    # To write the blanks of a whole page would take as long as all else that its answer needs.
    empty, place = spaced_json({**body, "values": []}), b'"values": ['
    return empty.replace(place, place + b", ".join(values), 1), JSON_TYPE


def no_repository() -> ApiError:
    """Return Bitbucket's error for a repository that does not exist or is hidden: the same for both."""
    return ApiError(
        404,
        "You may not have access to this repository or it no longer exists in this workspace. "
        "If you think this repository exists and you have access, make sure you are authenticated.",
    )


def no_workspace(name: str) -> ApiError:
    """Return the error for an unknown workspace."""
    return ApiError(404, f"No workspace with identifier '{name}'.")


def find_repository(connection: sqlite3.Connection, asked: Api2Request) -> RepositoryRow:
    """Find the repository that the path names; raises ApiError 404, or 503 if it may not be listed yet."""
    workspace, name = asked.names[:2]
    found = repository_in_workspace(connection, asked.caller, workspace, name)
    if found is None:
        must_be_listed(connection, asked.caller, workspace)
        raise no_repository()
    return found


def find_workspace(connection: sqlite3.Connection, asked: Api2Request) -> AccountRow:
    """Find the workspace that the path names; raises ApiError 404."""
    return find_workspace_rows(connection, asked)[0]


def find_workspace_rows(connection: sqlite3.Connection, asked: Api2Request) -> list[AccountRow]:
    """Find the rows of a workspace: with several upstreams there may be more than one.

    Raises ApiError 404, or 503 for a name that may not be listed yet.
    """
    name = asked.names[0]
    found = owners_named(connection, asked.caller, name)
    if not found:
        must_be_listed(connection, asked.caller, name)
        raise no_workspace(name)
    return found


def find_listed_workspace(connection: sqlite3.Connection, asked: Api2Request) -> list[AccountRow]:
    """Find the rows of a workspace whose contents are known; raises ApiError 404 or 503."""
    found = find_workspace_rows(connection, asked)
    must_be_listed(connection, asked.caller, asked.names[0], found)
    return found


def find_account(connection: sqlite3.Connection, asked: Api2Request) -> AccountRow:
    """Find the account that the path names; raises ApiError 404, or 503 if it may not be listed yet."""
    found = account_named(connection, asked.caller, asked.names[0])
    if found is None:
        must_be_listed(connection, asked.caller, asked.names[0])
        raise ApiError(404, asked.names[0])
    return found


def shown_repository(connection: sqlite3.Connection, asked: Api2Request) -> tuple[RepositoryRow, Answer]:
    """Find the repository that the path names, and the answer with it; raises ApiError 404."""
    row = find_repository(connection, asked)
    owner = accounts_by_ids(connection, [row.owner_id])[row.owner_id]
    extra = extra_of(connection, asked.caller, "repository", row.id)
    return row, Answer(body=asked.shapes.repository(row, owner, extra), synced_at=row.last_seen_at)


def repository(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S, by slug or by uuid."""
    return shown_repository(connection, asked)[1]


_OF_REPOSITORY = {
    "commits": "history of commits",
    "commit": "statuses, comments and other parts of commits",
    "branching-model": "branching model",
    "default-reviewers": "default reviewers",
    "effective-default-reviewers": "default reviewers",
    "permissions-config": "permissions",
    "pipelines_config": "pipelines",
    "deploy-keys": "deploy keys",
    "filehistory": "histories of files",
    "patch": "patches",
    "refs": "refs other than branches and tags",
}
_OF_WORKSPACE = {
    "search": "index of code",
    "pipelines-config": "pipelines",
    "permissions": "permissions of repositories",
    "projects": "settings of projects",
    "members": "settings of members",
    "pullrequests": "pull requests",
}
_OF_USER = {"emails": "mail addresses", "ssh-keys": "SSH keys", "search": "index of code"}
# Resources below a repository, a workspace and a user, and at the top level.
_ALONE = {
    "pullrequests": "pull requests",
    "snippets": "snippets",
    "hook_events": "webhook events",
    "addon": "add-ons",
}

# The patterns of these resources. Some have readers for a part of them.
NAMED: tuple[tuple[str, ...], ...] = (
    *(("repositories", WORKSPACE, REPOSITORY, name) for name in (*_OF_REPOSITORY, *COMMON_NOUNS)),
    *(("workspaces", WORKSPACE, name) for name in (*_OF_WORKSPACE, "hooks")),
    *(("users", WORKSPACE, name) for name in _OF_USER),
    *(("user", name) for name in _OF_USER),
    *((name,) for name in _ALONE),
)


def _first_of_caller(connection: sqlite3.Connection, asked: Api2Request) -> AccountRow | None:
    if not asked.caller.known:
        raise unauthorized()
    return next(iter(accounts_by_ids(connection, asked.caller.user_ids).values()), None)


def unmirrored_reader(pattern: tuple[str, ...]) -> Reader | None:
    """Return a function for an address below something that may be mirrored, though the address is not."""
    match pattern:
        case ("repositories", _, _, name, *_):
            return refusing(noun(name, _OF_REPOSITORY), find_repository)
        case ("user", "workspaces", _, name, *_) | ("workspaces", _, name, *_):
            return refusing(noun(name, _OF_WORKSPACE), find_workspace)
        case ("users" | "teams", _, name, *_):
            return refusing(noun(name, _OF_USER), find_account)
        case ("user", name, *_):
            return refusing(noun(name, _OF_USER), _first_of_caller)
        case (name, *_) if name in _ALONE:
            return refusing(_ALONE[name], lambda _, __: None)
    return None
