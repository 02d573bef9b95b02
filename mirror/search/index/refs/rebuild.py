"""Build the index of refs from the rows, with numpy: hashes, lists by name, spans, then the trie of names.

Array shapes: R refs, D different names.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror.search.corpus import Numbers
from mirror.search.index.build import differs_from_previous
from mirror.search.index.refs.layout import (
    AGE,
    CHUNK,
    COLLECTION,
    HASH_DIGITS,
    KINDS,
    LISTS,
    NAME_COST,
    SIZES,
    TABLES,
    Sizes,
    has_hashes,
    hash_number,
    order_of,
    pack_numbers,
    text_of,
)
from mirror.search.index.refs.spans import pack_counts
from mirror.search.index.refs.trie import AllLists, AllSpans, NameTrie

_ROWS_AT_ONCE = 50_000
_NONE = 255
_COLUMNS = (np.uint32, np.uint8, np.uint32, np.uint32, np.uint32, np.bool_)
_HASH = f"substr(target_hash, 1, {HASH_DIGITS})"
_REFS = f"SELECT repository_id, name, {AGE.format(date='target_date')}, {_HASH} FROM {{table}}"
_COLLECTIONS = f"""SELECT json_group_array(id), json_group_array({COLLECTION.format(r="r")})
    FROM repositories r WHERE id >= ? AND id < ?"""

TABLES_OF_INDEX = (
    "names", "lists", "paths", "common", "rare", "spans", "blocks", "counts", "hashes", "pending", "moved",
)  # fmt: skip


def build_refs_index(connection: sqlite3.Connection, sizes: Sizes = SIZES) -> None:
    """Replace the index by one built from the rows; call it in a transaction.

    It takes about 60 bytes of memory for each ref.
    """
    for table in TABLES_OF_INDEX:
        connection.execute(f"DELETE FROM search_ref_{table}")
    refs = read_refs(connection)
    connection.execute(  # damage may have taken the row
        """INSERT INTO search_ref_state (id, up_to) VALUES (1, ?)
           ON CONFLICT (id) DO UPDATE SET up_to = excluded.up_to""",
        (refs.highest_id,),
    )
    if has_hashes(connection):
        _write_hashes(connection, refs)
    lists = _write_names_and_lists(connection, refs)
    spans = _write_spans(connection, lists, sizes)
    NameTrie(connection, refs.names, lists, spans, refs.highest_id, sizes).run()


@dataclass(slots=True)
class AllRefs:
    """All refs: the name of each, an index into `names`, its list, age, repository and hash [R].

    `names` are sorted. `hashed` says which have a hash that can be indexed [R]. Refs without a repository
    are in no list.
    """

    highest_id: int
    names: list[str]
    name: Numbers
    list: NDArray[np.uint8]
    age: Numbers
    repository: Numbers
    hash: Numbers
    hashed: NDArray[np.bool_]


class _Numbered(dict[str, int]):
    """Numbers names in the order in which they are first asked for."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


def read_refs(connection: sqlite3.Connection) -> AllRefs:
    """Read all refs."""
    highest = connection.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
    collection = np.full(highest + 1, _NONE, dtype=np.uint8)
    for first in range(0, highest + 1, _ROWS_AT_ONCE) if _has_refs(connection) else ():
        lists = connection.execute(_COLLECTIONS, (first, first + _ROWS_AT_ONCE)).fetchone()
        ids, collections = map(msgspec.json.decode, lists)
        collection[ids] = collections
    numbers = _Numbered()
    parts: list[tuple[NDArray[Any], ...]] = []
    for kind, table in enumerate(TABLES):
        cursor = connection.execute(_REFS.format(table=table))
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            ids, its_names, ages, hashes = zip(*rows, strict=True)
            repository = np.array(ids, dtype=np.uint32)
            its = collection[repository]
            parts.append(
                (
                    np.fromiter(map(numbers.__getitem__, its_names), dtype=np.uint32, count=len(rows)),
                    np.where(its == _NONE, _NONE, its * len(KINDS) + kind).astype(np.uint8),
                    np.array(ages, dtype=np.uint32),
                    repository,
                    *_hash_numbers(hashes),
                )
            )
    if not parts:
        parts.append(tuple(np.zeros(0, dtype=kind) for kind in _COLUMNS))
    name, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Numbered in the order of the names, so that the number decides between refs that are equally new.
    names = sorted(numbers)
    rank = np.empty(len(names), dtype=np.uint32)
    rank[[numbers[name] for name in names]] = np.arange(len(names), dtype=np.uint32)
    return AllRefs(highest, names, rank[name], *columns)


def _has_refs(connection: sqlite3.Connection) -> bool:
    found = " OR ".join(f"EXISTS (SELECT 1 FROM {table})" for table in TABLES)
    return bool(connection.execute(f"SELECT {found}").fetchone()[0])


def _hash_numbers(hashes: Sequence[str]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return the number of each hash, 0 for none, and whether it is one."""
    try:
        packed = bytes.fromhex("".join(hashes))
        if len(packed) == len(hashes) * HASH_DIGITS // 2 and set(map(len, hashes)) == {HASH_DIGITS}:
            return np.frombuffer(packed, dtype=">u4").astype(np.uint32), np.ones(len(hashes), dtype=bool)
    except ValueError:
        pass
    numbers = [hash_number(one) for one in hashes]
    return (
        np.array([number or 0 for number in numbers], dtype=np.uint32),
        np.array([number is not None for number in numbers], dtype=bool),
    )


def _write_hashes(connection: sqlite3.Connection, refs: AllRefs) -> None:
    kept = refs.hashed & (refs.list != _NONE)
    order = np.lexsort((refs.repository[kept], refs.hash[kept]))
    hashes, repositories = refs.hash[kept][order], refs.repository[kept][order]
    buckets = hashes >> np.uint32(16)
    digits = (hashes & np.uint32(0xFFFF)).astype("<u2").tobytes()
    packed = repositories.astype("<u4").tobytes()
    begins = np.flatnonzero(differs_from_previous(buckets)) if buckets.size else np.zeros(0, dtype=np.int64)
    cuts = [*begins.tolist(), buckets.size]
    connection.executemany(
        "INSERT INTO search_ref_hashes VALUES (?, ?, ?)",
        (
            (bucket, digits[2 * begin : 2 * end], packed[4 * begin : 4 * end])
            for bucket, begin, end in zip(buckets[begins].tolist(), cuts[:-1], cuts[1:], strict=True)
        ),
    )


def _write_names_and_lists(connection: sqlite3.Connection, refs: AllRefs) -> AllLists:
    """Write the names, numbered from 1 on, and their lists; return the lists."""
    connection.executemany(
        "INSERT INTO search_ref_names VALUES (?, ?, ?)",
        ((number, name, text_of(name)) for number, name in enumerate(refs.names, 1)),
    )
    kept = refs.list != _NONE
    place = refs.name[kept].astype(np.int64) * LISTS + refs.list[kept]
    order = np.lexsort((refs.repository[kept], refs.age[kept], place))
    place = place[order]
    lists = AllLists(
        np.zeros((len(refs.names), LISTS, 2), dtype=np.int64),
        place,
        refs.age[kept][order],
        refs.repository[kept][order],
    )
    begins = np.flatnonzero(differs_from_previous(place)) if place.size else np.zeros(0, dtype=np.int64)
    ends = np.append(begins[1:], place.size) if begins.size else begins
    lists.bounds.reshape(-1, 2)[place[begins]] = np.stack((begins, ends), axis=1)
    ages, repositories = lists.age.astype("<u4").tobytes(), lists.repository.astype("<u4").tobytes()

    def rows() -> Iterator[tuple[int, int, int, bytes, bytes]]:
        for at, begin, end in zip(place[begins].tolist(), begins.tolist(), ends.tolist(), strict=True):
            for first in range(begin, end, CHUNK):
                some = slice(4 * first, 4 * min(first + CHUNK, end))
                start = order_of(int(lists.age[first]), int(lists.repository[first]))
                yield at // LISTS + 1, at % LISTS, start, repositories[some], ages[some]

    connection.executemany("INSERT INTO search_ref_lists VALUES (?, ?, ?, ?, ?)", rows())
    return lists


def _write_spans(connection: sqlite3.Connection, lists: AllLists, sizes: Sizes) -> AllSpans:
    """Cut all refs into blocks and spans; write how many refs of each list a block has."""
    if lists.orders.size + NAME_COST * len(lists.bounds) <= sizes.counted:
        return AllSpans(np.zeros(0, dtype=np.uint32), 0)
    blocks = np.unique(np.sort(lists.orders)[:: sizes.block])
    blocks[0] = 0
    starts = blocks[:: max(sizes.span // sizes.block, 1)]
    connection.executemany("INSERT INTO search_ref_spans VALUES (?)", ((start,) for start in starts.tolist()))
    of = np.searchsorted(blocks, lists.orders, side="right") - 1
    order = np.argsort(of, kind="stable")  # within a block, refs stay in the order of their lists
    of, places = of[order], lists.place[order]
    once = np.flatnonzero(differs_from_previous(of) | differs_from_previous(places))
    counts = np.diff(np.append(once, of.size))
    # As `list_key` numbers lists; in the file, names are numbered from 1.
    of, keys = of[once], places[once] + LISTS
    cuts = [*np.flatnonzero(differs_from_previous(of)).tolist(), of.size]
    connection.executemany(
        "INSERT INTO search_ref_blocks VALUES (?, ?, ?)",
        (
            (start, pack_numbers(keys[begin:end].tolist()), pack_counts(counts[begin:end]))
            for start, (begin, end) in zip(blocks.tolist(), pairwise(cuts), strict=True)
        ),
    )
    spans = (np.searchsorted(starts, lists.orders, side="right") - 1).astype(np.uint32)
    return AllSpans(spans, starts.size)
