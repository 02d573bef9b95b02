"""Reads of a repository at a time in the past, by `Accept-Datetime` (RFC 7089).

Each address is its own TimeGate, and mementos have no addresses of their own: pattern 1.3 of the RFC. The
reader answers from a copy that holds the repository as it was (`queries/past.py`).
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

import msgspec

from mirror.addresses import PERSONAL
from mirror.errors import NotFound, NotKnownThen
from mirror.queries.accounts import owner_named
from mirror.queries.past import past_copy, past_named, past_of
from mirror.queries.past_state import Past
from mirror.queries.repositories import repository_in_workspace
from mirror.queries.visibility import Caller
from mirror.serve.api2 import query_language
from mirror.serve.exchange import Answer, ApiError
from mirror.serve.unmirrored import must_be_listed
from mirror.times import from_text, to_text

ACCEPT = "Accept-Datetime"
NEXT_LOOK_HEADER = "X-Mirror-Next-Look"  # when the mirror next looked, after the look that an answer shows


class Memento(NamedTuple):
    """A repository at a time, a mirror that holds it, and the names of the path as they were then."""

    past: Past
    copy: sqlite3.Connection
    names: tuple[str, ...]


def moment_asked(given: str, now: datetime) -> str:
    """Read the time that a request names, at most `now`; raises ApiError 400 for another text."""
    try:
        moment = parsedate_to_datetime(given)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ApiError(
            400, f"Invalid {ACCEPT}", detail="Write it as Tue, 03 Nov 2026 10:00:00 GMT."
        ) from None
    # Dates in headers are whole seconds, so a look within that second counts: a request for the Memento-
    # Datetime of an answer gets the same answer. A future time gets the latest look (4.5.3 of the RFC).
    return to_text(min(moment.replace(microsecond=999_999), now))


def answered_at(
    connection: sqlite3.Connection,
    caller: Caller,
    names: tuple[str, ...],
    at: str,
    answer: Callable[[Memento], Answer],
) -> Answer:
    """Answer for a time in the past; raises ApiError. `names` begin with owner and slug."""
    with _memento(connection, caller, names, at) as found:
        try:
            return _with_memento_headers(answer(found), found.past)
        except ApiError as error:
            # Before branches and tags were first listed, their first listing is served.
            first = found.past.ref_looks
            if error.status != 503 or first.before is not None or first.after is None:
                raise
    with _memento(connection, caller, names, first.after) as found:
        return _with_memento_headers(answer(found), found.past)


@contextmanager
def _memento(
    connection: sqlite3.Connection, caller: Caller, names: tuple[str, ...], at: str
) -> Iterator[Memento]:
    """Yield the repository of a path as it was; raises ApiError 404, or 503 if it may not be listed yet."""
    try:
        try:
            past = _past(connection, caller, names[0], names[1], at)
        except NotKnownThen as error:  # a time before the first look gets the first look (4.5.3 of the RFC)
            past = _past(connection, caller, names[0], names[1], error.since)
    except NotFound as error:
        must_be_listed(connection, caller, names[0])
        raise ApiError(404, str(error)) from None
    owner, _, slug = past.full_name.partition("/")
    with past_copy(connection, caller, [past]) as copy:
        query_language.register(copy)
        yield Memento(past, copy, (owner, slug, *names[2:]))


def _past(connection: sqlite3.Connection, caller: Caller, workspace: str, name: str, at: str) -> Past:
    """Find a repository by uuid, as it is now, or by name: by the name it had then, or the one it has now."""
    if name.startswith("{"):
        found = repository_in_workspace(connection, caller, workspace, name)
        if found is None:
            raise NotFound(f"the mirror holds no repository {name}")
        return past_of(connection, caller, found.id, at)
    if workspace.startswith("{"):
        owner = owner_named(connection, caller, workspace)
        workspace = (owner.username if owner else None) or workspace
    try:
        return past_named(connection, caller, f"{workspace}/{name}", at)
    except NotFound:
        if not workspace.startswith(PERSONAL):
            raise
        return past_named(connection, caller, f"{workspace.removeprefix(PERSONAL)}/{name}", at)


def _with_memento_headers(answer: Answer, past: Past) -> Answer:
    """Add to an answer which look it shows, and when the next one was."""
    looks = past.ref_looks if answer.synced_at == past.ref_looks.before else past.looks
    seen = str(looks.before)
    headers = {
        **answer.headers,
        "Memento-Datetime": format_datetime(from_text(seen), usegmt=True),
        "X-Mirror-Synced-At": seen,
        **({NEXT_LOOK_HEADER: looks.after} if looks.after else {}),
    }
    return msgspec.structs.replace(answer, headers=headers, synced_at=None)
