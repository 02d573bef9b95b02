"""Datasette's side of privacy: who a request's actor is, and what of a mirror it may open.

An actor with `mirror_ids` was recognised by this module in this very request: they are the rows of the user
that it speaks as. `mirror_scope` is added for a token that sees everything. A login cookie carries neither,
only the number of its token, so a revoked token ends its logins too.
"""

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from datasette.utils import baseconv
from datasette.utils.asgi import Request
from itsdangerous import BadSignature

from mirror.serve import callers, lookups, tokens
from mirror.serve.callers import NotAccepted
from mirror.serve.mirrors import mirror_named, mirrors, served
from mirror.times import from_text, to_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

LOGIN_SECONDS = 30 * 86_400
USE_NOTED_EVERY = 60
ROOT = "root"

Actor = dict[str, Any]


async def actor_of(datasette: "Datasette", request: Request) -> Actor | None:
    """Return the actor behind a request's token or login, None where another plugin may know it.

    Raises NotAccepted for a credential that no mirror accepts.
    """
    said = said_by(datasette, request)
    if said == callers.NOTHING_SAID:
        cookie = request.cookies.get("ds_actor")
        return await _actor_of_login(datasette, cookie) if cookie else None
    attached = list(mirrors(datasette))
    for database in attached:
        with contextlib.suppress(NotAccepted):
            caller = await database.execute_fn(lambda connection: callers.recognise(connection, said))
            await note_use(datasette, database, caller)
            return _actor(database, caller)
    if attached:
        raise NotAccepted
    return None


def said_by(datasette: "Datasette", request: Request) -> callers.Credentials:
    """Read a request's credentials under this server's settings."""
    config = served(datasette).config
    headers = request.headers
    return callers.credentials(
        headers,
        trust_basic_user=config.trust_basic_user,
        local=config.trust_basic_user and _is_ours(datasette, request),
    )


def _is_ours(datasette: "Datasette", request: Request) -> bool:
    """Tell whether a request was sent by a program of the system user that runs this server."""
    client, server = request.scope.get("client"), request.scope.get("server")
    return callers.is_local(client, request.headers) and served(datasette).peers.is_ours(client, server)


def login_cookie(datasette: "Datasette", database: "Database", token: tokens.LivingToken) -> str:
    """Sign the cookie of somebody who showed a token."""
    expires = baseconv.base62.encode(int(time.time()) + LOGIN_SECONDS)
    actor = {"id": token.name, "mirror_token": token.id, "mirror": database.name}
    return str(datasette.sign({"a": actor, "e": expires}, "actor"))


async def _actor_of_login(datasette: "Datasette", cookie: str) -> Actor | None:
    """Recognise a login cookie of ours whose token still lives."""
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

    def read(connection: sqlite3.Connection) -> callers.Caller | None:
        living = tokens.find_by_id(connection, token_id)
        return callers.holder(connection, living, None) if living else None

    caller = await database.execute_fn(read)
    if caller is None:
        return None
    await note_use(datasette, database, caller)
    return _actor(database, caller)


def _actor(database: "Database", caller: callers.Caller) -> Actor:
    """Write a recognised caller as Datasette knows actors."""
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


def caller_of(actor: Actor | None, database: str) -> callers.Caller:
    """Turn the actor of a request back into a caller of a mirror of that name; it never writes."""
    actor = actor or {}
    if actor.get("id") == ROOT and "mirror" not in actor:
        return callers.Caller(name=ROOT, token_id=0, sees_all=True)  # Datasette's own root has no token
    if "mirror_ids" not in actor or actor.get("mirror") != database:
        return callers.ANONYMOUS
    return callers.Caller(
        name=str(actor["id"]),
        token_id=actor.get("mirror_token"),
        username=actor.get("mirror_user"),
        user_ids=tuple(actor["mirror_ids"]),
        sees_all="mirror_scope" in actor,
    )


class Visitor:
    """Whose SQL a request runs: an actor, None for a stranger."""

    def __init__(self, actor: Actor | None) -> None:
        self._actor = actor

    def sees_all(self, database: str) -> bool:
        """Tell whether nothing of a mirror is hidden from them."""
        return caller_of(self._actor, database).sees_all

    def lacks(self, connection: sqlite3.Connection, database: str) -> bool:
        """Tell whether the mirror on a connection holds a row that is hidden from them."""
        return lookups.hides(connection, caller_of(self._actor, database))


def may_download(datasette: "Datasette", actor: Actor | None, resource: Any) -> bool:
    """Tell whether an actor may have a file as it is: one from whom nothing in it is hidden."""
    return not isinstance(resource, str) or (
        mirror_named(datasette, resource) is None or Visitor(actor).sees_all(resource)
    )


async def is_closed(datasette: "Datasette", actor: Actor | None, resource: Any) -> bool:
    """Tell whether an actor must not open a database or anything in it.

    Every action on a mirror is asked about alike, those of other plugins too. The in-memory database of
    `--crossdb` reaches into all files: it is for those alone from whom no mirror hides anything.
    """
    name = resource[0] if isinstance(resource, tuple) else resource
    if not isinstance(name, str):
        return False
    asking = Visitor(actor)
    if datasette.crossdb and name == "_memory":
        return not all(asking.sees_all(database.name) for database in mirrors(datasette))
    database = mirror_named(datasette, name)
    if database is None or asking.sees_all(name):
        return False
    if _is_accounts(resource) or database.lacks_changes():
        return True
    return bool(await database.execute_fn(lambda connection: asking.lacks(connection, name)))


def _is_accounts(resource: Any) -> bool:
    """Tell whether the tokens are asked for, or what was written with them: no concern of anybody else."""
    return isinstance(resource, tuple) and str(resource[1]).lower() in ("api_tokens", "writes")


async def note_use(datasette: "Datasette", database: "Database", caller: callers.Caller) -> None:
    """Record when a token was last used, once a minute, without waiting for whoever writes just now."""
    now = utc_now()
    if caller.token_id is None or not database.is_mutable:
        return
    used = caller.last_used_at
    if used and (now - from_text(used)).total_seconds() < USE_NOTED_EVERY:
        return
    noted, key = served(datasette).use_noted, (database.name, caller.token_id)
    if time.monotonic() - noted.get(key, -1e9) < USE_NOTED_EVERY:
        return
    noted[key] = time.monotonic()
    token_id = caller.token_id

    def note(connection: sqlite3.Connection) -> None:
        try:
            with connection:
                connection.execute(
                    "UPDATE api_tokens SET last_used_at = ? WHERE id = ?", (to_text(now), token_id)
                )
        except sqlite3.OperationalError:
            noted.pop(key, None)  # a long write or a read-only disk: the next request tries again

    await database.execute_write_fn(note, block=False)
