"""Branches and tags in the usual shape of API 2.0, and their extras at little cost.

What is sent of such a ref is known but for three parts (`mirror.upstream.cloud_refs`), which many refs share.
So its extra is put together of theirs, with the same result as a comparison of all keys
(`mirror.api2_objects.difference`).
"""

from typing import Any

import msgspec

from mirror.addresses import API, WEB, Json, Teller
from mirror.api2_objects import difference, ref_object, short_repository_object


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
