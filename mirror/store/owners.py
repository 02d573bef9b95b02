"""Write owners of repositories, members of workspaces, and the projects that repositories are in."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from mirror.model import NAMED, Member, Owner, Project, Repository
from mirror.store.changes import Change
from mirror.store.extras import save_owner_extra
from mirror.store.repair import give_uuid
from mirror.store.rows import fetch_one, fetch_row, fetch_value

_SAVE_OWNER = """
    INSERT INTO users (upstream_id, uuid, username, display_name, first_name, last_name, nickname,
                       account_id, kind, is_owner, avatar_url, created_at, first_seen_at, last_seen_at)
    VALUES (:upstream_id, :uuid, :username, :display_name, :first_name, :last_name, :nickname,
            :account_id, :kind, :is_owner, :avatar_url, :created_at, :seen_at, :seen_at)
    ON CONFLICT (upstream_id, uuid) DO UPDATE SET
        -- The name of an owner is its namespace: a nickname from a list of members does not replace it.
        username = CASE WHEN users.is_owner AND NOT excluded.is_owner
                        THEN users.username ELSE coalesce(excluded.username, users.username) END,
        kind = CASE WHEN users.is_owner AND (NOT excluded.is_owner OR excluded.kind = 'workspace')
                    THEN users.kind ELSE excluded.kind END,
        display_name = coalesce(iif(excluded.kind = 'workspace' AND users.kind <> 'workspace',
                                    users.display_name, NULL), excluded.display_name, users.display_name),
        first_name = coalesce(excluded.first_name, users.first_name),
        last_name = coalesce(excluded.last_name, users.last_name),
        nickname = coalesce(excluded.nickname, users.nickname),
        account_id = coalesce(excluded.account_id, users.account_id),
        avatar_url = coalesce(iif(excluded.kind = 'workspace' AND users.kind <> 'workspace',
                                  users.avatar_url, NULL), excluded.avatar_url, users.avatar_url),
        created_at = coalesce(excluded.created_at, users.created_at),
        is_owner = max(users.is_owner, excluded.is_owner),
        last_seen_at = excluded.last_seen_at, deleted_at = NULL, gone_reason = NULL
"""


class _Named(NamedTuple):
    id: int
    username: str | None
    is_owner: int


def save_owner(
    connection: sqlite3.Connection, upstream_id: int, owner: Owner, *, seen_at: str, is_owner: bool
) -> tuple[int, list[Change]]:
    """Insert or update one user; return its id and the changes."""
    if is_owner:
        _adopt(connection, upstream_id, owner)
    find = "SELECT id, username, is_owner FROM users WHERE upstream_id = ? AND uuid = ?"
    before = fetch_one(_Named, connection, find, (upstream_id, owner.uuid))
    values = {
        field: getattr(owner, field) for field in owner.__struct_fields__ if field not in ("project", "told")
    }
    connection.execute(
        _SAVE_OWNER, values | {"upstream_id": upstream_id, "seen_at": seen_at, "is_owner": int(is_owner)}
    )
    after = _Named(*fetch_row(connection, find, (upstream_id, owner.uuid)))
    save_owner_extra(connection, after.id, owner)
    if before and before.is_owner and is_owner and before.username != after.username:
        return after.id, [Change("owner_renamed", user_id=after.id, old=before.username, new=after.username)]
    return after.id, []


def _adopt(connection: sqlite3.Connection, upstream_id: int, owner: Owner) -> None:
    """If the owner is known only by name, give its row the uuid."""
    if owner.username is None or owner.uuid.startswith(NAMED):
        return
    named = "SELECT id FROM users WHERE upstream_id = ? AND uuid = ?"
    row_id = fetch_value(connection, named, (upstream_id, f"{NAMED}{owner.username.lower()}"))
    if row_id is not None:
        give_uuid(connection, "users", upstream_id, row_id, owner.uuid)


def save_members(
    connection: sqlite3.Connection,
    upstream_id: int,
    workspace_id: int,
    members: Iterable[Member],
    *,
    seen_at: str,
) -> None:
    """Insert or update a page of a workspace's members."""
    for member in members:  # the user first: a membership refers to its row
        user_id, _ = save_owner(connection, upstream_id, member.user, seen_at=seen_at, is_owner=False)
        connection.execute(
            """INSERT INTO members VALUES (?, ?, ?, ?)
               ON CONFLICT DO UPDATE SET
                   permission = excluded.permission, last_seen_at = excluded.last_seen_at""",
            (workspace_id, user_id, member.permission, seen_at),
        )


def has_unseen_members(connection: sqlite3.Connection, workspace_id: int, since: str) -> bool:
    """Return whether there are members that a listing has not named since it began."""
    unseen = "SELECT 1 FROM members WHERE workspace_id = ? AND last_seen_at < ?"
    return fetch_row(connection, unseen, (workspace_id, since)) is not None


def drop_members(connection: sqlite3.Connection, workspace_id: int, *, unseen_since: str) -> None:
    """Delete memberships that a complete listing did not name; the users stay."""
    connection.execute(
        "DELETE FROM members WHERE workspace_id = ? AND last_seen_at < ?", (workspace_id, unseen_since)
    )


_SAVE_PROJECT = """
    INSERT INTO projects (upstream_id, owner_id, uuid, key, name, description, is_private, avatar_url,
                          first_seen_at, last_seen_at)
    VALUES (:upstream_id, :owner_id, :uuid, :key, :name, :description, :is_private, :avatar_url,
            :seen_at, :seen_at)
    ON CONFLICT (upstream_id, uuid) DO UPDATE SET
        owner_id = excluded.owner_id, key = excluded.key, name = coalesce(excluded.name, projects.name),
        description = coalesce(excluded.description, projects.description),
        is_private = coalesce(excluded.is_private, projects.is_private),
        avatar_url = coalesce(excluded.avatar_url, projects.avatar_url),
        last_seen_at = max(projects.last_seen_at, excluded.last_seen_at)
"""


def save_projects_of(
    connection: sqlite3.Connection,
    upstream_id: int,
    rows: Iterable[Repository],
    owner_ids: dict[str, int],
    *,
    seen_at: str,
) -> None:
    """Insert or update the projects of a page of repositories; `owner_ids` maps owners' uuids to rows."""
    told = dict[tuple[str, str], tuple[Owner, Project]]()
    for row in rows:
        if row.project is not None:
            told[row.owner.uuid, row.project.uuid or row.project.key.lower()] = (row.owner, row.project)
    for owner, project in told.values():
        save_project(connection, upstream_id, owner, owner_ids[owner.uuid], project, seen_at=seen_at)


def save_project(
    connection: sqlite3.Connection,
    upstream_id: int,
    owner: Owner,
    owner_id: int,
    project: Project,
    *,
    seen_at: str,
) -> None:
    """Insert or update one project."""
    name = f"{NAMED}{owner.username or owner.uuid}/{project.key}".lower()
    if project.uuid is not None:  # so far, only its key may have been known
        connection.execute(
            """UPDATE OR IGNORE projects SET uuid = ? WHERE upstream_id = ? AND uuid = ?""",
            (project.uuid, upstream_id, name),
        )
    values = {field: getattr(project, field) for field in project.__struct_fields__}
    values |= {"upstream_id": upstream_id, "owner_id": owner_id, "uuid": project.uuid or name}
    connection.execute(_SAVE_PROJECT, values | {"seen_at": seen_at})
