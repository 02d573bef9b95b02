"""Write projects: what repositories, and the workspaces of a Data Center, tell of those they are in."""

import sqlite3
from collections.abc import Iterable

from mirror.model import NAMED, Owner, Project, Repository

_SAVE = """
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
    """Insert or update one project. One that was known by its key alone gets its uuid once it is told."""
    name = f"{NAMED}{owner.username or owner.uuid}/{project.key}".lower()
    if project.uuid is not None:
        connection.execute(
            """UPDATE OR IGNORE projects SET uuid = ? WHERE upstream_id = ? AND uuid = ?""",
            (project.uuid, upstream_id, name),
        )
    values = {field: getattr(project, field) for field in project.__struct_fields__}
    values |= {"upstream_id": upstream_id, "owner_id": owner_id, "uuid": project.uuid or name}
    connection.execute(_SAVE, values | {"seen_at": seen_at})
