"""The reading routes of API 2.0. Each is a function from a connection and a request to an answer.

Addresses and shapes are those of recorded answers and of the published description. docs/api-2.0.md has a row
for each, including routes that Bitbucket has removed and the mirror still serves.
"""

import sqlite3
from typing import Any

from mirror.api2_objects import moment
from mirror.model import RefKind
from mirror.queries import accounts
from mirror.queries.accounts import project_named
from mirror.queries.refs import Ambiguous, ref_named, ref_of_commit
from mirror.queries.repositories import repositories_by_ids
from mirror.queries.rows import AccountRow, ProjectRow, RefRow, RepositoryRow, accounts_by_ids
from mirror.queries.visibility import Caller, may_see_members, ref_extras_of
from mirror.serve.api2 import edge, listings
from mirror.serve.api2.edge import (
    NAME,
    REPOSITORY,
    WORKSPACE,
    Api2Request,
    Reader,
    find_account,
    find_listed_workspace,
    find_repository,
    find_workspace,
    find_workspace_rows,
    repository,
    unmirrored_reader,
)
from mirror.serve.api2.listings import role_of
from mirror.serve.api2.paging import (
    Listing,
    PageWindow,
    accounts_of,
    envelope,
    listed,
    page_of,
    read_page,
    repositories_of_page,
)
from mirror.serve.api2.writes import WRITERS
from mirror.serve.api_edge import Api
from mirror.serve.exchange import Answer, ApiError, Json, last_seen, unauthorized
from mirror.serve.unmirrored import must_be_listed, must_have_members, not_mirrored, of_refs, with_refs
from mirror.times import normalised


def _myself(connection: sqlite3.Connection, caller: Caller) -> AccountRow:
    """Find the user of the caller; raises ApiError 401, or 403 for a token without a user."""
    if not caller.known:
        raise unauthorized()
    mine = accounts_by_ids(connection, caller.user_ids)
    if not mine:
        raise ApiError(
            403,
            "This API is only accessible with user credentials.",
            detail="Make a token with `mirror token create --user NAME`, or send the name as the Basic user.",
        )
    return mine[next(one for one in caller.user_ids if one in mine)]


def user(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET user: the user whom the caller speaks for."""
    row = _myself(connection, asked.caller)
    return Answer(body=asked.shapes.caller(row), synced_at=row.last_seen_at)


def users(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET users/U, by uuid, account id, or name, which Bitbucket no longer accepts."""
    row = find_account(connection, asked)
    return Answer(body=asked.shapes.account(row), synced_at=row.last_seen_at)


def team(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET teams/T: removed from Bitbucket. People are found too, for clients that ask for any name."""
    row = find_account(connection, asked)
    shape = asked.shapes.account if row.kind == "user" or not row.is_owner else asked.shapes.team
    return Answer(body=shape(row), synced_at=row.last_seen_at)


# The roles of teams, with the names that workspaces have for them.
TEAM_ROLES = {"admin": "owner", "contributor": "collaborator", "member": "member"}


def teams(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET teams?role=R: the caller's workspaces in the form of teams; removed from Bitbucket."""
    if not asked.caller.known:
        raise unauthorized()
    role = role_of(asked, tuple(TEAM_ROLES)) or "member"
    listing = listings.workspaces(asked.caller, TEAM_ROLES[role])
    return accounts_of(connection, asked, listing, lambda row, _: asked.shapes.team(row))


def owned_repositories(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET users/U/repositories and teams/T/repositories: removed from Bitbucket."""
    row = find_account(connection, asked)
    must_be_listed(connection, asked.caller, asked.names[0], [row])
    listing = listings.repositories(asked.caller, owners=[row.id], role=role_of(asked))
    return listed(connection, asked, listing, row.last_seen_at)


def workspaces(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET workspaces in which the caller may see anything; removed from Bitbucket in April 2026."""
    listing = listings.workspaces(asked.caller, role_of(asked, ("owner", "collaborator", "member")))
    return accounts_of(connection, asked, listing, lambda row, _: asked.shapes.workspace(row))


def workspace(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET workspaces/W, by slug or by uuid."""
    row = find_workspace(connection, asked)
    return Answer(body=asked.shapes.workspace(row), synced_at=row.last_seen_at)


def _open_workspace(connection: sqlite3.Connection, asked: Api2Request) -> AccountRow:
    """Find a workspace whose members the caller may see; raises ApiError 401, 403, 404, 501 or 503."""
    if not asked.caller.known:
        raise unauthorized()
    row = find_workspace(connection, asked)
    if not may_see_members(connection, asked.caller, row.id):
        raise ApiError(403, "Forbidden", detail="Only members of a workspace may list its members.")
    what = "members of this workspace"
    must_have_members(connection, asked, row, lambda: not_mirrored(what, asked, row.upstream_id))
    return row


def members(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET workspaces/W/members, for members of the workspace only, as on Bitbucket."""
    row, membership = _open_workspace(connection, asked), asked.shapes.membership
    listing = listings.members(asked.caller, row.id)
    return accounts_of(connection, asked, listing, lambda one, right: membership(one, row, right), row)


def team_members(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET teams/T/members: only the accounts, as teams had them."""
    row = _open_workspace(connection, asked)
    return accounts_of(
        connection,
        asked,
        listings.members(asked.caller, row.id),
        lambda user, _: asked.shapes.account(user),
        row,
    )


def member(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET workspaces/W/members/U: one membership, by uuid, account id or name."""
    row = _open_workspace(connection, asked)
    found = accounts.account_named(connection, asked.caller, asked.names[1])
    membership = _first(connection, listings.members(asked.caller, row.id, found.id)) if found else None
    if found is None or membership is None:
        raise ApiError(404, asked.names[1])
    return Answer(body=asked.shapes.membership(found, row, membership[-1]), synced_at=found.last_seen_at)


def _first(connection: sqlite3.Connection, listing: Listing) -> Any:
    """Return the first row of a listing; None without rows."""
    page = read_page(connection, listing, PageWindow(), order=listing.default, query=None, counted=False)
    return page.rows[0] if page.rows else None


def projects(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET workspaces/W/projects: those of repositories that the caller may see."""
    owners = find_listed_workspace(connection, asked)
    page = page_of(connection, asked, listings.projects(asked.caller, [row.id for row in owners]))
    rows = [ProjectRow(*row) for row in page.rows]
    values = [asked.shapes.project(row, owners[0]) for row in rows]
    return envelope(asked, page, values, last_seen(rows) or owners[0].last_seen_at)


def project(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET workspaces/W/projects/KEY."""
    owners = find_workspace_rows(connection, asked)
    found = project_named(connection, asked.caller, [row.id for row in owners], asked.names[1])
    if found is None:
        must_be_listed(connection, asked.caller, asked.names[0], owners)
        raise ApiError(
            404,
            f"No project with key '{asked.names[1]}'.",
            detail="This mirror knows projects only by their repositories, so no empty ones.",
        )
    return Answer(body=asked.shapes.project(found, owners[0]), synced_at=found.last_seen_at)


def my_workspaces(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET user/workspaces: the caller's workspaces; all of them for a token that sees everything."""
    if not asked.caller.known:
        raise unauthorized()
    wanted = asked.parameters.get("administrator", "").lower()
    administrator = {"true": True, "false": False}.get(wanted)
    listing = listings.own_workspaces(asked.caller, administrator=administrator)
    return accounts_of(connection, asked, listing, asked.shapes.workspace_access)


def my_permissions(
    connection: sqlite3.Connection, asked: Api2Request, workspaces: list[int] | None = None
) -> Answer:
    """GET user/permissions/repositories, as its workspace grants them; removed in April 2026."""
    me = _myself(connection, asked.caller)
    page = page_of(connection, asked, listings.own_repositories(asked.caller, workspaces))
    permissions = dict(page.rows)
    rows = repositories_by_ids(connection, asked.caller, list(permissions))
    values = [asked.shapes.permission(me, row, permissions[row.id]) for row in rows]
    return envelope(asked, page, values, me.last_seen_at)


def my_workspace_permissions(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET user/permissions/workspaces: the caller's memberships; removed in April 2026."""
    me, membership = _myself(connection, asked.caller), asked.shapes.membership
    listing = listings.memberships(asked.caller)
    return accounts_of(connection, asked, listing, lambda row, right: membership(me, row, right), me)


def my_workspace_permission(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET user/workspaces/W/permission: the caller's membership in one workspace."""
    me = _myself(connection, asked.caller)
    rows = find_workspace_rows(connection, asked)
    membership = _first(connection, listings.memberships(asked.caller, [row.id for row in rows]))
    if membership is None:
        raise ApiError(404, f"You are not a member of the workspace '{asked.names[0]}'.")
    *row, permission = membership
    body = asked.shapes.membership(me, AccountRow(*row), permission)
    return Answer(body=body, synced_at=me.last_seen_at)


def my_workspace_repositories(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET user/workspaces/W/permissions/repositories: the caller's rights in one workspace."""
    rows = find_listed_workspace(connection, asked)
    return my_permissions(connection, asked, [row.id for row in rows])


def all_repositories(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories: all that the caller may see, oldest first; removed from Bitbucket in April 2026.

    In the default order the `next` link has an `after`, as on Bitbucket, because clients save it. An answer
    to `after` has no `size`, which would count only the rest, and no `previous`: it only leads forward.
    """
    since = _since(asked)
    listing = listings.repositories(asked.caller, since=since, role=role_of(asked))
    page = page_of(connection, asked, listing, counted=since is None)
    values, synced_at = repositories_of_page(connection, asked, [row[0] for row in page.rows])
    by_creation = asked.parameters.get("sort") in (None, "", "created_on")
    beyond = moment(page.first_beyond) if by_creation else None
    moved = {"after": beyond} if beyond else {}
    return envelope(asked, page, values, synced_at, backwards=since is None, **moved)


def _since(asked: Api2Request) -> str | None:
    text = asked.parameters.get("after")
    if not text:
        return None
    try:
        return normalised(text[:10] + text[10:].replace(" ", "+"))
    except (ValueError, OverflowError):
        raise ApiError(
            400, "Invalid after", detail="It is a date such as 2026-11-01T10:00:00+00:00."
        ) from None


def workspace_repositories(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W."""
    owners = find_listed_workspace(connection, asked)
    listing = listings.repositories(asked.caller, owners=[owner.id for owner in owners], role=role_of(asked))
    return listed(connection, asked, listing, owners[0].last_seen_at)


def forks(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/forks: the forks that the caller may see."""
    row = find_repository(connection, asked)
    listing = listings.repositories(asked.caller, parent=row.id, role=role_of(asked))
    return listed(connection, asked, listing, row.last_seen_at)


def watchers(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/watchers: those that the mirror knows, possibly fewer than `followers_count`."""
    row = find_repository(connection, asked)
    if row.followers_count != 0 and not accounts.has_followers(connection, row.id):
        raise not_mirrored("watchers of this repository", asked, row.upstream_id)
    return accounts_of(
        connection,
        asked,
        listings.watchers(asked.caller, row.id),
        lambda user, _: asked.shapes.account(user),
        row,
    )


def _refs(connection: sqlite3.Connection, asked: Api2Request, *kinds: RefKind) -> Answer:
    row = with_refs(asked, find_repository(connection, asked))
    page = page_of(connection, asked, listings.refs(row.id, *kinds))
    found = [RefRow(*one) for one in page.rows]
    extras = ref_extras_of(connection, asked.caller, row.id, [ref.name for ref in found])
    values = [asked.shapes.ref(row, ref, extras.get((ref.kind, ref.name))) for ref in found]
    return of_refs(row, envelope(asked, page, values, row.refs_synced_at))


def refs(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/refs: branches and tags in one list, by name."""
    return _refs(connection, asked, "branch", "tag")


def branches(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/refs/branches."""
    return _refs(connection, asked, "branch")


def tags(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/refs/tags."""
    return _refs(connection, asked, "tag")


def _ref(connection: sqlite3.Connection, asked: Api2Request, kind: RefKind) -> Answer:
    row, name = with_refs(asked, find_repository(connection, asked)), asked.names[2]
    found = ref_named(connection, kind, row.id, name)
    if found is None:
        raise ApiError(404, f"No {kind} with name {name}", detail=f"{row.full_name} has no {kind} {name}.")
    body = asked.shapes.ref(row, found, _extra(connection, asked, row, found))
    return Answer(body=body, synced_at=row.refs_synced_at)


def _extra(
    connection: sqlite3.Connection, asked: Api2Request, row: RepositoryRow, ref: RefRow
) -> Json | None:
    return ref_extras_of(connection, asked.caller, row.id, [ref.name]).get((ref.kind, ref.name))


def branch(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/refs/branches/NAME."""
    return _ref(connection, asked, "branch")


def tag(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/refs/tags/NAME."""
    return _ref(connection, asked, "tag")


def commit(connection: sqlite3.Connection, asked: Api2Request) -> Answer:
    """GET repositories/W/S/commit/SHA: a commit that a branch or a tag names; short hashes too."""
    row = with_refs(asked, find_repository(connection, asked))
    name = asked.names[2]
    found = ref_of_commit(connection, row.id, name)
    if found is None:
        raise not_mirrored("commits other than those of branches and tags", asked, row.upstream_id)
    if isinstance(found, Ambiguous):
        raise ApiError(400, f"The hash {name} is ambiguous", detail="Several commits begin with it.")
    body = asked.shapes.commit(row, found, _extra(connection, asked, row, found))
    return Answer(body=body, synced_at=row.refs_synced_at)


# The handler of GET for each address; names in the path are placeholders.
READERS: dict[tuple[str, ...], Reader] = {
    ("user",): user,
    ("user", "workspaces"): my_workspaces,
    ("user", "workspaces", WORKSPACE, "permission"): my_workspace_permission,
    ("user", "workspaces", WORKSPACE, "permissions", "repositories"): my_workspace_repositories,
    ("user", "permissions", "repositories"): my_permissions,
    ("user", "permissions", "workspaces"): my_workspace_permissions,
    ("users", WORKSPACE): users,
    ("users", WORKSPACE, "repositories"): owned_repositories,
    ("teams",): teams,
    ("teams", WORKSPACE): team,
    ("teams", WORKSPACE, "members"): team_members,
    ("teams", WORKSPACE, "projects"): projects,
    ("teams", WORKSPACE, "repositories"): owned_repositories,
    ("workspaces",): workspaces,
    ("workspaces", WORKSPACE): workspace,
    ("workspaces", WORKSPACE, "members"): members,
    ("workspaces", WORKSPACE, "members", NAME): member,
    ("workspaces", WORKSPACE, "permissions"): members,
    ("workspaces", WORKSPACE, "projects"): projects,
    ("workspaces", WORKSPACE, "projects", NAME): project,
    ("repositories",): all_repositories,
    ("repositories", WORKSPACE): workspace_repositories,
    ("repositories", WORKSPACE, REPOSITORY): repository,
    ("repositories", WORKSPACE, REPOSITORY, "refs"): refs,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "branches"): branches,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "branches", NAME): branch,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "tags"): tags,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "tags", NAME): tag,
    ("repositories", WORKSPACE, REPOSITORY, "commit", NAME): commit,
    ("repositories", WORKSPACE, REPOSITORY, "forks"): forks,
    ("repositories", WORKSPACE, REPOSITORY, "watchers"): watchers,
}

DATED = {repository, refs, branches, branch, tags, tag}  # the readers that accept a time in the past
API = Api(
    pattern=edge.PATTERN,
    route=edge.route,
    request=edge.request_of,
    readers=READERS,
    writers=WRITERS,
    find=edge.shown_repository,
    missing=ApiError(404, "Resource not found", detail="There is no API hosted at this URL"),
    render=edge.render,
    headers=edge.HEADERS,
    version="2.0",
    unmirrored=unmirrored_reader,
    dated=DATED,
    at_once={*DATED, all_repositories, workspace_repositories},
)
