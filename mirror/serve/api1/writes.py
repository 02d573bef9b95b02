"""API 1.0, the writing side: one function for each address that writes."""

from collections.abc import Awaitable, Callable

from datasette.utils.asgi import Request

from mirror.queries.rows import FoundRepository
from mirror.serve.exchange import Answer, Asked, bad_request, not_found
from mirror.serve.forms import read_fields, repository_form
from mirror.serve.writer import Writer, asked_of

Find = Callable[[str], Awaitable[FoundRepository | None]]
"""Reads a repository as the caller may see it."""


async def create(writer: Writer, request: Request, asked: Asked, _: Find) -> tuple[str, Answer]:
    """POST repositories: the name of the new repository, and the answer that its body completes."""
    form = repository_form(await read_fields(request), required=("name",))
    owner = form.owner or asked.caller.username
    if not owner:
        raise bad_request({"owner": "This field is required, because the token speaks for no user."})
    return await asked_of(writer.create_repository, owner, form, by=asked.caller.name), Answer()


async def update(writer: Writer, request: Request, asked: Asked, find: Find) -> tuple[str, Answer]:
    """PUT repositories/U/S: change what the form mentions."""
    full_name = await _known(find, asked)
    form = repository_form(await read_fields(request))
    return await asked_of(writer.update_repository, full_name, form, by=asked.caller.name), Answer()


async def delete(writer: Writer, _: Request, asked: Asked, find: Find) -> tuple[str, Answer]:
    """DELETE repositories/U/S: 204 and no body."""
    full_name = await _known(find, asked)
    await asked_of(writer.delete_repository, full_name, by=asked.caller.name)
    return "", Answer(status=204)


async def fork(writer: Writer, request: Request, asked: Asked, find: Find) -> tuple[str, Answer]:
    """POST repositories/U/S/fork: a fork under the caller's name, or under `owner`."""
    full_name = await _known(find, asked)
    form = repository_form(await read_fields(request), required=("name",))
    owner = form.owner or asked.caller.username
    if not owner:
        raise bad_request({"owner": "This field is required, because the token speaks for no user."})
    return await asked_of(writer.fork_repository, full_name, owner, form, by=asked.caller.name), Answer()


async def _known(find: Find, asked: Asked) -> str:
    """Return the repository's name as the mirror knows it; raises ApiError 404."""
    full_name = "/".join(asked.names[:2])
    found = await find(full_name)
    if found is None or found.row.deleted_at is not None or not found.visible:
        raise not_found("Repository", full_name)
    return found.row.full_name


Write = Callable[[Writer, Request, Asked, Find], Awaitable[tuple[str, Answer]]]

OWNER, SLUG = "<owner>", "<slug>"

WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories",): {"POST": create},
    ("repositories", OWNER, SLUG): {"PUT": update, "DELETE": delete},
    ("repositories", OWNER, SLUG, "fork"): {"POST": fork},
}
"""Every address that writes, by method."""
