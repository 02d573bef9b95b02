"""API 1.0, the reading side: each route is a function from a connection and a request to an answer.

Routes and shapes are those of Bitbucket's documentation and of recorded answers (`docs/api-1.0.md` has a row
for each). `forks` is this mirror's own: 1.0 never had it, and its users asked for it.
"""

import sqlite3
from collections.abc import Callable, Sequence

from mirror.queries import visible as lookups
from mirror.queries.caller import Caller
from mirror.queries.rows import FoundRepository, RepositoryRow, UserRow
from mirror.search import search
from mirror.serve.api1 import edge
from mirror.serve.api1 import shapes as legacy
from mirror.serve.api1.edge import OWNER, SLUG
from mirror.serve.api1.writes import WRITERS, written
from mirror.serve.api_edge import Api
from mirror.serve.exchange import (
    Answer,
    ApiError,
    Asked,
    bad_request,
    must_have_read_refs,
    must_know_followers,
    not_found,
    not_mirrored,
    oldest,
    unauthorized,
)

Reader = Callable[[sqlite3.Connection, Asked], Answer]

SEARCH_LIMIT = 1000
SEARCH_MOST = 10_000
EVENTS_LIMIT = 25
EVENTS_MOST = 1000
EVERYTHING = 10**9


def _repository(connection: sqlite3.Connection, asked: Asked) -> FoundRepository:
    """Find the repository that the path names; raises ApiError 404, the same for one that is hidden."""
    full_name = "/".join(asked.names[:2])
    found = lookups.repository(connection, asked.caller, full_name)
    if found is None or found.row.deleted_at is not None or not found.visible:
        raise not_found("Repository", full_name)
    return found


def _with_refs(connection: sqlite3.Connection, asked: Asked) -> RepositoryRow:
    """Find the repository whose refs are asked for; raises ApiError 503 or 501 where none were read."""
    row = _repository(connection, asked).row
    must_have_read_refs(connection, row.id, row.full_name, row.refs_synced_at)
    return row


def _users(connection: sqlite3.Connection, caller: Caller, username: str) -> list[UserRow]:
    """Find whoever the path names; raises ApiError 404."""
    found = lookups.users(connection, caller, username)
    if not found:
        raise not_found("User", username)
    return found


def _myself(connection: sqlite3.Connection, caller: Caller) -> list[UserRow]:
    """Find whom the caller speaks as; raises ApiError 401, 403 or 404."""
    if not caller.known:
        raise unauthorized()
    if caller.username is None:
        raise ApiError(
            403,
            "This token speaks for no user",
            detail="Make one with `mirror token create --user NAME`, or send the name as the Basic user.",
        )
    return _users(connection, caller, caller.username)


def _seen(found: Sequence[FoundRepository]) -> str | None:
    return oldest(one.row.last_seen_at for one in found)


def user(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET users/U: a user and their repositories."""
    return _profile(connection, asked, _users(connection, asked.caller, asked.names[0]))


def myself(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user: the same, of the caller."""
    return _profile(connection, asked, _myself(connection, asked.caller))


def _profile(connection: sqlite3.Connection, asked: Asked, users: list[UserRow]) -> Answer:
    found = lookups.repositories_of(connection, asked.caller, users)
    body = {"repositories": [legacy.repository(one) for one in found], "user": legacy.user(users[0])}
    return Answer(body=body, synced_at=_seen(found) or users[0].last_seen_at)


def owned(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U: the repositories of a user, as a bare list."""
    users = _users(connection, asked.caller, asked.names[0])
    found = lookups.repositories_of(connection, asked.caller, users)
    return Answer(
        body=[legacy.repository(one) for one in found], synced_at=_seen(found) or users[0].last_seen_at
    )


def my_repositories(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user/repositories: what the caller owns or may work in, other owners' repositories included."""
    _myself(connection, asked.caller)
    found = lookups.repositories_for(connection, asked.caller)
    return Answer(body=[legacy.repository(one) for one in found], synced_at=_seen(found))


def my_overview(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user/repositories/overview: the same in short, last updated first; nobody notes what was viewed."""
    _myself(connection, asked.caller)
    found = lookups.repositories_for(connection, asked.caller)
    found.sort(key=lambda one: one.row.updated_at or "", reverse=True)
    body = {"updated": [legacy.overview_item(one) for one in found], "viewed": []}
    return Answer(body=body, synced_at=_seen(found))


def my_dashboard(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user/repositories/dashboard: the same by owner, as pairs of a user and a list."""
    _myself(connection, asked.caller)
    found = lookups.repositories_for(connection, asked.caller)
    by_owner = dict[str, list[FoundRepository]]()
    for one in found:
        by_owner.setdefault(one.row.owner, []).append(one)
    body = [
        [legacy.user(owner), [legacy.dashboard_item(one) for one in by_owner[name]]]
        for name in by_owner
        for owner in lookups.users(connection, asked.caller, name)[:1]
    ]
    return Answer(body=body, synced_at=_seen(found))


def my_follows(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user/follows: what the caller follows, own repositories included."""
    _myself(connection, asked.caller)
    found = lookups.followed_by(connection, asked.caller)
    return Answer(body=[legacy.repository(one) for one in found], synced_at=_seen(found))


def my_privileges(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET user/privileges: the workspaces that the caller belongs to."""
    (me, *_) = _myself(connection, asked.caller)
    teams = lookups.workspaces_of(connection, asked.caller)
    body = {"teams": {name: legacy.privilege(permission) for name, permission in teams.items()}}
    return Answer(body=body, synced_at=me.last_seen_at)


def find(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/?name=Q: search by part of a name, with the exact count.

    1.0 had no paging here and sent everything; `start` and `limit` are this mirror's own.
    """
    if "name" not in asked.parameters:
        raise bad_request({"name": "This field is required."})
    query = asked.parameters["name"]
    found = search(
        connection,
        query,
        limit=asked.number("limit", SEARCH_LIMIT, SEARCH_MOST),
        offset=asked.number("start", 0, EVERYTHING),
        **lookups.shown_to(connection, asked.caller),
        fuzzy=False,
    )
    logos = lookups.logos(connection, [row["id"] for row in found.repositories])
    body = {
        "query": query,
        "count": found.count,
        "repositories": [legacy.search_item(row, logos[row["id"]][0]) for row in found.repositories],
    }
    return Answer(body=body, synced_at=oldest(seen for _, seen in logos.values()))


def repository(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S."""
    found = _repository(connection, asked)
    return Answer(body=legacy.repository(found), synced_at=found.row.last_seen_at)


def tags(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S/tags: changesets by name."""
    row = _with_refs(connection, asked)
    return Answer(body=legacy.tags(lookups.refs(connection, "tags", row.id)), synced_at=row.refs_synced_at)


def branches(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S/branches: changesets by name."""
    row = _with_refs(connection, asked)
    body = legacy.branches(lookups.refs(connection, "branches", row.id))
    return Answer(body=body, synced_at=row.refs_synced_at)


def branches_tags(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S/branches-tags: both in short."""
    row = _with_refs(connection, asked)
    body = legacy.branches_tags(
        lookups.refs(connection, "branches", row.id),
        lookups.refs(connection, "tags", row.id),
        row.main_branch,
    )
    return Answer(body=body, synced_at=row.refs_synced_at)


def main_branch(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S/main-branch; 404 for an empty repository."""
    row = _repository(connection, asked).row
    if row.main_branch is None:
        must_have_read_refs(connection, row.id, row.full_name, row.refs_synced_at)
        raise ApiError(404, "No main branch", detail="The repository is empty.")
    return Answer(body={"name": row.main_branch}, synced_at=row.last_seen_at)


def followers(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S/followers; the count can exceed the list, as it did then.

    The list is null where the upstream told nothing but how many there are.
    """
    row = _repository(connection, asked).row
    known = lookups.followers(connection, row.id)
    must_know_followers(known, row.followers)
    body = {
        "count": max(row.followers or 0, len(known)),
        "followers": [legacy.user(one) for one in known] if known or row.followers == 0 else None,
    }
    return Answer(body=body, synced_at=row.last_seen_at)


def user_followers(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET users/U/followers: 501 for a known user; no upstream tells who follows a user."""
    _users(connection, asked.caller, asked.names[0])
    raise not_mirrored("who follows a user")


def forks(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S/forks: this mirror's own; the count is the upstream's and can exceed the list."""
    row = _repository(connection, asked).row
    found = lookups.forks(connection, asked.caller, row.id)
    count = None if row.forks is None else max(row.forks, len(found))
    body = {"count": count, "forks": [legacy.repository(one) for one in found]}
    return Answer(body=body, synced_at=_seen(found) or row.last_seen_at)


def events(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET repositories/U/S/events: what the mirror saw change, the newest first."""
    row = _repository(connection, asked).row
    return _events(connection, asked, "r.id = :id", {"id": row.id}, row.last_seen_at)


def user_events(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """GET users/U/events: the same, over all repositories of a user."""
    users = _users(connection, asked.caller, asked.names[0])
    owners = "[" + ",".join(str(user.id) for user in users) + "]"
    return _events(
        connection,
        asked,
        "r.owner_id IN (SELECT value FROM json_each(:owners))",
        {"owners": owners},
        users[0].last_seen_at,
    )


def _events(
    connection: sqlite3.Connection, asked: Asked, condition: str, values: dict[str, object], seen: str
) -> Answer:
    wanted = asked.parameters.get("type")
    kinds = [kind for kind, event in legacy.EVENTS.items() if wanted in (None, "", event)]
    if wanted == "fork":
        kinds, condition = ["created"], f"{condition} AND r.parent_full_name IS NOT NULL"
    elif wanted == "create":
        condition += " AND (c.kind <> 'created' OR r.parent_full_name IS NULL)"
    count, rows = lookups.changes(
        connection,
        asked.caller,
        condition,
        values,
        kinds=kinds,
        start=asked.number("start", 0, EVERYTHING),
        limit=asked.number("limit", EVENTS_LIMIT, EVENTS_MOST),
    )
    about = lookups.by_ids(connection, asked.caller, (row.repository_id for row in rows))
    body = {"count": count, "events": [legacy.event(row, about[row.repository_id]) for row in rows]}
    return Answer(body=body, synced_at=seen)


READERS: dict[tuple[str, ...], Reader] = {
    ("user",): myself,
    ("user", "repositories"): my_repositories,
    ("user", "repositories", "overview"): my_overview,
    ("user", "repositories", "dashboard"): my_dashboard,
    ("user", "follows"): my_follows,
    ("user", "privileges"): my_privileges,
    ("users", OWNER): user,
    ("users", OWNER, "followers"): user_followers,
    ("users", OWNER, "events"): user_events,
    ("repositories",): find,
    ("repositories", OWNER): owned,
    ("repositories", OWNER, SLUG): repository,
    ("repositories", OWNER, SLUG, "tags"): tags,
    ("repositories", OWNER, SLUG, "branches"): branches,
    ("repositories", OWNER, SLUG, "branches-tags"): branches_tags,
    ("repositories", OWNER, SLUG, "main-branch"): main_branch,
    ("repositories", OWNER, SLUG, "followers"): followers,
    ("repositories", OWNER, SLUG, "events"): events,
    ("repositories", OWNER, SLUG, "forks"): forks,
}
"""Every address that answers GET, with placeholders for names."""

API = Api(
    pattern=edge.PATTERN,
    route=edge.route,
    check=edge.check,
    request=edge.request_of,
    readers=READERS,
    writers=WRITERS,
    write=written,
    missing=ApiError(404, "There is no API hosted at this address"),
    render=edge.render,
    slow_formats=("yaml", "xml"),
    jsonp=True,
)
