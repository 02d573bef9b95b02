"""The interface of an upstream, for any API: what a sync and a write need. Pages, their rows and links."""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from mirror.addresses import API_PATHS, origins_of
from mirror.credentials import REDACTED, Redact
from mirror.decoding import decoded_bytes
from mirror.errors import UpstreamShapeError
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey, RepositorySettings
from mirror.upstream.response import shown, shown_url

Row = TypeVar("Row")
Json = TypeVar("Json")
ListingOrder = Literal["created", "newest-update"]

_FIELDS = re.compile(r"(?<=[?&]fields=)[^&#]*")
_PAGE_LENGTH = re.compile(r"(?<=[?&])pagelen=(\d{1,4})(?![^&#])")
_PAGE_NUMBER = re.compile(r"(?<=[?&])page=([^&#]*)")

SHRINKS_BY = 10  # by how much the number of rows is divided if a page is too large


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be read, on a page that could; `what` names it as precisely as possible."""

    what: str
    error: str


NOT_PUBLIC = "not public"


class Page(msgspec.Struct, Generic[Row], frozen=True, kw_only=True):
    """One page of a listing.

    - `next`: the cursor of the next page, to be passed back unchanged; None after the last page.
    - `size`: the number of rows in the whole listing; None if the upstream does not report it.
    - `date`: the upstream's clock at the time of the answer.
    - `skipped`: the page could not be read, and the listing continues after it.
    - `full_length`: the maximum number of rows, if the page has that many and may not be the last; else 0.
    - `note`: tells the user what the listing leaves out.
    - `age`: how many seconds before `date` another mirror had seen what it sent; 0 from others.
    - `doubt`: why another mirror has to read these refs again; they may be of a private time if NOT_PUBLIC.
    - `told`: distinguishes pages with the same rows, if the rows are only the owners of what was listed.
    """

    rows: tuple[Row, ...]
    next: str | None
    size: int | None
    date: datetime
    bad: tuple[BadRow, ...] = ()
    skipped: bool = False
    full_length: int = 0
    note: str = ""
    age: int = 0
    doubt: str = ""
    told: tuple[str, ...] = ()


class Upstream(Protocol):
    """One Bitbucket server.

    Each method sends one request, apart from retries, and stores nothing. Several threads may call them at
    once. They raise CredentialsRefused, UpstreamRefused (with its status), UpstreamBusy after the
    last retry, UpstreamShapeError, BudgetSpent and Interrupted. A `cursor` is None for the first page, then
    `Page.next` of the page before.
    """

    name: str
    # Whether no credential is configured, so that members and private repositories cannot be read.
    anonymous: bool
    # Whether repositories can be listed by their latest update, so that an incremental run is short.
    orders_by_update: bool
    knows_hg: bool  # if False, every repository is git, so a missing `scm` means git
    # Whether repositories can be requested only by name, and get a slug that the server makes of it.
    knows_names_only: bool
    # The fields of RepositorySettings that no answer of this kind of upstream has.
    never_tells: frozenset[str]

    def fetch_current_user(self) -> Owner | None:
        """Request the person whom the credential belongs to; None if there is none.

        Raises CredentialsRefused if the upstream treats the credential as anonymous.
        """

    def fetch_workspaces(self, cursor: str | None) -> Page[Owner]:
        """Request a page of the namespaces that the credential can see."""

    def fetch_workspace(self, workspace: str) -> Owner:
        """Request one namespace."""

    def fetch_members(self, workspace: str, cursor: str | None) -> Page[Member]:
        """Request a page of the members of a namespace; needs a credential."""

    def fetch_repositories(self, workspace: str, order: ListingOrder, cursor: str | None) -> Page[Repository]:
        """Request a page of a namespace's repositories, oldest first or newest update first."""

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Request one repository by its identity, even if it was renamed."""

    def find_repository(self, full_name: str) -> Repository:
        """Request the repository that has this name now."""

    def fetch_refs(self, key: RepositoryKey, cursor: str | None) -> Page[Ref]:
        """Request a page of branches and tags together."""

    def is_ancestor(self, key: RepositoryKey, commit: str, of: str) -> bool | None:
        """Ask whether a commit is an ancestor `of` another one, or the same; None if the answer is unclear.

        A 404 means that one of them no longer exists.
        """

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """Create a repository; some upstreams take no slug and derive it from the name."""

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """Change the given settings; a new name changes the slug."""

    def delete_repository(self, key: RepositoryKey) -> None:
        """Delete a repository for good."""

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """Copy a repository into a namespace, under the given name."""

    def close(self) -> None:
        """Close the connections."""


def is_reached(commit: str, left: Sequence[str | None], *, more: bool) -> bool | None:
    """Return whether another commit reaches `commit`; None if the answer is unclear.

    `left` are the commits that lead to `commit` and that the other one does not reach, newest first; `more`
    says that further pages follow. If any are left, `commit` must be the first: a server that ignores the
    parameters lists other commits, which proves nothing.
    """
    if not left:
        return None if more else True
    return False if left[0] == commit else None


def checked_next(link: str, asked: str, api: str, redact: Redact) -> str:
    """Return a `next` link, made absolute, that was found at the address `asked`.

    Raises UpstreamShapeError for one that leaves the API at the address `api`, or leads back to `asked`, or
    has more in it than `asked` of the secret that `redact` removes: addresses are shown and stored.
    """
    clean = redact(link)
    # A short secret may be a part of the host or of a workspace's name.
    adds_secret = clean.count(REDACTED) > link.count(REDACTED) + redact(asked).count(REDACTED)
    paths = tuple(f"{path}/" for path in (urlsplit(api).path.rstrip("/"), *API_PATHS))
    try:
        is_plain = link.isprintable() and " " not in link and not adds_secret
        link = urljoin(asked, link)
        parts = urlsplit(link)
        is_known = is_plain and f"{parts.scheme}://{parts.netloc}" in origins_of(api)
        is_known = is_known and parts.path.startswith(paths)
    except ValueError:
        is_known = False
    if not is_known:
        raise UpstreamShapeError(
            f"{shown_url(asked)}: the next page is said to be at {shown_url(clean)}, which is not part of"
            f" {shown_url(api)}: not followed"
        )
    if link == asked:
        raise UpstreamShapeError(f"{shown_url(asked)}: the link to the next page is this page itself")
    return link


def fields_of(url: str) -> str | None:
    """Return the `fields` parameter of an address, still encoded; None without one."""
    found = _FIELDS.search(url)
    return found[0] if found else None


def with_fields(url: str, fields: str) -> str:
    """Return an address with another `fields` parameter, which must be encoded."""
    if _FIELDS.search(url):
        return _FIELDS.sub(lambda _: fields, url, count=1)
    return f"{url}{'&' if '?' in url else '?'}fields={fields}"


def with_shorter_pages(url: str, by: int) -> str | None:
    """Return the address of a shorter page that begins at the same row; None if that is impossible.

    `by` is how many times shorter it is. If the page number is a text, only the server knows where it begins.
    """
    length, number = _PAGE_LENGTH.search(url), _PAGE_NUMBER.search(url)
    if length is None or int(length[1]) < by or (number is not None and not number[1].isdecimal()):
        return None
    shorter = int(length[1]) // by
    if number is not None:
        first = (int(number[1]) - 1) * int(length[1])
        if first % shorter:
            return None
        url = url[: number.start(1)] + str(first // shorter + 1) + url[number.end(1) :]
    return _PAGE_LENGTH.sub(f"pagelen={shorter}", url)


def page_after(url: str) -> tuple[int, str] | None:
    """Return the number of a page and the address of the next one; None if its number is a text."""
    number = _PAGE_NUMBER.search(url)
    if number is None:
        return 1, f"{url}{'&' if '?' in url else '?'}page=2"
    if re.fullmatch(r"[1-9][0-9]{0,8}", number[1]) is None:
        return None
    following = int(number[1]) + 1
    return following - 1, f"{url[: number.start(1)]}{following}{url[number.end(1) :]}"


class RowDecoder(Generic[Row]):
    """Decodes the rows of a page; a bad row does not affect the others."""

    def __init__(self, kind: type[Json], convert: Callable[[Json], Row]) -> None:
        """`kind` is the struct of one JSON row; `convert` turns it into a value of the model."""
        self._decode = msgspec.json.Decoder(kind).decode
        self._kind, self._convert = kind, convert

    def _decode_row(self, raw: msgspec.Raw) -> Row:
        try:
            return self._convert(self._decode(raw))
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):  # not UTF-8, which is repaired
            return self._convert(decoded_bytes(bytes(raw), self._kind))

    def decode(
        self,
        values: Iterable[msgspec.Raw],
        keep: Callable[[Row, bytes], Row] | None = None,
        usual: Callable[[msgspec.Raw], Row | None] | None = None,
        *,
        redact: Redact,
    ) -> tuple[tuple[Row, ...], tuple[BadRow, ...]]:
        """Return the good rows and the bad ones, of which `redact` removes secrets.

        `keep` adds to each row the JSON that it was made from; `usual` returns a row with that, or None.
        """
        rows, bad = list[Row](), list[BadRow]()
        for raw in values:
            if usual is not None and (quick := usual(raw)) is not None:
                rows.append(quick)
                continue
            try:
                row = self._decode_row(raw)
                rows.append(row if keep is None else keep(row, bytes(raw)))
            except (msgspec.MsgspecError, UpstreamShapeError, ValueError, RecursionError) as error:
                what = shown(redact(_name_of(bytes(raw))), 100)
                bad.append(BadRow(what=what, error=shown(redact(str(error)))))
        return tuple(rows), tuple(bad)


class _Names(msgspec.Struct, frozen=True):
    """The keys that may name a row, even if the rest of it is broken."""

    full_name: object = None
    name: object = None
    displayId: object = None  # noqa: N815 - as Data Center writes it
    slug: object = None
    uuid: object = None


def _name_of(raw: bytes) -> str:
    """Return the best known name of a bad row."""
    try:
        found = decoded_bytes(raw, _Names)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "a row"
    names = (found.full_name, found.name, found.displayId, found.slug, found.uuid)
    return next((name for name in names if isinstance(name, str) and name), "a row")
