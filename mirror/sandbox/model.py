"""The objects and the callers of a Bitbucket, independent of any API.

Times are integers: microseconds since 1970.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def micros(moment: datetime) -> int:
    """Return a time as microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """Return the time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def pick(row: object, names: str) -> dict[str, Any]:
    """Map names to the attributes of a row with the same names; `names` are separated by spaces."""
    keys, values_of = _getter(names)
    return dict(zip(keys, values_of(row), strict=True))


@cache
def _getter(names: str) -> tuple[list[str], Callable[[object], tuple[Any, ...]]]:
    return names.split(), attrgetter(*names.split())


def iso(microseconds: int) -> str:
    """Format a time as Bitbucket does: with a fraction of six digits, or none if it is zero."""
    return moment(microseconds).isoformat()


class SandboxClock:
    """A clock that can be advanced. `tick` dates edits, so that no two have the same date."""

    def __init__(self, now: Callable[[], datetime], *, after: int) -> None:
        self._now = now
        self._ahead = 0
        self._last = after
        self._stopped: int | None = None

    def now(self) -> int:
        """Return the current time."""
        return micros(self._now()) + self._ahead if self._stopped is None else self._stopped

    @contextmanager
    def stopped(self, moment: int) -> Iterator[None]:
        """Stand still at a moment while an edit is made, perhaps again."""
        self._stopped = moment
        try:
            yield
        finally:
            self._stopped = None

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self._ahead += int(seconds * 1_000_000)

    def tick(self) -> int:
        """Return a date for an edit: now, or just after the last date if that is later."""
        self._last = max(self.now(), self._last + 1)
        return self._last


class Era(Enum):
    """The age of a row, which decides its keys: Bitbucket never rewrote its old rows."""

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
        """The account id, in one of its two forms."""
        plain = self.uuid.strip("{}")
        return f"557058:{plain}" if self.number % 2 else plain.replace("-", "")[:24]


@dataclass(slots=True)
class SandboxWorkspace:
    """A namespace of repositories, of a person or a team."""

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
        """Return whether this user is a member."""
        return any(person.username.lower() == username.lower() for person in self.members)

    def memberships(self) -> list[tuple[Person, str]]:
        """Return the members with their permissions; in some workspaces one member has two."""
        rows = [(person, "member" if index else "owner") for index, person in enumerate(self.members)]
        return [*rows, (self.members[-1], "collaborator")] if self.number % 4 == 3 else rows


@dataclass(slots=True)
class CommitAuthor:
    """The author of a commit: as git has it (`raw`), and the account, if Bitbucket knows it."""

    raw: str
    person: Person | None = None
    kind: str = "user"  # user | app_user | no_uuid


@dataclass(slots=True)
class Annotation:
    """The annotation of a tag."""

    tagger: CommitAuthor
    message: str
    date: int
    object_id: str


@dataclass(slots=True)
class SandboxRef:
    """A branch or a tag, and the commit it points to."""

    name: str
    kind: str  # branch | tag
    target: str
    date: int
    author: CommitAuthor
    message: str
    parents: tuple[str, ...] = ()
    heads: tuple[str, ...] | None = None  # hg branches only; () is a closed branch
    annotation: Annotation | None = None
    silent: bool = False  # older tags have no keys message, date and tagger

    @property
    def path(self) -> str:
        """The full name. Refs are listed in its byte order by default."""
        return f"refs/{'heads' if self.kind == 'branch' else 'tags'}/{self.name}"


@dataclass(slots=True)
class SandboxRepository:
    """A repository. `refs` is None while they are the generated ones."""

    number: int
    workspace: SandboxWorkspace
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
    archived: bool = False
    parent: int | None = None
    followers: int = 0
    era: Era = Era.NEW
    project: str = "PROJ"
    refs: list[SandboxRef] | None = None
    deleted: bool = False

    @property
    def full_name(self) -> str:
        """Workspace and slug, as they are now."""
        return f"{self.workspace.slug}/{self.slug}"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request: anonymous, a person, or a token that may see everything."""

    kind: str  # anonymous | person | token | oauth
    name: str = ""

    @property
    def sees_all(self) -> bool:
        """Whether the caller may see every repository."""
        return self.kind in {"token", "oauth"}

    @property
    def key(self) -> str:
        """The key by which requests are counted."""
        return f"{self.kind}:{self.name}" if self.name else self.kind


ANONYMOUS = Principal("anonymous")
TOKEN = Principal("token")
OAUTH = Principal("oauth")


def person(name: str) -> Principal:
    """Return the caller with this user name."""
    return Principal("person", name.lower())
