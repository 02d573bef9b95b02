"""Search a finished file for private texts: a second check beside the allow-list of columns.

Looked for are the full names and uuids of private repositories and projects, and the hashes of tokens, in
every value of every table. A bare name proves nothing, since `api` is everywhere. What is found may also
stand in a text that is public upstream, as in a message `Merged in team/secret`: that is for people to judge.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from mirror.queries.rows import fetch
from mirror.queries.visibility import ANONYMOUS, visible, visible_project
from mirror.store.files import reading_address

_WORD = re.compile(rb"[^\s\"'`<>()\[\],;:?#=&|]+")
"""What may be a name, a path or a uuid."""

_ROWS_AT_ONCE = 5_000

_PRIVATE = f"""
    SELECT uuid FROM repositories r WHERE NOT ({visible(ANONYMOUS, "r")})
    UNION SELECT full_name FROM repositories r WHERE NOT ({visible(ANONYMOUS, "r")})
    UNION SELECT uuid FROM projects p WHERE NOT ({visible_project(ANONYMOUS, "p")})
    UNION SELECT token_hash FROM api_tokens"""
_PUBLIC = f"""
    SELECT uuid FROM repositories r WHERE {visible(ANONYMOUS, "r")}
    UNION SELECT full_name FROM repositories r WHERE {visible(ANONYMOUS, "r")}
    UNION SELECT uuid FROM projects p WHERE {visible_project(ANONYMOUS, "p")}"""


class PrivateText(NamedTuple):
    """A private text, and a table of the file that has it."""

    text: str
    table: str

    def __str__(self) -> str:
        return f"{self.text} in {self.table}"


def private_texts(connection: sqlite3.Connection) -> list[str]:
    """List the texts of a mirror that a published file must not have."""
    public = {row[0].lower() for row in fetch(connection, _PUBLIC)}
    return sorted({row[0] for row in fetch(connection, _PRIVATE) if row[0].lower() not in public})


def find_private(file: Path, texts: list[str]) -> list[PrivateText]:
    """Return which of some private texts a file has, whatever their case, and in which tables."""
    wanted = {text.lower().encode(): text for text in texts}
    with closing(sqlite3.connect(reading_address(file), uri=True)) as connection:
        tables = connection.execute(
            """SELECT name FROM sqlite_master
               WHERE type = 'table' AND name NOT GLOB 'sqlite_*' AND name NOT GLOB 'search_*' ORDER BY name"""
        ).fetchall()
        return [
            PrivateText(wanted[found], table)
            for (table,) in tables
            for found in sorted(_found(_values(connection, table), wanted.keys()))
        ]


def _values(connection: sqlite3.Connection, table: str) -> Iterator[bytes]:
    """Yield the values of a table, many rows at once."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = " || x'0a' || ".join(f"coalesce(CAST({name} AS BLOB), x'')" for name in columns)
    cursor = connection.execute(f"SELECT CAST({values} AS BLOB) FROM {table}")
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield b"\n".join(row[0] for row in rows)


def _found(chunks: Iterator[bytes], wanted: Iterable[bytes]) -> set[bytes]:
    """Return the wanted texts that are words of some chunks, or two neighbours in a path."""
    found, all_wanted = set[bytes](), frozenset(wanted)
    for chunk in chunks:
        words = set(_WORD.findall(chunk.lower()))
        found |= words & all_wanted
        for word in words:
            if b"/" in word:
                parts = [part.removesuffix(b".git").rstrip(b".") for part in word.split(b"/")]
                found |= all_wanted.intersection(map(b"/".join, pairwise(parts)))
                found |= all_wanted.intersection(parts)
    return found
