"""API 1.0's JSON objects, decoded into the model: pure functions of one row each.

Times without `utc` in their key are Amsterdam's, without offset; they are not read at all.
"""

import re
from typing import Any, TypeVar

import msgspec

from mirror.addresses import Told
from mirror.decoding import count, moment
from mirror.errors import UpstreamShapeError
from mirror.model import NAMED, Owner, Ref, RefKind, Repository

Row = TypeVar("Row")

_MAIL = re.compile(r"\s*<[^<>]*>\s*$")
_URI = re.compile(r"(?:/api)?/1\.0/repositories/([^/]+)/([^/]+)/?")


class UserJson(msgspec.Struct, frozen=True):
    """A user or a team; a team has no last name."""

    username: str
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    is_team: bool | None = None
    avatar: str | None = None


class RepositoryJson(msgspec.Struct, frozen=True):
    """A repository; `fork_of` is a whole one. Short rows have a handful of these keys."""

    owner: str | None = None
    slug: str | None = None
    resource_uri: str | None = None
    name: str | None = None
    scm: str | None = None
    is_private: bool | None = None
    description: str | None = None
    website: str | None = None
    language: str | None = None
    size: int | float | None = None
    main_branch: str | None = None
    no_forks: bool | None = None
    no_public_forks: bool | None = None
    fork_of: "RepositoryJson | None" = None
    followers_count: int | float | None = None
    forks_count: int | float | None = None
    has_issues: bool | None = None
    has_wiki: bool | None = None
    logo: str | None = None
    utc_created_on: str | None = None
    utc_last_updated: str | None = None


class ChangesetJson(msgspec.Struct, frozen=True):
    """The commit of a branch or tag; its parents are cut to twelve digits, and its size is always -1."""

    raw_node: str | None = None
    author: str | None = None
    raw_author: str | None = None
    utctimestamp: str | None = None
    message: str | None = None


class NamedChangesetJson(msgspec.Struct, frozen=True):
    """An entry of the object that lists refs."""

    name: str
    changeset: ChangesetJson


def with_name(name: str, raw: msgspec.Raw) -> msgspec.Raw:
    """Make one JSON row of a key and its value."""
    return msgspec.Raw(b'{"name":%s,"changeset":%s}' % (msgspec.json.encode(name), bytes(raw)))


_NAMES = """
    node raw_node author raw_author timestamp utctimestamp message name slug owner scm is_private description
    website language main_branch fork_of mq_of is_fork is_mq followers_count forks_count has_issues has_wiki
    logo utc_created_on utc_last_updated resource_uri state
"""
_IN_COLUMNS = frozenset(_NAMES.split())
"""Keys that columns have, or that name another repository, which may be private."""


def with_told(row: Row, raw: bytes, *, anonymous: bool) -> Row:
    """Return a row with the keys of its object that no column has."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return row
    is_ref = isinstance(row, Ref)
    value = value.get("changeset") if is_ref else value
    if not isinstance(value, dict) or not isinstance(row, Ref | Repository):
        return row
    left_out = _IN_COLUMNS if is_ref else _IN_COLUMNS | {"size", *_whole_seconds(value)}
    kept = {key: inner for key, inner in value.items() if key not in left_out}
    return msgspec.structs.replace(row, told=Told(kept, anonymous, "1.0"))


def _whole_seconds(value: dict[str, Any]) -> list[str]:
    """Name the local dates that tell no more than the columns: only later answers have milliseconds."""
    return [key for key in ("created_on", "last_updated") if "." not in str(value.get(key))]


def to_user(row: UserJson) -> Owner:
    """Convert a user or a team."""
    return Owner(
        uuid=f"{NAMED}{row.username.lower()}",
        username=row.username,
        display_name=row.display_name,
        first_name=row.first_name,
        last_name=row.last_name,
        kind="team" if row.is_team else "user",
        avatar_url=row.avatar,
    )


def to_owner_of(row: RepositoryJson) -> Owner:
    """Return the owner that a repository names; raises UpstreamShapeError where it names none."""
    owner, _ = _names(row)
    return Owner(uuid=f"{NAMED}{owner.lower()}", username=owner)


def to_repository(row: RepositoryJson, owner: Owner | None) -> Repository:
    """Convert a repository; `owner` is the user whose repositories are listed, None where it comes alone."""
    name, slug = _names(row)
    if owner is None or owner.username is None or owner.username.lower() != name.lower():
        owner = Owner(uuid=f"{NAMED}{name.lower()}", username=name)
    parent = "/".join(_names(row.fork_of)) if row.fork_of else None
    return Repository(
        uuid=f"{NAMED}{name}/{slug}".lower(),
        owner=owner,
        slug=slug,
        name=row.name or slug,
        full_name=f"{name}/{slug}",
        scm=row.scm,
        is_private=row.is_private is not False,
        description=row.description,
        website=row.website,
        language=row.language,
        size=count(row.size),
        main_branch=row.main_branch or None,
        fork_policy=_fork_policy(row),
        parent_uuid=f"{NAMED}{parent}".lower() if parent else None,
        parent_full_name=parent,
        followers_count=count(row.followers_count),
        forks_count=count(row.forks_count),
        has_issues=row.has_issues,
        has_wiki=row.has_wiki,
        avatar_url=row.logo,
        created_at=moment(row.utc_created_on),
        updated_at=moment(row.utc_last_updated),
    )


def to_branch(row: NamedChangesetJson) -> Ref:
    """Convert a branch; raises UpstreamShapeError without the full hash of its commit."""
    return _ref(row, "branch")


def to_tag(row: NamedChangesetJson) -> Ref:
    """Convert a tag; raises UpstreamShapeError as for a branch."""
    return _ref(row, "tag")


def _ref(row: NamedChangesetJson, kind: RefKind) -> Ref:
    target = row.changeset
    if not target.raw_node:
        raise UpstreamShapeError(f"{kind} {row.name!r} has no whole hash")
    line = target.raw_author or target.author
    return Ref(
        kind=kind,
        name=row.name,
        target_hash=target.raw_node,
        target_date=moment(target.utctimestamp),
        target_author=line,
        target_author_name=None if target.author == _without_mail(line) else target.author,
        target_message=target.message,
    )


def _without_mail(line: str | None) -> str | None:
    """Return the name in an author line: what `author` is where no account has the mail address."""
    return None if line is None else _MAIL.sub("", line)


def _names(row: RepositoryJson) -> tuple[str, str]:
    """Return owner and slug; rows of 2010 have the owner in their address alone."""
    found = _URI.fullmatch(row.resource_uri or "")
    owner, slug = row.owner or (found and found[1]), row.slug or (found and found[2])
    if not owner or not slug or "/" in f"{owner}{slug}":
        raise UpstreamShapeError(f"a repository without owner and slug: {row.slug or row.name or 'nameless'}")
    return owner, slug


def _fork_policy(row: RepositoryJson) -> str | None:
    """Return the fork policy of the two switches; before 2014 there was one."""
    if row.no_forks:
        return "no_forks"
    if row.no_public_forks:
        return "no_public_forks"
    return "allow_forks" if row.no_public_forks is False else None
