"""Make a published file: fill it, index it, pack it, check it, and put it in place as a whole.

The same public rows give the same bytes with the same version of SQLite: no number, moment or order in the
file depends on anything else.

`--check` searches the finished file for private texts, besides the allow-list of columns: the full names and
uuids of private repositories and projects, and the hashes of tokens, in every value of every table. A bare
name proves nothing, since `api` is everywhere. A hit may also be a text that is public upstream, like the
message `Merged in team/secret`: that is for people to judge.
"""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from mirror.errors import ConfigError, MirrorError, StoreError
from mirror.publish.selection import choose_rows, copy_rows, moment_of, tables_of, undecided
from mirror.queries.visibility import ANONYMOUS, is_unconfirmed, visible, visible_project
from mirror.search.index.backlog import rebuild_index
from mirror.search.index.refs.changes import rebuild_refs_index
from mirror.store.files import explained, faults_of, fetch, open_reader, reading_address
from mirror.store.lock import BESIDE, place_of_copy, replacing
from mirror.store.schema import (
    CACHE_KIB,
    create_unindexed,
    mark_as_snapshot,
    open_unjournalled,
    rebuild_descriptions,
)

_WORD = re.compile(rb"[^\s\"'`<>()\[\],;:?#=&|]+")
"""A possible name, path or uuid."""

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
    """A private text, and a table of the file that contains it."""

    text: str
    table: str

    def __str__(self) -> str:
        return f"{self.text} in {self.table}"


def private_texts(connection: sqlite3.Connection) -> list[str]:
    """List the texts of a mirror that a published file must not contain."""
    public = {row[0].lower() for row in fetch(connection, _PUBLIC)}
    return sorted({row[0] for row in fetch(connection, _PRIVATE) if row[0].lower() not in public})


def find_private(file: Path, texts: list[str]) -> list[PrivateText]:
    """Find private texts in a file, in any case; return those found and their tables."""
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
    """Yield the values of a table, joined by line ends, many rows at a time."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = " || x'0a' || ".join(f"coalesce(CAST({name} AS BLOB), x'')" for name in columns)
    cursor = connection.execute(f"SELECT CAST({values} AS BLOB) FROM {table}")
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield b"\n".join(row[0] for row in rows)


def _found(chunks: Iterator[bytes], wanted: Iterable[bytes]) -> set[bytes]:
    """Return the wanted texts that occur as a word, or as one or two adjacent parts of a path."""
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


READ_ONLY = 0o444
"""The mode of a published file."""

STEPS = 15
"""How many times the progress is reported."""

OnProgress = Callable[[str, int, int], None]
"""Called with the next step, the number of steps done, and the number of all steps."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The result of publishing. `published_at` is the moment that the file shows; `rows` counts by table.

    `inside_hosts` are addresses in the file of servers that may only be known inside their network.
    `checked` is the number of private texts that were searched for, None without `--check`.
    """

    file: str
    bytes: int
    sha256: str
    published_at: str
    rows: dict[str, int]
    inside_hosts: list[str]
    checked: int | None


class PrivateFound(MirrorError):
    """The check found private texts, so nothing was published."""

    exit_code = 1

    def __init__(self, findings: list[PrivateText]) -> None:
        shown = "; ".join(str(finding) for finding in findings[:5])
        more = f"; and {len(findings) - 5:,} more" if len(findings) > 5 else ""
        super().__init__(f"nothing was published: it would name what is private: {shown}{more}")


class PublishOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to publish. `moment` replaces the moment of the last complete sync.

    - `authors`: keep names and addresses of people in refs.
    - `check`: search the finished file for private texts.
    - `force`: replace an existing file.
    """

    authors: bool = True
    check: bool = False
    force: bool = False
    moment: str | None = None


def publish(
    mirror: Path, target: Path, options: PublishOptions, *, progress: OnProgress = lambda *_: None
) -> Published:
    """Write the public part of a mirror into the file `target`, and return what is in it.

    Raises ConfigError for a target that exists or is the mirror, PrivateFound, StoreLocked where another
    process publishes there, and StoreError where a file cannot be used; `target` is then as it was.
    """
    place = place_of_copy(mirror, target)
    if place.exists() and not options.force:
        raise ConfigError(f"{target}: exists; --force replaces it")
    done = _steps(progress)
    with replacing(place, part=place.with_name(f"{place.name}.part")) as part:
        with explained(target), _work_file(place) as work:
            indexes = _create(work)
            rows, found, private = _fill(mirror, work, options, done)
            moment = options.moment or found
            if moment is None:
                raise StoreError(f"{mirror}: has nothing public; nothing was published")
            _finish(work, part, moment, indexes, done)
        with explained(target):
            done("checking")
            hosts = _checked(part)
            findings = find_private(part, private) if options.check else []
            if findings:
                raise PrivateFound(findings)
            done("hashing")
            published = Published(
                file=str(target),
                bytes=part.stat().st_size,
                sha256=sha256_of(part),
                published_at=moment,
                rows=rows,
                inside_hosts=hosts,
                checked=len(private) if options.check else None,
            )
            part.chmod(READ_ONLY)
    return published


@contextmanager
def public_rows(
    mirror: Path, *, progress: OnProgress = lambda *_: None, suffix: str = ".public", indexed: bool = False
) -> Iterator[Path]:
    """Yield a temporary file beside the mirror with the rows that `publish` publishes.

    `suffix` ends the file's name; use another one for each kind of work that may run at the same time. With
    `indexed`, it has the indexes that pages need, but none for searches. It may have no rows. Raises
    StoreError as `publish` does.
    """
    with _work_file(mirror.with_name(f"{mirror.name}{suffix}")) as work, explained(mirror):
        indexes = _create(work)
        _fill(mirror, work, PublishOptions(), _steps(progress))
        if indexed:
            with closing(open_unjournalled(work)) as connection:
                for sql in indexes:
                    connection.execute(sql)
        yield work


def _steps(progress: OnProgress) -> Callable[[str], None]:
    """Return a function that reports each step as it begins."""
    begun = iter(range(STEPS))
    return lambda what: progress(what, next(begun, STEPS), STEPS)


@contextmanager
def _work_file(place: Path) -> Iterator[Path]:
    """Yield the path of a work file beside the published one; it is removed at the end."""
    work = place.with_name(f"{place.name}.work")
    files = (work, *(work.with_name(f"{work.name}{end}") for end in BESIDE))
    try:
        for path in files:
            path.unlink(missing_ok=True)
        yield work
    finally:
        for path in files:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _create(work: Path) -> list[str]:
    """Create a mirror without rows and without indexes; return the statements that make the indexes."""
    work.touch(mode=0o600, exist_ok=False)
    indexes = create_unindexed(work)
    with closing(open_unjournalled(work)) as connection:
        unknown = undecided(tables_of(connection))
    if unknown:
        raise StoreError(f"nothing was published: it is not decided whether {unknown[0]} is public")
    return indexes


def _fill(
    mirror: Path, work: Path, options: PublishOptions, done: Callable[[str], None]
) -> tuple[dict[str, int], str | None, list[str]]:
    """Copy the public rows from one snapshot of the mirror.

    Returns the number of rows by table, their moment, and the private texts for the check.
    """
    with closing(open_reader(mirror)) as connection:
        connection.execute("PRAGMA temp_store = FILE")
        connection.execute("ATTACH ? AS copy", (f"{work.absolute().as_uri()}?mode=rw",))
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA copy.{setting}")
        connection.execute(f"PRAGMA main.cache_size = -{CACHE_KIB}")
        connection.execute("BEGIN")
        if is_unconfirmed(connection, ANONYMOUS):
            raise StoreError(
                f"{mirror}: a restored copy, whose public rows may be private by now; run `mirror sync` first"
            )
        done("choosing")
        choose_rows(connection)
        rows = copy_rows(connection, authors=options.authors, progress=done)
        moment = moment_of(connection, "copy")
        private = private_texts(connection) if options.check else []
        connection.execute("COMMIT")
    return rows, moment, private


def _finish(work: Path, part: Path, moment: str, indexes: list[str], done: Callable[[str], None]) -> None:
    """Build all indexes, and pack the file into `part`."""
    with closing(open_unjournalled(work)) as connection:
        done("indexing")
        for sql in indexes:
            connection.execute(sql)
        done("indexing names")
        connection.execute("BEGIN")
        rebuild_index(connection)
        rebuild_refs_index(connection)
        rebuild_descriptions(connection)
        mark_as_snapshot(connection, moment)
        connection.execute("COMMIT")
        done("packing")
        connection.execute("VACUUM INTO ?", (str(part),))


def inside_hosts(connection: sqlite3.Connection) -> list[str]:
    """Return the addresses in a file of servers that may only be known inside their network."""
    found = connection.execute("SELECT url FROM upstreams WHERE kind = 'datacenter' ORDER BY id")
    return [row[0] for row in found]


def _checked(part: Path) -> list[str]:
    """Check a finished file; return the hosts in it that are not Bitbucket Cloud's. Raises StoreError."""
    if faults := faults_of(part):
        raise StoreError(
            f"nothing was published, the new file has faults: {faults[0]}; is the mirror damaged?"
        )
    with closing(sqlite3.connect(reading_address(part), uri=True)) as connection:
        return inside_hosts(connection)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
