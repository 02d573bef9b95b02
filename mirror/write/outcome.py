"""A write whose answer was lost is never sent again: the upstream is asked what became of it.

An answer is lost when there is none, when it is a 5xx, and when it is a success that cannot be read. In each
case the upstream may have done the write.
"""

from collections.abc import Callable, Container
from datetime import datetime, timedelta
from typing import TypeVar

from mirror.errors import (
    MirrorError,
    OutcomeUnknown,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.model import Repository, RepositoryKey, RepositorySettings
from mirror.times import from_text
from mirror.upstream.protocol import Upstream
from mirror.upstream.retry import NotSent

T = TypeVar("T")

ABSENT = (404, 410)
SAID_NO = (500, 503)
"""Statuses with which the server itself says no; with 408, 502 and 504 it may still be at work."""

MAY_BE_EMPTY = ("description", "website", "language")
"""Texts of which null says that they are empty, and not that they are unknown."""

CLOCKS_APART = timedelta(minutes=10)
"""How far the clock of an upstream may be behind ours."""


class NameTaken(UpstreamRefused):
    """The name belongs to a repository from before the write, so the write cannot have been done."""

    def __init__(self, full_name: str) -> None:
        super().__init__(f"there is a repository {full_name} already", status=400)


def do_once(what: str, do: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Do a write once; where its answer is lost, return what `find` returns instead.

    :param what: names the write in errors, as "creating erik/new".
    :param do: sends the write.
    :param find: asks for what the write should have led to; returns None where it is not there so far.

    Raises what `do` raises, UpstreamBusy where the write was not done, OutcomeUnknown where nobody knows.
    """
    try:
        return do()
    except NotSent as error:
        raise UpstreamBusy(f"{error}; {what} was not asked") from None
    except (UpstreamBusy, UpstreamShapeError) as error:
        if isinstance(error, UpstreamBusy) and error.status == 429:
            raise
        lost = error
    try:
        found = find()
    except NameTaken:
        raise
    except MirrorError as error:
        raise OutcomeUnknown(
            f"{what} was asked and may have been done: {lost}. Looking it up failed as well: {error}."
            " Look before you repeat it; the next sync shows what became of it"
        ) from None
    if found is None:
        raise _not_done(what, lost)
    return found


def _not_done(what: str, lost: UpstreamError) -> UpstreamError:
    if isinstance(lost, UpstreamBusy) and lost.status in SAID_NO:
        return UpstreamBusy(
            f"{what} was not done: {lost}; it was looked up since",
            status=lost.status,
            retry_after=lost.retry_after,
        )
    return OutcomeUnknown(
        f"{what} was asked, and has not been done so far: {lost}. It was looked up once since; the upstream"
        " may be at work still, so look before you repeat it"
    )


def find_created(
    upstream: Upstream, full_name: str, *, known_uuid: str | None, since: datetime
) -> Repository | None:
    """Find a repository that was to be created, or None.

    Raises NameTaken where the one of that name is older than `since`, the moment of the write, or has
    `known_uuid`, the uuid that the mirror knew by that name before.
    """
    try:
        found = upstream.find_repository(full_name)
    except UpstreamRefused as error:
        if error.status in ABSENT:
            return None
        raise
    if found.uuid == known_uuid or (
        found.created_at is not None and from_text(found.created_at) < since - CLOCKS_APART
    ):
        raise NameTaken(found.full_name)
    return found


def find_fork(
    upstream: Upstream,
    full_name: str,
    parent: RepositoryKey,
    *,
    known_uuid: str | None,
    since: datetime,
) -> Repository | None:
    """Find a fork that was to be made, as `find_created` does; NameTaken also where its parent is another."""
    found = find_created(upstream, full_name, known_uuid=known_uuid, since=since)
    if found is not None and found.parent_uuid != parent.uuid:
        raise NameTaken(found.full_name)
    return found


def find_updated(upstream: Upstream, key: RepositoryKey, settings: RepositorySettings) -> Repository | None:
    """Return the repository if it has the settings that were given, else None.

    Raises UpstreamError where the reported settings agree, but the upstream does not report all of them.
    """
    found = upstream.fetch_repository(key)
    unknown = {name for name in settings.given() if _is_unknown(upstream, found, name)}
    if not _agrees(found, settings, unknown):
        return None
    if unknown:
        raise UpstreamError(f"{upstream.name} does not tell {', '.join(sorted(unknown))}")
    return found


def find_deleted(upstream: Upstream, key: RepositoryKey) -> bool | None:
    """Return True if the repository is gone, else None."""
    try:
        upstream.fetch_repository(key)
    except UpstreamRefused as error:
        if error.status in ABSENT:
            return True
        raise
    return None


def _is_unknown(upstream: Upstream, row: Repository, name: str) -> bool:
    """Tell whether the upstream does not report a setting."""
    return name in upstream.never_tells or (name not in MAY_BE_EMPTY and getattr(row, name) is None)


def _agrees(row: Repository, settings: RepositorySettings, unknown: Container[str]) -> bool:
    """Tell whether a repository has the settings that were given, unknown ones aside."""
    return all(
        _plain(getattr(row, name)) == _plain(value)
        for name, value in settings.given().items()
        if name not in unknown
    )


def _plain(value: object) -> object:
    """Return a value without what upstreams may change: blanks and case of a text, null for an empty one."""
    return " ".join(value.split()).casefold() if isinstance(value, str) else "" if value is None else value
