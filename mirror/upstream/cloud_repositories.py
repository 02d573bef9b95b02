"""Repositories as API 2.0 usually sends them, read by comparing texts of JSON.

In the usual shape, most values are exactly those of the columns, and links follow from the name and the uuid:
they are compared as texts, once for all repositories whose links are alike. Owners, workspaces and projects
are decoded once for each text. A repository of any other shape is read in the general way
(`mirror.upstream.cloud_decode.to_repository`), with the same result.
"""

import re
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

import msgspec

from mirror.addresses import API, WEB, Teller, Told, escaped
from mirror.api2_extras import encoded
from mirror.api2_objects import main_branch_object, moment, parent_object, repository_links
from mirror.api2_usual import OPTIONAL, OURS, UsualRepository, part_extra
from mirror.errors import UpstreamShapeError
from mirror.model import Repository
from mirror.upstream.cloud_decode import LinksJson, RepositoryJson, to_repository

_OF_OWNER = ("owner", "workspace", "project")
_CONSTANT = ("override_settings", "enforced_signed_commits")
_COMPARED = (
    "uuid", "full_name", "slug", "name", "is_private", "size", "followers_count", "forks_count", "created_on",
    "updated_on",
)  # fmt: skip
_NAME, _IDENTITY = b"~~/~~", b"~~id~~"  # in texts of links without "~"
_UUID = re.compile(r"\{[0-9a-f-]{36}\}")

_values = attrgetter(*_COMPARED)
_decode = msgspec.json.Decoder(RepositoryJson).decode
_decode_texts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_links = msgspec.json.Decoder(LinksJson | None).decode


class UsualRepositories:
    """Reads repositories in the usual shape; `tell` decodes the parts that are read.

    Several threads may use it at once.
    """

    def __init__(self, tell: Teller) -> None:
        self._tell = tell
        self._value = lru_cache(2048)(partial(_value, tell))
        self._constant = lru_cache(256)(partial(_constant_extra, tell))
        self._main_branch = lru_cache(256)(partial(_main_branch_extra, tell))
        self._links = lru_cache(256)(partial(_links_extra, tell))

    def read(self, raw: msgspec.Raw) -> Repository | None:
        """Return a repository, or None for one of another shape."""
        try:
            return self._read(bytes(raw))
        except (msgspec.MsgspecError, UpstreamShapeError, ValueError, RecursionError):
            return None

    def _read(self, raw: bytes) -> Repository | None:
        texts = _decode_texts(raw)
        if not OURS.keys() >= texts.keys():
            return None
        sent = _decode(raw)
        row = to_repository(sent)
        differing = _differing_values(row, sent, texts)
        if differing is None:
            return None
        for key in _CONSTANT:
            if key in texts:
                differing[key] = self._constant(key, bytes(texts[key]))
        if "mainbranch" in texts:
            differing["mainbranch"] = self._main_branch(
                bytes(texts["mainbranch"]), row.main_branch, row.scm == "hg"
            )
        if "parent" in texts and sent.parent is not None:
            parent = self._tell(bytes(texts["parent"])).value
            differing["parent"] = part_extra("parent", parent, parent_object(row, API, WEB))
        if "links" in texts:
            links = self._links_extra(bytes(texts["links"]), row)
            if links is None:
                return None
            differing["links"] = links
        told = UsualRepository(
            raw=raw,
            tell=self._tell,
            keys=tuple(texts),
            is_private=row.is_private,
            of_owner={key: self._value(bytes(texts[key])) for key in _OF_OWNER if key in texts},
            differing={key: extra for key, extra in differing.items() if extra},
        )
        return msgspec.structs.replace(row, told=Told(told, self._tell.anonymous))

    def _links_extra(self, text: bytes, row: Repository) -> bytes | None:
        """Return the text of the extra of links; None where they do not show which parts are the name."""
        full_name, uuid = row.full_name, row.uuid[1:-1]
        name, identity = full_name.encode(), uuid.encode()
        is_plain = (
            b"~" not in text
            and b"\\" not in text
            and escaped(full_name) == full_name
            and not self._tell.looks_for(f"{row.owner.username}/")
            and not self._tell.looks_for(uuid)
            # The parts of our own links that look like the name are no part of it.
            and _OUR_LINKS.replace(_NAME, name).replace(name, _NAME) == _OUR_LINKS
        )
        if not is_plain:
            return None
        alike = text.replace(name, _NAME).replace(identity, _IDENTITY)
        extra = self._links(alike, row.has_issues)
        return extra.replace(_IDENTITY, identity).replace(_NAME, name)


def _differing_values(
    row: Repository, sent: RepositoryJson, texts: dict[str, msgspec.Raw]
) -> dict[str, bytes] | None:
    """Return the extras of single values; None if one is of an unusual kind. Others are copied to columns."""
    ours = (
        row.uuid, row.full_name, row.slug, row.name, row.is_private, row.size, row.followers_count,
        row.forks_count, moment(row.created_at), moment(row.updated_at),
    )  # fmt: skip
    if (
        _UUID.fullmatch(row.uuid) is None
        or bytes(texts.get("type", b"")) != b'"repository"'
        or any(value.__class__ is float for value in (sent.size, sent.followers_count, sent.forks_count))
        or any(key in texts and getattr(row, key) is None for key in OPTIONAL)
    ):
        return None
    told = _values(sent)
    if told == ours:
        return {}
    return {
        key: part_extra(key, value, own)
        for key, value, own in zip(_COMPARED, told, ours, strict=True)
        if value != own
    }


def _value(tell: Teller, text: bytes) -> tuple[bytes, Any]:
    return text, tell(text).value


def _constant_extra(tell: Teller, key: str, text: bytes) -> bytes:
    return part_extra(key, tell(text).value, OURS[key])


def _main_branch_extra(tell: Teller, text: bytes, name: str | None, is_hg: bool) -> bytes:  # noqa: FBT001
    return part_extra("mainbranch", tell(text).value, main_branch_object(name, is_hg=is_hg))


def _our_links(links: LinksJson | None, has_issues: bool | None) -> Any:  # noqa: FBT001
    """Make the links of a repository whose name is to be filled in."""
    row = to_repository(RepositoryJson(full_name=_NAME.decode(), has_issues=has_issues, links=links))
    return repository_links(row, API, WEB)


_OUR_LINKS = encoded(_our_links(None, has_issues=True))


def _links_extra(tell: Teller, text: bytes, has_issues: bool | None) -> bytes:  # noqa: FBT001
    """Return the extra of links in which the name and the uuid are to be filled in."""
    return part_extra("links", tell(text).value, _our_links(_decode_links(text), has_issues))
