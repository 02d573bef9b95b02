"""API 1.0, the writing side: who may write, what they sent, and a writer that passes it to the upstream.

The server holds no client of an upstream. Whoever builds it hands in a `Writer`; without one, or without
``writes = true`` in the configuration, every write is answered 405.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar

from datasette.utils.asgi import Request

from mirror.errors import MirrorError, NotFound, OutcomeUnknown, StoreError, UpstreamRefused
from mirror.queries.caller import Caller
from mirror.queries.rows import FoundRepository
from mirror.serve.exchange import Answer, ApiError, Asked, bad_request, not_found, unauthorized
from mirror.serve.forms import RepositoryForm, read_fields, repository_form

P = ParamSpec("P")
T = TypeVar("T")


class Writer(Protocol):
    """Writes to the upstream and then to the mirror; each call returns once the mirror shows the result.

    `by` names the token for the audit. `form` holds what was sent, None for the rest. Full names are
    ``owner/slug``, as the mirror knows them, and the returned ones are those after the write.

    Raises UpstreamRefused (passed on with its status; its message is shown, so it must hold no secret),
    NotFound for what the mirror does not hold, OutcomeUnknown for a write whose answer was lost for good, and
    any other MirrorError where the upstream could not be asked: answered 503, with nothing changed.
    """

    def create_repository(self, owner: str, form: RepositoryForm, *, by: str) -> str:
        """Create a repository; `form.name` is there. Without `form.scm`: as the owner's last one, else hg."""

    def update_repository(self, full_name: str, form: RepositoryForm, *, by: str) -> str:
        """Change what the form mentions; a new name moves the slug."""

    def delete_repository(self, full_name: str, *, by: str) -> None:
        """Delete a repository."""

    def fork_repository(self, full_name: str, owner: str, form: RepositoryForm, *, by: str) -> str:
        """Fork a repository into a namespace; `form.name` is there."""


class Limited:
    """A writer that writes in some namespaces alone, None for all: the upstream trusts the mirror with more.

    `namespaces` are lower-case names. Raises ApiError 403 for any other, beside what the writer raises.
    """

    def __init__(self, writer: Writer, namespaces: frozenset[str] | None) -> None:
        self._writer = writer
        self._namespaces = namespaces

    def create_repository(self, owner: str, form: RepositoryForm, *, by: str) -> str:
        """Create a repository."""
        self._check(owner)
        return self._writer.create_repository(owner, form, by=by)

    def update_repository(self, full_name: str, form: RepositoryForm, *, by: str) -> str:
        """Change a repository."""
        self._check(full_name)
        return self._writer.update_repository(full_name, form, by=by)

    def delete_repository(self, full_name: str, *, by: str) -> None:
        """Delete a repository."""
        self._check(full_name)
        self._writer.delete_repository(full_name, by=by)

    def fork_repository(self, full_name: str, owner: str, form: RepositoryForm, *, by: str) -> str:
        """Fork a repository that the caller may see into a namespace."""
        self._check(owner)
        return self._writer.fork_repository(full_name, owner, form, by=by)

    def _check(self, name: str) -> None:
        owner = name.partition("/")[0]
        if self._namespaces is not None and owner.lower() not in self._namespaces:
            raise ApiError(
                403,
                "Forbidden",
                detail=f"This token writes only in what its user owns or administers, and {owner} is not.",
            )


Find = Callable[[str], Awaitable[FoundRepository | None]]
"""Reads a repository as the caller may see it."""

_PASSED_ON = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 429})


def admitted(caller: Caller) -> None:
    """Raise ApiError 401 for nobody, 403 for a caller whose token may not write."""
    if caller.token_id is None:
        raise unauthorized()
    if not caller.may_write:
        raise ApiError(403, "Forbidden", detail="This token has no `write` scope.")


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


async def asked_of(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the writer beside the event loop, and turn its errors into answers."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except UpstreamRefused as error:
        status = error.status if error.status in _PASSED_ON else 400
        raise ApiError(403 if status == 401 else status, str(error)) from error
    except NotFound as error:
        raise ApiError(404, str(error)) from error
    except OutcomeUnknown as error:
        raise ApiError(
            503, "Nobody knows whether it was done; look before you repeat it.", detail=str(error)
        ) from error
    except StoreError as error:  # which says whether the upstream has done its part
        raise ApiError(503, str(error)) from error
    except MirrorError as error:
        raise ApiError(
            503, "The upstream could not be asked; nothing was changed.", detail=str(error)
        ) from error


Write = Callable[[Writer, Request, Asked, Find], Awaitable[tuple[str, Answer]]]

OWNER, SLUG = "<owner>", "<slug>"

WRITERS: dict[tuple[str, ...], dict[str, Write]] = {
    ("repositories",): {"POST": create},
    ("repositories", OWNER, SLUG): {"PUT": update, "DELETE": delete},
    ("repositories", OWNER, SLUG, "fork"): {"POST": fork},
}
"""Every address that writes, by method."""
