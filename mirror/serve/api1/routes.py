"""The routes of API 1.0. Each reader is a function from a connection and a request to an answer.

Routes and shapes are those of Bitbucket's documentation and of recorded answers; `docs/api-1.0.md` has a row
for each. Writes take forms.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from mirror.api2_extras import changed
from mirror.model import RefKind
from mirror.queries import accounts
from mirror.queries import repositories as reads
from mirror.queries.changes import ChangeFilter, count_changes, latest_changes
from mirror.queries.forks import forks_of
from mirror.queries.refs import KINDS, refs_by_name
from mirror.queries.repositories import parents_of
from mirror.queries.rows import AccountRow, RepositoryRow
from mirror.queries.search import find_repositories
from mirror.queries.visibility import api1_extras_of, extras_of
from mirror.serve.api1 import edge, shapes
from mirror.serve.api1.edge import (
    OWNER,
    SLUG,
    Reader,
    find_myself,
    find_repository,
    find_users,
    repository,
    unmirrored_reader,
)
from mirror.serve.api_edge import Api
from mirror.serve.exchange import (
    FORM,
    Answer,
    ApiError,
    ApiRequest,
    Json,
    bad_request,
    last_seen,
    read_fields,
)
from mirror.serve.unmirrored import must_be_listed, not_mirrored, of_refs, with_refs
from mirror.serve.writer import Done, Write, Writing, delete_repository, settings_of

SEARCH_LIMIT = 1000  # results of a search without `limit`
SEARCH_MOST = 10_000
EVENTS_LIMIT = 25  # events without `limit`
EVENTS_MOST = 1000
EVERYTHING = 10**9  # the most rows that `start` may skip


def _shaped(connection: sqlite3.Connection, asked: ApiRequest, rows: Sequence[RepositoryRow]) -> list[Json]:
    """Shape repositories, each with its parent inside."""
    parents = parents_of(connection, asked.caller, rows)
    shaped = [shapes.repository(row, parents.get(row.parent_id or 0)) for row in rows]
    extras = extras_of(connection, asked.caller, "repository-1.0", [row.id for row in rows])
    if not extras:
        return shaped
    return [changed(one, extras.get(row.id, {}), "", "") for one, row in zip(shaped, rows, strict=True)]


def user(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET users/U: a user and their repositories."""
    return _profile(connection, asked, find_users(connection, asked))


def myself(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET user: the caller and their repositories."""
    return _profile(connection, asked, find_myself(connection, asked))


def _profile(connection: sqlite3.Connection, asked: ApiRequest, users: list[AccountRow]) -> Answer:
    must_be_listed(connection, asked.caller, users[0].username or "", users)
    rows = reads.repositories_of(connection, asked.caller, users)
    body = {"repositories": _shaped(connection, asked, rows), "user": shapes.user(users[0])}
    return Answer(body=body, synced_at=last_seen(rows) or users[0].last_seen_at)


def owned(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U: the repositories of a user, as a bare list."""
    users = find_users(connection, asked)
    must_be_listed(connection, asked.caller, asked.names[0], users)
    rows = reads.repositories_of(connection, asked.caller, users)
    return Answer(body=_shaped(connection, asked, rows), synced_at=last_seen(rows) or users[0].last_seen_at)


def my_repositories(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET user/repositories: repositories of the caller and of the caller's workspaces."""
    find_myself(connection, asked)
    rows = reads.repositories_for(connection, asked.caller)
    return Answer(body=_shaped(connection, asked, rows), synced_at=last_seen(rows))


def my_overview(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET user/repositories/overview: the same in short, last updated first. `viewed` is always empty."""
    find_myself(connection, asked)
    rows = reads.repositories_for(connection, asked.caller)
    rows.sort(key=lambda row: row.updated_at or "", reverse=True)
    return Answer(
        body={"updated": [shapes.overview_item(row) for row in rows], "viewed": []}, synced_at=last_seen(rows)
    )


def my_dashboard(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET user/repositories/dashboard: the same, grouped by owner as pairs of a user and a list."""
    find_myself(connection, asked)
    rows = reads.repositories_for(connection, asked.caller)
    parents = parents_of(connection, asked.caller, rows)
    by_owner = dict[str, list[RepositoryRow]]()
    for row in rows:
        by_owner.setdefault(row.namespace, []).append(row)
    body = [
        [shapes.user(owner), [shapes.dashboard_item(row, parents) for row in by_owner[name]]]
        for name in by_owner
        for owner in accounts.users_named(connection, asked.caller, name)[:1]
    ]
    return Answer(body=body, synced_at=last_seen(rows))


def my_follows(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET user/follows: repositories that the caller follows, which include their own."""
    find_myself(connection, asked)
    rows = reads.followed_by(connection, asked.caller)
    return Answer(body=_shaped(connection, asked, rows), synced_at=last_seen(rows))


def my_privileges(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET user/privileges: the caller's workspaces, with the permission in each."""
    me = find_myself(connection, asked)[0]
    teams = accounts.own_workspaces(connection, asked.caller)
    body = {"teams": {name: shapes.privilege(permission) for name, permission in teams.items()}}
    return Answer(body=body, synced_at=me.last_seen_at)


def find(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/?name=Q: search by part of a name, with the exact count.

    1.0 sent all results at once. `start` and `limit` are extensions.
    """
    if "name" not in asked.parameters:
        raise bad_request({"name": "This field is required."})
    query = asked.parameters["name"]
    found = find_repositories(
        connection,
        asked.caller,
        query,
        limit=asked.number("limit", SEARCH_LIMIT, SEARCH_MOST),
        offset=asked.number("start", 0, EVERYTHING),
        fuzzy=False,
    )
    body = {
        "query": query,
        "count": found.count,
        "repositories": [shapes.search_item(row) for row in found.repositories],
    }
    return Answer(body=body, synced_at=last_seen(found.repositories))


def tags(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S/tags: changesets by name."""
    return _refs(connection, asked, "tag")


def branches(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S/branches: changesets by name."""
    return _refs(connection, asked, "branch")


def _refs(connection: sqlite3.Connection, asked: ApiRequest, kind: RefKind) -> Answer:
    row = with_refs(asked, find_repository(connection, asked))
    shape = shapes.tags if kind == "tag" else shapes.branches
    body = shape(refs_by_name(connection, kind, row.id))
    body = _with_api1_extras(connection, asked, kind, row, body)
    return of_refs(row, Answer(body=body, synced_at=row.refs_synced_at))


def _with_api1_extras(
    connection: sqlite3.Connection, asked: ApiRequest, kind: RefKind, row: RepositoryRow, body: Json
) -> Json:
    """Add the data of API 1.0 about each ref that has no column: revision numbers of hg, files, parents."""
    extras = api1_extras_of(connection, asked.caller, kind, row.id)
    return {name: {**shaped, **extras.get(name, {})} for name, shaped in body.items()} if extras else body


def branches_tags(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S/branches-tags: branches and tags in short."""
    row = with_refs(asked, find_repository(connection, asked))
    branches, tags = (refs_by_name(connection, kind, row.id) for kind in KINDS)
    return Answer(body=shapes.branches_tags(branches, tags, row.main_branch), synced_at=row.refs_synced_at)


def main_branch(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S/main-branch; 404 for an empty repository."""
    row = find_repository(connection, asked)
    if row.main_branch is None:
        with_refs(asked, row)
        raise ApiError(404, "No main branch", detail="The repository is empty.")
    return Answer(body={"name": row.main_branch}, synced_at=row.last_seen_at)


def followers(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S/followers. The count can exceed the list, as it did in 1.0."""
    row = find_repository(connection, asked)
    known = accounts.followers_of(connection, asked.caller, row.id)
    if not known and row.followers_count != 0:
        raise not_mirrored("followers of this repository", asked, row.upstream_id)
    body = {
        "count": max(row.followers_count or 0, len(known)),
        "followers": [shapes.user(one) for one in known],
    }
    return Answer(body=body, synced_at=row.last_seen_at)


def user_followers(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET users/U/followers: 501 for a known user, since no upstream reports who follows a user."""
    raise not_mirrored("followers of users", asked, find_users(connection, asked)[0].upstream_id)


def forks(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S/forks: an extension. The count is the upstream's and can exceed the list."""
    row = find_repository(connection, asked)
    rows = forks_of(connection, asked.caller, row.id)
    count = None if row.forks_count is None else max(row.forks_count, len(rows))
    body = {"count": count, "forks": _shaped(connection, asked, rows)}
    return Answer(body=body, synced_at=last_seen(rows) or row.last_seen_at)


def events(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET repositories/U/S/events: the changes that the mirror saw, newest first."""
    row = find_repository(connection, asked)
    return _events(connection, asked, ChangeFilter(repository_id=row.id), row.last_seen_at)


def user_events(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
    """GET users/U/events: the changes of all repositories of a user, newest first."""
    users = find_users(connection, asked)
    owners = ChangeFilter(owner_ids=tuple(user.id for user in users))
    return _events(connection, asked, owners, users[0].last_seen_at)


def _events(
    connection: sqlite3.Connection, asked: ApiRequest, about: ChangeFilter, seen: str | None
) -> Answer:
    """Answer with events of one type or of all. A new fork is a `fork`, not a `create`."""
    wanted = asked.parameters.get("type") or None
    kinds = tuple(kind for kind, event in shapes.EVENTS.items() if wanted in (None, event))
    if wanted == "fork":
        kinds = ("created",)
    if not kinds:
        return Answer(body={"count": 0, "events": []}, synced_at=seen)
    forks = {"fork": True, "create": False}.get(wanted or "")
    about = msgspec.structs.replace(about, kinds=kinds, forks=forks)
    start, limit = asked.number("start", 0, EVERYTHING), asked.number("limit", EVENTS_LIMIT, EVENTS_MOST)
    rows = latest_changes(connection, asked.caller, about, limit=limit, offset=start).rows
    ids = sorted({row.repository_id for row in rows if row.repository_id is not None})
    found = {row.id: row for row in reads.repositories_by_ids(connection, asked.caller, ids)}
    shaped = dict(zip(found, _shaped(connection, asked, list(found.values())), strict=True))
    events = [
        shapes.event(row, found[row.repository_id], shaped[row.repository_id])
        for row in rows
        if row.repository_id is not None
    ]
    return Answer(
        body={"count": count_changes(connection, asked.caller, about), "events": events}, synced_at=seen
    )


# The handler of GET for each address; names in the path are placeholders.
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


async def create_repository(writing: Writing) -> Done:
    """POST repositories: create a repository."""
    settings, owner = settings_of(await read_fields(writing.request, assumed=FORM), required=("name",))
    owner = owner or _own_namespace(writing)
    return Done(await writing.access.create(owner, settings))


async def update_repository(writing: Writing) -> Done:
    """PUT repositories/U/S: change the settings in the body."""
    row, shown = await writing.known()
    values = await read_fields(writing.request, assumed=FORM)
    settings, _ = settings_of(values, shown=shown.body, exists=True, fork_policy=row.fork_policy)
    return Done(await writing.access.update(row, settings))


async def fork_repository(writing: Writing) -> Done:
    """POST repositories/U/S/fork: a fork under the caller's name, or under `owner`."""
    row, _ = await writing.known()
    settings, owner = settings_of(await read_fields(writing.request, assumed=FORM), required=("name",))
    owner = owner or _own_namespace(writing)
    return Done(await writing.access.fork(row, owner, settings))


def _own_namespace(writing: Writing) -> str:
    """Return the namespace of the caller; raises ApiError 400 for a token without a user."""
    username = writing.asked.caller.username
    if not username:
        raise bad_request({"owner": "This field is required, because the token speaks for no user."})
    return writing.access.own_namespace(username)


# The handlers of writes, by address and method.
WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories",): {"POST": create_repository},
    ("repositories", OWNER, SLUG): {"PUT": update_repository, "DELETE": delete_repository},
    ("repositories", OWNER, SLUG, "fork"): {"POST": fork_repository},
}

DATED = {repository, tags, branches, branches_tags, main_branch}  # the readers that accept a time in the past
API = Api(
    pattern=edge.PATTERN,
    route=edge.route,
    check=edge.check,
    readers=READERS,
    writers=WRITERS,
    find=edge.shown_repository,
    missing=ApiError(404, "There is no API hosted at this address"),
    render=edge.render,
    slow_formats=("yaml", "xml"),
    jsonp=True,
    version="1.0",
    unmirrored=unmirrored_reader,
    dated=DATED,
    at_once=DATED,
)
