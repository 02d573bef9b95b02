"""Writes of both APIs: the writer that passes them on, who may write, and the settings that were sent.

The server has no client of an upstream: the program that builds it hands in a `Writer`. Without one, or
without ``writes = true`` in the configuration, every write is answered 405.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from mirror.errors import MirrorError, NotFound, OutcomeUnknown, StoreError, UpstreamRefused
from mirror.model import FORK_POLICIES, Repository, RepositorySettings
from mirror.queries.accounts import administered_namespaces
from mirror.queries.caller import Caller
from mirror.serve.auth import Credentials, recognise, save_use_of
from mirror.serve.exchange import ApiError, bad_request, unauthorized
from mirror.serve.state import Served

if TYPE_CHECKING:
    from datasette.database import Database

P = ParamSpec("P")
T = TypeVar("T")

_PASSED_ON = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 429})
"""Statuses of the upstream's refusals that are the answer's as well; any other is 400."""

TRUE = frozenset({"true", "1", "on", "yes"})
FALSE = frozenset({"false", "0", "off", "no", ""})
FORK_SWITCHES = ("no_forks", "no_public_forks", "no_private_forks")
FLAGS = ("is_private", "has_issues", "has_wiki", *FORK_SWITCHES)
TEXTS = {"name": 255, "description": 100_000, "website": 2000, "language": 100, "owner": 255}
"""Fields that hold a text, with its greatest length in characters."""
SCMS = ("git", "hg")


class Writer(Protocol):
    """Writes to the upstream and then to the mirror; each call returns once the mirror shows the result.

    `by` is the name of the token, for the audit. Full names are ``owner/slug``, as the mirror knows them. The
    repository that is returned is as it is after the write.

    Raises UpstreamRefused (passed on with its status; its message is shown, so it must hold no secret),
    NotFound for what the mirror does not hold, OutcomeUnknown for a write whose answer was lost for good, and
    any other MirrorError where the upstream could not be asked: answered 503, with nothing changed.
    """

    def create(self, owner: str, settings: RepositorySettings, *, by: str) -> Repository:
        """Create a repository; `settings.name` is given.

        Without `settings.scm` it is of the kind of the owner's newest one, else hg.
        """

    def update(self, full_name: str, settings: RepositorySettings, *, by: str) -> Repository:
        """Change the settings that are given; a new name changes the slug."""

    def delete(self, full_name: str, *, by: str) -> None:
        """Delete a repository."""

    def fork(self, full_name: str, owner: str, settings: RepositorySettings, *, by: str) -> Repository:
        """Fork a repository into a namespace; `settings.name` is given."""


class WriteAccess:
    """The writer, for the namespaces that a caller may write to: the upstream trusts the mirror with more."""

    def __init__(self, writer: Writer, namespaces: frozenset[str] | None) -> None:
        """Take the names of the namespaces in lower case; None is all of them."""
        self._writer = writer
        self._namespaces = namespaces

    def to(self, name: str) -> Writer:
        """Return the writer for a namespace or a full name in one; raises ApiError 403 for others."""
        owner = name.partition("/")[0]
        if self._namespaces is not None and owner.lower() not in self._namespaces:
            raise ApiError(
                403,
                "Forbidden",
                detail=f"This token writes only in what its user owns or administers, and {owner} is not.",
            )
        return self._writer


def admitted(caller: Caller) -> None:
    """Raise ApiError 401 for an anonymous caller, 403 for one whose token may not write."""
    if caller.token_id is None:
        raise unauthorized()
    if not caller.may_write:
        raise ApiError(403, "Forbidden", detail="This token has no `write` scope.")


async def admitted_writer(
    server: Served, database: "Database", said: Credentials
) -> tuple[Caller, WriteAccess]:
    """Identify the caller; return them with the writer for what they may write to.

    Raises NotAccepted, and ApiError as `admitted` does.
    """

    def read(connection: sqlite3.Connection) -> tuple[Caller, frozenset[str] | None]:
        caller = recognise(connection, said)
        return caller, administered_namespaces(connection, caller)

    caller, namespaces = await database.execute_fn(read)
    await save_use_of(server, database, caller)
    admitted(caller)
    return caller, WriteAccess(server.writer, namespaces)


async def pass_on(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the writer in a thread, and turn its errors into answers."""
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


def settings_of(
    fields: Mapping[str, str], *, required: tuple[str, ...] = (), fork_policy: str | None = None
) -> tuple[RepositorySettings, str | None]:
    """Check the fields of a repository; return its settings, and the owner that is named, if one is.

    `required` are fields that must be there. `fork_policy` is the current one: three switches make a policy,
    and a switch that is not given stays. Fields that API 1.0 did not know are ignored.
    Raises ApiError 400, which names every wrong or missing field.
    """
    values, wrong = dict[str, Any](), dict[str, str]()
    for name in (*TEXTS, *FLAGS, "scm"):
        if name in fields:
            values[name], complaint = _checked(name, fields[name])
            if complaint:
                wrong[name] = complaint
    for name in required:
        if not values.get(name):
            wrong[name] = "This field is required."
    if wrong:
        raise bad_request(wrong)
    owner = values.pop("owner", None)
    switches = {name: values.pop(name) for name in FORK_SWITCHES if name in values}
    return RepositorySettings(**values, fork_policy=fork_policy_of(switches, fork_policy)), owner


def _checked(name: str, text: str) -> tuple[Any, str | None]:
    """Return the value of one field, and what is wrong with it, None if nothing is."""
    if name in FLAGS:
        flag = text.strip().lower()
        return flag in TRUE, None if flag in TRUE | FALSE else "This field is true or false."
    if name == "scm":
        scm = text.strip().lower() or None
        return scm, None if scm in (*SCMS, None) else "This field is git or hg."
    if name not in ("name", "owner"):
        return text, _too_long(name, text)
    text = text.strip()
    if not text:
        return text, "This field is required."
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        return text, "This field holds control characters."
    return text, _too_long(name, text)


def _too_long(name: str, text: str) -> str | None:
    longest = TEXTS[name]
    return f"This field is longer than {longest} characters." if len(text) > longest else None


def fork_policy_of(switches: Mapping[str, bool], policy: str | None) -> str | None:
    """Return the fork policy that API 1.0's switches make of the present one; None where no switch is given.

    A switch that is not given stays. Private forks alone cannot be forbidden: ApiError 400.
    """
    if not switches:
        return None
    no_forks, no_public_forks, no_private_forks = map(switches.get, FORK_SWITCHES)
    no_private = policy == "no_forks"
    no_public = no_private or policy == "no_public_forks"
    if no_forks or (no_forks is False and no_private):
        no_public = no_private = no_forks
    if no_public_forks is not None:
        no_public = no_public_forks
    if no_private_forks is not None and not no_forks:
        no_private = no_private_forks
    if no_private_forks and no_private and not no_public:
        raise ApiError(
            400,
            "no_private_forks: Bitbucket forbids all forks or the public ones, never the private ones alone",
        )
    return FORK_POLICIES[2 if no_private else 1 if no_public else 0]
