"""What a mirror's part of a lake consists of: a manifest names all its files, and takes its place at the end.

A reader that takes the files of `latest.json`, and no others, always has one whole export. The files of the
last few manifests stay, so that whoever began to read may go on.
"""

from pathlib import Path

import msgspec

from mirror.errors import StoreError
from mirror.lake.columns import LAYOUT
from mirror.lake.place import Place

KEPT = 3
"""How many manifests, with their files, stay."""

LATEST = "latest.json"


class LakeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an export, by its path in the lake.

    `content` is a digest of its rows, but for which export wrote them and when they were seen last. `base`
    says that it does not add to earlier ones.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    content: str
    base: bool


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One export of a mirror. `moment` is what it is of: the last complete sync, else the last listing.

    - `export`: a random id, by which the mirror's file knows what was exported.
    - `additions`: how many exports since the last full one added files.
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
    """Return the manifest in force, None without one; raises StoreError for one of another version."""
    text = place.read(f"{folder_of(mirror)}/{LATEST}")
    return None if text is None else _decoded(text, f"{place}/{folder_of(mirror)}/{LATEST}")


def read_all(place: Place) -> list[Manifest]:
    """Return the manifest in force of every mirror, in the order of their ids; raises StoreError."""
    names = [path for path in place.list("_manifests") if path.endswith(f"/{LATEST}")]
    found = [(path, place.read(path)) for path in sorted(names)]
    return [_decoded(text, f"{place}/{path}") for path, text in found if text is not None]


def _decoded(text: bytes, where: str) -> Manifest:
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"{where}: is no manifest of a lake: {error}") from error
    if manifest.layout != LAYOUT:
        raise StoreError(f"{where}: is of layout {manifest.layout}, and this program knows {LAYOUT}")
    return manifest


def place_manifest(place: Place, manifest: Manifest, staging: Path) -> None:
    """Put a manifest in force."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    folder = folder_of(manifest.mirror)
    place.write(staging, f"{folder}/{manifest.seq:08}.json", text)
    place.write(staging, f"{folder}/{LATEST}", text)


def remove_superseded(place: Place, manifest: Manifest) -> None:
    """Remove the manifests before the last few, and the files that none of the others names."""
    folder = folder_of(manifest.mirror)
    numbered = sorted(path for path in place.list(folder) if not path.endswith(f"/{LATEST}"))
    there = [path for path in numbered if path <= f"{folder}/{manifest.seq:08}.json"]
    kept = dict.fromkeys(manifest.files())
    for path in there[-KEPT:]:
        text = place.read(path)
        kept |= {} if text is None else dict.fromkeys(_decoded(text, path).files())
    for table in {path.partition("/")[0] for path in kept} | set(manifest.tables):
        for path in place.list(f"{table}/mirror={manifest.mirror}"):
            if path not in kept:
                place.remove(path)
    for path in numbered:
        if path not in there[-KEPT:]:
            place.remove(path)
