"""A write whose answer was lost is never sent again: what became of it is looked up.

An answer counts as lost when there is none, when it is a 5xx, and when it is a success that cannot be read:
in each case the upstream may have done what it was asked.
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
"""Statuses of a server that answers for itself; 408, 502 and 504 are sent while it may be at work still."""

MAY_BE_EMPTY = ("description", "website", "language")

CLOCKS_APART = timedelta(minutes=10)


class NameTaken(UpstreamRefused):
    """The name belongs to a repository that was there before, so this write cannot have been done."""

    def __init__(self, full_name: str) -> None:
        super().__init__(f"there is a repository {full_name} already", status=400)


def carried_out(what: str, ask: Callable[[], T], look: Callable[[], T | None]) -> T:
    """Ask once; where the answer is lost, return what `look` finds to have been done.

    `look` returns None where it was not done so far. Raises what `ask` raises; UpstreamBusy where it was not
    done although the upstream was reached; OutcomeUnknown where nobody knows.
    """
    try:
        return ask()
    except NotSent as error:
        raise UpstreamBusy(f"{error}; {what} was not asked") from None
    except (UpstreamBusy, UpstreamShapeError) as error:
        if isinstance(error, UpstreamBusy) and error.status == 429:
            raise
        lost = error
    try:
        found = look()
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


def look_for_created(
    upstream: Upstream, full_name: str, *, taken_by: str | None, since: datetime
) -> Repository | None:
    """Find a repository that was to be created, or None.

    Raises NameTaken where the one of that name is older: `taken_by` is the uuid that the mirror knew by it.
    """
    try:
        found = upstream.find_repository(full_name)
    except UpstreamRefused as error:
        if error.status in ABSENT:
            return None
        raise
    if found.uuid == taken_by or (
        found.created_at is not None and from_text(found.created_at) < since - CLOCKS_APART
    ):
        raise NameTaken(found.full_name)
    return found


def look_for_fork(
    upstream: Upstream,
    full_name: str,
    parent: RepositoryKey,
    *,
    taken_by: str | None,
    since: datetime,
) -> Repository | None:
    """Find a fork that was to be made, as `look_for_created` does; one of something else is NameTaken."""
    found = look_for_created(upstream, full_name, taken_by=taken_by, since=since)
    if found is not None and found.parent_uuid != parent.uuid:
        raise NameTaken(found.full_name)
    return found


def look_for_update(
    upstream: Upstream, key: RepositoryKey, settings: RepositorySettings
) -> Repository | None:
    """Return the repository if it is as it was to be made, else None.

    Raises UpstreamError where all agrees that the upstream tells, but some of what was said it does not tell.
    """
    found = upstream.fetch_repository(key)
    untold = {name for name in settings.given() if _is_untold(upstream, found, name)}
    if not _agrees(found, settings, untold):
        return None
    if untold:
        raise UpstreamError(f"{upstream.name} does not tell {', '.join(sorted(untold))}")
    return found


def look_for_deleted(upstream: Upstream, key: RepositoryKey) -> bool | None:
    """Return True if the repository is not there any more, else None."""
    try:
        upstream.fetch_repository(key)
    except UpstreamRefused as error:
        if error.status in ABSENT:
            return True
        raise
    return None


def _is_untold(upstream: Upstream, row: Repository, name: str) -> bool:
    """Tell whether nothing is known of a setting; of a text that may be empty, null says that it is."""
    return name in upstream.never_tells or (name not in MAY_BE_EMPTY and getattr(row, name) is None)


def _agrees(row: Repository, settings: RepositorySettings, untold: Container[str]) -> bool:
    """Tell whether a repository is as the settings say, the untold ones aside."""
    return all(
        _plain(getattr(row, name)) == _plain(said)
        for name, said in settings.given().items()
        if name not in untold
    )


def _plain(value: object) -> object:
    """Leave out what upstreams may change of a text: blanks and case; none is an empty one."""
    return " ".join(value.split()).casefold() if isinstance(value, str) else "" if value is None else value
