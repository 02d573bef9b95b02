"""What a newly seen row says that the mirrored one did not: pure comparison, no database."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

DESCRIBED = (
    "name",
    "scm",
    "description",
    "website",
    "language",
    "main_branch",
    "fork_policy",
    "has_issues",
    "has_wiki",
    "project_key",
)
"""Columns whose change is worth telling; sizes, counts and update times move with every push.

The name of a parent is none of them: edits are for everybody, and a parent may be private.
"""


class Change(NamedTuple):
    """One line of the table `changes`; `repository_id` or `user_id` says what it is about."""

    kind: str
    repository_id: int | None = None
    user_id: int | None = None
    ref: str | None = None
    old: str | None = None
    new: str | None = None


def repository_changes(
    repository_id: int, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    """Compare two rows of `repositories`; both map column names to values.

    That it was made public comes last: the rest compares with what it said in private.
    """
    if old["deleted_at"] is not None:
        yield Change("restored", repository_id, old=old["gone_reason"], new=new["full_name"])
    if old["full_name"] != new["full_name"]:
        kind = "renamed" if old["owner_id"] == new["owner_id"] else "transferred"
        yield Change(kind, repository_id, old=old["full_name"], new=new["full_name"])
    moved = [column for column in DESCRIBED if old[column] != new[column]]
    if moved:
        yield Change(
            "updated",
            repository_id,
            old=json.dumps({column: old[column] for column in moved}, ensure_ascii=False),
            new=json.dumps({column: new[column] for column in moved}, ensure_ascii=False),
        )
    if bool(old["is_private"]) != bool(new["is_private"]):
        yield Change("made_private" if new["is_private"] else "made_public", repository_id)


def ref_changes(
    repository_id: int, kind: str, old: Mapping[str, str], new: Mapping[str, str], *, complete: bool
) -> Iterator[Change]:
    """Compare the refs of one kind, name to hash; without `complete`, missing ones are not called deleted."""
    for name, target in new.items():
        if name not in old:
            yield Change(f"{kind}_created", repository_id, ref=name, new=target)
        elif old[name] != target:
            yield Change(f"{kind}_moved", repository_id, ref=name, old=old[name], new=target)
    if complete:
        for name in old.keys() - new.keys():
            yield Change(f"{kind}_deleted", repository_id, ref=name, old=old[name])
