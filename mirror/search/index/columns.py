"""The columns of the index: what filters and the order of results look at, as one array each, by row id.

A query that many repositories match is answered from these arrays instead of from rows. They are stored in
chunks of 2**14 ids. Where they cannot tell all about a row, its flags say UNSURE, and readers read the row.

Beside them stand the bits of dense paths: of those that a large share of all texts contain, one bit for each
id. The lists of such paths would be long to read. Like those, the bits may have ids whose text no longer has
the path, but never lack one. A path that becomes dense later gets its bits at the next rebuild.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from threading import Lock, RLock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror.search.index.backlog import IndexedText, PreparedRows
from mirror.search.index.format import (
    KNOWN,
    TIME_SIZES,
    UNSURE,
    VALUES,
    time_number,
)
from mirror.search.query import plain_cursor

TYPES = {
    "flags": "u1",
    "language": "<u2",
    "owner": "<u4",
    "followers": "<u4",
    "forks": "<u4",
    "created": "<i8",
}
"""The arrays and their types. `language` is a code of `search_languages`, 0 for none; `created` is in
microseconds, -1 for unknown."""

_STAMP = "stamp"
"""Stands beside the names of columns; its data differ for each state of them."""

CHUNK = 1 << 14
_VALUES = ", ".join(VALUES)

_PUT = "INSERT OR REPLACE INTO search_columns VALUES (?, ?, ?)"
_PUT_CHUNK = f"INSERT INTO search_columns VALUES {', '.join(['(?, ?, ?)'] * len(TYPES))}"

Columns = Mapping[str, NDArray[Any]]


class ColumnWriter:
    """Writes the columns of some rows; those of others stay as they are."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = plain_cursor(connection)
        self._codes: dict[str | None, int] = {None: 0}

    def write(self, ids: NDArray[Any], columns: Columns) -> None:
        """Write the columns of rows, by id, in ascending order. What was UNSURE stays so."""
        begins = np.flatnonzero(np.diff(ids // CHUNK, prepend=-1)).tolist()
        for begin, end in zip(begins, [*begins[1:], ids.size], strict=True):
            chunk, places = int(ids[begin]) // CHUNK, ids[begin:end] % CHUNK
            for name, values in columns.items():
                found = self._cursor.execute(
                    "SELECT data FROM search_columns WHERE name = ? AND chunk = ?", (name, chunk)
                ).fetchone()
                known = np.frombuffer(found[0] if found else b"", TYPES[name])
                more = max(0, int(places[-1]) + 1 - known.size)
                data = np.append(known, np.zeros(more, TYPES[name])) if more else known
                after = values[begin:end] | (data[places] & UNSURE if name == "flags" else 0)
                if more or (data[places] != after).any():  # most changes touch one column
                    data = data.copy()
                    data[places] = after
                    self._cursor.execute(_PUT, (name, chunk, data.tobytes()))
        self.stamp([ids, *(columns[name] for name in TYPES)])

    def write_chunk(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        """Write what `chunk_rows` returned for a chunk that has no columns yet; then call `stamp`."""
        # In one statement: each lets go of Python's lock, and waits for it behind other threads.
        self._cursor.execute(_PUT_CHUNK, list(chain.from_iterable(rows)))

    def stamp(self, written: Iterable[NDArray[Any]] = ()) -> None:
        """Change the stamp to the digest of all that was ever written: the same for the same state."""
        before = read_stamp(self._cursor)
        digest = blake2b(before or b"", digest_size=16)
        if before is None:
            for (data,) in self._cursor.execute("SELECT data FROM search_columns ORDER BY name, chunk"):
                digest.update(data)
        for values in written:
            digest.update(values.astype("<i8").tobytes())
        self._cursor.execute(_PUT, (_STAMP, 0, digest.digest()))

    def codes(self, languages: Sequence[str | None]) -> NDArray[np.int64]:
        """Return the code of each language; new ones get one."""
        # In the order of the rows: that of a set differs in each process, and so would published files.
        for language in dict.fromkeys(languages):
            if language not in self._codes:
                self._add_language(language)
        return np.array(list(map(self._codes.__getitem__, languages)), np.int64)

    def _add_language(self, language: str | None) -> None:
        """Learn the code of a language, a new one if need be. Case makes no difference."""
        self._cursor.execute("INSERT OR IGNORE INTO search_languages (language) VALUES (?)", (language,))
        self._codes[language] = language_code(self._cursor, language) or 0


class Encoded(NamedTuple):
    """Some rows as numbers: their columns, and what ranks them (followers, forks and creation, exactly).

    With an odd time, `popularity` does not say which of the rows are newer.
    """

    columns: dict[str, NDArray[Any]]
    popularity: NDArray[np.int64]
    has_odd_times: bool


def encoded(
    codes: NDArray[np.int64],
    flags: Sequence[int],
    owners: Sequence[int],
    followers: Sequence[int],
    forks: Sequence[int],
    created: Sequence[str | None],
) -> Encoded:
    """Return what the index keeps of some rows of VALUES; `codes` are those of their languages."""
    times, odd = times_as_numbers(created)
    popularity = np.array([followers, forks, times], np.int64)
    columns = _columns(flags, codes, owners, *popularity)
    unsure = odd | (columns["language"] != codes)
    unsure |= (columns["followers"] != popularity[0]) | (columns["forks"] != popularity[1])
    columns["flags"][unsure] |= UNSURE
    return Encoded(columns, popularity, bool(odd.any()))


def _columns(*values: "Sequence[int] | NDArray[Any]") -> dict[str, NDArray[Any]]:
    """Return columns of values in the order of TYPES; one that does not fit becomes the nearest that does."""
    bounds = [np.iinfo(kind) for kind in TYPES.values()]
    return {
        name: np.array(some, np.int64).clip(bound.min, bound.max).astype(TYPES[name])
        for name, some, bound in zip(TYPES, values, bounds, strict=True)
    }


def chunk_rows(ids: NDArray[Any], columns: Columns) -> list[tuple[str, int, bytes]]:
    """Return the rows of `search_columns` for all rows of one chunk, by id."""
    chunk, places = int(ids[0]) // CHUNK, ids % CHUNK
    rows = list[tuple[str, int, bytes]]()
    for name, values in columns.items():
        data = np.zeros(int(places.max()) + 1, TYPES[name])
        data[places] = values
        rows.append((name, chunk, data.tobytes()))
    return rows


def language_code(cursor: sqlite3.Cursor, language: str | None) -> int | None:
    """Return the code of a language; None if no repository ever had it."""
    row = cursor.execute("SELECT code FROM search_languages WHERE language = ?", (language,)).fetchone()
    return row[0] if row else None


def update_columns(connection: sqlite3.Connection, changed: PreparedRows) -> None:
    """Write the columns of the pending rows as they are now; call it in a transaction."""
    columns = _columns(
        changed.flags, changed.languages, changed.owners, changed.followers, changed.forks, changed.created
    )
    renamed = [was not in (b"", now) for was, now in zip(changed.was_texts, changed.texts, strict=True)]
    columns["flags"][renamed] |= UNSURE
    ColumnWriter(connection).write(np.array(changed.ids), columns)


def read_stamp(cursor: sqlite3.Cursor) -> bytes | None:
    """Return what names the state of the columns; None if they were written before there were stamps."""
    row = cursor.execute("SELECT data FROM search_columns WHERE name = ?", (_STAMP,)).fetchone()
    return row[0] if row else None


def read_column(cursor: sqlite3.Cursor, name: str, size: int | None = None) -> NDArray[Any]:
    """Return one column, of the ids below `size` or of all; 0 stands for what was never written."""
    if size is None:
        last = "SELECT chunk, length(data) FROM search_columns WHERE name = ? ORDER BY chunk DESC LIMIT 1"
        chunk, length = cursor.execute(last, (name,)).fetchone() or (0, 0)
        size = chunk * CHUNK + length // np.dtype(TYPES[name]).itemsize
    column = np.zeros(size, TYPES[name])
    for chunk, data in cursor.execute("SELECT chunk, data FROM search_columns WHERE name = ?", (name,)):
        part = column[chunk * CHUNK : (chunk + 1) * CHUNK]
        part[: len(data) // part.itemsize] = np.frombuffer(data, part.dtype)[: part.size]
    return column


_TIME = "0000-00-00T00:00:00.000000Z"  # the form that `mirror.times` writes
_DIGITS = np.array([index for index, letter in enumerate(_TIME) if letter == "0"])
_SIGNS = np.array([index for index, letter in enumerate(_TIME) if letter != "0"])
_SIGN_BYTES = np.frombuffer(b"--T::.Z", dtype=np.uint8)[:, None]


def times_as_numbers(texts: Sequence[str | None]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return times as numbers of the same order, -1 for None; and which are not of the form _TIME."""
    known = np.array([text is not None for text in texts])
    filled = [_TIME if text is None else text for text in texts]
    odd = np.fromiter(map(len, filled), np.int64, len(filled)) != len(_TIME)
    joined = "".join(filled)
    if odd.any() or not joined.isascii():
        odd |= np.array([not text.isascii() for text in filled])
        joined = "".join(_TIME if is_odd else text for text, is_odd in zip(filled, odd, strict=True))
    letters = np.frombuffer(joined.encode(), np.uint8).reshape(-1, len(_TIME)).T
    digits = letters[_DIGITS] - np.uint8(ord("0"))  # letters below "0" wrap around and become large
    odd |= (letters[_SIGNS] != _SIGN_BYTES).any(axis=0) | (digits > 9).any(axis=0)
    numbers = _decimal(digits[:4])
    for begin, size in zip(range(4, 14, 2), TIME_SIZES, strict=False):
        part = _decimal(digits[begin : begin + 2])
        odd |= part >= size
        numbers = numbers * size + part
    return np.where(known, numbers * 1_000_000 + _decimal(digits[14:]), -1), odd & known


def _decimal(digits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the numbers whose decimal digits are the columns of an array."""
    number: NDArray[np.int64] = digits[0].astype(np.int64)
    for row in digits[1:]:
        number = number * 10 + row
    return number


MOST_KEPT = 96_000_000
"""How many bytes of columns are kept of a state: all of four million repositories, the first ones of more."""

MOST_STATES = 4
"""The states that are kept: of the mirror that is served, and of a published file beside it, each as the
index has it and with its pending rows."""


class KeptColumns:
    """The columns of one state of the index, each read once by all connections of a process."""

    def __init__(self) -> None:
        self._columns = dict[str, NDArray[Any]]()
        self._making = RLock()  # what is derived from columns asks for them

    def get(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return a column or what was derived from columns; not to be changed."""
        column = self._columns.get(name)
        if column is not None:
            return column
        with self._making:  # or each of eight users who ask at once would read it
            column = self._columns.get(name)
            if column is None:
                column = make()
                column.setflags(write=False)
                if sum(one.nbytes for one in self._columns.values()) + column.nbytes <= MOST_KEPT:
                    self._columns[name] = column
        return column


_kept = dict[bytes, KeptColumns]()  # by stamp and digests, the last used one at the end
_keeping = Lock()


def kept_columns(cursor: sqlite3.Cursor, segments: Iterable[bytes] = ()) -> KeptColumns:
    """Return the columns of the snapshot that is read; older states are forgotten.

    `segments` are the digests of those that the columns have, beside what the index contains.
    """
    stamp = read_stamp(cursor)
    if stamp is None:
        return KeptColumns()
    state = b"".join([stamp, *segments])
    with _keeping:
        kept = _kept.pop(state, None) or KeptColumns()
        _kept[state] = kept
        for old in list(_kept)[:-MOST_STATES]:
            del _kept[old]
    return kept


def column_faults(connection: sqlite3.Connection, up_to: int) -> Iterator[str]:
    """Compare the columns with the rows up to an id, one by one; pending rows may be as they were."""
    cursor = plain_cursor(connection)
    arrays = [read_column(cursor, name, up_to + 1) for name in TYPES]
    columns = [each.data for each in arrays]  # quicker to look at one by one
    languages = dict(cursor.execute("SELECT code, lower(language) FROM search_languages").fetchall())
    pending = {row[0] for row in cursor.execute("SELECT id FROM search_pending").fetchall()}
    rows = cursor.execute(
        f"SELECT id, lower(language), {_VALUES} FROM repositories WHERE id <= ? ORDER BY id", (up_to,)
    )
    is_left = (arrays[0] & KNOWN) != 0
    for row_id, language, _, flags, owner, followers, forks, created in rows:
        is_left[row_id] = False
        has_flags, code, *rest = [column[row_id] for column in columns]
        expected = [flags, language, owner, followers, forks, time_number(created)]
        found = [has_flags, languages.get(code), *rest]
        is_right = has_flags & KNOWN if has_flags & UNSURE else found == expected
        if row_id not in pending and not is_right:
            yield f"columns of {row_id} are {found}, should be {expected}"
    left = set(np.flatnonzero(is_left).tolist()) - pending
    yield from (f"columns have {row_id}, which is no row" for row_id in sorted(left))


DENSE_LEAVES, DENSE_SHARE = 20, 16
"""A path is dense if its texts would fill so many leaves, and are this share of all texts."""

DENSE_CHUNK = 1 << 17
"""How many ids have their bits in one row."""


def dense_from(texts: int, leaf_size: int) -> int:
    """Return how many of all texts must contain a path to make it dense."""
    return max(DENSE_LEAVES * leaf_size, -(-texts // DENSE_SHARE))


def dense_bits(ids: NDArray[np.uint32]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the chunks that some ids are in, each with the bits of its ids."""
    has = np.zeros(int(ids.max(initial=0)) + 1, dtype=bool)
    has[ids] = True
    for chunk in range(ids.min(initial=has.size) // DENSE_CHUNK, -(-has.size // DENSE_CHUNK)):
        bits = np.packbits(has[chunk * DENSE_CHUNK : (chunk + 1) * DENSE_CHUNK], bitorder="little")
        if bits.any():
            yield chunk, bits


def dense_paths(connection: sqlite3.Connection) -> set[bytes]:
    """Return the dense paths."""
    return {path for (path,) in connection.execute("SELECT DISTINCT path FROM search_dense")}


def add_dense(connection: sqlite3.Connection, path: bytes, ids: NDArray[np.uint32]) -> None:
    """Set the bits of some ids for a path."""
    cursor = plain_cursor(connection)
    chunks = ids // np.uint32(DENSE_CHUNK)
    for chunk in np.unique(chunks).tolist():
        places = ids[chunks == chunk] % np.uint32(DENSE_CHUNK)
        found = cursor.execute(
            "SELECT bits FROM search_dense WHERE path = ? AND chunk = ?", (path, chunk)
        ).fetchone()
        known = np.frombuffer(found[0] if found else b"", np.uint8)
        bits = np.zeros(max(known.size, int(places.max()) // 8 + 1), np.uint8)
        bits[: known.size] = known
        bit = np.left_shift(1, places & np.uint32(7), dtype=np.uint8, casting="unsafe")
        np.bitwise_or.at(bits, places >> np.uint32(3), bit)
        cursor.execute("INSERT OR REPLACE INTO search_dense VALUES (?, ?, ?)", (path, chunk, bits.tobytes()))


def read_dense(cursor: sqlite3.Cursor, path: bytes, size: int) -> NDArray[np.bool_] | None:
    """Return for the ids below `size` whether they have a path; None if it is not dense."""
    rows = cursor.execute("SELECT chunk, bits FROM search_dense WHERE path = ?", (path,)).fetchall()
    if not rows:
        return None
    has = np.zeros(size, dtype=bool)
    for chunk, packed in rows:
        part = has[chunk * DENSE_CHUNK : (chunk + 1) * DENSE_CHUNK]
        bits = _unpacked(packed)[: part.size]
        part[: bits.size] = bits
    return has


def dense_faults(
    connection: sqlite3.Connection, entries: Iterable[tuple[int, IndexedText]], up_to: int
) -> Iterator[str]:
    """Yield a line for each bit that is missing; `entries` are what the index should contain, by id."""
    cursor = plain_cursor(connection)
    read = [(path, read_dense(cursor, path, up_to + 1)) for path in dense_paths(connection)]
    dense = [(path, has.tobytes()) for path, has in read if has is not None]  # quicker one by one than arrays
    for row_id, entry in entries if dense else ():
        for path, has in dense:
            if path in entry.text and not has[row_id]:
                yield f"dense path {path!r} lacks {row_id}"


def _unpacked(packed: bytes) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
