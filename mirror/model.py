"""What is mirrored: owners, members, repositories, refs, as values that know no upstream and no database.

Every upstream shapes its answers into these; the store writes them. None means that the upstream did not
say; an empty string is what it said. Moments are texts in the form of `mirror.times`.
"""

import re
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from mirror.addresses import Told

OwnerKind = Literal["user", "team", "workspace"]
RefKind = Literal["branch", "tag"]


NAMED = "name:"
"""What an identity begins with that is nothing but a name, because the upstream gave no other."""

_UUID = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE)
_BRACED = re.compile(r"\{[!-z|~]{1,64}\}")  # ASCII: characters that were replaced on the way make no identity

LONGEST_SLUG = 62
_QUOTES = re.compile("[\"'`\u2018\u2019\u201c\u201d]")
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9_.-]+")


def canonical_uuid(text: str) -> str | None:
    """Return the one form in which a uuid is kept, in braces and lower case; None where it is not a uuid.

    What stands in braces but has another form is kept as it is, as long as it is short, plain ASCII and
    without spaces.
    """
    text = text.strip()
    found = _UUID.fullmatch(text)
    if found:
        return f"{{{found[1].lower()}}}"
    return text if _BRACED.fullmatch(text) else None


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project of a workspace, as a repository in it tells; on Data Center the workspace itself.

    `uuid` is the upstream's identity, None where it tells none. `is_private` is None where that is not told.
    """

    key: str
    uuid: str | None = None
    name: str | None = None
    description: str | None = None
    is_private: bool | None = None
    avatar_url: str | None = None


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """An owner of repositories or a member: a person, a team, a workspace, a project.

    `uuid` is the upstream's own identity with its braces, ``id:N`` where identities are numbers (Data
    Center), or ``name:...`` in lower case where there are none (API 1.0). `username` is the namespace, the
    first half of a full name; for members without one it is the nickname. `kind` is what owns the namespace.
    `project` is what a Data Center tells of a workspace that is a project; `told` is the whole object.
    """

    uuid: str
    username: str | None
    display_name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    nickname: str | None = None
    account_id: str | None = None
    kind: OwnerKind = "user"
    avatar_url: str | None = None
    created_at: str | None = None
    project: Project | None = None
    told: Told | None = None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A user's place in a workspace; `permission` is owner, collaborator or member, where told."""

    user: Owner
    permission: str | None = None


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """One repository as its upstream lists it.

    `size` is in bytes. `main_branch` is None for an empty repository; where `tells_main_branch` is false, not
    repositories tell it, but their branches. `parent_uuid` and `parent_full_name` name what it was forked
    from. `project` is all that is told of the project whose key, name and uuid stand beside. Clone addresses
    carry no login. `told` is the whole object as API 2.0 sent it.
    """

    uuid: str
    owner: Owner
    slug: str
    name: str
    full_name: str
    scm: str | None = None
    is_private: bool = False
    description: str | None = None
    website: str | None = None
    language: str | None = None
    size: int | None = None
    main_branch: str | None = None
    tells_main_branch: bool = True
    fork_policy: str | None = None
    parent_uuid: str | None = None
    parent_full_name: str | None = None
    followers_count: int | None = None
    forks_count: int | None = None
    has_issues: bool | None = None
    has_wiki: bool | None = None
    archived: bool | None = None
    project_key: str | None = None
    project_name: str | None = None
    project_uuid: str | None = None
    project: Project | None = None
    avatar_url: str | None = None
    clone_https: str | None = None
    clone_ssh: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    told: Told | None = None

    @property
    def key(self) -> "RepositoryKey":
        """What the upstream needs to be asked about it again."""
        return RepositoryKey(uuid=self.uuid, full_name=self.full_name, scm=self.scm)


FORK_POLICIES = ("allow_forks", "no_public_forks", "no_forks")


class RepositorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be written of a repository; None is not given: the upstream decides, or leaves it as it is.

    `scm` is ``git`` or ``hg``, `fork_policy` one of FORK_POLICIES.
    """

    name: str | None = None
    scm: str | None = None
    is_private: bool | None = None
    description: str | None = None
    website: str | None = None
    language: str | None = None
    has_issues: bool | None = None
    has_wiki: bool | None = None
    fork_policy: str | None = None

    def given(self, *names: str) -> dict[str, str | bool]:
        """Return the settings that are given: of the named ones, or of all."""
        values = msgspec.structs.asdict(self)
        return {name: values[name] for name in names or values if values[name] is not None}


def slug_of(name: str) -> str:
    """Return the slug that Bitbucket makes of a name; "" where nothing is left of it.

    Slugs are lower case; quotes go, dots stay, runs of anything else become one dash.
    """
    slug = _NOT_IN_SLUGS.sub("-", _QUOTES.sub("", name.lower())).strip("-")[:LONGEST_SLUG]
    return slug if slug.strip(".") else ""


class Ref(msgspec.Struct, frozen=True, kw_only=True):
    """A branch or a tag and the commit it names.

    `target_author` is the raw author line (``Name <mail>``, the mail may be missing), `target_author_name`
    and `target_author_uuid` the account behind it, where there is one. `target_parents` are full hashes in
    order. `heads` are the open heads of a Mercurial branch: empty once it is closed, None for git.
    `tagger`, `message` and `date` are an annotated tag's own; None for lightweight tags and for branches.
    `is_main` is true where a listing of branches tells that this is the main one.
    Whatever the upstream does not tell of a target but its hash is None (refs read by git).
    """

    kind: RefKind
    name: str
    target_hash: str
    target_date: str | None = None
    target_author: str | None = None
    target_author_name: str | None = None
    target_author_uuid: str | None = None
    target_message: str | None = None
    target_parents: tuple[str, ...] | None = None
    heads: tuple[str, ...] | None = None
    tagger: str | None = None
    message: str | None = None
    date: str | None = None
    is_main: bool = False
    told: Told | None = None


class RepositoryKey(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream needs to be asked about one repository that is known already."""

    uuid: str
    full_name: str
    scm: str | None = None

    @property
    def workspace(self) -> str:
        """The namespace, as the repository was last seen in it."""
        return self.full_name.partition("/")[0]

    @property
    def slug(self) -> str:
        """The name within the namespace."""
        return self.full_name.partition("/")[2]


class NoRoom(NamedTuple):
    """Why no request may be sent before `until`: a 429 of the upstream (`held`), or a spent budget."""

    until: datetime
    held: bool
