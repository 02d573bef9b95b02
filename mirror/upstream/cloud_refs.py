"""Refs as API 2.0 usually sends them, read by comparing texts of JSON.

A first sync spends most of its time on refs. In the usual shape, links follow from names and hashes: they are
compared as texts, and not decoded. Authors and repositories, which many refs share, are decoded once for each
text. A ref of any other shape is read in the general way (`mirror.upstream.cloud_decode.to_ref`), with the
same result.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, Literal

import msgspec

from mirror.addresses import API, WEB, Json, Teller, Told, escaped
from mirror.api2_extras import difference
from mirror.api2_objects import (
    MERGE_STRATEGIES,
    author_object,
    commit_links,
    ref_links,
    seconds,
    tagger_object,
)
from mirror.api2_usual import UsualRef
from mirror.decoding import moment
from mirror.model import Ref
from mirror.upstream.cloud_decode import AuthorJson, person

Strategies = tuple[str | msgspec.UnsetType, tuple[str, ...] | msgspec.UnsetType]


class _LinkedCommit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parent of a commit, or a head of a Mercurial branch."""

    type: Literal["commit"]
    hash: str
    links: msgspec.Raw


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The commit that a ref points to."""

    type: Literal["commit"]
    hash: str
    links: msgspec.Raw
    date: str | None
    author: msgspec.Raw
    message: str | None
    parents: list[_LinkedCommit]
    repository: msgspec.Raw


class _Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ref; `tagger` is empty where it was not sent."""

    name: str
    type: Literal["branch", "named_branch", "tag"]
    target: _Target
    links: msgspec.Raw
    heads: list[_LinkedCommit] | msgspec.UnsetType = msgspec.UNSET
    default_merge_strategy: str | msgspec.UnsetType = msgspec.UNSET
    merge_strategies: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    message: str | msgspec.UnsetType | None = msgspec.UNSET
    date: str | msgspec.UnsetType | None = msgspec.UNSET
    tagger: msgspec.Raw = msgspec.Raw(b"")


class _FullName(msgspec.Struct, frozen=True):
    """A repository within a ref."""

    full_name: str


_decode = msgspec.json.Decoder(_Sent).decode
_decode_name = msgspec.json.Decoder(_FullName).decode
_NAME, _KEY = b"\0", b"\1"  # in no address

_decode_author = msgspec.json.Decoder(AuthorJson | None).decode


class _LinkTexts:
    """Tells texts of links of one kind; `ours` makes them, with each name `times`.

    Their order and the spaces between them are the server's. They are learned from the first text that fits.
    """

    def __init__(self, tell: Teller, ours: Callable[[str, str, str], Json], times: int) -> None:
        self._tell, self._ours, self._times = tell, ours, times
        self._learned = b""  # with _NAME for that of the repository, _KEY for that of the commit or ref

    def between(self, repository: bytes) -> list[bytes]:
        """Return the pieces between keys in a repository of an escaped name; an empty list if not learned."""
        # A workspace may be called like the paths of the API, behind which other addresses begin.
        if not self._learned or not self._tell.is_page(repository.decode()):
            return []
        return self._learned.replace(_NAME, repository).split(_KEY)

    def learn(self, text: bytes, repository: str, name: str, key: bytes) -> list[bytes] | None:
        """Return the pieces of a text between its keys, or None if these are other links."""
        at = f"{API}/repositories/{repository}", f"{WEB}/{repository}"
        if self._tell(text).value != self._ours(*at, name):
            return None
        pieces = text.split(key)
        if len(pieces) != self._times + 1:  # other parts of the addresses look like the name
            return []
        learned = _KEY.join(pieces)
        if learned.count(repository.encode()) == self._times:
            self._learned = learned.replace(repository.encode(), _NAME)
        return pieces


class _Links:
    """Tells texts of links of one kind in one repository, of an escaped name."""

    def __init__(self, texts: _LinkTexts, repository: str) -> None:
        self._texts, self._repository = texts, repository
        self._between = texts.between(repository.encode())

    def are_of(self, name: str, key: bytes, links: msgspec.Raw) -> bool:
        """Return whether a text is that of a name, which stands in addresses as `key`.

        Raises what `msgspec.json.decode` does.
        """
        text = bytes(links)
        if self._between and key.join(self._between) == text:
            return True
        pieces = self._texts.learn(text, self._repository, name, key)
        if pieces:
            self._between = pieces
        return pieces is not None


class _UsualRepository:
    """What all refs of a repository have in common; `text` is that of the repository within a ref.

    Raises what `msgspec.json.decode` does, also if it does not tell the name.
    """

    def __init__(
        self, tell: Teller, commits: _LinkTexts, refs: Mapping[str, _LinkTexts], text: bytes
    ) -> None:
        self.part = _part(tell, text) or {}
        self.full_name = _decode_name(text).full_name
        name = escaped(self.full_name)
        self._commits = _Links(commits, name)
        self._refs = {kind: _Links(texts, name) for kind, texts in refs.items()}

    def has_links_of(self, sent: _Sent) -> bool:
        """Return whether all links of a ref are ours."""
        ref = self._refs["tag" if sent.type == "tag" else "branch"]
        return (
            ref.are_of(sent.name, escaped(sent.name).encode(), sent.links)
            and self._is_ours(sent.target)
            and all(map(self._is_ours, sent.target.parents))
            and (not sent.heads or all(map(self._is_ours, sent.heads)))
        )

    def _is_ours(self, commit: _LinkedCommit | _Target) -> bool:
        key = commit.hash.encode()  # what else it may hold could be written in JSON by escapes
        return key.isalnum() and self._commits.are_of(commit.hash, key, commit.links)


class UsualRefs:
    """Reads refs in the usual shape; `tell` decodes the parts that are read.

    Several threads may use it at once.
    """

    def __init__(self, tell: Teller) -> None:
        self._tell = tell
        self._author = lru_cache(2048)(partial(_author, tell))
        commits = _LinkTexts(tell, commit_links, 2)
        refs = {kind: partial(ref_links, is_tag=kind == "tag") for kind in ("branch", "tag")}
        texts = {kind: _LinkTexts(tell, ours, 3) for kind, ours in refs.items()}
        self._repository = lru_cache(64)(partial(_UsualRepository, tell, commits, texts))
        self._of_tag = lru_cache(2048)(partial(_extra_of_tag, tell))

    def read(self, raw: msgspec.Raw) -> Ref | None:
        """Return a ref, or None for one of another shape."""
        try:
            return self._read(raw, _decode(raw))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _read(self, raw: msgspec.Raw, sent: _Sent) -> Ref | None:
        target, text = sent.target, bytes(sent.target.repository)
        repository = self._repository(text)
        written, date = moment(target.date), None if sent.date is msgspec.UNSET else moment(sent.date)
        are_dates_ours = seconds(written) == target.date and (
            sent.date is msgspec.UNSET or seconds(date) == sent.date
        )
        if not are_dates_ours or not repository.has_links_of(sent):
            return None
        rest, tagger = self._rest(sent)
        if rest is None:
            return None
        author, name, uuid, extra = self._author(bytes(target.author))
        told = UsualRef(
            raw=raw, tell=self._tell, full_name=repository.full_name, repository=text,
            repository_part=repository.part, author=extra, rest=rest,
        )  # fmt: skip
        return Ref(
            kind="tag" if sent.type == "tag" else "branch",
            name=sent.name,
            target_hash=target.hash,
            target_date=written,
            target_author=author,
            target_author_name=name,
            target_author_uuid=uuid,
            target_message=target.message,
            target_parents=tuple([parent.hash for parent in target.parents]),
            heads=tuple([head.hash for head in sent.heads]) if sent.heads is not msgspec.UNSET else None,
            tagger=tagger,
            message=None if sent.message is msgspec.UNSET else sent.message,
            date=date,
            told=Told(told, self._tell.anonymous),
        )

    def _rest(self, sent: _Sent) -> tuple[Json | None, str | None]:
        """Return the extra of what a branch or a tag has of its own, and the tagger.

        The extra is None where one has what only the other usually has.
        """
        strategies = (sent.default_merge_strategy, sent.merge_strategies)
        own = (bytes(sent.tagger), sent.message is not msgspec.UNSET, sent.date is not msgspec.UNSET)
        if sent.type != "tag":
            fits = own == (b"", False, False) and (sent.heads is msgspec.UNSET) == (sent.type == "branch")
            return _extra_of_branch(strategies) if fits else None, None
        if strategies != (msgspec.UNSET, msgspec.UNSET) or sent.heads is not msgspec.UNSET:
            return None, None
        return self._of_tag(own)


def _part(tell: Teller, text: bytes) -> Json | None:
    """Decode an author or a repository; raises ValueError for anything else than an object or null."""
    value = tell(text).value
    if value is not None and not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _author(tell: Teller, text: bytes) -> tuple[str | None, str | None, str | None, Json]:
    """Return an author's line, the name and uuid of the account, and the extra."""
    told, author = _part(tell, text), _decode_author(text) or AuthorJson()
    name, uuid = person(author.user), author.user.uuid if author.user else None
    row = SimpleNamespace(target_author=author.raw, target_author_name=name, target_author_uuid=uuid)
    return author.raw, name, uuid, difference({"author": told}, {"author": author_object(row, API, WEB)})


@lru_cache(64)
def _extra_of_branch(strategies: Strategies) -> Json:
    told = dict(zip(MERGE_STRATEGIES, strategies, strict=True))
    sent = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in told.items()
        if value is not msgspec.UNSET
    }
    return difference(sent, MERGE_STRATEGIES)


def _extra_of_tag(tell: Teller, own: tuple[bytes, bool, bool]) -> tuple[Json, str | None]:
    """Return the extra of a tag, whose message and date are those of its columns, and the tagger's line.

    `own` is the text of the tagger, and whether a message and a date were sent.
    """
    tagger, *sent = own
    told: Json = {key: None for key, is_sent in zip(("message", "date"), sent, strict=True) if is_sent}
    line = None
    if tagger:
        told["tagger"] = _part(tell, tagger)
        line = (_decode_author(tagger) or AuthorJson()).raw
    ours: Any = {"message": None, "date": None, "tagger": tagger_object(SimpleNamespace(tagger=line))}
    return difference(told, ours), line
