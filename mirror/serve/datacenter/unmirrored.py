"""Resources that the mirror does not hold: 501 with the upstream's address, never an empty list.

First it is checked that the caller may see the project or repository, so a hidden one is not revealed.
"""

import sqlite3

from mirror.queries.projects import key_of
from mirror.queries.refs import REFS_NOT_MIRRORED, REFS_READ
from mirror.queries.rows import RepositoryRow
from mirror.serve.datacenter.edge import (
    HERE,
    MORE,
    PERSON,
    PROJECT,
    DataCenterRequest,
    Reader,
    find_person,
    find_projects,
    find_repository,
)
from mirror.serve.datacenter.shapes import Resource
from mirror.serve.exchange import REFS_HEADER, Answer, ApiError, refs_not_read
from mirror.serve.unmirrored import NotMirrored, noun, passed_on

_NOUNS = {
    "archive": "archives of files",
    "avatar.png": "pictures",
    "branches": "other data of branches",
    "browse": "files",
    "changes": "changes of files",
    "commits": "commits",
    "compare": "comparisons",
    "default-reviewers": "reviewers",
    "diff": "differences",
    "files": "files",
    "hook-scripts": "hook scripts",
    "patch": "patches",
    "permissions": "permissions other than those of users on projects",
    "pull-requests": "pull requests",
    "raw": "files",
}
_ALONE = {
    "admin": "administration",
    "build-status": "builds",
    "commits": "commits",
    "dashboard": "pull requests",
    "groups": "groups",
    "hook-scripts": "hook scripts",
    "hooks": "hooks",
    "inbox": "pull requests",
    "labels": "labels",
    "logs": "logs",
    "markup": "rendered texts",
    "profile": "lists of viewed repositories",
    "tasks": "tasks",
}
"""Resources below a project or a repository, and at the top level."""

_KEPT_BY_NOBODY = {"Cache-Control": "no-store"}


def must_have_refs(asked: DataCenterRequest, row: RepositoryRow, resource: Resource) -> None:
    """Raise ApiError 501 for a repository whose refs are not mirrored, 503 for one whose were never read."""
    if row.refs == REFS_NOT_MIRRORED:
        error = _not_mirrored("branches and tags", asked, resource)
        error.headers[REFS_HEADER] = REFS_NOT_MIRRORED
        raise error
    if row.refs != REFS_READ:
        raise refs_not_read(row.full_name)


def _not_mirrored(what: str, asked: DataCenterRequest, resource: Resource) -> ApiError:
    """Return the error with the upstream's address. It redirects only if that address has the same."""
    if resource.is_same:
        return NotMirrored(what, f"{resource.address}{passed_on(asked.query)}")
    message = f"This mirror holds no {what}; ask {resource.address}"
    return ApiError(501, message, headers=_KEPT_BY_NOBODY)


def _noun(rest: str) -> str:
    return noun(rest.partition("/")[0], _NOUNS)


def of_repository(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse projects/K/repos/S/..."""
    rest = asked.names[2]
    raise not_mirrored_here(connection, asked, _noun(rest), rest)


def not_mirrored_here(
    connection: sqlite3.Connection, asked: DataCenterRequest, what: str, rest: str
) -> ApiError:
    """Return the error for `what`, which is at `rest` below the repository of the path."""
    owner, row = find_repository(connection, asked)
    resource = asked.shapes.addresses.below_repository(row.upstream_id, key_of(owner), row.slug, rest)
    return _not_mirrored(what, asked, resource)


def of_project(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse projects/K/..."""
    row, rest = find_projects(connection, asked)[0], asked.names[1]
    resource = asked.shapes.addresses.below_project(row.upstream_id, key_of(row), rest)
    raise _not_mirrored(_noun(rest), asked, resource)


def of_person(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse users/U/..."""
    row = find_person(connection, asked)
    page = asked.shapes.addresses.project_page(row.upstream_id, key_of(row))
    raise _not_mirrored(_noun(asked.names[1]), asked, Resource(page or "the upstream", is_same=False))


def alone(connection: sqlite3.Connection, asked: DataCenterRequest) -> Answer:
    """Refuse resources outside all projects; their path does not show which upstream has them."""
    del connection
    message = f"This mirror holds no {_ALONE[asked.names[0]]}; ask the upstream"
    raise ApiError(501, message, headers=_KEPT_BY_NOBODY)


UNMIRRORED: dict[tuple[str, ...], Reader] = {
    (*HERE, MORE): of_repository,
    ("projects", PROJECT, MORE): of_project,
    ("users", PERSON, MORE): of_person,
    **{(first, MORE): alone for first in _ALONE},
}
"""Addresses that are not mirrored, below something that may be; `MORE` is the rest of the path."""
