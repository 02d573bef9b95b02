"""What a webhook's body says: Bitbucket Cloud's and Data Center's events, shaped into news of repositories.

Pure: no clock, no network, no database. Fields that the mirror has no use for are not read. Text that the
mirror cannot hold is replaced as the crawl replaces it; hashes and names that git would refuse are refused.
"""

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from mirror.decoding import decoded_bytes, object_id, ref_name
from mirror.model import Ref, RefKind
from mirror.store.webhooks import RefUpdate, RepositoryEvent
from mirror.times import normalised

Body = TypeVar("Body")


class Malformed(ValueError):
    """The body is not JSON, not of the shape that its event has, or names what git cannot hold."""


class _User(msgspec.Struct, frozen=True):
    uuid: str | None = None
    display_name: str | None = None


class _Author(msgspec.Struct, frozen=True):
    raw: str | None = None
    user: _User | None = None


class _Parent(msgspec.Struct, frozen=True):
    hash: str


class _Commit(msgspec.Struct, frozen=True):
    hash: str
    date: str | None = None
    message: str | None = None
    author: _Author | None = None
    parents: list[_Parent] | None = None


class _Ref(msgspec.Struct, frozen=True):
    name: str
    target: _Commit
    type: str | None = None
    message: str | None = None
    date: str | None = None
    tagger: _Author | None = None


class _Change(msgspec.Struct, frozen=True):
    """One ref of a push to Cloud; `new` is null for one that was deleted, `old` for one that was created."""

    old: _Ref | None = None
    new: _Ref | None = None


class _Push(msgspec.Struct, frozen=True):
    changes: list[_Change]


class _Repository(msgspec.Struct, frozen=True):
    uuid: str
    full_name: str
    scm: str | None = None


class _CloudBody(msgspec.Struct, frozen=True):
    repository: _Repository
    push: _Push | None = None
    fork: _Repository | None = None


class _Project(msgspec.Struct, frozen=True):
    key: str


class _ServerRepository(msgspec.Struct, frozen=True):
    id: int
    slug: str
    project: _Project


class _ServerRef(msgspec.Struct, frozen=True, rename="camel"):
    display_id: str
    type: str


class _ServerChange(msgspec.Struct, frozen=True, rename="camel"):
    """One ref of a push to Data Center; hashes of zeros stand for none."""

    ref: _ServerRef
    from_hash: str
    to_hash: str


class _ServerBody(msgspec.Struct, frozen=True):
    repository: _ServerRepository | None = None
    changes: list[_ServerChange] = []
    new: _ServerRepository | None = None


_KINDS: dict[str, RefKind] = {"branch": "branch", "tag": "tag"}
PING = "diagnostics:ping"
"""What a server sends to try the connection, unsigned and with any body."""

CLOUD = {
    "repo:push", "repo:created", "repo:imported", "repo:updated", "repo:fork", "repo:transfer", "repo:deleted"
}  # fmt: skip
DATA_CENTER = {"repo:refs_changed", "repo:modified", "repo:forked", "repo:deleted", "repo:created"}


def read_event(event: str, body: bytes, *, datacenter: bool) -> list[RepositoryEvent] | None:
    """Read an event's body, or return None for an event that says nothing of what is mirrored.

    Raises Malformed, whose message repeats nothing of the body.
    """
    if event not in (DATA_CENTER if datacenter else CLOUD):
        _decoded(body, dict[str, msgspec.Raw])
        return None
    try:
        return list(_server_events(event, body) if datacenter else _cloud_events(event, body))
    except ValueError as error:
        raise Malformed(str(error)) from None


def _decoded(body: bytes, shape: type[Body]) -> Body:
    try:
        return decoded_bytes(body, shape)
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from None
    except (ValueError, OverflowError, RecursionError):
        raise Malformed("the body is no JSON") from None


def _cloud_events(event: str, body: bytes) -> Iterator[RepositoryEvent]:
    told = _decoded(body, _CloudBody)
    if event == "repo:push":
        if told.push is None:
            raise Malformed("a push without `push`")
        # Mercurial's names follow other rules; the run that confirms asks for them.
        changes = told.push.changes if told.repository.scm in (None, "git") else []
        updates = [move for change in changes for move in _cloud_updates(change)]
        yield RepositoryEvent(told.repository.uuid, told.repository.full_name, updates)
    elif event == "repo:fork":
        if told.fork is None:
            raise Malformed("a fork without `fork`")
        yield RepositoryEvent(told.fork.uuid, told.fork.full_name, row=True)
    else:
        yield RepositoryEvent(told.repository.uuid, told.repository.full_name, row=True)


def _cloud_updates(change: _Change) -> Iterator[RefUpdate]:
    """Yield the move of a ref; bookmarks and kinds of later days are left to the run that confirms."""
    ref = change.new or change.old
    kind = _KINDS.get(ref.type or "") if ref else None
    if ref is not None and kind is not None:
        yield RefUpdate(
            kind,
            ref_name(ref.name),
            object_id(change.old.target.hash) if change.old else None,
            _shaped(kind, change.new) if change.new else None,
        )


def _shaped(kind: RefKind, ref: _Ref) -> Ref:
    target, author = ref.target, ref.target.author or _Author()
    return Ref(
        kind=kind,
        name=ref.name,
        target_hash=object_id(target.hash),
        target_date=_moment(target.date),
        target_author=author.raw,
        target_author_name=author.user.display_name if author.user else None,
        target_author_uuid=author.user.uuid if author.user else None,
        target_message=target.message,
        target_parents=tuple(object_id(parent.hash) for parent in target.parents)
        if target.parents is not None
        else None,
        tagger=ref.tagger.raw if ref.tagger else None,
        message=ref.message if kind == "tag" else None,
        date=_moment(ref.date) if kind == "tag" else None,
    )


def _moment(text: str | None) -> str | None:
    try:
        return normalised(text) if text else None
    except (ValueError, OverflowError):
        return None


def _server_events(event: str, body: bytes) -> Iterator[RepositoryEvent]:
    told = _decoded(body, _ServerBody)
    repository = told.new or told.repository
    if repository is None:
        raise Malformed("an event without a repository")
    updates = [move for change in told.changes for move in _server_updates(change)]
    full_name = f"{repository.project.key}/{repository.slug}"
    yield RepositoryEvent(f"id:{repository.id}", full_name, updates, row=event != "repo:refs_changed")


def _server_updates(change: _ServerChange) -> Iterator[RefUpdate]:
    kind = _KINDS.get(change.ref.type.lower())
    if kind is not None:
        name = ref_name(change.ref.display_id)
        old, new = _object_id(change.from_hash), _object_id(change.to_hash)
        yield RefUpdate(kind, name, old, Ref(kind=kind, name=name, target_hash=new) if new else None)


def _object_id(text: str) -> str | None:
    """Read a hash of Data Center, where 40 or 64 zeros stand for none; raises ValueError."""
    if text in ("0" * 40, "0" * 64):
        return None
    return object_id(text)
