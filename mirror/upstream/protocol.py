"""What `mirror.sync.crawl` asks of any upstream, whichever API it speaks.

Every method asks one request (repeats aside) and shapes its answer; none of them stores or decides.
They raise the errors of `mirror.errors`: CredentialsRefused, UpstreamRefused (with its status),
UpstreamBusy once the repeats are used up, UpstreamShapeError, BudgetSpent, Interrupted.
All of them may be called from several threads at once.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

from mirror.errors import UpstreamShapeError
from mirror.lenient_json import decoded_bytes
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey, RepositorySettings
from mirror.upstream.response import shown

Row = TypeVar("Row")
Order = Literal["created", "newest-update"]


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a listing that could not be understood, though its page could; `what` names it if possible."""

    what: str
    error: str


class Page(msgspec.Struct, Generic[Row], frozen=True, kw_only=True):
    """One answer of a listing.

    `place` is where the next page is, to be handed back as it is, or None after the last. `size` is how
    many rows the whole listing has, where the upstream says. `date` is the upstream's clock when it
    answered. `hole` is true where the upstream could not give this page at all and it was stepped over.
    `note` tells the user what a listing leaves out.
    """

    rows: tuple[Row, ...]
    place: str | None
    size: int | None
    date: datetime
    bad: tuple[BadRow, ...] = ()
    hole: bool = False
    note: str = ""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who the upstream takes us for; `user` is None for credentials that act for no person."""

    user: Owner | None


class Upstream(Protocol):
    """A Bitbucket, as seen from here."""

    name: str
    anonymous: bool
    """True when no credential is configured: members and private repositories are out of reach."""
    orders_by_update: bool
    """True when repositories can be listed newest update first, so that an incremental run is short."""

    def fetch_caller(self) -> Caller:
        """Ask who we are; raises CredentialsRefused when the credential reads as nobody."""

    def fetch_workspaces(self, place: str | None) -> Page[Owner]:
        """Ask for a page of the namespaces that the caller can see."""

    def fetch_workspace(self, workspace: str) -> Owner:
        """Ask for one namespace."""

    def fetch_members(self, workspace: str, place: str | None) -> Page[Member]:
        """Ask for a page of the members of a namespace; needs a credential."""

    def fetch_repositories(self, workspace: str, order: Order, place: str | None) -> Page[Repository]:
        """Ask for a page of a namespace's repositories, oldest first or newest update first."""

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Ask for one repository by its identity, whatever it is called today."""

    def fetch_refs(self, key: RepositoryKey, place: str | None) -> Page[Ref]:
        """Ask for a page of branches and tags together."""

    def close(self) -> None:
        """Let go of the connections."""


Shape = TypeVar("Shape")


class _Rough(msgspec.Struct, frozen=True):
    """What may name a row that is broken otherwise."""

    full_name: object = None
    name: object = None
    displayId: object = None  # noqa: N815 - as Data Center writes it
    slug: object = None
    uuid: object = None


class Rows(Generic[Row]):
    """Decodes rows as `kind` and shapes them; a bad row costs itself alone."""

    def __init__(self, kind: type[Shape], shape: Callable[[Shape], Row]) -> None:
        decode = msgspec.json.Decoder(kind).decode

        def decode_and_shape(raw: msgspec.Raw) -> Row:
            try:
                return shape(decode(raw))
            except msgspec.ValidationError:
                raise
            except (msgspec.DecodeError, UnicodeDecodeError):  # bytes that are no UTF-8
                return shape(decoded_bytes(bytes(raw), kind))

        self._shape = decode_and_shape

    def read(self, values: Iterable[msgspec.Raw]) -> tuple[tuple[Row, ...], tuple[BadRow, ...]]:
        """Return the good rows, and what was wrong with the others."""
        rows, bad = list[Row](), list[BadRow]()
        for raw in values:
            try:
                rows.append(self._shape(raw))
            except (msgspec.MsgspecError, UpstreamShapeError, ValueError, RecursionError) as error:
                bad.append(BadRow(what=named(bytes(raw)), error=shown(str(error))))
        return tuple(rows), tuple(bad)


def named(raw: bytes) -> str:
    """Name a row that could not be shaped, as well as it can be."""
    try:
        rough = decoded_bytes(raw, _Rough)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "a row"
    names = (rough.full_name, rough.name, rough.displayId, rough.slug, rough.uuid)
    return next((shown(name, 100) for name in names if isinstance(name, str) and name), "a row")


class WritableUpstream(Upstream, Protocol):
    """A Bitbucket that can be written to."""

    knows_hg: bool
    """False where every repository is git, so that a missing `scm` can mean nothing else."""

    never_tells: frozenset[str]
    """Settings that no answer of this kind of upstream holds."""

    def find_repository(self, full_name: str) -> Repository:
        """Ask for the repository that has this name now, whichever it is."""

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """Create a repository; some upstreams make the slug of the name and take none."""

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """Change what is said; another name changes the slug."""

    def delete_repository(self, key: RepositoryKey) -> None:
        """Delete a repository for good."""

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """Copy a repository into a namespace, under the name that is said."""
