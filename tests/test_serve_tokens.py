"""Local API tokens: shown once, stored as hashes, revoked by name."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from fixtures_db import FixtureDb, owner

from mirror.errors import ConfigError, NotFound
from mirror.store import tokens
from mirror.times import utc_now


def test_a_token_is_stored_as_a_hash(public_db: FixtureDb) -> None:
    """The file does not contain anything that gives access."""
    store = public_db.store
    token = tokens.create(store, "laptop", "read")
    found = tokens.find(store.connection, token)
    assert found is not None
    assert (found.name, found.scope) == ("laptop", "read")
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert token.encode() not in (public_db.path).read_bytes()
    assert tokens.find(store.connection, tokens.hashed(token)) is None


@pytest.mark.parametrize(("written", "read"), [("read", "read"), ("write", "write"), ("read,write", "write")])
def test_scopes_are_read_in_every_usual_form(written: str, read: str) -> None:
    """Write includes read."""
    assert tokens.read_scope(written) == read


@pytest.mark.parametrize("scope", ["", "admin", "read,admin"])
def test_an_unknown_scope_is_refused(scope: str) -> None:
    """A misspelt scope must not make a token with other rights."""
    with pytest.raises(ConfigError, match="is not a scope"):
        tokens.read_scope(scope)


def test_revoked_and_expired_tokens_are_refused(public_db: FixtureDb) -> None:
    """At once."""
    store = public_db.store
    revoked = tokens.create(store, "a", "read")
    expired = tokens.create(store, "b", "read", utc_now() - timedelta(seconds=1))
    living = tokens.create(store, "c", "read", utc_now() + timedelta(hours=1))
    tokens.revoke(store, "a")
    found = [tokens.find(store.connection, token) for token in (revoked, expired, living)]
    assert [one and one.name for one in found] == [None, None, "c"]


def test_tokens_are_listed_with_their_user_and_revoked_by_number(public_db: FixtureDb) -> None:
    """The list has what is needed to revoke one."""
    store = public_db.store
    tokens.create(store, "his", "write", user="JESPERN")
    (listed,) = tokens.listed(store.connection)
    assert (listed.name, listed.user, listed.scope, listed.revoked_at) == ("his", "jespern", "write", None)
    tokens.revoke(store, str(listed.id))
    assert tokens.listed(store.connection)[0].revoked_at is not None
    with pytest.raises(NotFound, match="no valid token"):
        tokens.revoke(store, "his")


def test_a_name_wins_over_a_number_when_revoking(public_db: FixtureDb) -> None:
    """A token may have another one's number as its name."""
    store = public_db.store
    for name in ("a", "1"):
        tokens.create(store, name, "read")
    tokens.revoke(store, "1")
    assert [token.revoked_at is None for token in tokens.listed(store.connection)] == [True, False]
    tokens.revoke(store, "1")
    assert [token.revoked_at is None for token in tokens.listed(store.connection)] == [False, False]
    for name in ("1", "9" * 30, "²"):
        with pytest.raises(NotFound, match="no valid token"):
            tokens.revoke(store, name)


def test_a_name_is_free_again_once_its_token_is_revoked(public_db: FixtureDb) -> None:
    """Two valid tokens of one name could not be told apart."""
    store = public_db.store
    tokens.create(store, "laptop")
    with pytest.raises(ConfigError, match="already"):
        tokens.create(store, "laptop")
    tokens.revoke(store, "laptop")
    assert tokens.create(store, "laptop").startswith("mir_")


@pytest.mark.parametrize(
    "name", ["a\nb", "a\r\nb", "a\u2028b", "\x1b[31mred", "a\0", "\u202eabc", "\udcff", "a" * 101]
)
def test_a_name_that_breaks_a_list_is_refused(public_db: FixtureDb, name: str) -> None:
    """Line ends, control characters, what is invisible, and what has no end."""
    with pytest.raises(ConfigError, match="one line of at most 100 visible characters"):
        tokens.create(public_db.store, name)
    assert tokens.create(public_db.store, " Büro 🐍 ")
    assert [token.name for token in tokens.listed(public_db.store.connection)] == ["Büro 🐍"]


def test_a_token_for_an_unknown_user_is_refused(public_db: FixtureDb) -> None:
    """The user must be in the file."""
    store = public_db.store
    with pytest.raises(NotFound, match="no user 'nobody'"):
        tokens.create(store, "x", user="nobody")


def test_a_name_of_several_users_is_refused(public_db: FixtureDb) -> None:
    """The uuid identifies the user; a person and their namespace are one."""
    person, space = owner("bob", uuid="{bob-himself}"), owner("bob", uuid="{bob-space}")
    public_db.members(space, (person,))
    public_db.store.connection.execute("UPDATE members SET permission = 'member'")
    with pytest.raises(ConfigError, match=r"\{bob-himself\}"):
        tokens.create(public_db.store, "x", user="bob")
    tokens.create(public_db.store, "by uuid", user="{bob-himself}")
    public_db.store.connection.execute("UPDATE members SET permission = 'owner'")
    tokens.create(public_db.store, "owner", user="bob")
    assert [one.user for one in tokens.listed(public_db.store.connection)] == ["bob", "bob"]


def test_a_busy_file_does_not_make_a_token_unknown(public_db: FixtureDb) -> None:
    """Unlike one without a table for tokens, it fails: the request is repeated, not refused."""
    token = tokens.create(public_db.store, "reader", "read")
    with closing(sqlite3.connect(":memory:")) as without_tables:
        assert tokens.find(without_tables, token) is None
    with closing(sqlite3.connect(public_db.path, timeout=0)) as connection:
        public_db.store.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        with public_db.store.transaction() as writing:
            writing.execute("UPDATE api_tokens SET name = name")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                tokens.find(connection, token)
