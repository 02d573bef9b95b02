"""The writing routes of API 1.0. They take forms."""

from mirror.serve.api1.edge import OWNER, SLUG
from mirror.serve.exchange import FORM, ApiRequest, bad_request, read_fields
from mirror.serve.writer import Done, Write, Writing, pass_on, settings_of


async def create(writing: Writing) -> Done:
    """POST repositories: create a repository."""
    asked: ApiRequest = writing.asked
    settings, owner = settings_of(await read_fields(writing.request, assumed=FORM), required=("name",))
    owner = owner or _own_namespace(asked)
    made = await pass_on(writing.access.to(owner).create, owner, settings, by=asked.caller.name)
    return Done(made.full_name)


async def update(writing: Writing) -> Done:
    """PUT repositories/U/S: change the settings in the body."""
    row, told = await writing.known()
    values = await read_fields(writing.request, assumed=FORM)
    settings, _ = settings_of(values, told=told.body, exists=True, fork_policy=row.fork_policy)
    writer = writing.access.to(row.full_name)
    made = await pass_on(writer.update, row.full_name, settings, by=writing.asked.caller.name)
    return Done(made.full_name)


async def delete(writing: Writing) -> Done:
    """DELETE repositories/U/S: 204 and no body."""
    row, _ = await writing.known()
    writer = writing.access.to(row.full_name)
    await pass_on(writer.delete, row.full_name, by=writing.asked.caller.name)
    return Done(None, 204)


async def fork(writing: Writing) -> Done:
    """POST repositories/U/S/fork: a fork under the caller's name, or under `owner`."""
    row, _ = await writing.known()
    asked: ApiRequest = writing.asked
    settings, owner = settings_of(await read_fields(writing.request, assumed=FORM), required=("name",))
    owner = owner or _own_namespace(asked)
    made = await pass_on(writing.access.to(owner).fork, row.full_name, owner, settings, by=asked.caller.name)
    return Done(made.full_name)


def _own_namespace(asked: ApiRequest) -> str:
    """Return the namespace of the caller; raises ApiError 400 if the token speaks for no user."""
    if not asked.caller.username:
        raise bad_request({"owner": "This field is required, because the token speaks for no user."})
    return asked.caller.username


WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories",): {"POST": create},
    ("repositories", OWNER, SLUG): {"PUT": update, "DELETE": delete},
    ("repositories", OWNER, SLUG, "fork"): {"POST": fork},
}
"""The handlers of writes, by address and method."""
