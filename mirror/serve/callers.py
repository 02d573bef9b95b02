"""Who is asking, and what they may see.

A caller without credentials sees public repositories. A token without a user sees everything. A token with
a user, and a trusted Basic user (an opt-in for this machine), see what that mirrored user owns or is a member
of. A credential that is not accepted is an error, never a caller without credentials. SQL cannot be filtered
by row, so tables and SQL are closed to callers from whom the file hides a row.
"""

import base64
import binascii
import ipaddress
import sqlite3
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mirror.serve import tokens

PROXIES_SAY = frozenset({"x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via"})


class NotAccepted(Exception):
    """A credential that is unknown, expired, revoked or cannot be read."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who asks. `name` says who in messages; `username` is the mirrored user they speak as, if any.

    `sees_all` tells whether nothing is hidden from them. Otherwise they see the private repositories of the
    rows `user_ids` of `users`, and of their workspaces: a person and their namespace can be two rows.
    """

    name: str = "anonymous"
    token_id: int | None = None
    username: str | None = None
    user_ids: tuple[int, ...] = ()
    sees_all: bool = False
    may_write: bool = False
    last_used_at: str | None = None

    @property
    def known(self) -> bool:
        """Tell whether a credential was accepted."""
        return self.token_id is not None or bool(self.user_ids)


ANONYMOUS = Caller()


class Credentials(msgspec.Struct, frozen=True):
    """What a request says of its sender, not yet believed; `token` is None where it says nothing.

    `unused` ones are checked, but give their caller nothing.
    """

    token: str | None = None
    username: str | None = None
    trusted: bool = False
    unused: bool = False


NOTHING_SAID = Credentials()


def credentials(
    headers: Mapping[str, str], *, trust_basic_user: bool = False, local: bool = False
) -> Credentials:
    """Read the Authorization header; schemes other than Basic and Bearer, like OAuth 1.0, say nothing."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return Credentials(token=rest)
    if scheme.lower() != "basic":
        return NOTHING_SAID
    try:
        user, _, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return Credentials(token="")
    return Credentials(token=password, username=user or None, trusted=trust_basic_user and local)


def is_local(client: Any, headers: Mapping[str, str]) -> bool:
    """Tell whether a request was sent by this machine, to this machine, without a proxy between.

    The Host header is looked at because a foreign page can have its own name point here (DNS rebinding).
    """
    if not client or not PROXIES_SAY.isdisjoint(headers):
        return False
    try:
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:  # half a bracket
        return False
    return is_loopback(str(client[0])) and is_loopback(host)


def is_loopback(address: str) -> bool:
    """Tell whether an address, or the name localhost, is this machine alone."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


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
    """Find all rows of a name."""
    rows = connection.execute(
        """SELECT id FROM users WHERE username = ? COLLATE NOCASE
           ORDER BY deleted_at IS NOT NULL, is_owner DESC, id""",
        (username,),
    )
    return tuple(row[0] for row in rows)


def holds_private(connection: sqlite3.Connection) -> bool:
    """Tell whether the file holds anything that is not for everybody; tombstones count.

    A repository that was made public counts too: what changed in it before that is on record.
    """
    return bool(
        connection.execute(
            """SELECT EXISTS (SELECT 1 FROM repositories WHERE is_private = 1)
                   OR EXISTS (SELECT 1 FROM changes WHERE kind = 'made_public')"""
        ).fetchone()[0]
    )
