"""Writing, for both APIs: who may, and the one writer that passes it to the upstream.

The server holds no client of an upstream. Whoever builds it hands in a `Writer`; without one, or without
``writes = true`` in the configuration, every write is answered 405.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from mirror.errors import MirrorError, NotFound, OutcomeUnknown, StoreError, UpstreamRefused
from mirror.queries import visible as lookups
from mirror.queries.caller import Caller
from mirror.serve import auth as callers
from mirror.serve.auth import Credentials, note_use
from mirror.serve.exchange import ApiError, unauthorized
from mirror.serve.forms import RepositoryForm
from mirror.serve.state import served

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

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


_PASSED_ON = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 429})


def admitted(caller: Caller) -> None:
    """Raise ApiError 401 for nobody, 403 for a caller whose token may not write."""
    if caller.token_id is None:
        raise unauthorized()
    if not caller.may_write:
        raise ApiError(403, "Forbidden", detail="This token has no `write` scope.")


async def admitted_writer(
    datasette: "Datasette", database: "Database", said: Credentials
) -> tuple[Caller, Writer]:
    """Recognise who wants to write, and return a writer that does what they may.

    Raises NotAccepted, and ApiError as `admitted` does.
    """

    def read(connection: sqlite3.Connection) -> tuple[Caller, frozenset[str] | None]:
        caller = callers.recognise(connection, said)
        return caller, lookups.administered(connection, caller)

    caller, namespaces = await database.execute_fn(read)
    await note_use(datasette, database, caller)
    admitted(caller)
    return caller, Limited(served(datasette).writer, namespaces)


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
