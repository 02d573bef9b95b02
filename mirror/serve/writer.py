"""Writes of all APIs: the writer that passes them on, and who may write.

The server has no client of an upstream. Whoever builds it gives it a `Writer`. Without one, or without
``writes = true`` in the configuration, every write is answered 405.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from mirror.errors import MirrorError, NotFound, OutcomeUnknown, StoreError, UpstreamRefused
from mirror.model import Repository, RepositorySettings
from mirror.queries.accounts import administered_namespaces
from mirror.queries.visibility import Caller
from mirror.serve.auth import Credentials, recognise, save_use_of
from mirror.serve.exchange import ApiError, unauthorized
from mirror.serve.state import Served

if TYPE_CHECKING:
    from datasette.database import Database

P = ParamSpec("P")
T = TypeVar("T")

_PASSED_ON = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 429})
"""Statuses of the upstream that become the status of the answer; all others become 400."""


class Writer(Protocol):
    """Writes to the upstream and then to the mirror. Each call returns when the mirror has the result.

    `by` is the name of the token, for the audit. Full names are ``owner/slug``, as in the mirror. The
    returned repository is in its state after the write.

    Raises UpstreamRefused (answered with its status and its message, which must contain no secret), NotFound
    for a repository that the mirror does not have, OutcomeUnknown for a write whose answer was lost, and any
    other MirrorError if the upstream could not be asked (answered 503: nothing was changed).
    """

    def create(self, owner: str, settings: RepositorySettings, *, by: str) -> Repository:
        """Create a repository; `settings.name` is required.

        Without `settings.scm` it gets the kind of the owner's newest repository, or hg if there is none.
        """

    def update(self, full_name: str, settings: RepositorySettings, *, by: str) -> Repository:
        """Change the given settings; a new name changes the slug."""

    def delete(self, full_name: str, *, by: str) -> None:
        """Delete a repository."""

    def fork(self, full_name: str, owner: str, settings: RepositorySettings, *, by: str) -> Repository:
        """Fork a repository into a namespace; `settings.name` is required."""


class WriteAccess:
    """The writer, limited to what a caller may write to; the mirror's credential could write to more."""

    def __init__(self, writer: Writer, namespaces: frozenset[str] | None) -> None:
        """`namespaces` are the names in lower case; None means all."""
        self._writer = writer
        self._namespaces = namespaces

    def to(self, name: str) -> Writer:
        """Return the writer for a namespace or a full name in one; raises ApiError 403 for others."""
        owner = name.partition("/")[0]
        if self._namespaces is not None and owner.lower() not in self._namespaces:
            raise ApiError(
                403,
                "Forbidden",
                detail=f"This token may write only to what its user owns or administers; {owner} is not.",
            )
        return self._writer


def require_write_scope(caller: Caller) -> None:
    """Raise ApiError 401 for an anonymous caller, 403 for one whose token may not write."""
    if caller.token_id is None:
        raise unauthorized()
    if not caller.may_write:
        raise ApiError(403, "Forbidden", detail="This token has no `write` scope.")


async def admitted_writer(
    server: Served, database: "Database", given: Credentials
) -> tuple[Caller, WriteAccess]:
    """Identify the caller; return the caller with the writer for what the caller may write to.

    Raises NotAccepted, and ApiError as `require_write_scope` does.
    """

    def read(connection: sqlite3.Connection) -> tuple[Caller, frozenset[str] | None]:
        caller = recognise(connection, given)
        return caller, administered_namespaces(connection, caller)

    caller, namespaces = await database.execute_fn(read)
    await save_use_of(server, database, caller)
    require_write_scope(caller)
    return caller, WriteAccess(server.writer, namespaces)


async def pass_on(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the writer in a thread, and turn its errors into ApiErrors."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except UpstreamRefused as error:
        status = error.status if error.status in _PASSED_ON else 400
        message = error.words or str(error)
        raise ApiError(403 if status == 401 else status, message, fields=error.fields) from error
    except NotFound as error:
        raise ApiError(404, str(error)) from error
    except OutcomeUnknown as error:
        raise ApiError(
            503, "It is not known whether the write was done; check before you repeat it.", detail=str(error)
        ) from error
    except StoreError as error:  # its message says whether the upstream has changed
        raise ApiError(503, str(error)) from error
    except MirrorError as error:
        raise ApiError(
            503, "The upstream could not be asked; nothing was changed.", detail=str(error)
        ) from error
