"""The folder of a site: what did not change is not written, what is not wanted any more is removed.

Each file is written beside its place and put there as a whole; the list of all files, the manifest, is
written last. After a run that was killed, the next one writes what is missing, and removes what nobody
listed.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mirror.errors import ConfigError
from mirror.store.files import explained

MANIFEST = ".mirror-site.json"
OURS = ("assets", "owners", "r", "search", "u")
"""Folders of which every file is the site's own. What else lies beside them (`CNAME`, `.git`) stays."""

_PART = ".part"
_FILE, _FOLDER = 0o644, 0o755


class Manifest(msgspec.Struct):
    """Each file of a site, from its top, with the hash and the size of its bytes."""

    files: dict[str, tuple[str, int]] = {}


class SiteFolder:
    """A folder that is brought to what a run writes.

    Raises ConfigError for a folder that has other files and no manifest, or that is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = set[str]()
        self._new = Manifest({})
        self.written = self.removed = self.bytes = 0
        with explained(folder):
            self._old = self._begun()

    def _begun(self) -> Manifest:
        """Read the manifest; begin one in an empty folder, so that a killed run can go on."""
        place = self._folder / MANIFEST
        if self._folder.exists() and not self._folder.is_dir():
            raise ConfigError(f"{self._folder}: is no folder; name one for the site")
        if not place.exists():
            if self._folder.exists() and any(self._folder.iterdir()):
                raise ConfigError(f"{self._folder}: has other files, and is no site; name an empty folder")
            self._replace(MANIFEST, msgspec.json.encode(Manifest({})))
        try:
            return msgspec.json.decode(place.read_bytes(), type=Manifest)
        except msgspec.DecodeError:
            return Manifest({})  # damaged: everything is written again

    def write(self, path: str, body: bytes) -> None:
        """Write a file of the site, unless it is there already."""
        self.bytes += len(body)
        known = (hashlib.blake2b(body, digest_size=16).hexdigest(), len(body))
        if path in self._new.files:
            raise ValueError(f"two pages would be the file {path}")
        self._new.files[path] = known
        with explained(self._folder):
            if self._old.files.get(path) != known or self._size(path) != len(body):
                self._replace(path, body)
                self.written += 1

    def finish(self) -> int:
        """Remove what is not wanted any more, write the manifest; return how many files the site has."""
        with explained(self._folder):
            wanted = self._new.files
            for path in {*self._old.files, *self._found()} - wanted.keys():
                (self._folder / path).unlink(missing_ok=True)
                self.removed += 1
            self._remove_empty_folders()
            if self._old != self._new:
                self._replace(MANIFEST, msgspec.json.encode(self._new, order="deterministic"))
            (self._folder / MANIFEST).touch()  # its time tells when the site was made last
        return len(wanted)

    def _size(self, path: str) -> int:
        try:
            return (self._folder / path).stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            return -1

    def _found(self) -> Iterator[str]:
        """Yield the files in the site's own folders, from the top."""
        for ours in OURS:
            for at, _, names in os.walk(self._folder / ours):
                for name in names:
                    yield (Path(at) / name).relative_to(self._folder).as_posix()

    def _remove_empty_folders(self) -> None:
        for ours in OURS:
            for at, _, _ in os.walk(self._folder / ours, topdown=False):
                if not list(Path(at).iterdir()):
                    Path(at).rmdir()

    def _replace(self, path: str, body: bytes) -> None:
        place = self._folder / path
        parent = place.parent
        if str(parent) not in self._made:
            parent.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
            self._made.add(str(parent))
        part = place.with_name(place.name + _PART)
        with part.open("wb") as file:
            os.fchmod(file.fileno(), _FILE)
            file.write(body)
        part.replace(place)
