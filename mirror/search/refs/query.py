"""A parsed query for refs, a hit of one, and SQL conditions: which repositories `r` it may show."""

import json
import re
import sqlite3
from typing import Any, NamedTuple, TypedDict, Unpack

import msgspec

from mirror.search.index.refs.layout import COLLECTION, KIND_NAMES, KINDS, has_hashes, list_of, repository_of
from mirror.search.names import (
    EXACT,
    GONE_PRIVATE,
    GONE_PUBLIC,
    PRIVATE,
    PUBLIC,
    SUBSTRING,
    match_class,
    normalise,
)
from mirror.search.query import Query, wanted_owners

COMMIT = SUBSTRING + 1
"""The match class of a ref that points to a commit whose hash begins with the query: after all names."""

_HASH = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)

Place = tuple[int, int, str]
"""The place of a ref among those of its match class: order, kind and name."""


class RefHit(NamedTuple):
    """A matching ref: match class, order (which ends with the repository's id), kind and name.

    Hits sort in the order of the results.
    """

    match: int
    order: int
    kind: int
    name: str

    @property
    def repository(self) -> int:
        """The id of the repository."""
        return repository_of(self.order)


class RefFilters(TypedDict, total=False):
    """The filters of a search for refs; one that is missing or None does not apply.

    `kind` is "branch" or "tag". `owner` is a whole username, in any case. `exact` finds only refs whose
    whole name, or whole hash, is the query. `gone` includes the refs of repositories that are gone.
    """

    kind: str | None
    owner: str | None
    exact: bool
    gone: bool


class RefQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One query. `part` is normalised; `commit` is the beginning of a hash, "" if the query is no hash.

    `owners` are the ids of the only owners whose refs are wanted, None for all. Without
    `visible_private`, private repositories are hidden, except those of the owners `private_of`.
    """

    part: str
    commit: str
    kinds: tuple[int, ...]
    exact: bool
    gone: bool
    owners: tuple[int, ...] | None
    visible_private: bool
    private_of: tuple[int, ...]

    @property
    def worst(self) -> int:
        """The worst match class of a name that is wanted."""
        return EXACT if self.exact else SUBSTRING

    @property
    def collections(self) -> list[int]:
        """The collections of which everything may be shown."""
        living = [PUBLIC, *[PRIVATE] * self.visible_private]
        return living + [one + GONE_PUBLIC - PUBLIC for one in living if self.gone]

    @property
    def private_collections(self) -> list[int]:
        """The collections of which only repositories of the owners `private_of` may be shown."""
        return [] if self.visible_private or not self.private_of else [PRIVATE, *[GONE_PRIVATE] * self.gone]

    @property
    def lists(self) -> list[int]:
        """Those lists of a name of which everything may be shown."""
        return [list_of(collection, kind) for collection in self.collections for kind in self.kinds]

    def match(self, name: str) -> int | None:
        """Return how a name matches, None if it does not or not well enough."""
        normal = normalise(name)
        match = match_class((normal, normal), self.part)
        if self.exact and not self.part:
            return EXACT if not normal else None
        return match if match is not None and match <= self.worst else None

    def is_commit(self, target: str) -> bool:
        """Return whether the query means this hash."""
        target = target.lower()
        return bool(self.commit) and (target == self.commit if self.exact else target.startswith(self.commit))

    def may_be_commit(self, digits: str) -> bool:
        """Return whether the query may mean a hash that begins with these digits."""
        length = min(len(digits), len(self.commit))
        return bool(self.commit) and digits[:length].lower() == self.commit[:length]


def is_hash(text: str) -> bool:
    """Return whether a query may mean a commit: 7 to 64 hexadecimal digits."""
    return _HASH.fullmatch(text.strip()) is not None


def parse_ref_query(
    connection: sqlite3.Connection,
    text: str,
    *,
    visible_private: bool,
    private_of: tuple[int, ...],
    **filters: Unpack[RefFilters],
) -> RefQuery:
    """Parse a query. A slash is part of a name; only the filter `owner` chooses owners."""
    owner, kind = filters.get("owner"), filters.get("kind")
    meant = Query(part="", owner=normalise(owner or ""), visible_private=visible_private)
    owners = None if owner is None else wanted_owners(connection, meant)
    return RefQuery(
        part=normalise(text),
        commit=text.strip().lower() if is_hash(text) and has_hashes(connection) else "",
        kinds=tuple(number for number in KINDS if kind in (None, KIND_NAMES[number])),
        exact=filters.get("exact", False),
        gone=filters.get("gone", False),
        owners=None if owner is None else tuple(owners.ids if owners else ()),
        visible_private=visible_private,
        private_of=private_of,
    )


class RefCondition(NamedTuple):
    """An SQL condition on a repository `r`, and the values that it names."""

    sql: str
    values: dict[str, Any]


def may_be_shown(query: RefQuery) -> RefCondition:
    """Return the condition under which the refs of a repository may be shown."""
    every, own = shown_to_all(query), shown_as_own(query)
    shown = f"({every.sql} OR {own.sql})" if query.private_collections else every.sql
    values = every.values | own.values
    if query.owners is None:
        return RefCondition(shown, values)
    owners = "r.owner_id IN (SELECT value FROM json_each(:owners))"
    return RefCondition(f"{owners} AND {shown}", values | {"owners": json.dumps(query.owners)})


def shown_to_all(query: RefQuery) -> RefCondition:
    """Return the condition under which a repository is in a collection of which everything may be shown."""
    return RefCondition(f"{COLLECTION.format(r='r')} IN ({', '.join(map(str, query.collections))})", {})


def shown_as_own(query: RefQuery) -> RefCondition:
    """Return the condition under which a hidden repository is shown, because one of `private_of` owns it."""
    sql = f"""(r.owner_id IN (SELECT value FROM json_each(:private_of))
        AND {COLLECTION.format(r="r")} IN ({", ".join(map(str, query.private_collections))}))"""
    return RefCondition(sql, {"private_of": json.dumps(query.private_of)})
