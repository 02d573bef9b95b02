"""API 2.0, the reading side: each route is a function from a connection and a request to an answer.

Addresses and shapes are those of recorded answers and of the published description; docs/api-2.0.md has a
row for each, also for what upstream has removed and the mirror gives back.
"""

import sqlite3

from mirror.serve.answers import Answer, ApiError, not_mirrored
from mirror.serve.cloud import catalogue, people, reads
from mirror.serve.cloud.account_shapes import moment
from mirror.serve.cloud.answering import (
    Asked,
    Reader,
    accounts_of,
    envelope,
    find_repository,
    listed,
    no_workspace,
    page_of,
    role_of,
    shaped,
)
from mirror.serve.cloud.rows import Ref, Repository
from mirror.serve.lookups import must_have_read_refs
from mirror.times import normalised


def all_repositories(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories: everything the caller may see, the oldest first; gone upstream since April 2026.

    In that order `next` has an `after`, as it had then, for clients that take it from there. Behind an
    `after` no size is told: it would be that of the rest.
    """
    since = _since(asked)
    listing = catalogue.repositories(asked.caller, since=since, role=role_of(asked))
    page, window = page_of(connection, asked, listing, counted=since is None)
    rows = reads.repositories(connection, asked.caller, [row[0] for row in page.rows])
    values, synced_at = shaped(connection, asked, rows)
    by_creation = asked.parameters.get("sort") in (None, "", "created_on")
    beyond = moment(page.first_beyond) if by_creation else None
    return envelope(asked, page, window, values, synced_at, **({"after": beyond} if beyond else {}))


def _since(asked: Asked) -> str | None:
    text = asked.parameters.get("after")
    if not text:
        return None
    try:
        return normalised(text[:10] + text[10:].replace(" ", "+"))
    except (ValueError, OverflowError):
        raise ApiError(400, "Invalid after", detail="It is a date like 2026-11-01T10:00:00+00:00.") from None


def workspace_repositories(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W."""
    owners = reads.accounts_named(connection, asked.names[0], owners_only=True)
    if not owners:
        raise no_workspace(asked.names[0])
    listing = catalogue.repositories(asked.caller, owners=[owner.id for owner in owners], role=role_of(asked))
    return listed(connection, asked, listing, owners[0].last_seen_at)


def repository(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S, by slug or by uuid."""
    return repository_answer(connection, asked, find_repository(connection, asked))


def repository_answer(connection: sqlite3.Connection, asked: Asked, row: Repository) -> Answer:
    """Answer with one repository."""
    owner = reads.accounts(connection, [row.owner_id])[row.owner_id]
    return Answer(body=asked.shapes.repository(row, owner), synced_at=row.last_seen_at)


def forks(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S/forks: those that the caller may see."""
    row = find_repository(connection, asked)
    listing = catalogue.repositories(asked.caller, parent=row.id, role=role_of(asked))
    return listed(connection, asked, listing, row.last_seen_at)


def watchers(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S/watchers: as many as the mirror knows, which can be fewer than are counted."""
    row = find_repository(connection, asked)
    if row.followers_count != 0 and not reads.has_followers(connection, row.id):
        raise not_mirrored("who watches a repository")
    listing = catalogue.watchers(asked.caller, row.id)
    shapes = asked.shapes
    return accounts_of(connection, asked, listing, lambda user, _: shapes.account(user), row.last_seen_at)


def _with_refs(connection: sqlite3.Connection, asked: Asked) -> Repository:
    """Find the repository whose refs are asked for; raises ApiError 503 or 501 where none were read."""
    row = find_repository(connection, asked)
    must_have_read_refs(connection, row.id, row.full_name, row.refs_synced_at)
    return row


def _refs(connection: sqlite3.Connection, asked: Asked, *kinds: str) -> Answer:
    row = _with_refs(connection, asked)
    page, window = page_of(connection, asked, catalogue.refs(row.id, *kinds))
    shapes = asked.shapes
    values = [shapes.ref(row, Ref(*one)) for one in page.rows]
    return envelope(asked, page, window, values, row.refs_synced_at)


def refs(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S/refs: branches and tags by name, in one list."""
    return _refs(connection, asked, "branch", "tag")


def branches(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S/refs/branches."""
    return _refs(connection, asked, "branch")


def tags(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S/refs/tags."""
    return _refs(connection, asked, "tag")


def _ref(connection: sqlite3.Connection, asked: Asked, kind: str) -> Answer:
    row, name = _with_refs(connection, asked), asked.names[2]
    found = reads.ref(connection, row.id, kind, name)
    if found is None:
        raise ApiError(404, f"No {kind} with name {name}", detail=f"{row.full_name} has no {kind} {name}.")
    return Answer(body=asked.shapes.ref(row, found), synced_at=row.refs_synced_at)


def branch(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S/refs/branches/NAME."""
    return _ref(connection, asked, "branch")


def tag(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/W/S/refs/tags/NAME."""
    return _ref(connection, asked, "tag")


WORKSPACE, REPOSITORY, NAME = "<workspace>", "<repository>", "<name>"

READERS: dict[tuple[str, ...], Reader] = {
    ("user",): people.user,
    ("user", "workspaces"): people.my_workspaces,
    ("user", "permissions", "repositories"): people.my_permissions,
    ("users", WORKSPACE): people.users,
    ("teams", WORKSPACE): people.teams,
    ("workspaces",): people.workspaces,
    ("workspaces", WORKSPACE): people.workspace,
    ("workspaces", WORKSPACE, "members"): people.members,
    ("workspaces", WORKSPACE, "members", NAME): people.member,
    ("repositories",): all_repositories,
    ("repositories", WORKSPACE): workspace_repositories,
    ("repositories", WORKSPACE, REPOSITORY): repository,
    ("repositories", WORKSPACE, REPOSITORY, "refs"): refs,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "branches"): branches,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "branches", NAME): branch,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "tags"): tags,
    ("repositories", WORKSPACE, REPOSITORY, "refs", "tags", NAME): tag,
    ("repositories", WORKSPACE, REPOSITORY, "forks"): forks,
    ("repositories", WORKSPACE, REPOSITORY, "watchers"): watchers,
}
"""Every address that answers GET, with placeholders for names."""
