"""Make a published file, and files beside it: fill it, index it, pack it, check it, put it in place.

The same public rows give the same bytes with the same version of SQLite: no number, moment or order in the
file depends on anything else.
"""

import hashlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from mirror.errors import ConfigError, MirrorError, StoreError
from mirror.publish.selection import (
    PrivateText,
    choose_rows,
    copy_rows,
    find_private,
    moment_of,
    private_texts,
    tables_of,
    undecided,
)
from mirror.queries.visibility import ANONYMOUS, is_unconfirmed
from mirror.search.index.backlog import rebuild_index
from mirror.search.index.refs.changes import rebuild_refs_index
from mirror.store.faults import damage_named, explained
from mirror.store.files import open_reader
from mirror.store.lock import BESIDE, place_of_copy, replacing
from mirror.store.paths import reading_address
from mirror.store.repair import faults_of, rebuild_descriptions
from mirror.store.schema import (
    CACHE_KIB,
    create_unindexed,
    mark_as_snapshot,
    open_unjournalled,
)

READ_ONLY = 0o444
"""The mode of a published file: its SHA-256 is published too, so nobody should change it by mistake."""

_CHECKSUM, _COMPRESSED = ".sha256", ".zst"
_ENDS = (_COMPRESSED, _CHECKSUM, _COMPRESSED + _CHECKSUM)  # of the names of files beside a published one

STEPS = 15
"""The number of steps of which progress is reported."""

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
    - `force`: replace an existing file, and remove what was made of it.
    """

    authors: bool = True
    check: bool = False
    force: bool = False
    moment: str | None = None


def publish(
    mirror: Path, target: Path, options: PublishOptions, *, progress: OnProgress = lambda *_: None
) -> Published:
    """Write the public part of a mirror into the file `target`, and return what is in it.

    What an earlier run has compressed of a replaced file, and its checksums, are removed: they may hold rows
    that are private by now. Raises ConfigError for a target that exists or is the mirror, PrivateFound,
    StoreLocked where another process publishes there, and StoreError where a file cannot be used; `target`
    is then as it was.
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
            if moment is None and place.exists():  # what was public has to go
                with closing(open_reader(mirror)) as connection:
                    moment = moment_of(connection)
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
            if options.force:
                for end in _ENDS:
                    target.with_name(f"{target.name}{end}").unlink(missing_ok=True)
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
    """Yield the path of a work file; it is removed at the end, with what SQLite puts beside it."""
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
    work.touch(mode=0o600, exist_ok=False)  # nobody else may read it before it is checked
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
    # SQLite cannot attach a file to a damaged one, and would blame that file.
    with closing(open_reader(mirror)) as connection, damage_named(mirror):
        connection.execute("PRAGMA temp_store = FILE")  # lists of millions of rows need no memory
        connection.execute("ATTACH ? AS copy", (f"{work.absolute().as_uri()}?mode=rw",))
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA copy.{setting}")
        connection.execute(f"PRAGMA main.cache_size = -{CACHE_KIB}")
        connection.execute("BEGIN")
        check_confirmed(connection, mirror)
        done("choosing")
        choose_rows(connection)
        rows = copy_rows(connection, authors=options.authors, progress=done)
        moment = moment_of(connection, "copy")
        private = private_texts(connection) if options.check else []
        connection.execute("COMMIT")
    return rows, moment, private


def check_confirmed(connection: sqlite3.Connection, mirror: Path) -> None:
    """Raise StoreError for a restored copy of which it is not confirmed yet what is still public."""
    if is_unconfirmed(connection, ANONYMOUS):
        raise StoreError(
            f"{mirror}: a restored copy, whose public rows may be private by now; run `mirror sync` first"
        )


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
        connection.execute("VACUUM INTO ?", (str(part),))  # the same rows give the same pages


def inside_hosts(connection: sqlite3.Connection) -> list[str]:
    """Return the addresses in a file of servers that may be known only inside their network."""
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


ZSTD = ("zstd", "-3", "--threads=1", "--quiet", "--force", "--no-progress", "--stdout")
"""Compresses to 43 % in the time it takes to read the file. One thread always gives the same bytes."""


def check_tools() -> None:
    """Raise ConfigError where the program `zstd` is missing."""
    if shutil.which(ZSTD[0]) is None:
        raise ConfigError("--zst needs the program zstd: apt install zstd, or brew install zstd")


LARGEST_INSPECT = 1_000_000  # characters; such a file has some ten thousand


def write_inspect(published: Published, target: Path) -> None:
    """Write the file for `datasette --inspect-file`; without it, Datasette counts all rows at each start.

    Raises StoreError.
    """
    file = Path(published.file)
    with explained(file), closing(sqlite3.connect(reading_address(file), uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        counts = {
            name: {"count": connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]}
            for (name,) in names.fetchall()
        }
    about = {"hash": published.sha256, "size": published.bytes, "file": file.name, "tables": counts}
    _replace(target, lambda part: part.write_text(json.dumps({file.stem: about}, indent=1) + "\n"))


def holds_counts(path: Path) -> bool:
    """Return whether a file is empty, or one that `write_inspect` has written."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST_INSPECT)
        about = json.loads(text) if text else {}
        return all("hash" in one and "tables" in one for one in about.values())
    except (ValueError, AttributeError, TypeError, RecursionError):
        return False


def write_checksum(file: Path) -> Path:
    """Write the SHA-256 of a file beside it, as `sha256sum --check` reads it; return the new file."""
    target = file.with_name(f"{file.name}{_CHECKSUM}")
    line = f"{sha256_of(file)}  {file.name}\n"
    _replace(target, lambda part: part.write_text(line))
    return target


def write_compressed(file: Path) -> Path:
    """Compress a file into another one beside it, and return that; raises StoreError."""
    target = file.with_name(f"{file.name}{_COMPRESSED}")

    def compress(part: Path) -> None:
        with file.open("rb") as source, part.open("wb") as out:
            done = subprocess.run(ZSTD, stdin=source, stdout=out, stderr=subprocess.PIPE, check=False)  # noqa: S603
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            raise StoreError(f"{target}: zstd failed: {said[-1]}")

    _replace(target, compress)
    return target


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then put it there as a whole."""
    with replacing(target, part=target.with_name(f"{target.name}.part")) as part, explained(target):
        write(part)
        part.chmod(READ_ONLY)
