"""API 2.0's users, teams, workspaces and members: who they are, and what is the caller's own."""

import sqlite3

from mirror.serve.answers import Answer, ApiError, unauthorized
from mirror.serve.callers import Caller
from mirror.serve.cloud import catalogue, paging, reads
from mirror.serve.cloud.answering import Asked, accounts_of, envelope, no_workspace, page_of, role_of
from mirror.serve.cloud.listings import read_page
from mirror.serve.cloud.rows import Account


def _workspace(connection: sqlite3.Connection, asked: Asked) -> Account:
    found = reads.account(connection, asked.names[0], owners_only=True)
    if found is None:
        raise no_workspace(asked.names[0])
    return found


def _account(connection: sqlite3.Connection, name: str) -> Account:
    found = reads.account(connection, name)
    if found is None:
        raise ApiError(404, name)
    return found


def _myself(connection: sqlite3.Connection, caller: Caller) -> Account:
    """Find whom the caller speaks as; raises ApiError 401 for nobody, 403 where that is no user."""
    if not caller.known:
        raise unauthorized()
    mine = reads.accounts(connection, caller.user_ids)
    if not mine:
        raise ApiError(
            403,
            "This API is only accessible with user credentials.",
            detail="Make a token with `mirror token create --user NAME`, or send the name as the Basic user.",
        )
    return mine[next(one for one in caller.user_ids if one in mine)]


def user(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user: whom the caller speaks as."""
    row = _myself(connection, asked.caller)
    return Answer(body=asked.shapes.full_user(row), synced_at=row.last_seen_at)


def users(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET users/U, by name, uuid or account id; names are not accepted upstream any more."""
    row = _account(connection, asked.names[0])
    return Answer(body=asked.shapes.full_user(row), synced_at=row.last_seen_at)


def teams(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET teams/T: gone upstream; a person's own workspace is no team."""
    row = _account(connection, asked.names[0])
    if row.kind == "user" or not row.is_owner:
        raise ApiError(404, f"{asked.names[0]} is not a team")
    return Answer(body=asked.shapes.team(row), synced_at=row.last_seen_at)


def workspaces(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET workspaces: whatever the caller may see something of; gone upstream since April 2026."""
    listing = catalogue.workspaces(asked.caller, role_of(asked, ("owner", "collaborator", "member")))
    shapes = asked.shapes
    return accounts_of(connection, asked, listing, lambda row, _: shapes.workspace(row))


def workspace(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET workspaces/W, by slug or by uuid."""
    row = _workspace(connection, asked)
    return Answer(body=asked.shapes.workspace(row), synced_at=row.last_seen_at)


def _open_workspace(connection: sqlite3.Connection, asked: Asked) -> Account:
    """Find a workspace whose members the caller may see; raises ApiError 401, 403 or 404."""
    if not asked.caller.known:
        raise unauthorized()
    row = _workspace(connection, asked)
    if not asked.caller.sees_all and not reads.belongs(connection, asked.caller, row.id):
        raise ApiError(403, "Forbidden", detail="Members are shown to members.")
    return row


def members(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET workspaces/W/members: for those who may see the workspace's private repositories, as upstream."""
    row, shapes = _open_workspace(connection, asked), asked.shapes
    return accounts_of(
        connection,
        asked,
        catalogue.members(asked.caller, row.id),
        lambda member, permission: shapes.membership(member, row, permission),
        row.last_seen_at,
    )


def member(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET workspaces/W/members/U: one membership, by uuid, account id or name."""
    row = _open_workspace(connection, asked)
    found = reads.account(connection, asked.names[1])
    listing = catalogue.members(asked.caller, row.id, found.id if found else 0)
    page = read_page(connection, listing, paging.Window(), order=listing.default, query=None, counted=False)
    if found is None or not page.rows:
        raise ApiError(404, asked.names[1])
    return Answer(body=asked.shapes.membership(found, row, page.rows[0][-1]), synced_at=found.last_seen_at)


def my_workspaces(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user/workspaces: where the caller may work; a token, which sees everything, may everywhere."""
    if not asked.caller.known:
        raise unauthorized()
    told = asked.parameters.get("administrator", "").lower()
    administrator = {"true": True, "false": False}.get(told)
    listing = catalogue.own_workspaces(asked.caller, administrator=administrator)
    return accounts_of(connection, asked, listing, asked.shapes.workspace_access)


def my_permissions(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user/permissions/repositories: gone upstream since April 2026; rights are the workspace's."""
    me = _myself(connection, asked.caller)
    page, window = page_of(connection, asked, catalogue.own_repositories(asked.caller))
    permissions = dict(page.rows)
    rows = reads.repositories(connection, asked.caller, list(permissions))
    shapes = asked.shapes
    values = [shapes.permission(me, row, permissions[row.id]) for row in rows]
    return envelope(asked, page, window, values, me.last_seen_at)
