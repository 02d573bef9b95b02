"""The place of a lake, and the files that describe it: `README.md`, `_SCHEMA.json`, manifests of exports.

A place is a folder or a bucket of an object store; files appear there as a whole. A manifest names all files
of a mirror's export, and is written last: a reader that takes the files of `latest.json`, and no others,
always has one whole export. The files of the last few manifests are kept for readers that have begun.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from mirror.errors import ConfigError, StoreError
from mirror.lake import NEEDS_PYARROW, address_of
from mirror.lake.columns import BUCKETS, LAYOUT, TABLES, Table
from mirror.store.faults import known_remedy
from mirror.store.lock import held, sync_to_disk

try:
    from pyarrow import fs
    from pyarrow.lib import ArrowException
except ImportError:
    raise ConfigError(NEEDS_PYARROW) from None

STAGING = "_staging"
"""The prefix of folders with unfinished files."""

_PIECE = 8_000_000


class Place:
    """The root of a lake, `DIR` or `s3://bucket/path`; paths are relative to it, with slashes.

    Raises ConfigError for an invalid address, StoreError if the place cannot be read or written.
    """

    def __init__(self, address: str) -> None:
        place = address_of(address)
        self._address, self.is_folder = place.text, place.is_folder
        if self.is_folder:
            if os.path.lexists(place.given) and not Path(place.given).is_dir():
                raise ConfigError(f"{self}: is a file; a lake needs a folder")
            self.fs, self.root = fs.LocalFileSystem(), place.given
            return
        try:
            self.fs, root = fs.FileSystem.from_uri(place.given)
        except (ArrowException, OSError, ValueError) as error:
            raise ConfigError(f"{self}: cannot be used: {_first_line(error)}") from error
        self.root = str(root).rstrip("/")

    def __str__(self) -> str:
        return self._address

    def path(self, name: str) -> str:
        """Return the path of a file for the file system of the place."""
        return f"{self.root}/{name}"

    @contextmanager
    def staging(self, owner: str, local: Path) -> Iterator[Path]:
        """Yield an empty folder for unfinished files; it is removed at the end.

        It is in the lake, or `local` if that is an object store: always at the same place, so that what a
        killed process left is removed. Raises StoreLocked while another process of this machine uses it.
        """
        folder = Path(self.root) / f"{STAGING}-{owner}" if self.is_folder else local
        with held(folder.with_name(f"{folder.name}.lock"), f"exporting {owner} into {self}"):
            try:
                with self.explained():
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def put(self, file: Path, name: str) -> None:
        """Move a finished file from the staging folder to its place."""
        with self.explained():
            if self.is_folder:
                target = Path(self.path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                sync_to_disk(file)
                file.replace(target)
                sync_to_disk(target.parent)
                return
            # An object appears as a whole when its stream is closed.
            with file.open("rb") as source, self.fs.open_output_stream(self.path(name)) as target_stream:
                while piece := source.read(_PIECE):
                    target_stream.write(piece)

    def write(self, staging: Path, name: str, text: bytes) -> None:
        """Write a small file."""
        part = staging / "part"
        with self.explained():
            part.write_bytes(text)
        self.put(part, name)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist."""
        with self.explained():
            try:
                with self.fs.open_input_stream(self.path(name)) as stream:
                    found: bytes = stream.read()
            except FileNotFoundError:
                return None
        return found

    def open(self, name: str) -> Any:
        """Open a file for random reads."""
        with self.explained():
            return self.fs.open_input_file(self.path(name))

    def list(self, name: str) -> list[str]:
        """Return the files below a folder, unordered; none if it does not exist."""
        with self.explained():
            found = self.fs.get_file_info(
                fs.FileSelector(self.path(name), allow_not_found=True, recursive=True)
            )
        return [one.path[len(self.root) + 1 :] for one in found if one.type == fs.FileType.File]

    def names(self) -> set[str]:
        """Return the names of files and folders at the root; none if it does not exist."""
        with self.explained():
            found = self.fs.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
        return {one.base_name for one in found}

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with self.explained(), suppress(FileNotFoundError):
            self.fs.delete_file(self.path(name))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn errors of pyarrow and the system into StoreError."""
        try:
            yield
        except (ArrowException, OSError) as error:
            text = _first_line(error)
            remedy = known_remedy(text)
            message = f"{remedy} ({text})" if remedy else f"cannot be read or written: {text}"
            raise StoreError(f"{self}: {message}") from error


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).strip().partition("\n")[0][:300] or type(error).__name__


KEPT = 3
"""The number of manifests that are kept, with their files."""

LATEST = "latest.json"


class LakeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an export, by its path in the lake.

    `content` is a digest of its rows without their `seq` and the times when they were last seen. A `base`
    file replaces earlier files instead of adding to them.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    content: str
    base: bool


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One export of a mirror. `moment` is that of its rows: the last complete sync, else the last listing.

    - `export`: a random id, by which the mirror's file records what was exported.
    - `additions`: the number of exports after the last full one that added files.
    """

    layout: int = LAYOUT
    mirror: str
    seq: int
    export: str
    public: bool
    exported_at: str
    moment: str | None
    additions: int = 0
    tables: dict[str, list[LakeFile]] = {}

    def files(self) -> dict[str, LakeFile]:
        """Map the path of each file to it."""
        return {file.path: file for files in self.tables.values() for file in files}


def folder_of(mirror: str) -> str:
    """Return the folder of a mirror's manifests."""
    return f"_manifests/mirror={mirror}"


def read_latest(place: Place, mirror: str) -> Manifest | None:
    """Return the current manifest of a mirror, None if there is none; raises StoreError."""
    text = place.read(f"{folder_of(mirror)}/{LATEST}")
    return None if text is None else _decoded_manifest(text, f"{place}/{folder_of(mirror)}/{LATEST}")


def is_public(place: Place) -> bool | None:
    """Return whether a lake holds public parts alone, by the first of its mirrors; None for an empty one."""
    for path in sorted(place.list("_manifests")):
        text = place.read(path) if path.endswith(f"/{LATEST}") else None
        if text is not None:
            return _decoded_manifest(text, f"{place}/{path}").public
    return None


def is_whole(place: Place, manifest: Manifest) -> bool:
    """Return whether all files that a manifest names are there."""
    existing = {path for table in manifest.tables for path in place.list(f"{table}/mirror={manifest.mirror}")}
    return manifest.files().keys() <= existing


def read_all(place: Place) -> list[Manifest]:
    """Return the current manifests of all mirrors, ordered by id; raises StoreError."""
    names = [path for path in place.list("_manifests") if path.endswith(f"/{LATEST}")]
    texts = [(path, place.read(path)) for path in sorted(names)]
    found = {path: _decoded_manifest(text, f"{place}/{path}") for path, text in texts if text is not None}
    for path, manifest in found.items():
        if path != f"{folder_of(manifest.mirror)}/{LATEST}":  # its rows would count twice
            raise StoreError(
                f"{place}/{path}: a copy of the manifest of {manifest.mirror}; remove its folder"
            )
    return list(found.values())


def _decoded_manifest(text: bytes, where: str) -> Manifest:
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{where}: not a manifest of a lake ({error}); remove it, and export again"
        ) from error
    if manifest.layout != LAYOUT:
        raise StoreError(f"{where}: is of layout {manifest.layout}, and this program knows {LAYOUT}")
    return manifest


def place_manifest(place: Place, manifest: Manifest, staging: Path) -> None:
    """Write a manifest, and make it the current one."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    folder = folder_of(manifest.mirror)
    place.write(staging, f"{folder}/{manifest.seq:08}.json", text)
    place.write(staging, f"{folder}/{LATEST}", text)


def remove_superseded(place: Place, manifest: Manifest) -> None:
    """Remove all but the last few manifests, and the files that none of these names."""
    folder = folder_of(manifest.mirror)
    numbered = sorted(path for path in place.list(folder) if not path.endswith(f"/{LATEST}"))
    # A later one is of an export that was killed before it became current.
    existing = [path for path in numbered if path <= f"{folder}/{manifest.seq:08}.json"]
    kept = dict.fromkeys(manifest.files())
    for path in existing[-KEPT:]:
        text = place.read(path)
        kept |= {} if text is None else dict.fromkeys(_decoded_manifest(text, path).files())
    for table in {path.partition("/")[0] for path in kept} | set(manifest.tables):
        for path in place.list(f"{table}/mirror={manifest.mirror}"):
            if path not in kept:
                place.remove(path)
    for path in numbered:
        if path not in existing[-KEPT:]:
            place.remove(path)


SCHEMA = "_SCHEMA.json"

README = """\
# A lake of Bitbucket mirrors

Each mirror writes only to its own folders `TABLE/mirror=ID/`; refs are in {buckets} buckets, by
`crc32(uuid) % {buckets}`. `_manifests/mirror=ID/latest.json` names the files of the mirror's last export.
Read only these: other files will be removed soon, or belong to an unfinished export.

The identity of a row is `(instance, uuid)`. A mirror with several upstreams of one address has a number in
`upstream` for all but the first; each counts as a mirror of its own. Times are UTC. `_SCHEMA.json` describes
every column.

Rows are added, never changed. In `repositories`, `users`, `projects` and `listings`, the row with the highest
`seq` is current, for each mirror and identity. In `refs`, `followers` and `members`, the rows are current
that have the `seq` of the row they belong to.

With DuckDB, from this folder:

    SET VARIABLE files = (SELECT list(file.path) FROM (SELECT unnest(tables.repositories) AS file
        FROM read_json('_manifests/*/latest.json')));
    CREATE VIEW repositories AS SELECT * FROM (SELECT 0::BIGINT AS upstream WHERE false
        UNION ALL BY NAME SELECT * FROM read_parquet(getvariable('files'), hive_partitioning = true,
        hive_types = {{'mirror': VARCHAR}}, union_by_name = true)) -- older files have no such column
        QUALIFY row_number() OVER (PARTITION BY mirror, upstream, instance, uuid ORDER BY seq DESC) = 1;
    SELECT instance, full_name, is_private, deleted_at FROM repositories LIMIT 10;

`mirror lake merge DIR OUT` makes one row of each repository, even if many mirrors have it.
"""


class _Schema(msgspec.Struct):
    layout: int


def check_place(place: Place) -> None:
    """Check that a place is a lake of this layout or empty; raises ConfigError, StoreError.

    `_SCHEMA.json` and manifests mark a lake. Until the first export is complete, a place may only hold the
    tables and staging folders of that export.
    """
    text = place.read(SCHEMA)
    if text is None:
        names = place.names()
        ours = {table.name for table in TABLES}
        others = sorted(name for name in names - ours if not name.startswith(STAGING))
        if others and "_manifests" not in names:
            raise ConfigError(f"{place}: not a lake, it has other files ({others[0]}); give an empty folder")
        return
    try:
        layout = msgspec.json.decode(text, type=_Schema).layout
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigError(f"{place}/{SCHEMA}: does not belong to a lake; give an empty folder") from None
    if layout != LAYOUT:
        raise StoreError(f"{place}: is of layout {layout}, and this program knows {LAYOUT}")


def write_about(place: Place, staging: Path) -> None:
    """Write `README.md` and `_SCHEMA.json` if they are missing or differ."""
    texts = {SCHEMA: schema_text(), "README.md": README.format(buckets=BUCKETS)}
    for name, text in texts.items():
        if place.read(name) != text.encode():
            place.write(staging, name, text.encode())


def schema_text() -> str:
    """Return the text of `_SCHEMA.json`."""
    tables = {table.name: _description_of(table) for table in TABLES}
    return json.dumps({"layout": LAYOUT, "buckets": BUCKETS, "tables": tables}, indent=1) + "\n"


def _description_of(table: Table) -> dict[str, object]:
    kinds = {"moment": "timestamp[us, UTC]", "texts": "list<string>", "flag": "bool", "number": "double"}
    types = {**kinds, "integer": "int64", "text": "string", "instance": "string", "upstream": "int64"}
    return {
        "about": table.about,
        "folders": ["mirror", "bucket"] if table.in_buckets else ["mirror"],
        "rows_follow": table.follows,
        "columns": [
            {"name": column.name, "type": types[column.kind], "about": column.about}
            for column in table.columns
        ],
    }
