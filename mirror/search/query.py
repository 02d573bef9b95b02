"""What is asked: a query taken apart, and the filters as SQL conditions on a row of `repositories`."""

import json
import sqlite3
from typing import Any, NamedTuple

import msgspec

from mirror.search.index.format import COLLECTIONS, GONE_PRIVATE, GONE_PUBLIC, PRIVATE, PUBLIC
from mirror.search.names import normalise

_ODD_OWNERS = "SELECT id, username FROM users WHERE username GLOB '*[^!-~]*'"
_OWNERS_FROM = """SELECT id, username FROM users
    WHERE username COLLATE NOCASE >= :low AND username COLLATE NOCASE < :low || char(1114111)"""
_NEXT_OWNER = "SELECT min(owner_id) FROM repositories WHERE owner_id > ?"
_FEW_OWNERS = 20
_ANOTHER_SCM = "SELECT 1 FROM repositories INDEXED BY repositories_other_scm WHERE scm IS NOT 'git' LIMIT 1"
_PUBLIC_OR_OF = "(is_private = 0 OR owner_id IN (SELECT value FROM json_each(:private_of)))"
_FORK = "(parent_id IS NOT NULL OR parent_uuid IS NOT NULL OR parent_full_name IS NOT NULL)"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question: `part` is looked for in names, among owners that begin with `owner_prefix`.

    `part` and the two owners are normalised. None in a filter means that it does not matter. Without
    `visible_private` only the private repositories of the owners `private_of`, rows of `users`, may be shown.
    """

    part: str
    owner_prefix: str = ""
    owner: str | None = None
    scm: str | None = None
    language: str | None = None
    private: bool | None = None
    visible_private: bool = True
    private_of: tuple[int, ...] = ()
    forks: bool | None = None
    gone: bool = False

    @property
    def needle(self) -> bytes:
        """The part as paths of the index have it."""
        return self.part.encode()

    @property
    def is_storable(self) -> bool:
        """Whether any name could contain the part; none has a lone surrogate."""
        try:
            self.part.encode()
        except UnicodeEncodeError:
            return False
        return True

    @property
    def collections(self) -> list[int]:
        """The collections of the index that may be shown."""
        hidden = {None: set[int](), True: {PUBLIC, GONE_PUBLIC}, False: {PRIVATE, GONE_PRIVATE}}[self.private]
        if not self.visible_private and not self.private_of:
            hidden |= {PRIVATE, GONE_PRIVATE}
        if not self.gone:
            hidden |= {GONE_PUBLIC, GONE_PRIVATE}
        return [collection for collection in COLLECTIONS if collection not in hidden]

    @property
    def names_owners(self) -> bool:
        """Whether only some owners' repositories are asked for."""
        return bool(self.owner_prefix) or self.owner is not None


def request_of(query: str, *, owner: str | None, **filters: Any) -> Request:
    """Take a query apart: ``owner/part`` asks for `part` among the owners that begin with `owner`."""
    before, slash, after = query.partition("/")
    return Request(
        part=normalise(after if slash else before),
        owner_prefix=normalise(before) if slash else "",
        owner=None if owner is None else normalise(owner),
        **filters,
    )


class Conditions(NamedTuple):
    """SQL conditions on a row of `repositories`, to be joined by AND, and the values they name."""

    clauses: list[str]
    values: dict[str, Any]
    is_plain: bool = False
    """Whether the collections of the index are all there is to tell rows apart by."""

    @property
    def sql(self) -> str:
        """The conditions as one expression."""
        return " AND ".join(self.clauses) or "1"

    @property
    def name_owners(self) -> bool:
        """Whether they leave out somebody's repositories."""
        return "owners" in self.values


def conditions_of(connection: sqlite3.Connection, request: Request) -> Conditions:
    """Say in SQL which rows may be shown, whatever their name."""
    clauses, values = list[str](), dict[str, Any]()
    if not request.gone:
        clauses.append("deleted_at IS NULL")
    if not request.visible_private:
        clauses.append(_PUBLIC_OR_OF if request.private_of else "is_private = 0")
        values |= {"private_of": json.dumps(request.private_of)} if request.private_of else {}
    if request.private is not None:
        clauses.append("is_private <> 0" if request.private else "is_private = 0")
    plain = 0 if request.private_of else len(clauses)  # of whom a private row is, no collection tells
    if request.forks is not None:
        clauses.append(_FORK if request.forks else f"NOT {_FORK}")
    if request.language is not None:
        clauses.append("language = :language COLLATE NOCASE")
        values["language"] = _storable(request.language)
    if request.scm is not None and connection.execute(_ANOTHER_SCM).fetchone():
        clauses.append("scm = :scm COLLATE NOCASE")
        values["scm"] = _storable(request.scm)
    elif request.scm is not None and request.scm.lower() != "git":
        clauses.append("id < 0")  # nobody: where a plain 0 stands, SQLite knows no way to use an index
    if request.names_owners:
        owners = owner_ids(connection, request)
        if not _own_everything(connection, owners):
            clauses.append("owner_id IN (SELECT value FROM json_each(:owners))")
            values["owners"] = json.dumps(owners)
    return Conditions(clauses, values, is_plain=len(clauses) == plain)


def _own_everything(connection: sqlite3.Connection, owners: list[int]) -> bool:
    """Say whether nobody else owns a repository, as in a mirror of one workspace; of many it is not asked."""
    owner_id = 0
    for _ in range(_FEW_OWNERS):
        owner_id = connection.execute(_NEXT_OWNER, (owner_id,)).fetchone()[0]
        if owner_id not in owners:
            return owner_id is None
    return False


def owner_ids(connection: sqlite3.Connection, request: Request) -> list[int]:
    """Find the owners that a request names; both of its owners must agree with a user's normalised name."""
    low = request.owner if request.owner is not None else request.owner_prefix
    if request.owner is not None and not request.owner.startswith(request.owner_prefix):
        return []
    cursor = connection.cursor()
    cursor.row_factory = None
    found = dict[int, str]()
    if low.isascii():
        found.update(cursor.execute(_OWNERS_FROM, {"low": low}).fetchall())
    found.update(cursor.execute(_ODD_OWNERS).fetchall())
    names = ((user_id, normalise(name)) for user_id, name in found.items())
    if request.owner is not None:
        return [user_id for user_id, name in names if name == request.owner]
    return [user_id for user_id, name in names if name.startswith(low)]


def _storable(text: str) -> str:
    """Replace what SQLite cannot be given; such a text equals no stored one either way."""
    return text.encode("utf-8", "replace").decode()
