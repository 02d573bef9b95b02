"""Who is asking, and what they may see.

Anonymous callers see public repositories. A living token sees everything. A trusted Basic user (an opt-in for
loopback) sees what that mirrored user owns or is a member of. SQL cannot be filtered by row, so tables and
SQL are closed to everybody without a token as soon as the file holds one private row.
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


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who asks. `name` says who in messages; `username` is the mirrored user they speak as, if any.

    `user_ids` are all rows of that name: a person and their namespace can be two.
    """

    name: str = "anonymous"
    token_id: int | None = None
    username: str | None = None
    user_ids: tuple[int, ...] = ()
    may_write: bool = False
    last_used_at: str | None = None

    @property
    def sees_all(self) -> bool:
        """Tell whether private rows are open to this caller."""
        return self.token_id is not None

    @property
    def known(self) -> bool:
        """Tell whether this is anybody at all."""
        return self.token_id is not None or bool(self.user_ids)


ANONYMOUS = Caller()


class Credentials(msgspec.Struct, frozen=True):
    """What a request says of its sender, not yet believed."""

    token: str | None = None
    username: str | None = None
    trusted: bool = False


NOTHING_SAID = Credentials()


def credentials(
    headers: Mapping[str, str], *, trust_basic_user: bool = False, local: bool = False
) -> Credentials:
    """Read the Authorization header; what cannot be read says nothing, and is no error."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return Credentials(token=rest)
    if scheme.lower() != "basic":
        return NOTHING_SAID
    try:
        user, _, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return NOTHING_SAID
    token = password if password.startswith(tokens.PREFIX) else None
    return Credentials(token=token, username=user or None, trusted=trust_basic_user and local)


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
    """Turn credentials into a caller; whoever cannot be recognised is anonymous."""
    if said.token:
        living = tokens.find(connection, said.token)
        if living is not None:
            return holder(connection, living, said.username)
    if said.trusted and said.username:
        ids = _user_ids(connection, said.username)
        if ids:
            return Caller(name=said.username, username=said.username, user_ids=ids)
    return ANONYMOUS


def holder(connection: sqlite3.Connection, living: tokens.LivingToken, claimed: str | None) -> Caller:
    """Make the caller of a token; one that speaks for nobody speaks for the Basic user name beside it.

    That gives nothing away: a token sees everything, whoever it speaks for.
    """
    username = living.user or claimed
    return Caller(
        name=living.name,
        token_id=living.id,
        username=username,
        user_ids=_user_ids(connection, username) if username else (),
        may_write=living.scope == "write",
        last_used_at=living.last_used_at,
    )


def _user_ids(connection: sqlite3.Connection, username: str) -> tuple[int, ...]:
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
