"""Branches and tags as API 2.0 usually sends them, and their extras at little cost.

A first sync spends most of its time on refs. In the usual shape, links are compared as they are, and parts
that repeat (authors, the repository) once for each text. Refs of any other shape are compared key by key,
with the same result (`mirror.api2_objects.difference`).
"""

from collections.abc import Iterable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

import msgspec

from mirror.addresses import API, WEB, Json, escaped
from mirror.api2_objects import (
    MERGE_STRATEGIES,
    author_object,
    commit_links,
    difference,
    ref_links,
    seconds,
    short_commit,
    short_repository_object,
    tagger_object,
)

Links: TypeAlias = dict[str, dict[str, str]]


class SentShortCommit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parent of a commit, or a head of a Mercurial branch."""

    type: Literal["commit"]
    hash: str
    links: Links


class SentCommit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The commit that a ref points to."""

    type: Literal["commit"]
    hash: str
    links: Links
    date: str | None
    author: msgspec.Raw
    message: str | None
    parents: list[SentShortCommit]
    repository: msgspec.Raw


class SentRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ref in the usual shape, with API and WEB in its addresses."""

    name: str
    type: Literal["branch", "named_branch", "tag"]
    target: SentCommit
    links: Links
    heads: list[SentShortCommit] | msgspec.UnsetType = msgspec.UNSET
    default_merge_strategy: str | msgspec.UnsetType = msgspec.UNSET
    merge_strategies: list[str] | msgspec.UnsetType = msgspec.UNSET
    message: str | msgspec.UnsetType | None = msgspec.UNSET
    date: str | msgspec.UnsetType | None = msgspec.UNSET
    tagger: msgspec.Raw = msgspec.Raw(b"")
    """Empty where it was not sent."""


_decode = msgspec.json.Decoder(dict[str, Any] | None).decode


@lru_cache(maxsize=2048)
def part(text: bytes) -> Json | None:
    """Decode an author or a repository, which many refs share; raises what `msgspec` does."""
    decoded: Json | None = _decode(text)
    return decoded


@lru_cache(maxsize=2048)
def _author_extra(text: bytes, raw: str | None, name: str | None, uuid: str | None) -> Json:
    """Compare an author as sent with the one that the columns of a ref give."""
    row = SimpleNamespace(target_author=raw, target_author_name=name, target_author_uuid=uuid)
    return difference({"author": part(text)}, {"author": author_object(row, API, WEB)})


class RefComparison:
    """Compares refs of one repository, as they were sent, with those that their columns give.

    `repository` has the fields of `mirror.model.Repository`.
    """

    def __init__(self, repository: Any) -> None:
        name = escaped(repository.full_name)
        self._here, self._page = f"{API}/repositories/{name}", f"{WEB}/{name}"
        self._repository = {"repository": short_repository_object(repository, API, WEB)}
        self._of_repository = dict[bytes, Json]()

    def extra_of(self, sent: SentRef, row: Any) -> Json:
        """Return the extra of a ref; `row` has the fields of `mirror.model.Ref`, and was made of `sent`."""
        is_tag, ours = row.kind == "tag", Json()
        values = {
            "type": sent.type,
            "links": sent.links,
            "default_merge_strategy": sent.default_merge_strategy,
            "merge_strategies": sent.merge_strategies,
            "message": sent.message,
            "date": sent.date,
        }
        told: Json = {key: value for key, value in values.items() if value is not msgspec.UNSET}
        if sent.heads is not msgspec.UNSET:
            told["heads"] = msgspec.to_builtins(sent.heads)
        if tagger := bytes(sent.tagger):
            told["tagger"] = part(tagger)
        ours["type"] = "tag" if is_tag else "branch" if row.heads is None else "named_branch"
        ours["links"] = ref_links(self._here, self._page, row.name, is_tag=is_tag)
        if is_tag:
            ours |= {"message": row.message, "date": seconds(row.date), "tagger": tagger_object(row)}
        else:
            ours |= MERGE_STRATEGIES
            if row.heads is not None:
                ours["heads"] = self._commits(row.heads)
        extra = difference(told, ours)
        target = self._of_commit(sent.target, row)
        return {"target": target} | extra if target else extra

    def _of_commit(self, sent: SentCommit, row: Any) -> Json:
        """Return the extra of the commit that a ref points to."""
        told = {"links": sent.links, "date": sent.date, "parents": msgspec.to_builtins(sent.parents)}
        parents = None if row.target_parents is None else self._commits(row.target_parents)
        ours = {
            "links": commit_links(self._here, self._page, sent.hash),
            "date": seconds(row.target_date),
            "parents": parents,
        }
        author, name, uuid = row.target_author, row.target_author_name, row.target_author_uuid
        return (
            difference(told, ours)
            | _author_extra(bytes(sent.author), author, name, uuid)
            | self._repository_extra(bytes(sent.repository))
        )

    def _repository_extra(self, text: bytes) -> Json:
        """Compare the repository as it was sent with a ref; all refs of a page name the same one."""
        if (extra := self._of_repository.get(text)) is None:
            extra = self._of_repository[text] = difference({"repository": part(text)}, self._repository)
        return extra

    def _commits(self, hashes: Iterable[str]) -> list[Json]:
        return [short_commit(self._here, self._page, one) for one in hashes]
