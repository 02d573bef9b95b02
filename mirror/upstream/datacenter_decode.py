"""Decodes the JSON objects of Data Center into the model: pure functions of one row each."""

from datetime import UTC, datetime

import msgspec

from mirror.addresses import without_login
from mirror.errors import UpstreamShapeError
from mirror.model import Member, Owner, Project, Ref, RefKind, Repository
from mirror.times import to_text

_LATEST = "com.atlassian.bitbucket.server.bitbucket-branch:latest-commit-metadata"
_PERMISSIONS = {"PROJECT_ADMIN": "owner", "PROJECT_WRITE": "collaborator", "PROJECT_READ": "member"}


class Camel(msgspec.Struct, frozen=True, rename="camel"):
    """An object whose keys the server writes in camel case."""


class LinkJson(Camel, frozen=True):
    """A link; `name` distinguishes clone links: ``ssh``, and ``http`` for https too."""

    href: str | None = None
    name: str | None = None


class LinksJson(Camel, frozen=True):
    """The links that are stored."""

    clone: list[LinkJson] | None = None


class UserJson(Camel, frozen=True):
    """A person."""

    id: int | None = None
    name: str | None = None
    slug: str | None = None
    display_name: str | None = None


class ProjectJson(Camel, frozen=True):
    """A project; the key of a personal one begins with a tilde, and only such a one has an owner."""

    key: str
    id: int
    owner: UserJson | None = None
    name: str | None = None
    type: str | None = None
    public: bool | None = None
    description: str | None = None


class OriginProjectJson(Camel, frozen=True):
    """The project of a parent repository; another mirror may know only its key."""

    key: str


class OriginJson(Camel, frozen=True):
    """The repository that another one was forked from."""

    id: int | None = None
    slug: str | None = None
    project: OriginProjectJson | None = None


class RepositoryJson(Camel, frozen=True):
    """A repository; there are no dates and no sizes."""

    slug: str
    id: int
    project: ProjectJson
    name: str | None = None
    description: str | None = None
    scm_id: str | None = None
    public: bool | None = None
    forkable: bool | None = None
    archived: bool | None = None
    origin: OriginJson | None = None
    links: LinksJson | None = None


class Visible(Camel, frozen=True):
    """A project or a page of repositories, read to learn whether anonymous callers would see it."""

    public: bool | None = None
    values: list[RepositoryJson] = []

    @property
    def is_hidden(self) -> bool:
        """Whether it, or one of the repositories, is flagged as not public."""
        return self.public is False or any(
            row.public is False and row.project.public is not True for row in self.values
        )


class PermissionJson(Camel, frozen=True):
    """A person's right on a project."""

    user: UserJson
    permission: str | None = None


class AuthorJson(Camel, frozen=True):
    """The author of a commit; with a `display_name` if an account has the mail address."""

    name: str | None = None
    email_address: str | None = None
    display_name: str | None = None


class ParentJson(Camel, frozen=True):
    """A commit of which only the hash is sent, such as a parent."""

    id: str | None = None


class CommitJson(Camel, frozen=True):
    """The latest commit of a branch, if details were requested; times are milliseconds since 1970."""

    id: str | None = None
    author: AuthorJson | None = None
    author_timestamp: int | None = None
    message: str | None = None
    parents: list[ParentJson] | None = None


class CommitsJson(Camel, frozen=True):
    """A page of commits."""

    values: list[ParentJson]
    is_last_page: bool | None = None


class Metadata(msgspec.Struct, frozen=True, rename={"latest": _LATEST}):
    """The data of plugins about a branch."""

    latest: CommitJson | None = None


class RefJson(Camel, frozen=True):
    """A branch or a tag; old versions call the commit `latest_changeset`."""

    id: str | None = None
    display_id: str | None = None
    latest_commit: str | None = None
    latest_changeset: str | None = None
    is_default: bool | None = None
    metadata: Metadata | None = None


def to_project(row: ProjectJson) -> Owner:
    """Convert a project to the owner of its repositories."""
    is_personal = row.type == "PERSONAL" or row.key.startswith("~")
    return Owner(
        uuid=f"id:{row.id}",
        username=row.key,
        display_name=row.name,
        kind="user" if is_personal else "workspace",
        project=_project(row),
    )


def _project(row: ProjectJson) -> Project:
    return Project(
        key=row.key,
        uuid=f"id:{row.id}",
        name=row.name,
        description=row.description,
        is_private=None if row.public is None else not row.public,
    )


def to_owning_member(row: ProjectJson) -> Member | None:
    """Convert the owner of a personal project; None if there is none, or without an id."""
    if row.owner is None or row.owner.id is None:
        return None
    return to_member(PermissionJson(user=row.owner, permission="PROJECT_ADMIN"))


def to_member(row: PermissionJson) -> Member:
    """Convert a person with rights on a project; raises UpstreamShapeError if the id is missing."""
    user = row.user
    if user.id is None:
        raise UpstreamShapeError(f"a user without id: {user.name or user.display_name or 'nameless'}")
    person = Owner(uuid=f"user:{user.id}", username=user.slug or user.name, display_name=user.display_name)
    return Member(user=person, permission=_PERMISSIONS.get(row.permission or ""))


def to_repository(row: RepositoryJson) -> Repository:
    """Convert a repository; it is private unless flagged as public."""
    project, origin = row.project, row.origin or OriginJson()
    parent = f"{origin.project.key}/{origin.slug}" if origin.project and origin.slug else None
    return Repository(
        uuid=f"id:{row.id}",
        owner=to_project(project),
        slug=row.slug,
        name=row.name or row.slug,
        full_name=f"{project.key}/{row.slug}",
        scm=row.scm_id,
        tells_main_branch=False,
        is_private=row.public is not True,
        description=row.description,
        fork_policy=None if row.forkable is None else "allow_forks" if row.forkable else "no_forks",
        archived=row.archived,
        parent_uuid=None if origin.id is None else f"id:{origin.id}",
        parent_full_name=parent,
        project_key=project.key,
        project_name=project.name,
        project_uuid=f"id:{project.id}",
        clone_https=_clone(row.links, "http"),
        clone_ssh=_clone(row.links, "ssh"),
    )


def to_branch(row: RefJson) -> Ref:
    """Convert a branch; raises UpstreamShapeError if its name or its commit is missing."""
    return msgspec.structs.replace(_ref(row, "branch", "refs/heads/"), is_main=row.is_default is True)


def to_tag(row: RefJson) -> Ref:
    """Convert a tag; raises UpstreamShapeError if its name or its commit is missing."""
    return _ref(row, "tag", "refs/tags/")


def _ref(row: RefJson, kind: RefKind, prefix: str) -> Ref:
    name, target = _name(row, prefix), row.latest_commit or row.latest_changeset
    if not name or not target:
        raise UpstreamShapeError(f"a {kind} without name or commit: {row.display_id or row.id or 'nameless'}")
    latest = row.metadata.latest if row.metadata else None
    if latest is None or latest.id != target:  # the details belong to a newer commit
        return Ref(kind=kind, name=name, target_hash=target)
    author, parents = latest.author or AuthorJson(), latest.parents
    hashes = tuple(parent.id for parent in parents if parent.id) if parents is not None else None
    return Ref(
        kind=kind,
        name=name,
        target_hash=target,
        target_date=moment(latest.author_timestamp),
        target_author=_raw(author),
        target_author_name=author.display_name,
        target_message=latest.message,
        target_parents=hashes,
    )


def _name(row: RefJson, prefix: str) -> str | None:
    """Return the short name; some servers swap `id` and `displayId`."""
    for text in (row.id, row.display_id):
        if text and text.startswith(prefix):
            return text.removeprefix(prefix)
    return row.display_id or row.id


def _raw(author: AuthorJson) -> str | None:
    """Return an author line as git writes it."""
    if author.name is None:
        return None
    return f"{author.name} <{author.email_address}>" if author.email_address else author.name


def moment(milliseconds: int | None) -> str | None:
    """Convert milliseconds since 1970 to the form of the mirror; None if missing or out of range."""
    if milliseconds is None:
        return None
    try:
        return to_text(datetime.fromtimestamp(milliseconds / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _clone(links: LinksJson | None, name: str) -> str | None:
    for link in (links and links.clone) or ():
        if link.name == name and link.href:
            return without_login(link.href)
    return None
