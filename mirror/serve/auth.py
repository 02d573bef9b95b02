"""Who asks: credentials and logins, the callers and Datasette actors behind them, what they may open.

An actor with `mirror_ids` was recognised by this module in the same request; these are the rows of `users`
that it speaks as. A token that sees everything adds `mirror_scope`. A login cookie has neither, only the id
of its token, so revoking the token ends its logins too.
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

from mirror.queries.caller import ANONYMOUS, Caller
from mirror.serve.database import mirror_named, mirrors
from mirror.serve.exchange import served_of
from mirror.serve.socket_owner import is_local
from mirror.serve.state import Served
from mirror.store import tokens
from mirror.times import from_text, to_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database


class NotAccepted(Exception):
    """A credential that is unknown, expired, revoked or cannot be read."""


class Credentials(msgspec.Struct, frozen=True):
    """The credentials of a request, not checked yet; `token` is None where there are none.

    `trusted` lets the username count without a token. `unused` ones are checked, but give no rights.
    """

    token: str | None = None
    username: str | None = None
    trusted: bool = False
    unused: bool = False


NO_CREDENTIALS = Credentials()


def credentials(
    headers: Mapping[str, str], *, trust_basic_user: bool = False, local: bool = False
) -> Credentials:
    """Read the Authorization header; schemes other than Basic and Bearer, like OAuth 1.0, are ignored.

    A Basic username counts without a token where `trust_basic_user` is set and the request is `local`.
    """
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return Credentials(token=rest)
    if scheme.lower() != "basic":
        return NO_CREDENTIALS
    try:
        user, _, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return Credentials(token="")
    return Credentials(token=password, username=user or None, trusted=trust_basic_user and local)


def recognise(connection: sqlite3.Connection, said: Credentials) -> Caller:
    """Turn credentials into a caller; raises NotAccepted."""
    caller = ANONYMOUS if said.token is None else _accepted(connection, said, said.token)
    return ANONYMOUS if said.unused else caller


def _accepted(connection: sqlite3.Connection, said: Credentials, token: str) -> Caller:
    """Find the caller whose token or trusted name was sent; raises NotAccepted."""
    living = tokens.find(connection, token)
    if living is not None:
        return holder(connection, living, said.username)
    ids = _named(connection, said.username) if said.trusted and said.username else ()
    if not ids:
        raise NotAccepted
    return Caller(name=str(said.username), username=said.username, user_ids=ids)


def holder(connection: sqlite3.Connection, living: tokens.LivingToken, claimed: str | None) -> Caller:
    """Make the caller of a token; one without a user speaks for the Basic user name beside it.

    That reveals nothing more: a token without a user sees everything.
    """
    if living.user_id is not None:
        username, ids = living.user, tokens.rows_of(connection, living.user_id)
    else:
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
    """Return the ids of all users of a name, living owners first."""
    rows = connection.execute(
        """SELECT id FROM users WHERE username = ? COLLATE NOCASE
           ORDER BY deleted_at IS NOT NULL, is_owner DESC, id""",
        (username,),
    )
    return tuple(row[0] for row in rows)


LOGIN_SECONDS = 30 * 86_400
USE_NOTED_EVERY = 60
ROOT = "root"

Actor = dict[str, Any]


async def actor_of(datasette: "Datasette", request: Request) -> Actor | None:
    """Return the actor of a request by its token or login; None leaves the request to other plugins.

    Raises NotAccepted for a credential that no mirror accepts.
    """
    said = said_by(request)
    if said == NO_CREDENTIALS:
        cookie = request.cookies.get("ds_actor")
        return await _actor_of_login(datasette, served_of(request), cookie) if cookie else None
    attached = list(mirrors(datasette))
    for database in attached:
        with contextlib.suppress(NotAccepted):
            caller = await database.execute_fn(lambda connection: recognise(connection, said))
            await note_use(served_of(request), database, caller)
            return _actor(database, caller)
    if attached:
        raise NotAccepted
    return None


def said_by(request: Request) -> Credentials:
    """Read a request's credentials under this server's settings."""
    trusting = served_of(request).config.trust_basic_user
    return credentials(
        request.headers, trust_basic_user=trusting, local=trusting and _is_of_this_user(request)
    )


def _is_of_this_user(request: Request) -> bool:
    """Tell whether a request was sent by a program of the system user that runs this server."""
    client, server = request.scope.get("client"), request.scope.get("server")
    return is_local(client, request.headers) and served_of(request).peers.is_ours(client, server)


def credentials_of(request: Request, parameters: Mapping[str, str]) -> Credentials:
    """Read a request's credentials for an API, where `access_token` may hold the token.

    A script on a page of another site (JSONP, with `callback`) gets nothing by a password that the browser
    sends along: such credentials are checked, and then not used.
    """
    if "access_token" in parameters:
        return Credentials(token=parameters["access_token"])
    said = said_by(request)
    if "callback" in parameters and request.headers.get("authorization", "").lower().startswith("basic"):
        return msgspec.structs.replace(said, unused=True)
    return said


def login_of(request: Request, database: "Database") -> int | None:
    """Return the token behind a login cookie that the plugin recognised in this request; for reading only."""
    return caller_of(request.actor, database.name).token_id or None


def caller_in(connection: sqlite3.Connection, said: Credentials, login: int | None) -> Caller:
    """Recognise who asks an API, by credentials or by the token behind a login; raises NotAccepted."""
    if login is None:
        return recognise(connection, said)
    living = tokens.find_by_id(connection, login)
    return holder(connection, living, None) if living else ANONYMOUS


def login_cookie(datasette: "Datasette", database: "Database", token: tokens.LivingToken) -> str:
    """Return the signed cookie for a login with a token."""
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
    token_id = actor["mirror_token"]

    def read(connection: sqlite3.Connection) -> Caller | None:
        living = tokens.find_by_id(connection, token_id)
        return holder(connection, living, None) if living else None

    caller = await database.execute_fn(read)
    if caller is None or caller.name != actor.get("id"):  # another file has other tokens
        return None
    await note_use(server, database, caller)
    return _actor(database, caller)


def _actor(database: "Database", caller: Caller) -> Actor:
    """Return a caller as a Datasette actor."""
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
    """Return the caller of a mirror behind an actor; such a caller never writes."""
    actor = actor or {}
    if actor.get("id") == ROOT and "mirror" not in actor:
        return Caller(name=ROOT, token_id=0, sees_all=True)  # Datasette's own root has no token
    if "mirror_ids" not in actor or actor.get("mirror") != database:
        return ANONYMOUS
    return Caller(
        name=str(actor["id"]),
        token_id=actor.get("mirror_token"),
        username=actor.get("mirror_user"),
        user_ids=tuple(actor["mirror_ids"]),
        sees_all="mirror_scope" in actor,
    )


async def note_use(server: Served, database: "Database", caller: Caller) -> None:
    """Save when a token was last used, at most once a minute, without waiting for another writer."""
    now = utc_now()
    if caller.token_id is None or not database.is_mutable:
        return
    used = caller.last_used_at
    if used and (now - from_text(used)).total_seconds() < USE_NOTED_EVERY:
        return
    noted, key = server.use_saved_at, (database.name, caller.token_id)
    if time.monotonic() - noted.get(key, -1e9) < USE_NOTED_EVERY:
        return
    noted[key] = time.monotonic()
    token_id = caller.token_id

    def note(connection: sqlite3.Connection) -> None:
        try:
            tokens.save_use(connection, token_id, at=to_text(now))
        except sqlite3.OperationalError:
            noted.pop(key, None)  # a long write or a read-only disk: the next request tries again

    await database.execute_write_fn(note, block=False)
