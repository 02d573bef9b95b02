"""Who sends a request, and what they may open.

Credentials and logins stand for callers and for Datasette's actors. This module adds `mirror_ids`, the
caller's rows of `users`, to each actor that it recognises, and `mirror_scope` if the token sees everything.
"""

import base64
import binascii
import contextlib
import sqlite3
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from datasette.utils import baseconv
from datasette.utils.asgi import Request
from itsdangerous import BadSignature

from mirror.queries.visibility import ANONYMOUS, Caller, hides
from mirror.serve.connections import is_local
from mirror.serve.exchange import served_of
from mirror.serve.guarded_database import has_mirror, mirror_named, mirrors
from mirror.serve.state import Served
from mirror.store import tokens
from mirror.times import from_text, to_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

# User names that Bitbucket lets clients send with a token. They belong to nobody.
NOBODY = frozenset({"x-token-auth", "x-bitbucket-api-token-auth"})

LOGIN_SECONDS = 30 * 86_400  # for how long a login is valid
USE_SAVED_EVERY = 60  # seconds between two writes of when a token was last used
ROOT = "root"
Actor = dict[str, Any]


class NotAccepted(Exception):
    """A credential is unknown, expired, revoked or unreadable."""


class Credentials(msgspec.Struct, frozen=True):
    """The credentials of a request, not checked yet.

    :param token: None if the request has none.
    :param trusted: the username counts even without a token.
    :param unused: the credentials are checked, but give no rights.
    """

    token: str | None = None
    username: str | None = None
    trusted: bool = False
    unused: bool = False


NO_CREDENTIALS = Credentials()


def credentials_in(
    headers: Mapping[str, str], *, trust_basic_user: bool = False, local: bool = False
) -> Credentials:
    """Read the Authorization header.

    A Basic username counts without a token if `trust_basic_user` is set and the request is `local`.
    """
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return Credentials(token=rest)
    if scheme.lower() != "basic":  # such as OAuth 1.0
        return NO_CREDENTIALS
    try:
        user, _, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return Credentials(token="")
    username = None if user.lower() in NOBODY else user or None
    return Credentials(token=password, username=username, trusted=trust_basic_user and local)


def recognise(connection: sqlite3.Connection, given: Credentials) -> Caller:
    """Turn credentials into a caller; raises NotAccepted."""
    caller = ANONYMOUS if given.token is None else _accepted(connection, given, given.token)
    return ANONYMOUS if given.unused else caller


def _accepted(connection: sqlite3.Connection, given: Credentials, token: str) -> Caller:
    """Find the caller of a token or of a trusted name; raises NotAccepted."""
    living = tokens.find(connection, token)
    if living is not None:
        return holder(connection, living, given.username)
    ids = _named(connection, given.username) if given.trusted and given.username else ()
    if not ids:
        raise NotAccepted
    return Caller(name=str(given.username), username=given.username, user_ids=ids)


def holder(connection: sqlite3.Connection, living: tokens.LivingToken, claimed: str | None) -> Caller:
    """Make the caller of a token.

    :param claimed: the user name of the Basic login. A token without a user speaks for it.
    """
    if living.user_id is not None:
        username, ids = living.user, tokens.rows_of(connection, living.user_id)
    else:  # that reveals nothing more, since such a token sees everything anyway
        username, ids = claimed, _named(connection, claimed) if claimed else ()
    return Caller(
        name=living.name,
        token_id=living.id,
        username=username,
        user_ids=ids,
        sees_all=living.user_id is None,
        may_write=living.scope == "write",
        last_used_at=living.last_used_at,
    )


def _named(connection: sqlite3.Connection, username: str) -> tuple[int, ...]:
    """Return the row ids of all users with a name, existing owners first."""
    rows = connection.execute(
        """SELECT id FROM users WHERE username = ? COLLATE NOCASE
           ORDER BY deleted_at IS NOT NULL, is_owner DESC, id""",
        (username,),
    )
    return tuple(row[0] for row in rows)


async def actor_of(datasette: "Datasette", request: Request) -> Actor | None:
    """Return the actor of a request, from its token or login; None leaves the request to other plugins.

    Raises NotAccepted for a credential that no mirror accepts.
    """
    given = sent_credentials(request)
    if given == NO_CREDENTIALS:
        cookie = request.cookies.get("ds_actor")
        return await _actor_of_login(datasette, served_of(request), cookie) if cookie else None
    attached = list(mirrors(datasette))
    for database in attached:
        with contextlib.suppress(NotAccepted):
            caller = await database.read(lambda connection: recognise(connection, given))
            await save_use_of(served_of(request), database, caller)
            return _actor(database, caller)
    if attached:
        raise NotAccepted
    return None


def sent_credentials(request: Request) -> Credentials:
    """Read the credentials of a request, by the settings of this server."""
    server, headers = served_of(request), request.headers
    if not server.config.trust_basic_user:
        return credentials_in(headers)
    client = request.scope.get("client")
    # Trusted are programs of the system user who runs this server.
    local = is_local(client, headers) and server.peers.is_ours(client, request.scope.get("server"))
    return credentials_in(headers, trust_basic_user=True, local=local)


def credentials_of(request: Request, parameters: Mapping[str, str]) -> Credentials:
    """Read a request's credentials for an API, where `access_token` may hold the token."""
    if "access_token" in parameters:
        return Credentials(token=parameters["access_token"])
    given = sent_credentials(request)
    # With `callback` (JSONP) the request may come from a script of another site, and the browser adds cached
    # Basic logins by itself. These are checked, but give no rights.
    if "callback" in parameters and request.headers.get("authorization", "").lower().startswith("basic"):
        return msgspec.structs.replace(given, unused=True)
    return given


def caller_in(connection: sqlite3.Connection, given: Credentials, login: int | None) -> Caller:
    """Return the caller of an API, by credentials or by the token of a login; raises NotAccepted."""
    if login is None:
        return recognise(connection, given)
    living = tokens.find_by_id(connection, login)
    return holder(connection, living, None) if living else ANONYMOUS


def login_cookie(datasette: "Datasette", database: "Database", token: tokens.LivingToken) -> str:
    """Return the signed cookie for a login with a token."""
    # It holds only the id of the token, so revoking the token ends its logins too.
    expires = baseconv.base62.encode(int(time.time()) + LOGIN_SECONDS)
    actor = {"id": token.name, "mirror_token": token.id, "mirror": database.name}
    return str(datasette.sign({"a": actor, "e": expires}, "actor"))


async def _actor_of_login(datasette: "Datasette", server: Served, cookie: str) -> Actor | None:
    """Return the actor of a login cookie of this plugin whose token is still valid."""
    try:
        decoded = datasette.unsign(cookie, "actor")
    except BadSignature:
        return None
    actor = decoded.get("a") if isinstance(decoded, dict) else None
    if not isinstance(actor, dict) or "mirror_token" not in actor:
        return None
    if not decoded.get("e") or time.time() > baseconv.base62.decode(decoded["e"]):
        return None
    database = mirror_named(datasette, actor.get("mirror", ""))
    if database is None:
        return None
    login = actor["mirror_token"]
    caller = await database.read(lambda connection: caller_in(connection, NO_CREDENTIALS, login))
    if caller.name != actor.get("id"):  # revoked, or another file has other tokens
        return None
    await save_use_of(server, database, caller)
    return _actor(database, caller)


def has_ended(actor: Actor) -> bool:
    """Return whether an actor is of a login that counts no more, but whose cookie Datasette accepts."""
    return "mirror_token" in actor and "mirror_ids" not in actor


def _actor(database: "Database", caller: Caller) -> Actor:
    actor: Actor = {
        "id": caller.name,
        "mirror": database.name,
        "mirror_user": caller.username,
        "mirror_ids": list(caller.user_ids),
    }
    if caller.token_id is not None:
        actor["mirror_token"] = caller.token_id
    if caller.sees_all:
        actor["mirror_scope"] = "write" if caller.may_write else "read"
    return actor


def caller_of(actor: Actor | None, database: str) -> Caller:
    """Return the caller that an actor is on a mirror. An actor may never write."""
    actor = actor or {}
    if actor.get("id") == ROOT and "mirror" not in actor:
        return Caller(name=ROOT, token_id=0, sees_all=True)  # the root of Datasette has no token
    if "mirror_ids" not in actor or actor.get("mirror") != database:
        return ANONYMOUS
    return Caller(
        name=str(actor["id"]),
        token_id=actor.get("mirror_token"),
        username=actor.get("mirror_user"),
        user_ids=tuple(actor["mirror_ids"]),
        sees_all="mirror_scope" in actor,
    )


async def save_use_of(server: Served, database: "Database", caller: Caller) -> None:
    """Save when a token was last used, at most once a minute, without waiting for another writer."""
    if caller.token_id is None or not database.is_mutable or server.config.read_only:
        return
    now, used = utc_now(), caller.last_used_at
    if used and (now - from_text(used)).total_seconds() < USE_SAVED_EVERY:
        return
    saved_at, key = server.use_saved_at, (database.name, caller.token_id)
    if time.monotonic() - saved_at.get(key, -1e9) < USE_SAVED_EVERY:
        return
    saved_at[key] = time.monotonic()
    token_id = caller.token_id

    def save(connection: sqlite3.Connection) -> None:
        try:
            tokens.save_use(connection, token_id, at=to_text(now))
        except sqlite3.OperationalError:
            saved_at.pop(key, None)  # a long write, or a read-only disk: the next request tries again

    await database.execute_write_fn(save, block=False)


class ActorVisitor:
    """The actor whose SQL a request runs; None for a stranger."""

    def __init__(self, actor: Actor | None) -> None:
        self._actor = actor

    def sees_all(self, database: str) -> bool:
        """Return whether the actor may see everything in a mirror."""
        return caller_of(self._actor, database).sees_all

    def lacks(self, connection: sqlite3.Connection, database: str) -> bool:
        """Return whether the mirror on a connection holds a row that is hidden from the actor."""
        return hides(connection, caller_of(self._actor, database))


STRANGER = ActorVisitor(None)


def may_download(datasette: "Datasette", actor: Actor | None, resource: Any) -> bool:
    """Return whether an actor may download a file: only if nothing in it is hidden from the actor."""
    return not isinstance(resource, str) or (
        mirror_named(datasette, resource) is None or ActorVisitor(actor).sees_all(resource)
    )


async def is_closed(datasette: "Datasette", actor: Actor | None, resource: Any) -> bool:
    """Return whether a database, or anything in it, is closed to an actor.

    All actions on a mirror get the same answer, including those of other plugins.
    """
    name = resource[0] if isinstance(resource, tuple) else resource
    if not isinstance(name, str):
        return False
    asking = ActorVisitor(actor)
    if (datasette.crossdb and name == "_memory") or await _is_copy(datasette, name):  # they hold all of it
        attached = [database.name for database in mirrors(datasette)] or [name]
        return not all(map(asking.sees_all, attached))
    database = mirror_named(datasette, name)
    if database is None or asking.sees_all(name):
        return False
    holds_tokens = isinstance(resource, tuple) and str(resource[1]).lower() in ("api_tokens", "writes")
    if holds_tokens or database.lacks_changes():
        return True
    return bool(await database.read(lambda connection: asking.lacks(connection, name)))


async def _is_copy(datasette: "Datasette", name: str) -> bool:
    """Return whether a database in memory is a mirror, as one that datasette-copy-to-memory made."""
    database = datasette.databases.get(name)
    return bool(database and database.memory_name and await database.execute_fn(has_mirror))
