"""The mirrored objects: owners, members, repositories, refs, independent of upstreams and the database.

Every upstream decodes its answers into these, and the store writes them. None means that the upstream did not
send a value; an empty string was sent. Moments are texts in the form of `mirror.times`.
"""

import re
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from mirror.addresses import Told

OwnerKind = Literal["user", "team", "workspace"]
RefKind = Literal["branch", "tag"]


NAMED = "name:"
"""The prefix of an identity that is only a name, because the upstream sent no other."""

_UUID = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE)
_BRACED = re.compile(r"\{[!-z|~]{1,64}\}")  # ASCII: characters that were replaced on the way make no identity

LONGEST_SLUG = 62
_QUOTES = re.compile("[\"'`\u2018\u2019\u201c\u201d]")
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9_.-]+")


def canonical_uuid(text: str) -> str | None:
    """Return the stored form of a uuid, in braces and lower case; None if it is not a uuid.

    Another text in braces is returned unchanged if it is short ASCII without spaces.
    """
    text = text.strip()
    found = _UUID.fullmatch(text)
    if found:
        return f"{{{found[1].lower()}}}"
    return text if _BRACED.fullmatch(text) else None


def known_uuid(identity: str | None) -> str | None:
    """Return an identity if it is a uuid; None for the mirror's own ones: ``id:8``, ``name:owner``."""
    return identity if identity is not None and identity.startswith("{") else None


def flag(value: int | None) -> bool | None:
    """Return a flag as it is stored, 1 or 0, as a boolean; None for unknown."""
    return None if value is None else bool(value)


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project of a workspace, as its repositories report it; on Data Center, the workspace itself.

    `uuid` is the upstream's identity. It and `is_private` are None if they were not sent.
    """

    key: str
    uuid: str | None = None
    name: str | None = None
    description: str | None = None
    is_private: bool | None = None
    avatar_url: str | None = None


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """An owner of repositories or a member: a person, a team, a workspace, a project.

    - `uuid`: the upstream's identity with braces, ``id:N`` if identities are numbers (Data Center), or
      ``name:...`` in lower case if there are none (API 1.0).
    - `username`: the namespace, the first half of a full name; the nickname of members without one.
    - `kind`: what owns the namespace.
    - `project`: the data of a Data Center about a workspace that is a project.
    - `told`: the whole object as it was sent.
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
    """A user's membership in a workspace; `permission` is owner, collaborator or member, None if not sent."""

    user: Owner
    permission: str | None = None


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """One repository as its upstream lists it.

    - `size`: in bytes.
    - `main_branch`: None for an empty repository. If `tells_main_branch` is false, the listing of branches
      reports it instead.
    - `parent_uuid`, `parent_full_name`: what it was forked from.
    - `project`: all data of the project whose key, name and uuid are also fields.
    - `clone_https`, `clone_ssh`: without login.
    - `told`: the whole object as API 2.0 sent it.
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
        """The key to request it again."""
        return RepositoryKey(uuid=self.uuid, full_name=self.full_name, scm=self.scm)


FORK_POLICIES = ("allow_forks", "no_public_forks", "no_forks")
"""The values of API 2.0, the most liberal first."""


class RepositorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The writable settings of a repository. None is not given: the upstream decides, or keeps the value.

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
        """Return the given settings, among the named ones or all."""
        values = msgspec.structs.asdict(self)
        return {name: values[name] for name in names or values if values[name] is not None}


def slug_of(name: str) -> str:
    """Return the slug that Bitbucket makes from a name; "" if nothing is left.

    Slugs are lower case; quotes are removed, dots stay, runs of other characters become one dash.
    """
    slug = _NOT_IN_SLUGS.sub("-", _QUOTES.sub("", name.lower())).strip("-")[:LONGEST_SLUG]
    return slug if slug.strip(".") else ""


class Ref(msgspec.Struct, frozen=True, kw_only=True):
    """A branch or a tag and its commit. Of refs read by git, only the hash of the commit is known.

    - `target_author`: the raw author line, ``Name <mail>``; the mail may be missing.
    - `target_author_name`, `target_author_uuid`: the author's account, if there is one.
    - `target_parents`: full hashes in order.
    - `heads`: the open heads of a Mercurial branch; empty for a closed branch, None for git.
    - `tagger`, `message`, `date`: of an annotated tag; None for lightweight tags and branches.
    - `is_main`: whether a listing of branches reports this one as the main branch.
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
    """The key to request a known repository from an upstream."""

    uuid: str
    full_name: str
    scm: str | None = None

    @property
    def workspace(self) -> str:
        """The namespace in which the repository was last seen."""
        return self.full_name.partition("/")[0]

    @property
    def slug(self) -> str:
        """The name within the namespace."""
        return self.full_name.partition("/")[2]


class NoRoom(NamedTuple):
    """Why no request may be sent before `until`: a 429 of the upstream (`held`), or a spent budget."""

    until: datetime
    held: bool
