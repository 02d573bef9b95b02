"""Local API tokens: create, list, revoke and find them; the file has only their hashes."""

import hashlib
import secrets
import sqlite3
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from mirror.errors import ConfigError, NotFound
from mirror.readable import visible
from mirror.store.database import Store
from mirror.store.rows import fetch, fetch_dicts, fetch_one
from mirror.times import to_text, utc_now

PREFIX = "mir_"
LONGEST_NAME = 100
TokenScope = Literal["read", "write"]


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret and hash. `user` is the account that it acts for."""

    id: int
    name: str
    scope: TokenScope
    user: str | None
    created_at: str
    last_used_at: str | None
    expires_at: str | None
    revoked_at: str | None


def create(
    store: Store, name: str, scope: str = "read", expires: datetime | None = None, *, user: str | None = None
) -> str:
    """Create a token and return it; it cannot be read again. `scope` is read, write, or ``read,write``.

    Raises ConfigError for an invalid scope or name and one in use, NotFound for a user that is not mirrored.
    """
    name = name.strip()
    if not name:
        raise ConfigError("a token needs a name, so that it can be revoked")
    if len(name.splitlines()) > 1 or visible(name) != name or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"the name of a token is one line of at most {LONGEST_NAME} visible characters; choose another"
        )
    token = PREFIX + secrets.token_urlsafe(32)
    moments = (to_text(utc_now()), to_text(expires) if expires else None)
    with store.transaction() as connection:
        if store.row("SELECT 1 FROM api_tokens WHERE name = ? AND revoked_at IS NULL", (name,)):
            raise ConfigError(f"a token {name!r} already exists; revoke it, or choose another name")
        connection.execute(
            """INSERT INTO api_tokens (name, user_id, token_hash, scope, created_at, expires_at)
               VALUES (?, ?, ?, ?, ?, ?)""",
            (name, _user_id(store, user), hashed(token), read_scope(scope), *moments),
        )
    return token


def listed(connection: sqlite3.Connection) -> list[Token]:
    """List all tokens, revoked ones too, oldest first."""
    found = fetch_dicts(
        connection,
        """SELECT t.id, t.name, t.scope, u.username AS user, t.created_at, t.last_used_at, t.expires_at,
               t.revoked_at FROM api_tokens t LEFT JOIN users u ON u.id = t.user_id ORDER BY t.id""",
    )
    return [Token(**row) for row in found]


def revoke(store: Store, name: str) -> None:
    """Revoke the token with this name or number; raises NotFound."""
    with store.transaction() as connection:
        revoked = connection.execute(
            """UPDATE api_tokens SET revoked_at = :at WHERE id = (
                   SELECT id FROM api_tokens
                   WHERE (name = :name OR CAST(id AS TEXT) = :name) AND revoked_at IS NULL
                   ORDER BY name = :name DESC LIMIT 1)""",
            {"name": name, "at": to_text(utc_now())},
        )
        if not revoked.rowcount:
            raise NotFound(f"no valid token is called {name!r}; `mirror token list` lists all")


def revoke_all(connection: sqlite3.Connection, *, at: str) -> int:
    """Revoke all valid tokens; return their number."""
    return connection.execute("UPDATE api_tokens SET revoked_at = ? WHERE revoked_at IS NULL", (at,)).rowcount


def retire_numbers(connection: sqlite3.Connection, *, up_to: int, at: str) -> None:
    """Reserve the numbers up to this one with a revoked token, so that no new token gets them."""
    # A login holds the number and the name of its token, also of one that the copy does not know.
    connection.execute(
        """INSERT OR IGNORE INTO api_tokens (id, name, token_hash, scope, created_at, revoked_at)
           VALUES (?, '(a copy was restored)', ?, 'read', ?, ?)""",
        (up_to, hashed(secrets.token_urlsafe(32)), at, at),
    )


def revoke_like(connection: sqlite3.Connection, other: sqlite3.Connection) -> None:
    """Revoke the tokens that another file has revoked."""
    connection.executemany(
        "UPDATE api_tokens SET revoked_at = ? WHERE token_hash = ? AND revoked_at IS NULL",
        other.execute("SELECT revoked_at, token_hash FROM api_tokens WHERE revoked_at IS NOT NULL"),
    )


def save_use(connection: sqlite3.Connection, token_id: int, *, at: str) -> None:
    """Record when a token was last used; raises OperationalError while another process writes."""
    with connection:
        connection.execute("UPDATE api_tokens SET last_used_at = ? WHERE id = ?", (at, token_id))


def read_scope(text: str) -> TokenScope:
    """Parse a scope as people write it; raises ConfigError."""
    parts = {part.strip() for part in text.split(",") if part.strip()}
    if not parts or parts - {"read", "write"}:
        raise ConfigError(f"{text!r} is not a scope; it is read, write, or read,write")
    return "write" if "write" in parts else "read"


def hashed(token: str) -> str:
    """Return the hash of a token, as the file stores it."""
    # A token has 256 random bits and cannot be guessed, so its hash needs no salt and no stretching.
    return hashlib.sha256(token.encode()).hexdigest()


_LIVING = """SELECT t.id, t.name, t.scope, t.user_id, u.username, t.last_used_at
    FROM api_tokens t LEFT JOIN users u ON u.id = t.user_id
    WHERE t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?) AND"""


class LivingToken(msgspec.Struct, frozen=True):
    """A valid token; `user_id` is the row of the mirrored user that it acts for, if any."""

    id: int
    name: str
    scope: TokenScope
    user_id: int | None
    user: str | None
    last_used_at: str | None


def find(connection: sqlite3.Connection, token: str) -> LivingToken | None:
    """Find the token of a request; None if it is unknown, revoked or expired."""
    if not token.startswith(PREFIX) or len(token) > 200:
        return None
    return _living(connection, "t.token_hash = ?", hashed(token))


def find_by_id(connection: sqlite3.Connection, token_id: int) -> LivingToken | None:
    """Find the token of a login; None if it is revoked or expired."""
    return _living(connection, "t.id = ?", token_id)


def _living(connection: sqlite3.Connection, condition: str, value: str | int) -> LivingToken | None:
    """Read one living token; a file from before there were tokens has none."""
    try:
        return fetch_one(LivingToken, connection, f"{_LIVING} {condition}", (to_text(utc_now()), value))
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise  # a busy file must not make a valid token unknown


def rows_of(connection: sqlite3.Connection, user_id: int) -> tuple[int, ...]:
    """Find the rows of a user: its own, and the namespace or the person of the same name, with or without ~.

    If several upstreams are one server, as for workspaces with credentials of their own, the user may have
    rows in each.
    """
    # Members choose their names, so a name alone proves nothing: the person must own the namespace.
    owns = """EXISTS (SELECT 1 FROM members
        WHERE workspace_id = {}.id AND user_id = {}.id AND permission = 'owner')"""
    found = fetch(
        connection,
        f"""WITH same AS (SELECT o.id, o.username, o.upstream_id
                FROM users t JOIN upstreams p ON p.id = t.upstream_id JOIN upstreams q ON q.url = p.url
                    JOIN users o ON o.upstream_id = q.id AND o.uuid = t.uuid
                WHERE t.id = :id)
            SELECT id FROM same WHERE id <> :id UNION SELECT o.id FROM same t JOIN users o
                ON o.username COLLATE NOCASE IN (t.username, '~' || t.username, ltrim(t.username, '~'))
                AND +o.upstream_id = t.upstream_id
            WHERE o.id <> :id AND ({owns.format("t", "o")} OR {owns.format("o", "t")})""",
        {"id": user_id},
    )
    return (user_id, *(row_id for (row_id,) in found))


class _TokenUser(NamedTuple):
    id: int
    uuid: str
    upstream: str


def _user_id(store: Store, user: str | None) -> int | None:
    """Find the mirrored user that a token is to act for, by name or uuid.

    Raises NotFound, and ConfigError if several users have the name.
    """
    if user is None:
        return None
    found = store.rows(
        """SELECT u.id, u.uuid, p.name FROM users u JOIN upstreams p ON p.id = u.upstream_id
           WHERE u.username = ? COLLATE NOCASE OR u.uuid = ? ORDER BY u.is_owner DESC, u.id""",
        (user, user),
        _TokenUser,
    )
    if not found:
        raise NotFound(f"the mirror holds no user {user!r}")
    own = rows_of(store.connection, found[0].id)
    if any(row.id not in own for row in found):
        each = ", ".join(f"{row.uuid} ({row.upstream})" for row in found)
        raise ConfigError(f"several users are called {user!r}; give the uuid of one as --user: {each}")
    return found[0].id
