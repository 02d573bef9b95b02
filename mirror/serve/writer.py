"""Writes of all APIs: who may write, what may be sent, and the writer that passes it on.

The server has no client of an upstream: its builder passes in a `Writer`. Without one, or without ``writes =
true`` in the configuration, every write is answered with 405.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import msgspec
from datasette.utils.asgi import Request

from mirror.addresses import PERSONAL
from mirror.errors import MirrorError, NotFound, OutcomeUnknown, StoreError, UpstreamRefused
from mirror.model import FORK_POLICIES, Repository, RepositoryKey, RepositorySettings, slug_of
from mirror.queries.rows import RepositoryRow
from mirror.queries.visibility import Caller, administered_namespaces, is_unconfirmed
from mirror.serve.auth import Credentials, recognise, save_use_of
from mirror.serve.exchange import Answer, ApiError, bad_request, unauthorized, unconfirmed
from mirror.serve.state import Served

if TYPE_CHECKING:
    from datasette.database import Database

P = ParamSpec("P")
T = TypeVar("T")
FindRepository = Callable[[sqlite3.Connection, Any], tuple[RepositoryRow, Answer]]

# Statuses of the upstream that the answer repeats; others below 500 become 400, the rest 503.
_PASSED_ON = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 429, 501})

TRUE = frozenset({"true", "1", "on", "yes"})
FALSE = frozenset({"false", "0", "off", "no", ""})
FORK_SWITCHES = ("no_forks", "no_public_forks", "no_private_forks")
FLAGS = ("is_private", "has_issues", "has_wiki", *FORK_SWITCHES)
# Text fields, with their maximum length in characters.
TEXTS = {"name": 255, "description": 100_000, "website": 2000, "language": 100, "owner": 255}

SCMS = ("git", "hg")
WORDS = {"scm": SCMS, "fork_policy": FORK_POLICIES}
FIXED = frozenset({"scm", "owner"})  # fields that can be set only when a repository is created

# Fields about the answer, not the write; so are fields that begin with ``oauth_``.
TRANSPORT = frozenset({"format", "callback", "access_token"})

# Fields that may differ without setting anything: they depend on the caller, or are dates. Programs with
# types of their own write dates in another form, and as the year 1 if they know none.
MOVING = frozenset(
    {"type", "links", "created_on", "updated_on", "utc_created_on", "last_updated", "utc_last_updated"}
)

MOST_NAMED = 20  # wrong fields that an error names
LONGEST_NAMED = 100  # characters of the name of such a field


class Writer(Protocol):
    """Writes to the upstream and then to the mirror. Each call returns when the mirror has the result.

    `by` is the name of the token, for the audit. Full names are ``owner/slug``, as in the mirror, and `uuid`
    is that of the repository that the mirror shows under the name. `upstream` is the only one that the caller
    may write to, "" if that is any. The repository is returned in its state after the write.

    Raises UpstreamRefused (the answer repeats its status and its message, which must contain no secret),
    NotFound for a repository that the mirror does not have, OutcomeUnknown for a write whose answer was lost,
    and any other MirrorError if the upstream could not be asked (answered with 503: nothing was changed).
    """

    def confirmed(self, confirm: Callable[[sqlite3.Connection], None]) -> "Writer":
        """Return a writer that calls `confirm` with the mirror right before it sends a write.

        What that raises ends the write.
        """

    def create(self, owner: str, settings: RepositorySettings, *, by: str, upstream: str = "") -> Repository:
        """Create a repository; `settings.name` is required.

        Without `settings.scm` it gets the kind of the owner's newest repository, or hg if there is none.
        """

    def update(
        self, full_name: str, settings: RepositorySettings, *, by: str, uuid: str, upstream: str = ""
    ) -> Repository:
        """Change the given settings; a new name changes the slug."""

    def delete(self, full_name: str, *, by: str, uuid: str, upstream: str = "") -> RepositoryKey:
        """Delete a repository."""

    def fork(
        self,
        full_name: str,
        owner: str,
        settings: RepositorySettings,
        *,
        by: str,
        uuid: str,
        private_in: str | None,
        upstream: str = "",
    ) -> Repository:
        """Fork a repository into a namespace; `settings.name` is required.

        It is refused if the upstream says that the repository is private by now and not in `private_in`;
        None means that the caller sees all.
        """


class Rights(NamedTuple):
    """What a caller may write to.

    :param is_outdated: whether the rights are those of a restored copy.
    :param namespaces: maps names in lower case to the names of their upstreams; None means all.
    """

    caller: Caller
    is_outdated: bool
    namespaces: Mapping[str, str] | None

    def check(self) -> None:
        """Raise ApiError: 401 for an anonymous caller, 403 without the scope, 503 for old rights."""
        if self.caller.token_id is None:
            raise unauthorized()
        if not self.caller.may_write:
            raise ApiError(403, "Forbidden", detail="This token has no `write` scope.")
        if self.is_outdated:
            raise unconfirmed()

    def upstream_of(self, name: str) -> str:
        """Return the upstream of a namespace, or of a full name in one; "" if the caller may write to any.

        The mirror's own credential could write to more, also to a namespace of this name on another upstream.
        Raises ApiError 403.
        """
        if self.namespaces is None:
            return ""
        owner = name.partition("/")[0]
        upstream = self.namespaces.get(owner.lower())
        if upstream is None:
            raise ApiError(
                403,
                "Forbidden",
                detail=f"This token may write only to what its user owns or administers; {owner} is not.",
            )
        return upstream


def _rights_of(connection: sqlite3.Connection, given: Credentials) -> Rights:
    """Read what a caller may write to; raises NotAccepted."""
    caller = recognise(connection, given)
    return Rights(caller, is_unconfirmed(connection, caller), administered_namespaces(connection, caller))


class WriteAccess:
    """The writer, limited to what a caller may write to.

    Its methods are those of `Writer`. They raise ApiError: 403 for a namespace that the caller may not write
    to, else for the errors of the writer. NotAccepted and ApiError also end a write whose caller has lost
    the right since the request began.
    """

    def __init__(self, writer: Writer, given: Credentials, rights: Rights) -> None:
        self._writer, self._given, self._rights = writer, given, rights
        self._by = rights.caller.name

    async def create(self, owner: str, settings: RepositorySettings) -> Repository:
        """Create a repository."""
        writer, upstream = self._writer_to(owner)
        return await _pass_on(writer.create, owner, settings, by=self._by, upstream=upstream)

    async def update(self, row: RepositoryRow, settings: RepositorySettings) -> Repository:
        """Change settings."""
        (writer, upstream), name = self._writer_to(row.full_name), row.full_name
        return await _pass_on(writer.update, name, settings, by=self._by, uuid=row.uuid, upstream=upstream)

    async def delete(self, row: RepositoryRow) -> None:
        """Delete a repository."""
        (writer, upstream), name = self._writer_to(row.full_name), row.full_name
        await _pass_on(writer.delete, name, by=self._by, uuid=row.uuid, upstream=upstream)

    async def fork(self, row: RepositoryRow, owner: str, settings: RepositorySettings) -> Repository:
        """Fork a repository into a namespace of its upstream that the caller may write to."""
        writer, upstream = self._writer_to(owner)
        # It may have been visible to the caller only as a public one, or in its workspace.
        seen_in = row.full_name.partition("/")[0] if row.is_private else ""
        private_in = None if self._rights.namespaces is None else seen_in
        return await _pass_on(
            writer.fork,
            row.full_name,
            owner,
            settings,
            by=self._by,
            uuid=row.uuid,
            private_in=private_in,
            upstream=upstream,
        )

    def own_namespace(self, username: str) -> str:
        """Return the namespace of a user's own: on Data Center, it is called by the name with a tilde."""
        personal = f"{PERSONAL}{username}"
        known = self._rights.namespaces or {}
        return personal if username.lower() not in known and personal.lower() in known else username

    def _writer_to(self, name: str) -> tuple[Writer, str]:
        """Return the writer to a namespace, or to that of a full name, and its upstream; raises ApiError."""
        upstream = self._rights.upstream_of(name)

        def confirm(connection: sqlite3.Connection) -> None:  # the body may have taken seconds to arrive
            rights = _rights_of(connection, self._given)
            rights.check()
            rights.upstream_of(name)

        return self._writer.confirmed(confirm), upstream


class Done(NamedTuple):
    """The result of a write.

    :param made: the repository as it is now; None after a delete.
    :param location: the address of a new repository, for the `Location` header.
    """

    made: Repository | None
    status: int = 200
    location: str | None = None


class Writing(NamedTuple):
    """A write whose caller may write.

    :param access: the writer, limited to what the caller may write to.
    :param database: the mirror, which shows the result afterwards.
    :param asked: the parsed request.
    :param find: finds the repository of a path, as the API shows it to the caller; raises ApiError 404.
    """

    access: WriteAccess
    request: Request
    database: "Database"
    asked: Any
    find: FindRepository

    async def known(self, full_name: str = "") -> tuple[RepositoryRow, Answer]:
        """Find the repository of the path, or that of another name."""
        asked = self.asked
        if full_name:
            asked = msgspec.structs.replace(asked, names=tuple(full_name.split("/", 1)))
        found = await self.database.read(lambda connection: self.find(connection, asked))
        return cast("tuple[RepositoryRow, Answer]", found)


Write = Callable[[Writing], Awaitable[Done]]


async def answer_of(write: Write, writing: Writing) -> Answer:
    """Pass a write to the upstream, then answer with the repository as the mirror has it now."""
    done = await write(writing)
    if done.made is None:
        return Answer(status=done.status)
    try:
        row, found = await writing.known(done.made.full_name)
    except ApiError:
        raise ApiError(503, "The write was done, but the mirror does not show it yet") from None
    if row.uuid != done.made.uuid:  # of another upstream
        why = f"The write was done, but at the address of {row.full_name} the mirror shows another repository"
        raise ApiError(503, why)
    headers = {"Location": done.location} if done.location else {}
    answer: Answer = writing.asked.selected(found)
    return msgspec.structs.replace(answer, status=done.status, headers=headers)


async def delete_repository(writing: Writing) -> Done:
    """DELETE of a repository's address: 204 and no body."""
    row, _ = await writing.known()
    await writing.access.delete(row)
    return Done(None, 204)


async def admitted_writer(
    server: Served, database: "Database", given: Credentials
) -> tuple[Caller, WriteAccess]:
    """Identify the caller; return it with the writer for the namespaces that it may write to.

    Raises NotAccepted, ApiError 401 for an anonymous caller, 403 for one whose token may not write, 503 for a
    user whose rights in a restored copy may be outdated.
    """
    rights = await database.read(lambda connection: _rights_of(connection, given))
    await save_use_of(server, database, rights.caller)
    rights.check()
    return rights.caller, WriteAccess(server.writer, given, rights)


async def _pass_on(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the writer in a thread, and turn its errors into ApiErrors."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except UpstreamRefused as error:
        other = 400 if 400 <= error.status < 500 else 503
        status = error.status if error.status in _PASSED_ON else other
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
        raise ApiError(503, "The upstream did not do it; nothing was changed.", detail=str(error)) from error


def settings_of(
    values: Mapping[str, Any],
    *,
    shown: Mapping[str, Any] | None = None,
    exists: bool = False,
    required: tuple[str, ...] = (),
    fork_policy: str | None = None,
) -> tuple[RepositorySettings, str | None]:
    """Check the fields of a write; return the settings, and the named owner, if any.

    :param values: the fields of a form or of a JSON object.
    :param shown: the repository as the API shows it, which clients may send back.
    :param exists: whether the repository exists, so that FIXED fields cannot be set.
    :param required: the fields that must be present.
    :param fork_policy: the current policy. API 1.0 sets it by three switches; a missing one keeps its state.

    Raises ApiError 400 that names every field that is wrong, missing, unknown or cannot be changed.
    """
    # No field is ignored silently. A client may send back a repository as it read it, with some settings
    # edited: a field that equals what the API shows sets nothing. Any other field that is not a setting is an
    # error.
    settable = {*TEXTS, *FLAGS, *WORDS} - (FIXED if exists else set())
    wrong = _refused(values, settable, shown or {})
    found = dict[str, Any]()
    for name in sorted(settable & values.keys()):
        if values[name] is not None:
            found[name], complaint = _checked(name, values[name])
            if complaint:
                wrong[name] = complaint
    for name in required:
        if not found.get(name) and name not in wrong:
            wrong[name] = "This field is required."
    if wrong:
        raise bad_request(dict(list(wrong.items())[:MOST_NAMED]))
    owner = found.pop("owner", None)
    switches = {name: found.pop(name) for name in FORK_SWITCHES if name in found}
    found["fork_policy"] = found.get("fork_policy") or fork_policy_of(switches, fork_policy)
    return RepositorySettings(**found), owner


def _refused(values: Mapping[str, Any], settable: set[str], shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that are not settings and differ from what the API shows, each with its fault."""
    slugs = [shown.get("slug"), slug_of(str(values.get("name") or ""))]  # the new name makes one
    shown = {**shown, "slug": slugs}
    refused = dict[str, str]()
    for name, value in values.items():
        if name in settable | TRANSPORT | MOVING or name.startswith("oauth_") or value in (None, {}):
            continue
        if name not in shown and name not in FIXED:
            refused[name[:LONGEST_NAMED]] = "This mirror does not pass on such a setting."
        elif not _agrees(value, shown.get(name)):
            refused[name[:LONGEST_NAMED]] = "This field cannot be changed."
    return refused


def _agrees(sent: Any, shown: Any) -> bool:
    """Return whether a value equals the one that the API shows; in a form, every value is text."""
    if sent is None or sent == shown:
        return True
    if isinstance(sent, Mapping):
        within = shown if isinstance(shown, Mapping) else {}
        return all(_agrees(value, within.get(name)) for name, value in sent.items() if name not in MOVING)
    if isinstance(shown, list):
        return sent in shown
    text = str(sent).strip().casefold()
    if isinstance(shown, bool):
        return text in (TRUE if shown else FALSE)
    if isinstance(shown, Mapping):  # only a part is given, such as a project by its key
        names = ("key", "slug", "username", "full_name", "name", "uuid")
        return text in {str(shown[name]).casefold() for name in names if shown.get(name)}
    return text == str("" if shown is None else shown).strip().casefold()


def _checked(name: str, value: Any) -> tuple[Any, str | None]:
    """Return the value of a setting, and what is wrong with it, if anything."""
    if not isinstance(value, str | int | float):
        return None, "This field is a text, or true or false."
    text = str(value)
    word = text.strip().lower()
    if name in FLAGS:
        return word in TRUE, None if word in TRUE | FALSE else "This field is true or false."
    if name in WORDS:
        known = not word or word in WORDS[name]
        return word or None, None if known else f"This field is one of {', '.join(WORDS[name])}."
    if name in ("name", "owner"):
        text = text.strip()
        if not text:
            return text, "This field is required."
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
            return text, "This field contains control characters."
    return text, f"This field is longer than {TEXTS[name]} characters." if len(text) > TEXTS[name] else None


def fork_policy_of(switches: Mapping[str, bool], policy: str | None) -> str | None:
    """Return the fork policy after the switches of API 1.0 are applied to `policy`; None without switches.

    A missing switch keeps its state. Raises ApiError 400 for forbidding private forks only.
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
            "no_private_forks: Bitbucket can forbid all forks or public forks, but not private forks only",
        )
    return FORK_POLICIES[2 if no_private else 1 if no_public else 0]
