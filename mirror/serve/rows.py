"""What API answers are shaped from: rows of the mirror, as `mirror.serve.lookups` reads them."""

import msgspec


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
