"""API 2.0, the writing side: JSON bodies checked and handed to the same writer as API 1.0's forms.

Who may write, and what becomes of the upstream's refusals, is in `mirror.serve.writer`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from datasette.utils.asgi import Request

from mirror.queries.caller import Caller
from mirror.queries.rows import Repository
from mirror.serve.api2.exchange import no_workspace
from mirror.serve.exchange import ApiError, bad_request
from mirror.serve.forms import (
    FORM,
    JSON,
    RepositoryForm,
    kind_of_body,
    plain_fields,
    read_body,
    read_fields,
    read_json,
    repository_form,
)
from mirror.serve.writer import Writer, asked_of

_SLUG = re.compile(r"(?!\.+$)(?!-)[A-Za-z0-9._-]{1,62}(?<!-)")
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9._-]+")
_POLICIES = {"allow_forks": (False, False), "no_public_forks": (True, False), "no_forks": (True, True)}


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a write led to: the repository as it is called now, None for none, and the status that says so."""

    full_name: str | None
    status: int = 200


class Looking(msgspec.Struct, frozen=True):
    """Reads from the mirror what a write names.

    `repository` is the one that the path names, as the caller may see it; raises ApiError 404. `workspace`
    turns a slug or a uuid into a slug, None for a uuid that nobody has.
    """

    repository: Callable[[], Awaitable[Repository]]
    workspace: Callable[[str], Awaitable[str | None]]


Write = Callable[[Writer, Request, Caller, tuple[str, ...], Looking], Awaitable[Done]]


async def create(
    writer: Writer, request: Request, caller: Caller, names: tuple[str, ...], looking: Looking
) -> Done:
    """POST repositories/W/S: the slug is the address's, so a name that makes another one gives way to it."""
    slug = names[1]
    if _SLUG.fullmatch(slug) is None:
        raise ApiError(400, "Bad Request", detail="The address ends in no slug: letters, digits, . _ and -")
    workspace = await looking.workspace(names[0])
    if workspace is None:
        raise no_workspace(names[0])
    form, said = await _placed(request, looking)
    if said is not None and said.lower() != workspace.lower():
        raise bad_request({"workspace": f"The address is in {workspace}."})
    if form.name is None or _NOT_IN_SLUGS.sub("-", form.name.lower()).strip("-") != slug.lower():
        form = msgspec.structs.replace(form, name=slug)
    form = msgspec.structs.replace(form, scm=form.scm or "git")
    return Done(full_name=await asked_of(writer.create_repository, workspace, form, by=caller.name))


async def update(
    writer: Writer, request: Request, caller: Caller, _: tuple[str, ...], looking: Looking
) -> Done:
    """PUT repositories/W/S: change what the body mentions; a new name moves the repository."""
    row = await looking.repository()
    form = repository_form(_fields(await _said(request)))
    full_name = await asked_of(writer.update_repository, row.full_name, form, by=caller.name)
    return Done(full_name=full_name, status=200 if full_name == row.full_name else 201)


async def delete(
    writer: Writer, _request: Request, caller: Caller, _: tuple[str, ...], looking: Looking
) -> Done:
    """DELETE repositories/W/S: 204 and no body."""
    row = await looking.repository()
    await asked_of(writer.delete_repository, row.full_name, by=caller.name)
    return Done(full_name=None, status=204)


async def fork(
    writer: Writer, request: Request, caller: Caller, _: tuple[str, ...], looking: Looking
) -> Done:
    """POST repositories/W/S/forks: one in the workspace that is said, or in the caller's own."""
    row = await looking.repository()
    form, said = await _placed(request, looking)
    owner = said or caller.username
    if not owner:
        raise bad_request({"workspace": "This field is required, because the token speaks for no user."})
    form = msgspec.structs.replace(form, name=form.name or row.name)
    full_name = await asked_of(writer.fork_repository, row.full_name, owner, form, by=caller.name)
    return Done(full_name=full_name, status=201)


async def _placed(request: Request, looking: Looking) -> tuple[RepositoryForm, str | None]:
    """Read a body, and the slug of the workspace that it names, if it names one; raises ApiError 400."""
    said = await _said(request)
    name = _named_workspace(said)
    form = repository_form(_fields(said) | ({} if name is None else {"owner": name}))
    if form.owner is None:
        return form, None
    workspace = await looking.workspace(form.owner)
    if workspace is None:
        raise bad_request({"workspace": f"There is no workspace {form.owner}."})
    return msgspec.structs.replace(form, owner=None), workspace


async def _said(request: Request) -> dict[str, Any]:
    """Read a body, JSON or a form; raises ApiError that names what is wrong with it."""
    kind = kind_of_body(request)
    if kind == FORM:
        return dict(await read_fields(request))
    body = await read_body(request)
    if not body.strip():
        return {}
    if kind not in ("", JSON) and not kind.endswith("+json"):
        raise ApiError(415, "Unsupported Media Type", detail=f"Send the fields as {JSON}.")
    return read_json(body)


def _named_workspace(said: Mapping[str, Any]) -> str | None:
    """Return the slug, or the uuid in braces, of the workspace that a body names; raises ApiError 400.

    One that is there but cannot be read is not left out, for then another workspace would be written to.
    """
    field = next((name for name in ("workspace", "owner") if said.get(name) is not None), None)
    if field is None:
        return None
    named = said[field]
    if isinstance(named, Mapping):
        uuid = named.get("uuid")
        braced = f"{{{uuid.strip('{}')}}}" if isinstance(uuid, str) else uuid
        named = named.get("slug") or named.get("username") or braced
    if not isinstance(named, str) or not named.strip():
        raise bad_request({field: "This field names a workspace by `slug` or `uuid`."})
    return named


def _fields(said: Mapping[str, Any]) -> dict[str, str]:
    """Write a JSON body as the fields of a form, with switches for the fork policy."""
    fields = plain_fields(said)
    fields.pop("owner", None)
    policy = said.get("fork_policy")
    if policy is not None:
        if not isinstance(policy, str) or policy not in _POLICIES:
            raise bad_request({"fork_policy": f"This field is one of {', '.join(_POLICIES)}."})
        no_public, no_private = _POLICIES[policy]
        fields |= {
            "no_forks": str(no_public and no_private),
            "no_public_forks": str(no_public),
            "no_private_forks": str(no_private),
        }
    return fields


WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories", "<workspace>", "<repository>"): {"POST": create, "PUT": update, "DELETE": delete},
    ("repositories", "<workspace>", "<repository>", "forks"): {"POST": fork},
}
"""Every address that writes, by method, with the placeholders of `routes`."""
