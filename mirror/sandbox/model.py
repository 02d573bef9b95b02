"""What a Bitbucket consists of, before any API has given it a shape."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_now() -> datetime:
    """Give the time of the real clock."""
    return datetime.now(UTC)


def micros(moment: datetime) -> int:
    """Turn a time into microseconds since 1970; all times here are such integers."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """Turn microseconds since 1970 into a time."""
    return _EPOCH + timedelta(microseconds=microseconds)


def iso(microseconds: int) -> str:
    """Write a time as Bitbucket does: a fraction of six digits, or none when it is zero."""
    return moment(microseconds).isoformat()


class Clock:
    """Tells the time in microseconds since 1970. Edits are dated by `tick`, so no two have the same date."""

    def __init__(self, now: Callable[[], datetime], *, after: int) -> None:
        self._now = now
        self._ahead = 0
        self._last = after

    def now(self) -> int:
        """Give the time."""
        return micros(self._now()) + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock ahead of its source."""
        self._ahead += int(seconds * 1_000_000)

    def tick(self) -> int:
        """Give a date for an edit: now, but later than all dates given before."""
        self._last = max(self.now(), self._last + 1)
        return self._last


class Era(Enum):
    """The year whose keys an object shows; the service never rewrote its old rows."""

    OLD = 2014
    MIDDLE = 2018
    NEW = 2024


@dataclass(slots=True)
class Person:
    """Somebody with an account."""

    number: int
    username: str
    display_name: str
    uuid: str
    created: int
    era: Era = Era.NEW

    @property
    def account_id(self) -> str:
        """One of the two forms that account ids have."""
        plain = self.uuid.strip("{}")
        return f"557058:{plain}" if self.number % 2 else plain.replace("-", "")[:24]


@dataclass(slots=True)
class Workspace:
    """A name space of repositories: somebody's own, or a team's."""

    number: int
    slug: str
    name: str
    uuid: str
    owner: Person | None  # None for a team
    members: list[Person]
    created: int
    first: int = 0  # the generated repositories have the numbers first, first + 1, ...
    count: int = 0
    deleted: bool = False

    def has_member(self, username: str) -> bool:
        """Tell whether this user sees the private repositories."""
        return any(person.username.lower() == username.lower() for person in self.members)

    def memberships(self) -> list[tuple[Person, str]]:
        """Give members with their permissions; in some workspaces one member has two of them."""
        rows = [(person, "member" if place else "owner") for place, person in enumerate(self.members)]
        return [*rows, (self.members[-1], "collaborator")] if self.number % 4 == 3 else rows


@dataclass(slots=True)
class Author:
    """Who wrote a commit, as git knows it (`raw`) and, with luck, as Bitbucket does."""

    raw: str
    person: Person | None = None
    kind: str = "user"  # user | app_user | no_uuid


@dataclass(slots=True)
class Annotation:
    """What an annotated tag says of itself."""

    tagger: Author
    message: str
    date: int
    object_id: str


@dataclass(slots=True)
class Ref:
    """A branch or a tag, and the commit it points to."""

    name: str
    kind: str  # branch | tag
    target: str
    date: int
    author: Author
    message: str
    parents: tuple[str, ...] = ()
    heads: tuple[str, ...] | None = None  # hg branches only; () is a closed branch
    annotation: Annotation | None = None
    silent: bool = False  # older tags lack the keys message, date and tagger altogether

    @property
    def path(self) -> str:
        """The full name; the default order of refs is its byte order."""
        return f"refs/{'heads' if self.kind == 'branch' else 'tags'}/{self.name}"


@dataclass(slots=True)
class Repository:
    """A repository. `refs` is None as long as they are the generated ones."""

    number: int
    workspace: Workspace
    slug: str
    name: str
    uuid: str
    scm: str
    created: int
    updated: int
    is_private: bool = False
    description: str = ""
    website: str | None = ""
    language: str = ""
    size: int = 0
    main_branch: str | None = None  # None: empty
    main_branch_shape: str = "full"  # full | absent | empty
    fork_policy: str = "allow_forks"
    has_issues: bool = False
    has_wiki: bool = False
    parent: int | None = None
    followers: int = 0
    era: Era = Era.NEW
    project: str = "PROJ"
    refs: list[Ref] | None = None
    deleted: bool = False

    @property
    def full_name(self) -> str:
        """The two names that find it, as they are now."""
        return f"{self.workspace.slug}/{self.slug}"
