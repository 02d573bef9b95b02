"""The writing routes of API 1.0."""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import NamedTuple, cast

from datasette.utils.asgi import Request

from mirror.queries.repositories import repository_named
from mirror.queries.rows import RepositoryRow
from mirror.serve.api1.edge import OWNER, SLUG, repository_answer
from mirror.serve.api_edge import Writing
from mirror.serve.exchange import FORM, Answer, ApiError, ApiRequest, bad_request, not_found, read_fields
from mirror.serve.writer import WriteAccess, pass_on, settings_of


class Known(NamedTuple):
    """A repository that the caller may see: its row, and its object in the API."""

    row: RepositoryRow
    answer: Answer


Find = Callable[[str], Awaitable[Known | None]]
"""Finds a repository in the mirror by its full name; None if the caller may not see it."""


async def create(access: WriteAccess, request: Request, asked: ApiRequest, _: Find) -> tuple[str, Answer]:
    """POST repositories: create a repository. Returns its full name, and the answer without its body."""
    settings, owner = settings_of(await read_fields(request, assumed=FORM), required=("name",))
    owner = owner or _own_namespace(asked)
    made = await pass_on(access.to(owner).create, owner, settings, by=asked.caller.name)
    return made.full_name, Answer()


async def update(access: WriteAccess, request: Request, asked: ApiRequest, find: Find) -> tuple[str, Answer]:
    """PUT repositories/U/S: change the settings in the body."""
    row, told = await _known(find, asked)
    values = await read_fields(request, assumed=FORM)
    settings, _ = settings_of(values, told=told.body, exists=True, fork_policy=row.fork_policy)
    made = await pass_on(access.to(row.full_name).update, row.full_name, settings, by=asked.caller.name)
    return made.full_name, Answer()


async def delete(access: WriteAccess, _: Request, asked: ApiRequest, find: Find) -> tuple[str, Answer]:
    """DELETE repositories/U/S: 204 and no body."""
    row, _told = await _known(find, asked)
    await pass_on(access.to(row.full_name).delete, row.full_name, by=asked.caller.name)
    return "", Answer(status=204)


async def fork(access: WriteAccess, request: Request, asked: ApiRequest, find: Find) -> tuple[str, Answer]:
    """POST repositories/U/S/fork: a fork under the caller's name, or under `owner`."""
    row, _ = await _known(find, asked)
    settings, owner = settings_of(await read_fields(request, assumed=FORM), required=("name",))
    owner = owner or _own_namespace(asked)
    made = await pass_on(access.to(owner).fork, row.full_name, owner, settings, by=asked.caller.name)
    return made.full_name, Answer()


def _own_namespace(asked: ApiRequest) -> str:
    """Return the namespace of the caller; raises ApiError 400 if the token speaks for no user."""
    if not asked.caller.username:
        raise bad_request({"owner": "This field is required, because the token speaks for no user."})
    return asked.caller.username


async def _known(find: Find, asked: ApiRequest) -> Known:
    """Return the repository of the path; raises ApiError 404, also for one that is hidden or gone."""
    full_name = "/".join(asked.names[:2])
    found = await find(full_name)
    if found is None:
        raise not_found("Repository", full_name)
    return found


Write = Callable[[WriteAccess, Request, ApiRequest, Find], Awaitable[tuple[str, Answer]]]

WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories",): {"POST": create},
    ("repositories", OWNER, SLUG): {"PUT": update, "DELETE": delete},
    ("repositories", OWNER, SLUG, "fork"): {"POST": fork},
}
"""The handlers of writes, by address and method."""


async def written(write: Write, writing: Writing) -> Answer:
    """Pass a write to the upstream, then answer with the repository as the mirror has it now."""
    request, asked = writing.request, writing.asked

    state = "creating" if request.method == "POST" else "available"

    def read(connection: sqlite3.Connection, full_name: str) -> Known | None:
        row = repository_named(connection, asked.caller, full_name)
        return (
            None if row is None else Known(row, repository_answer(connection, asked.caller, row, state=state))
        )

    async def find(full_name: str) -> Known | None:
        return cast(
            "Known | None",
            await writing.database.execute_fn(lambda connection: read(connection, full_name)),
        )

    full_name, answer = await write(writing.access, request, asked, find)
    if not full_name:
        return answer
    shown = await find(full_name)
    if shown is None:
        raise ApiError(503, "The write was done, but the mirror does not show it yet")
    return shown.answer
