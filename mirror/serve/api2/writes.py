"""The writing routes of API 2.0: check JSON bodies and hand them to `mirror.serve.writer`."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
from datasette.utils.asgi import Request

from mirror.model import FORK_POLICIES, RepositorySettings, slug_of
from mirror.queries.accounts import owner_named
from mirror.queries.caller import Caller
from mirror.queries.rows import RepositoryRow
from mirror.serve.api2.edge import (
    REPOSITORY,
    WORKSPACE,
    Api2Request,
    find_repository,
    no_workspace,
    repository,
)
from mirror.serve.api_edge import Writing
from mirror.serve.body import (
    FORM,
    JSON,
    content_type_of,
    plain_fields,
    read_body,
    read_fields,
    read_json,
)
from mirror.serve.exchange import Answer, ApiError, bad_request
from mirror.serve.writer import FLAGS, FORK_SWITCHES, TEXTS, WriteAccess, pass_on, settings_of

_SLUG = re.compile(r"(?!\.+$)(?!-)[A-Za-z0-9._-]{1,62}(?<!-)")


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a write: the repository's full name now, None after a delete, and the status."""

    full_name: str | None
    status: int = 200


class Lookup(msgspec.Struct, frozen=True):
    """Finds in the mirror what a write names.

    :param repository: returns the repository of the path; raises ApiError 404 if the caller may not see it.
    :param workspace: turns a slug or a uuid into a slug; None for an unknown uuid.
    """

    repository: Callable[[], Awaitable[RepositoryRow]]
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
    settings, named = await _read_settings(request, lookup)
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
    row = await lookup.repository()
    values = await _read_object(request)
    if values.get("scm") not in (None, row.scm):
        raise bad_request({"scm": "The kind of an existing repository cannot be changed."})
    settings, _owner = _settings_of(values, {}, row.fork_policy)
    made = await pass_on(access.to(row.full_name).update, row.full_name, settings, by=caller.name)
    return Done(full_name=made.full_name, status=200 if made.full_name == row.full_name else 201)


async def delete(
    access: WriteAccess, _request: Request, caller: Caller, _: tuple[str, ...], lookup: Lookup
) -> Done:
    """DELETE repositories/W/S: 204 and no body."""
    row = await lookup.repository()
    await pass_on(access.to(row.full_name).delete, row.full_name, by=caller.name)
    return Done(full_name=None, status=204)


async def fork(
    access: WriteAccess, request: Request, caller: Caller, _: tuple[str, ...], lookup: Lookup
) -> Done:
    """POST repositories/W/S/forks: fork into the named workspace, or into the caller's own."""
    row = await lookup.repository()
    settings, owner = await _read_settings(request, lookup)
    owner = owner or caller.username
    if not owner:
        raise bad_request({"workspace": "This field is required, because the token speaks for no user."})
    settings = msgspec.structs.replace(settings, name=settings.name or row.name)
    made = await pass_on(access.to(owner).fork, row.full_name, owner, settings, by=caller.name)
    return Done(full_name=made.full_name, status=201)


async def _read_settings(request: Request, lookup: Lookup) -> tuple[RepositorySettings, str | None]:
    """Read settings, and the slug of the named workspace, if any; raises ApiError 400."""
    values = await _read_object(request)
    name = _named_workspace(values)
    settings, named = _settings_of(values, {} if name is None else {"owner": name})
    if named is None:
        return settings, None
    workspace = await lookup.workspace(named)
    if workspace is None:
        raise bad_request({"workspace": f"There is no workspace {named}."})
    return settings, workspace


async def _read_object(request: Request) -> dict[str, Any]:
    """Read a JSON object or a form; raises ApiError that says what is wrong with it."""
    content_type = content_type_of(request)
    if content_type == FORM:
        return dict(await read_fields(request))
    body = await read_body(request)
    if not body.strip():
        return {}
    if content_type not in ("", JSON) and not content_type.endswith("+json"):
        raise ApiError(415, "Unsupported Media Type", detail=f"Send the fields as {JSON}.")
    return read_json(body)


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


SETTINGS = frozenset({*TEXTS, *FLAGS, "scm", "fork_policy", "workspace"})
"""What can be written of a repository."""

TOLD_BACK = frozenset(
    {
        "type",
        "uuid",
        "full_name",
        "slug",
        "links",
        "created_on",
        "updated_on",
        "size",
        "parent",
        "access_token",
    }
)
"""What clients send back as it was told to them: it sets nothing."""


def _settings_of(
    values: Mapping[str, Any], owner: dict[str, str], policy: str | None = None
) -> tuple[RepositorySettings, str | None]:
    """Check a JSON object as `settings_of` checks a form; `fork_policy` overrides the switches of API 1.0."""
    unknown = sorted(values.keys() - SETTINGS - TOLD_BACK)
    if unknown:
        raise bad_request({name[:100]: "This mirror passes on no such setting." for name in unknown[:20]})
    given = values.get("fork_policy")
    if given is not None and given not in FORK_POLICIES:
        raise bad_request({"fork_policy": f"This field is one of {', '.join(FORK_POLICIES)}."})
    fields = plain_fields(values)
    fields.pop("owner", None)
    if given is None:
        return settings_of(fields | owner, fork_policy=policy)
    for switch in FORK_SWITCHES:
        fields.pop(switch, None)
    settings, named = settings_of(fields | owner)
    return msgspec.structs.replace(settings, fork_policy=given), named


WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories", WORKSPACE, REPOSITORY): {"POST": create, "PUT": update, "DELETE": delete},
    ("repositories", WORKSPACE, REPOSITORY, "forks"): {"POST": fork},
}
"""The handlers of writes, by address and method."""


async def written(write: Write, writing: Writing) -> Answer:
    """Pass a write to the upstream, then answer with the repository as the mirror has it now."""
    database, asked = writing.database, cast("Api2Request", writing.asked)

    async def find() -> RepositoryRow:
        return cast(
            "RepositoryRow", await database.execute_fn(lambda connection: find_repository(connection, asked))
        )

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
