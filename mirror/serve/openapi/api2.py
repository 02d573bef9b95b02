"""The parameters and responses of API 2.0.

No key is required: `fields` can leave out every one.
"""

from collections.abc import Sequence

from mirror.model import FORK_POLICIES
from mirror.serve.api2.edge import NAME, NAMED, REPOSITORY, WORKSPACE
from mirror.serve.api2.listings import ROLES
from mirror.serve.api2.routes import READERS, TEAM_ROLES
from mirror.serve.openapi.document import (
    ERROR,
    FLAG,
    FLAG_OR_NULL,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    Description,
    Operation,
    Parameter,
    Schema,
    alike,
    array,
    by_name,
    named,
    not_read,
    one_of,
    or_null,
    record,
)
from mirror.serve.writer import SCMS

_LINKS = named("Links")
_ACCOUNT = or_null(named("Account"))
_AUTHOR = or_null(named("Author"))
_WORKSPACE = or_null(named("Workspace"))


def _partial(texts: str = "", /, **others: Schema) -> Schema:
    """Describe an object of which any key can be missing; `texts` are keys of texts that can be null."""
    return record({}, alike(TEXT_OR_NULL, texts) | others)


def _page_of(values: Schema) -> Schema:
    return _partial(pagelen=NUMBER, page=NUMBER, size=NUMBER, next=TEXT, previous=TEXT, values=array(values))


SCHEMAS: dict[str, Schema] = {
    "Error": record({"type": one_of("error"), "error": ERROR}),
    "Link": _partial(href=TEXT, name=TEXT),
    "Links": by_name({"anyOf": [named("Link"), array(named("Link"))]}),
    "Account": _partial(
        "display_name uuid username nickname account_id created_on", type=TEXT, kind=TEXT, links=_LINKS
    ),
    "Workspace": _partial("uuid name slug created_on", type=TEXT, is_private=FLAG_OR_NULL, links=_LINKS),
    "Project": _partial(
        "key uuid name description",
        type=TEXT,
        is_private=FLAG_OR_NULL,
        workspace=_WORKSPACE,
        owner=_ACCOUNT,
        links=_LINKS,
    ),
    "RepositoryInShort": _partial("uuid full_name name", type=TEXT, links=_LINKS),
    "Repository": _partial(
        "uuid name slug description scm website fork_policy created_on updated_on language",
        type=TEXT,
        full_name=TEXT,
        owner=_ACCOUNT,
        workspace=_WORKSPACE,
        project=or_null(named("Project")),
        mainbranch=or_null(_partial("name", type=TEXT)),
        parent=or_null(named("RepositoryInShort")),
        links=_LINKS,
        **alike(FLAG, "is_private archived"),
        **alike(FLAG_OR_NULL, "has_issues has_wiki"),
        **alike(NUMBER_OR_NULL, "size followers_count forks_count"),
    ),
    "Author": _partial("raw", type=TEXT, user=_ACCOUNT),
    "CommitInShort": _partial(type=TEXT, hash=TEXT, links=_LINKS),
    "Commit": _partial(
        "date message",
        type=TEXT,
        hash=TEXT,
        author=_AUTHOR,
        parents=or_null(array(named("CommitInShort"))),
        repository=or_null(named("RepositoryInShort")),
        links=_LINKS,
    ),
    "Ref": _partial(
        "message date",
        type=TEXT,
        name=TEXT,
        target=or_null(named("Commit")),
        heads=or_null(array(named("CommitInShort"))),
        tagger=_AUTHOR,
        links=_LINKS,
    ),
    "Membership": _partial("permission", type=TEXT, user=_ACCOUNT, workspace=_WORKSPACE, links=_LINKS),
    "WorkspaceAccess": _partial(type=TEXT, administrator=FLAG, workspace=_WORKSPACE),
    "RepositoryPermission": _partial(
        "permission", type=TEXT, user=_ACCOUNT, repository=or_null(named("RepositoryInShort"))
    ),
    "Accounts": _page_of(named("Account")),
    "Workspaces": _page_of(named("Workspace")),
    "WorkspaceAccesses": _page_of(named("WorkspaceAccess")),
    "Memberships": _page_of(named("Membership")),
    "Projects": _page_of(named("Project")),
    "Repositories": _page_of(named("Repository")),
    "RepositoryPermissions": _page_of(named("RepositoryPermission")),
    "Refs": _page_of(named("Ref")),
    "Settings": _partial(
        **alike(TEXT, "name description website language"),
        **alike(FLAG, "is_private has_issues has_wiki"),
        scm=one_of(*SCMS),
        fork_policy=one_of(*FORK_POLICIES),
        workspace={"anyOf": [TEXT, _partial(**alike(TEXT, "slug uuid"))]},
    ),
}

_LISTED = (
    Parameter("page", TEXT, "The number of a page, or the text that a `next` link has."),
    Parameter("pagelen", {"type": "integer", "minimum": 1}, "Rows of a page, 100 at most."),
    Parameter("q", TEXT, 'A condition, such as `name ~ "abc" AND is_private = false`.'),
    Parameter("sort", TEXT, "The field to sort by; with `-` before it downwards."),
)


def _list(values: str, *more: Parameter) -> Operation:
    return Operation(named(values), (*_LISTED, *more))


def _role(roles: Sequence[str] = ROLES) -> Parameter:
    return Parameter("role", one_of(*roles), "The explicit right of the caller.")


_HERE = ("repositories", WORKSPACE, REPOSITORY)
_OWNED = _list("Repositories", _role())

READS = {
    ("user",): Operation(named("Account")),
    ("user", "workspaces"): _list(
        "WorkspaceAccesses", Parameter("administrator", FLAG, "Those that the caller administers, or not.")
    ),
    ("user", "workspaces", WORKSPACE, "permission"): Operation(named("Membership")),
    ("user", "workspaces", WORKSPACE, "permissions", "repositories"): _list("RepositoryPermissions"),
    ("user", "permissions", "repositories"): _list("RepositoryPermissions"),
    ("user", "permissions", "workspaces"): _list("Memberships"),
    ("users", WORKSPACE): Operation(named("Account")),
    ("users", WORKSPACE, "repositories"): _OWNED,
    ("teams",): _list("Accounts", _role(tuple(TEAM_ROLES))),
    ("teams", WORKSPACE): Operation(named("Account")),
    ("teams", WORKSPACE, "members"): _list("Accounts"),
    ("teams", WORKSPACE, "projects"): _list("Projects"),
    ("teams", WORKSPACE, "repositories"): _OWNED,
    ("workspaces",): _list("Workspaces", _role(("owner", "collaborator", "member"))),
    ("workspaces", WORKSPACE): Operation(named("Workspace")),
    ("workspaces", WORKSPACE, "members"): _list("Memberships"),
    ("workspaces", WORKSPACE, "members", NAME): Operation(named("Membership")),
    ("workspaces", WORKSPACE, "permissions"): _list("Memberships"),
    ("workspaces", WORKSPACE, "projects"): _list("Projects"),
    ("workspaces", WORKSPACE, "projects", NAME): Operation(named("Project")),
    ("repositories",): _list(
        "Repositories", _role(), Parameter("after", TEXT, "A moment: those that were created since.")
    ),
    ("repositories", WORKSPACE): _OWNED,
    _HERE: Operation(named("Repository")),
    (*_HERE, "refs"): _list("Refs"),
    (*_HERE, "refs", "branches"): _list("Refs"),
    (*_HERE, "refs", "branches", NAME): Operation(named("Ref")),
    (*_HERE, "refs", "tags"): _list("Refs"),
    (*_HERE, "refs", "tags", NAME): Operation(named("Ref")),
    (*_HERE, "commit", NAME): Operation(named("Commit")),
    (*_HERE, "forks"): _OWNED,
    (*_HERE, "watchers"): _list("Accounts"),
}

_SAVED = named("Repository")

WRITES = {
    (_HERE, "POST"): Operation(_SAVED, body=named("Settings")),
    (_HERE, "PUT"): Operation(_SAVED, body=named("Settings"), statuses=(200, 201)),
    (_HERE, "DELETE"): Operation(None, statuses=(204,)),
    ((*_HERE, "forks"), "POST"): Operation(_SAVED, body=named("Settings"), statuses=(201,)),
}

DESCRIPTION = Description(
    title="API 2.0",
    prefix="/2.0",
    reads=READS,
    writes=WRITES,
    unmirrored=not_read(NAMED, READERS, NAME),
    schemas=SCHEMAS,
    parameters=(Parameter("fields", TEXT, "The keys to send, such as `values.name` or `-values.links`."),),
)
