"""A parsed query, and its filters as SQL conditions on a row of `repositories`."""

import json
import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypedDict, Unpack

import msgspec

from mirror.search.names import (
    BOUNDARY,
    COLLECTIONS,
    EXACT,
    GONE_PRIVATE,
    GONE_PUBLIC,
    PREFIX,
    PRIVATE,
    PUBLIC,
    SUBSTRING,
    normalise,
)

_ODD_OWNERS = "SELECT id, username FROM users WHERE username GLOB '*[^!-~]*'"
_NAMED = "username = :owner COLLATE NOCASE"
_BEGINS = "username COLLATE NOCASE >= :owner AND username COLLATE NOCASE < :owner || char(1114111)"
_BEGINS_OTHERWISE = """(username COLLATE NOCASE < :owner OR username IS NULL
    OR username COLLATE NOCASE >= :owner || char(1114111))"""
_ANOTHER_OWNER = """SELECT EXISTS (SELECT 1 FROM users WHERE username COLLATE NOCASE < :owner)
    OR EXISTS (SELECT 1 FROM users WHERE username COLLATE NOCASE >= :owner || char(1114111))
    OR EXISTS (SELECT 1 FROM users WHERE username IS NULL)
    OR EXISTS (SELECT 1 FROM users WHERE username GLOB '*[^!-~]*')"""
_MOST_BEGIN = f"""SELECT 2 * total({_BEGINS}) > count(*) FROM users
    WHERE id IN (SELECT value FROM json_each(:some))"""
_SOME_OWNERS = 32
_OWNED = "owner_id IN (SELECT value FROM json_each(:owners))"
_OWNED_BY_MANY = f"""({_OWNED} OR EXISTS (SELECT 1 FROM users WHERE users.id = owner_id AND {_BEGINS}
    AND username NOT GLOB '*[^!-~]*'))"""
_MANY_OWNERS = 1_000
_NEXT_OWNER = "SELECT min(owner_id) FROM repositories WHERE owner_id > ?"
_FEW_OWNERS = 20
_ANOTHER_SCM = "SELECT 1 FROM repositories INDEXED BY repositories_other_scm WHERE scm IS NOT 'git' LIMIT 1"
_PUBLIC_OR_OF = "(is_private = 0 OR owner_id IN (SELECT value FROM json_each(:private_of)))"

SWITCHES = {
    "forks": "(parent_id IS NOT NULL OR parent_uuid IS NOT NULL OR parent_full_name IS NOT NULL)",
    "archived": "(archived IS 1)",
}
"""Filters that take only repositories that meet a condition, only others, or both."""


class Filters(TypedDict, total=False):
    """The filters of a search; one that is missing or None does not apply.

    `owner` is a whole username. `owner`, `scm` and `language` match in any case. Switches and `private` are
    True for only such repositories, False for only others. `gone` includes repositories that have disappeared
    upstream. `descriptions` finds words of descriptions too, behind the names.
    """

    owner: str | None
    scm: str | None
    language: str | None
    private: bool | None
    forks: bool | None
    archived: bool | None
    gone: bool
    descriptions: bool


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One query with its filters. `part`, `owner_prefix` and `owner` are normalised; `written` is not.

    `part` is searched in names and, as `written`, in descriptions, among the owners whose username begins
    with `owner_prefix` and, if given, equals `owner`. A filter that is None does not filter.
    `visible_private` False hides private repositories except those of the owners `private_of`, ids of
    `users`.
    """

    part: str
    written: str = ""
    owner_prefix: str = ""
    owner: str | None = None
    scm: str | None = None
    language: str | None = None
    private: bool | None = None
    visible_private: bool = True
    private_of: tuple[int, ...] = ()
    forks: bool | None = None
    archived: bool | None = None
    gone: bool = False
    descriptions: bool = False

    @property
    def needle(self) -> bytes:
        """The part as bytes, as searched texts and the index have it."""
        return self.part.encode()

    @property
    def class_paths(self) -> list[tuple[int, bytes]]:
        """The match classes, the best first, each with the path of its hits and all better ones.

        Example for `flask`: (EXACT, ``^flask^``), (PREFIX, ``^flask``), (SUBSTRING, ``flask``).
        """
        needle = self.needle
        paths = [(EXACT, BOUNDARY + needle + BOUNDARY), (PREFIX, BOUNDARY + needle)] if needle else []
        return [*paths, (SUBSTRING, needle)]

    @property
    def collections(self) -> tuple[int, ...]:
        """The collections of the index that may be shown."""
        shows_private = self.visible_private or bool(self.private_of)
        return _collections(private=self.private, shows_private=shows_private, gone=self.gone)

    @property
    def filters_owners(self) -> bool:
        """Whether the repositories of only some owners are wanted."""
        return bool(self.owner_prefix) or self.owner is not None


@cache
def _collections(*, private: bool | None, shows_private: bool, gone: bool) -> tuple[int, ...]:
    hidden = {None: set[int](), True: {PUBLIC, GONE_PUBLIC}, False: {PRIVATE, GONE_PRIVATE}}[private]
    if not shows_private:
        hidden |= {PRIVATE, GONE_PRIVATE}
    if not gone:
        hidden |= {GONE_PUBLIC, GONE_PRIVATE}
    return tuple(collection for collection in COLLECTIONS if collection not in hidden)


def parse_query(
    text: str, *, visible_private: bool, private_of: tuple[int, ...], **filters: Unpack[Filters]
) -> Query:
    """Parse a query: ``owner/part`` searches `part` among the owners that `wanted_owners` returns."""
    owner = filters.get("owner")
    others: dict[str, Any] = {name: value for name, value in filters.items() if name != "owner"}
    before, slash, after = text.partition("/")
    written = after if slash else before
    return Query(
        part=normalise(written),
        written=written,
        owner_prefix=normalise(before) if slash else "",
        owner=None if owner is None else normalise(owner),
        visible_private=visible_private,
        private_of=private_of,
        **others,
    )


def plain_cursor(connection: sqlite3.Connection) -> sqlite3.Cursor:
    """Return a cursor whose rows are tuples, regardless of the connection's row factory."""
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor


class Owners(NamedTuple):
    """The owners whose repositories are wanted or, with `excluded`, are not: ids of `users` as a JSON list.

    A beginning may have 100,000 owners. SQL writes such a text faster than rows, and numpy reads it.
    """

    text: str = "[]"
    number: int = 0
    excluded: bool = False

    @property
    def ids(self) -> list[int]:
        """The ids as numbers."""
        return msgspec.json.decode(self.text, type=list[int])

    @property
    def are_many(self) -> bool:
        """Whether they are too many for a list in SQL."""
        return self.number > _MANY_OWNERS


KnownOwners = dict[tuple[str, str], Owners]
"""What was read of owners: by the condition on their names, and what the names were compared with."""


class Conditions(NamedTuple):
    """SQL conditions on a row of `repositories`, to be joined by AND, and the values they refer to."""

    clauses: list[str]
    values: dict[str, Any]
    is_plain: bool = False
    """Whether the conditions only choose among the collections, so that the counts of the index apply."""
    owners: Owners | None = None
    """The owners whose repositories are wanted; None for all."""

    @property
    def sql(self) -> str:
        """The conditions as one expression."""
        return " AND ".join(self.clauses) or "1"


def sql_conditions(
    connection: sqlite3.Connection, query: Query, known: KnownOwners | None = None
) -> Conditions:
    """Return which rows may be shown, regardless of their name. `known` keeps the owners that are read."""
    clauses, values = list[str](), dict[str, Any]()
    if not query.gone:
        clauses.append("deleted_at IS NULL")
    if not query.visible_private:
        clauses.append(_PUBLIC_OR_OF if query.private_of else "is_private = 0")
        values |= {"private_of": json.dumps(query.private_of)} if query.private_of else {}
    if query.private is not None:
        clauses.append("is_private <> 0" if query.private else "is_private = 0")
    plain = 0 if query.private_of else len(clauses)  # the private collection does not tell owners apart
    switched = {condition: getattr(query, name) for name, condition in SWITCHES.items()}
    clauses += [("" if wanted else "NOT ") + one for one, wanted in switched.items() if wanted is not None]
    if query.language is not None:
        clauses.append("language = :language COLLATE NOCASE")
        values["language"] = _encodable(query.language)
    if query.scm is not None and connection.execute(_ANOTHER_SCM).fetchone():
        clauses.append("scm = :scm COLLATE NOCASE")
        values["scm"] = _encodable(query.scm)
    elif query.scm is not None and query.scm.lower() != "git":
        clauses.append("id < 0")  # matches nothing; with a plain 0, SQLite would not use any index
    owners = wanted_owners(connection, query, known) if query.filters_owners else None
    if owners is not None and _own_everything(connection, owners):
        owners = None
    if owners is not None and not owners.are_many:
        clauses.append(f"NOT {_OWNED}" if owners.excluded else _OWNED)
        values["owners"] = owners.text
    elif owners is not None:
        clauses.append(_OWNED_BY_MANY)
        odd = [one for one, name in _odd_owners(connection) if name.startswith(query.owner_prefix)]
        values |= {"owners": json.dumps(odd), "owner": query.owner_prefix}
    return Conditions(clauses, values, is_plain=len(clauses) == plain, owners=owners)


def _own_everything(connection: sqlite3.Connection, owners: Owners) -> bool:
    """Return whether these owners own every repository, as in a mirror of one workspace.

    Only the first _FEW_OWNERS owners of the file are looked at; beyond that the answer is False.
    """
    if owners.are_many:
        return False
    owner_id, ids = 0, set(owners.ids)
    for _ in range(_FEW_OWNERS):
        owner_id = connection.execute(_NEXT_OWNER, (owner_id,)).fetchone()[0]
        if owner_id is None:
            return True
        if (owner_id in ids) == owners.excluded:
            return False
    return False


def wanted_owners(
    connection: sqlite3.Connection, query: Query, known: KnownOwners | None = None
) -> Owners | None:
    """Return the owners that match both `owner` and `owner_prefix`; None if everybody does.

    A prefix that is the whole name of an owner stands for this owner alone: `big/` does not list `bigteam`.
    """
    owner, prefix, known = query.owner, query.owner_prefix, {} if known is None else known
    meant = _owners(connection, _NAMED, prefix, known) if prefix else Owners()
    if any(_is_told(connection, query, one) for one in meant.ids):
        return meant if owner in (None, prefix) else Owners()
    if owner is not None:
        return _owners(connection, _NAMED, owner, known) if owner.startswith(prefix) else Owners()
    if prefix.isascii() and not connection.execute(_ANOTHER_OWNER, {"owner": prefix}).fetchone()[0]:
        return None
    if prefix.isascii() and _most_begin_with(connection, prefix):
        return _owners(connection, _BEGINS_OTHERWISE, prefix, known)._replace(excluded=True)
    return _owners(connection, _BEGINS, prefix, known)


_MATCHES: dict[str, Callable[[str, str], bool]] = {
    _NAMED: str.__eq__,
    _BEGINS: str.startswith,
    _BEGINS_OTHERWISE: lambda name, start: not name.startswith(start),
}
"""The conditions as Python has them, for names that SQL cannot compare."""


def _most_begin_with(connection: sqlite3.Connection, prefix: str) -> bool:
    """Guess from some owners whether most begin so; then it is quicker to read the others."""
    highest = connection.execute("SELECT max(id) FROM users").fetchone()[0] or 0
    some = list(range(1, highest + 1, highest // _SOME_OWNERS + 1))
    values = {"owner": prefix, "some": json.dumps(some)}
    return bool(connection.execute(_MOST_BEGIN, values).fetchone()[0])


def _owners(connection: sqlite3.Connection, condition: str, owner: str, known: KnownOwners) -> Owners:
    """Return owners; SQL decides on plain names, ASCII without spaces, Python on others."""
    found = known.get((condition, owner))
    if found is None:
        found = known[condition, owner] = _read_owners(connection, condition, owner)
    return found


def _read_owners(connection: sqlite3.Connection, condition: str, owner: str) -> Owners:
    plain = Owners()
    if owner.isascii():
        sql = f"SELECT json_group_array(id), count(*) FROM users WHERE {condition}"
        plain = Owners(*plain_cursor(connection).execute(sql, {"owner": owner}).fetchone())
    odd = dict(_odd_owners(connection))
    if not odd:
        return plain
    matches = _MATCHES[condition]
    ids = [row_id for row_id in plain.ids if row_id not in odd]
    ids += [row_id for row_id, name in odd.items() if matches(name, owner)]
    return Owners(json.dumps(ids), len(ids))


def _odd_owners(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """Return the id and the normalised name of the owners whose names are not plain, few or none."""
    found = plain_cursor(connection).execute(_ODD_OWNERS).fetchall()
    return [(row_id, normalise(name)) for row_id, name in found]


def owned_ids(connection: sqlite3.Connection, conditions: Conditions, most: int) -> set[int] | None:
    """Return the ids of all repositories of the wanted owners; None if they are more than `most`, or all."""
    owners = conditions.owners
    if owners is None or owners.excluded or owners.are_many:
        return None
    found = plain_cursor(connection).execute(
        f"SELECT id FROM repositories WHERE {_OWNED} LIMIT :most",
        {"owners": conditions.values["owners"], "most": most + 1},
    )
    ids = {row[0] for row in found.fetchall()}
    return ids if len(ids) <= most else None


def _is_told(connection: sqlite3.Connection, query: Query, owner: int) -> bool:
    """Return whether the caller may know that an owner exists: by a repository of theirs, a gone one too.

    An owner of hidden repositories alone must not change what others are answered.
    """
    visible = "1" if query.visible_private else _PUBLIC_OR_OF
    values = {"owner": owner, "private_of": json.dumps(query.private_of)}
    owns = f"EXISTS (SELECT 1 FROM repositories WHERE owner_id = :owner AND {visible})"
    is_owner = "(SELECT is_owner FROM users WHERE id = :owner)" if query.visible_private else "0"
    return bool(connection.execute(f"SELECT {owns} OR {is_owner}", values).fetchone()[0])


def is_encodable(text: str) -> bool:
    """Return whether a text can be encoded. If not (a lone surrogate), no stored name contains it."""
    return _encodable(text) == text


def _encodable(text: str) -> str:
    """Replace lone surrogates, which SQLite refuses. No stored text has any, so none matches either way."""
    return text.encode("utf-8", "replace").decode()
