"""API 2.0's JSON objects as they are sent, as far as the mirror reads them.

Keys were added and removed over the years, so each of them may be missing: it is None then.
"""

import msgspec


class LinkJson(msgspec.Struct, frozen=True):
    """A link; `name` tells clone links apart."""

    href: str | None = None
    name: str | None = None


class LinksJson(msgspec.Struct, frozen=True):
    """The links that are stored."""

    avatar: LinkJson | None = None
    clone: list[LinkJson] | None = None


class AccountJson(msgspec.Struct, frozen=True):
    """A user, a team or an app; before 2019 by `username`, since then by `nickname`."""

    uuid: str | None = None
    type: str | None = None
    username: str | None = None
    nickname: str | None = None
    display_name: str | None = None
    account_id: str | None = None
    created_on: str | None = None
    links: LinksJson | None = None


class WorkspaceJson(msgspec.Struct, frozen=True):
    """A workspace; in the caller's list without a name."""

    uuid: str | None = None
    slug: str | None = None
    name: str | None = None
    created_on: str | None = None
    links: LinksJson | None = None


class WorkspaceAccessJson(msgspec.Struct, frozen=True):
    """A row of the caller's workspaces."""

    workspace: WorkspaceJson


class MembershipJson(msgspec.Struct, frozen=True):
    """A row of a workspace's members."""

    user: AccountJson
    permission: str | None = None


class ProjectJson(msgspec.Struct, frozen=True):
    """The project that a repository is in."""

    key: str | None = None
    name: str | None = None
    uuid: str | None = None
    description: str | None = None
    is_private: bool | None = None
    links: LinksJson | None = None


class MainBranchJson(msgspec.Struct, frozen=True):
    """A main branch: ``{}`` in 2017, without a name for empty repositories."""

    name: str | None = None


class ParentJson(msgspec.Struct, frozen=True):
    """What a repository was forked from."""

    uuid: str | None = None
    full_name: str | None = None


class RepositoryJson(msgspec.Struct, frozen=True):
    """A repository as it is listed."""

    uuid: str | None = None
    full_name: str | None = None
    slug: str | None = None
    name: str | None = None
    scm: str | None = None
    is_private: bool | None = None
    description: str | None = None
    website: str | None = None
    language: str | None = None
    size: int | float | None = None
    mainbranch: MainBranchJson | None = None
    fork_policy: str | None = None
    parent: ParentJson | None = None
    followers_count: int | float | None = None
    forks_count: int | float | None = None
    has_issues: bool | None = None
    has_wiki: bool | None = None
    project: ProjectJson | None = None
    owner: AccountJson | None = None
    workspace: WorkspaceJson | None = None
    links: LinksJson | None = None
    created_on: str | None = None
    updated_on: str | None = None


class AuthorJson(msgspec.Struct, frozen=True):
    """Who wrote a commit or set a tag; `user` is missing where no account has the address."""

    raw: str | None = None
    user: AccountJson | None = None


class CommitJson(msgspec.Struct, frozen=True):
    """A commit, or nothing but its hash."""

    hash: str | None = None
    date: str | None = None
    message: str | None = None
    author: AuthorJson | None = None
    parents: list["CommitJson"] | None = None


class CommitsJson(msgspec.Struct, frozen=True):
    """A page of commits."""

    values: list[CommitJson]
    next: str | None = None


class RefJson(msgspec.Struct, frozen=True):
    """A branch or a tag; `heads` are Mercurial's."""

    name: str
    type: str | None = None
    target: CommitJson | None = None
    heads: list[CommitJson] | None = None
    message: str | None = None
    date: str | None = None
    tagger: AuthorJson | None = None
