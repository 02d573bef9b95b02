"""Export a mirror into its own folders of a lake: everything, or what changed since the last export there.

Files that a manifest names are never changed. New files are put beside the old ones; then a new manifest
names them. If the process is killed before that, readers see no change, and the next export starts where the
last manifest ends.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mirror.errors import ConfigError
from mirror.lake.columns import LIVING, LIVING_OF_CHOSEN, TABLES, OnProgress, Table, instance_of, selects_of
from mirror.lake.parquet import BATCH, ExportFiles, Part, batches, holding
from mirror.lake.place import (
    LakeFile,
    Manifest,
    Place,
    check_place,
    is_public,
    is_whole,
    place_manifest,
    read_latest,
    remove_superseded,
    write_about,
)
from mirror.publish.selection import moment_of
from mirror.publish.snapshot import check_confirmed, public_rows, sha256_of
from mirror.readable import size_text
from mirror.store import Store
from mirror.store.export_marks import CHOOSE, MARKED, Begun, begin_export, finish_export, mirror_id
from mirror.store.faults import explained
from mirror.store.files import open_reader
from mirror.store.lock import beside, export_lock, place_apart
from mirror.store.paths import reading_address
from mirror.times import Clock, to_text, utc_now

MOST_ADDITIONS = 100
"""After this many exports that add files, the next one compacts, so that readers open few files."""

_NO_END = 2**63 - 1  # greater than the number of any change


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an export: `what` is full, changes or nothing; the numbers are those of new files."""

    place: str
    mirror: str
    seq: int
    exported_at: str
    what: str
    compacted: bool
    rows: dict[str, int]
    files: int
    bytes: int

    @property
    def text(self) -> str:
        """The result in one line."""
        if self.what == "nothing" and not self.compacted:
            since = f"export {self.seq} of {self.mirror}, {self.exported_at[:16]}Z"
            return f"{self.place}: nothing changed since {since}"
        rows = f"{self.rows.get('repositories', 0):,} repositories and {self.rows.get('refs', 0):,} refs"
        more = ", compacted" if self.compacted else ""
        told = f"{self.what}, {rows}" if self.what != "nothing" else "nothing changed"
        return (
            f"{self.place}: export {self.seq} of {self.mirror}: {told}{more};"
            f" {self.files:,} new files, {size_text(self.bytes)}"
        )


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to export: everything again (`full`), only what is public; `compact` then merges files."""

    full: bool = False
    public: bool = False
    compact: bool = False


def export(
    mirror: Path,
    place: Place,
    options: ExportOptions,
    *,
    clock: Clock = utc_now,
    progress: OnProgress = lambda *_: None,
) -> Exported:
    """Bring a mirror's part of a lake up to date; if nothing changed, write no file.

    If files of the lake are lost, everything is exported. Raises ConfigError if the lake holds another kind
    of export of this mirror, StoreLocked while another process exports it, StoreError if the file or the
    place cannot be used.
    """
    open_reader(mirror, older=True).close()  # `Store` would create a missing file
    if place.is_folder:
        place_apart(mirror, Path(place.root))
    with export_lock(mirror), Store(mirror) as store, ExitStack() as stack:
        with store.transaction() as connection:
            name = mirror_id(connection)
        check_place(place)
        staging = stack.enter_context(place.staging(f"mirror={name}", beside(mirror, ".exporting")))
        before = read_latest(place, name)
        _refuse_mixture(place, before, options)
        if before is not None and not is_whole(place, before):
            options = msgspec.structs.replace(options, full=True)
        series = _Series(store, place, staging, before, options, clock, progress)
        done = series.add()
        if options.compact or (series.latest is not None and series.latest.additions > MOST_ADDITIONS):
            done = series.compact(done)
        return done


@dataclass
class _Series:
    """The exports of a mirror to one place; `latest` is the current manifest."""

    _store: Store
    _place: Place
    _staging: Path
    latest: Manifest | None
    _options: ExportOptions
    _clock: Clock
    _progress: OnProgress

    def add(self) -> Exported:
        """Write what changed since the current manifest, and make a new one."""
        at, before = to_text(self._clock()), self.latest
        held = before.export if before else None
        with self._store.transaction() as connection:
            begun = begin_export(
                connection, before=held, place=str(self._place), at=at, full=self._options.full
            )
        if begun is None:
            return self._summary("nothing", {})
        # Whether a row is public depends on other rows, so all are read; files that would be equal stay.
        if self._options.public:
            begun = begun._replace(since=None)
        moment, parts = self._written(begun)
        stays = self._options.public and not self._options.full
        if before is not None and stays and _is_same(before, parts):
            self._finish(begun, before.export, at)
            return self._summary("nothing", {})
        _refuse_mixture(self._place, before, self._options)  # another mirror may have been faster
        tables = {name: [self._placed(part) for part in found] for name, found in parts.items()}
        self._put_in_force(
            Manifest(
                mirror=begun.mirror,
                seq=self._seq,
                export=begun.id,
                public=self._options.public,
                exported_at=at,
                moment=moment,
                additions=before.additions + 1 if before and begun.since else 0,
                tables=_joined(before, tables) if before and begun.since else tables,
            )
        )
        self._finish(begun, begun.id, at)
        return self._summary("changes" if begun.since else "full", tables)

    def compact(self, done: Exported) -> Exported:
        """Replace the base files and what was added to them by new base files with the current rows."""
        latest = self.latest
        if latest is None or not latest.additions:
            return done
        written, tables = ExportFiles(self._staging, latest.mirror, self._seq), dict[str, list[LakeFile]]()
        for table in TABLES:
            files = latest.tables.get(table.name, [])
            if all(file.base for file in files):  # nothing was added to them
                tables[table.name] = files
                continue
            rows = self._counted(table, holding(self._place, latest, table))
            with self._place.explained():
                parts = written.write(table, rows, base=True)
            tables[table.name] = [self._placed(part) for part in parts]
        self._put_in_force(msgspec.structs.replace(latest, seq=self._seq, additions=0, tables=tables))
        what = self._summary(done.what, tables)
        return msgspec.structs.replace(what, rows=done.rows, compacted=True)

    @property
    def _seq(self) -> int:
        """The number of the next manifest."""
        return self.latest.seq + 1 if self.latest else 1

    def _written(self, begun: Begun) -> tuple[str | None, dict[str, list[Part]]]:
        """Write the rows to export from one state of the mirror; return their moment and the files."""
        parts = dict[str, list[Part]]()
        written = ExportFiles(self._staging, begun.mirror, self._seq)
        with self._source() as connection:
            sources = _sources(connection, begun, public=self._options.public)
            instances = {
                number: instance_of(url)
                for number, url in connection.execute("SELECT id, url FROM upstreams")
            }
            for table in TABLES:
                rows = (rows for sql in selects_of(table, sources) for rows in _read_batches(connection, sql))
                # In a public lake, the number of the export would make equal files differ.
                seq = 0 if self._options.public else self._seq
                found = batches(table, rows, seq=seq, instances=instances)
                base = table.whole or begun.since is None
                with self._place.explained():
                    parts[table.name] = written.write(table, self._counted(table, found), base=base)
            return moment_of(connection), parts

    @contextmanager
    def _source(self) -> Iterator[sqlite3.Connection]:
        """Yield a snapshot of the mirror, or of the part that strangers may see."""
        mirror = self._store.path
        with ExitStack() as stack:
            stack.enter_context(explained(mirror))
            if self._options.public:
                work = stack.enter_context(
                    public_rows(mirror, progress=lambda what, *_: self._progress(what, 0))
                )
                connection = sqlite3.connect(reading_address(work), uri=True)
            else:
                connection = open_reader(mirror)
            stack.enter_context(closing(connection))
            connection.row_factory = None
            connection.execute("PRAGMA temp_store = FILE")  # lists of millions of rows need no memory
            connection.execute("BEGIN")  # all tables are read from one state
            check_confirmed(connection, mirror)  # a mirror of the lake would show them to strangers
            yield connection

    def _counted(self, table: Table, rows: Iterable[Any]) -> Iterator[Any]:
        """Pass the rows on, and report their number."""
        count = 0
        for part in rows:
            self._progress(table.name, count)
            yield part
            count += len(part)

    def _placed(self, part: Part) -> LakeFile:
        """Put a file in its place, unless a public lake has one of the same content already."""
        # Listings say when their owners were seen, which differs in each export.
        stays = self._options.public and not self._options.full and not part.name.startswith("listings/")
        if stays and self.latest is not None:
            for file in self.latest.tables.get(part.name.partition("/")[0], []):
                if file.content == part.content and _without_seq(file.path) == _without_seq(part.name):
                    return file
        with explained(part.staged):
            size, digest = part.staged.stat().st_size, sha256_of(part.staged)
        self._place.put(part.staged, part.name)
        return LakeFile(
            path=part.name, rows=part.rows, bytes=size, sha256=digest, content=part.content, base=part.base
        )

    def _put_in_force(self, manifest: Manifest) -> None:
        write_about(self._place, self._staging)
        place_manifest(self._place, manifest, self._staging)
        self.latest = manifest
        remove_superseded(self._place, manifest)

    def _finish(self, begun: Begun, held: str, at: str) -> None:
        with self._store.transaction() as connection:
            finish_export(connection, begun, held=held, place=str(self._place), at=at)

    def _summary(self, what: str, tables: Mapping[str, Sequence[LakeFile]]) -> Exported:
        latest = self.latest
        assert latest is not None  # noqa: S101 - nothing changed only where there was an export before
        mark = f"-{latest.seq:08}"
        new = [file for files in tables.values() for file in files if mark in file.path]
        return Exported(
            place=str(self._place),
            mirror=latest.mirror,
            seq=latest.seq,
            exported_at=latest.exported_at,
            what=what,
            compacted=False,
            rows={name: sum(file.rows for file in files) for name, files in tables.items()},
            files=len(new),
            bytes=sum(file.bytes for file in new),
        )


def _refuse_mixture(place: Place, before: Manifest | None, options: ExportOptions) -> None:
    """Raise ConfigError if a lake holds another kind of export: `before` is this mirror's last one."""
    # A forgotten --public must not add private rows to a public lake.
    public, whose = (before.public, "this mirror") if before else (is_public(place), "another mirror")
    if public not in (None, options.public):
        raise ConfigError(
            f"{place}: holds {'the public part' if public else 'all'} of {whose};"
            f" {'export with --public' if public else 'give the public part another folder'}"
        )


def _sources(connection: sqlite3.Connection, begun: Begun, *, public: bool) -> dict[str, str]:
    """Return the sources of rows for `selects_of`; lists marked rows in temporary tables."""
    after, until = (begun.since.last_change if begun.since else 0), begun.until.last_change
    lines = {"after": str(after), "until": str(_NO_END if public else until)}
    if begun.since is None:
        whole = {"repositories": "repositories r", "users": "users u", "projects": "projects p"}
        return {**whole, "listings": LIVING, **lines}
    found = dict[str, str]()
    for part, (kind, table) in MARKED.items():
        connection.execute(f"CREATE TEMP TABLE chosen_{part} (id INTEGER PRIMARY KEY)")
        connection.execute(CHOOSE.format(part=part, table=table), (kind, begun.since.epoch))
        found[part] = f"temp.chosen_{part} c CROSS JOIN {table} {part[0]} ON {part[0]}.id = c.id"
    return {**found, "listings": LIVING_OF_CHOSEN, **lines}


def _read_batches(connection: sqlite3.Connection, sql: str) -> Iterator[list[Any]]:
    cursor = connection.execute(sql)
    while rows := cursor.fetchmany(BATCH):
        yield rows


def _is_same(before: Manifest, parts: Mapping[str, Sequence[Part]]) -> bool:
    """Return whether new files equal those of a manifest, ignoring tables that are always rewritten."""
    return all(
        [part.content for part in parts[table.name]]
        == [file.content for file in before.tables.get(table.name, [])]
        for table in TABLES
        if not table.whole
    )


def _joined(before: Manifest, tables: Mapping[str, list[LakeFile]]) -> dict[str, list[LakeFile]]:
    """Add new files to those of a manifest; tables that are always rewritten are replaced."""
    return {
        table.name: ([] if table.whole else before.tables.get(table.name, [])) + tables[table.name]
        for table in TABLES
    }


def _without_seq(path: str) -> str:
    return re.sub(r"-\d{8}", "", path)
