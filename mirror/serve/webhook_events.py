"""Decodes webhooks of Bitbucket Cloud and Data Center into events of repositories: pure functions.

Text that the mirror cannot store is replaced as in the crawl, and a change of an unknown shape is left to the
next run; hashes and names that git would refuse are errors.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from mirror.decoding import decoded_bytes, moment, object_id, ref_name
from mirror.model import Ref, RefKind
from mirror.store.webhooks import RefUpdate, RepositoryEvent

Body = TypeVar("Body")


class Malformed(ValueError):
    """The body is not JSON or lacks the shape of its event, or git would refuse a hash or name in it."""


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
    """One ref of a push to Cloud; `new` is null for a deleted ref, `old` for a created one."""

    old: _Ref | None = None
    new: _Ref | None = None
    forced: bool | None = None


class _Push(msgspec.Struct, frozen=True):
    changes: list[msgspec.Raw]


class _Repository(msgspec.Struct, frozen=True):
    uuid: str
    full_name: str
    scm: str | None = None
    is_private: object = None


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
    public: object = None


class _ServerRef(msgspec.Struct, frozen=True, rename="camel"):
    display_id: str
    type: str


class _ServerChange(msgspec.Struct, frozen=True, rename="camel"):
    """One ref of a push to Data Center; a hash of zeros means none."""

    ref: _ServerRef
    from_hash: str
    to_hash: str


class _ServerBody(msgspec.Struct, frozen=True):
    repository: _ServerRepository | None = None
    changes: list[msgspec.Raw] = []
    new: _ServerRepository | None = None


_KINDS: dict[str, RefKind] = {"branch": "branch", "tag": "tag"}
# The event by which a server tests the connection, without a signature and with any body.
PING = "diagnostics:ping"

CLOUD = {
    "repo:push", "repo:created", "repo:imported", "repo:updated", "repo:fork", "repo:transfer", "repo:deleted"
}  # fmt: skip
DATA_CENTER = {"repo:refs_changed", "repo:modified", "repo:forked", "repo:deleted", "repo:created"}


def read_event(event: str, body: bytes, *, datacenter: bool) -> list[RepositoryEvent] | None:
    """Read the body of an event; return None for an event about something that is not mirrored.

    Raises Malformed, whose message quotes nothing of the body.
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
        raise Malformed("the body is not JSON") from None


def _readable(changes: Iterable[msgspec.Raw], shape: type[Body]) -> Iterator[Body]:
    """Yield the changes of a push that have this shape. For others, the next run asks the upstream."""
    for raw in changes:
        try:
            change = decoded_bytes(bytes(raw), shape)
        except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
            continue  # a refusal would lose the other changes, and the hint at the repository
        yield change


def _cloud_events(event: str, body: bytes) -> Iterator[RepositoryEvent]:
    decoded = _decoded(body, _CloudBody)
    if event == "repo:push":
        if decoded.push is None:
            raise Malformed("a push without `push`")
        # Mercurial has other rules for names. The next run asks the upstream for its refs.
        changes = decoded.push.changes if decoded.repository.scm in (None, "git") else []
        updates = [update for change in _readable(changes, _Change) for update in _cloud_updates(change)]
        is_private = decoded.repository.is_private is True
        yield RepositoryEvent(
            decoded.repository.uuid, decoded.repository.full_name, updates, is_private=is_private
        )
    elif event == "repo:fork":
        if decoded.fork is None:
            raise Malformed("a fork without `fork`")
        yield RepositoryEvent(decoded.fork.uuid, decoded.fork.full_name, row=True)
    else:
        yield RepositoryEvent(decoded.repository.uuid, decoded.repository.full_name, row=True)


def _cloud_updates(change: _Change) -> Iterator[RefUpdate]:
    """Yield the update of a ref of a known kind. For bookmarks, the next run asks the upstream."""
    ref = change.new or change.old
    kind = _KINDS.get(ref.type or "") if ref else None
    if ref is not None and kind is not None:
        yield RefUpdate(
            kind,
            ref_name(ref.name),
            object_id(change.old.target.hash) if change.old else None,
            _shaped(kind, change.new) if change.new else None,
            change.forced,
        )


def _shaped(kind: RefKind, ref: _Ref) -> Ref:
    target, author = ref.target, ref.target.author or _Author()
    return Ref(
        kind=kind,
        name=ref.name,
        target_hash=object_id(target.hash),
        target_date=moment(target.date),
        target_author=author.raw,
        target_author_name=author.user.display_name if author.user else None,
        target_author_uuid=author.user.uuid if author.user else None,
        target_message=target.message,
        target_parents=tuple(object_id(parent.hash) for parent in target.parents)
        if target.parents is not None
        else None,
        tagger=ref.tagger.raw if ref.tagger else None,
        message=ref.message if kind == "tag" else None,
        date=moment(ref.date) if kind == "tag" else None,
    )


def _server_events(event: str, body: bytes) -> Iterator[RepositoryEvent]:
    decoded = _decoded(body, _ServerBody)
    repository = decoded.new or decoded.repository
    if repository is None:
        raise Malformed("an event without a repository")
    changes = _readable(decoded.changes, _ServerChange)
    updates = [update for change in changes for update in _server_updates(change)]
    full_name = f"{repository.project.key}/{repository.slug}"
    yield RepositoryEvent(
        f"id:{repository.id}",
        full_name,
        updates,
        row=event != "repo:refs_changed",
        is_private=repository.public is False,
    )


def _server_updates(change: _ServerChange) -> Iterator[RefUpdate]:
    kind = _KINDS.get(change.ref.type.lower())
    if kind is not None:
        name = ref_name(change.ref.display_id)
        old, new = _object_id(change.from_hash), _object_id(change.to_hash)
        # The hash of a tag may be that of its annotation. The next run asks the upstream for its commit.
        if kind == "branch" or new is None:
            yield RefUpdate(kind, name, old, Ref(kind=kind, name=name, target_hash=new) if new else None)


def _object_id(text: str) -> str | None:
    """Read a hash of Data Center; None for 40 or 64 zeros. Raises ValueError."""
    if text in ("0" * 40, "0" * 64):
        return None
    return object_id(text)
