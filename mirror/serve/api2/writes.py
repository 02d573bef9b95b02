"""The writing routes of API 2.0: check JSON bodies and hand them to `mirror.serve.writer`."""

import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
from datasette.utils.asgi import Request

from mirror.model import RepositorySettings, slug_of
from mirror.queries.accounts import owner_named
from mirror.queries.rows import RepositoryRow
from mirror.queries.visibility import Caller
from mirror.serve.api2.edge import (
    REPOSITORY,
    WORKSPACE,
    Api2Request,
    find_repository,
    no_workspace,
    repository,
    repository_answer,
)
from mirror.serve.api_edge import Writing
from mirror.serve.exchange import JSON, Answer, ApiError, Json, bad_request, read_fields
from mirror.serve.writer import WriteAccess, pass_on, settings_of

_SLUG = re.compile(r"(?!\.+$)(?!-)[A-Za-z0-9._-]{1,62}(?<!-)")


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a write: the repository's full name now, None after a delete, and the status."""

    full_name: str | None
    status: int = 200


class Lookup(msgspec.Struct, frozen=True):
    """Finds in the mirror what a write names.

    :param repository: returns the row of the repository of the path, and what the API tells of it; raises
        ApiError 404 if the caller may not see it.
    :param workspace: turns a slug or a uuid into a slug; None for an unknown uuid.
    """

    repository: Callable[[], Awaitable[tuple[RepositoryRow, Json]]]
    workspace: Callable[[str], Awaitable[str | None]]


Write = Callable[[WriteAccess, Request, Caller, tuple[str, ...], Lookup], Awaitable[Done]]


async def create(
    access: WriteAccess, request: Request, caller: Caller, names: tuple[str, ...], lookup: Lookup
) -> Done:
    """POST repositories/W/S. The path gives the slug; a name that would make another slug is dropped."""
    slug = names[1]
    if _SLUG.fullmatch(slug) is None:
        raise ApiError(
            400, "Bad Request", detail="The address must end in a slug: letters, digits, . _ and -"
        )
    workspace = await lookup.workspace(names[0])
    if workspace is None:
        raise no_workspace(names[0])
    told: Json = {"slug": slug, "full_name": f"{workspace}/{slug}"}
    settings, named = await _read_settings(request, lookup, told)
    if named is not None and named.lower() != workspace.lower():
        raise bad_request({"workspace": f"The address is in {workspace}."})
    name = settings.name if slug_of(settings.name or "") == slug.lower() else slug
    settings = msgspec.structs.replace(settings, name=name, scm=settings.scm or "git")
    made = await pass_on(access.to(workspace).create, workspace, settings, by=caller.name)
    return Done(full_name=made.full_name)


async def update(
    access: WriteAccess, request: Request, caller: Caller, _: tuple[str, ...], lookup: Lookup
) -> Done:
    """PUT repositories/W/S: change the settings in the body. A new name changes the slug."""
    row, told = await lookup.repository()
    values = await read_fields(request, assumed=JSON)
    settings, _owner = settings_of(values, told=told, exists=True, fork_policy=row.fork_policy)
    made = await pass_on(access.to(row.full_name).update, row.full_name, settings, by=caller.name)
    return Done(full_name=made.full_name, status=200 if made.full_name == row.full_name else 201)


async def delete(
    access: WriteAccess, _request: Request, caller: Caller, _: tuple[str, ...], lookup: Lookup
) -> Done:
    """DELETE repositories/W/S: 204 and no body."""
    row, _told = await lookup.repository()
    await pass_on(access.to(row.full_name).delete, row.full_name, by=caller.name)
    return Done(full_name=None, status=204)


async def fork(
    access: WriteAccess, request: Request, caller: Caller, _: tuple[str, ...], lookup: Lookup
) -> Done:
    """POST repositories/W/S/forks: fork into the named workspace, or into the caller's own."""
    row, told = await lookup.repository()
    settings, owner = await _read_settings(request, lookup, {"parent": told})
    owner = owner or caller.username
    if not owner:
        raise bad_request({"workspace": "This field is required, because the token speaks for no user."})
    settings = msgspec.structs.replace(settings, name=settings.name or row.name)
    made = await pass_on(access.to(owner).fork, row.full_name, owner, settings, by=caller.name)
    return Done(full_name=made.full_name, status=201)


async def _read_settings(
    request: Request, lookup: Lookup, told: Json
) -> tuple[RepositorySettings, str | None]:
    """Read the settings of a new repository, and the slug of the named workspace, if any.

    Raises ApiError 400, also for a workspace that the mirror does not know.
    """
    values = await read_fields(request, assumed=JSON)
    name = _named_workspace(values)
    values = {field: value for field, value in values.items() if field not in ("workspace", "owner")}
    settings, named = settings_of(values if name is None else {**values, "owner": name}, told=told)
    if named is None:
        return settings, None
    workspace = await lookup.workspace(named)
    if workspace is None:
        raise bad_request({"workspace": f"There is no workspace {named}."})
    return settings, workspace


def _named_workspace(values: Mapping[str, Any]) -> str | None:
    """Return the slug, or the uuid in braces, of the workspace that a body names; raises ApiError 400.

    A name that cannot be read is an error. Ignoring it would write to another workspace.
    """
    field = next((name for name in ("workspace", "owner") if values.get(name) is not None), None)
    if field is None:
        return None
    named = values[field]
    if isinstance(named, Mapping):
        uuid = named.get("uuid")
        braced = f"{{{uuid.strip('{}')}}}" if isinstance(uuid, str) else uuid
        named = named.get("slug") or named.get("username") or braced
    if not isinstance(named, str) or not named.strip():
        raise bad_request({field: "This field names a workspace by `slug` or `uuid`."})
    return named


WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories", WORKSPACE, REPOSITORY): {"POST": create, "PUT": update, "DELETE": delete},
    ("repositories", WORKSPACE, REPOSITORY, "forks"): {"POST": fork},
}
"""The handlers of writes, by address and method."""


async def written(write: Write, writing: Writing) -> Answer:
    """Pass a write to the upstream, then answer with the repository as the mirror has it now."""
    database, asked = writing.database, cast("Api2Request", writing.asked)

    def read(connection: sqlite3.Connection) -> tuple[RepositoryRow, Json]:
        row = find_repository(connection, asked)
        return row, repository_answer(connection, asked, row).body

    async def find() -> tuple[RepositoryRow, Json]:
        return cast("tuple[RepositoryRow, Json]", await database.execute_fn(read))

    async def workspace(name: str) -> str | None:
        if not name.startswith("{"):  # The upstream may have a slug that is not mirrored yet.
            return name
        found = await database.execute_fn(lambda connection: owner_named(connection, name))
        return found.username if found else None

    done = await write(writing.access, writing.request, asked.caller, asked.names, Lookup(find, workspace))
    if done.full_name is None:
        return Answer(status=done.status)
    shown = msgspec.structs.replace(asked, names=tuple(done.full_name.split("/")))
    try:
        answer = cast("Answer", await database.execute_fn(lambda connection: repository(connection, shown)))
    except ApiError:
        raise ApiError(503, "The write was done, but the mirror does not show it yet") from None
    where = {"Location": asked.links.repository(done.full_name)} if done.status == 201 else {}
    return msgspec.structs.replace(asked.selected(answer), status=done.status, headers=where)
