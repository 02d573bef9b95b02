"""What `mirror.sync` asks of any upstream, whichever API it speaks.

Every method asks one request (repeats aside) and shapes its answer; none of them stores or decides.
They raise the errors of `mirror.errors`: CredentialsRefused, UpstreamRefused (with its status),
UpstreamBusy once the repeats are used up, UpstreamShapeError, BudgetSpent, Interrupted.
All of them may be called from several threads at once.
"""

from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

from mirror.model import Member, Owner, Ref, Repository, RepositoryKey

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
