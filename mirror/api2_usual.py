"""Repositories, branches and tags in the usual shape of API 2.0, and their extras at little cost.

What is sent of such an object is known but for some parts, which many objects share (see `cloud_repositories`
and `cloud_refs` in `mirror.upstream`). So its extra is put together of theirs, with the same result as a
comparison of all keys (`mirror.api2_extras.difference`); that of a repository is put together as a text.
"""

from functools import lru_cache
from typing import Any

import msgspec

from mirror.addresses import API, WEB, Json, Teller
from mirror.api2_extras import difference, encoded
from mirror.api2_objects import (
    owner_objects,
    project_object,
    ref_object,
    repository_object,
    short_repository_object,
)
from mirror.model import Owner, Repository

_NOBODY = Owner(uuid="", username="")
_EMPTY = Repository(
    uuid="", owner=_NOBODY, slug="", name="", full_name="", followers_count=0, forks_count=0
)  # fmt: skip
OURS = repository_object(_EMPTY, _NOBODY, API, WEB)
"""What the mirror makes of a repository without any values; its keys are those of all repositories."""

OPTIONAL = ("followers_count", "forks_count")
"""The keys that only repositories with a value have."""


class UsualRepository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository as it was sent, with most values those of its columns.

    - `raw`: the whole of it; `tell` decodes it.
    - `keys`: in the order in which they were sent.
    - `is_private`: as sent.
    - `of_owner`: the text and the value of what has to be compared with the owner's columns, by key.
    - `differing`: the text of the extras of other keys.
    """

    raw: bytes
    tell: Teller
    keys: tuple[str, ...]
    is_private: bool
    of_owner: dict[str, tuple[bytes, Any]]
    differing: dict[str, bytes]

    @property
    def account(self) -> Any:
        """The account of the owner within it."""
        return self.of_owner["owner"][1] if "owner" in self.of_owner else None


def part_extra(key: str, told: Any, ours: Any) -> bytes:
    """Return the text of the extra of one key; an empty one if nothing differs."""
    extra = difference({key: told}, {key: ours})
    return encoded(extra[key]) if extra else b""


class RepositoryComparison:
    """Compares repositories of one owner, as they were sent, with those that their columns give.

    `owner` has the fields of `mirror.model.Owner`.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._ours = owner_objects(owner, API, WEB)
        self._known = dict[tuple[str, bytes], bytes]()

    def extra_of(self, sent: UsualRepository, row: Repository) -> bytes:
        """Return the text of the extra of a repository; `row` was made of `sent`."""
        if sent.is_private != row.is_private:  # another row had the same uuid
            told = sent.tell(sent.raw).value
            return encoded(difference(told, repository_object(row, self._owner, API, WEB)))
        parts = dict(sent.differing)
        for key, (text, told) in sent.of_owner.items():
            if (part := self._known.get((key, text))) is None:
                ours = project_object(row, self._owner, API, WEB) if key == "project" else self._ours[key]
                part = self._known[key, text] = part_extra(key, told, ours)
            if part:
                parts[key] = part
        found = [b'"%b":%b' % (key.encode(), parts[key]) for key in sent.keys if key in parts]
        return b"{%b}" % b",".join([*found, *_missing(sent.keys)])


@lru_cache(256)
def _missing(keys: tuple[str, ...]) -> list[bytes]:
    """Return the texts of the extras of keys that were not sent."""
    return [b'"%b":[]' % key.encode() for key in OURS if key not in keys and key not in OPTIONAL]


class UsualRef(msgspec.Struct, frozen=True, kw_only=True):
    """A ref as it was sent, with links and dates that are those of its columns.

    - `raw`: the whole of it; `tell` decodes it.
    - `full_name`: of the repository that the links belong to.
    - `repository`: the text of the repository within it, `repository_part` what that says.
    - `author`: the extra of the commit's author.
    - `rest`: the extra of the keys beside `target`. Refs that share it or `author` have the same object.
    """

    raw: msgspec.Raw
    tell: Teller
    full_name: str
    repository: bytes
    repository_part: Json
    author: Json
    rest: Json


class RefComparison:
    """Compares refs of one repository, as they were sent, with those that their columns give.

    `repository` has the fields of `mirror.model.Repository`.
    """

    def __init__(self, repository: Any) -> None:
        self._repository = repository
        self._ours = {"repository": short_repository_object(repository, API, WEB)}
        self._of_repository = dict[bytes, Json]()
        self._known = dict[tuple[int, int, bytes], tuple[UsualRef, Json]]()

    def extra_of(self, sent: UsualRef, row: Any) -> Json:
        """Return the extra of a ref, the same object for those that share their parts.

        `row` has the fields of `mirror.model.Ref`, and was made of `sent`.
        """
        if sent.full_name != self._repository.full_name:  # renamed since the row was read
            told = sent.tell(bytes(sent.raw)).value
            return difference(told, ref_object(self._repository, row, API, WEB))
        parts = (id(sent.author), id(sent.rest), sent.repository)
        if (known := self._known.get(parts)) is None:
            target = sent.author | self._repository_extra(sent)
            extra = {"target": target} | sent.rest if target else sent.rest
            known = self._known[parts] = (sent, extra)  # `sent` keeps the objects that the ids are of
        return known[1]

    def _repository_extra(self, sent: UsualRef) -> Json:
        """Compare the repository as it was sent with a ref; all refs of a page name the same one."""
        if (extra := self._of_repository.get(sent.repository)) is None:
            extra = difference({"repository": sent.repository_part}, self._ours)
            self._of_repository[sent.repository] = extra
        return extra
