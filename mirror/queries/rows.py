"""The rows that everything shown is made from: one type each for a repository, an account, a ref, a change.

A new column of `repositories` becomes readable everywhere by adding a field to `RepositoryRow`.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mirror.addresses import WebPages, web_of
from mirror.model import flag, known_uuid
from mirror.queries.file_state import file_state
from mirror.store.rows import fetch_as

Values = Mapping[str, Any]
DERIVED = ("owner_username", "is_fork", "parent_name", "refs")
FLAGS = ("is_private", "has_issues", "has_wiki", "archived")
"""Columns that are yes, no or unknown."""

LISTED = (
    "id", "owner", "slug", "name", "full_name", "scm", "is_private", "description", "website", "language",
    "followers_count", "forks_count", "created_at", "updated_at", "deleted_at", "archived",
)  # fmt: skip
"""The columns of exported search results."""

NOT_OF = {"branch": ("tagger", "message", "date"), "tag": ("heads",)}
"""The fields that a kind of refs does not have."""


class RepositoryRow(msgspec.Struct, frozen=True, array_like=True):
    """A repository as a caller may see it.

    The fields are the columns of `repositories`, in their order, and the DERIVED ones. The `parent_...`
    fields are None for a hidden parent, and `forks_count` does not count hidden forks. Flags are 1, 0 or
    None for unknown.
    """

    id: int
    upstream_id: int
    uuid: str
    owner_id: int
    slug: str
    name: str
    full_name: str
    scm: str | None
    is_private: int
    description: str | None
    website: str | None
    language: str | None
    size: int | None
    main_branch: str | None
    fork_policy: str | None
    parent_id: int | None
    parent_uuid: str | None
    parent_full_name: str | None
    followers_count: int | None
    forks_count: int | None
    has_issues: int | None
    has_wiki: int | None
    project_key: str | None
    project_name: str | None
    project_uuid: str | None
    avatar_url: str | None
    clone_https: str | None
    clone_ssh: str | None
    created_at: str | None
    updated_at: str | None
    first_seen_at: str
    last_seen_at: str
    refs_synced_at: str | None
    refs_stale: int
    deleted_at: str | None
    gone_reason: str | None
    public_from: int
    archived: int | None
    refs_known_since: str | None
    # DERIVED: the owner's name if the full name does not show it, whether there is a parent, its name, and
    # `refs_state`.
    owner_username: str | None
    is_fork: int
    parent_name: str | None
    refs: str

    @property
    def namespace(self) -> str:
        """The first half of its full name."""
        return self.full_name.partition("/")[0]

    @property
    def owner(self) -> str | None:
        """The name of its owner today."""
        # The full name of a tombstone may hold a former one. In one with two slashes, it is unclear where the
        # owner ends.
        is_plain = self.deleted_at is None and self.owner_username is None
        return self.namespace if is_plain else self.owner_username

    @property
    def known_uuid(self) -> str | None:
        """The upstream's uuid; None if the upstream has none."""
        return known_uuid(self.uuid)

    @property
    def unmirrored_parent(self) -> str | None:
        """The full name of its parent, if that is not mirrored."""
        return self.parent_full_name if self.parent_id is None else None

    @property
    def states(self) -> tuple[str, ...]:
        """How it differs from an ordinary public repository, in one word each."""
        return tuple(
            word
            for word, holds in (
                ("private", self.is_private),
                ("gone", self.deleted_at),
                ("archived", self.archived),
            )
            if holds
        )

    def columns(self, *names: str) -> dict[str, Any]:
        """Map columns to values: those of the table, unless others are named."""
        return {name: getattr(self, name) for name in names or COLUMNS}


COLUMNS = tuple(field for field in RepositoryRow.__struct_fields__ if field not in DERIVED)
"""The columns of the table, in their order."""


class AccountRow(msgspec.Struct, frozen=True):
    """A row of `users`: somebody who owns repositories or is a member, and the workspace of that name."""

    id: int
    upstream_id: int
    uuid: str
    username: str | None
    display_name: str | None
    first_name: str | None
    last_name: str | None
    nickname: str | None
    account_id: str | None
    kind: str
    is_owner: int
    avatar_url: str | None
    created_at: str | None
    last_seen_at: str | None
    deleted_at: str | None

    @property
    def known_uuid(self) -> str | None:
        """The upstream's uuid; None if the upstream has none."""
        return known_uuid(self.uuid)


ACCOUNT_COLUMNS = ", ".join(f"u.{field}" for field in AccountRow.__struct_fields__)

# With it, SQLite finds a uuid by its index, which begins with the upstream.
ANY_UPSTREAM = "upstream_id IN (SELECT id FROM upstreams)"

# Conditions on `users u`: that it has the name, or the uuid with its braces, that is `:name`.
IS_NAME = "u.username = :name COLLATE NOCASE"
IS_UUID = f"u.{ANY_UPSTREAM} AND u.uuid IN (:name, lower(:name))"
# Sorts the account first whose name is written so: a Data Center's TOOLS is not a workspace `tools` of Cloud.
WRITTEN_SO = "u.username COLLATE BINARY IS NOT :name"


def accounts_by_ids(connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, AccountRow]:
    """Read accounts by the ids of their rows, once for each state of the file."""
    known = file_state(connection).accounts
    wanted = set(ids)  # few: most repositories of a page belong to the same owners
    missing = wanted.difference(known)
    if missing:
        sql = f"SELECT {ACCOUNT_COLUMNS} FROM users u WHERE u.id IN (SELECT value FROM json_each(?))"
        found = fetch_as(AccountRow, connection, sql, (json.dumps(sorted(missing)),))
        known.update((row.id, row) for row in found)
    return {one: known[one] for one in wanted if one in known}


class ProjectRow(msgspec.Struct, frozen=True):
    """A row of `projects`; `is_private` is 1, 0 or None for unknown."""

    id: int
    upstream_id: int
    owner_id: int
    uuid: str
    key: str
    name: str | None
    description: str | None
    is_private: int | None
    avatar_url: str | None
    first_seen_at: str
    last_seen_at: str | None

    @property
    def known_uuid(self) -> str | None:
        """The upstream's uuid; None if the upstream has none."""
        return known_uuid(self.uuid)


class Membership(msgspec.Struct, frozen=True):
    """An account at one end of a membership, and the permission: owner, collaborator, member or unknown."""

    account: AccountRow
    permission: str | None


class RefRow(msgspec.Struct, frozen=True):
    """A branch or a tag; `heads` and `target_parents` are JSON, None if the upstream did not send them.

    Mercurial branches have `heads`; annotated tags have `tagger`, `message` and `date`.
    """

    kind: str
    name: str
    target_hash: str
    target_date: str | None = None
    target_author: str | None = None
    target_author_name: str | None = None
    target_author_uuid: str | None = None
    target_message: str | None = None
    target_parents: str | None = None
    heads: str | None = None
    tagger: str | None = None
    message: str | None = None
    date: str | None = None

    @property
    def made_at(self) -> str | None:
        """The date of a tag if it has one, else that of the commit."""
        return self.target_date if self.date is None else self.date

    def columns(self) -> dict[str, Any]:
        """Map the columns of its table to values."""
        foreign = {"kind", *NOT_OF[self.kind]}
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in foreign}


class ChangeRow(msgspec.Struct, frozen=True):
    """A line of `changes`, of a repository or of an owner; `repository` and `owner` are names of today.

    `refs` is whether refs were read (`refs_state`), for a repository that was just found. `is_gone` is 1
    where the repository, or the owner of a change without one, is gone today.
    """

    id: int
    at: str
    kind: str
    ref: str | None
    old: str | None
    new: str | None
    repository_id: int | None
    repository: str | None
    owner_id: int | None
    owner: str | None
    upstream: str | None
    refs: str | None
    upstream_id: int | None
    is_gone: int
    forced: int | None

    @property
    def was_forced(self) -> bool | None:
        """Whether it was a forced push, as far as that is known."""
        return flag(self.forced)


class UpstreamRow(msgspec.Struct, frozen=True):
    """A row of `upstreams`: `url` is the address of its API."""

    id: int
    name: str
    kind: str
    url: str

    @property
    def pages(self) -> WebPages:
        """What builds the addresses of its pages for people."""
        return WebPages(web_of(self.url), self.kind)


Upstreams = Mapping[int, UpstreamRow]


def upstreams_of(connection: sqlite3.Connection) -> Upstreams:
    """Read all upstreams, by the ids of their rows, once for each state of the file."""
    known = file_state(connection)
    if not known.upstreams:
        found = fetch_as(UpstreamRow, connection, "SELECT id, name, kind, url FROM upstreams ORDER BY id")
        known.upstreams.update((row.id, row) for row in found)
    return known.upstreams
