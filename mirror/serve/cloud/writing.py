"""API 2.0, the writing side: JSON bodies checked and handed to the same writer as API 1.0's forms.

Who may write, and what becomes of the upstream's refusals, is in `mirror.serve.writes`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from datasette.utils.asgi import Request

from mirror.serve.answers import ApiError, bad_request
from mirror.serve.callers import Caller
from mirror.serve.cloud.rows import Repository
from mirror.serve.forms import RepositoryForm, read_body, read_fields, repository_form
from mirror.serve.writes import Writer, asked_of

_NOT_IN_SLUGS = re.compile(r"[^a-z0-9._-]+")
_POLICIES = {"allow_forks": (False, False), "no_public_forks": (True, False), "no_forks": (True, True)}


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a write led to: the repository as it is called now, None for none, and the status that says so."""

    full_name: str | None
    status: int = 200


Find = Callable[[], Awaitable[Repository]]
"""Reads the repository that the path names, as the caller may see it; raises ApiError 404."""

Write = Callable[[Writer, Request, Caller, tuple[str, ...], Find], Awaitable[Done]]


async def create(writer: Writer, request: Request, caller: Caller, names: tuple[str, ...], _: Find) -> Done:
    """POST repositories/W/S: the slug is the address's, so a name that makes another one gives way to it."""
    workspace, slug = names
    form = await _form(request)
    if form.name is None or _NOT_IN_SLUGS.sub("-", form.name.lower()).strip("-") != slug.lower():
        form = msgspec.structs.replace(form, name=slug)
    form = msgspec.structs.replace(form, scm=form.scm or "git", owner=None)
    return Done(full_name=await asked_of(writer.create_repository, workspace, form, by=caller.name))


async def update(writer: Writer, request: Request, caller: Caller, _: tuple[str, ...], find: Find) -> Done:
    """PUT repositories/W/S: change what the body mentions; a new name moves the repository."""
    row = await find()
    full_name = await asked_of(writer.update_repository, row.full_name, await _form(request), by=caller.name)
    return Done(full_name=full_name, status=200 if full_name == row.full_name else 201)


async def delete(writer: Writer, _request: Request, caller: Caller, _: tuple[str, ...], find: Find) -> Done:
    """DELETE repositories/W/S: 204 and no body."""
    row = await find()
    await asked_of(writer.delete_repository, row.full_name, by=caller.name)
    return Done(full_name=None, status=204)


async def fork(writer: Writer, request: Request, caller: Caller, _: tuple[str, ...], find: Find) -> Done:
    """POST repositories/W/S/forks: one in `workspace.slug`, or in the caller's own, named as its parent."""
    row = await find()
    form = await _form(request)
    owner = form.owner or caller.username
    if not owner:
        raise bad_request({"workspace": "This field is required, because the token speaks for no user."})
    form = msgspec.structs.replace(form, name=form.name or row.name, owner=None)
    full_name = await asked_of(writer.fork_repository, row.full_name, owner, form, by=caller.name)
    return Done(full_name=full_name, status=201)


async def _form(request: Request) -> RepositoryForm:
    """Read a body, JSON or a form; raises ApiError that names what is wrong with it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return repository_form(await read_fields(request))
    body = await read_body(request)
    try:
        said = msgspec.json.decode(body, type=dict[str, Any]) if body.strip() else {}
    except (msgspec.DecodeError, ValueError) as error:
        raise ApiError(400, "Bad Request", detail=f"The body cannot be read: {error}") from None
    return repository_form(_fields(said))


def _fields(said: Mapping[str, Any]) -> dict[str, str]:
    """Write a JSON body as the fields of a form: switches for the fork policy, the workspace as owner."""
    fields = {name: str(value) for name, value in said.items() if isinstance(value, str | bool | int | float)}
    fields.pop("owner", None)
    for name in ("workspace", "owner"):
        inner = said.get(name)
        if isinstance(inner, Mapping):
            inner = inner.get("slug") or inner.get("username")
        if isinstance(inner, str) and inner:
            fields["owner"] = inner
            break
    policy = said.get("fork_policy")
    if policy is not None:
        if policy not in _POLICIES:
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
