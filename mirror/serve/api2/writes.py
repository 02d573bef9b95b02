"""The writing routes of API 2.0. They take JSON."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from mirror.model import Repository, RepositorySettings, slug_of
from mirror.queries.accounts import owner_named
from mirror.serve.api2.edge import REPOSITORY, WORKSPACE, Api2Request, no_workspace
from mirror.serve.exchange import JSON, ApiError, bad_request, read_fields
from mirror.serve.writer import Done, Write, Writing, delete_repository, settings_of

_SLUG = re.compile(r"(?!\.+$)(?!-)[A-Za-z0-9._-]{1,62}(?<!-)")


async def create(writing: Writing) -> Done:
    """POST repositories/W/S. The path gives the slug; a name that would make another slug is ignored."""
    named_workspace, slug = writing.asked.names
    if _SLUG.fullmatch(slug) is None:
        raise ApiError(
            400, "Bad Request", detail="The address must end in a slug: letters, digits, . _ and -"
        )
    workspace = await _slug_of_workspace(writing, named_workspace)
    if workspace is None:
        raise no_workspace(named_workspace)
    settings, named = await _read_settings(writing, {"slug": slug, "full_name": f"{workspace}/{slug}"})
    if named is not None and named.lower() != workspace.lower():
        raise bad_request({"workspace": f"The address is in {workspace}."})
    name = settings.name if slug_of(settings.name or "") == slug.lower() else slug
    settings = msgspec.structs.replace(settings, name=name, scm=settings.scm or "git")
    return Done(await writing.access.create(workspace, settings))


async def update(writing: Writing) -> Done:
    """PUT repositories/W/S: change the settings in the body. A new name changes the slug."""
    row, shown = await writing.known()
    values = await read_fields(writing.request, assumed=JSON)
    settings, _ = settings_of(values, shown=shown.body, exists=True, fork_policy=row.fork_policy)
    made = await writing.access.update(row, settings)
    return Done(made) if made.full_name == row.full_name else _new(writing.asked, made)


async def fork(writing: Writing) -> Done:
    """POST repositories/W/S/forks: fork into the named workspace, or into the caller's own."""
    row, shown = await writing.known()
    settings, owner = await _read_settings(writing, {"parent": shown.body})
    username = writing.asked.caller.username
    if not owner and not username:
        raise bad_request({"workspace": "This field is required, because the token speaks for no user."})
    owner = owner or writing.access.own_namespace(username)
    settings = msgspec.structs.replace(settings, name=settings.name or row.name)
    made = await writing.access.fork(row, owner, settings)
    return _new(writing.asked, made)


def _new(asked: Api2Request, made: Repository) -> Done:
    return Done(made, 201, asked.links.repository(made.full_name))


async def _slug_of_workspace(writing: Writing, name: str) -> str | None:
    """Return the slug of a workspace that is named by its slug or uuid; None for an unknown uuid."""
    if not name.startswith("{"):  # the upstream may have a slug that is not mirrored yet
        return name
    caller = writing.asked.caller
    found = await writing.database.read(lambda connection: owner_named(connection, caller, name))
    return found.username if found else None


async def _read_settings(writing: Writing, shown: Mapping[str, Any]) -> tuple[RepositorySettings, str | None]:
    """Read the settings of a new repository, and the slug of the named workspace, if any.

    Raises ApiError 400, also for a workspace that the mirror does not know.
    """
    values = await read_fields(writing.request, assumed=JSON)
    name = _named_workspace(values)
    values = {field: value for field, value in values.items() if field not in ("workspace", "owner")}
    settings, named = settings_of(values if name is None else {**values, "owner": name}, shown=shown)
    if named is None:
        return settings, None
    workspace = await _slug_of_workspace(writing, named)
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


# The handlers of writes, by address and method.
WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories", WORKSPACE, REPOSITORY): {"POST": create, "PUT": update, "DELETE": delete_repository},
    ("repositories", WORKSPACE, REPOSITORY, "forks"): {"POST": fork},
}
