"""The format of the index of refs: sizes, orders, and how lists are packed into bytes.

Each different name of a ref is kept once, with *lists* of the refs that have it: one for each collection of
repositories and kind of refs, the newest first. The names are found by a trie of all their suffixes. A path
that many refs have is *common*: its *node* holds exact counts and the best refs. Paths of the same names
share a node. The first path below a node that is not common is *rare*: its *leaf* lists the names with it.

All refs, the newest first, are cut into *blocks* of about the same length, with the number of refs of each
list. Adjacent blocks form *spans*. A path of very many refs has their number in each span too, so that a page
far down is read from where it begins.
"""

import re
import sqlite3
import struct
import sys
from array import array
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from mirror.search.index.format import END, REFS_STATE, state_of_index
from mirror.search.names import BOUNDARY, COLLECTIONS, normalise

KINDS = range(2)
KIND_NAMES = ("branch", "tag")
TABLES = ("branches", "tags")

LISTS = len(COLLECTIONS) * len(KINDS)
"""How many lists a name can have: see `list_of`."""


class Sizes(NamedTuple):
    """How large the parts of an index are; other sizes than SIZES are for tests."""

    common_cost: int = 12_288
    """A path whose names cost more than this is common when the index is built; an update makes a node of
    a leaf at twice this. The cost is the number of refs, plus NAME_COST for each name, which is looked up."""

    span: int = 4_096
    """How many refs a span has when the index is built; an update cuts it in two at twice this."""

    counted: int = 24_576
    """The refs of a path whose names cost more than this are counted in each span; an update begins to count
    at twice as many refs. So every prefix of a counted path is counted too."""

    block: int = 256
    """How many refs a block has when the index is built; an update cuts it in two at twice this."""


SIZES = Sizes()

NAME_COST = 32

DEEPEST = 32
"""The longest path of a node, in bytes. A leaf at this depth may hold any number of names."""

LISTED, MOST_LISTED = 24, 40
"""How many refs of each kind a node lists: when it is built (a page and a few), and at most."""

CHUNK = 120
"""The most refs in a row of a list: more would need an overflow page of SQLite."""

_HEXADECIMAL = re.compile("[0-9a-fA-F]+")
_LATEST = (1 << 32) - 1
ID_BITS = 31
ID_MASK = (1 << ID_BITS) - 1

AGE = f"""({_LATEST} - min(max(coalesce(CAST(strftime('%s', {{date}}) AS INTEGER), 0), 0), {_LATEST}))"""
"""SQL for the age of a ref: whole seconds, the newest is 0; an unknown time, or one before 1970, is the
oldest."""

ORDER = f"({AGE} << {ID_BITS} | {{repository}})"
"""SQL for the order of a ref in its list: the newest first, then the repository with the lowest id."""

HIDDEN = 2**63 - 1
"""The `public_from` of a public repository whose refs were read while it was private: they are hidden."""

COLLECTION = (
    f"""(({{r}}.is_private <> 0 OR {{r}}.public_from = {HIDDEN}) + 2 * ({{r}}.deleted_at IS NOT NULL))"""
)
"""SQL for the collection of a repository's refs, as `mirror.search.names.COLLECTIONS` numbers them; `r` is
the alias of its row. Where refs are HIDDEN, it counts as private."""

NO_END = 2**63 - 1
"""Above every order."""

CHUNKS_IN_RANGE = f"""json_each(:keys) k
    CROSS JOIN search_ref_lists l ON l.name_id = k.value / {LISTS} AND l.list = k.value % {LISTS}
        AND l.start < :high AND l.start >= coalesce((SELECT max(f.start) FROM search_ref_lists f
            WHERE f.name_id = k.value / {LISTS} AND f.list = k.value % {LISTS} AND f.start <= :low), :low)"""
"""SQL for the chunks `l` of the lists `keys` that may hold orders from `low` on, below `high`.

The subquery does not name `l`, so SQLite uses it as a bound and does not read a list from its first chunk.
"""

HASH_DIGITS = 8
"""How many digits of a hash are indexed: four are the number of the bucket, four are stored in it."""


class Listed(NamedTuple):
    """A ref that a node lists: its order, and the id of its name."""

    order: int
    name_id: int


def list_of(collection: int, kind: int) -> int:
    """Return the number of the list of a collection and a kind."""
    return collection * len(KINDS) + kind


def text_of(name: str) -> bytes:
    """Return the searched text of a name, such as ``^release/2.1^``."""
    return b"".join((BOUNDARY, normalise(name).encode(), BOUNDARY))


def paths_of(
    text: bytes, common: Container[bytes], counted: Container[bytes] = ()
) -> tuple[set[bytes], set[bytes]]:
    """Return the common paths of a text, and the rare ones: one for each suffix.

    A suffix that is common to its end has a rare path that ends with END, unless it is counted in spans: no
    reader looks for the names below such a path.
    """
    passed, reached = {b""}, set[bytes]()
    ended = text + END
    for start in range(len(text)):
        end = start + 1
        while (path := ended[start:end]) in common:
            passed.add(path)
            end += 1
        if not path.endswith(END) or path[:-1] not in counted:
            reached.add(path)
    return passed, reached


def order_of(age: int, repository: int) -> int:
    """Return what ORDER does."""
    return age << ID_BITS | repository


def repository_of(order: int) -> int:
    """Return the id of the repository in an order."""
    return order & ID_MASK


def age_of(order: int) -> int:
    """Return the age in an order."""
    return order >> ID_BITS


def list_key(name_id: int, which: int) -> int:
    """Return the number of the list `which` of a name among all lists."""
    return name_id * LISTS + which


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Pack numbers of four bytes each, the lowest byte first, as the processor has them on every platform."""
    packed = numbers if isinstance(numbers, Sequence) else list(numbers)
    return struct.pack(f"<{len(packed)}I", *packed)


def unpack_numbers(packed: bytes) -> Sequence[int]:
    """Return the numbers of `pack_numbers`."""
    return struct.unpack(f"<{len(packed) // 4}I", packed)


def unpack_orders(repositories: bytes, ages: bytes) -> list[int]:
    """Return the orders of a chunk."""
    pairs = zip(unpack_numbers(ages), unpack_numbers(repositories), strict=True)
    return [age << ID_BITS | repository for age, repository in pairs]


def unpack_counts(packed: bytes, length: int) -> Sequence[int]:
    """Unpack `length` numbers, all of one, two or four bytes."""
    counts = array({1: "B", 2: "H", 4: "I"}[len(packed) // length if length else 1])
    counts.frombytes(packed)
    if sys.byteorder == "big":
        counts.byteswap()
    return counts


def pack_listed(refs: Iterable[Listed]) -> bytes:
    """Pack the refs that a node lists: age, repository and name, four bytes each."""
    return pack_numbers(part for order, name in refs for part in (age_of(order), repository_of(order), name))


def unpack_listed(packed: bytes) -> list[Listed]:
    """Return the refs of `pack_listed`."""
    numbers = unpack_numbers(packed)
    return list(map(Listed, map(order_of, numbers[::3], numbers[1::3]), numbers[2::3]))


def unpack_bucket(digits: bytes, repositories: bytes) -> list[tuple[int, int]]:
    """Return the refs of a bucket of hashes: the rest of the hash as a number, and the repository."""
    numbers = struct.unpack(f"<{len(digits) // 2}H", digits)
    return list(zip(numbers, unpack_numbers(repositories), strict=True))


def hash_number(target: str) -> int | None:
    """Return the first digits of a hash as a number, padded with zeros; None if it is no hash."""
    digits = target[:HASH_DIGITS].ljust(HASH_DIGITS, "0")
    return int(digits, 16) if _HEXADECIMAL.fullmatch(digits) else None


def up_to(connection: sqlite3.Connection) -> int:
    """Return the highest id of a repository whose refs the index knows; 0 if it was never built."""
    return int(state_of_index(connection, f"SELECT up_to FROM {REFS_STATE}")[0])


def has_hashes(connection: sqlite3.Connection) -> bool:
    """Return whether commits are searched: whether the index has the hashes of refs, or will have them."""
    return bool(state_of_index(connection, "SELECT commits FROM search_ref_state")[0])
