"""The outcome of a write: if its answer is lost, the upstream is asked whether it was done."""

from collections.abc import Callable, Container
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from mirror.errors import (
    MirrorError,
    NameReused,
    OutcomeUnknown,
    StoreError,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.model import Repository, RepositoryKey, RepositorySettings
from mirror.times import from_text
from mirror.upstream.protocol import Upstream
from mirror.upstream.response import NotSent

# Statuses by which a server refuses a request without having begun it.
NOT_BEGUN = (501, 505, 511)

# Statuses by which the server itself ends a request. After 408, 502 and 504 it may still be at work.
REFUSALS = (425, 500, 503)

T = TypeVar("T")

ABSENT = (404, 410)  # statuses for a repository that does not exist
# Texts whose null means that they are empty, not that they are unknown.
MAY_BE_EMPTY = ("description", "website", "language")

CLOCKS_APART = timedelta(minutes=10)  # how far the clock of an upstream may lag behind ours


def do_once(what: str, do: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Do a write once. If its answer is lost, return what `find` finds.

    An answer is lost if there is none, if it is a 5xx, or if it is a success that cannot be read. The
    upstream may have done the write, so it is never sent again.

    :param what: names the write in errors, as "creating erik/new".
    :param do: sends the write.
    :param find: asks for the result of the write; returns None if it is not there yet.

    Raises what `do` raises, UpstreamBusy or UpstreamRefused if the write was not done, OutcomeUnknown if that
    is not known.
    """
    try:
        return do()
    except (NotSent, StoreError) as error:  # after a StoreError the request could not be counted
        raise UpstreamBusy(f"{error}; {what} was not requested") from None
    except (UpstreamBusy, UpstreamShapeError) as error:
        if isinstance(error, UpstreamBusy) and error.status == 429:
            raise
        if isinstance(error, UpstreamBusy) and error.status in NOT_BEGUN:
            raise UpstreamRefused(f"{what} was not done: {error}", status=error.status) from None
        return _looked_up(what, find, error)


def _looked_up(what: str, find: Callable[[], T | None], lost: UpstreamError) -> T:
    try:
        found = find()
    except NameTaken:  # certain: the write was not done
        raise
    except MirrorError as error:
        raise OutcomeUnknown(
            f"{what} was requested and may have been done: {_sentence(lost)} A look-up did not settle that:"
            f" {_sentence(error)} Check before you repeat it; the next sync shows what became of it"
        ) from None
    if found is None:
        raise _not_done(what, lost)
    return found


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."  # the text of a network error may end with one


def _not_done(what: str, lost: UpstreamError) -> UpstreamError:
    if isinstance(lost, UpstreamBusy) and lost.status in REFUSALS:
        return UpstreamBusy(
            f"{what} was not done: {lost}; looking it up confirmed that",
            status=lost.status,
            retry_after=lost.retry_after,
        )
    return OutcomeUnknown(
        f"{what} was requested, and has not been done so far: {lost}. It was looked up once; the upstream"
        " may still be working on it, so check before you repeat it"
    )


class NameTaken(UpstreamRefused):
    """The name belongs to an older repository, so the write cannot have been done."""

    def __init__(self, full_name: str) -> None:
        super().__init__(f"there is a repository {full_name} already", status=400)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The repository that a write is to make.

    - `known_uuid`: the uuid that the mirror knew for the name before.
    - `since`: the time of the write.
    """

    full_name: str
    settings: RepositorySettings
    known_uuid: str | None
    since: datetime


def find_created(upstream: Upstream, wanted: Wanted) -> Repository | None:
    """Find the repository that a write was to create, as `_find_new` does.

    Raises UpstreamError if it has other settings: somebody else may have made it at that moment.
    """
    found = _find_new(upstream, wanted)
    if found is not None and not _agrees(found, wanted.settings, _unknown(upstream, found, wanted.settings)):
        raise UpstreamError(f"{found.full_name} is there now, but not as it was asked for")
    return found


def find_fork(upstream: Upstream, wanted: Wanted, parent: RepositoryKey) -> Repository | None:
    """Find the fork that a write was to create, as `_find_new` does; NameTaken also for another parent."""
    found = _find_new(upstream, wanted)
    if found is not None and found.parent_uuid != parent.uuid:
        raise NameTaken(found.full_name)
    return found


def _find_new(upstream: Upstream, wanted: Wanted) -> Repository | None:
    """Return the repository that has a name by a write of ours, or None.

    Raises NameTaken if the repository has the uuid that was known, or is older than the write; UpstreamError
    if its age is unknown, or it may have another slug.
    """
    full_name, name = wanted.full_name, wanted.settings.name
    try:
        found = upstream.find_repository(full_name)
    except UpstreamRefused as error:
        if error.status not in ABSENT:
            raise
        slug = full_name.partition("/")[2]
        if upstream.knows_names_only and (name or slug).lower() != slug.lower():
            why = f"{upstream.name} may have given {name!r} another address than {full_name}"
            raise UpstreamError(why) from None
        return None
    if found.uuid == wanted.known_uuid:
        raise NameTaken(found.full_name)
    if found.created_at is None:
        raise UpstreamError(f"there is {found.full_name}, and {upstream.name} does not say since when")
    if from_text(found.created_at) < wanted.since - CLOCKS_APART:
        raise NameTaken(found.full_name)
    return found


def find_updated(upstream: Upstream, before: Repository, settings: RepositorySettings) -> Repository | None:
    """Return the repository if it has the given settings, None if it has those of `before`.

    Raises UpstreamError if it has some of them, or if those that the upstream reports agree, and others are
    unknown.
    """
    found = upstream.fetch_repository(before.key)
    unknown = _unknown(upstream, found, settings)
    if not _agrees(found, settings, unknown):
        changed = [name for name in settings.given() if getattr(found, name) != getattr(before, name)]
        if changed:
            raise UpstreamError(f"it changed in {', '.join(changed)}, but not in all that was asked for")
        return None
    if unknown:
        raise UpstreamError(f"{upstream.name} does not report {', '.join(sorted(unknown))}")
    return found


def find_deleted(upstream: Upstream, key: RepositoryKey) -> bool | None:
    """Return True if the repository is gone, else None; raises NameReused if it may have moved."""
    try:
        upstream.fetch_repository(key)
    except NameReused:
        raise
    except UpstreamRefused as error:
        if error.status in ABSENT:
            return True
        raise
    return None


def _unknown(upstream: Upstream, row: Repository, settings: RepositorySettings) -> set[str]:
    """Return the given settings of which the answer says nothing."""
    return {
        name
        for name in settings.given()
        if name in upstream.never_tells or (name not in MAY_BE_EMPTY and getattr(row, name) is None)
    }


def _agrees(row: Repository, settings: RepositorySettings, unknown: Container[str]) -> bool:
    """Return whether a repository has the given settings, except unknown ones."""
    return all(
        _plain(getattr(row, name)) == _plain(value)
        for name, value in settings.given().items()
        if name not in unknown
    )


def _plain(value: object) -> object:
    """Return a value without what upstreams may change: blanks and case of a text, null for an empty one."""
    return " ".join(value.split()).casefold() if isinstance(value, str) else "" if value is None else value
