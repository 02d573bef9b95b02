"""The reading routes of Data Center's API. Each is a function from a connection and a request to an answer.

Addresses and shapes are those of recorded answers and of the published description; docs/api-datacenter.md
has a row for each.
"""

import sqlite3
from collections.abc import Collection, Sequence

from mirror import __version__
from mirror.model import RefKind
from mirror.queries import sources
from mirror.queries.accounts import key_of, project_details, projects_keyed
from mirror.queries.refs import Ambiguous, ref_named, ref_of_commit
from mirror.queries.repositories import parents_of, repositories_by_ids
from mirror.queries.rows import AccountRow, RefRow, RepositoryRow, accounts_by_ids
from mirror.queries.sources import Source
from mirror.queries.visibility import may_see_members
from mirror.serve.api_edge import Api
from mirror.serve.datacenter import edge
from mirror.serve.datacenter.edge import (
    HERE,
    NAME,
    OTHER_PATTERN,
    PERSON,
    PROJECT,
    UNMIRRORED,
    UNMIRRORED_APIS,
    DataCenterRequest,
    Reader,
    WantedRows,
    find_person,
    find_projects,
    find_repository,
    not_mirrored_at,
    not_mirrored_here,
    not_permitted,
    refused,
)
from mirror.serve.exchange import Answer, ApiError, Json, last_seen
from mirror.serve.unmirrored import must_be_listed, must_have_members, of_refs, with_refs
from mirror.store.schema import REF_TABLES

VERSION = "8.19.0"  # the version of Data Center that this API is modelled on
_REPOSITORY_ROLES = {"REPO_READ": None, "REPO_WRITE": "contributor", "REPO_ADMIN": "admin"}
_PROJECT_ROLES = {
    "PROJECT_VIEW": None,
    "PROJECT_READ": None,
    "PROJECT_WRITE": "collaborator",
    "PROJECT_ADMIN": "owner",
}
_BY_KEY = "u.username COLLATE NOCASE, u.id"
_BY_NAME = "r.full_name COLLATE NOCASE, r.id"
_MADE_AT = "coalesce(date, target_date)"


def _with_refs(connection: sqlite3.Connection, asked: DataCenterRequest, rest: str) -> RepositoryRow:
    """Find the repository of the path; raises ApiError 503 or 501 if its refs were never read.

    :param rest: the requested path below the repository.
    """
    owner, row = find_repository(connection, asked)

    def refusal() -> ApiError:
        resource = asked.shapes.addresses.below_repository(row.upstream_id, key_of(owner), row.slug, rest)
        return not_mirrored_at(resource, "branches and tags", asked)

    return with_refs(asked, row, refusal)


def application_properties(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET application-properties: which server this is; `mirrorVersion` is the mirror's own."""
    del connection, asked
    number = "".join(f"{int(part):03}" for part in VERSION.split(".")).lstrip("0")
    return Answer(
        body={
            "version": VERSION,
            "buildNumber": number,
            "displayName": "Bitbucket",
            "mirrorVersion": __version__,
        }
    )


def projects(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects: those in which the caller sees something, personal ones too; `name`, `permission`."""
    wanted = WantedRows(asked)
    wanted.containing("name", asked.text("name"), "u.display_name", "u.username")
    role = _PROJECT_ROLES[asked.choice("permission", *_PROJECT_ROLES) or "PROJECT_VIEW"]
    found = wanted.read(connection, sources.workspaces(asked.caller, role), _BY_KEY)
    rows = [AccountRow(*row) for row in found]
    shaped = _shaped_projects(connection, asked, rows)
    return wanted.page(rows, lambda row: shaped[row.id], last_seen)


def project(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K."""
    row, *_ = find_projects(connection, asked)
    return Answer(body=_shaped_projects(connection, asked, [row])[row.id], synced_at=row.last_seen_at)


def _shaped_projects(
    connection: sqlite3.Connection, asked: DataCenterRequest, rows: Collection[AccountRow]
) -> dict[int, Json]:
    known = project_details(connection, asked.caller, [row.id for row in rows])
    return {row.id: asked.shapes.project(row, known[row.id]) for row in rows}


def project_repositories(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos, archived ones too."""
    found = find_projects(connection, asked)
    must_be_listed(connection, asked.caller, asked.names[0], found)
    source = sources.repositories(asked.caller, owners=[row.id for row in found])
    return _listed(connection, asked, source, WantedRows(asked))


def repositories(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET repos: those that the caller sees, by name, project, rights, visibility; without archived ones.

    ``archived=ALL`` includes these.
    """
    wanted = WantedRows(asked)
    wanted.containing("name", asked.text("name"), "r.name")
    wanted.containing(
        "projectname", asked.text("projectname"), "(SELECT display_name FROM users WHERE id = r.owner_id)"
    )
    visibility = asked.choice("visibility", "public", "private")
    wanted.equal("r.is_private", {"public": 0, "private": 1}.get(visibility or ""))
    archived = asked.choice("archived", "ACTIVE", "ARCHIVED", "ALL") or "ACTIVE"
    wanted.equal("coalesce(r.archived, 0)", {"ACTIVE": 0, "ARCHIVED": 1}.get(archived))
    state = asked.choice("state", "AVAILABLE", "INITIALISING", "INITIALISATION_FAILED", "OFFLINE")
    wanted.equal("1", None if state in (None, "AVAILABLE") else 0)  # all that is mirrored is available
    role = _REPOSITORY_ROLES[asked.choice("permission", *_REPOSITORY_ROLES) or "REPO_READ"]
    key, owners = asked.text("projectkey"), None
    if key:
        owners = [row.id for row in projects_keyed(connection, asked.caller, key)]
    return _listed(connection, asked, sources.repositories(asked.caller, owners=owners, role=role), wanted)


def repository(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos/S."""
    _, row = find_repository(connection, asked)
    (shaped,) = _shaped(connection, asked, [row]).values()
    return Answer(body=shaped, synced_at=row.last_seen_at)


def forks(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos/S/forks: those that the caller sees."""
    _, row = find_repository(connection, asked)
    return _listed(connection, asked, sources.repositories(asked.caller, parent=row.id), WantedRows(asked))


def _listed(
    connection: sqlite3.Connection, asked: DataCenterRequest, source: Source, wanted: WantedRows
) -> Answer:
    """Answer with a page of repositories, by project and slug."""
    ids = [row[0] for row in wanted.read(connection, source, _BY_NAME)]
    rows = repositories_by_ids(connection, asked.caller, ids)
    shaped = _shaped(connection, asked, rows)
    return wanted.page(rows, lambda row: shaped[row.id], last_seen)


def _shaped(
    connection: sqlite3.Connection, asked: DataCenterRequest, rows: Sequence[RepositoryRow]
) -> dict[int, Json]:
    """Shape repositories, by the ids of their rows, each with its project and its parent."""
    shapes = asked.shapes
    parents = parents_of(connection, asked.caller, rows)
    owners = accounts_by_ids(connection, {row.owner_id for row in (*rows, *parents.values())})
    projects = _shaped_projects(connection, asked, owners.values())
    origins = {one.id: shapes.repository(one, projects[one.owner_id]) for one in parents.values()}
    return {
        row.id: shapes.repository(
            row, projects[row.owner_id], origins.get(row.parent_id or 0) or shapes.unmirrored(row)
        )
        for row in rows
    }


def _refs(connection: sqlite3.Connection, asked: DataCenterRequest, kind: RefKind) -> Answer:
    """Answer with a page of refs, the newest first by default, as a real server does."""
    wanted = WantedRows(asked)
    row = _with_refs(connection, asked, REF_TABLES[kind])
    text = asked.parameters.get("filterText", "")
    wanted.containing("filterText", text, "name")
    orders = ["name"]
    if asked.choice("orderBy", "ALPHABETICAL", "MODIFICATION") != "ALPHABETICAL":
        orders.insert(0, f"{_MADE_AT} DESC")
    if text and asked.flag("boostMatches"):
        wanted.values["boosted"] = text.casefold()
        orders.insert(0, "mirror_match(name, :boosted)")
    details = asked.flag("details")
    found = wanted.read(connection, sources.refs(row.id, kind), ", ".join(orders))
    page = wanted.page(
        [RefRow(*one) for one in found],
        lambda ref: asked.shapes.ref(row, ref, details=details),
        lambda _: row.refs_synced_at,
    )
    return of_refs(row, page)


def branches(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos/S/branches; `filterText`, `orderBy`, `boostMatches`, `details`."""
    return _refs(connection, asked, "branch")


def tags(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos/S/tags; `filterText`, `orderBy`."""
    return _refs(connection, asked, "tag")


def tag(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos/S/tags/NAME."""
    name = asked.names[2].removeprefix("refs/tags/")
    row = _with_refs(connection, asked, f"tags/{name}")
    found = ref_named(connection, "tag", row.id, name)
    if found is None:
        message = f"Tag {name} does not exist in repository {row.slug}."
        raise refused(404, message, "repository.NoSuchTagException")
    return Answer(body=asked.shapes.ref(row, found), synced_at=row.refs_synced_at)


def commit(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos/S/commits/HASH: a commit that a branch or a tag names; short hashes too."""
    name = asked.names[2]
    row = _with_refs(connection, asked, f"commits/{name}")
    found = ref_of_commit(connection, row.id, name)
    if found is None:
        what = "commits but those that branches and tags name"
        raise not_mirrored_here(connection, asked, what, f"commits/{name}")
    if isinstance(found, Ambiguous):
        message = f"{name} is ambiguous: several commits begin with it."
        raise refused(400, message, "commit.AmbiguousCommitException")
    return Answer(body=asked.shapes.commit(found), synced_at=row.refs_synced_at)


def default_branch(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/repos/S/default-branch, or branches/default; 404 for an empty repository."""
    row = _with_refs(connection, asked, "default-branch")
    found = ref_named(connection, "branch", row.id, row.main_branch or "")
    if found is None:
        message = f'Repository "{asked.names[0]}/{row.slug}" has no default branch'
        raise refused(404, message, "repository.NoDefaultBranchException")
    return Answer(body=asked.shapes.ref(row, found), synced_at=row.refs_synced_at)


def project_rights(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET projects/K/permissions/users: the members of a workspace, for callers who may see them."""
    wanted, row = WantedRows(asked), find_projects(connection, asked)[0]
    if not may_see_members(connection, asked.caller, row.id):
        raise not_permitted(asked.caller)
    resource = asked.shapes.addresses.below_project(row.upstream_id, key_of(row), "permissions/users")
    what = "members of this project"
    must_have_members(connection, asked, row, lambda: not_mirrored_at(resource, what, asked))
    wanted.containing("filter", asked.text("filter"), "u.username", "u.display_name")
    width = len(AccountRow.__struct_fields__)
    found = wanted.read(connection, sources.members(asked.caller, row.id), _BY_KEY)
    return wanted.page(
        [(AccountRow(*one[:width]), one[width]) for one in found],
        lambda pair: asked.shapes.right(*pair),
        lambda pairs: last_seen(account for account, _ in pairs) or row.last_seen_at,
    )


def users(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET users: the people whom the caller may see; only for known callers. `filter` searches names."""
    if not asked.caller.known:
        raise not_permitted(asked.caller)
    wanted = WantedRows(asked)
    wanted.containing("filter", asked.text("filter"), "ltrim(u.username, '~')", "u.display_name")
    found = wanted.read(connection, sources.people(asked.caller), _BY_KEY)
    return wanted.page([AccountRow(*row) for row in found], asked.shapes.user, last_seen)


def user(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """GET users/U; only for known callers."""
    row = find_person(connection, asked)
    return Answer(body=asked.shapes.user(row), synced_at=row.last_seen_at)


# Every address that answers GET, with placeholders for names.
READERS: dict[tuple[str, ...], Reader] = {
    ("application-properties",): application_properties,
    ("projects",): projects,
    ("projects", PROJECT): project,
    ("projects", PROJECT, "repos"): project_repositories,
    ("projects", PROJECT, "permissions", "users"): project_rights,
    HERE: repository,
    (*HERE, "branches"): branches,
    (*HERE, "branches", "default"): default_branch,
    (*HERE, "commits", NAME): commit,
    (*HERE, "default-branch"): default_branch,
    (*HERE, "forks"): forks,
    (*HERE, "tags"): tags,
    (*HERE, "tags", NAME): tag,
    ("repos",): repositories,
    ("users",): users,
    ("users", PERSON): user,
}

# The readers that accept a time in the past.
DATED = {repository, branches, commit, default_branch, tags, tag}

API = Api(
    pattern=edge.PATTERN,
    route=edge.route,
    request=edge.request_of,
    readers=READERS,
    missing=refused(404, "There is no API hosted at this address."),
    render=edge.render,
    unmirrored=UNMIRRORED.get,
    no_writes=edge.NO_WRITES,
    dated=DATED,
    at_once=DATED,
)

# Data Center's other APIs (``/rest/build-status/...``): nothing of them is mirrored.
OTHER_APIS = API._replace(
    pattern=OTHER_PATTERN,
    route=edge.other_route,
    readers={},
    unmirrored=UNMIRRORED_APIS.get,
    dated=(),
    at_once=(),
)
