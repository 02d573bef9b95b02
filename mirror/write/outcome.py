"""Find out whether a write was done whose answer was lost, by asking the upstream."""

from collections.abc import Container
from datetime import datetime, timedelta

from mirror.errors import (
    UpstreamError,
    UpstreamRefused,
)
from mirror.model import Repository, RepositoryKey, RepositorySettings
from mirror.times import from_text
from mirror.upstream.protocol import Upstream

ABSENT = (404, 410)

MAY_BE_EMPTY = ("description", "website", "language")
"""Texts whose null means that they are empty, not that they are unknown."""

CLOCKS_APART = timedelta(minutes=10)
"""How far the clock of an upstream may lag behind ours."""


class NameTaken(UpstreamRefused):
    """The name belongs to an older repository, so the write cannot have been done."""

    def __init__(self, full_name: str) -> None:
        super().__init__(f"there is a repository {full_name} already", status=400)


def find_created(
    upstream: Upstream, full_name: str, *, known_uuid: str | None, since: datetime
) -> Repository | None:
    """Find the repository that a write was to create, or None.

    :param known_uuid: the uuid that the mirror knew for the name before.
    :param since: the time of the write.

    Raises NameTaken if the repository has that uuid, or is older than the write.
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
    """Find the fork that a write was to create, as `find_created` does; NameTaken also for another parent."""
    found = find_created(upstream, full_name, known_uuid=known_uuid, since=since)
    if found is not None and found.parent_uuid != parent.uuid:
        raise NameTaken(found.full_name)
    return found


def find_updated(upstream: Upstream, key: RepositoryKey, settings: RepositorySettings) -> Repository | None:
    """Return the repository if it has the given settings, else None.

    Raises UpstreamError if the reported settings agree, but the upstream does not report all of them.
    """
    found = upstream.fetch_repository(key)
    unknown = {name for name in settings.given() if _is_unknown(upstream, found, name)}
    if not _agrees(found, settings, unknown):
        return None
    if unknown:
        raise UpstreamError(f"{upstream.name} does not report {', '.join(sorted(unknown))}")
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
    """Return whether the upstream does not report a setting."""
    return name in upstream.never_tells or (name not in MAY_BE_EMPTY and getattr(row, name) is None)


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
