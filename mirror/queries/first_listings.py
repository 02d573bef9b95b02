"""What has not been listed in full yet: there, a missing row does not prove that something is missing.

That is the case during the first sync of a file, of a workspace that was configured later, and where a first
listing failed. A workspace that was listed once stays listed, whatever happens later.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import timedelta

from mirror.queries.accounts import owners_named
from mirror.queries.file_state import file_state
from mirror.queries.rows import AccountRow, upstreams_of
from mirror.queries.visibility import Caller
from mirror.store.cursors import Cursors
from mirror.store.rows import fetch_value
from mirror.times import to_text, utc_now

UNUSED = timedelta(days=7)
"""After so long without a run, an upstream counts as removed from the configuration."""


def is_in_first_listing(connection: sqlite3.Connection, owner_id: int) -> bool:
    """Return whether the first listing of a workspace has not come to its end."""
    state = file_state(connection)
    if state.in_first_listing is None:
        state.in_first_listing = frozenset(_owners(connection))
    return owner_id in state.in_first_listing


def _owners(connection: sqlite3.Connection) -> Iterator[int]:
    for upstream_id in upstreams_of(connection):
        for uuid in Cursors(connection, upstream_id).first_listings():
            sql = "SELECT id FROM users WHERE upstream_id = ? AND uuid = ?"
            owner_id = fetch_value(connection, sql, (upstream_id, uuid))
            if owner_id is not None:
                yield owner_id


def lacks(
    connection: sqlite3.Connection, caller: Caller, name: str, owners: Iterable[AccountRow] | None = None
) -> bool:
    """Return whether more may belong to a name than has been listed; `owners` are its owners, if known."""
    if owners is None:
        owners = owners_named(connection, caller, name)
    found = [is_in_first_listing(connection, owner.id) for owner in owners]
    return any(found) if found else may_be_listed_later(connection, caller, name)


def may_be_listed_later(connection: sqlite3.Connection, caller: Caller, name: str) -> bool:
    """Return whether an unknown name may be that of a workspace that is not listed yet.

    That is any name until the first round of listings has ended. Callers who see everything also learn which
    workspaces could not be read later, unless the upstream said that there is none.
    """
    if any(_is_first_round(connection, upstream_id) for upstream_id in upstreams_of(connection)):
        return True
    sql = """SELECT 1 FROM sync_failures WHERE kind = 'workspace' AND subject = ? COLLATE NOCASE
        AND status IS NOT 404"""
    return caller.sees_all and fetch_value(connection, sql, (name,)) is not None


def _is_first_round(connection: sqlite3.Connection, upstream_id: int) -> bool:
    found = Cursors(connection, upstream_id).round.read()
    if found is None or found.listed is not None:
        return False
    sql = "SELECT 1 FROM sync_runs WHERE upstream_id = ? AND state IN ('complete', 'incomplete') LIMIT 1"
    if fetch_value(connection, sql, (upstream_id,)) is not None:
        return False
    sql = "SELECT 1 FROM sync_runs WHERE upstream_id = ? AND (state = 'running' OR finished_at > ?)"
    return fetch_value(connection, sql, (upstream_id, to_text(utc_now() - UNUSED))) is not None
