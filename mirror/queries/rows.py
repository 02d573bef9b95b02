"""What API 2.0 answers are shaped from: rows of the mirror, in the order in which `reads` selects them."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from mirror.queries.caller import Caller


def known_uuid(identity: str | None) -> str | None:
    """Return an identity that is a uuid; None for the mirror's own ones: ``id:8``, ``name:owner``."""
    return identity if identity is not None and identity.startswith("{") else None


class Account(msgspec.Struct, frozen=True):
    """A row of `users`: somebody who owns repositories or is a member, and the workspace of that name."""

    id: int
    uuid: str
    username: str | None
    display_name: str | None
    nickname: str | None
    account_id: str | None
    kind: str
    is_owner: int
    avatar_url: str | None
    created_at: str | None
    last_seen_at: str

    @property
    def known_uuid(self) -> str | None:
        """The upstream's uuid; None where the upstream had none to give."""
        return known_uuid(self.uuid)


class Repository(msgspec.Struct, frozen=True):
    """A row of `repositories`; the last fields are what the caller may see of its relatives.

    `has_parent` says whether the parent may be told; `parent_name` is there where it is mirrored.
    `forks_count` is without the forks that are hidden from the caller.
    """

    id: int
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
    followers_count: int | None
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
    last_seen_at: str
    refs_synced_at: str | None
    parent_uuid: str | None
    parent_full_name: str | None
    parent_name: str | None
    has_parent: int
    forks_count: int | None

    @property
    def known_uuid(self) -> str | None:
        """The upstream's uuid; None where the upstream had none to give."""
        return known_uuid(self.uuid)


class Ref(msgspec.Struct, frozen=True):
    """A branch or a tag; `heads` and `target_parents` are JSON, None where the upstream did not tell."""

    kind: str
    name: str
    target_hash: str
    target_date: str | None
    target_author: str | None
    target_author_name: str | None
    target_author_uuid: str | None
    target_message: str | None
    target_parents: str | None
    heads: str | None
    tagger: str | None
    message: str | None
    date: str | None


Row = dict[str, Any]


def rows(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any] | None = None) -> list[Row]:
    """Read rows as mappings of column names to values."""
    cursor = connection.cursor()
    cursor.row_factory = None
    cursor.execute(sql, values or {})
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor]


def first(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any] | None = None) -> Row | None:
    """Read one row, or None."""
    return next(iter(rows(connection, sql, values)), None)


def one(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any] | None = None) -> Any:
    """Read one value, or None."""
    row = first(connection, sql, values)
    return next(iter(row.values())) if row else None


def ids_of(caller: Caller) -> str:
    """Return the caller's own rows of `users` as `lookups.visible` wants them under `:ids`."""
    return json.dumps(caller.user_ids)


class RepositoryRow(msgspec.Struct, frozen=True):
    """A repository; the fields are columns of the table, in the order they are selected.

    `followers` and `forks` are the numbers that the upstream told, `forks` less those hidden from the caller.
    """

    id: int
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
    parent_full_name: str | None
    has_issues: int | None
    has_wiki: int | None
    avatar_url: str | None
    created_at: str | None
    updated_at: str | None
    last_seen_at: str
    refs_synced_at: str | None
    deleted_at: str | None
    followers: int | None
    forks: int | None

    @property
    def owner(self) -> str:
        """The namespace it lives in."""
        return self.full_name.partition("/")[0]


class FoundRepository(msgspec.Struct, frozen=True):
    """A repository and what it was forked from.

    `parent` is None where there is none, or none that the caller may see. `named_parent` is the name of a
    parent that is not mirrored, for callers who may see everything: nobody knows whether it is private.
    """

    row: RepositoryRow
    parent: RepositoryRow | None = None
    named_parent: str | None = None
    visible: bool = True


class UserRow(msgspec.Struct, frozen=True):
    """A user, team or workspace."""

    id: int
    username: str | None
    display_name: str | None
    first_name: str | None
    last_name: str | None
    kind: str
    avatar_url: str | None
    last_seen_at: str


class RefRow(msgspec.Struct, frozen=True):
    """A branch or a tag; `heads` is JSON, None for git and for tags, like `target_parents`."""

    name: str
    target_hash: str
    target_date: str | None
    target_author: str | None
    target_author_name: str | None
    target_message: str | None
    target_parents: str | None
    heads: str | None


class ChangeRow(msgspec.Struct, frozen=True):
    """A change of a repository, with the repository's id to shape it by."""

    at: str
    kind: str
    ref: str | None
    old: str | None
    new: str | None
    repository_id: int
