"""Decodes the JSON objects of API 2.0 into the model: pure functions of one row each.

Keys were added and removed over the years, so any of them may be missing, which makes it None. Only what
follows by definition is derived (``full_name`` is ``owner/slug``).
"""

from collections.abc import Iterable, Sequence

import msgspec

from mirror.addresses import without_login
from mirror.decoding import count, moment
from mirror.errors import UpstreamShapeError
from mirror.model import NAMED, Member, Owner, Project, Ref, Repository, canonical_uuid


class LinkJson(msgspec.Struct, frozen=True):
    """A link; `name` distinguishes clone links."""

    href: str | None = None
    name: str | None = None


class LinksJson(msgspec.Struct, frozen=True):
    """The links that are stored."""

    avatar: LinkJson | None = None
    clone: list[LinkJson] | None = None


class AccountJson(msgspec.Struct, frozen=True):
    """A user, a team or an app; before 2019 with a `username`, since then with a `nickname`."""

    uuid: str | None = None
    type: str | None = None
    username: str | None = None
    nickname: str | None = None
    display_name: str | None = None
    account_id: str | None = None
    created_on: str | None = None
    links: LinksJson | None = None


class WorkspaceJson(msgspec.Struct, frozen=True):
    """A workspace; without a name in the list of the caller's workspaces."""

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
    """The repository that another one was forked from."""

    uuid: str | None = None
    full_name: str | None = None


class RepositoryJson(msgspec.Struct, frozen=True):
    """A repository in a listing."""

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
    """The author of a commit or a tag; `user` is missing if no account has the mail address."""

    raw: str | None = None
    user: AccountJson | None = None


class CommitJson(msgspec.Struct, frozen=True):
    """A commit, or only its hash."""

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


_REF_KINDS = {"branch": "branch", "named_branch": "branch", "tag": "tag"}
_RANKS = {"owner": 3, "collaborator": 2, "member": 1}


def to_repository(row: RepositoryJson) -> Repository:
    """Convert a repository; raises UpstreamShapeError if it has no full name."""
    full_name = _full_name(row)
    namespace, _, slug = full_name.partition("/")
    links, project, parent = (
        row.links or LinksJson(),
        row.project or ProjectJson(),
        row.parent or ParentJson(),
    )
    return Repository(
        uuid=_identity(row.uuid) or f"{NAMED}{full_name.lower()}",
        owner=_owner(row, namespace),
        slug=slug,
        name=row.name or slug,
        full_name=full_name,
        scm=row.scm,
        # Private unless it is reported as public.
        is_private=row.is_private is not False,
        description=row.description,
        website=row.website,
        language=row.language,
        size=count(row.size),
        main_branch=(row.mainbranch.name or None) if row.mainbranch else None,
        fork_policy=row.fork_policy,
        parent_uuid=canonical_uuid(parent.uuid or ""),
        parent_full_name=parent.full_name,
        followers_count=count(row.followers_count),
        forks_count=count(row.forks_count),
        has_issues=row.has_issues,
        has_wiki=row.has_wiki,
        project_key=project.key,
        project_name=project.name,
        project_uuid=project.uuid,
        project=_project(project),
        avatar_url=_avatar(links),
        clone_https=_clone(links, "https"),
        clone_ssh=_clone(links, "ssh"),
        created_at=moment(row.created_on),
        updated_at=moment(row.updated_on),
    )


def to_workspace(row: WorkspaceJson) -> Owner:
    """Convert a workspace; raises UpstreamShapeError if it has no slug."""
    if not row.slug:
        raise UpstreamShapeError(f"a workspace without a slug: {row.uuid or row.name or 'nameless'}")
    return Owner(
        uuid=_identity(row.uuid) or f"{NAMED}{row.slug.lower()}",
        username=row.slug,
        display_name=row.name,
        kind="workspace",
        avatar_url=_avatar(row.links),
        created_at=moment(row.created_on),
    )


def to_account(row: AccountJson) -> Owner:
    """Convert a person or a team; raises UpstreamShapeError if it has neither uuid nor user name."""
    identity = _identity(row.uuid)
    if identity is None and not row.username:  # nicknames are not unique
        raise UpstreamShapeError(
            f"an account without identity: {row.display_name or row.nickname or 'nameless'}"
        )
    return _account(row, identity or f"{NAMED}{str(row.username).lower()}", row.username or row.nickname)


def to_member(row: MembershipJson) -> Member:
    """Convert a member."""
    return Member(user=to_account(row.user), permission=row.permission)


def highest(members: Iterable[Member]) -> tuple[Member, ...]:
    """Keep one row for each user: the one with the highest permission."""
    best = dict[str, Member]()
    for member in members:
        known = best.get(member.user.uuid)
        if known is None or _rank(member) > _rank(known):
            best[member.user.uuid] = member
    return tuple(best.values())


def to_ref(row: RefJson) -> Ref:
    """Convert a branch or a tag; raises UpstreamShapeError if its type or its target is unknown."""
    kind = _REF_KINDS.get(row.type or "")
    if kind is None:
        raise UpstreamShapeError(f"ref {row.name!r} is of the unknown type {row.type!r}")
    target = row.target
    if target is None or not target.hash:
        raise UpstreamShapeError(f"{kind} {row.name!r} has no target")
    author = target.author or AuthorJson()
    return Ref(
        kind="tag" if kind == "tag" else "branch",
        name=row.name,
        target_hash=target.hash,
        target_date=moment(target.date),
        target_author=author.raw,
        target_author_name=person(author.user),
        target_author_uuid=author.user.uuid if author.user else None,
        target_message=target.message,
        target_parents=_hashes(target.parents),
        heads=_hashes(row.heads),
        tagger=row.tagger.raw if row.tagger else None,
        message=row.message,
        date=moment(row.date),
    )


def _full_name(row: RepositoryJson) -> str:
    """Return ``owner/slug``; missing parts come from the other keys."""
    owner, _, slug = (row.full_name or "").partition("/")
    owner = owner or (row.workspace.slug if row.workspace else None) or ""
    slug = slug or row.slug or ""
    if not owner or not slug or "/" in slug:
        raise UpstreamShapeError(
            f"a repository without owner and slug: {row.full_name or row.uuid or row.name}"
        )
    return f"{owner}/{slug}"


def _owner(row: RepositoryJson, namespace: str) -> Owner:
    # The workspace is the owner. An account with the same identity has more details.
    owner, workspace = row.owner or AccountJson(), row.workspace or WorkspaceJson()
    account = _identity(owner.uuid)
    identity = _identity(workspace.uuid) or account or f"{NAMED}{namespace.lower()}"
    if account == identity or (row.workspace is None and row.owner is not None):
        return _account(owner, identity, namespace)
    return Owner(
        uuid=identity,
        username=namespace,
        display_name=workspace.name,
        kind="workspace",
        avatar_url=_avatar(workspace.links),
    )


def _project(row: ProjectJson) -> Project | None:
    """Convert a project; None for one without a key, which could not be requested."""
    if not row.key:
        return None
    return Project(
        key=row.key,
        uuid=row.uuid,
        name=row.name,
        description=row.description,
        is_private=row.is_private,
        avatar_url=_avatar(row.links),
    )


def _account(row: AccountJson, identity: str, username: str | None) -> Owner:
    return Owner(
        uuid=identity,
        username=username,
        display_name=row.display_name,
        nickname=row.nickname,
        account_id=row.account_id,
        kind="team" if row.type == "team" else "user",
        avatar_url=_avatar(row.links),
        created_at=moment(row.created_on),
    )


def _identity(uuid: str | None) -> str | None:
    """Return a uuid in its canonical form; None for None. Raises UpstreamShapeError for other texts."""
    if uuid is None:
        return None
    canonical = canonical_uuid(uuid)
    if canonical is None:
        raise UpstreamShapeError(f"{uuid[:40]!r} ({len(uuid):,} characters) is not a uuid")
    return canonical


def _rank(member: Member) -> int:
    return _RANKS.get(member.permission or "", 0)


def person(account: AccountJson | None) -> str | None:
    """Return the name by which people know an account."""
    if account is None:
        return None
    return account.display_name or account.nickname or account.username


def _hashes(commits: Sequence[CommitJson] | None) -> tuple[str, ...] | None:
    """Return the hashes in order; None if any is missing."""
    if commits is None:
        return None
    hashes = tuple(commit.hash for commit in commits if commit.hash)
    return hashes if len(hashes) == len(commits) else None


def _avatar(links: LinksJson | None) -> str | None:
    return links.avatar.href if links and links.avatar else None


def _clone(links: LinksJson, name: str) -> str | None:
    for link in links.clone or ():
        if link.name == name and link.href:
            return without_login(link.href)
    return None
